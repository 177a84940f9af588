"""The peer of `riallm bench turns`: a stateless decoder over the whole conversation, in a process of its own, so that
its pages are not counted as RxT's memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

from riallm.bench.gpu.speed import wait
from riallm.core.workers import worker_begins

if TYPE_CHECKING:
    from torch import Tensor

    from riallm.models.llama import Llama, LlamaConfig
    from riallm.models.rxt import RxTConfig

INNER = 2200
"""Inner size of the stateless model's networks, with which it has RxT's active parameters within 0.1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Seconds to the first token, of the rest of the answer and of the memory's update; bytes that the conversation
    keeps behind the turn; FLOPs of all, where they can be told from how many tokens there are."""

    first: float
    rest: float
    update: float
    kept: int
    flops: float = math.nan


def now(device: str) -> float:
    """Seconds on the clock when the device has done everything that was asked of it."""
    wait(device)
    return time.perf_counter()


def drawing(vocab_size: int, device: str) -> Callable[[int], Tensor]:
    """Gives rows (1, T) of tokens, others each time and the same in each run."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def draw(num: int) -> Tensor:
        return torch.randint(0, vocab_size, (1, num), generator=generator).to(device)

    return draw


def peer_config(shape: RxTConfig) -> LlamaConfig:
    """The stateless model beside RxT in a shape."""
    from riallm.models.llama import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=INNER,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.decoder_heads,
        num_key_value_heads=shape.decoder_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=1 << 20,
    )


class Stateless:
    """A decoder over the whole conversation, in pages. cached: the earlier turns' keys and values are at hand. On a GPU
    attention is PyTorch's, over a copy of the pages."""

    def __init__(
        self, model: Llama, draw: Callable[[int], Tensor], *, num_tokens: int, cached: bool, device: str = "cpu"
    ) -> None:
        from riallm.nn.paged import PAGE, PageStore

        self.model, self.draw, self.cached, self.device = model, draw, cached, device
        sizes = model.sizes
        self.store = PageStore(
            num_pages=-(-num_tokens // PAGE),
            num_layers=sizes.num_hidden_layers,
            num_kv_heads=sizes.num_key_value_heads,
            head_dim=sizes.head_dim,
            dtype=model.dtype,
            device=device,
        )
        self.history = self.draw(0)

    def turn(self, query: int, answer: int) -> Turn:
        """One turn, measured; FLOPs by the model's own count."""
        import torch

        before = self.history.shape[1]
        tokens = torch.cat((self.history, self.draw(query)), dim=1)
        began = now(self.device)
        said = [self._step(tokens[:, before:] if self.cached else tokens, before if self.cached else 0)]
        first = now(self.device)
        for at in range(answer - 1):
            said.append(self._step(said[-1], tokens.shape[1] + at))
        rest = now(self.device)
        self.history = torch.cat((tokens, *said), dim=1)
        total = self.history.shape[1]
        return Turn(
            first=first - began,
            rest=rest - first,
            update=0.0,
            flops=self.flops(before if self.cached else 0, total - 1, said=answer),
            kept=total * sum(spec.bytes_per_token for spec in self.model.state_specs()),
        )

    def skip(self, num: int) -> None:
        """Pretend that so many tokens were read, for turns whose cost is not measured."""
        self.history = self.draw(num)

    def flops(self, first: int, last: int, *, said: int) -> float:
        """FLOPs of tokens `first` to `last` of the conversation, each looking at all before it and itself; the head
        names what follows `said` of them."""
        costs = self.model.costs()
        head = 2 * self.model.sizes.vocab_size * self.model.sizes.hidden_size
        pairs = (last * (last + 1) - first * (first + 1)) // 2
        tokens = (last - first) * (costs.flops_per_token - head) + said * head
        return tokens + pairs * costs.attention_flops_per_token_pair

    def _step(self, tokens: Tensor, before: int) -> Tensor:
        import torch

        from riallm.nn.paged import PAGE, PagedState, Table, row_of

        total = before + tokens.shape[1]
        pages = tuple(range(-(-total // PAGE)))
        table = Table(pages=pages, num_tokens=before, relations=torch.ones(1, 1, dtype=torch.int64))
        state = PagedState(store=self.store, tables=(table,))
        out = self.model(tokens, row_of([table], [[0] * tokens.shape[1]]).to(self.device), state)
        return self.model.logits(out.hidden[:, -1:]).argmax(dim=-1)


class Peer:
    """`Stateless` in the other process; a call returns when its turn is over."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def turn(self, query: int, answer: int) -> Turn:
        """The next turn of the conversation whose keys and values are at hand."""
        return self._pool.submit(_turn, True, None, query, answer).result()

    def turn_anew(self, before: int, query: int, answer: int) -> Turn:
        """A turn after `before` tokens, all of which are read again."""
        return self._pool.submit(_turn, False, before, query, answer).result()


@contextmanager
def peer_process(config: LlamaConfig, *, num_tokens: int, num_threads: int, device: str) -> Iterator[Peer]:
    """A peer for conversations of at most `num_tokens`."""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_begin, initargs=(config, num_tokens, num_threads, device)
    ) as pool:
        yield Peer(pool)


_peers: dict[bool, Stateless] = {}
"""In the peer's process: cached, and reading anew."""


def _begin(config: LlamaConfig, num_tokens: int, num_threads: int, device: str) -> None:
    import torch

    from riallm.models.llama import Llama

    worker_begins()
    torch.set_num_threads(num_threads)
    draw = drawing(config.vocab_size, device)
    model = Llama(config).eval().to(device)
    for cached in (True, False):
        _peers[cached] = Stateless(model, draw, num_tokens=num_tokens, cached=cached, device=device)


def _turn(cached: bool, before: int | None, query: int, answer: int) -> Turn:
    import torch

    with torch.inference_mode():
        if before is not None:
            _peers[cached].skip(before)
        return _peers[cached].turn(query, answer)
