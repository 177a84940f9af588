"""The recall probe: what it counts, on answers that are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.data.tell_ask import TellAskConfig
from riallm.eval.probes.recall import CONDITIONS, Asked, ask, ask_reader, batch, table
from riallm.eval.stats import share
from riallm.models.rxt import RxT
from riallm.recipes.tell_ask import model

TASK = TellAskConfig(num_turns=6, num_keys=8, num_values=8, num_fillers=4, max_live=4)


@pytest.fixture(scope="module")
def rxt() -> RxT:
    made = RxT(model(hidden=32, layers=1, slots=4, vocab=TASK.vocab_size))
    made.initialise(0)
    return made.eval()


def test_every_condition_is_asked_the_same_questions(rxt: RxT) -> None:
    asked = ask(rxt, TASK, num=60, rows=8)
    by = {name: [each for each in asked if each.condition == name] for name in CONDITIONS}
    assert len({len(each) for each in by.values()}) == 1
    assert len(by["memory"]) >= 60
    for name in CONDITIONS[1:]:
        same = [(each.distance, each.live, each.retold) for each in by[name]]
        assert same == [(each.distance, each.live, each.retold) for each in by["memory"]]
    wanted = [turn for each in batch(TASK, 0, 8)[0] for turn in each if turn.kind == "ask"]
    assert [each.distance for each in by["memory"][: len(wanted)]] == [turn.distance for turn in wanted]


def test_a_model_that_says_one_value_is_right_by_chance_alone(rxt: RxT) -> None:
    said = TASK.first_value + 3
    with torch.no_grad():
        constant = RxT(rxt.config)
        constant.load_state_dict(rxt.state_dict())
        constant.lm_head.weight.zero_()
        constant.lm_head.bias.zero_()
        constant.lm_head.bias[said] = 50.0
    asked = [each for each in ask(constant, TASK, num=400, rows=32) if each.condition == "memory"]
    right = sum(each.right for each in asked) / len(asked)
    assert right == pytest.approx(1 / 8, abs=0.06)
    assert not any(each.none for each in asked)
    with torch.no_grad():
        constant.lm_head.bias.zero_()
    even = table(ask_reader(constant, TASK, num=50, rows=8), num_values=8)
    assert even["history"]["information"]["value"] == pytest.approx(0.0, abs=1e-5)


def test_conversations_without_questions_are_passed_over(rxt: RxT) -> None:
    short = TellAskConfig(num_turns=2, num_keys=8, num_values=8, num_fillers=4, max_live=4)
    counts = [sum(turn.kind == "ask" for turn in batch(short, number, 1)[0][0]) for number in range(40)]
    assert 0 in counts[::2] and any(a == b == 0 for a, b in zip(counts[::2], counts[1::2], strict=True))
    asked = [each for each in ask(rxt, short, num=sum(counts), rows=2) if each.condition == "memory"]
    assert len(asked) == sum(counts)


def test_what_cannot_be_asked_is_refused(rxt: RxT) -> None:
    for wrong in ({"rows": 1}, {"num": 0}):
        for which in (ask, ask_reader):
            with pytest.raises(UsageError, match="at least 2, for memories to be swapped"):
                which(rxt, TASK, **{"num": 1, **wrong})
    with pytest.raises(UsageError, match="ask is 0"):
        ask(rxt, replace(TASK, ask=0.0), num=1)


def test_the_controls_see_what_their_names_say(rxt: RxT) -> None:
    """With the decoder's look at the memory taken out, every condition is the unread one."""
    blind = RxT(rxt.config)
    blind.load_state_dict(rxt.state_dict())
    with torch.no_grad():
        for layer in blind.layers:
            layer.read_attn.o_proj.weight.zero_()  # type: ignore[union-attr]
            layer.read_attn.o_proj.bias.zero_()  # type: ignore[union-attr]

    def nats(made: RxT) -> dict[str, list[float]]:
        asked = ask(made, TASK, num=40, rows=8)
        return {name: [each.nats for each in asked if each.condition == name] for name in CONDITIONS}

    none, some = nats(blind), nats(rxt)
    for name in CONDITIONS:
        assert none[name] == pytest.approx(none["unread"], abs=1e-5)
    encodings = [each.nats for each in ask_reader(blind, TASK, num=40, rows=8, reader="encodings")]
    assert encodings == pytest.approx(none["unread"], abs=1e-5)
    encodings = [each.nats for each in ask_reader(rxt, TASK, num=40, rows=8, reader="encodings")]
    assert encodings != pytest.approx(some["unread"], abs=1e-5)
    assert some["unread"] == pytest.approx(none["unread"], abs=1e-5)
    for one, other in (("memory", "reset"), ("memory", "swap"), ("swap", "reset")):
        assert some[one] != pytest.approx(some[other], abs=1e-4)


def test_the_table_counts() -> None:
    def one(condition: str, distance: int, right: bool, donor: bool | None = None, retold: bool = False) -> Asked:
        return Asked(
            conversation=0,
            condition=condition,
            distance=distance,
            live=distance + 1,
            retold=retold,
            right=right,
            stale=retold and not right,
            none=False,
            donor=donor,
            nats=math.log(4) * (0 if right else 1),
        )

    asked = [one("memory", 1, True), one("memory", 1, True), one("memory", 2, False, retold=True)]
    asked += [one("swap", 1, False, True), one("swap", 1, False, False), one("swap", 2, True)]
    found = table(asked, num_values=4)
    assert found["questions"] == 3
    assert found["memory"]["exact"]["value"] == pytest.approx(2 / 3)
    assert {key: each["value"] for key, each in found["memory"]["by_distance"].items()} == {"1": 1.0, "2": 0.0}
    assert {key: each["num"] for key, each in found["memory"]["by_live"].items()} == {"2": 2, "3": 1}
    assert found["memory"]["information"]["value"] == pytest.approx(2 / 3)
    assert found["memory"]["retold"]["value"] == 0.0
    assert found["memory"]["retold_stale"]["value"] == 1.0
    assert (found["memory"]["told_once"]["value"], found["memory"]["told_once"]["num"]) == (1.0, 2)
    assert found["swap"]["donor"]["value"] == 0.5
    assert found["swap"]["donor"]["num"] == 2


def test_questions_of_a_conversation_are_no_questions_of_several(rxt: RxT) -> None:
    """Ten questions of each of forty conversations, right in half of these: the interval is that of forty."""
    asked = [
        Asked(
            conversation=number,
            condition="memory",
            distance=1,
            live=1,
            retold=False,
            right=number % 2 == 0,
            stale=False,
            none=False,
            donor=None,
            nats=float(number % 2),
        )
        for number in range(40)
        for _ in range(10)
    ]
    found = table(asked)["memory"]
    alone = share(20, 40)
    for each in (found["exact"], found["by_distance"]["1"]):
        assert each["num"] == 400
        assert (each["low"], each["high"]) == pytest.approx((alone.low, alone.high), rel=0.02)
    assert found["nats"]["high"] - found["nats"]["low"] == pytest.approx(2 * 1.96 * 0.5 / 40**0.5, rel=0.02)
    turns, _ = batch(TASK, 0, 16)
    wanted = [number for number, each in enumerate(turns) for turn in each if turn.kind == "ask"]
    num = sum(at < 8 for at in wanted) + 1
    told = [each.conversation for each in ask(rxt, TASK, num=num, rows=8) if each.condition == "swap"]
    assert told == wanted
