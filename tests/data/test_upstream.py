"""The miner of real upstream bugs: its parts on small texts, and one whole pair of made-up releases."""

from __future__ import annotations

import importlib.util
import io
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riallm.core.errors import UsageError
from riallm.core.files import sha256
from riallm.data import upstream_bug, upstream_commands, upstream_hunks, upstream_mine
from riallm.data.releases import Sdist, fetch, licence, unpack
from riallm.data.upstream import pairs, table
from riallm.data.upstream_env import Packages
from riallm.data.upstream_project import changed_tests, import_roots, is_test, overlay, requirements, source_files
from riallm.data.upstream_run import Outcome, Report, wrong_behaviour

LINES = st.lists(st.sampled_from(["a\n", "b\n", "  c\n", "\n", "d\n"]), max_size=12).map("".join)

MODULE = '''"""Arithmetic."""


def middle(low, high):
    """Point halfway."""
    return low + high / 2


def last(items):
    return items[len(items) - 1]
'''
FIXED = MODULE.replace("low + high / 2", "(low + high) / 2").replace("Arithmetic.", "Arithmetic, mended.")
TESTS = """from pair import last, middle


def test_last():
    assert last([1, 2]) == 2
"""
NEW_TESTS = TESTS + "\n\ndef test_middle():\n    assert middle(2, 4) == 3\n"
INFO = (
    "Metadata-Version: 2.1\nName: pair\nVersion: {}\nLicense: MIT\nClassifier: License :: OSI Approved :: MIT License\n"
)


def release(folder: Path, version: str, files: dict[str, str]) -> Sdist:
    """A source archive `pair-VERSION.tar.gz` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pair-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {"PKG-INFO": INFO.format(version), **files}.items():
            member = tarfile.TarInfo(f"pair-{version}/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return Sdist(package="pair", version=version, filename=path.name, url="", sha256=sha256(path.read_bytes()))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The pytest that runs this very test, and nothing else of its environment."""
    folder = tmp_path_factory.mktemp("packages") / "site"
    for name in ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        shutil.copytree(Path(found.origin).parent, folder / name)
    shutil.copyfile(Path(pytest.__file__).parents[1] / "py.py", folder / "py.py")
    return Packages(folder=folder, pins=("pytest",))


@pytest.fixture
def couple(tmp_path: Path, packages: Packages, monkeypatch: pytest.MonkeyPatch) -> tuple[Sdist, Sdist, Path]:
    """Two releases with one bug between them; what pip would install is there already."""
    for module in (upstream_mine, upstream_bug):
        monkeypatch.setattr(module, "install", lambda *_, **__: packages)
    home = tmp_path / "home"
    before = release(home / "sdists", "1.0.0", {"src/pair/__init__.py": MODULE, "tests/test_pair.py": TESTS})
    after = release(
        home / "sdists",
        "1.0.1",
        {"src/pair/__init__.py": FIXED, "tests/test_pair.py": NEW_TESTS, "tests/test_other.py": TESTS},
    )
    return before, after, home


def test_a_bug_between_two_releases_is_found_and_rebuilt(couple: tuple[Sdist, Sdist, Path], tmp_path: Path) -> None:
    before, after, home = couple
    pair = upstream_mine.mine_pair(before, after, home)
    assert (pair.verdict, pair.wrong, len(pair.bugs)) == ("bugs", 1, 1)
    bug = pair.bugs[0]
    assert (bug.path, bug.removed, bug.added, bug.regions) == ("src/pair/__init__.py", 1, 1, 1)
    assert bug.fixed_tests == ("tests/test_pair.py::test_middle",)
    assert (bug.errors, bug.licence, bug.visible, bug.hidden) == (
        ("AssertionError",),
        "MIT",
        ("tests/test_pair.py",),
        ("tests/test_other.py",),
    )
    assert pair.dropped["comments, docstrings, versions or data only"] == 1
    assert "1  bugs verified" in table([pair])

    manifest = tmp_path / "sets" / "bugs.jsonl"
    upstream_bug.save([bug], manifest)
    assert upstream_bug.load(manifest) == [bug]

    material = upstream_bug.materialise(bug, tmp_path / "rebuilt", cache=home)
    assert material.file.read_text() == MODULE
    assert material.upstream_fix() == FIXED.replace(", mended", "")
    assert (material.project / "tests" / "test_pair.py").read_text() == NEW_TESTS
    assert material.visible[0] == str(material.python) and material.visible[-1] == "tests/test_pair.py"
    with pytest.raises(UsageError, match="exists already"):
        upstream_bug.materialise(bug, tmp_path / "rebuilt", cache=home)
    wrong = replace(bug, sha256_before="0" * 64)
    with pytest.raises(UsageError):
        upstream_bug.materialise(wrong, tmp_path / "other", cache=home)
    assert not (tmp_path / "other").exists()


