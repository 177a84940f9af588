"""`riallm train RECIPE [a.b=c ...]`: train a model from a recipe; the same command goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riallm.core.errors import UsageError
from riallm.core.files import cache_home
from riallm.core.picture import picture

if TYPE_CHECKING:
    from riallm.train.loop import Step


def main(argv: list[str]) -> int:
    """0 when the run is over, 1 when its loss is no number, 2 for bad usage, 130 after Ctrl-C with everything saved."""
    parser = argparse.ArgumentParser(prog="riallm train", description="Train a model from a recipe, resumable.")
    parser.add_argument("recipe", help="a name; 'list' shows them all")
    parser.add_argument("override", nargs="*", help="settings, for instance train.optimiser.lr=0.02")
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
        found = run(stage, folder, on_step=bar(stage.name, quiet=_quiet(options)))
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

    def on_stage(name: str, steps: int) -> Any:
        begun.append(name)
        return bar(name, quiet=_quiet(options))

    try:
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


def bar(name: str, *, quiet: bool) -> Any:
    """Hears each step: on a terminal a bar with loss, speed and time that is left, elsewhere a line a twentieth."""
    seconds, told = [0.0], [0]

    def line(step: Step) -> str:
        seconds[0] += step.seconds
        bits = "" if step.bits_per_byte is None else f"{step.bits_per_byte:.3f} bits/byte  "
        left = seconds[0] / max(1e-9, step.elapsed) - seconds[0]
        return (
            f"step {step.step}  loss {step.nats:.3f}  {bits}"
            f"{step.num_tokens / step.seconds:,.0f} tokens/s  {step.flops_per_second / 1e12:.3f} TFLOP/s  "
            f"{left / 60:.1f} min left"
        )

    if quiet:

        def tell(step: Step) -> None:
            text, part = line(step), int(20 * step.elapsed)
            if part > told[0]:
                sys.stderr.write(text + "\n")
            told[0] = part

        return tell
    from rich.progress import BarColumn, Progress, TextColumn

    progress = Progress(TextColumn("{task.description}"), BarColumn())
    task = progress.add_task(name, total=1.0)
    progress.start()

    def show(step: Step) -> None:
        progress.update(task, completed=step.elapsed, description=line(step))
        if step.elapsed >= 1.0:
            progress.stop()

    return show


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
