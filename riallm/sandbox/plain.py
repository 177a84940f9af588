"""Third tier (landlock and a filter) and the one without isolation: a private copy on disk, at another path.

Nothing is mounted here, so the workspace cannot be shown at its own path: the command works in the copy, and its
path stands wherever the workspace's path stood in the arguments, the variables and the working directory.
"""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

from riallm.sandbox import copies, kernel, root, seccomp, watch
from riallm.sandbox.child import Child, set_limit
from riallm.sandbox.spec import Spec, drop_uid

_EXECUTE, _WRITE, _READ, _LIST = 1, 2, 4, 8
_MAKE_CHARACTER, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE = 1 << 14
_LOOK = _EXECUTE | _READ | _LIST
_ON_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE
_SYSTEM = (b"/usr", b"/bin", b"/sbin", b"/lib", b"/lib32", b"/lib64", b"/nix")
_DEVICES = (b"/dev/null", b"/dev/zero", b"/dev/full", b"/dev/random", b"/dev/urandom")
_ETC = (b"passwd", b"group", b"hosts", b"nsswitch.conf", *root.ETC)


def workspace(spec: Spec) -> str:
    """Where the private copy of the workspace lies."""
    return f"{spec.scratch}/work"


def prepare(spec: Spec) -> copies.Snapshot:
    """Make the private copy and a folder for temporary files."""
    owner = _owner(spec)
    if owner is not None:
        _within_reach(spec.readable)
    for name in ("work", "tmp"):
        os.mkdir(f"{spec.scratch}/{name}", 0o700)
        if owner is not None:
            os.chown(f"{spec.scratch}/{name}", owner, owner)
    base = os.fsencode(spec.workspace)
    inner = [p for p in map(os.fsencode, spec.readable) if p.startswith(base + b"/")]
    stage = os.fsencode(spec.staging) if spec.staging else None
    target = os.fsencode(workspace(spec))
    return copies.make(base, target, stage=stage, left_out=inner, base=base, owner=owner)


def _within_reach(paths: tuple[str, ...]) -> None:
    """Refuse what the uid that we drop to cannot come to: without mounts, no path can be made passable."""
    for path in map(Path, paths):
        closed = next((top for top in path.parents if not top.stat().st_mode & stat.S_IXOTH), None)
        if closed is not None:
            words = (
                f"{path} lies in {closed}, which only its owner may enter; this tier gives up root and cannot show it"
            )
            raise PermissionError(words + ". Run as an ordinary user, or install bubblewrap")


def _owner(spec: Spec) -> int | None:
    return drop_uid() if spec.tier == "landlock" else None


class Plain(Child):
    """A command in its private copy, with landlock and the filter in the tier of that name."""

    def start(self) -> None:
        """Start it in a session of its own."""
        self.spawn(self._become)

    def _become(self) -> None:
        spec = self.spec
        if self.group is not None:
            self.group.join()
        os.setsid()
        self.limit()
        if self.group is None:
            set_limit(resource.RLIMIT_NPROC, watch.threads_of(_owner(spec) or os.geteuid()) + spec.processes)
        rules = _rules(spec) if spec.tier == "landlock" else -1
        if spec.tier == "landlock":
            kernel.drop_bounding_set()
            self.become_user()
            kernel.clear_capabilities()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if rules >= 0:
            kernel.landlock_restrict(rules)
            os.close(rules)
            kernel.load_seccomp(seccomp.program(alone=False, counted=self.group is not None))
        temporary = f"{spec.scratch}/tmp"
        env = {k: self._moved(v) for k, v in spec.env.items()} | {"HOME": temporary, "TMPDIR": temporary}
        self.exec_command([self._moved(a) for a in spec.argv], self._moved(spec.cwd), env)

    def _moved(self, text: str) -> str:
        """`text` with the workspace's path, where it ends at a path's component, replaced by the copy's."""
        old, new = self.spec.workspace, workspace(self.spec)
        pieces = text.split(old)
        out = pieces[0]
        for piece in pieces[1:]:
            out += (new if piece[:1] in ("", "/", ":", " ", "'", '"') else old) + piece
        return out


def _rules(spec: Spec) -> int:
    """A landlock ruleset: the copy and the temporary folder whole, the system and the readable folders to read."""
    abi = kernel.landlock_abi()
    if abi < 1:
        raise OSError(38, "this kernel has no landlock")
    handled = 0x1FFF | (1 << 13 if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (1 << 15 if abi >= 5 else 0)
    rules = kernel.landlock_ruleset(handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0, abi)
    everything = handled & ~(_MAKE_CHARACTER | _MAKE_BLOCK | 1 << 15)
    grants = [(os.fsencode(f"{spec.scratch}/{name}"), everything) for name in ("work", "tmp")]
    grants += [(path, _LOOK) for path in (*_SYSTEM, *map(os.fsencode, spec.readable))]
    grants += [(b"/etc/" + name, _LOOK) for name in _ETC]
    grants += [(path, _READ | _WRITE) for path in _DEVICES]
    for path, rights in grants:
        if not os.path.exists(path):
            continue
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights &= _ON_FILES & handled
        kernel.landlock_allow(rules, descriptor, rights)
        os.close(descriptor)
    return rules
