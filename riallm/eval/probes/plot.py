"""A picture of what is remembered: exact answers by distance, with their intervals, beside the controls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riallm.core.picture import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(tables: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """tables: what `counted.table` gives, by length; the controls are drawn of the first."""

    def curve(axis: Axes, name: str, by: Mapping[str, Mapping[str, Any]], style: str) -> None:
        places = sorted(map(int, by))
        if not places:
            return
        at = [by[str(place)] for place in places]
        drawn = axis.plot(places, [100 * each["value"] for each in at], style, label=name, linewidth=1.5)
        low, high = ([100 * each[end] for each in at] for end in ("low", "high"))
        axis.fill_between(places, low, high, color=drawn[0].get_color(), alpha=0.15, linewidth=0)

    with picture(path) as [axis]:
        for length, found in tables.items():
            curve(axis, f"memory, {length}", found["memory"]["by_distance"], "-")
        first = next(iter(tables.values()))
        for name in ("reset", "swap", "unread"):
            curve(axis, f"{name} (control)", first[name]["by_distance"], ":")
        axis.set_xlabel("interactions between telling and asking")
        axis.set_ylabel("exact answers, %")
        axis.set_ylim(-2, 102)
        axis.set_title(title, fontsize=10)
        axis.legend(fontsize=8)
