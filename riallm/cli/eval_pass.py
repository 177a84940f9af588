"""`riallm eval pass`: programs that a model writes, run in the sandbox against the checks of a public benchmark."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riallm.core.errors import UsageError

DESCRIPTION = "How often a model's programs pass the checks of a benchmark: pass@k over samples, with its interval."
DEFAULT_SEVERAL = 0.8
"""Temperature of several samples where none is given; one sample is greedy."""


def add(tasks: Any) -> None:
    """The parser of the task."""
    parser = tasks.add_parser("pass", help="programs that pass a benchmark's checks", description=DESCRIPTION)
    option = parser.add_argument
    option("--set", required=True, choices=("humaneval", "mbpp", "cruxeval"), help="which benchmark")
    option("--model", metavar="NAME|DIR", help="the model (default: ria-nano)")
    option("--samples", type=int, default=1, metavar="N", help="answers to each problem (default 1)")
    option(
        "--temperature",
        type=float,
        metavar="T",
        help="0 takes the likeliest token (default: 0 for one sample, else 0.8)",
    )
    option("--k", default="1", metavar="K,K", help="of pass@k, each at most --samples (default 1)")
    option("--limit", type=int, metavar="N", help="only N problems, drawn by the seed")
    option("--seed", type=int, default=0, help="of the draw, the samples and the resampling (default 0)")
    option("--seconds", type=float, default=10.0, metavar="S", help="of one program (default 10)")
    option("--data", type=Path, metavar="DIR", help="the benchmarks' folder")
    option("--out", type=Path, metavar="DIR", help="one line a problem; resumed when it is there")
    option("--control", action="store_true", help="the reference solutions instead of a model; all must pass")
    option("--json", action="store_true", help="no table; the last line of stdout is one JSON object either way")


def run(options: argparse.Namespace) -> int:
    """0 when it was measured, 1 when a reference solution of `--control` did not pass.

    Raises UsageError for options that do not go together, Absent without the data, SandboxError without a sandbox.
    """
    from rich.console import Console

    from riallm.cli.eval import with_progress
    from riallm.core.files import cache_home, canonical_json, sha256
    from riallm.eval.tasks import pass_at_k
    from riallm.eval.tasks.pass_judge import Judge
    from riallm.eval.tasks.pass_prompts import problems
    from riallm.eval.tasks.repair_store import Results

    ks, temperature = checked(options)
    items = problems(options.set, options.data, limit=options.limit, seed=options.seed)
    write, name, config = _writer(options, temperature)
    digest = sha256(canonical_json(config).encode())[:12]
    out = options.out or cache_home() / "eval" / "runs" / f"pass-{options.set}-{name}-{digest}"
    results = Results(out, config)
    began = time.monotonic()
    with Judge(seconds=options.seconds) as judge:
        errors = Console(stderr=True)
        rows = with_progress(errors, items, lambda hear: pass_at_k.run(items, write, judge, results, on_row=hear))
        tier = judge.tier
    found = pass_at_k.figures(rows, ks, seed=options.seed)
    if not options.json:
        _show(found, f"{options.set}, {name}")
    told = {
        "task": "pass",
        **{key: value for key, value in config.items() if key != "model"},
        "model": name,
        "model_sha256": config["model"],
        **found,
        "pass_at": {str(k): asdict(estimate) for k, estimate in found["pass_at"].items()},
        **facts(options, time.monotonic() - began),
        "sandbox": tier,
        "out": str(out),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    wrong = [row["id"] for row in rows if row["passed"] < row["samples"]] if options.control else []
    if wrong:
        sys.stderr.write(f"the reference solution does not pass: {', '.join(wrong)}\n")
    return 1 if wrong else 0


def checked(options: argparse.Namespace) -> tuple[list[int], float]:
    """The values of k and the temperature. Raises UsageError for options that would be ignored or mean nothing."""
    try:
        ks = sorted({int(part) for part in options.k.split(",")})
    except ValueError:
        raise UsageError(f"--k is {options.k!r}; expected whole numbers with commas between, such as 1,10") from None
    if options.samples < 1 or options.seconds <= 0 or (options.limit is not None and options.limit < 1):
        raise UsageError("--samples, --limit and --seconds must be positive")
    if options.control and (options.model or options.samples > 1 or options.temperature is not None):
        raise UsageError("--control runs the one reference solution: give no --model, --samples or --temperature")
    if not 1 <= ks[0] <= ks[-1] <= options.samples:
        raise UsageError(
            f"--k is {options.k}: each must be at least 1 and at most --samples, which is {options.samples}"
        )
    temperature = options.temperature
    if temperature is None:
        temperature = DEFAULT_SEVERAL if options.samples > 1 else 0.0
    if temperature < 0 or (temperature == 0 and options.samples > 1):
        raise UsageError(f"--temperature is {temperature:g}: above 0, or 0 with one sample, since all would be equal")
    return ks, temperature


def _writer(options: argparse.Namespace, temperature: float) -> tuple[Any, str, dict[str, Any]]:
    """Who answers, under which name, and what the results depend on."""
    from riallm.core.files import sha256
    from riallm.core.shipped import DEFAULT, folder_of
    from riallm.eval.tasks.pass_at_k import TOP_P, ModelWriter, references
    from riallm.eval.tasks.pass_prompts import ANSWER_TOKENS, RULES, path_of

    config: dict[str, Any] = {
        "set": options.set,
        "data_sha256": sha256(path_of(options.set, options.data).read_bytes()),
        "rules": RULES,
        "seconds": options.seconds,
        "seed": options.seed,
        "python": platform.python_version(),
        "samples": options.samples,
        "control": options.control,
        "model": None,
    }
    if options.control:
        return references, "control", config
    folder = folder_of(options.model or DEFAULT)
    writer = ModelWriter(
        folder,
        samples=options.samples,
        temperature=temperature,
        seed=options.seed,
        answer_tokens=ANSWER_TOKENS[options.set],
    )
    config["model"] = sha256((folder / "manifest.json").read_bytes())
    config |= {"temperature": temperature, "top_p": TOP_P, "answer_tokens": writer.answer_tokens}
    return writer, folder.name, config


def facts(options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Date, command and machine; the command repeats the measurement, with the same data and folder."""
    from riallm.bench.card import machine

    words = ["riallm", "eval", "pass", "--set", options.set]
    words += ["--control"] if options.control else ["--samples", str(options.samples)]
    for name in ("model", "temperature", "limit"):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value is not None else []
    words += ["--k", options.k, "--seconds", f"{options.seconds:g}", "--seed", str(options.seed)]
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(words),
        **{key: value for key, value in machine().items() if key != "python"},
        "seconds_of_this_call": round(seconds, 1),
    }


def _show(found: dict[str, Any], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value, %", "95 % interval", title=title)
    for k, estimate in found["pass_at"].items():
        table.add_row(
            f"pass@{k}", f"{100 * estimate.value:.1f}", f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
        )
    console = Console()
    console.print(table)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in found["outcomes"].items())
    console.print(
        f"{found['problems']} problems; samples: {outcomes}; {found['unfinished_answers']} answers ran out of tokens;"
        f" {found['cut_prompts']} prompts were cut from the left"
    )
