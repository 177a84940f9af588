"""The picture of a terminal: well-formed, with its text, and without anything from elsewhere."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from rich.console import Console

from riallm.cli.picture import save_picture


def test_a_picture_holds_the_text_and_loads_nothing(tmp_path: Path) -> None:
    console = Console(record=True, width=60, file=io.StringIO())
    console.print("[green]- old[/green]\n[red]+ new & <better>[/red]")
    save_picture(console, tmp_path / "run.svg", title="riallm fix")
    text = (tmp_path / "run.svg").read_text()
    shown = "".join(ElementTree.fromstring(text).itertext()).replace("\xa0", " ")
    assert "- old" in shown and "+ new & <better>" in shown and "riallm fix" in shown
    assert "url(http" not in text and "font-face" not in text
    assert re.search(r"font-family: [^;]*monospace", text)


def test_the_console_can_be_saved_twice(tmp_path: Path) -> None:
    console = Console(record=True, file=io.StringIO())
    console.print("once")
    for name in ("a.svg", "b.svg"):
        save_picture(console, tmp_path / name, title="x")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
