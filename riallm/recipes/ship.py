"""A run becomes a model that ships: `python -m riallm.recipes.ship RUN --to FOLDER [--evaluations FILE...]`.

Weights and tokenizer go as they are; the card and the notices are written from the run's records, the corpus's manifest
and the evaluations' JSON objects. The same command again replaces the card when there are more evaluations; RUN may
then be the shipped folder itself, whose card says how it was trained.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from riallm.checkpoint.folder import add
from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import made_folder
from riallm.data.corpus.manifest import Manifest, notices, read
from riallm.models.load import keeps_memory, load_ria, load_rxt
from riallm.recipes.card import Facts, card, corpus_of, training, training_of
from riallm.recipes.corpus import MANIFESTS
from riallm.recipes.memory_card import MemoryFacts, memory_card, memory_training
from riallm.train.stage import BEFORE
from riallm.train.staged import place_of

RECORDS = ("stage.json", "result.json", "metrics.jsonl")
CARD, NOTICES = "README.md", "THIRD_PARTY.md"


class Shipped(NamedTuple):
    """What is told of a model, and the files beside it."""

    num_parameters: int
    num_bytes: int
    files: dict[str, bytes]


def described(run: Path, name: str, evaluations: Sequence[Path]) -> Shipped:
    """Card and notices of a run that is over, or of a model that was shipped; its files are checked. Raises UsageError
    for a run that is not over, and for a memory that learned from files of the user's."""
    folder = model_of(run)
    records = [record(path) for path in evaluations]
    num_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.name not in (CARD, NOTICES))
    if keeps_memory(folder):
        return _with_memory(run, folder, name, num_bytes, records)
    if folder == run:
        before = (run / CARD).read_text("utf-8")
        told, corpus = training_of(before), corpus_of(before)
    else:
        stage, result = (json.loads((run / file).read_text("utf-8")) for file in RECORDS[:2])
        first = training_of((run / BEFORE).read_text("utf-8")) if (run / BEFORE).exists() else ""
        told, corpus = training(stage, result, _steps(run), first), stage["text"]["corpus"]
    model = load_ria(folder)
    facts = Facts(
        name=name,
        num_parameters=model.costs().num_parameters,
        num_bytes=num_bytes,
        config=model.config,
        training=told,
        corpus=manifest(corpus) if corpus else None,
        evaluations=records,
    )
    files = {CARD: card(facts).encode()}
    if facts.corpus is not None:
        files[NOTICES] = notices(facts.corpus).encode()
    return Shipped(facts.num_parameters, num_bytes, files)


def _with_memory(run: Path, folder: Path, name: str, num_bytes: int, records: list[dict[str, Any]]) -> Shipped:
    if folder == run:
        told = training_of((run / CARD).read_text("utf-8"))
    else:
        recipe = json.loads((run / RECORDS[0]).read_text("utf-8"))
        files = [file for stage in recipe["stages"] for file in stage["files"]]
        if files:
            raise UsageError(
                f"{run} was trained on files of yours ({', '.join(files)}), of which the card that is written here "
                "knows nothing: it says that all text is this project's own. Copy the model folder, and write its card"
            )
        told = memory_training(recipe, [(stage, _steps(place)) for stage, place in zip(*_staged(run), strict=True)])
    model = load_rxt(folder)
    facts = MemoryFacts(
        name=name,
        num_parameters=sum(each.numel() for each in model.parameters()),
        num_bytes=num_bytes,
        config=model.config,
        training=told,
        evaluations=records,
    )
    return Shipped(facts.num_parameters, num_bytes, {CARD: memory_card(facts).encode()})


def _steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RECORDS[2]).read_text("utf-8").splitlines()]


def _staged(run: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """The stages of a recipe, and where each was trained."""
    stages = json.loads((run / RECORDS[0]).read_text("utf-8"))["stages"]
    return stages, [place_of(run, number, stage["name"]) for number, stage in enumerate(stages)]


def model_of(run: Path) -> Path:
    """The folder of a run's model; of a shipped one, itself."""
    if (run / CARD).exists() and (run / "manifest.json").exists():
        return run
    if not (run / RECORDS[0]).is_file():
        raise UsageError(f"{run} is no folder of a run, and no shipped model: there is no {run / RECORDS[0]}")
    wanted = [*(run / file for file in RECORDS), run / "model/manifest.json"]
    if "stages" in json.loads((run / RECORDS[0]).read_text("utf-8")):
        wanted = [*(place / RECORDS[2] for place in _staged(run)[1]), wanted[-1]]
    missing = [path.relative_to(run) for path in wanted if not path.exists()]
    if missing:
        raise UsageError(f"{run} has no {missing[0]}: the run is not over; `riallm train` with the same folder goes on")
    return run / "model"


def manifest(corpus: str) -> Manifest:
    """The published manifest of a corpus. Raises UsageError where there is none."""
    path = MANIFESTS / f"{corpus}.json"
    if not path.exists():
        raise UsageError(f"{path.name} has not been published; copy the manifest of the corpus there")
    return read(path)


def record(path: Path) -> dict[str, Any]:
    """The closing JSON object of an evaluation, from a file that ends with it."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8").strip().splitlines()[-1])
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"{path} does not end with the JSON object of an evaluation ({error})") from None
    return found


def ship(run: Path, to: Path, evaluations: Sequence[Path]) -> Shipped:
    """Write the model with card and notices to `to`, which is whole or as it was. Raises UsageError, besides what
    `described` does, for a `to` that is there and no model, which stays."""
    told = described(run, to.name, evaluations)
    made_folder(to.parent, "--to")
    if to.exists() and not (to / "manifest.json").is_file():
        raise UsageError(f"{to} is there and holds no model that could be replaced; name another folder by --to")
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
        made = Path(scratch) / "model"
        shutil.copytree(model_of(run), made)
        add(made, told.files)
        if to.exists():
            shutil.move(to, Path(scratch) / "old")
        shutil.move(made, to)
    return told


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was shipped; 2 for a run or record that does not do."""
    parser = argparse.ArgumentParser(prog="python -m riallm.recipes.ship", description="a run becomes a shipped model")
    parser.add_argument("run", type=Path, help="the folder of a run that is over, or of a shipped model")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="for instance weights/ria-nano")
    parser.add_argument("--evaluations", type=Path, nargs="*", default=[], help="files that end with a JSON object")
    options = parser.parse_args(argv)
    try:
        told = ship(options.run, options.to, options.evaluations)
    except RiallmError as error:
        sys.stderr.write(f"ship: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{options.to}: {told.num_parameters:,} parameters, {told.num_bytes:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
