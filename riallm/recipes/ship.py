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
from typing import Any

from riallm.checkpoint.folder import add
from riallm.core.errors import RiallmError, UsageError
from riallm.data.corpus.manifest import Manifest, notices, read
from riallm.models.load import load_ria
from riallm.recipes.card import Facts, card, corpus_of, training, training_of
from riallm.recipes.corpus import MANIFESTS
from riallm.train.stage import BEFORE

RECORDS = ("stage.json", "result.json", "metrics.jsonl")
CARD, NOTICES = "README.md", "THIRD_PARTY.md"


def facts_of(run: Path, name: str, evaluations: Sequence[Path]) -> Facts:
    """What the records of a run say, or the card of a model that was shipped. Raises UsageError for a run that is not
    over."""
    folder = model_of(run)
    if folder == run:
        before = (run / CARD).read_text("utf-8")
        told, corpus = training_of(before), corpus_of(before)
    else:
        stage, result = (json.loads((run / file).read_text("utf-8")) for file in RECORDS[:2])
        steps = [json.loads(line) for line in (run / RECORDS[2]).read_text("utf-8").splitlines()]
        first = training_of((run / BEFORE).read_text("utf-8")) if (run / BEFORE).exists() else ""
        told, corpus = training(stage, result, steps, first), stage["text"]["corpus"]
    model = load_ria(folder)
    return Facts(
        name=name,
        num_parameters=model.costs().num_parameters,
        num_bytes=sum(path.stat().st_size for path in folder.iterdir() if path.name not in (CARD, NOTICES)),
        config=model.config,
        training=told,
        corpus=manifest(corpus) if corpus else None,
        evaluations=[record(path) for path in evaluations],
    )


def model_of(run: Path) -> Path:
    """The folder of a run's model; of a shipped one, itself."""
    if (run / CARD).exists() and (run / "manifest.json").exists():
        return run
    missing = [file for file in (*RECORDS, "model/manifest.json") if not (run / file).exists()]
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


def ship(run: Path, to: Path, evaluations: Sequence[Path]) -> Facts:
    """Write the model with card and notices to `to`, which is whole or as it was."""
    facts = facts_of(run, to.name, evaluations)  # checks the model's files as well
    files = {CARD: card(facts).encode()}
    if facts.corpus is not None:
        files[NOTICES] = notices(facts.corpus).encode()
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
        made = Path(scratch) / "model"
        shutil.copytree(model_of(run), made)
        add(made, files)
        if to.exists():
            shutil.move(to, Path(scratch) / "old")
        shutil.move(made, to)
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was shipped; 2 for a run or record that does not do."""
    parser = argparse.ArgumentParser(prog="python -m riallm.recipes.ship", description="a run becomes a shipped model")
    parser.add_argument("run", type=Path, help="the folder of a run that is over, or of a shipped model")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="for instance weights/ria-nano")
    parser.add_argument("--evaluations", type=Path, nargs="*", default=[], help="files that end with a JSON object")
    options = parser.parse_args(argv)
    try:
        facts = ship(options.run, options.to, options.evaluations)
    except RiallmError as error:
        sys.stderr.write(f"ship: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{options.to}: {facts.num_parameters:,} parameters, {facts.num_bytes:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
