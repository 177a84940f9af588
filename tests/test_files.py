"""What holds for every file: its length, its name, no path of somebody's machine, and an import that does nothing."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 500
ROOMS_OF_EXTRA = {
    "models": ("quant", "tokenizer", "nn", "checkpoint", "models", "engine", "train", "recipes"),
    "models serve": ("serve",),
}
FOLDERS = ("riallm", "tests", "docs", "examples", "results", ".ci")
TEXT = {".py", ".md", ".toml", ".txt", ".svg", ".json", ".ini", ""}

# A home, a checkout or an interpreter of one machine. Sandbox tests speak of such places, because they attack them.
MACHINE = re.compile(
    r"(?<![\w.])(?:/home/(?!user\b|me\b|you\b|\{)[a-z]\w*/|/Users/\w+/|/root/\w|/work/\w|/opt/wheels|\S*/\.pyenv/)"
)


def files() -> list[Path]:
    """Every file of ours on disk, outside caches; folders with a dot below the root are nobody's source."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts and ".pytest_cache" not in path.parts]


def our_python() -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and "examples" not in path.relative_to(ROOT).parts]


def modules() -> list[str]:
    """Dotted names of all modules of the package; `sandbox/inside` and the like run elsewhere, but import here too."""
    names = []
    for path in sorted((ROOT / "riallm").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def test_files_fit_in_a_head() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in our_python()}
    assert {str(path): length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_nothing_is_called_utils() -> None:
    banned = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert [str(path.relative_to(ROOT)) for path in our_python() if banned & {path.stem, path.parent.name}] == []


def test_no_path_of_a_machine() -> None:
    found = []
    for path in files():
        inside = path.relative_to(ROOT)
        if path.suffix not in TEXT or inside.parts[:2] == ("tests", "sandbox") or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{inside}: {match[0]}" for match in MACHINE.finditer(text)]
        if len(ROOT.parts) > 2 and f"{ROOT}/" in text:
            found.append(f"{inside}: {ROOT}")
    assert found == []


@pytest.mark.parametrize("text", ["see /home/anna/src", "x = '/root/code'", "/Users/b/x", "(/work/tree)", "~/.pyenv/x"])
def test_paths_of_a_machine_are_seen(text: str) -> None:
    assert MACHINE.search(text)


@pytest.mark.parametrize(
    "text", ["/home/user/x", "tests/work/x", "chown /root", "https://a.org/home/b/", "f'/home/{me}/'"]
)
def test_other_paths_are_let_through(text: str) -> None:
    assert not MACHINE.search(text)


def test_every_module_says_what_it_is() -> None:
    bare = [
        path for path in our_python() if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_bytes()))
    ]
    assert [str(path.relative_to(ROOT)) for path in bare] == []


PROBE = r"""
import builtins, importlib, importlib.metadata, json, os, re, sys
names, declared = json.loads(sys.argv[1])

# Import names of the declared dependencies, theirs included, and nothing else that may lie around here.
wanted, seen = [re.match(r"[\w.-]+", text)[0] for text in declared], set()
while wanted:
    name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
    if name in seen: continue
    seen.add(name)
    try: requires = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError: continue
    wanted += [re.match(r"[\w.-]+", text)[0] for text in requires if "extra ==" not in text]
allowed = {"riallm"} | set(sys.stdlib_module_names)
for top, dists in importlib.metadata.packages_distributions().items():
    if seen & {re.sub(r"[-_.]+", "-", dist).lower() for dist in dists}: allowed.add(top)

class OnlyDeclared:
    def find_spec(self, name, path=None, target=None):
        # What sysconfig imports is named after the platform, so it is in no list of the standard library.
        if name.split(".")[0] not in allowed and not name.startswith("_sysconfigdata_"):
            raise ModuleNotFoundError(f"{name} is not among the declared dependencies", name=name)

sys.meta_path.insert(0, OnlyDeclared())
found = []
ACTS = ("subprocess.", "socket.", "os.mkdir", "os.remove", "os.rename", "os.system", "os.exec", "os.fork", "os.putenv",
        "os.chdir", "os.chmod", "shutil.", "tempfile.", "urllib.", "_thread.start_new", "signal.")

def ours():
    # The module of ours that is being executed at its top level, if what happens now happens because of it.
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("importlib") or frame.f_code.co_filename.startswith("<frozen importlib"):
            return None
        if name.split(".")[0] == "riallm": return name
        frame = frame.f_back

def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and any(c in args[1] for c in "wax+")
    acts = event.startswith(ACTS)
    if writes or acts:
        where = ours()
        if where: found.append(f"{where}: {event} {args[:1]}")

class Environ(type(os.environ)):
    def __getitem__(self, key):
        where = ours()
        # pydantic asks for its plug-ins whenever a class is made.
        if where and key != "PYDANTIC_DISABLE_PLUGINS": found.append(f"{where}: reads the environment ({key})")
        return super().__getitem__(key)

os.environ.__class__ = Environ
sys.addaudithook(watch)
for name in names:
    try: importlib.import_module(name)
    except BaseException as error: found.append(f"{name}: {type(error).__name__}: {error}")
print(json.dumps(found))
"""


def import_all(names: list[str], declared: list[str], root: Path) -> tuple[list[str], str]:
    """(what happened, anything printed) when `names` are imported in a fresh interpreter with `declared` alone."""
    command = [sys.executable, "-B", "-c", PROBE, json.dumps([names, declared])]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(printed) + done.stderr


def test_every_module_imports_with_what_its_room_may_need_and_nothing_happens() -> None:
    """The core dependencies alone, and for the rooms of extras these as well."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    left = modules()
    for extras, rooms in ROOMS_OF_EXTRA.items():
        part = [name for name in left if name.split(".")[1:2] and name.split(".")[1] in rooms]
        left = [name for name in left if name not in part]
        declared = project["dependencies"] + [
            name for extra in extras.split() for name in project["optional-dependencies"][extra]
        ]
        assert not part or import_all(part, declared, ROOT) == ([], ""), extras
    assert import_all(left, project["dependencies"], ROOT) == ([], "")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("import hypothesis", "not among the declared"),
        ("import os\nHOME = os.environ.get('HOME')", "reads the environment"),
        ("import os\nHOME = os.getenv('HOME')", "reads the environment"),
        ("from pathlib import Path\nPath('made').mkdir()", "os.mkdir"),
        ("from pathlib import Path\nPath('made').write_text('')", "open"),
        ("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_what_happens_on_import_is_seen(tmp_path: Path, body: str, complaint: str) -> None:
    (tmp_path / "riallm").mkdir()
    (tmp_path / "riallm" / "__init__.py").write_text("")
    (tmp_path / "riallm" / "loud.py").write_text(body)
    happened, _ = import_all(["riallm.loud"], ["rich"], tmp_path)
    assert any(complaint in entry for entry in happened), happened


def test_printing_on_import_is_seen(tmp_path: Path) -> None:
    (tmp_path / "riallm").mkdir()
    (tmp_path / "riallm" / "__init__.py").write_text("print('hello')")
    assert import_all(["riallm"], ["rich"], tmp_path) == ([], "hello")
