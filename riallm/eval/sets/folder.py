"""A set of one's own: a folder of projects, each with its tests and a `bug.json`.

`bug.json` holds: visible (pytest arguments that show the bug), and if wanted hidden (pytest arguments that judge),
withheld (tests of the visible modules that only judge), pattern, and fixed: {relative path: folder-relative file
with the correct text}. Without `fixed` there is no control run of the correct program to be had, so it is required.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

from riallm.core.errors import UsageError
from riallm.core.files import sha256
from riallm.eval.bug import PATTERNS, Bug, digest_of

NAME = "bug.json"


def write(project: Path, fixes: dict[str, str], folder: Path, fixed: bool) -> None:
    """Copy the project; the files with the correct texts and `bug.json` stay behind."""
    left_out = {project / NAME, *(project / file for file in fixes.values())}

    def ignore(where: str, names: list[str]) -> list[str]:
        skipped = {".git", ".venv", "__pycache__", ".pytest_cache"}
        return [name for name in names if name in skipped or Path(where) / name in left_out]

    shutil.copytree(project, folder, dirs_exist_ok=True, ignore=ignore)
    if fixed:
        for path, file in fixes.items():
            shutil.copyfile(project / file, folder / path)


def load(root: Path) -> list[Bug]:
    """The projects directly below `root`, by name. Raises UsageError for a record that cannot be used."""
    bugs = []
    for path in sorted(root.glob(f"*/{NAME}")):
        project = path.parent.resolve()
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            visible, fixes = tuple(row["visible"]), dict(row["fixed"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} needs 'visible' (a list) and 'fixed' (an object): {error!r}") from error
        missing = [file for file in (*fixes, *fixes.values()) if not (project / file).is_file()]
        if missing or not visible or not fixes:
            raise UsageError(f"{path}: no such file {', '.join(missing) or '(nothing is named)'}")
        pattern = row.get("pattern", "other")
        if pattern not in PATTERNS:
            raise UsageError(f"{path}: pattern {pattern!r} is none of {', '.join(PATTERNS)}")
        files = {file for file in project.rglob("*.py") if ".venv" not in file.parts}
        files |= {project / file for file in fixes.values()}
        hashes = [(file.relative_to(project).as_posix(), sha256(file.read_bytes())) for file in sorted(files)]
        bugs.append(
            Bug(
                id=project.name,
                set=root.resolve().name,
                pattern=pattern,
                injector="real",
                write=partial(write, project, fixes),
                visible=visible,
                hidden=tuple(row.get("hidden", ())),
                withheld=tuple(row.get("withheld", ())),
                digest=digest_of(row, hashes),
            )
        )
    if not bugs:
        raise UsageError(f"{root} holds no project with a {NAME}; see docs/evaluation.md for what one looks like")
    return bugs
