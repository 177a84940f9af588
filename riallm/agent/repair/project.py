"""Finding out what is to be repaired: the interpreter, the test command, the source files and the tests."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from riallm.agent.repair.records import Project
from riallm.core.errors import ProjectError, UsageError

SKIPPED_FOLDERS = frozenset(
    ("__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "env")  # and all hidden ones
)
NOT_SOURCES = frozenset({"setup.py", "conftest.py", "noxfile.py", "tasks.py"})
TEST_FOLDERS = frozenset({"test", "tests", "testing", "unittests"})
MAX_FILES = 5000


def discover(root: Path, *, python: Path | None = None, test: str | None = None, files: Sequence[str] = ()) -> Project:
    """Look at the folder `root`, or at the one that holds the test file `root`.

    python: the interpreter for the tests; otherwise the project's own environment, VIRTUAL_ENV, then ours.
    test: the user's test command. `files`: the only files that may be edited, relative to the folder or to here.
    Raises UsageError for what does not exist and ProjectError for a folder without Python files.
    """
    if not root.exists():
        raise UsageError(f"{root} does not exist; give the folder of the project, or a test file in it")
    root, only_test = root.resolve(), None
    if root.is_file():
        only_test, root = root, project_folder(root)
    interpreter = find_python(root, python)
    paths = sorted(python_files(root))
    if not paths:
        raise ProjectError(f"{root} holds no Python files; give the folder of a Python project")
    framework, args, command = test_command(root, test, interpreter)
    named = {word.split("::")[0].removeprefix("./") for word in (*args, *command)}  # what runs as a test is one
    tests = tuple(path for path in paths if is_test(path) or path in named)
    sources = tuple(path for path in paths if path not in tests and Path(path).name not in NOT_SOURCES)
    if files:
        sources = tuple(editable(root, name, paths, tests) for name in files)
    if only_test is not None:
        if test is not None:
            raise UsageError("give either a test file or --test CMD, not both")
        args = (only_test.relative_to(root).as_posix(),)
    return Project(
        root=root,
        python=interpreter,
        prefixes=prefixes(interpreter, root),
        framework=framework,
        test_args=args,
        command=command,
        sources=sources,
        tests=tests,
    )


def project_folder(file: Path) -> Path:
    """The nearest folder above a file that looks like a project's root, else the file's own folder."""
    for folder in file.parents:
        if any((folder / mark).exists() for mark in (".git", "pyproject.toml", "setup.py", "setup.cfg")):
            return folder
    return file.parent


def python_files(root: Path) -> Iterator[str]:
    """Relative paths of the project's Python files; links, hidden folders and environments are left alone."""
    num_found = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED_FOLDERS
            and not name.startswith(".")
            and not name.endswith(".egg-info")
            and not (Path(folder) / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = Path(folder) / name
            if name.endswith(".py") and not path.is_symlink():
                num_found += 1
                if num_found > MAX_FILES:
                    raise ProjectError(f"{root} holds over {MAX_FILES} Python files; give a folder further down")
                yield path.relative_to(root).as_posix()


def is_test(path: str) -> bool:
    """Whether a file is a test or a test's helper: these are never edited."""
    parts = path.split("/")
    name = parts[-1]
    return (
        any(part in TEST_FOLDERS for part in parts[:-1])
        or name.startswith("test_")
        or name.endswith(("_test.py", "_tests.py"))
        or name in ("conftest.py", "tests.py", "test.py")
    )


def editable(root: Path, name: str, paths: Sequence[str], tests: Sequence[str]) -> str:
    """A `--file` argument as a path relative to the root."""
    for base in (root, Path.cwd()):
        path = (base / name).resolve()
        if path.is_file():
            break
    else:
        raise UsageError(f"--file {name}: no such file in {root}")
    if not path.is_relative_to(root):
        raise UsageError(f"--file {name} lies outside the project {root}")
    relative = path.relative_to(root).as_posix()
    if relative in tests or is_test(relative):
        raise UsageError(f"--file {name} is a test; tests are never edited")
    if relative not in paths:
        raise UsageError(f"--file {name} is not a Python file of the project")
    return relative


def find_python(root: Path, python: Path | None) -> Path:
    """The interpreter: the given one, the project's environment, VIRTUAL_ENV, ours."""
    if python is not None:
        found = shutil.which(str(python.expanduser()))
        if found is None:
            raise UsageError(f"--python {python}: no such program")
        return real_interpreter(Path(found))
    places = [root / ".venv", root / "venv", root / "env"]
    if os.environ.get("VIRTUAL_ENV"):
        places.append(Path(os.environ["VIRTUAL_ENV"]))
    for place in places:
        if (place / "pyvenv.cfg").exists() and (place / "bin" / "python").exists():
            return place / "bin" / "python"
    return Path(sys.executable)


def real_interpreter(program: Path) -> Path:
    """A version manager's shim is a script; the interpreter that it starts is what the sandbox must show."""
    with program.open("rb") as file:
        if file.read(2) != b"#!":
            return program.absolute()
    asked = subprocess.run(
        [str(program), "-I", "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=False
    )
    if asked.returncode or not asked.stdout.strip():
        raise UsageError(f"--python {program} is a script that starts no interpreter: {asked.stderr.strip()[-300:]}")
    return Path(asked.stdout.strip())


def prefixes(python: Path, root: Path) -> tuple[Path, ...]:
    """Folders that the interpreter needs to see: its environment, its installation, editable installs elsewhere."""
    found = [python.resolve().parent.parent]
    environment = python.parent.parent
    if (environment / "pyvenv.cfg").exists():
        found.append(environment)
        for link in sorted(environment.glob("lib/python*/site-packages/*.pth")):
            for line in link.read_text("utf-8", "replace").splitlines():
                if line.startswith(("/", ".")) and (place := (link.parent / line.strip()).resolve()).is_dir():
                    found.append(place)
    kept: list[Path] = []
    for place in found:
        inside = any(place.is_relative_to(other) for other in (root, *kept))
        if not inside and place not in (Path("/usr"), Path("/")):
            kept.append(place)
    return tuple(kept)


def test_command(root: Path, test: str | None, interpreter: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """(framework, its arguments, other command). pytest and unittest commands run warm, any other one cold."""
    if test is None:
        return "auto", (), ()
    try:
        words = shlex.split(test)
    except ValueError as error:
        raise UsageError(f"--test {test!r} cannot be read: {error}") from None
    if not words:
        raise UsageError("--test is empty; give a command such as --test 'pytest tests/test_one.py'")
    name = Path(words[0]).name
    if name in ("pytest", "py.test"):
        return "pytest", tuple(words[1:]), ()
    if name.startswith("python") and words[1:2] == ["-m"] and words[2:3] in (["pytest"], ["unittest"]):
        return words[2], tuple(words[3:]), ()
    if shutil.which(words[0], path=f"{interpreter.parent}:/usr/local/bin:/usr/bin:/bin") is None:
        program = root / words[0]
        if not (program.is_file() and os.access(program, os.X_OK)):
            raise UsageError(f"--test {test!r}: there is no program {words[0]!r}; give a command that runs in {root}")
    return "command", (), tuple(words)


def import_paths(project: Project) -> tuple[str, ...]:
    """What goes before the interpreter's own sys.path: the folder itself, and `src` where it has one; relative."""
    return (".", "src") if (project.root / "src").is_dir() else (".",)
