"""`riallm train RECIPE [a.b=c ...]`: train a model from a recipe; the same command goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.core.errors import UsageError
from riallm.core.files import cache_home
from riallm.core.picture import picture

if TYPE_CHECKING:
    from riallm.train.loop import Step

    Heard = Callable[[Step], None]

BAR = 12
"""Characters of a bar."""
WIDE = 120
"""Characters of a terminal that has room for all that there is to tell."""


def main(argv: list[str]) -> int:
    """0 when the run is over, 1 when its loss is no number, 2 for bad usage, 130 after Ctrl-C with everything saved."""
    parser = argparse.ArgumentParser(prog="riallm train", description="Train a model from a recipe, resumable.")
    parser.add_argument("recipe", nargs="?", help="a name; 'list' shows them all")
    parser.add_argument(
        "override",
        nargs="*",
        help="settings, for instance train.optimiser.lr=0.02; of a stage of several: stages.NAME.train.optimiser.lr",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: in the cache, by name)")
    parser.add_argument(
        "--json", action="store_true", help="no bar; the last line of stdout is one JSON object either way"
    )
    options = parser.parse_intermixed_args(argv)  # settings may stand before and after the options
    try:
        from riallm.core.config import override
        from riallm.recipes.table import RECIPES, STAGED, recipe
        from riallm.train.stage import run
    except ImportError as error:
        raise UsageError(f"training needs more than the core: {error}. Run: pip install 'riallm[models]'") from None
    if options.recipe is None:
        raise UsageError(f"name a recipe: {', '.join((*RECIPES, *STAGED))}; 'list' tells more")
    if options.recipe == "list":
        for name, make in RECIPES.items():
            stage = make()
            sys.stdout.write(f"{name}: {stage.model.hidden_size} wide, {stage.model.num_hidden_layers} layers\n")
        for name, of_stages in STAGED.items():
            made = of_stages()
            names = ", ".join(each.name for each in made.stages)
            data = "; from data=FOLDER" if any(each.files for each in made.stages) else ""
            sys.stdout.write(f"{name}: {made.model.hidden_size} wide, {made.model.num_layers} layers; {names}{data}\n")
        return 0
    if options.recipe in STAGED:
        return _staged(options)
    stage = override(recipe(options.recipe), options.override)
    folder = options.out or cache_home() / "runs" / stage.name
    try:
        with bars(quiet=_quiet(options)) as bar:
            found = run(stage, folder, on_step=bar(stage.name))
    except KeyboardInterrupt:
        return _stopped(folder)
    draw(folder)
    told = {"recipe": stage.name, "folder": str(folder), "model": str(found.folder), "steps": found.steps}
    told |= {"bits_per_byte": found.bits_per_byte, "num_validation_bytes": found.num_validation_bytes}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _staged(options: argparse.Namespace) -> int:
    """`main`, for a recipe of several stages."""
    from riallm.core.config import override
    from riallm.recipes.table import STAGED
    from riallm.train.staged import run

    recipe = override(STAGED[options.recipe](), options.override)
    folder = options.out or cache_home() / "runs" / recipe.name
    begun: list[str] = []

    def on_stage(name: str, steps: int) -> Heard:
        begun.append(name)
        return bar(name)

    try:
        with bars(quiet=_quiet(options)) as bar:
            found = run(recipe, folder, on_stage=on_stage)
    except KeyboardInterrupt:
        return _stopped(folder)
    told = {"recipe": recipe.name, "folder": str(folder), "model": str(found.folder), "steps": found.steps}
    sys.stdout.write(json.dumps({**told, "stages": begun}) + "\n")
    return 0


def _quiet(options: argparse.Namespace) -> bool:
    return options.json or not sys.stderr.isatty()


def _stopped(folder: Path) -> int:
    sys.stderr.write(f"\nriallm train: stopped and saved; the same command goes on. Folder: {folder}\n")
    return 130


@contextmanager
def bars(*, quiet: bool) -> Iterator[Callable[[str], Heard]]:
    """Gives who hears the steps of a stage of a name: on a terminal a bar, else a line a twentieth of the stage. The
    terminal is as it was behind the block, however that ends."""
    if quiet:
        yield lambda name: _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.fields[name]}"), BarColumn(BAR), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console) as progress:

        def bar(name: str) -> Heard:
            task, told = progress.add_task("", total=1.0, name=name), Told()
            return lambda step: progress.update(
                task, completed=step.elapsed, description=told(step, short=console.width < WIDE)
            )

        yield bar


def _lines() -> Heard:
    told, shown = Told(), 0

    def tell(step: Step) -> None:
        nonlocal shown
        text, part = told(step), int(20 * step.elapsed)
        if part > shown:
            sys.stderr.write(text + "\n")
        shown = part

    return tell


class Told:
    """A stage's steps in words, with the time that is left by those that were heard."""

    def __init__(self) -> None:
        self._seconds, self._before = 0.0, -1.0

    def __call__(self, step: Step, *, short: bool = False) -> str:
        """short: what matters most, for a narrow terminal."""
        if self._before < 0.0:  # the share that an earlier call of the command did
            self._before = step.elapsed * (1.0 - 1.0 / step.step)
        self._seconds += step.seconds
        left = self._seconds * (1.0 - step.elapsed) / max(1e-9, step.elapsed - self._before)
        bits = "" if step.bits_per_byte is None else f"{step.bits_per_byte:.3f} bits/byte  "
        speed = f"{step.num_tokens / step.seconds:,.0f} tokens/s  "
        if short:
            bits = ""
        else:
            speed += f"{step.flops_per_second / 1e12:.3f} TFLOP/s  "
        return f"step {step.step}  loss {step.nats:.3f}  {bits}{speed}{left / 60:.1f} min left"


def draw(folder: Path) -> Path:
    """The run's curves as a picture: loss, learning rate, speed."""
    rows = [json.loads(text) for text in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row["step"] for row in rows]
    path = folder / "curves.svg"
    with picture(path, rows=3) as axes:
        for axis, key, label in zip(
            axes,
            ("bits_per_byte", "factor", "flops_per_second"),
            ("bits per byte (training)", "share of the learning rate", "FLOP/s"),
            strict=True,
        ):
            axis.plot(steps, [row[key] for row in rows], linewidth=1)
            axis.set_ylabel(label)
        axes[-1].set_xlabel("step")
    return path
