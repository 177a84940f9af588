"""`riallm data build | repairs | report`: the training corpus of a recipe, what is in it and what is not."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from riallm.core.errors import UsageError
from riallm.core.files import cache_home

DESCRIPTION = """Build a corpus from pinned releases. Finished packages are not built again, so the same command goes on
where an earlier one was stopped."""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    top = argparse.ArgumentParser(prog="riallm data", description="The training corpus, from pinned packages.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="fetch, filter and write a corpus", description=DESCRIPTION)
    build.add_argument("recipe", help="a corpus by name, for instance python_small")
    build.add_argument("--out", type=Path, metavar="DIR", help="where it goes (default: corpus/RECIPE of our cache)")
    build.add_argument("--archives", type=Path, metavar="DIR", help="fetched archives (default: beside the corpora)")
    build.add_argument("--benchmarks", type=Path, metavar="DIR", help="the benchmarks' folder, to keep them out")
    build.add_argument("--json", action="store_true", help="the last line of stdout is the sums as one JSON object")
    report = commands.add_parser("report", help="what a corpus holds, and what was left out and why")
    report.add_argument("recipe", nargs="?", default="python_full", help="a corpus by name (default: python_full)")
    report.add_argument("--out", type=Path, metavar="DIR", help="the corpus in this folder (default: as published)")
    repairs = commands.add_parser("repairs", help="put bugs into the functions of a built corpus, for code repair")
    repairs.add_argument("recipe", help="a corpus by name")
    repairs.add_argument("--out", type=Path, metavar="DIR", help="the corpus in this folder (default: of our cache)")
    repairs.add_argument("--per-row", type=int, default=48, metavar="N", help="bugs for 100 kB of code (default: 48)")
    repairs.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    seen = commands.add_parser("verified", help="add bugs that a package's own tests have seen, with what they said")
    seen.add_argument("recipe", help="a corpus by name; its repairs have been written")
    seen.add_argument("package", nargs="*", help="packages of it (default: those whose tests need only pytest)")
    seen.add_argument("--out", type=Path, metavar="DIR", help="the corpus in this folder (default: of our cache)")
    seen.add_argument("--archives", type=Path, metavar="DIR", help="fetched archives (default: beside the corpora)")
    seen.add_argument("--num", type=int, default=300, metavar="N", help="bugs of a package (default: 300)")
    how = report.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="the manifest as one JSON object")
    how.add_argument("--notices", action="store_true", help="text for a file of third-party notices")
    return top


def main(argv: list[str]) -> int:
    """0 when done, 2 for what the message names."""
    options = parser().parse_args(argv)
    return {"build": build, "repairs": repairs, "verified": verified, "report": report}[options.command](options)


def repairs(options: argparse.Namespace) -> int:
    """Write the repairs with progress on stderr."""
    from riallm.data.repair_corpus import write
    from riallm.recipes.corpus import corpus

    if options.per_row < 1 or options.jobs < 1:
        raise UsageError(f"--per-row is {options.per_row}, --jobs is {options.jobs}; both are at least 1")
    folder = options.out or cache_home() / "corpus" / corpus(options.recipe).name
    total = write(folder, per_row=options.per_row, jobs=options.jobs, say=_say)
    sys.stdout.write(f"{total} repairs in {folder}\n")
    return 0


def verified(options: argparse.Namespace) -> int:
    """Add verified repairs with progress on stderr."""
    from riallm.recipes.corpus import corpus
    from riallm.recipes.verified import TESTED, write

    if options.num < 1:
        raise UsageError(f"--num is {options.num}; it is at least 1")
    home = cache_home() / "corpus"
    folder = options.out or home / corpus(options.recipe).name
    names = options.package or TESTED
    total = write(folder, options.archives or home / "sdists", names, num=options.num, say=_say)
    sys.stdout.write(f"{total} verified repairs added to {folder}\n")
    return 0


def build(options: argparse.Namespace) -> int:
    """Build with progress on stderr."""
    from riallm.data.corpus.build import build as build_corpus
    from riallm.data.corpus.decontaminate import Protected
    from riallm.recipes.corpus import corpus
    from riallm.recipes.protected import names, texts

    recipe = corpus(options.recipe)
    home = cache_home() / "corpus"
    archives = options.archives or home / "sdists"
    _say("reading the evaluation sets ...")
    protected = Protected.of(texts(benchmarks=options.benchmarks, archives=archives))
    _say(f"{len(protected.code)} windows of code and {len(protected.prose)} of prose stay out")
    out = options.out or home / recipe.name
    manifest = build_corpus(recipe, folder=out, archives=archives, protected=protected, held_out=names(), say=_say)
    _say(f"written to {out}; `riallm data report {recipe.name} --out {out}` shows it")
    if options.json:
        sys.stdout.write(json.dumps({"out": str(out), "content": manifest.content, **manifest.totals()}) + "\n")
    return 0


def report(options: argparse.Namespace) -> int:
    """Print the manifest of a folder, of the cache, or the published one."""
    from rich.console import Console

    from riallm.data.corpus.manifest import notices, read
    from riallm.data.corpus.report import show
    from riallm.recipes.corpus import MANIFESTS, corpus

    name = corpus(options.recipe).name
    published = MANIFESTS / f"{name}.json"
    built = cache_home() / "corpus" / name / "manifest.json"
    path = options.out / "manifest.json" if options.out else published if published.exists() else built
    if not path.exists():
        raise UsageError(f"{path} is not there; build the corpus first: riallm data build {name}")
    manifest = read(path)
    if options.json:
        sys.stdout.write(json.dumps(manifest.as_json(), sort_keys=True) + "\n")
    elif options.notices:
        sys.stdout.write(notices(manifest))
    else:
        show(manifest, Console(width=max(130, Console().width)))
    return 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
