"""What a turn of a conversation costs as it gets longer: `riallm bench turns [--turns 128]`.

RxT in Beta-Micro's shape, beside a model without memory of as many active parameters, once with the keys and values of
all earlier turns at hand, once reading them anew every turn. Weights are random: they do not matter for time. A turn is
a query, an answer of a fixed length, and for RxT the update of its memory, which is told apart: nobody waits for it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from riallm.bench.card import Card, Figure, emit
from riallm.bench.peak import check_peak, peak, peak_from_now
from riallm.bench.progress import progress_bar
from riallm.core.errors import RiallmError, UsageError
from riallm.eval.stats import Estimate, bootstrap

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.flop_counter import FlopCounterMode

    from riallm.models.llama import Llama, LlamaConfig
    from riallm.models.rxt import RxT, RxTConfig
    from riallm.nn.memory_state import MemoryState

INNER = 2200
"""Inner size of the stateless model's networks, with which it has RxT's active parameters within 0.1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Seconds to the first token, of the rest of the answer and of the memory's update; FLOPs of all three, None
    where nobody counted; bytes that the conversation keeps behind the turn, and the process's peak within it."""

    first: float
    rest: float
    update: float
    flops: float | None
    kept: int
    peak: int


class Reactive:
    """RxT: a turn reads a memory of fixed size, and writes it."""

    def __init__(self, model: RxT, draw: Callable[[int], Tensor]) -> None:
        self.model, self.draw = model, draw
        self.memory: MemoryState = model.start()

    def turn(self, query: int, answer: int, *, count: bool) -> Turn:
        """One turn, measured. count: its FLOPs too, in a second run of the same turn, which is not measured."""
        asked = self.draw(query)
        before = self.memory
        peak_from_now()
        first, rest, update, kept = self._run(asked, answer, before)
        highest, after = peak(), self.memory
        flops = None
        if count:
            with counter() as counted:
                self._run(asked, answer, before)
            flops = counted.get_total_flops()
            self.memory = after
        return Turn(first=first, rest=rest, update=update, flops=flops, kept=kept, peak=highest * 1024)

    def _run(self, asked: Tensor, answer: int, memory: MemoryState) -> tuple[float, float, float, int]:
        import torch

        from riallm.nn.meta import TokenMeta

        began = time.perf_counter()
        state = self.model.turn(memory)
        out = self.model(asked, TokenMeta.plain(*asked.shape), state)
        said = [self.model.logits(out.hidden[:, -1:]).argmax(dim=-1)]
        first = time.perf_counter()
        for at in range(answer - 1):
            out = self.model(said[-1], TokenMeta.plain(1, 1, start=asked.shape[1] + at), out.state)
            said.append(self.model.logits(out.hidden).argmax(dim=-1))
        rest = time.perf_counter()
        tokens = torch.cat((asked, *said), dim=1)
        self.memory = self.model.end_turn(tokens, torch.ones_like(tokens, dtype=torch.bool), memory)
        return first - began, rest - first, time.perf_counter() - rest, self.memory.num_bytes