def test_a_test_of_something_new_is_no_bug(couple: tuple[Sdist, Sdist, Path]) -> None:
    before, _, home = couple
    new = FIXED + "\n\ndef first(items):\n    return items[0]\n"
    tests = "import pair\n\n\ndef test_first():\n    assert pair.first([1]) == 1\n"
    after = release(home / "sdists", "1.0.2", {"src/pair/__init__.py": new, "tests/test_pair.py": tests})
    assert upstream_mine.mine_pair(before, after, home).verdict == "red through a missing name only"


def test_a_hunk_that_breaks_a_green_test_is_no_fix(couple: tuple[Sdist, Sdist, Path]) -> None:
    _, _, home = couple
    apart = MODULE.replace("\n\n\ndef last", "\n" * 10 + "def last")
    half = apart.replace("low + high / 2", "last([low, high]) - 1")  # mends middle(2, 4), breaks middle(0, 4)
    whole = half.replace("items[len(items) - 1]", "items[len(items) - 1] if items[0] else 3")
    tests = NEW_TESTS + "\n\ndef test_middle_from_zero():\n    assert middle(0, 4) == 2\n"
    older = release(home / "sdists", "1.0.2", {"src/pair/__init__.py": apart, "tests/test_pair.py": TESTS})
    newer = release(home / "sdists", "1.0.3", {"src/pair/__init__.py": whole, "tests/test_pair.py": tests})
    pair = upstream_mine.mine_pair(older, newer, home)
    assert (pair.verdict, pair.dropped["breaks another test"]) == ("hunks found, none verified", 1)


@given(LINES, LINES)
def test_the_hunks_together_are_the_whole_change(older: str, newer: str) -> None:
    text = older
    for hunk in reversed(upstream_hunks.cut(older, newer)):
        text = upstream_hunks.apply(text, hunk)
    assert text == newer


@given(LINES, LINES)
def test_a_unified_diff_applies_and_gives_the_newer_text(older: str, newer: str) -> None:
    for hunk in upstream_hunks.cut(older, newer):
        alone = upstream_hunks.apply(older, hunk)
        assert upstream_hunks.patch(older, upstream_hunks.unified(older, alone, "x.py")) == alone


def test_a_diff_that_does_not_fit_is_refused() -> None:
    diff = upstream_hunks.unified("a\nb\n", "a\nc\n", "x.py")
    assert upstream_hunks.patch("a\nb\n", diff) == "a\nc\n"
    with pytest.raises(ValueError, match="expects"):
        upstream_hunks.patch("a\nx\n", diff)


def test_groups_of_close_regions_are_one_hunk() -> None:
    older = "".join(f"{n}\n" for n in range(30))
    newer = older.replace("3\n", "x\n", 1).replace("6\n", "y\n", 1).replace("20\n", "z\n", 1)
    assert [hunk.size for hunk in upstream_hunks.cut(older, newer)] == [2, 2, 2]
    assert [(hunk.size, hunk.regions) for hunk in upstream_hunks.cut(older, newer, together=True)] == [(4, 2)]


@pytest.mark.parametrize(
    ("older", "newer", "reason"),
    [
        ("x = 1\n", "x = 2\n", ""),
        ("def f():\n    return 1\n", "def f():\n    return 2\n", ""),
        ("def f():\n    'a'\n", "def f():\n    'b'  # why\n", "only"),
        ("__version__ = '1'\n", "__version__ = '2'\n", "only"),
        ("NAMES = {'a': 1}\n", "NAMES = {'a': 1, 'b': 2}\n", "only"),
        ("class A:\n    x = 1\n", "class A:\n    x = 1\n\n    def f(self):\n        return 1\n", "new definition"),
        ("x = 1\n", "x = (\n", "compile"),
    ],
)
def test_what_counts_as_a_change_of_behaviour(older: str, newer: str, reason: str) -> None:
    found = upstream_hunks.objection(older, newer)
    assert reason in found and bool(reason) == bool(found)


