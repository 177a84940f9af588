"""The page about repaired bugs counts what the results say, and shows both patches and what a reader said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from riallm.data import upstream
from riallm.eval.tasks import repair_page

BUGS = {bug.id: bug for bug in upstream.load()}
WITH, WITHOUT = (next(b.id for b in BUGS.values() if bool(b.hidden) is hidden) for hidden in (True, False))
PATCH = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-old\n+ours\n"


def row(name: str, choice: str, *, first: int = 3, exact: bool = False) -> dict[str, Any]:
    told = {"choice": choice, "choice_exact": exact, "first_correct": first, "seconds_to_correct": 1.5}
    return {"id": name, "status": "done", "arms": {"B2": {**told, "choice_patch": PATCH, "correct_patch": PATCH}}}


def folder(path: Path, *rows: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"candidates": 7, "seconds_per_bug": 9.0, "arms": ["B1", "B2"]}))
    (path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def printed(capsys: pytest.CaptureFixture[str], *folders: Path) -> str:
    assert repair_page.main(list(map(str, folders))) == 0
    return capsys.readouterr().out


def test_correct_is_what_unseen_tests_say_or_upstream_s_own_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, folder(tmp_path / "a", row(WITH, "correct"), row(WITHOUT, "correct")))
    assert "Of 2 bugs of" in text and f"is correct for 1, of 1 projects: {BUGS[WITH].package}." in text
    assert f"| {WITH} | 3 | 1.5 | another text |" in text and f"### {WITHOUT}" not in text
    assert "2 bugs with at most 7 candidates an arm and 9 s of checks for B1, B2 together" in text
    assert (
        "-old\n+ours" in text
        and BUGS[WITH].hunk.splitlines()[-1] in text
        and "Read beside each other: not yet." in text
    )
    text = printed(capsys, folder(tmp_path / "b", row(WITH, "correct"), row(WITHOUT, "correct", exact=True)))
    assert "is correct for 2" in text and "upstream's own" in text


def test_another_offered_patch_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, folder(tmp_path / "a", row(WITH, "wrong")))
    assert "is correct for 0" in text and "For 1 more a correct patch" in text and "| not offered |" in text


def test_later_results_replace_earlier_ones_and_words_belong_to_one_patch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "read.json"
    words.write_text(json.dumps({repair_page.key(WITH, PATCH): "the same."}))
    monkeypatch.setattr(repair_page, "READ", words)
    first = folder(tmp_path / "a", row(WITH, "none", first=0))
    text = printed(capsys, first, folder(tmp_path / "b", row(WITH, "correct")))
    assert "is correct for 1" in text and "Read beside each other: the same." in text
    assert "is correct for 0" in printed(capsys, first)


def test_results_that_are_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repair_page.main([str(tmp_path)]) == 2
    assert "results.jsonl is not there; run `riallm eval repair" in capsys.readouterr().err
    assert repair_page.main([str(folder(tmp_path / "a", row(WITH, "correct"))), "--arm", "B1"]) == 2
    assert "no patches of arm B1" in capsys.readouterr().err


def test_the_reader_s_words_are_about_patches_on_the_page() -> None:
    page = (Path(repair_page.__file__).parents[3] / "docs" / "upstream_repairs.md").read_text("utf-8")
    said = json.loads(repair_page.READ.read_text("utf-8"))
    assert said and all(words in page and name.split()[0] in page for name, words in said.items())
    assert "not yet." not in page
