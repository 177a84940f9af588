"""Real upstream bugs: `python -m riallm.data.upstream mine | table | verify | materialise`.

`mine` walks consecutive releases of the packages in PACKAGES (or of those named), bug-fix releases first, and writes
what it finds to the manifest. Every pair's outcome is kept in the cache folder: a broken-off run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import atomic_write
from riallm.core.workers import worker_begins
from riallm.data.releases import Sdist, list_sdists
from riallm.data.upstream_bug import MANIFEST, Bug, Material, home, load, materialise, parse, save
from riallm.data.upstream_mine import Pair, mine_pair
from riallm.data.upstream_page import page
from riallm.data.upstream_verify import objections

__all__ = ["MANIFEST", "PACKAGES", "Bug", "Material", "load", "main", "materialise", "mine", "pairs"]

# Permissively licensed, pure Python, with tests in their source releases. Each licence is checked again per release.
PACKAGES = (
    "more-itertools", "boltons", "toolz", "sortedcontainers", "click", "itsdangerous", "tomlkit", "arrow",
    "humanize", "natsort", "parse", "pyparsing", "sqlparse", "tabulate", "wcwidth", "xmltodict", "jsonschema",
    "jmespath", "marshmallow", "cattrs", "cerberus", "voluptuous", "schema", "glom", "funcy", "cachetools",
    "mistune", "markdown", "markdown-it-py", "bleach", "tinycss2", "cssselect", "parso", "isodate", "croniter",
    "validators", "rfc3986", "hyperlink", "furl", "h11", "hpack", "wsproto", "webob", "pyjwt", "mako",
    "textdistance", "deepdiff", "jsonpatch", "jsonpointer", "semver", "pathspec", "wcmatch", "configobj", "fire",
    "soupsieve", "tinydb", "python-dateutil", "jinja2", "werkzeug", "attrs", "packaging", "lark", "inflect",
    "pendulum", "multidict", "dpath", "pyrsistent", "python-slugify", "addict", "python-box", "mdformat",
    "prettytable", "rich", "dacite", "simpleeval",
)  # fmt: skip


def pairs(sdists: Sequence[Sdist]) -> list[tuple[Sdist, Sdist]]:
    """Consecutive releases: those that change only the last number first, then the second, each kind newest first."""

    def kind(couple: tuple[Sdist, Sdist]) -> int:
        before, after = (sdist.key for sdist in couple)
        return 0 if before[:2] == after[:2] else 1 if before[:1] == after[:1] else 2

    newest_first = list(pairwise(sdists))
    newest_first.reverse()
    return sorted(newest_first, key=kind)


def _index(package: str, folder: Path) -> list[Sdist]:
    """The releases of a package, asked of the index once and kept in the cache."""
    path = folder / "index" / f"{package}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps([asdict(sdist) for sdist in list_sdists(package)], indent=1).encode())
    return [Sdist(**entry) for entry in json.loads(path.read_text())]


def _record(package: str, before: Sdist, after: Sdist, folder: Path) -> Path:
    return folder / "pairs" / package / f"{before.version}__{after.version}.json"


def _mine_one(before: Sdist, after: Sdist, folder: Path) -> Pair:
    """Mine one pair and keep its outcome."""
    pair = mine_pair(before, after, folder)
    path = _record(before.package, before, after, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(asdict(pair), indent=1).encode())
    return pair


def _read(path: Path) -> Pair:
    entry = json.loads(path.read_text())
    found = [parse(bug) for bug in entry.pop("bugs")]
    return Pair(**entry, bugs=found)


def outcomes(folder: Path) -> list[Pair]:
    """The outcome of every pair tried so far."""
    return [_read(path) for path in sorted((folder / "pairs").glob("*/*.json"))]


def mine(packages: Sequence[str], *, rounds: int, per_round: int, bugs: int, jobs: int, folder: Path) -> Iterator[Pair]:
    """Run the tests of up to `per_round` new pairs of each package in each round, until it has given `bugs` bugs.

    Going round keeps the projects many. Yields each outcome as it comes.
    """
    tried: dict[str, list[Pair]] = {package: [] for package in packages}
    for pair in outcomes(folder):
        tried.setdefault(pair.package, []).append(pair)
    with ProcessPoolExecutor(max_workers=jobs, initializer=worker_begins) as pool:
        for _ in range(rounds):
            for package in packages:
                if sum(len(pair.bugs) for pair in tried[package]) >= bugs:
                    continue
                try:
                    listed = _index(package, folder)
                except UsageError as error:
                    sys.stderr.write(f"{package}: {error}\n")
                    continue
                seen = {(pair.before, pair.after) for pair in tried[package]}
                fresh = [(b, a) for b, a in pairs(listed) if (b.version, a.version) not in seen][: 4 * per_round]
                ran = 0
                while fresh and ran < per_round:
                    batch, fresh = fresh[:jobs], fresh[jobs:]
                    done = pool.map(
                        _mine_one, [old for old, _ in batch], [new for _, new in batch], [folder] * len(batch)
                    )
                    for pair in done:
                        tried[package].append(pair)
                        ran += pair.changed_modules > 0
                        yield pair


def distinct(found: Sequence[Pair]) -> list[Bug]:
    """All bugs of the outcomes, each hunk once."""
    return list({bug.id: bug for pair in found for bug in pair.bugs}.values())


def table(found: Sequence[Pair]) -> str:
    """Counts for people: what was tried, what came of it, and why the rest was dropped."""
    bugs = distinct(found)
    rows: list[tuple[str, int]] = [
        ("packages tried", len({pair.package for pair in found})),
        ("pairs tried", len(found)),
        ("tests red on the older release", sum(pair.red for pair in found)),
        ("  of them through wrong behaviour", sum(pair.wrong for pair in found)),
        ("hunks tried alone", sum(pair.candidates for pair in found)),
        ("bugs verified", len(bugs)),
        ("  one contiguous region", sum(bug.regions == 1 for bug in bugs)),
        ("  of at most 10 lines", sum(bug.size <= 10 for bug in bugs)),
        ("projects with a bug", len({bug.package for bug in bugs})),
    ]
    lines = [f"{count:8}  {name}" for name, count in rows]
    lines += ["pairs by verdict:"]
    lines += [f"{count:8}  {name}" for name, count in Counter(pair.verdict for pair in found).most_common()]
    dropped: Counter[str] = Counter()
    for pair in found:
        dropped.update(pair.dropped)
    lines += ["hunks dropped:", *(f"{count:8}  {name}" for name, count in dropped.most_common())]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the return value is the exit code."""
    parser = argparse.ArgumentParser(prog="python -m riallm.data.upstream", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    miner = commands.add_parser("mine", help="look for bugs between consecutive releases")
    miner.add_argument("package", nargs="*", help="packages by name (default: the list in this module)")
    miner.add_argument("--rounds", type=int, default=3, help="how often to go round the packages (default 3)")
    miner.add_argument("--per-round", type=int, default=4, help="new pairs of a package in a round (default 4)")
    miner.add_argument("--bugs", type=int, default=4, help="leave a package with so many bugs (default 4)")
    miner.add_argument("--jobs", type=int, default=1, help="pairs at a time (default 1)")
    for each in (miner, commands.add_parser("table", help="counts of all pairs tried so far")):
        each.add_argument("--manifest", type=Path, default=MANIFEST, help="where the bugs are written")
    commands.choices["table"].add_argument("--page", type=Path, help="write the page about the set there")
    checker = commands.add_parser("verify", help="rebuild bugs and see that each record is true")
    checker.add_argument("id", nargs="*", help="bugs by id (default: all)")
    checker.add_argument("--manifest", type=Path, default=MANIFEST, help="where the bugs are listed")
    builder = commands.add_parser("materialise", help="rebuild one bug's project")
    builder.add_argument("id")
    builder.add_argument("target", type=Path, help="a folder that does not exist yet")
    args = parser.parse_args(argv)
    folder = home()
    try:
        if args.command == "materialise":
            return _show(args.id, args.target)
        if args.command == "verify":
            return _verify(args.id, args.manifest)
        if args.command == "mine":
            steps = mine(
                args.package or PACKAGES,
                rounds=args.rounds,
                per_round=args.per_round,
                bugs=args.bugs,
                jobs=args.jobs,
                folder=folder,
            )
            for pair in steps:
                text = f"{pair.package} {pair.before} -> {pair.after}: {pair.verdict}"
                sys.stdout.write(f"{text} (red {pair.wrong}/{pair.red}, bugs {len(pair.bugs)}, {pair.seconds:.0f} s)\n")
                sys.stdout.flush()
                if pair.bugs:
                    known = load(args.manifest) if args.manifest.exists() else []
                    save({bug.id: bug for bug in [*known, *pair.bugs]}.values(), args.manifest)
        found = outcomes(folder)
        sys.stdout.write(table(found))
        if args.command == "table" and args.page:
            atomic_write(args.page, page(load(args.manifest), table(found)).encode())
    except RiallmError as error:
        sys.stderr.write(f"upstream: {error}\n")
        return error.exit_code
    return 0


def _verify(names: Sequence[str], manifest: Path) -> int:
    """Check records one by one; exit code 1 when one is not true."""
    bugs = [bug for bug in load(manifest) if not names or bug.id in names]
    if len(bugs) < len(set(names)):
        raise UsageError(f"not in {manifest.name}: {', '.join(sorted(set(names) - {bug.id for bug in bugs}))}.")
    wrong = 0
    for bug in bugs:
        with tempfile.TemporaryDirectory(prefix="riallm-upstream-") as scratch:
            found = objections(bug, Path(scratch) / "project")
        wrong += bool(found)
        sys.stdout.write(f"{bug.id}: {'; '.join(found) or 'true'}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(bugs) - wrong} of {len(bugs)} records are true\n")
    return 1 if wrong else 0


def _show(name: str, target: Path) -> int:
    """Rebuild one bug and say how to run it."""
    bug = next((bug for bug in load() if bug.id == name), None)
    if bug is None:
        raise UsageError(f"no bug '{name}' in {MANIFEST.name}; the ids are the field `id` of its lines.")
    material = materialise(bug, target)
    sys.stdout.write(
        json.dumps({"project": str(target), "visible": material.visible, "hidden": material.hidden}) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