def test_the_functions_of_a_hunk() -> None:
    older = "x = 1\n\n\ndef f():\n    a = 1\n    b = 2\n    return a\n"
    (inside,) = upstream_hunks.cut(older, older.replace("b = 2", "b = 3"))
    (outside,) = upstream_hunks.cut(older, older.replace("x = 1", "x = 2"))
    (edge,) = upstream_hunks.cut(older, older + "    # end\n")
    assert upstream_hunks.entries(older, inside) == frozenset({4})
    assert upstream_hunks.entries(older, outside) is None
    assert upstream_hunks.entries(older, edge) is None


@pytest.mark.parametrize(
    ("error", "message", "file", "wrong"),
    [
        ("AssertionError", "assert 1 == 2", "tests/test_a.py", True),
        ("ValueError", "bad", "a.py", True),
        ("ImportError", "cannot import name 'b'", "a.py", False),
        ("AttributeError", "module 'a' has no attribute 'b'", "tests/test_a.py", False),
        ("AttributeError", "'NoneType' object has no attribute 'group'", "a.py", True),
        ("AttributeError", "'A' object has no attribute 'known'", "a.py", True),
        ("AttributeError", "'A' object has no attribute 'new'", "a.py", False),
        ("AttributeError", "'A' object has no attribute 'known'", "tests/test_a.py", False),
        ("TypeError", "f() got an unexpected keyword argument 'x'", "a.py", False),
        ("TypeError", "f() takes 1 positional argument but 2 were given", "tests/test_a.py", False),
        ("TypeError", "can only concatenate str", "a.py", True),
        ("NameError", "name 'x' is not defined", "tests/test_a.py", False),
        ("Failed", "DID NOT RAISE <class 'ValueError'>", "tests/test_a.py", True),
        ("Failed", "DID NOT WARN", "tests/test_a.py", False),
    ],
)
def test_wrong_behaviour_is_told_from_missing_names(error: str, message: str, file: str, wrong: bool) -> None:
    project = Path("/project")
    outcome = Outcome(outcome="failed", seconds=0, phase="call", error=error, message=message, file=str(project / file))
    assert wrong_behaviour(outcome, project=project, known=frozenset({"known"})) is wrong
    assert not wrong_behaviour(replace(outcome, phase="setup"), project=project, known=frozenset({"known"}))


def test_bug_fix_releases_come_first() -> None:
    versions = ["1.0", "1.0.1", "1.1", "2.0", "2.0.1"]
    sdists = [Sdist(package="p", version=v, filename=f"p-{v}.tar.gz", url="", sha256="") for v in versions]
    found = [(before.version, after.version) for before, after in pairs(sdists)]
    assert found == [("2.0", "2.0.1"), ("1.0", "1.0.1"), ("1.0.1", "1.1"), ("1.1", "2.0")]
    assert (
        sdists[0].key
        < replace(sdists[0], version="1.0.post1").key
        < sdists[1].key
        < replace(sdists[0], version="1.0.10").key
    )


def test_changed_tests_are_named_by_function(tmp_path: Path) -> None:
    for name, text in (("older", TESTS), ("newer", NEW_TESTS)):
        (tmp_path / name / "tests").mkdir(parents=True)
        (tmp_path / name / "tests" / "test_pair.py").write_text(text)
        (tmp_path / name / "tests" / "test_same.py").write_text(text[:0])
    assert changed_tests(tmp_path / "older", tmp_path / "newer") == ["tests/test_pair.py::test_middle"]
    (tmp_path / "newer" / "tests" / "test_pair.py").write_text("LIMIT = 3\n" + NEW_TESTS)
    assert changed_tests(tmp_path / "older", tmp_path / "newer") == ["tests/test_pair.py"]
    (tmp_path / "newer" / "tests" / "data.txt").write_text("x")
    assert len(changed_tests(tmp_path / "older", tmp_path / "newer")) == 2


