"""Rows of the reinforcement and preference stages: what is read, and what is said about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from riallm.core.errors import UsageError
from riallm.data.dialogue_rows import Answer, Asked, Chosen, Quizzed, read

QUIZ: dict[str, Any] = {
    "interactions": [
        {"query": "My dog is Rex.", "answer": "Noted."},
        {"query": "My dog?", "answer": "It is Rex.", "asked": True, "fact": "Rex"},
    ]
}
CHOICE: dict[str, Any] = {
    "interactions": [
        {"query": "My dog is Rex.", "accepted": {"answer": "Noted."}},
        {
            "query": "My dog?",
            "accepted": {"answer": "Rex.", "think": "They told me."},
            "rejected": {"answer": "Max."},
            "neutral": {"answer": "A dog."},
        },
    ]
}


def test_rows_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(QUIZ)}\n\n{json.dumps(QUIZ)}\n", encoding="utf-8")
    first, second = read(path, Quizzed)
    assert first == second
    assert first.interactions[0] == Asked(query="My dog is Rex.", answer="Noted.")
    assert first.interactions[1].asked and first.interactions[1].fact == "Rex"
    path.write_text(json.dumps({"interactions": [{"query": "a\u2028b\x85", "answer": "c"}]}, ensure_ascii=False))
    (row_of_lines,) = read(path, Quizzed)
    assert row_of_lines.interactions[0].query == "a\u2028b\x85", "ends of lines that JSON does not mind"
    path.write_text(json.dumps(CHOICE), encoding="utf-8")
    (row,) = read(path, Chosen)
    assert row.interactions[0].rejected is None
    assert row.interactions[1].accepted == Answer(answer="Rex.", think="They told me.")
    assert row.interactions[1].neutral == Answer(answer="A dog.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[" * 50_000, "no JSON"),
        (f'{{"interactions": {"1" * 5000}}}', "no JSON"),
        ('{"interactions": []}', "without interactions"),
        ('{"interactions": [{"query": "a"}]}', "must be given"),
        ('{"interactions": [{"query": "a", "answer": "b", "tool": "c"}]}', "tool"),
        ('{"interactions": [{"query": "a", "answer": 3}]}', "expected str"),
        ('{"interactions": [{"query": "a", "answer": "b", "asked": true, "fact": "c"}]}', "stands in the answer"),
        ('{"interactions": [{"query": "a", "answer": "b", "fact": "b"}]}', "that is asked"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(QUIZ)}\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=message) as found:
        list(read(path, Quizzed))
    assert "rows.jsonl:2" in str(found.value)


def test_a_file_that_is_not_there_is_a_user_s_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        list(read(tmp_path / "none.jsonl", Chosen))
