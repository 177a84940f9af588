"""Run a module as an ordinary user although we are root: a spare uid, its own home, our interpreter within reach.

    python -m riallm.bench.ordinary HOME MODULE [ARGUMENT ...]

The interpreter may lie below a folder that only root may enter. In a mount namespace of its own such a folder is
covered by an empty one in which just the interpreter and this package stand at their own paths.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from riallm.core.errors import UsageError
from riallm.sandbox import kernel
from riallm.sandbox.interpreter import prefixes

SPARE_UID = 61234  # in no passwd file by custom: above ordinary users, below nobody


def needed() -> tuple[Path, ...]:
    """What an ordinary user must be able to read to run us."""
    package = Path(__file__).resolve().parents[2]
    return (package, *(path.resolve() for path in prefixes(Path(sys.executable))))


def become_ordinary(home: Path, uid: int = SPARE_UID) -> None:
    """Turn this process, which must be root, into an ordinary user for good. UsageError when it is not root."""
    if os.geteuid() != 0:
        raise UsageError("only root can become another user")
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount(None, b"/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    for closed in sorted({top for path in needed() for top in path.parents if not _open(top)}):
        below = [path for path in (*needed(), home) if path.is_relative_to(closed)]
        trees = {path: kernel.open_tree(os.fsencode(path)) for path in below}
        kernel.mount(b"tmpfs", os.fsencode(closed), b"tmpfs", 0, b"mode=0755")
        for path, tree in trees.items():
            path.mkdir(parents=True, exist_ok=True)
            kernel.move_mount(tree, os.fsencode(path))
    os.chown(home, uid, uid)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.chdir(home)


def _open(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def main(argv: list[str]) -> None:
    """Become the user and then the module."""
    home = Path(argv[0])
    package = str(needed()[0])
    become_ordinary(home)
    temporary = home / "tmp"
    temporary.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ.get("PATH", ""), "PYTHONPATH": package}
    environment["TMPDIR"] = str(temporary)
    os.execve(sys.executable, [sys.executable, "-m", *argv[1:]], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
