"""The card of a benchmark: what was measured, on which machine, and how to measure it again."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from riallm.core.device import PROC, memory, num_cores

Figure = str | int | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One measurement. `command` repeats it; `figures` are in the units that their names tell."""

    name: str
    command: str
    figures: Mapping[str, Figure]


def machine(*, proc: Path = PROC) -> dict[str, Figure]:
    """The hardware and software that a figure depends on."""
    found = memory(proc=proc)
    return {
        "processor": _processor(proc),
        "cores": num_cores(proc=proc),
        "memory_gib": round(found.total_bytes / 2**30, 1) if found.total_bytes else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def emit(card: Card) -> None:
    """Write the card to stdout, its last line JSON. `make bench SAVE=results` keeps it."""
    today = datetime.date.today().isoformat()
    here = machine()
    width = max(map(len, [*here, *card.figures, "command"]))
    rows = {"date": today, "command": card.command, **here, **card.figures}
    lines = [card.name, *(f"  {name:{width}}  {_text(value)}" for name, value in rows.items())]
    lines.append(json.dumps({"name": card.name, **rows}))
    sys.stdout.write("\n".join(lines) + "\n")


def _text(value: Figure) -> str:
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def _processor(proc: Path) -> str | None:
    """Name of the processor; None where the system does not tell it."""
    try:
        lines = (proc / "cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
