"""Rows of the supervised stages: found by number, and refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from riallm.core.errors import UsageError
from riallm.data.interaction_rows import Form, Rows, Said


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_texts_of_several_files_are_numbered_through(tmp_path: Path) -> None:
    first = written(tmp_path / "a.jsonl", {"text": "one", "url": "x"}, {"text": "zwei \u00e4"})
    (tmp_path / "b.jsonl").write_bytes(b'\n{"text": "drei"}\n\n  \n{"text": "four"}')
    rows = Rows([first, tmp_path / "b.jsonl"], "text")
    assert [rows.text(number) for number in (3, 0, 2, 1)] == ["four", "one", "drei", "zwei \u00e4"]
    assert list(rows.sizes) == [3, 6, 4, 4] and len(rows) == 4
    assert [rows.where(number) for number in range(4)] == ["a.jsonl:1", "a.jsonl:2", "b.jsonl:2", "b.jsonl:5"]


def test_interactions_with_and_without_reasoning(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.jsonl",
        {"query": "q", "answer": "a"},
        {"query": "q", "answer": "a", "think": "t"},
        {"query": "q", "answer": "a", "think": None},
    )
    rows = Rows([path], "interaction")
    plain = (Said(query="q", answer="a"),)
    assert [rows.said(number) for number in range(3)] == [plain, (Said(query="q", answer="a", think="t"),), plain]
    assert list(rows.sizes) == [2, 3, 2]


def test_conversations_in_both_shapes(tmp_path: Path) -> None:
    """The first interaction beside the others, as the document's datasets have it, or among them."""
    two = [{"query": "c", "answer": "d"}, {"query": "e", "answer": "f", "think": "g"}]
    path = written(
        tmp_path / "a.jsonl",
        {"query": "a", "answer": "b", "interactions": two},
        {"interactions": two, "query": None, "answer": None},
        {"query": "a", "answer": "b", "interactions": []},
        {"system": "be kind", "interactions": two},
    )
    rows = Rows([path], "conversation")
    first, others = Said(query="a", answer="b"), (Said(query="c", answer="d"), Said(query="e", answer="f", think="g"))
    heard = Said(query="be kind", answer="", heard=True)
    assert [rows.said(number) for number in range(4)] == [(first, *others), others, (first,), (heard, *others)]


def test_a_column_that_is_null_is_as_one_that_is_not_there(tmp_path: Path) -> None:
    said, nothing = {"query": "a", "answer": "b"}, {"think": None, "tool_call": None}
    path = written(tmp_path / "a.jsonl", said | nothing)
    assert Rows([path], "interaction").said(0) == (Said(query="a", answer="b"),)
    path = written(tmp_path / "b.jsonl", {**said, **nothing, "system": None, "interactions": [said | nothing]})
    assert Rows([path], "conversation").said(0) == (Said(query="a", answer="b"),) * 2


@pytest.mark.parametrize(
    ("form", "line", "told"),
    [
        ("text", '{"text": ', "no JSON"),
        ("text", "[" * 50_000, "no JSON"),
        ("text", '["a"]', "expected an object, got list"),
        ("text", '{"query": "a"}', "text is None; expected text"),
        ("text", '{"text": "  "}', "text is '  '; expected text"),
        ("text", '{"text": 3}', "text is 3; expected text"),
        ("interaction", '{"query": "a"}', "answer is None; expected text"),
        ("interaction", '{"query": "a", "answer": null}', "answer is None; expected text"),
        ("interaction", '{"query": "a", "answer": "b", "think": 1}', "think is 1; expected text"),
        ("interaction", '{"query": "a", "answer": "b", "tool_call": "c"}', "no tool_call in the form 'interaction'"),
        ("interaction", '{"query": "a", "answer": "b", "interactions": []}', "no interactions in the form"),
        ("conversation", '{"interactions": []}', r"interactions is \[\]; expected a list of at least one"),
        ("conversation", '{"interactions": {}, "query": "a"}', "answer is None"),
        ("conversation", '{"interactions": "x"}', "interactions is 'x'; expected a list"),
        ("conversation", '{"interactions": [{"query": "a", "answer": ""}]}', r"interactions\[0\]: answer is ''"),
        ("conversation", '{"interactions": [["a", "b"]]}', r"interactions\[0\]: expected an object of query, answer"),
        ("conversation", '{"interactions": [{"query": "a", "answer": "b", "x": 1}]}', r"interactions\[0\]: expected"),
        ("conversation", '{"system": " ", "interactions": [{"query": "a", "answer": "b"}]}', "system is ' '"),
    ],
)
def test_a_row_of_another_form_is_refused_by_file_and_line(tmp_path: Path, form: Form, line: str, told: str) -> None:
    good = {"text": "x"} if form == "text" else {"query": "x", "answer": "y"}
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(good)}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=f"^rows.jsonl:3: {told}"):
        Rows([path], form)


def test_files_that_hold_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none.jsonl cannot be read \(No such file.*form 'text'"):
        Rows([tmp_path / "none.jsonl"], "text")
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    with pytest.raises(UsageError, match=r"empty.jsonl: no row; expected one JSON object a line"):
        Rows([tmp_path / "empty.jsonl"], "text")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1\x15\x04\n\x00")
    with pytest.raises(UsageError, match=r"rows.parquet is a Parquet file; write its rows as JSON"):
        Rows([tmp_path / "rows.parquet"], "text")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe4"}\n')
    with pytest.raises(UsageError, match=r"latin.jsonl:1: no JSON"):
        Rows([tmp_path / "latin.jsonl"], "text")
