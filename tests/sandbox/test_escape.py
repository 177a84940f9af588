"""The escape suite: no attack through the first tier, as root and as an ordinary user; weaker tiers as tight as stated.

Each attack is also run free, to show that it could succeed at all. Which were not proven so is said at the end.
"""

from __future__ import annotations

import os
from functools import cache

import pytest
from sandboxing import need, note

from riallm.bench import escape
from riallm.bench.attacks import ALL, Proof
from riallm.sandbox import probe
from riallm.sandbox.base import Tier

WHO = ("root", "user")
slow = pytest.mark.slow


@cache
def found(who: str, run: str) -> dict[str, bool | str]:
    """Results of one run of all attacks."""
    me = "root" if os.geteuid() == 0 else "user"
    if who == me:
        return escape.measure([run])[run]
    if me == "user":
        pytest.skip("the suite as root needs root; this run covers the ordinary user only")
    return escape.measure_ordinary([run])[run]


def through(results: dict[str, bool | str]) -> set[str]:
    """Names of attacks that got through; a run that failed by itself is a failure of the test."""
    broken = {name: result for name, result in results.items() if isinstance(result, str)}
    assert broken == {}
    return {name for name, result in results.items() if result}


def test_there_are_enough_attacks() -> None:
    assert len(ALL) >= 45
    assert len({attack.name for attack in ALL}) == len(ALL)
    assert {attack.proof for attack in ALL} == set(Proof)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", WHO)
def test_none_through_the_first_tier(who: str, request: pytest.FixtureRequest) -> None:
    need(Tier.BUBBLEWRAP)
    assert through(found(who, Tier.BUBBLEWRAP)) == set()
    more = sum(attack.needs not in ("", "root" if who == "root" else "") for attack in ALL)
    words = f"{more} of them take more to succeed than this user or this machine may have"
    note(request.config, f"escape suite: bubblewrap, {who}: all of {len(ALL)} attacks held; {words}")


@slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("tier", [Tier.NAMESPACES, Tier.LANDLOCK])
def test_weaker_tiers_are_as_tight_as_stated(tier: Tier, who: str, request: pytest.FixtureRequest) -> None:
    need(tier)
    gaps = escape.GAPS.get((str(tier), who), frozenset())
    assert through(found(who, tier)) == gaps
    note(request.config, f"escape suite: {tier}, {who}: held but for {len(gaps)} known: {sorted(gaps)}")


@slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", WHO)
def test_free_attacks_succeed(who: str, request: pytest.FixtureRequest) -> None:
    results = found(who, escape.FREE)
    must = {attack.name for attack in ALL if not attack.needs or (attack.needs == "root" and who == "root")}
    failed = {name for name, result in results.items() if result is not True}
    assert must & failed == set()
    needs = sorted(f"{attack.name} ({attack.needs})" for attack in ALL if attack.name in failed)
    note(request.config, f"escape suite: free, {who}: {len(needs)} could not be shown to work: {needs}")


@pytest.mark.parametrize("who", WHO)
def test_a_few_free_attacks_show_that_the_judge_sees(who: str) -> None:
    """The quick part of the test above: one attack of each kind of proof."""
    if who == "user":
        pytest.skip("as an ordinary user this is part of the slow tests")
    chosen = {attack.proof: attack for attack in ALL if not attack.needs}
    results = escape.measure([escape.FREE], attacks=list(chosen.values()))[escape.FREE]
    assert through(results) == {attack.name for attack in chosen.values()}


def test_gaps_are_stated_of_attacks_that_are() -> None:
    assert {name for names in escape.GAPS.values() for name in names} <= {attack.name for attack in ALL}
    assert {tier for tier, _ in escape.GAPS} <= {str(report.tier) for report in probe()} - {str(Tier.BUBBLEWRAP)}


def test_the_table_tells_all() -> None:
    results = {attack.name: attack.name == ALL[0].name for attack in ALL}
    free = {attack.name: attack.name != ALL[1].name for attack in ALL}
    found: dict[str, escape.Found] = {"root": {escape.FREE: free, "a tier": results}}
    lines = escape.table(found).splitlines()
    assert lines[:2] == ["a  free, root", "b  a tier, root"]
    first = next(n for n, line in enumerate(lines) if line.startswith(ALL[0].name))
    assert [line.split()[-2:] for line in lines[first : first + 3]] == [["T", "T"], [".", "o"], ["T", "."]]
    assert [line.split()[-1] for line in lines[-4:]] == ["1", str(len(ALL) - 2), "1", "0"]
    assert escape.figures(found) == {
        "attacks": len(ALL), "through free, root": len(ALL) - 1, "through a tier, root": 1,
    }  # fmt: skip
