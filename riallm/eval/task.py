"""A task: samples, a way to solve them, and a score. Every figure that leaves it carries its standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from riallm.eval.stats import Estimate, mean

Sample = TypeVar("Sample")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one answer is worth. `value` in [0, 1]; `answer` as it was judged; `explanation` for the reader."""

    value: float
    answer: str
    explanation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[Sample, Answer]):
    """Samples, how to solve one, and how to judge what came out."""

    name: str
    samples: Iterable[Sample]
    solve: Callable[[Sample], Answer]
    score: Callable[[Sample, Answer], Score]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All scores of a task; `estimate` is their mean with standard error and interval."""

    task: str
    scores: tuple[Score, ...]
    estimate: Estimate


def judged(task: Task[Sample, Answer]) -> Iterator[tuple[Sample, Score]]:
    """Solve and judge one sample after the other, as the caller asks for them."""
    for sample in task.samples:
        yield sample, task.score(sample, task.solve(sample))


def run(task: Task[Sample, Answer]) -> Outcome:
    """Solve and judge every sample."""
    scores = tuple(score for _, score in judged(task))
    return Outcome(task=task.name, scores=scores, estimate=mean([score.value for score in scores]))
