"""Makes a manifest of injected bugs. Takes an hour or so; what it has found is kept and it goes on from there.

    python -m riallm.eval.sets.make_injected [--set injected] --data DIR [--num 360] [--seed 1]

Every bug is proved in the sandbox (`eval/verify`). No package may hold over 15 % of the bugs, no injector over
10 %, and at least 55 % come from injectors unlike the repair's operators.
"""

from __future__ import annotations

import argparse
import compileall
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from riallm.code.source import Source
from riallm.data.inject import UNLIKE_NAMES, Injection, functions_of, inject
from riallm.data.inject_operators import operator_weights
from riallm.data.inject_pattern import refine
from riallm.data.inject_site import Library
from riallm.eval.sets.held_out import Held, code_files, default_data, release_folder, test_files
from riallm.eval.sets.injected import SETS
from riallm.eval.verify import NAMED, Baseline, Proof, baseline, prove, saved_baseline
from riallm.sandbox import open_sandbox

PACKAGE_SHARE = 0.15
INJECTOR_SHARE = 0.10
UNLIKE_SHARE = 0.58
VISIBLE_SECONDS = 5.0
PER_FUNCTION = 3


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One package on the bench: a scratch copy, its parsed files, its tests' outcomes and what they enter."""

    held: Held
    folder: Path
    kept: Path

    @cached_property
    def sources(self) -> dict[str, Source]:
        return {
            path: Source.parse(path, (self.folder / path).read_bytes()) for path in code_files(self.held, self.folder)
        }

    @cached_property
    def library(self) -> Library:
        return Library.of(self.sources.values())

    @cached_property
    def base(self) -> Baseline:
        tests = test_files(self.held, self.folder)
        return saved_baseline(self.kept, lambda: baseline(self.folder, tests, opener=open_sandbox, seconds=120))

    @cached_property
    def covered(self) -> dict[tuple[str, int], list[str]]:
        """(path, first line) of a function -> the passing tests that enter it."""
        found: dict[tuple[str, int], list[str]] = {}
        for name, places in self.base.outcomes.entered.items():
            if name in self.base.passing:
                for place in places:
                    found.setdefault(place, []).append(name)
        return found

    def visible(self, place: tuple[str, int]) -> tuple[str, ...]:
        """The test modules that enter the function, most such tests first, up to five seconds together; of a module
        that alone takes longer, the tests that enter it."""
        by_module: dict[str, list[str]] = {}
        for name in self.covered[place]:
            by_module.setdefault(name.partition("::")[0], []).append(name)
        taken: list[str] = []
        left = VISIBLE_SECONDS
        for module, _ in sorted(by_module.items(), key=lambda item: (-len(item[1]), item[0])):
            whole = [name for name in self.base.outcomes.seconds if name.startswith(module + "::")]
            seconds = self.base.seconds_of(whole)
            if seconds <= left:
                taken.append(module)
                left -= seconds
        if not taken:
            for name in sorted(self.covered[place], key=lambda name: (self.base.seconds_of([name]), name))[:60]:
                if self.base.seconds_of([name]) <= left:
                    taken.append(name)
                    left -= self.base.seconds_of([name])
        return tuple(taken)

    def asked(self, place: tuple[str, int], visible: tuple[str, ...]) -> tuple[str, ...]:
        """What proving runs: the visible tests that enter the function, by name while they are few."""
        names = [name for name in self.covered[place] if name in visible or name.partition("::")[0] in visible]
        return tuple(names) if len(names) <= NAMED else visible

    def withheld(self, place: tuple[str, int], visible: tuple[str, ...], proof: Proof) -> tuple[str, ...]:
        """Every second red test, where no test outside the visible ones enters the function: something must judge."""
        outside = [
            name for name in self.covered[place] if name not in visible and name.partition("::")[0] not in visible
        ]
        return () if outside else tuple(proof.red[1::2])


def choose(counts: Counter[str], num: int, draw: random.Random) -> str:
    """The injector that is wanted next: the family that lags, and in it one below its cap."""
    unlike = sum(count for name, count in counts.items() if name.startswith("unlike:"))
    cap = INJECTOR_SHARE * num
    if unlike < UNLIKE_SHARE * (sum(counts.values()) + 1):
        names = [f"unlike:{name}" for name in UNLIKE_NAMES if counts[f"unlike:{name}"] < cap]
        return draw.choice(names)
    weights = {name: weight for name, weight in operator_weights().items() if counts[f"operator:{name}"] < cap}
    return "operator:" + draw.choices(list(weights), weights=list(weights.values()))[0]


