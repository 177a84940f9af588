"""What a run keeps, and that a kill in the middle of a line loses that line only."""

import json
import sqlite3
import threading

import pytest

from riallm.core.errors import UsageError
from riallm.eval.tasks.repair_store import Results, Verdicts


def row(name, status="done"):
    return {"id": name, "status": status, "digest": "d"}


def test_a_new_file_that_another_one_holds_is_waited_for(tmp_path):
    """Two workers begin together: SQLite does not wait by itself when a file's journal changes its kind."""
    path = tmp_path / "verdicts.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE held (x)")
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, other.rollback).start()
    Verdicts(path).close()


def test_results_come_back(tmp_path):
    results = Results(tmp_path, {"seed": 1})
    for name in ("a", "b"):
        results.append(row(name))
    assert list(Results(tmp_path, {"seed": 1}).latest()) == ["a", "b"]


def test_an_unfinished_line_is_cut_off(tmp_path):
    results = Results(tmp_path, {})
    results.append(row("a"))
    with results.path.open("ab") as file:
        file.write(b'{"id": "b", "sta')
    again = Results(tmp_path, {})
    again.append(row("c"))
    assert [one["id"] for one in again] == ["a", "c"]
    assert all(json.loads(line) for line in results.path.read_text().splitlines())


def test_errors_of_ours_are_tried_again(tmp_path):
    results = Results(tmp_path, {})
    results.append(row("a", "error"))
    results.append(row("b", "dropped"))
    assert list(results.latest()) == ["b"]


def test_other_settings_are_refused(tmp_path):
    Results(tmp_path, {"seed": 1})
    with pytest.raises(UsageError, match="other settings"):
        Results(tmp_path, {"seed": 2})


def test_verdicts_are_kept_by_bug_kind_and_candidate(tmp_path):
    first = Verdicts(tmp_path / "v.sqlite")
    first.put("bug", "visible", "key", [True, 0.25])
    first.put("bug", "hidden", "key", "wrong")
    first.close()
    second = Verdicts(tmp_path / "v.sqlite")
    assert second.get("bug", "visible", "key") == [True, 0.25]
    assert second.get("bug", "hidden", "key") == "wrong"
    assert second.get("other", "visible", "key") is None
    assert second.hits == 2
    second.close()
