"""Plots as SVG files. The same data give the same bytes. Needs the extra `models`, which has matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.core.errors import UsageError
from riallm.core.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def check_plot(path: Path) -> None:
    """Raises UsageError unless `path`, said as --plot, is one for a plot; to be asked before the work that it shows."""
    if path.is_dir():
        raise UsageError(f"--plot {path}: it is a folder; give a file in it")
    if path.suffix != ".svg":
        raise UsageError(f"--plot {path}: plots are drawn as SVG; give a name that ends in .svg")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}; make it first")


@contextmanager
def picture(path: Path, *, rows: int = 1) -> Iterator[list[Axes]]:
    """`rows` plots over one axis of x, for drawing into; written to `path` behind the block, at once or not at all."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "riallm"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, 1, figsize=(8, 4.5 if rows == 1 else 2.7 * rows), sharex=True, squeeze=False)
    try:
        for axis in axes[:, 0]:
            axis.grid(alpha=0.3)
        yield list(axes[:, 0])
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        atomic_write(path, drawn.getvalue())
    finally:
        pyplot.close(figure)
