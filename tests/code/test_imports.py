"""The import graph resolves what Python would, in every layout, and survives what it cannot read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from riallm.code.imports import ImportGraph, project_files


def project(root: Path, files: dict[str, str]) -> ImportGraph:
    """A graph of files written to a folder."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return ImportGraph.build(root)


PACKAGE = {
    "src/pack/__init__.py": "from .api import run\n",
    "src/pack/api.py": "from . import tools\nfrom .deep.low import *\nimport json\n",
    "src/pack/tools.py": "import pack.deep\n\ndef late():\n    from .. import nothing\n    from pack import api\n",
    "src/pack/deep/__init__.py": "",
    "src/pack/deep/low.py": "from ..tools import late\nfrom ...above import x\n",
    "src/space/part/inside.py": "import space.other\n",
    "src/space/other.py": "from space.part import inside\n",
    "tests/conftest.py": "import pack\n",
    "tests/unit/test_api.py": "from pack.api import run\nimport helper\n",
    "tests/unit/helper.py": "import importlib\nx = importlib.import_module('space.other')\n",
}


def test_src_layout_namespace_packages_and_tests(tmp_path: Path) -> None:
    graph = project(tmp_path, PACKAGE)
    assert graph.unparsed == {}
    assert graph.imports_of("src/pack/__init__.py") == ("src/pack/api.py",)
    assert graph.imports_of("src/pack/api.py") == (
        "src/pack/__init__.py",
        "src/pack/tools.py",
        "src/pack/deep/__init__.py",
        "src/pack/deep/low.py",
    )
    assert graph.stars["src/pack/api.py"] == {"src/pack/deep/low.py"}
    assert {"src/pack/deep/__init__.py", "src/pack/api.py"} <= set(graph.imports_of("src/pack/tools.py"))
    assert "src/pack/tools.py" in graph.imports_of("src/pack/deep/low.py")
    assert graph.imports_of("src/space/part/inside.py") == ("src/space/other.py",)
    assert graph.imports_of("src/space/other.py") == ("src/space/part/inside.py",)
    assert graph.imports_of("tests/unit/helper.py") == ("src/space/other.py",)
    assert graph.imports_of("tests/unit/test_api.py") == (
        "tests/conftest.py",
        "src/pack/__init__.py",
        "src/pack/api.py",
        "tests/unit/helper.py",
    )
    assert graph.importers_of("src/pack/deep/low.py") == ("src/pack/api.py",)


def test_what_a_test_reaches_nearest_first(tmp_path: Path) -> None:
    reached = project(tmp_path, PACKAGE).reachable_from("tests/unit/test_api.py")
    assert set(reached) == set(PACKAGE)
    assert list(reached.values()) == sorted(reached.values())
    assert reached["tests/unit/test_api.py"] == 0
    assert reached["src/pack/api.py"] == 1
    assert reached["src/space/part/inside.py"] == 3
    graph = ImportGraph.build(tmp_path)
    assert graph.reachable_from("src/pack/deep/__init__.py") == {"src/pack/deep/__init__.py": 0}
    assert graph.reachable_from("no/such.py") == {}


def test_names_and_modules(tmp_path: Path) -> None:
    graph = project(tmp_path, PACKAGE)
    assert graph.modules["pack"] == "src/pack/__init__.py"
    assert graph.modules["pack.deep.low"] == "src/pack/deep/low.py"
    assert graph.modules["space.part.inside"] == "src/space/part/inside.py"
    assert graph.modules["tests.unit.test_api"] == "tests/unit/test_api.py"
    assert graph.same_module("src/pack/api.py", "src/pack/__init__.py")
    assert not graph.same_module("src/pack/api.py", "src/pack/deep/low.py")


