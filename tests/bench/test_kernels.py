"""The benchmark of packed matrices and experts, at sizes too small to say anything."""

from __future__ import annotations

import json

import pytest

from riallm.bench import experts
from riallm.bench.kernels import main
from riallm.models.zoo import RXT_BETA_MICRO
from riallm.quant.packed import KINDS


def test_every_kind_is_measured_beside_torch(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--shapes", "64x256,33x512", "--rows", "1,65", "--rounds", "1", "--megabytes", "1"]
    assert main([*options, "--experts", "none"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in (*KINDS, "torch bfloat16"):
        for shape in ("64x256", "33x512"):
            assert told[f"{name} {shape} rows 1 GB/s"] > 0 and told[f"{name} {shape} rows 65 GOP/s"] > 0
    assert told["read GB/s"] > 0 and told["kernels"] and told["command"].endswith("--experts none")


SMALL = ["--shapes", "none", "--rounds", "1", "--megabytes", "1"]


def test_experts_are_measured_beside_what_computes_the_same_and_a_dense_layer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*SMALL, "--experts", "16x24x6x2", "--tokens", "1,70"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    for num in (1, 70):
        for name in ("grouped ms", "loop / grouped", "padded / grouped", "layer / dense"):
            assert told[f"experts 16x24x6x2 tokens {num} {name}"] > 0
    assert not any("rows" in name for name in told)
    shape = RXT_BETA_MICRO
    sizes = shape.hidden_size, shape.expert_size, shape.num_experts, shape.experts_per_token
    assert "x".join(map(str, sizes)) == experts.BETA_MICRO


@pytest.mark.parametrize("way", ["loop", "padded"])
def test_experts_that_compute_something_else_are_not_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    right = getattr(experts, way)
    monkeypatch.setattr(experts, way, lambda *given: 1.01 * right(*given))
    assert main([*SMALL, "--experts", "16x24x6x2"]) == 2
    assert f"{way} and the grouped experts differ by" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--kinds", "int4,int3", "unknown kinds int3; there are int4, int8"),
        ("--shapes", "64x100", "got the shape '64x100'"),
        ("--experts", "16x24x6", "got the experts '16x24x6'"),
        ("--experts", "16x24x6x7", "expected 1 to 6, the experts"),
        ("--tokens", "1,0", "--tokens is '1,0'"),
        ("--tokens", "a", "--tokens is 'a'"),
        ("--rows", "a", "--rows is 'a'"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], option: str, value: str, complaint: str
) -> None:
    assert main([*SMALL, option, value]) == 2
    assert complaint in capsys.readouterr().err
