"""What a sandbox must show so that a given Python runs: found by reading, for running it would be trusting it."""

from __future__ import annotations

import os
from pathlib import Path

from riallm.core.errors import UsageError

_MOST_HOPS = 20


def prefixes(python: Path) -> tuple[Path, ...]:
    """The folders that `python` needs to run, for `Policy.readable`: its prefix, and its base when it is a venv.

    Symlinks of the executable are followed and each stop's prefix is taken if it looks like one: a `pyvenv.cfg`,
    or a standard library (`lib/python3.*/os.py`). Nothing is executed. /usr is left out: it is always there.
    Raises UsageError when `python` does not exist or no standard library is found for it.
    """
    at = Path(os.path.abspath(python))
    if not at.exists():
        raise UsageError(f"there is no Python at {python}")
    found: dict[Path, None] = {}
    library = False
    todo = [at]
    for _ in range(_MOST_HOPS):
        if not todo:
            break
        at = todo.pop(0)
        prefix = at.parent.parent
        config = prefix / "pyvenv.cfg"
        if config.is_file():
            found[prefix] = None
            home = _home(config)
            if home is not None:
                todo.append(home / at.name)
        elif _has_library(prefix):
            found[prefix] = None
            library = True
        if at.is_symlink():
            todo.append(Path(os.path.abspath(at.parent / at.readlink())))
        elif (real := at.resolve()) != at:
            todo.append(real)
    if not library:
        raise UsageError(f"{python} is no Python that could be shown in a sandbox: no standard library belongs to it")
    return tuple(path for path in found if path != Path("/usr"))


def _home(config: Path) -> Path | None:
    for line in config.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home" and value.strip().startswith("/"):
            return Path(value.strip())
    return None


def _has_library(prefix: Path) -> bool:
    return prefix != Path("/") and any(prefix.glob("lib*/python3*/os.py"))
