"""What compressions cost: the figures of a tiny model, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from riallm.bench import compression
from riallm.core.shipped import folder_of
from riallm.eval.sets import held_out
from riallm.eval.tasks import bits


def test_every_way_is_told_beside_the_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = b"def add(left, right):\n    return left + right\n" * 4
    files = [bits.Text(package="semver", path=f"part{number}.py", data=text) for number in range(2)]
    monkeypatch.setattr(bits, "texts", lambda held, data: files)
    monkeypatch.setattr(held_out, "default_data", lambda: tmp_path)
    assert compression.main(["--package", "semver"]) == 0
    card = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert card["files"] == 2 and card["bytes"] == 2 * len(text)
    assert card["none_megabytes"] > card["8bit_megabytes"] > card["4bit_megabytes"] > card["nf4_megabytes"]
    more = 100 * (card["4bit_bits_a_byte"] / card["none_bits_a_byte"] - 1)
    assert card["4bit_more_percent"] == pytest.approx(more)
    # Both files are one text but for their names, so a draw of them says nearly the same.
    assert card["4bit_more_percent_low"] <= more <= card["4bit_more_percent_high"]
    assert card["4bit_bits_a_byte"] != card["none_bits_a_byte"] != card["8bit_bits_a_byte"]


def test_a_package_that_is_not_held_out_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert folder_of("ria-nano").is_dir()
    assert compression.main(["--package", "requests"]) != 0
    assert "no held-out package 'requests'; there are cachetools, " in capsys.readouterr().err
