"""How items become projects, on rows written here in the benchmarks' forms."""

import pytest

from riallm.eval.sets import benchmark_items as reading
from riallm.eval.sets.benchmarks import bug_of, text_of_tests
from riallm.eval.sets.make_benchmarks import halves, reds


def read(name, *rows):
    return list(reading._READERS[name](list(rows)))


def test_asserts_of_a_check_function_become_single_checks():
    row = {
        "task_id": "HumanEval/900",
        "prompt": "def twice(x):\n",
        "canonical_solution": "    return 2 * x\n",
        "entry_point": "twice",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 4\n    assert True\n",
    }
    (item,) = read("humaneval", row)
    assert len(item.checks) == 2
    assert item.support == "from solution import twice\n"
    text = text_of_tests(item, {1: item.checks[1]})
    assert "def test_1():\n    candidate = twice\n    assert candidate(2) == 4\n" in text


def test_programs_that_read_standard_input_become_a_function():
    row = {
        "id": "x",
        "exact_match_ok": True,
        "solution": "a = int(input())\nprint(a + 1)\n",
        "tests": [{"input": "1\n", "output": "2\n"}, {"input": "5", "output": "6"}],
    }
    (item,) = read("codecontests", row)
    space = {}
    exec(item.code, space)
    exec(item.support.replace("from solution import main\n", ""), space)
    for check in item.checks:
        exec(check, space)
    with pytest.raises(AssertionError):
        exec("assert run('1') == ['3']", space)
    assert read("codecontests", {**row, "exact_match_ok": False}) == []


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("Input: n = 12, k = 3\nOutput: 3\nExplanation: why", "assert Solution().f(n = 12, k = 3) == 3"),
        ('Input: s = "ab"\nOutput: true', 'assert Solution().f(s = "ab") == True'),
        ("Input: ranks [1,2]\nOutput: 3", ""),
    ],
)
def test_worked_examples(text, check):
    assert reading._example(text, ["f"]) == check


def test_varied_calls_are_recorded_or_left_out():
    row = {"id": "sample_0", "code": "def f(a, b):\n    return a * b", "input": "'ab', 3", "output": "'ababab'"}
    (item,) = read("cruxeval", row)
    assert item.checks[1:] == ("RECORD f('ba', 3)", "RECORD f('ab', 5)")
    assert reading.filled(item, {"2": "'ababababab'"}) == [
        "assert f('ab', 3) == 'ababab'",
        "assert f('ab', 5) == 'ababababab'",
    ]


def test_halves_show_the_bug():
    assert halves(4, [0]) == [0, 2]
    assert halves(4, [3]) == [1, 3]
    assert halves(1, [0]) == [0]
    assert halves(4, []) is None


def test_what_hangs_or_flickers_is_no_bug():
    assert reds("pfp", "pfp", 3) == [1]
    assert reds("pfp", "ppp", 3) is None
    assert reds("pfh", "pfh", 3) is None
    assert reds("", "", 3) is None


def test_a_project_shows_half_of_the_checks(tmp_path):
    row = {"question": 1, "kind": "question", "prelude": "", "references": ["def f(x):\n    return x\n"]}
    tests = [{"call": f"f({n})", "expected": str(n)} for n in range(4)]
    wrong = {"question": 1, "kind": "buggy", "id": "w1", "code": "def f(x):\n    return 1\n"}
    (item,) = read("refactory", {**row, "tests": tests}, wrong)
    line = {"set": "refactory", "item": item.id, "injector": "real", "pattern": "other", "edits": [], "visible": [0, 2]}
    bug = bug_of(line, item)
    bug.write(tmp_path, False)
    assert (tmp_path / "solution.py").read_text() == "def f(x):\n    return 1\n"
    assert "f(2)" in (tmp_path / "tests/test_visible.py").read_text()
    assert "f(1)" in (tmp_path / "tests/test_hidden.py").read_text()
    assert bug.visible == ("tests/test_visible.py",) and set(bug.hidden) == {
        "tests/test_visible.py",
        "tests/test_hidden.py",
    }
