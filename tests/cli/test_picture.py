"""The picture of a terminal: well-formed, with its text, and without anything from elsewhere."""

from __future__ import annotations

import html
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
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


def test_paths_are_shown_from_where_it_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a & b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    console = Console(record=True, width=300, file=io.StringIO())
    console.print(f"run by {folder}/.venv/bin/python <of ours>", soft_wrap=True, highlight=False)
    save_picture(console, tmp_path / "run.svg", title="x")
    text = (tmp_path / "run.svg").read_text()
    assert "run by .venv/bin/python <of ours>" in "".join(ElementTree.fromstring(text).itertext()).replace("\xa0", " ")
    (length, shown) = re.findall(r'textLength="([\d.]+)"[^>]*>(run[^<]*)<', text)[0]
    assert float(length) == pytest.approx(12.2 * len(html.unescape(shown)), rel=0.01)
