"""`riallm models`: the sizes are counted, the document's own figures stand beside them."""

from __future__ import annotations

import json

import pytest

from riallm.__main__ import main


def test_the_tiers_are_listed_with_both_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert list(rows)[:4] == ["ria-1b", "ria-8b", "ria-64b", "ria-128b"] and "ruvltra-medium" in rows
    assert rows["ria-8b"]["written_billions"] == 8.2
    assert 8.25e9 < rows["ria-8b"]["parameters"] < 8.4e9
    assert rows["ria-1b"]["kv_bytes_per_token"] == 24 * 2 * 4 * 128 * 2
    assert rows["ria-1b"]["weight_bytes"]["bf16"] == 2 * rows["ria-1b"]["parameters"]


def test_a_model_with_a_memory_is_listed_as_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "rxt-beta-micro", "ria-1b", "--json"]) == 0
    micro, ria = json.loads(capsys.readouterr().out)["models"]
    assert (micro["parameters"], micro["written_billions"], micro["context"]) == (265_163_776, 0.27, 1024)
    # 14 layers of 1024 slots: 256 numbers, and keys and values of 4 heads of 16; a token has the latter alone.
    assert micro["memory_bytes"] == 14 * 1024 * (256 + 2 * 4 * 16) * 2
    assert micro["kv_bytes_per_token"] == 14 * 2 * 4 * 16 * 2
    assert micro["weight_bytes"] == {"bf16": 2 * micro["parameters"], "int8": None, "4-bit": None}
    assert ria["memory_bytes"] == 0


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["models", "ria-1b"]) == 0
    out = capsys.readouterr().out
    assert "ria-1b" in out and "1.30 B" in out and "1.0 B" in out and "ria-8b" not in out
    assert main(["models", "rxt-beta-micro"]) == 0
    out = capsys.readouterr().out
    assert "506 MiB" in out and "14 MiB" in out and " - " in out


def test_no_number_is_cut_where_lines_are_short(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["models", "rxt-beta-micro", "ruvltra-medium-as-written"]) == 0
    out = capsys.readouterr().out
    assert "…" not in out and "506 MiB" in out and "GFLOP/token" in out


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "gpt"]) == 2
    assert "no model 'gpt'; there are ria-1b" in capsys.readouterr().err
