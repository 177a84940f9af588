"""Functional correctness: the estimator, the prompts of each set, where answers end, and whole runs in the sandbox."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from riallm.cli.eval import main
from riallm.core.errors import UsageError
from riallm.engine.prefix import read
from riallm.engine.sampler import sample
from riallm.eval.sets.benchmark_items import FILES, Absent
from riallm.eval.tasks import pass_prompts
from riallm.eval.tasks.pass_at_k import CHUNK, Answers, ModelWriter, mean_pass, pass_at_k, references, run
from riallm.eval.tasks.pass_judge import Judge, Outcome
from riallm.eval.tasks.pass_prompts import Problem, problems, stopped, without_rest
from riallm.eval.tasks.repair_store import Results
from riallm.models.load import load_ria
from riallm.testing.tiny import write_tiny

HUMANEVAL = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def times(x):\n    """{number} times x."""\n',
        "canonical_solution": f"    return {number} * x\n",
        "entry_point": "times",
        "test": f"def check(candidate):\n    assert candidate(3) == {3 * number}\n",
    }
    for number in (2, 3, 4)
]
MBPP = [
    {
        "task_id": number,
        "text": "Write a function to double a number.",
        "code": "def double(x):\r\n  return 2 * x ",
        "test_list": ["assert double(2) == 4", "assert double(START) == 2"],
        "test_setup_code": "START = 1",
        "challenge_test_list": [],
    }
    for number in (10, 11, 510, 511)
]
CRUXEVAL = [{"id": "sample_0", "code": "def f(a):\n    return [a, a]", "input": "'x'", "output": "['x', 'x']"}]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmarks' folder of rows that are written here."""
    for name, rows in (("humaneval", HUMANEVAL), ("mbpp", MBPP), ("cruxeval", CRUXEVAL)):
        path = tmp_path / "data" / FILES[name]
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def judge() -> Any:
    with Judge(seconds=20.0) as judge:
        yield judge


