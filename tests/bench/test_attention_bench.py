"""The card of naive and fused attention, at a small size, and what is refused."""

from __future__ import annotations

import json

import pytest

from riallm.bench import attention
from riallm.nn import page_attention


def test_every_way_is_measured_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    if not page_attention.available():
        pytest.skip("there is no C++ compiler here")
    assert attention.main(["--tokens", "1024", "--rounds", "1", "--naive-gb", "0.03"]) == 0
    card = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert card["1024_naive_heads_at_a_time"] == 2  # 27 MB of scores
    assert card["1024_naive_all_heads_megabytes"] == pytest.approx(16 * 1024 * 1024 * 13 / 1e6)
    assert all(card[f"1024_{way}_seconds"] > 0 for way in attention.WAYS)
    assert card["1024_naive_peak_megabytes"] > 8  # scores of two heads are 8 MB, and more is held at once
    assert card["1024_pages_speedup"] == pytest.approx(card["1024_naive_seconds"] / card["1024_pages_seconds"])


@pytest.mark.parametrize("wrong", [["--tokens", "0"], ["--tokens", "a"], ["--rounds", "0"]])
def test_what_cannot_be_measured_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert attention.main(wrong) != 0
    assert "attention: " in capsys.readouterr().err
