"""Settings by name: of one configuration and of several in it, and in what two of them differ."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from riallm.core.config import differing, override, to_json
from riallm.core.errors import UsageError


@dataclass(frozen=True)
class Phase:
    begin: float = 0.0


@dataclass(frozen=True)
class Part:
    name: str
    rows: int = 1
    phases: tuple[Phase, ...] = (Phase(), Phase(begin=0.5))


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...] = (Part("one"), Part("two", rows=2))
    shares: tuple[float, ...] = (1.0, 2.0)
    seed: int | None = None


def test_one_of_several_goes_by_its_name_or_else_its_number() -> None:
    made = override(Whole(), ["parts.two.rows=8", "parts.one.phases.1.begin=0.25", "seed=3"])
    assert made == Whole(parts=(Part("one", phases=(Phase(), Phase(begin=0.25))), Part("two", rows=8)), seed=3)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("parts.0.rows=8", "'0' is not one of one, two"),
        ("parts.two.size=8", "'size' is not one of name, rows, phases"),
        ("parts.two.phases.2.begin=0.1", "'2' is not one of 0, 1"),
        ("shares.0=2.0", r"'0' is sought in \(1.0, 2.0\), which is given as a whole"),
        ("parts.two=3", "parts.two: expected Part|parts.two: expected an object"),
        ("seed", "write name=value, for instance dtype=float32"),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        override(Whole(), [assignment])


def test_what_differs_has_its_name_and_both_values() -> None:
    one = to_json(Whole())
    assert differing(one, to_json(Whole())) == []
    other = to_json(override(Whole(), ["parts.two.rows=8", "parts.one.phases.1.begin=0.25", "seed=3", "shares=[1.0]"]))
    assert differing(one, other) == [
        ("parts.one.phases.1.begin", 0.5, 0.25),
        ("parts.two.rows", 2, 8),
        ("shares", [1.0, 2.0], [1.0]),
        ("seed", None, 3),
    ]
    turned = to_json(Whole(parts=(Part("two", rows=2), Part("one"))))
    assert [name for name, _, _ in differing(one, turned)] == ["parts"], "the same parts in another order"
    del other["seed"]
    assert ("seed", None, 3) in differing(other, {**other, "seed": 3})
