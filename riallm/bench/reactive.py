"""RxT's side of `riallm bench turns`: turns that are timed, and in a process of its own turns that are counted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from riallm.bench.peak import free_at_once, peak, peak_from_now
from riallm.bench.stateless import Turn, drawing, now
from riallm.core.workers import worker_begins

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

    from riallm.models.rxt import RxT, RxTConfig
    from riallm.nn.memory_state import MemoryState


class Reactive:
    """A turn reads a memory of fixed size, and writes it. Weights are drawn: they do not matter for time."""

    def __init__(self, shape: RxTConfig, *, device: str = "cpu") -> None:
        from riallm.models.rxt import RxT

        self.model: RxT = RxT(shape).eval()
        self.model.initialise(0)
        self.model.to(device)
        self.device = device
        self.draw = drawing(shape.vocab_size, device)

    def turn(self, memory: MemoryState, query: int, answer: int) -> tuple[Turn, MemoryState]:
        """One turn, measured, and the memory behind it."""
        import torch

        from riallm.nn.meta import TokenMeta

        asked = self.draw(query)
        began = now(self.device)
        meta = TokenMeta.plain(*asked.shape, device=self.device)
        out = self.model(asked, meta, self.model.turn(memory))  # `decode` has the head name what follows each token
        said = [self.model.logits(out.hidden[:, -1:]).argmax(dim=-1)]
        first = now(self.device)
        state = out.state
        for _ in range(answer - 1):
            logits, state = self.model.decode(said[-1], state)
            said.append(logits.argmax(dim=-1))
        rest = now(self.device)
        tokens = torch.cat((asked, *said), dim=1)
        memory = self.model.end_turn(tokens, torch.ones_like(tokens, dtype=torch.bool), memory)
        update = now(self.device) - rest
        return Turn(first=first - began, rest=rest - first, update=update, kept=memory.num_bytes), memory


def counter() -> FlopCounterMode:
    """PyTorch's count of FLOPs, with the fused attention of the CPU, which it leaves out, as it counts a GPU's."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(q: torch.Size, k: torch.Size, v: torch.Size, *rest: object, **names: object) -> int:
        flops: int = sdpa_flop_count(q, k, v)  # type: ignore[no-untyped-call]
        return flops

    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={fused: attention})


class Counting:
    """Turns from memories of the caller's, in the other process: there freed memory is given back at once, which takes
    time, and nothing else is at the peak. Ask for all peaks first: counting FLOPs leaves something behind."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def peak(self, memory: MemoryState, query: int, answer: int) -> int:
        """Bytes at the process's peak within a turn."""
        return self._pool.submit(_peak, memory.slots.cpu().numpy(), query, answer).result()

    def flops(self, memory: MemoryState, query: int, answer: int) -> int:
        """FLOPs of a turn."""
        return self._pool.submit(_flops, memory.slots.cpu().numpy(), query, answer).result()


@contextmanager
def counting_process(shape: RxTConfig, *, num_threads: int, device: str) -> Iterator[Counting]:
    """For the time of the block."""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_begin, initargs=(shape, num_threads, device)
    ) as pool:
        yield Counting(pool)


_there: list[Reactive] = []
"""In the process that counts."""


def _begin(shape: RxTConfig, num_threads: int, device: str) -> None:
    import torch

    worker_begins()
    free_at_once()
    torch.set_num_threads(num_threads)
    _there.append(Reactive(shape, device=device))


def _peak(slots: Any, query: int, answer: int) -> int:
    import torch

    [reactive] = _there
    with torch.inference_mode():
        memory = _memory(reactive, slots)
        peak_from_now(reactive.device)
        reactive.turn(memory, query, answer)
    return 1024 * peak(reactive.device)


def _flops(slots: Any, query: int, answer: int) -> int:
    [reactive] = _there
    with counter() as counted:  # with gradients on nothing is compiled, so that PyTorch sees all of it
        reactive.turn(_memory(reactive, slots), query, answer)
    flops: int = counted.get_total_flops()
    return flops


def _memory(reactive: Reactive, slots: Any) -> MemoryState:
    import torch

    start = reactive.model.start()
    return replace(start, slots=torch.from_numpy(slots).to(start.slots))