def test_the_estimator_is_the_share_of_draws_that_hold_a_pass() -> None:
    for num in range(1, 7):
        for passed, k in itertools.product(range(num + 1), range(1, num + 1)):
            draws = list(itertools.combinations([True] * passed + [False] * (num - passed), k))
            assert pass_at_k(num, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    for wrong in ((3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)):
        with pytest.raises(ValueError, match="samples"):
            pass_at_k(*wrong)


def test_the_mean_has_an_interval_over_problems() -> None:
    rows = [{"samples": 4, "passed": passed} for passed in (0, 1, 2, 4, 0, 0, 3)]
    estimate = mean_pass(rows, 1, seed=0)
    assert estimate.value == pytest.approx(10 / 28) and estimate.num == 7
    assert 0.0 <= estimate.low < estimate.value < estimate.high <= 1.0
    none = mean_pass([{"samples": 4, "passed": 0}] * 20, 1, seed=0)
    assert none.value == 0.0 and 0.1 < none.high < 0.3, "twenty failures do not prove that all fail"


def test_humaneval_goes_on_behind_the_docstring(data: Path, judge: Judge) -> None:
    first, *_ = problems("humaneval", data)
    assert first.prompt == 'def times(x):\n    """2 times x."""'
    assert judge(first.program("\n    return x + x")) is Outcome.PASSED
    assert judge(first.program("\n    return x")) is Outcome.FAILED
    assert judge(first.program("\n    return (")) is Outcome.ERROR


def test_mbpp_shows_the_text_and_the_asserts_of_its_test_split(data: Path, judge: Judge) -> None:
    found = problems("mbpp", data)
    assert [problem.id for problem in found] == ["MBPP/11", "MBPP/510"]
    assert found[0].prompt == (
        '"""\nWrite a function to double a number. Your code should pass these tests:\n\n'
        'assert double(2) == 4\nassert double(START) == 2\n"""'
    )
    assert judge(found[0].program("\ndef double(x): return x + x")) is Outcome.PASSED
    assert judge(found[0].program("\ndef double(x): return 4")) is Outcome.FAILED, "every assert counts"


def test_cruxeval_asks_for_a_literal(data: Path, judge: Judge) -> None:
    (only,) = problems("cruxeval", data)
    assert only.prompt == "def f(a):\n    return [a, a]\n\n\nassert f('x') =="
    assert judge(only.program(' ["x"  , "x"]  # twice')) is Outcome.PASSED
    assert judge(only.program(" ['x']")) is Outcome.FAILED
    assert judge(only.program(" f('x')")) is Outcome.ERROR, "a call would be right whatever f does"


def test_no_prompt_ends_in_white_space_and_references_begin_with_it(data: Path) -> None:
    for name in pass_prompts.PROMPTS:
        for problem in problems(name, data):
            assert problem.prompt == problem.prompt.rstrip() and problem.reference[0].isspace()


def test_a_larger_limit_holds_the_smaller_draw(data: Path) -> None:
    draws = [{problem.id for problem in problems("humaneval", data, limit=num, seed=5)} for num in (1, 2, 3, 9)]
    assert [len(draw) for draw in draws] == [1, 2, 3, 3] and draws[0] < draws[1] < draws[2]
    assert len({problems("humaneval", data, limit=1, seed=seed)[0].id for seed in range(9)}) > 1


def test_data_that_is_not_there_is_named(data: Path) -> None:
    (data / FILES["mbpp"]).unlink()
    with pytest.raises(Absent, match=r"mbpp\.jsonl\.gz"):
        problems("mbpp", data)


def test_answers_end_before_the_first_stop_and_lose_an_unfinished_statement() -> None:
    stops = pass_prompts.HUMANEVAL_STOPS
    assert stopped("\n    return 1\n\nprint(2)\ndef g():", stops) == "\n    return 1\n"
    assert stopped("\n    if x:\n        return 1", stops) is None
    assert without_rest("\ndef f():\n    return 1\n\ndef g(") == "\ndef f():\n    return 1\n"
    assert without_rest("\ndef f():\n    ret") == "\ndef f():\n    ret"


def test_the_control_goes_through_the_stops() -> None:
    problem = Problem(id="a", prompt="p", reference="\n    1\nif", stops=("\nif",), before="", after="")
    assert references(problem).texts == ("\n    1",)


def test_leaving_early_is_no_pass_and_hanging_ends(judge: Judge) -> None:
    assert judge("import sys\nsys.exit(0)") is Outcome.ERROR
    assert judge("import os\nos._exit(0)") is Outcome.ERROR
    assert judge("import os\nos._exit(127)") is Outcome.ERROR
    assert judge("open('here', 'w').write('1')") is Outcome.PASSED
    assert judge("import os\nassert not os.path.exists('here')") is Outcome.PASSED
    assert judge("x = '\ud800'") is Outcome.ERROR
    with Judge(seconds=2.0) as impatient:
        assert impatient("while True: pass") is Outcome.TIMEOUT


def test_a_run_goes_on_where_it_was_stopped(data: Path, tmp_path: Path) -> None:
    asked: list[str] = []
    judged: list[str] = []

    def write(problem: Problem) -> Answers:
        asked.append(problem.id)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return Answers(texts=("right", "wrong", "right"), cut=True, unfinished=1)

    def judge(program: str) -> Outcome:
        judged.append(program)
        return Outcome.PASSED if "right" in program else Outcome.FAILED

    items = problems("humaneval", data)
    with pytest.raises(KeyboardInterrupt):
        run(items, write, judge, Results(tmp_path / "out", {"seed": 1}))
    heard: list[str] = []
    again = Results(tmp_path / "out", {"seed": 1})
    rows = run(items, write, judge, again, on_row=lambda row: heard.append(row["id"]))
    assert asked == ["HumanEval/2", "HumanEval/3", "HumanEval/3", "HumanEval/4"]
    assert heard == [row["id"] for row in rows] == ["HumanEval/2", "HumanEval/3", "HumanEval/4"]
    assert all((row["samples"], row["passed"], row["cut"], row["unfinished"]) == (3, 2, True, 1) for row in rows)
    assert len(judged) == 6, "equal answers are judged once"


@pytest.mark.parametrize("name", ["humaneval", "mbpp", "cruxeval"])
def test_the_control_passes(name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["pass", "--set", name, "--control", "--data", str(data), "--out", str(tmp_path / "out"), "--limit", "2"]
    assert main([*options, "--seconds", "20"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["pass_at"]["1"]["value"] == 1.0 and told["outcomes"]["passed"] == told["problems"] > 0
    with pytest.raises(UsageError, match="other settings"):
        main([*options, "--seconds", "21"])


def test_a_wrong_control_fails(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [HUMANEVAL[0], HUMANEVAL[1] | {"canonical_solution": "    return x\n"}]
    (data / FILES["humaneval"]).write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    options = ["pass", "--set", "humaneval", "--control", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*options, "--seconds", "20"]) == 1
    said = capsys.readouterr()
    assert "50.0" in said.out and "HumanEval/3" in said.err and "HumanEval/2" not in said.err
    assert json.loads(said.out.splitlines()[-1])["outcomes"] == {"passed": 1, "failed": 1, "timeout": 0, "error": 0}


REFUSED = {
    "--k 1,2": "at most --samples",
    "--k many": "whole numbers",
    "--limit 0": "positive",
    "--samples 2 --temperature 0": "equal",
    "--control --samples 2": "--control",
    "--control --model x": "--control",
}


@pytest.mark.parametrize("options", REFUSED)
def test_options_that_mean_nothing_are_refused(options: str, data: Path) -> None:
    with pytest.raises(UsageError, match=REFUSED[options]):
        main(["pass", "--set", "humaneval", "--data", str(data), *options.split()])


def test_a_model_writes_programs_that_are_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tiny(tmp_path / "tiny")
    options = ["pass", "--set", "humaneval", "--data", str(data), "--model", str(folder), "--limit", "2", "--json"]
    options += ["--samples", "2", "--k", "1,2", "--seconds", "20", "--out", str(tmp_path / "out")]
    assert main(options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == 2 and sum(told["outcomes"].values()) == 4 and set(told["pass_at"]) == {"1", "2"}
    assert told["temperature"] == 0.8 and told["answer_tokens"] == 128 and "--samples 2" in told["command"]
    assert main(options) == 0
    assert json.loads(capsys.readouterr().out)["outcomes"] == told["outcomes"]
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 2


def test_a_long_prompt_loses_its_left_part(data: Path, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny")
    writer = ModelWriter(folder, samples=1, temperature=0.0, seed=0, answer_tokens=CHUNK + 8)
    short, *_ = problems("humaneval", data)
    ids, cut = writer.prompt_ids(short)
    head = writer._tokenizer.valued("file", "solution.py")
    assert not cut and ids == [*head, *writer._tokenizer.encode(short.prompt)]
    text = "".join(f"{number} = x\n" for number in range(900)) + "END"
    long = Problem(id="a", prompt=text, reference="", stops=("no such stop",), before="", after="")
    ids, cut = writer.prompt_ids(long)
    assert cut and len(ids) == 256 - CHUNK - 8 and ids[: len(head)] == head
    assert writer._tokenizer.decode(ids).endswith("899 = x\nEND")
    writer._model = load_ria(folder)  # in float32 the chunks of an answer are what one go would give
    torch.manual_seed(1)
    for parameter in writer._model.parameters():  # a new model says one thing for ever
        torch.nn.init.normal_(parameter, std=0.3)
    prefix = read(writer._model, ids)
    (row,) = sample(writer._model, prefix, num=1, max_tokens=CHUNK + 8, ends=writer._ends, temperature=0.0)
    assert row.ids[CHUNK:] != row.ids[:8]
    text = without_rest(writer._tokenizer.decode(row.ids))
    assert writer(long) == Answers(texts=(text,), cut=True, unfinished=1)
