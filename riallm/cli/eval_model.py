"""The tasks of `riallm eval` that measure a model by itself: bits per byte, holes filled, programs that pass, what a
memory carries."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riallm.cli import eval_memory, eval_pass
from riallm.core.errors import UsageError


def add(tasks: Any) -> None:
    """The parsers of the tasks."""
    bits = tasks.add_parser("bpb", help="bits per byte of held-out packages", description=_doc("bits"))
    infill = tasks.add_parser("infill", help="single lines filled exactly", description=_doc("infill"))
    extract = tasks.add_parser("extraction", help="training text given back", description=_doc("extraction"))
    for parser in (bits, infill, extract):
        parser.add_argument("--model", default="ria-nano", metavar="NAME|DIR", help="the model (default: ria-nano)")
        parser.add_argument(
            "--data", type=Path, help="fetched packages, or the benchmarks' folder (default: the cache)"
        )
        parser.add_argument("--json", action="store_true", help="the last line of stdout is one JSON object")
    infill.add_argument(
        "--set", default="held_out", choices=("held_out", "humaneval_infilling"), help="lines of which text"
    )
    infill.add_argument("--limit", type=int, default=400, metavar="N", help="items, drawn by the seed (default 400)")
    infill.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    extract.add_argument(
        "--corpus", default="python_full", metavar="NAME", help="a built corpus (default: python_full)"
    )
    extract.add_argument("--num", type=int, default=2000, metavar="N", help="prompts (default 2000)")
    extract.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    eval_pass.add(tasks)
    eval_memory.add(tasks)


def _doc(task: str) -> str:
    return {
        "bits": "How well a model predicts packages that it never saw, beside xz and an n-gram that learns as it goes.",
        "infill": "How often the likeliest filling of a missing line is the line itself, beside the n-gram's choice.",
        "extraction": "How many prompts from training files are continued verbatim; ends with 1 beyond the gate.",
    }[task]


def run(options: argparse.Namespace) -> int:
    """0 when it was measured, 1 when text was given back beyond the gate. Raises UsageError without the model's
    libraries, or without data."""
    if options.task == "pass":
        return eval_pass.run(options)
    if options.task == "memory":
        return eval_memory.run(options)
    try:
        import torch

        from riallm.core.shipped import folder_of
        from riallm.models.load import TOKENIZER, load_ria
        from riallm.tokenizer.saved import load
    except ImportError as error:
        raise UsageError(f"models need more than the core: {error}. Run: pip install 'riallm[models]'") from None
    folder = folder_of(options.model)
    if options.task == "infill":
        found = _infill(folder, options)
    else:
        model = load_ria(folder, dtype=torch.bfloat16).to(torch.bfloat16)
        measure = _bits if options.task == "bpb" else _extraction
        found = measure(model, load(folder / TOKENIZER), options)
    sys.stdout.write(json.dumps({"task": options.task, "model": folder.name, **found}) + "\n")
    return 0 if found.get("passed", True) else 1


def _bits(model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console
    from rich.table import Table

    from riallm.eval.sets.held_out import default_data
    from riallm.eval.tasks.bits import measure

    table = Table("package", "files", "bytes", "model", "xz", "5-gram", "less than xz, %", "less than 5-gram, %")
    errors = Console(stderr=True)
    rows = measure(model, tokenizer, options.data or default_data(), say=lambda row: errors.print(row.package))
    for row in rows:
        table.add_row(
            row.package,
            str(row.num_files),
            f"{row.num_bytes:,}",
            *(f"{bits:.3f}" for bits in (row.model, row.xz, row.ngram)),
            *(f"{100 * (1 - row.model / bits):.1f}" for bits in (row.xz, row.ngram)),
        )
    if not options.json:
        Console().print(table)
    return {"rows": [asdict(row) for row in rows]}


def _infill(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from riallm.agent.local import LocalClient
    from riallm.eval.sets.held_out import default_data
    from riallm.eval.tasks.infill import held_out_lines, humaneval_lines, measure

    if options.limit < 1:
        raise UsageError(f"--limit is {options.limit}; at least 1")
    items = (
        held_out_lines(options.data or default_data(), num=options.limit, seed=options.seed)
        if options.set == "held_out"
        else humaneval_lines(options.data, num=options.limit, seed=options.seed)
    )
    found = measure(LocalClient(folder), items)
    if not options.json:
        Console().print(
            f"{options.set}: {found['num']} lines, exactly filled: model {found['model']['value']:.1%}"
            f" [{found['model']['low']:.1%}, {found['model']['high']:.1%}], n-gram {found['ngram']['value']:.1%}"
            f" [{found['ngram']['low']:.1%}, {found['ngram']['high']:.1%}]"
        )
    return {"set": options.set, "limit": options.limit, "seed": options.seed, **found}


def _extraction(model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, Any]:
    from rich.console import Console

    from riallm.core.files import cache_home
    from riallm.data.corpus.shards import read_corpus
    from riallm.eval.tasks.extraction import measure

    if options.num < 1:
        raise UsageError(f"--num is {options.num}; at least 1")
    rows = list(read_corpus(options.data or cache_home() / "corpus" / options.corpus, "train"))
    found = measure(model, tokenizer, rows, num=options.num, seed=options.seed)
    if not options.json:
        own, every = found["verbatim_no_boilerplate"], found["verbatim"]
        Console().print(
            f"{found['prompts']} prompts of {found['prompt_tokens']} tokens, {found['continuation_tokens']} more tokens"
            f" verbatim: {own['value']:.2%} [{own['low']:.2%}, {own['high']:.2%}] without boilerplate, "
            f"{every['value']:.2%} with it; gate {found['gate']:.2%}: {'passed' if found['passed'] else 'failed'}"
        )
    return {"corpus": options.corpus, "seed": options.seed, **found}
