"""The ablation goes through, compares pairs, and does nothing twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from riallm.eval.tasks.crossfile import Completed, Use
from riallm.recipes import ablation
from riallm.recipes.ablation import VARIANTS, main, stage, table
from riallm.recipes.table import recipe
from riallm.train.stage import Stage

ITEM = Use(
    package="p",
    imported_path="p/a.py",
    path="p/b.py",
    same_module=True,
    name="area",
    defined="def area(x):\n    return x\n",
    before="from p.a import area\n\n\n",
    line="print(area(2))",
)


def test_each_variant_lacks_one_part() -> None:
    models = {name: stage(name, 0, 9).model for name in VARIANTS}
    assert models["document"].file_bias and models["document"].local_window and models["document"].dual_path_rank
    differing = {
        name: sum(getattr(model, field) != getattr(models["document"], field) for field in model.__slots__)
        for name, model in models.items()
    }
    assert differing == {"document": 0, "no file bias": 1, "no ranges": 2, "no dual path": 1}


def test_differences_are_over_the_same_items() -> None:
    def seed(bits: float) -> list[Completed]:
        return [Completed(bits=bits + 100 * item, num_bytes=10, exact=item % 2 == 0) for item in range(6)]

    found = table({"document": [seed(3.0), seed(5.0)], "no ranges": [seed(4.0), seed(7.0)]})
    assert found["no ranges"]["more_bits_a_line"]["value"] == pytest.approx(1.5)
    assert found["no ranges"]["more_bits_a_line"]["low"] == pytest.approx(1.5)  # the items' own spread is no noise
    assert found["document"]["bits_per_byte"] == pytest.approx((4.0 * 6 + 1500) / 60)
    assert found["document"]["exact"] == 0.5 and found["no ranges"]["more_exact"]["value"] == 0.0


def test_it_goes_through_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(variant: str, seed: int, steps: int) -> Stage:
        smoke = recipe("ria_smoke")
        return replace(smoke, model=VARIANTS[variant](smoke.model), train=replace(smoke.train, max_steps=steps))

    monkeypatch.setattr(ablation, "stage", small)
    monkeypatch.setattr(ablation, "uses", lambda data, num, seed: [ITEM, ITEM])
    monkeypatch.setattr(ablation, "CONTEXT", 128)
    asked = ["--out", str(tmp_path), "--seeds", "1", "--steps", "1"]
    assert main(asked) == 0
    first = capsys.readouterr().out
    assert len(json.loads(first.splitlines()[-1])["variants"]) == 4 and "no dual path" in first
    monkeypatch.setattr(ablation, "run", lambda *args: pytest.fail("trained again"))
    assert main(asked) == 0
    assert capsys.readouterr().out == first
    monkeypatch.setattr(ablation, "uses", lambda data, num, seed: [ITEM])
    assert main(asked) == 2 and "holds 2 items, not 1" in capsys.readouterr().err
