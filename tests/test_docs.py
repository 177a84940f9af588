"""The documents tell the truth: commands run, the tree is the tree, links lead somewhere, generated pages are new."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (
    sorted(path for path in ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")) + [ROOT / "examples/README.md"]
)
NO_SANDBOX = 3


def fences(text: str, info: str) -> list[str]:
    """Bodies of the code fences whose info string is `info`."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", text, flags=re.M | re.S)


def readme_commands() -> list[str]:
    return [line for body in fences(README.read_text(), "sh executed") for line in body.splitlines() if line.strip()]


def test_the_readme_has_commands_to_execute() -> None:
    assert len(readme_commands()) >= 3


@pytest.mark.parametrize("line", readme_commands())
def test_commands_of_the_readme_run(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == ".venv/bin/riallm", "commands in the README are written as `make run` leaves them"
    argv = [sys.executable, "-m", "riallm", *words[1:]]
    env = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    done = subprocess.run(
        argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110
    )
    if done.returncode == NO_SANDBOX:
        pytest.skip(f"no sandbox on this machine: {done.stdout[-300:]}{done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def tree() -> dict[str, str]:
    """Folder -> comment, from the README's tree: names indented under `riallm/` are rooms of the package."""
    (body,) = fences(README.read_text(), "tree")
    entries: dict[str, str] = {}
    parent = ""
    for line in body.splitlines():
        indent, name, comment = re.fullmatch(r"( *)(\S+)/ +(.+)", line).groups()  # type: ignore[union-attr]
        parent = parent if indent else name
        entries[f"{parent}/{name}" if indent else name] = comment
    return entries


def test_the_tree_of_the_readme_is_the_tree() -> None:
    rooms = {path.parent for path in (ROOT / "riallm").glob("[!_]*/*") if path.is_file()}
    top = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name != "build"]
    filled = {path for path in top if any(inner.is_file() for inner in path.rglob("*"))}
    assert set(tree()) == {path.relative_to(ROOT).as_posix() for path in rooms | filled}


def anchors(page: Path) -> set[str]:
    """What `#...` may point at in a page: its headings, as GitHub spells them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", prose, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or not path.is_relative_to(ROOT) or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_are_there(page: Path) -> None:
    """`riallm/core/errors.py` in backquotes is a promise like a link."""
    named = re.findall(r"`((?:riallm|tests|docs|examples|results|\.ci)/[\w./-]*\w(?:\.\w+)?/?)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_generated_pages_are_what_make_docs_writes() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.PAGE.read_text() == generate.page(), "run `make docs`"
    assert generate.API.read_text() == generate.api(), "run `make docs`"


def test_the_picture_shows_a_run_of_the_example() -> None:
    picture = (ROOT / "docs/pictures/fix.svg").read_text()
    words = re.sub(r"<[^>]+>", " ", picture).replace("&#160;", " ")
    assert picture.startswith("<svg")
    assert "semver.py" in words
    assert not re.search(r"""(?:url\(|href=|src=)["']?http""", picture), "a picture must load nothing from elsewhere"


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for page in PAGES:
        named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", page.read_text(), flags=re.M))
        assert named <= targets, page


def test_the_project_is_described_once() -> None:
    """The changelog knows the version that the package has, or has something unreleased."""
    from riallm import __version__

    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{__version__}]" in changelog or "## [Unreleased]" in changelog


def test_doctor_and_the_documents_agree_on_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "riallm", "doctor", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, NO_SANDBOX), done.stderr
    assert isinstance(json.loads(done.stdout.splitlines()[-1]), dict)
