"""Batches made ahead by other processes and brought to the device by a thread, so that a fast device never waits.

Each batch is a function of its number, so any process may make it; they are handed out in order all the same.
"""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import count
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import torch

from riallm.core.device import num_cores
from riallm.core.workers import worker_begins


class Movable(Protocol):
    """What can be brought to a device."""

    def to(self, device: torch.device | str, /) -> Any:
        """The same there."""


B = TypeVar("B", bound=Movable)

AHEAD = 8
"""Batches that wait on the device."""


def num_makers() -> int:
    """Processes that make batches: all cores but two, and at most twelve; one fills a laptop's needs many times."""
    return max(1, min(12, num_cores() - 2))


_source: Callable[[int], Any] | None = None
"""What a worker process makes batches of."""


def _begin(source: Callable[[int], Any]) -> None:
    global _source
    worker_begins()
    torch.set_num_threads(1)  # the threads of the process that was forked are not here
    _source = source


def _made(number: int) -> bytes:
    """A batch as bytes: tensors would go through shared memory, which is small in containers."""
    assert _source is not None
    return pickle.dumps(_source(number), protocol=5)


class Feed(Generic[B]):
    """A `Source` that hands out the batches of another one, on `device`. Numbers should be asked for in order: any
    other begins anew there. makers: processes; 0 makes the batches in the thread."""

    def __init__(self, source: Callable[[int], B], *, device: str, makers: int | None = None) -> None:
        self.source, self.device = source, device
        self.makers = num_makers() if makers is None else makers
        self._next: int | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._ready: queue.Queue[B | BaseException] = queue.Queue(AHEAD)

    def __enter__(self) -> Feed[B]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, number: int) -> B:
        """The batch of a number. What its making raises is raised here."""
        if number != self._next:
            self.close()
            self._start(number)
        found = self._ready.get()
        if isinstance(found, BaseException):
            self._next = None
            raise found
        self._next = number + 1
        return found

    def _start(self, number: int) -> None:
        self._over, self._ready = threading.Event(), queue.Queue(AHEAD)
        # Begun here and not in the thread, so that the processes begin from a program that is at rest.
        made = self._by_processes(number) if self.makers else map(self.source, count(number))
        self._thread = threading.Thread(
            target=self._bring, args=(made, self._over, self._ready), name="feed", daemon=True
        )
        self._thread.start()

    def _by_processes(self, number: int) -> Iterator[B]:
        """The batches from `number` on; two for each process are under way at any time."""
        pool = self._pool = ProcessPoolExecutor(
            self.makers, mp_context=multiprocessing.get_context("fork"), initializer=_begin, initargs=(self.source,)
        )
        numbers = count(number)
        waiting: deque[Future[bytes]] = deque(pool.submit(_made, next(numbers)) for _ in range(2 * self.makers))

        def batches() -> Iterator[B]:
            while True:
                yield pickle.loads(waiting.popleft().result())
                waiting.append(pool.submit(_made, next(numbers)))

        return batches()

    def _bring(self, made: Iterator[B], over: threading.Event, ready: queue.Queue[B | BaseException]) -> None:
        try:
            for batch in made:
                if not _put(ready, batch.to(self.device), over):
                    return
        except BaseException as error:
            _put(ready, error, over)

    def close(self) -> None:
        """End the thread and the processes; batches made ahead are dropped."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)  # waits for the processes
        self._thread, self._pool, self._next = None, None, None
        if self.device != "cpu":
            torch.cuda.synchronize()


def _put(ready: queue.Queue[B | BaseException], item: B | BaseException, over: threading.Event) -> bool:
    """Whether the item was taken before the end."""
    while not over.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
