"""The file tree that a command sees, built in a private mount namespace: whitelist, sized, copy-on-write.

Built by the launcher for the two tiers that have mount namespaces. Sources are cloned as detached mounts first, so
that nothing of the host's /tmp, which the scratch folder then covers, is in the way, and so that no odd character
of a path ever reaches an option string.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field

from riallm.sandbox import copies, kernel
from riallm.sandbox.spec import Spec, drop_uid

SCRATCH = b"/tmp"
ROOT = SCRATCH + b"/root"
SHM = SCRATCH + b"/shm"
UPPER = SCRATCH + b"/layer/upper"
COPY = SCRATCH + b"/layer/merged"
_LOWER = SCRATCH + b"/lower"
_STAGE = SCRATCH + b"/stage"

_SYSTEM = (b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32", b"nix")
ETC = (
    b"ld.so.cache", b"ld.so.conf", b"ld.so.conf.d", b"alternatives", b"localtime", b"timezone", b"mime.types",
    b"protocols", b"services", b"ssl/certs", b"ssl/openssl.cnf", b"python3", b"os-release", b"debian_version",
)  # fmt: skip
_READ_ONLY = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
_PROTECTED = (b".git/hooks", b".git/config")


@dataclass(slots=True)
class Tree:
    """A finished tree. `sized` are the mounts whose filling up is a disk limit reached."""

    sized: tuple[bytes, ...]
    copied: copies.Snapshot | None = None
    details: dict[str, str] = field(default_factory=dict)


def enter_private_namespace() -> None:
    """A mount namespace of our own; as an ordinary user also a user namespace, in which our uid stays ours."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        kernel.unshare(kernel.CLONE_NEWNS)
    else:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    kernel.mount(None, b"/", None, kernel.MS_REC | kernel.MS_PRIVATE)


def build(spec: Spec, account: tuple[int, int]) -> Tree:
    """Build the tree of `spec` at ROOT and SHM. `account`: uid and gid that the command sees as its own.

    Raises OSError when the kernel refuses a step. Must run after `enter_private_namespace`.
    """
    workspace = os.fsencode(spec.workspace)
    inner = [p for p in map(os.fsencode, spec.readable) if _below(p, workspace)]
    outer = [p for p in map(os.fsencode, spec.readable) if not _below(p, workspace) and not _below(p, b"/usr")]
    owner = os.stat(workspace)
    lower, owned = _clone_owned(workspace)
    stage = kernel.open_tree(os.fsencode(spec.staging)) if spec.staging else -1
    copied_from = os.open(workspace, os.O_PATH | os.O_DIRECTORY)
    # inner folders are part of the workspace; only a private copy leaves them out and needs them as mounts
    trees = {path: _clone_owned(path)[0] for path in [*outer, *inner]}
    system = {name: kernel.open_tree(b"/" + name) for name in (b"usr", *_SYSTEM) if _real_folder(b"/" + name)}
    etc = {name: kernel.open_tree(b"/etc/" + name) for name in ETC if _bindable(b"/etc/" + name)}
    links = {b"/" + n: os.readlink(b"/" + n) for n in _SYSTEM if os.path.islink(b"/" + n)}
    links |= {b"/etc/" + n: os.readlink(b"/etc/" + n) for n in ETC if os.path.islink(b"/etc/" + n)}

    _tmpfs(SCRATCH, 4 << 20, "0755", 4096)
    for folder in (ROOT, SHM, SCRATCH + b"/layer", _LOWER, _STAGE):
        os.mkdir(folder, 0o755)
    _tmpfs(ROOT, 4 << 20, "0755", 8192)
    for name in (b"dev", b"proc", b"etc", b"tmp", b"run", b"var", b"home"):
        os.mkdir(ROOT + b"/" + name, 0o755)
    for name, tree in system.items():
        _attach(tree, b"/" + name, read_only=True)
    for path, target in links.items():
        _parents(place(path))
        os.symlink(target, place(path))
    for name, tree in etc.items():
        _attach(tree, b"/etc/" + name, read_only=True)
    _accounts(account)
    _tmpfs(ROOT + b"/tmp", spec.disk_bytes, "1777")
    _tmpfs(SHM, spec.disk_bytes, "1777")
    os.makedirs(ROOT + b"/var/tmp", exist_ok=True)
    kernel.move_mount(kernel.open_tree(ROOT + b"/tmp"), ROOT + b"/var/tmp")

    kernel.move_mount(lower, _LOWER)
    if stage >= 0:
        kernel.move_mount(stage, _STAGE)
    layer = _Layer(spec, owner, stage >= 0, owned, copied_from, inner)
    finished = layer.make()
    for path in sorted([*outer, workspace, *(inner if finished.copied else [])], key=lambda p: p.count(b"/")):
        if path == workspace:
            _parents(place(path))
            os.makedirs(place(path), 0o755, exist_ok=True)
            kernel.move_mount(layer.tree, place(path))
        else:
            _attach(trees[path], path, read_only=True)
    _protect(place(workspace))
    for link, target_text in spec.links:
        _link(os.fsencode(link), os.fsencode(target_text))
    return finished