def counter() -> FlopCounterMode:
    """PyTorch's count of FLOPs, with the fused attention of the CPU, which it leaves out, as it counts a GPU's."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(q: torch.Size, k: torch.Size, v: torch.Size, *rest: object, **names: object) -> int:
        flops: int = sdpa_flop_count(q, k, v)  # type: ignore[no-untyped-call]
        return flops

    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={fused: attention})


class Stateless:
    """A decoder over the whole conversation, in pages. cached: the earlier turns' keys and values are at hand."""

    def __init__(self, model: Llama, draw: Callable[[int], Tensor], *, num_tokens: int, cached: bool) -> None:
        from riallm.nn.paged import PAGE, PageStore

        self.model, self.draw, self.cached = model, draw, cached
        sizes = model.sizes
        self.store = PageStore(
            num_pages=-(-num_tokens // PAGE),
            num_layers=sizes.num_hidden_layers,
            num_kv_heads=sizes.num_key_value_heads,
            head_dim=sizes.head_dim,
            dtype=model.dtype,
        )
        self.history = self.draw(0)

    def turn(self, query: int, answer: int) -> Turn:
        """One turn, measured; FLOPs by the model's own count."""
        import torch

        before = self.history.shape[1]
        tokens = torch.cat((self.history, self.draw(query)), dim=1)
        peak_from_now()
        began = time.perf_counter()
        said = [self._step(tokens[:, before:] if self.cached else tokens, before if self.cached else 0)]
        first = time.perf_counter()
        for at in range(answer - 1):
            said.append(self._step(said[-1], tokens.shape[1] + at))
        rest = time.perf_counter()
        highest = peak()
        self.history = torch.cat((tokens, *said), dim=1)
        total = self.history.shape[1]
        return Turn(
            first=first - began,
            rest=rest - first,
            update=0.0,
            flops=self.flops(before if self.cached else 0, total - 1),
            kept=total * sum(spec.bytes_per_token for spec in self.model.state_specs()),
            peak=highest * 1024,
        )

    def skip(self, num: int) -> None:
        """Pretend that so many tokens were read, for turns whose cost is not measured."""
        self.history = self.draw(num)

    def flops(self, first: int, last: int) -> float:
        """FLOPs of tokens `first` to `last` of the conversation, each looking at all before it and itself."""
        costs = self.model.costs()
        pairs = (last * (last + 1) - first * (first + 1)) // 2
        return (last - first) * costs.flops_per_token + pairs * costs.attention_flops_per_token_pair

    def _step(self, tokens: Tensor, before: int) -> Tensor:
        import torch

        from riallm.nn.paged import PAGE, PagedState, Table, row_of

        total = before + tokens.shape[1]
        pages = tuple(range(-(-total // PAGE)))
        table = Table(pages=pages, num_tokens=before, relations=torch.ones(1, 1, dtype=torch.int64))
        state = PagedState(store=self.store, tables=(table,))
        out = self.model(tokens, row_of([table], [[0] * tokens.shape[1]]), state)
        return self.model.logits(out.hidden[:, -1:]).argmax(dim=-1)


def slope(values: Sequence[float]) -> Estimate:
    """Least-squares change a turn, as a share of the mean, with a bootstrap interval over turns."""

    def fitted(pairs: Sequence[tuple[int, float]]) -> float:
        turns, costs = [turn for turn, _ in pairs], [cost for _, cost in pairs]
        if len(set(turns)) < 2:
            return 0.0
        return statistics.linear_regression(turns, costs).slope / statistics.fmean(costs)

    return bootstrap(list(enumerate(values)), fitted, seed=0)


def crossing(turns: Sequence[int], ours: float, theirs: Sequence[float]) -> float | None:
    """The turn from which on theirs costs more than ours, between measured turns by a straight line; None: never."""
    for (turn, cost), (later, more) in zip(
        zip(turns, theirs, strict=True), zip(turns[1:], theirs[1:], strict=True), strict=False
    ):
        if cost > ours:
            return float(turn)
        if more > ours:
            return turn + (later - turn) * (ours - cost) / (more - cost)
    return None


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench turns", description="what turn 2 to N of a conversation costs")
    parser.add_argument("--turns", type=int, default=128, help="of the conversation (default 128)")
    parser.add_argument("--query", type=int, default=64, help="tokens of a query (default 64)")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer (default 32)")
    parser.add_argument("--layers", type=int, default=14, help="a shallower model, for a trial (default 14)")
    options = parser.parse_args(argv)
    try:
        check_peak()
        if options.turns < 3 or options.query < 1 or options.answer < 2 or options.layers < 1:
            raise UsageError("--turns is from 3 on, --query from 1, --answer from 2, --layers from 1")
        figures = measure(options.turns, options.query, options.answer, options.layers)
    except RiallmError as error:
        sys.stderr.write(f"turns: {error}\n")
        return error.exit_code
    emit(Card(name="turns", command=" ".join(["riallm bench turns", *argv]), figures=figures))
    return 0


def shapes(layers: int) -> tuple[RxTConfig, LlamaConfig]:
    """RxT-Beta-Micro and its stateless peer."""
    from riallm.models.llama import LlamaConfig
    from riallm.models.zoo import RXT_BETA_MICRO

    shape = replace(RXT_BETA_MICRO, num_layers=layers)
    peer = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=shape.decoder_heads,
        num_key_value_heads=shape.decoder_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=1 << 20,
    )
    return shape, peer


def measure(num: int, query: int, answer: int, layers: int) -> dict[str, Figure]:
    """All figures. At powers of two RxT's FLOPs are counted, and re-reading is measured with the history so far."""
    import torch

    from riallm.models.llama import Llama
    from riallm.models.rxt import RxT

    generator = torch.Generator().manual_seed(0)
    shape, peer = shapes(layers)
    reactive, stateless = RxT(shape).eval(), Llama(peer).eval()
    reactive.initialise(0)

    def draw(tokens: int) -> Tensor:
        return torch.randint(0, reactive.config.vocab_size, (1, tokens), generator=generator)

    each, chosen = query + answer, [turn for turn in (2**k for k in range(20)) if turn <= num]
    with torch.inference_mode(), progress_bar("turns", 2 * num + len(chosen)) as done:
        ours, cached, anew = [], [], []
        conversation = Reactive(reactive, draw)
        kept = Stateless(stateless, draw, num_tokens=num * each, cached=True)
        for turn in range(num):  # side by side, so that a busy moment of the machine meets both
            ours.append(conversation.turn(query, answer, count=turn + 1 in chosen))
            cached.append(kept.turn(query, answer))
            done(2 * turn + 2)
        reader = Stateless(stateless, draw, num_tokens=num * each, cached=False)
        for number, turn in enumerate(chosen):
            reader.skip((turn - 1) * each)
            anew.append(reader.turn(query, answer))
            done(2 * num + number + 1)
    return told(ours, cached, anew, chosen) | {"query": query, "answer": answer, "threads": torch.get_num_threads()}


def told(
    ours: Sequence[Turn], cached: Sequence[Turn], anew: Sequence[Turn], chosen: Sequence[int]
) -> dict[str, Figure]:
    """The figures of all turns. The first turn warms up and counts nowhere."""
    later = ours[1:]
    figures: dict[str, Figure] = {"turns": len(ours)}
    for name in ("first", "rest", "update"):
        values = [getattr(turn, name) for turn in later]
        figures[f"{name}_milliseconds"] = 1000 * statistics.median(values)
        change = slope(values)
        figures[f"{name}_slope_percent_a_turn"] = 100 * change.value
        figures[f"{name}_slope_low"], figures[f"{name}_slope_high"] = 100 * change.low, 100 * change.high
    for name in ("flops", "kept", "peak"):
        values = [value for turn in later if (value := getattr(turn, name)) is not None]
        figures[f"{name}_median"] = statistics.median(values)
        figures[f"{name}_spread_percent"] = 100 * (max(values) - min(values)) / statistics.median(values)
    turns = range(2, len(ours) + 1)
    first = statistics.median(turn.first for turn in later)
    whole = statistics.median(turn.first + turn.rest + turn.update for turn in later)
    flops = statistics.median(_counted(later))
    rest_of = cached[1:]
    figures["cached_first_from_turn"] = crossing(turns, first, _line([turn.first for turn in rest_of]))
    figures["cached_whole_from_turn"] = crossing(turns, whole, _line([turn.first + turn.rest for turn in rest_of]))
    figures["cached_flops_from_turn"] = crossing(turns, flops, _counted(rest_of))
    figures["cached_bytes_from_turn"] = crossing(turns, later[0].kept, [turn.kept for turn in rest_of])
    figures["anew_first_from_turn"] = crossing(chosen, first, [turn.first for turn in anew])
    figures["anew_whole_from_turn"] = crossing(chosen, whole, [turn.first + turn.rest for turn in anew])
    figures["anew_flops_from_turn"] = crossing(chosen, flops, _counted(anew))
    for turn, read in zip(chosen, anew, strict=True):
        kept = cached[turn - 1]
        figures[f"turn_{turn}_first_milliseconds_ours"] = 1000 * ours[turn - 1].first
        figures[f"turn_{turn}_first_milliseconds_cached"] = 1000 * kept.first
        figures[f"turn_{turn}_first_milliseconds_anew"] = 1000 * read.first
        figures[f"turn_{turn}_gflops_cached"], figures[f"turn_{turn}_gflops_anew"] = (
            (kept.flops or 0.0) / 1e9,
            (read.flops or 0.0) / 1e9,
        )
    return figures


def _counted(turns: Sequence[Turn]) -> list[float]:
    return [turn.flops for turn in turns if turn.flops is not None]


def _line(values: Sequence[float]) -> list[float]:
    """The least-squares line through values of a noisy machine."""
    fitted = statistics.linear_regression(range(len(values)), values)
    return [fitted.intercept + fitted.slope * at for at in range(len(values))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
