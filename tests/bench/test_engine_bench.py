"""The benchmark of the engine, on a model too small to say anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from riallm.bench import engine
from riallm.nn import program
from riallm.testing.tiny import write_tiny


def test_every_figure_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MEGABYTES", 1)
    folder = write_tiny(tmp_path / "tiny", context=128)
    options = ["--model", str(folder), "--prompt", "60", "--answer", "5", "--clients", "3", "--rounds", "1"]
    assert engine.main(options) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["layers"] == 2 and told["clients"] == 3 and told["command"].endswith("--rounds 1")
    for name in ("decode_tokens_a_second", "prefill_tokens_a_second", "clients_over_one", "decode_bandwidth_share"):
        assert told[name] > 0
    if program.available():
        parts = {name: told[name] for name in told if name.endswith(" ms")}
        assert sum(parts.values()) == pytest.approx(told["ms_a_token"])
        weights = ("q, k, v ms", "o ms", "gate, up ms", "down ms", "head ms")
        fixed = sum(value for name, value in parts.items() if name not in (*weights, "paths ms"))
        assert told["fixed_ms_a_token"] == pytest.approx(fixed)
    assert engine.main(["--model", "nothing"]) == 2
    assert "no model 'nothing'" in capsys.readouterr().err
