"""What facts are about: values of two parts each, and which pairs are kept for testing.

A value kept for testing is a pair that training never has, of two parts that training has in the same places. The
`unseen` values are of words that training never has at all.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test", "unseen"]
SPLITS: tuple[Split, ...] = ("train", "test", "unseen")
EVERY = 5
"""One pair in so many is kept for testing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Values that a relation may have: a first part, `between`, a second part."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    between: str = " "

    def values(self, split: Literal["train", "test"]) -> tuple[str, ...]:
        """All of a split. Together they are all pairs; the test's follow no rule that could be learned from the others,
        and a test shows that every part stays in training."""
        pairs = (f"{one}{self.between}{other}" for one in self.first for other in self.second)
        return tuple(pair for pair in pairs if (zlib.crc32(pair.encode()) % EVERY == 0) == (split == "test"))


def _kind(first: str, second: str, between: str = " ") -> Kind:
    return Kind(first=tuple(first.split()), second=tuple(second.split()), between=between)


KINDS: dict[str, Kind] = {
    "pet": _kind(
        "Captain Lady Sir Little Old Miss Lord Baby Big Lucky King Uncle",
        "Rex Luna Bruno Max Bella Coco Nero Daisy Tiger Milo Pip Sam",
    ),
    "person": _kind(
        "Mira Jonas Lea Tom Nora Paul Sara Erik Vera Otto Rosa Leo",
        "Holt Stone Berg Reed Lang Fox Moss Hale Kern Wolf Lund Marsh",
    ),
    "place": _kind(
        "North South East West New Port Lake Fort Mount Saint Upper Long",
        "Arden Dover Haven Milton Ashby Corran Perth Salem Tarbet Velm Oban Hilton",
    ),
    "street": _kind(
        "Cedar Oak Pine Maple Mill Rose Church River Castle Garden Bridge Market",
        "Street Road Lane Avenue Way Square Hill Court Walk Park Row Drive",
    ),
    "colour": _kind(
        "dark light pale bright deep soft warm dull cool rich faded dusty",
        "green red blue yellow grey brown white black pink orange purple gold",
    ),
    "dish": _kind(
        "lemon pepper garlic onion apple bean fish rice tomato mushroom cheese carrot",
        "soup pie salad stew curry cake bread roll pasta tart toast pudding",
    ),
    "job": _kind(
        "night school train bank hotel forest harbour museum theatre factory village city",
        "nurse guard driver cook clerk porter painter manager cleaner engineer writer guide",
    ),
    "thing": _kind(
        "silver wooden glass paper iron copper velvet leather plastic golden stone cotton",
        "ring lamp box bird key clock book boat cup horse coin drum",
    ),
    "date": _kind(
        "January February March April May June July August September October November December",
        "2 3 5 8 11 12 14 17 19 21 26 28",
    ),
    "code": _kind(
        "13 17 22 25 31 38 40 46 53 59 64 67 72 78 85 91", "05 12 18 20 29 34 37 43 48 56 61 66 70 83 89 94", between=""
    ),
}

UNSEEN = _kind(
    "Zorb Vexa Quag Jynx Kwal Xano Yrsa Wumo Zilp Vuko Quiz Juba Kyff Xeno Yodo Wazi",
    "Bluv Dreq Fenk Gwob Hyps Jilk Klud Mozz Nuxa Plig Rewk Snog Tawk Ubbe Vlim Zwen",
)
"""Words of the `unseen` split, the same for all kinds."""

_POOLS = {
    **{(name, split): kind.values(split) for name, kind in KINDS.items() for split in ("train", "test")},
    **{(name, "unseen"): UNSEEN.values("train") + UNSEEN.values("test") for name in KINDS},
}


def pool(kind: str, split: Split) -> tuple[str, ...]:
    """The values of a kind that a split may draw."""
    found: tuple[str, ...] = _POOLS[kind, split]
    return found


_PLAIN = tuple(kind for kind in KINDS.values() if kind.between == " ")
_KEPT = frozenset(value for kind in KINDS.values() for value in kind.values("test"))


def mixed(draw: random.Random) -> str:
    """A value of two parts of different kinds, such as "Captain soup": none that is kept for testing."""
    while True:
        one, other = draw.sample(_PLAIN, 2)
        value = f"{draw.choice(one.first)} {draw.choice(other.second)}"
        if value not in _KEPT:
            return value
