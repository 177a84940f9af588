"""Weights that are fitted put the original text early on packages that the fit has not seen."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from riallm.agent.repair.rank import CACHE, MODEL, Weights
from riallm.eval.tasks.repair_order import crossed, figures, fit, items, main, ranks


def line(number: int, draw: random.Random) -> dict[str, Any]:
    """A bug of which the model's word on the text says all, and suspicion a little."""
    rows = []
    for at in range(60):
        right = at == 7
        rows.append(
            [
                draw.gauss(0.3 * right, 0.3),  # suspicion
                draw.gauss(-4, 1),  # prior
                draw.gauss(0, 3),  # gain
                draw.gauss(-3, 1),  # place
                draw.gauss(-1 if right else -6, 1),  # text
                float(at >= 50),  # own
                float(at == 3),  # smells
            ]
        )
    own = [at >= 50 for at in range(60)]
    return {"id": f"p{number % 3}-{number}", "candidates": 60, "rows": rows, "own": own, "wanted": 7}


def test_a_fit_finds_the_term_that_tells() -> None:
    draw = random.Random(0)
    bugs = list(items([line(number, draw) for number in range(30)], proposes=True))
    assert len(bugs) == 30 and {bug.package for bug in bugs} == {"p0", "p1", "p2"} and bugs[0].terms.shape == (60, 6)
    bad = Weights(prior=1.0, gain=0.2, place=0.2, text=0.1)
    fitted = fit(bugs, bad)
    assert fitted.text > max(fitted.prior, fitted.gain, fitted.place) and fitted.text > 4 * bad.text
    before, seen, unseen = ranks(bugs, bad), ranks(bugs, fitted), crossed(bugs, bad)
    assert sum(unseen) < sum(before) / 2 and sum(seen) <= sum(unseen)
    told = figures(unseen, 40)
    assert told["reached"] == 30 and told["within 200"]["value"] == 0.75 and 1 <= told["geometric mean rank"] < 5


def test_a_term_that_an_arm_has_not_stays_out() -> None:
    draw = random.Random(1)
    bugs = list(items([line(number, draw) for number in range(9)], proposes=False))
    assert bugs[0].terms.shape == (50, 6)  # the model's own edits are not among the candidates
    fitted = fit(bugs, CACHE)
    assert fitted.gain != 0.0 and (fitted.place, fitted.text, fitted.own) == (0.0, 0.0, 0.0)
    assert fit(bugs, MODEL).text != 0.0


def test_a_text_that_only_the_model_writes_is_out_of_reach_of_the_others() -> None:
    made = line(0, random.Random(2))
    made["wanted"] = 55
    assert not list(items([made], proposes=False))
    assert next(items([made], proposes=True)).wanted == 55
    assert not list(items([{"id": "p-1", "candidates": 9}, {"id": "p-2", "dropped": "red"}], proposes=True))


def test_the_smoke_set_is_asked_once(tmp_path: Path, capsys) -> None:
    command = ["--set", "smoke", "--limit", "2", "--out", str(tmp_path)]
    assert main(command) == 0
    first = capsys.readouterr()
    told = json.loads(first.out.splitlines()[-1])
    assert told["B2"]["today"]["bugs"] == 2 and "B4" not in told and first.err.count("\n") == 2
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out == first.out and not again.err
    assert main([*command, "--model", str(tmp_path)]) == 2 and "no such model" in capsys.readouterr().err
