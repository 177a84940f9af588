"""A picture of what is remembered: exact answers by distance, with their intervals, beside the controls."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riallm.core.files import atomic_write


def draw(tables: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """tables: what `counted.table` gives, by length; the controls are drawn of the first. The same tables give the same
    SVG. Needs the extra `models`."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "riallm"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5))

    def curve(name: str, by: Mapping[str, Mapping[str, Any]], style: str) -> None:
        places = sorted(map(int, by))
        if not places:
            return
        at = [by[str(place)] for place in places]
        drawn = axis.plot(places, [100 * each["value"] for each in at], style, label=name, linewidth=1.5)
        low, high = ([100 * each[end] for each in at] for end in ("low", "high"))
        axis.fill_between(places, low, high, color=drawn[0].get_color(), alpha=0.15, linewidth=0)

    for length, found in tables.items():
        curve(f"memory, {length}", found["memory"]["by_distance"], "-")
    first = next(iter(tables.values()))
    for name in ("reset", "swap", "unread"):
        curve(f"{name} (control)", first[name]["by_distance"], ":")
    axis.set_xlabel("interactions between telling and asking")
    axis.set_ylabel("exact answers, %")
    axis.set_ylim(-2, 102)
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    atomic_write(path, drawn.getvalue())
