"""A release as a project on disk: which files are tests, where imports start, and which packages its tests need."""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from riallm.data.releases import metadata

_TEST_FOLDERS = {"tests", "test", "testing_data", "test_data", "testdata"}
_TEST_FILE = re.compile(r"test_.*\.py|.*_tests?\.py|conftest\.py")
_NOT_SOURCE = {
    "docs",
    "doc",
    "examples",
    "example",
    "benchmarks",
    "benchmark",
    "scripts",
    "tools",
    "tasks",
    "ci",
    "build",
}
_SET_UP = {
    "setup.py",
    "noxfile.py",
    "conftest.py",
    "tasks.py",
    "fabfile.py",
    "version.py",
    "_version.py",
    "__about__.py",
}

# Import names that differ from the name of the package that brings them.
_BROUGHT_BY = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
    "pkg_resources": "setuptools<80",
    "setuptools": "setuptools<80",
    "yaml": "PyYAML",
}
# What test modules of Python projects commonly import beside their own package. Nothing else is installed for them.
_TEST_TOOLS = {
    "attr", "attrs", "bs4", "cattrs", "chardet", "coverage", "cryptography", "dateutil", "ddt", "flaky", "freezegun",
    "html5lib", "hypothesis", "idna", "jinja2", "jsonschema", "lxml", "markdown", "markupsafe", "mock", "nose",
    "numpy", "packaging", "parameterized", "pkg_resources", "pretend", "pygments", "pyparsing", "pytest",
    "pytest_lazy_fixtures", "pytest_mock", "pytz", "regex", "requests", "setuptools", "simplejson", "six",
    "sortedcontainers", "time_machine", "toml", "tomli", "tornado", "typing_extensions", "unittest2", "wcwidth",
    "webtest", "werkzeug", "yaml", "zope",
}  # fmt: skip
_FIXTURES = {
    "mocker": "pytest-mock",
    "benchmark": "pytest-benchmark",
    "subtests": "pytest-subtests",
    "freezer": "pytest-freezer",
    "datadir": "pytest-datadir",
    "data_regression": "pytest-regressions",
    "file_regression": "pytest-regressions",
}


def is_test(path: PurePosixPath) -> bool:
    """Whether a project-relative path belongs to the tests: in a test folder, or named like a test module."""
    if any(part in _TEST_FOLDERS for part in path.parts[:-1]) or _TEST_FILE.fullmatch(path.name):
        return True
    return len(path.parts) == 1 and path.name in ("tests.py", "test.py")


def files(project: Path) -> list[PurePosixPath]:
    """All files of the project, project-relative and sorted; environments and byte code are not part of it."""
    found = []
    for path in project.rglob("*"):
        relative = path.relative_to(project)
        if path.is_file() and not {".venv", "__pycache__"} & set(relative.parts):
            found.append(PurePosixPath(relative.as_posix()))
    return sorted(found)


def source_files(project: Path) -> list[PurePosixPath]:
    """The .py files that are the package itself: no tests, documents, tools, set-up or version files."""
    return [
        path
        for path in files(project)
        if path.suffix == ".py"
        and not is_test(path)
        and not _NOT_SOURCE & set(path.parts[:-1])
        and not (path.name in _SET_UP and (len(path.parts) == 1 or "version" in path.name or "about" in path.name))
    ]


def test_files(project: Path) -> list[PurePosixPath]:
    """All files of the tests, data files of the test folders included."""
    return [path for path in files(project) if is_test(path)]


def test_modules(project: Path) -> list[PurePosixPath]:
    """Files that pytest is asked to collect: named test_*, *_test(s), test(s), or by `python_files` of the project."""
    patterns = _python_files(project)
    return [
        path
        for path in test_files(project)
        if path.suffix == ".py"
        and path.name != "conftest.py"
        and (_TEST_FILE.fullmatch(path.name) or path.name in ("tests.py", "test.py") or any(map(path.match, patterns)))
    ]