def test_layout_of_a_release(tmp_path: Path) -> None:
    for name in (
        "src/pair/__init__.py",
        "src/pair/tests.py",
        "setup.py",
        "docs/conf.py",
        "tests/test_a.py",
        "tests/x.bin",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("import hypothesis\nimport pair\nimport os\n")
    assert [str(path) for path in source_files(tmp_path)] == ["src/pair/__init__.py", "src/pair/tests.py"]
    assert import_roots(tmp_path) == [tmp_path / "src", tmp_path]
    assert requirements(tmp_path) == ["hypothesis"]
    newer = tmp_path / "newer"
    (newer / "tests").mkdir(parents=True)
    (newer / "tests" / "test_b.py").write_text("")
    older = tmp_path / "src"
    (older / "tests").mkdir()
    (older / "tests" / "test_gone.py").write_text("")
    overlay(older, newer)
    assert [path.name for path in (older / "tests").iterdir()] == ["test_b.py"] and (
        older / "pair" / "__init__.py"
    ).exists()
    assert not is_test(Path("pair/testing.py")) and is_test(Path("pair/tests/data.json"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "spdx"),
    [
        ("License-Expression: MIT", "MIT"),
        ("License-Expression: GPL-3.0-only", None),
        ("License: BSD 2-Clause\nClassifier: License :: OSI Approved :: BSD License", "BSD-2-Clause"),
        ("Classifier: License :: OSI Approved :: Apache Software License", "Apache-2.0"),
        ("License: MIT\nClassifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", None),
        ("License: LGPLv3", None),
        ("Summary: none", None),
    ],
)
def test_licence_by_metadata(tmp_path: Path, headers: str, spdx: str | None) -> None:
    (tmp_path / "PKG-INFO").write_text(f"Metadata-Version: 2.1\n{headers}\n\nMIT\n")
    assert licence(tmp_path) == spdx


def test_licence_by_its_text(tmp_path: Path) -> None:
    (tmp_path / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: p\n\n")
    (tmp_path / "LICENSE").write_text("Permission is hereby granted, free of charge, to any\nperson obtaining a copy")
    assert licence(tmp_path) == "MIT"
    (tmp_path / "COPYING").write_text("GNU GENERAL PUBLIC LICENSE")
    assert licence(tmp_path) is None


def test_archives_cannot_write_outside(tmp_path: Path) -> None:
    path = tmp_path / "p.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("p/good.py", "p/../../bad.py", "/p/bad.py"):
            member = tarfile.TarInfo(name)
            tar.addfile(member, io.BytesIO(b""))
        link = tarfile.TarInfo("p/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert [item.name for item in unpack(path, tmp_path / "out").iterdir()] == ["good.py"]
    assert not list(tmp_path.parent.rglob("bad.py"))
    path.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="cannot be unpacked"):
        unpack(path, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(UsageError, match="no address"):
        fetch(Sdist(package="p", version="1", filename=path.name, url="", sha256="0"), tmp_path)


def test_the_committed_manifest_is_sound() -> None:
    bugs = upstream_bug.load()
    assert bugs == sorted(bugs, key=lambda bug: bug.sort_key)
    assert len({bug.id for bug in bugs}) == len(bugs) >= 30
    assert len({bug.package for bug in bugs}) >= 20
    for bug in bugs:
        assert 0 < bug.size <= upstream_mine.MAX_LINES and bug.fixed_tests and bug.visible and bug.errors
        assert bug.visible_seconds <= upstream_commands.VISIBLE_SECONDS
        assert bug.path.endswith(".py") and not Path(bug.path).is_absolute()
        assert len(bug.sha256_before) == len(bug.sha256_after) == 64
        assert bug.python.split(".")[:2] <= [str(part) for part in sys.version_info[:2]]


def test_a_broken_manifest_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"id": "x"}\n')
    with pytest.raises(UsageError, match="line 1"):
        upstream_bug.load(path)


def test_a_report_tells_passed_from_failed() -> None:
    tests = {name: Outcome(outcome=name, seconds=0.0) for name in ("passed", "failed", "skipped")}
    report = Report(tests=tests, uncollected=(), seconds=0.0, ended=True)
    assert (report.passed(), report.failed()) == (frozenset({"passed"}), frozenset({"failed"}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of whichever pip there is
def test_an_index_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_RETRIES", "0")
    gone = Sdist(package="p", version="1", filename="p-1.tar.gz", url="http://127.0.0.1:1/p-1.tar.gz", sha256="")
    with pytest.raises(UsageError, match="cannot be reached"):
        fetch(gone, tmp_path)