def test_names_are_those_that_python_finds(tmp_path: Path) -> None:
    graph = project(tmp_path, {path: text for path, text in PACKAGE.items() if path.startswith("src/")})
    names = [name for name in graph.modules if name and name != "pack.deep.low"]
    code = "import importlib.util as u, os\n" + "".join(
        f"s = u.find_spec({name!r}); print(os.path.relpath(s.origin, '..') if s and s.origin else None)\n"
        for name in names
    )
    (tmp_path / "src/pack/__init__.py").write_text("")
    (tmp_path / "src/pack/deep/low.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "src", capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [graph.modules[name] for name in names]


def test_flat_modules_and_shadowed_names(tmp_path: Path) -> None:
    graph = project(
        tmp_path,
        {
            "app.py": "import json\nimport helper.sub\nfrom helper import nothing, sub\n",
            "json.py": "",
            "helper/__init__.py": "",
            "helper/sub.py": "import app\nfrom . import missing\nimport helper.missing\n",
            "tool/run.py": "import near\nimport app\n",
            "tool/near.py": "",
        },
    )
    assert graph.imports_of("app.py") == ("json.py", "helper/__init__.py", "helper/sub.py")
    assert graph.imports_of("helper/sub.py") == ("app.py", "helper/__init__.py")
    assert graph.imports_of("tool/run.py") == ("tool/near.py", "app.py")


def test_order_puts_imported_files_first_and_keeps_cycles_together(tmp_path: Path) -> None:
    graph = project(
        tmp_path,
        {"a.py": "import b, d", "b.py": "import c", "c.py": "import b, e", "d.py": "", "e.py": "", "f.py": "import a"},
    )
    order = graph.in_order()
    assert order == ["e.py", "b.py", "c.py", "d.py", "a.py", "f.py"]
    assert graph.cycles() == [["b.py", "c.py"]]
    assert graph.in_order(["f.py", "c.py", "a.py"]) == ["a.py", "c.py", "f.py"]


def test_a_deep_chain_needs_no_recursion(tmp_path: Path) -> None:
    count = 1500
    graph = project(tmp_path, {f"m{index}.py": f"import m{index + 1}" for index in range(count)})
    assert graph.in_order()[0] == f"m{count - 1}.py"
    assert len(graph.reachable_from("m0.py")) == count


def test_broken_files_keep_the_imports_that_can_be_read(tmp_path: Path) -> None:
    graph = project(
        tmp_path,
        {
            "a.py": "",
            "b.py": "",
            "c.py": "",
            "broken.py": "import a\nfrom b import (x,\n    y)\ndef f(:\n    import c # late\nimport no_such\n",
        },
    )
    (tmp_path / "bytes.py").write_bytes(b"import a\nx = '\xff\xfe'\n")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    graph = ImportGraph.build(tmp_path)
    assert set(graph.unparsed) == {"broken.py", "bytes.py", "gone.py"}
    assert graph.unparsed["broken.py"].startswith("broken.py:4: not valid Python")
    assert "cannot be decoded" in graph.unparsed["bytes.py"]
    assert "cannot be read" in graph.unparsed["gone.py"]
    assert set(graph.imports_of("broken.py")) == {"a.py", "b.py", "c.py"}
    assert graph.imports_of("bytes.py") == ("a.py",)
    assert graph.imports_of("gone.py") == ()


def test_folders_that_are_not_the_project_are_left_out(tmp_path: Path) -> None:
    for path in ("a.py", ".venv/b.py", "__pycache__/c.py", "node_modules/d.py", "mine/e.py", "other/f.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "other/pyvenv.cfg").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert project_files(tmp_path) == ["a.py", "mine/e.py"]


@pytest.mark.parametrize("text", ["from ..... import x\n", "import .\n", "from . import *\n", "import a.b.c.d\n"])
def test_odd_imports_are_no_edges(tmp_path: Path, text: str) -> None:
    assert project(tmp_path, {"one.py": text, "a/b.py": ""}).imports_of("one.py") in ((), ("a/b.py",))


@pytest.mark.timeout(20)
def test_a_package_that_is_the_project_itself(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from .one import x\nimport json\n",
        "one.py": "from . import two\nimport one\n",
        "two.py": "",
    }
    graph = project(tmp_path, files)
    assert graph.imports_of("__init__.py") == ("one.py",)
    assert graph.imports_of("one.py") == ("two.py",)
    assert graph.in_order()[0] == "two.py"