def _python_files(project: Path) -> list[str]:
    """`python_files` of the project's pytest settings, as far as they can be read."""
    pyproject = project / "pyproject.toml"
    if pyproject.exists():
        try:
            table = tomllib.loads(pyproject.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError:
            table = {}
        value = table.get("tool", {}).get("pytest", {}).get("ini_options", {}).get("python_files", [])
        if value:
            return value.split() if isinstance(value, str) else [str(item) for item in value]
    for name in ("pytest.ini", "setup.cfg", "tox.ini"):
        path = project / name
        if path.exists():
            found = re.search(r"^python_files\s*=\s*(.+)$", path.read_text(encoding="utf-8", errors="replace"), re.M)
            if found:
                return found[1].split()
    return []


def import_roots(project: Path) -> list[Path]:
    """Folders that must be on the path to import the project: src/ or lib/ when it holds code, and the root."""
    roots = [project]
    for name in ("src", "lib", "lib3", "python"):
        folder = project / name
        if (
            folder.is_dir()
            and not (folder / "__init__.py").exists()
            and any(folder.glob("*.py")) | any(folder.glob("*/*.py"))
        ):
            roots.insert(0, folder)
    return roots


def overlay(older: Path, newer: Path) -> None:
    """Make `older` (release n) carry exactly the tests of `newer` (n+1); everything else stays as it was."""
    for path in test_files(older):
        (older / path).unlink()
    for path in test_files(newer):
        target = older / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(newer / path, target)


def changed_tests(older: Path, newer: Path) -> list[str]:
    """Tests of `newer` that may behave differently from those of `older`: `module::function` where only
    functions of a module are new or changed, the module where more is, or where a conftest or a data file changed."""
    fresh = [
        path
        for path in test_files(newer)
        if not (older / path).is_file() or (older / path).read_bytes() != (newer / path).read_bytes()
    ]
    shared = {path.parent for path in fresh if path.name == "conftest.py" or path.suffix != ".py"}
    found: list[str] = []
    for path in test_modules(newer):
        if any(folder in path.parents for folder in shared):
            found.append(str(path))
        elif path in fresh:
            found += _changed_functions(older / path, newer / path, str(path))
    whole = {test for test in found if "::" not in test}
    return sorted({test for test in found if "::" not in test or test.split("::")[0] not in whole})


def _changed_functions(older: Path, newer: Path, name: str) -> list[str]:
    try:
        before = _functions(ast.parse(older.read_bytes())) if older.is_file() else {}
        after = _functions(ast.parse(newer.read_bytes()))
    except (SyntaxError, ValueError):
        return [name]
    if not before:
        return [name]
    changed = [inner for inner, text in after.items() if before.get(inner) != text]
    if any(not inner.rpartition("::")[2].startswith("test") for inner in changed):  # "" or a helper that tests may use
        return [name]
    return [f"{name}::{inner.rpartition('::')[2]}" for inner in changed]


def _functions(tree: ast.Module) -> dict[str, str]:
    """Each function's text by its name inside the module; under "" all that is no function and no import."""
    found: dict[str, str] = {}
    rest: list[str] = []

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[prefix + node.name] = ast.dump(node)
            elif isinstance(node, ast.ClassDef):
                rest.append(ast.dump(ast.Tuple(elts=[*node.bases, *node.decorator_list], ctx=ast.Load())))
                walk(node.body, f"{prefix}{node.name}::")
            elif not isinstance(node, (ast.Import, ast.ImportFrom)):
                rest.append(ast.dump(node))

    walk(tree.body, "")
    return {**found, "": "\n".join(sorted(rest))}


def requirements(project: Path) -> list[str]:
    """What must be installed to run the project's tests: its own requirements and the known tools that tests import."""
    names = _declared(project)
    own = {path.stem if len(path.parts) == 1 else path.parts[0] for path in source_files(project)}
    own |= {
        path.relative_to(root).parts[0].removesuffix(".py")
        for root in import_roots(project)
        for path in root.glob("*/*.py")
    }
    seen: set[str] = set()
    fixtures: set[str] = set()
    for path in test_files(project):
        if path.suffix == ".py":
            text = (project / path).read_text(encoding="utf-8", errors="replace")
            seen |= _imports(text)
            fixtures |= {
                package for name, package in _FIXTURES.items() if re.search(rf"def test\w*\([^)]*\b{name}\b", text)
            }
    tools = {
        _BROUGHT_BY.get(name, name.replace("_", "-"))
        for name in (seen & _TEST_TOOLS) - own - set(sys.stdlib_module_names)
    }
    return sorted({*names, *tools, *fixtures} - {"pytest", "nose", "unittest2"})


def _declared(project: Path) -> set[str]:
    """Run-time requirements (no extras) of the release, read from its metadata or its egg-info; markers are kept."""
    lines: list[str] = list(metadata(project).get("requires-dist", []))
    if not lines:
        for path in [*project.glob("*.egg-info/requires.txt"), *project.glob("src/*.egg-info/requires.txt")]:
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("["):
                    break
                lines.append(line.strip())
    return {line for line in lines if line and not re.search(r"\bextra\s*==", line)}


def _imports(text: str) -> set[str]:
    """Top names of the absolute imports anywhere in a module; none of one that does not parse."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return set()
    return set(_import_names(ast.walk(tree)))


def _import_names(nodes: Iterable[ast.AST]) -> Iterable[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