@dataclass(slots=True)
class _Layer:
    """The writable view of the workspace: an overlay whose upper side is a sized tmpfs, or a private copy in one."""

    spec: Spec
    owner: os.stat_result
    staged: bool
    owned: bool
    source: int
    left_out: list[bytes]
    tree: int = -1

    def make(self) -> Tree:
        layer = SCRATCH + b"/layer"
        if self.spec.copy:
            reason = "private copy, as asked for"
        elif not self.owned:
            reason = "private copy, because the file system has no id-mapped mounts"
        else:
            _tmpfs(layer, self.spec.disk_bytes, "0755")
            try:
                return self._overlay(layer)
            except OSError as error:
                reason = f"private copy, because no overlay: {error.strerror or error}"
                kernel.umount(layer)
        return self._copy(layer, reason)

    def _overlay(self, layer: bytes) -> Tree:
        for name in (b"upper", b"work", b"merged"):
            os.mkdir(layer + b"/" + name)
        self._own(UPPER)
        lowers = b":".join([*([_STAGE] if self.staged else []), _LOWER])
        options = b"userxattr,lowerdir=%b,upperdir=%b,workdir=%b/work" % (lowers, UPPER, layer)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount(b"overlay", layer + b"/merged", b"overlay", flags, options)
        self.tree = kernel.open_tree(layer + b"/merged")
        return Tree(sized=(layer, ROOT + b"/tmp", SHM), details={"workspace": "overlay"})

    def _copy(self, layer: bytes, reason: str) -> Tree:
        source = b"/proc/self/fd/%d" % self.source
        needed = copies.measure(source, self.left_out, os.fsencode(self.spec.workspace))
        _tmpfs(layer, self.spec.disk_bytes + needed, "0755")
        target = COPY
        os.mkdir(target)
        self._own(target)
        snapshot = copies.make(
            source, target, stage=_STAGE if self.staged else None, left_out=self.left_out,
            base=os.fsencode(self.spec.workspace), owner=drop_uid(),
        )  # fmt: skip
        self.tree = kernel.open_tree(target)
        return Tree(sized=(layer, ROOT + b"/tmp", SHM), copied=snapshot, details={"workspace": reason})

    def _own(self, path: bytes) -> None:
        drop = drop_uid()
        if drop is not None:
            os.chown(path, drop, drop)
        os.chmod(path, stat.S_IMODE(self.owner.st_mode) | 0o700)


def place(path: bytes) -> bytes:
    """Where the host path `path` has its place in the tree that is being built."""
    if path == b"/dev/shm" or path.startswith(b"/dev/shm/"):
        return SHM + path[len(b"/dev/shm") :]
    return ROOT + path


def _below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def _real_folder(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _bindable(path: bytes) -> bool:
    return os.path.exists(path) and not os.path.islink(path)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _tmpfs(target: bytes, size: int, mode: str, inodes: int = 0) -> None:
    # a file costs kernel memory even when it is empty, so the number of files is capped with the bytes
    count = inodes or max(4096, size // 4096)
    options = f"size={size},mode={mode},nr_inodes={count}".encode()
    kernel.mount(b"tmpfs", target, b"tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


def _parents(path: bytes) -> None:
    with contextlib.suppress(FileExistsError):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)


def _attach(tree: int, path: bytes, *, read_only: bool) -> None:
    target = place(path)
    _parents(target)
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(target, 0o755, exist_ok=True)
    elif not os.path.lexists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    if read_only:
        kernel.mount_setattr(tree, _READ_ONLY)
    kernel.move_mount(tree, target)
    os.close(tree)


def _protect(workspace: bytes) -> None:
    for name in _PROTECTED:
        path = workspace + b"/" + name
        if not os.path.islink(workspace + b"/.git") and _bindable(path):
            tree = kernel.open_tree(path)
            kernel.mount_setattr(tree, _READ_ONLY)
            kernel.move_mount(tree, path)


def _link(path: bytes, target: bytes) -> None:
    # a spelling that runs through something already shown cannot be made, nor need it be
    with contextlib.suppress(OSError):
        _parents(place(path))
        os.symlink(target, place(path))


def _accounts(account: tuple[int, int]) -> None:
    uid, gid = account
    files = {
        "passwd": f"root:x:0:0:root:/tmp:/bin/sh\nsandbox:x:{uid}:{gid}:sandbox:/tmp:/bin/sh\n",
        "group": f"root:x:0:\nsandbox:x:{gid}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for name, text in files.items():
        with open(ROOT + b"/etc/" + name.encode(), "w", encoding="ascii") as file:
            file.write(text)


def _clone_owned(path: bytes) -> tuple[int, bool]:
    """A detached clone of `path` in which files of its owner belong to the uid that we drop to, and whether they do."""
    tree = kernel.open_tree(path)
    owner, drop = os.stat(path), drop_uid()
    if drop is None or owner.st_uid == drop:
        return tree, True
    namespace = _id_map(owner.st_uid, owner.st_gid, drop)
    try:
        kernel.mount_setattr(tree, kernel.MOUNT_ATTR_IDMAP, userns=namespace)
    except OSError:  # this file system has no id maps: the files keep their owner
        return tree, False
    finally:
        os.close(namespace)
    return tree, True


def _id_map(uid: int, gid: int, drop: int) -> int:
    """A descriptor of a user namespace that shows `uid` as `drop` and all below `drop` as they are."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(ready[1], b"x")
            os.close(go[1])
            os.read(go[0], 1)
        finally:
            os._exit(0)
    try:
        os.close(ready[1])
        if not os.read(ready[0], 1):
            raise OSError(1, "unshare: no user namespace for an id map")
        for name, number in (("uid", uid), ("gid", gid)):
            _write(f"/proc/{child}/{name}_map", "".join(_ranges(number, drop)))
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    finally:
        for descriptor in (ready[0], *go):
            os.close(descriptor)
        os.waitpid(child, 0)


def _ranges(number: int, drop: int) -> list[str]:
    if number == drop:
        return [f"0 0 {drop + 1}\n"]
    lines = [f"0 0 {number}\n"] if number else []
    lines.append(f"{number} {drop} 1\n")
    if number + 1 < drop:
        lines.append(f"{number + 1} {number + 1} {drop - number - 1}\n")
    return lines
