"""A model joins by the protocol alone: it reorders what the operators offer, and invents what they cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from riallm.agent.client import Client, Context
from riallm.agent.ngram import NgramClient, tokens
from riallm.agent.repair import rank
from riallm.agent.repair.program import Program
from riallm.agent.repair.project import discover
from riallm.agent.repair.propose import from_model, propose
from riallm.agent.repair.records import Suspect
from riallm.agent.repair.run import Options, repair
from riallm.core.errors import ClientError, UsageError
from riallm.testing.client import ScriptedClient
from tests.agent.conftest import MEDIAN

Make = Callable[..., Path]
ROMAN = """\
def roman(number):
    text = ""
    for value, sign in TABLE:
        while number > value:
            text += sign
    return text


TABLE = [(10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
"""
TEST_ROMAN = "from roman import roman\n\n\ndef test_all():\n    assert roman(14) == 'XIV' and roman(9) == 'IX'\n"


def test_the_protocol_is_what_both_clients_speak() -> None:
    assert isinstance(NgramClient({}), Client)
    assert isinstance(ScriptedClient(), Client)


def test_a_model_that_infills_mends_what_no_single_operator_does(project: Make) -> None:
    source = ROMAN.replace(
        "while number > value:\n            text += sign", "while number >= value:\n            text += sign"
    )
    root = project({"roman.py": source, "test_roman.py": TEST_ROMAN})
    line, mended = "text += sign", "text += sign; number -= value"
    client = ScriptedClient(scores={mended: 0.0}, infills={line: [mended]}, originals={"roman.py": source})
    options = Options(budget=60, num_workers=1, max_candidates=3000)
    outcome = repair(discover(root), options, client=client)
    assert outcome.candidate is not None
    assert outcome.candidate.edit.operator == "infill"
    assert "number -= value" in outcome.patch
    assert outcome.model == "scripted"


def test_a_model_that_scores_decides_the_order(project: Make) -> None:
    program = Program(discover(project({"stats.py": MEDIAN})))
    suspects = [Suspect(path="stats.py", line=6, score=1.0)]
    found = propose(program, suspects, max_candidates=200)
    loved = found[len(found) // 2].edit.text
    client = ScriptedClient(scores={loved: 0.0}, otherwise=-60.0)
    first = next(c for c in rank.order(program, found, arm="model", clients=rank.Clients(cache=client)) if not c.smells)
    assert first.edit.text == loved
    assert rank.order(program, found, arm="prior")[0].edit.text != loved


def test_a_model_that_knows_edits_mends_what_no_operator_does(project: Make) -> None:
    source = ROMAN.replace(
        "while number > value:\n            text += sign", "while number >= value:\n            text += sign"
    )
    root = project({"roman.py": source, "test_roman.py": TEST_ROMAN})
    change = ("text += sign", "text += sign\n            number -= value")
    client = ScriptedClient(edits={change: -1.0, ("return text", "return text + ''"): -3.0})
    options = Options(budget=60, num_workers=1, max_candidates=3000)
    outcome = repair(discover(root), options, client=client)
    assert outcome.candidate is not None and outcome.candidate.edit.operator == "infill"
    assert "+            number -= value" in outcome.patch


def test_likely_edits_are_tried_earlier(project: Make) -> None:
    program = Program(discover(project({"stats.py": MEDIAN})))
    found = propose(program, [Suspect(path="stats.py", line=6, score=1.0)], max_candidates=200)
    loved = next(each.edit for each in reversed(found) if not each.smells)
    model = ScriptedClient(edits={(loved.original, loved.text): 0.0})
    clients = rank.Clients(cache=NgramClient({"stats.py": MEDIAN}), model=model)
    ranks = []
    for asked in (rank.Clients(cache=clients.cache), clients):
        ordered = rank.order(program, found, arm="model", clients=asked)
        ranks.append(next(at for at, each in enumerate(ordered) if each.edit == loved))
    assert ranks[1] < ranks[0]
    known = rank.opinions(program, found, clients)
    texts = [value.text for value in known.edits.values()]
    assert max(texts) == 0.0 and min(texts) == -20.0 and any(known.gains.values())
    assert rank.opinions(program, found, rank.Clients(cache=clients.cache)).weights == rank.CACHE
    assert (known.weights, rank.Opinions().weights) == (rank.MODEL, rank.PRIOR)


def test_a_model_is_asked_no_further_when_its_time_is_over(project: Make) -> None:
    program = Program(discover(project({"stats.py": MEDIAN})))
    suspects = [Suspect(path="stats.py", line=6, score=1.0)]
    line = MEDIAN.splitlines()[5].strip()
    model = ScriptedClient(edits={(line, line.replace("+", "-")): -1.0})
    assert len(from_model(program, suspects, model)) == 1
    assert not from_model(program, suspects, model, until=0.0)


def test_every_arm_orders_the_same_candidates(project: Make) -> None:
    program = Program(discover(project({"stats.py": MEDIAN})))
    found = propose(program, [Suspect(path="stats.py", line=6, score=1.0)], max_candidates=200)
    client = NgramClient({"stats.py": MEDIAN})
    clients = rank.Clients(cache=client)
    orders = {arm: [c.key for c in rank.order(program, found, arm=arm, clients=clients, seed=3)] for arm in rank.ARMS}
    assert {tuple(sorted(keys)) for keys in orders.values()} == {tuple(sorted(c.key for c in found))}
    assert len({tuple(keys) for keys in orders.values()}) == 3
    with pytest.raises(UsageError, match="there are random, prior, model"):
        rank.order(program, found, arm="best")


def test_smelling_patches_come_last(project: Make) -> None:
    guarded = "def half(value):\n    if value is None:\n        raise ValueError\n    return value / 3\n"
    program = Program(discover(project({"half.py": guarded})))
    suspects = [Suspect(path="half.py", line=line, score=1.0) for line in (2, 3, 4)]
    ordered = rank.order(program, propose(program, suspects, max_candidates=500), arm="prior")
    smells = [bool(candidate.smells) for candidate in ordered]
    assert any(smells) and not all(smells)
    assert smells == sorted(smells)


def test_capabilities_are_kept() -> None:
    with pytest.raises(ClientError):
        NgramClient({}).infill(Context(path="a.py", prefix="", suffix=""), num=1)
    with pytest.raises(ClientError):
        ScriptedClient().score(Context(path="a.py", prefix="", suffix=""), ["x"])


def test_ngram_prefers_what_the_project_writes() -> None:
    text = "".join(f"def f{n}(items):\n    return len(items) - 1\n" for n in range(20)) + "def g(items):\n    return "
    client = NgramClient({"a.py": text + "hole\n"})
    context = Context(path="a.py", prefix=text, suffix="\n")
    usual, other = client.score(context, ["len(items) - 1", "items(len) + 7"])
    assert usual > other


def test_ngram_does_not_learn_from_the_hole_itself() -> None:
    """The bug as it stands must not be likely because it stands there."""
    text = "x = alpha(beta)\n" * 3 + "x = odd(one)\n"
    prefix = "x = alpha(beta)\n" * 3 + "x = "
    inside = NgramClient({"a.py": text}).score(Context(path="a.py", prefix=prefix, suffix="\n"), ["odd(one)"])[0]
    outside = NgramClient({"a.py": text}).score(Context(path="b.py", prefix=prefix, suffix="\n"), ["odd(one)"])[0]
    assert inside < outside - 3.0


def test_tokens_keep_indentation_and_whole_strings() -> None:
    assert tokens("if a:\n    b = 'x y'  # no\n") == ["if", "a", ":", "\n    ", "b", "=", "'x y'", "#", "no", "\n"]
