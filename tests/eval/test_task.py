"""A task is samples, a way to solve them and a score."""

import pytest

from riallm.eval.task import Score, Task, judged, run


def square_task(wrong: int) -> Task[int, int]:
    return Task(
        name="squares",
        samples=range(4),
        solve=lambda sample: sample * sample + (sample == wrong),
        score=lambda sample, answer: Score(value=float(answer == sample**2), answer=str(answer)),
    )


def test_every_outcome_has_its_standard_error():
    outcome = run(square_task(wrong=2))
    assert [score.answer for score in outcome.scores] == ["0", "1", "5", "9"]
    assert outcome.estimate.value == 0.75
    assert outcome.estimate.standard_error == pytest.approx(0.25)
    assert outcome.estimate.num == 4


def test_samples_are_solved_as_they_are_asked_for():
    solved = []
    task = Task(name="t", samples="ab", solve=solved.append, score=lambda s, a: Score(value=1.0, answer=s))
    steps = judged(task)
    next(steps)
    assert solved == ["a"]
