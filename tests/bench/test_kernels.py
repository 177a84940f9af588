"""The benchmark of packed matrices, on matrices too small to say anything."""

from __future__ import annotations

import json

import pytest

from riallm.bench.kernels import main
from riallm.quant.packed import KINDS


def test_every_kind_is_measured_beside_torch(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--shapes", "64x256,33x512", "--rows", "1,65", "--rounds", "1", "--megabytes", "1"]
    assert main(options) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in (*KINDS, "torch bfloat16"):
        for shape in ("64x256", "33x512"):
            assert told[f"{name} {shape} rows 1 GB/s"] > 0 and told[f"{name} {shape} rows 65 GOP/s"] > 0
    assert told["read GB/s"] > 0 and told["kernels"] and told["command"].endswith("--megabytes 1")


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--kinds", "int4,int3", "unknown kinds int3; there are int4, int8"),
        ("--shapes", "64x100", "got the shape '64x100'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], option: str, value: str, complaint: str
) -> None:
    assert main([option, value, "--megabytes", "1"]) == 2
    assert complaint in capsys.readouterr().err
