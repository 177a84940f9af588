"""The doors of the house: a module imports its own folder or lower rows, equal rows do not know each other.

Read from the syntax trees, so imports inside functions and under TYPE_CHECKING count, and so does a string
such as "riallm.cli.fix:main", which is an import that has not happened yet. Everyone may read the package's
own name and version.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

ROWS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("quant", "code", "sandbox", "memory", "tokenizer"),
    ("nn", "checkpoint"),
    ("models", "data"),
    ("engine",),
    ("agent",),
    ("serve", "editor"),
    ("eval",),
    ("train",),
    ("testing", "recipes"),
    ("bench",),
    ("cli", "rxt", "ruvltra"),
    ("__main__",),
)
RANK = {room: rank for rank, row in enumerate(ROWS) for room in row}

DOTTED = re.compile(r"riallm(\.[A-Za-z_]\w*)+(:[A-Za-z_]\w*)?")


def rooms(package: Path) -> dict[str, list[Path]]:
    """Room -> its Python files: folders of the package, and single files at its root."""
    found: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts != ("__init__",):
            found.setdefault(parts[0], []).append(path)
    return found


def imported(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything in `path` that names a module of ours, `from a import b` as a.b."""
    here = ("riallm", *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            base += (node.module,) if node.module else ()
            yield from ((node.lineno, ".".join((*base, alias.name))) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
            yield node.lineno, node.value.replace(":", ".")


def breaches(package: Path) -> list[str]:
    """Every import that goes the wrong way, and every room that has no row."""
    found = []
    for room, paths in rooms(package).items():
        if room not in RANK:
            found.append(f"{room} has no row in ROWS")
            continue
        for path in paths:
            for line, name in imported(path, package):
                top, *rest = name.split(".")
                if top != "riallm" or not rest or rest[0] in (room, "__version__"):
                    continue
                if rest[0] not in RANK:
                    found.append(f"{path.relative_to(package)}:{line} imports {name}, which has no row in ROWS")
                elif RANK[rest[0]] >= RANK[room]:
                    found.append(f"{path.relative_to(package)}:{line} {room} must not know {rest[0]} ({name})")
    return found


def test_imports_go_one_way() -> None:
    assert breaches(ROOT / "riallm") == []


def test_the_package_itself_imports_nothing() -> None:
    tree = ast.parse((ROOT / "riallm" / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def house(root: Path, files: dict[str, str]) -> Path:
    """A small package to try the rule on."""
    package = root / "riallm"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def test_what_is_allowed_passes(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "core/files.py": "import os\n",
        "code/edit.py": "from riallm.core.files import x\nfrom . import spans\nfrom riallm import __version__\n",
        "code/deep/one.py": "from ..edit import y\nfrom riallm.code import edit\n",
        "agent/fix.py": "import riallm.sandbox.base\nfrom riallm import core\n",
        "__main__.py": "TABLE = {'fix': 'riallm.cli.fix:main'}\n",
    }
    assert breaches(house(tmp_path, files)) == []


def test_each_way_of_breaking_the_rule_is_seen(tmp_path: Path) -> None:
    wrong = {
        "core/up.py": "from riallm.code import edit\n",
        "code/equal.py": "def f():\n    import riallm.sandbox.base\n",
        "sandbox/inside/relative.py": "from ...agent import client\n",
        "data/parent.py": "from riallm import eval\n",
        "agent/string.py": "WHERE = 'riallm.cli.fix:main'\n",
        "eval/typing_only.py": "import typing\nif typing.TYPE_CHECKING:\n    from riallm.train import loop\n",
        "testing/unknown.py": "import riallm.helpers\n",
        "cellar/new.py": "",
        "attic.py": "",
    }
    found = breaches(house(tmp_path, wrong))
    assert len(found) == len(wrong), found
    for name in wrong:
        place = name.removesuffix(".py").split("/")[0] if name.startswith(("cellar", "attic")) else name
        assert any(entry.startswith(place) for entry in found), name
