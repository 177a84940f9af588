"""Set (c): real upstream bugs, rebuilt from two releases of a package; `riallm/data/upstream` found them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from riallm.data import upstream
from riallm.eval.bug import Bug, digest_of

OPTIONS = (
    "--rootdir=.",
    "-oaddopts=",
    "-ofilterwarnings=",
    "-orequired_plugins=",
)  # as the miner ran them: no plugins of theirs
_GUARDS = re.compile(r"^\+.*\bis (not )?None\b", re.MULTILINE)
_LOCKS = re.compile(r"^[+-].*\b(lock|acquire|release|thread)", re.MULTILINE | re.IGNORECASE)
_LEAKS = re.compile(r"^\+.*\b(close|unlink|shutdown|clear)\(", re.MULTILINE)
_SIZES = re.compile(r"^\+.*(?:[<>]=?|[+-] ?1\b)", re.MULTILINE)


def pattern_of(bug: upstream.Bug) -> str:
    """The debug pattern, by what the hunk adds and how the tests failed."""
    if _LOCKS.search(bug.hunk):
        return "race condition"
    if _LEAKS.search(bug.hunk):
        return "memory leak"
    if _GUARDS.search(bug.hunk):
        return "missing null check"
    if bug.errors[:1] == ("TypeError",):
        return "type error"
    if bug.errors[:1] == ("AttributeError",):
        return "api misuse"
    return "off-by-one" if bug.errors[:1] == ("IndexError",) or _SIZES.search(bug.hunk) else "other"


def write(bug: upstream.Bug, cache: Path | None, folder: Path, fixed: bool) -> None:
    """Rebuild the project into the empty `folder`."""
    folder.rmdir()
    material = upstream.materialise(bug, folder, cache=cache)
    if fixed:
        material.file.write_bytes(material.upstream_fix().encode())


def hidden_of(bug: upstream.Bug) -> tuple[str, ...]:
    """Arguments of the hidden run: the rest of the suite, or all of it again where it is one module."""
    left_out = bug.hidden_deselect if bug.hidden else bug.visible_deselect
    return (*OPTIONS, *(f"--deselect={name}" for name in left_out), *(bug.hidden or bug.visible))


def load(cache: Path | None = None) -> list[Bug]:
    """All bugs of the manifest; archives are fetched when a bug is built."""
    if not upstream.MANIFEST.exists():
        return []
    return [
        Bug(
            id=bug.id,
            set="upstream",
            pattern=pattern_of(bug),
            injector="real",
            write=partial(write, bug, cache),
            visible=(*OPTIONS, *bug.visible),
            hidden=hidden_of(bug),
            withheld=(*bug.visible_deselect,),
            python=".venv/bin/python",
            digest=digest_of(bug.id, bug.hunk, bug.visible, bug.visible_deselect, hidden_of(bug), bug.sha256_before),
            notes={} if bug.hidden else {"hidden": "none: the suite is one module, so correct means plausible"},
        )
        for bug in upstream.load()
    ]