def attempt(bench: Bench, injector: str, taken: Counter[str], draw: random.Random) -> tuple[Injection, Source] | None:
    """An injection in some covered function of the package that has not had its share."""
    places = [
        (source, name, function, injected_line)
        for source in bench.sources.values()
        for name, function in functions_of(source)
        for injected_line in [min([function.lineno, *(node.lineno for node in function.decorator_list)])]
        if (source.path, injected_line) in bench.covered
        and taken[f"{bench.held.name}:{source.path}:{name}"] < PER_FUNCTION
    ]
    for source, name, function, _ in draw.sample(places, min(len(places), 25)):
        made = inject(source, function, name, library=bench.library, injector=injector, draw=draw)
        if made is not None:
            return made, source
    return None


def record(
    bench: Bench, made: Injection, proof: Proof, visible: tuple[str, ...], withheld: tuple[str, ...]
) -> dict[str, object]:
    """One line of the manifest."""
    edits = [{key: value for key, value in asdict(edit).items() if key not in ("path", "prior")} for edit in made.edits]
    return {
        "package": bench.held.name,
        "version": bench.held.version,
        "path": made.path,
        "function": made.function,
        "injector": made.injector,
        "pattern": refine(made.pattern, proof.messages),
        "edits": edits,
        "visible": list(visible),
        "withheld": list(withheld),
        "red": len(proof.red),
    }


def places_of(edits: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Where a bug's edits are and what they write."""
    return [[edit["start"], len(edit["original"]), edit["text"]] for edit in edits]


def spelling(package: str, made: Injection) -> str:
    """Equal for two bugs that are the same text."""
    return json.dumps([package, made.path, places_of([asdict(edit) for edit in made.edits])])


def make(data: Path, num: int, seed: int, which: str = "injected") -> Counter[str]:
    """Bring a set's manifest to `num` bugs; returns how often attempts ended how."""
    table, manifest = SETS[which]
    rows = [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.exists() else []
    injectors = Counter(row["injector"] for row in rows)
    packages = Counter(dict.fromkeys(table, 0)) + Counter(row["package"] for row in rows)
    taken = Counter(f"{row['package']}:{row['path']}:{row['function']}" for row in rows)
    known = {json.dumps([row["package"], row["path"], places_of(row["edits"])]) for row in rows}
    ends: Counter[str] = Counter()
    number = max([row["attempt"] for row in rows], default=0)
    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="riallm-inject-") as scratch:
        benches: dict[str, Bench] = {}
        while len(rows) < num:
            number += 1
            draw = random.Random(f"{seed}:{number}")
            open_packages = [name for name in table if packages[name] < PACKAGE_SHARE * num]
            name = min(open_packages, key=lambda name: (packages[name] + 0.2 * spent[name], name))
            spent[name] += 1
            if name not in benches:
                folder = Path(scratch) / name
                shutil.copytree(release_folder(table[name], data), folder)
                compileall.compile_dir(folder, quiet=2)
                kept = data / "held_out" / f"{table[name].key}.baseline.json"
                benches[name] = Bench(held=table[name], folder=folder, kept=kept)
            bench, injector = benches[name], choose(injectors, num, draw)
            found = attempt(bench, injector, taken, draw)
            if found is None:
                ends["nothing to change"] += 1
                continue
            made, source = found
            if injectors[made.injector] >= INJECTOR_SHARE * num or spelling(name, made) in known:
                continue
            known.add(spelling(name, made))
            place = (made.path, made.first_line)
            visible = bench.visible(place)
            proof = (
                prove(bench.folder, source, made, visible, bench.base, opener=open_sandbox)
                if visible
                else "no quick test"
            )
            if isinstance(proof, str):
                ends[proof] += 1
                continue
            row = record(bench, made, proof, visible, bench.withheld(place, visible, proof))
            row = {"id": f"{name}-{number}", "attempt": number, **row}
            rows.append(row)
            injectors[made.injector] += 1
            packages[name] += 1
            spent[name] = 0
            taken[f"{name}:{made.path}:{made.function}"] += 1
            ends["kept"] += 1
            with manifest.open("a") as file:
                file.write(json.dumps(row, ensure_ascii=True) + "\n")
            sys.stderr.write(f"{len(rows)}/{num} {row['id']} {made.injector} {dict(ends)}\n")
    return ends


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m riallm.eval.sets.make_injected", description=__doc__)
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--num", type=int, default=360)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", choices=tuple(SETS), default="injected")
    args = parser.parse_args(argv)
    ends = make(args.data, args.num, args.seed, args.set)
    sys.stdout.write(json.dumps({"set": args.set, "attempts": dict(ends)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
