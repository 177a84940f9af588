"""What every tier promises: the command's view, what is thrown away, what is kept, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sandboxing import PYTHON, Opener

from riallm.core.errors import SandboxError, UsageError
from riallm.sandbox import open_sandbox
from riallm.sandbox.base import Change, ChangeKind, Limits, Policy, Tier


def test_a_command_runs_in_its_folder(opened: Opener, tier: Tier, project: Path) -> None:
    with opened(tier) as sandbox:
        done = sandbox.exec(["sh", "-c", "pwd; cat b.txt; echo words >&2; exit 3"])
    assert done.stdout == f"{project}\ntwo\n"
    assert (done.stderr, done.returncode, done.stopped, done.tier) == ("words\n", 3, None, tier)


def test_a_signal_is_a_negative_code(opened: Opener, tier: Tier) -> None:
    assert opened(tier).exec(["sh", "-c", "kill -TERM $$"]).returncode == -15


def test_input_comes_in_and_ends(opened: Opener, tier: Tier) -> None:
    data = os.urandom(1 << 20)
    done = opened(tier).exec(["sh", "-c", "wc -c; cat | wc -c"], stdin=data)
    assert done.stdout.split() == [str(len(data)), "0"]


def test_a_program_that_does_not_read_its_input_is_no_trouble(opened: Opener, tier: Tier) -> None:
    assert opened(tier).exec(["true"], stdin=bytes(1 << 20)).returncode == 0


def test_a_program_that_is_not_there(opened: Opener, tier: Tier) -> None:
    done = opened(tier).exec(["no-such-program", "x"])
    assert done.returncode == 127
    assert done.stderr == "no-such-program: cannot be started: no such program in the sandbox\n"


def test_a_working_directory_below(opened: Opener, tier: Tier, project: Path) -> None:
    assert opened(tier).exec(["cat", "a.txt"], cwd=project / "pkg").stdout == "one\n"


def test_a_working_directory_that_is_not_there_is_no_output(opened: Opener, tier: Tier, project: Path) -> None:
    with pytest.raises(SandboxError, match="absent"):
        opened(tier).exec(["true"], cwd=project / "absent")


def test_the_environment_is_built_from_nothing(
    opened: Opener, tier: Tier, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    policy = Policy(workspace=project, env={"WITH SPACE": "a b", "EMPTY": ""})
    with open_sandbox(policy, tier=tier) as sandbox:
        names = {line.partition("=")[0] for line in sandbox.exec(["env", "-0"]).stdout.split("\ufffd")}
    assert {"HOME", "LANG", "LOGNAME", "PATH", "TERM", "TMPDIR", "USER", "WITH SPACE", "EMPTY"} <= names
    assert names <= {
        "HOME", "LANG", "LOGNAME", "PATH", "PWD", "TERM", "TMPDIR", "USER", "WITH SPACE", "EMPTY", "",
    }  # fmt: skip


def test_no_descriptor_beside_the_three(opened: Opener, mounting: Tier) -> None:
    listed = opened(mounting).exec(["ls", "/proc/self/fd"]).stdout.split()
    assert listed == ["0", "1", "2", "3"]  # 3 is the folder being listed


def test_what_is_written_is_thrown_away(opened: Opener, tier: Tier, project: Path) -> None:
    sandbox = opened(tier)
    script = "echo new > pkg/new; echo changed > b.txt; rm pkg/a.txt; mkdir d; cat b.txt"
    assert sandbox.exec(["sh", "-c", script]).stdout == "changed\n"
    assert sandbox.exec(["sh", "-c", "ls pkg . ; cat b.txt"]).stdout.split() == [
        ".:", "b.txt", "pkg", "pkg:", "a.txt", "two",
    ]  # fmt: skip
    assert (project / "b.txt").read_text() == "two\n"
    assert sandbox.changes() == ()


def test_what_is_kept_is_seen_by_later_commands_and_not_at_home(opened: Opener, tier: Tier, project: Path) -> None:
    sandbox = opened(tier)
    sandbox.exec(["sh", "-c", "echo new > pkg/new; echo changed > b.txt; rm pkg/a.txt; ln -s b.txt l"], keep=True)
    assert sandbox.exec(["sh", "-c", "ls pkg; cat l"]).stdout == "new\nchanged\n"
    assert sandbox.changes() == (
        Change(path="b.txt", kind=ChangeKind.WRITTEN),
        Change(path="l", kind=ChangeKind.LINK),
        Change(path="pkg/a.txt", kind=ChangeKind.DELETED),
        Change(path="pkg/new", kind=ChangeKind.WRITTEN),
    )
    assert sorted(p.name for p in project.rglob("*")) == ["a.txt", "b.txt", "pkg"]
    assert sandbox.read_file("l") == b"changed\n"
    with pytest.raises(FileNotFoundError):
        sandbox.read_file("pkg/a.txt")


def test_a_folder_replaced_twice(opened: Opener, tier: Tier, project: Path) -> None:
    sandbox = opened(tier)
    sandbox.exec(["sh", "-c", "rm -r pkg; mkdir pkg; echo x > pkg/x"], keep=True)
    assert sandbox.exec(["ls", "pkg"]).stdout == "x\n"
    sandbox.exec(["sh", "-c", "rm -r pkg; echo file > pkg"], keep=True)
    assert sandbox.exec(["cat", "pkg"]).stdout == "file\n"
    sandbox.exec(["sh", "-c", "rm pkg; mkdir pkg; echo y > pkg/y"], keep=True)
    assert sandbox.exec(["ls", "pkg"]).stdout == "y\n"
    sandbox.apply()
    assert sorted(str(p.relative_to(project)) for p in project.rglob("*")) == ["b.txt", "pkg", "pkg/y"]


def test_what_was_closed_can_still_be_brought_home(opened: Opener, tier: Tier, project: Path) -> None:
    sandbox = opened(tier)
    script = "mkdir d; echo x > d/x; chmod 0 d/x; chmod 0 d; echo y > b.txt; chmod 0 b.txt; chmod 0 pkg"
    assert sandbox.exec(["sh", "-c", script], keep=True).returncode == 0
    sandbox.apply()
    assert ((project / "d" / "x").stat().st_mode & 0o777, (project / "b.txt").stat().st_mode & 0o777) == (0, 0)
    (project / "b.txt").chmod(0o600)
    assert (project / "b.txt").read_text() == "y\n"
    assert (project / "pkg" / "a.txt").exists()


def test_what_may_not_be_read_is_no_hindrance(opened: Opener, tier: Tier, project: Path) -> None:
    (project / "closed").mkdir()
    (project / "closed" / "x").write_text("x")
    (project / "secret").write_text("x")
    for name in ("closed", "secret"):
        (project / name).chmod(0)
    before = [(project / name).stat().st_ctime_ns for name in ("closed", "secret")]
    assert opened(tier).exec(["cat", "b.txt"]).stdout == "two\n"
    assert opened(tier).exec(["cat", "secret"]).returncode == 1
    assert [(project / name).stat().st_ctime_ns for name in ("closed", "secret")] == before
    (project / "closed").chmod(0o700)


def test_changes_come_home_with_bits_and_deletions(opened: Opener, tier: Tier, project: Path) -> None:
    sandbox = opened(tier)
    (project / "tool").write_text("x")
    (project / "tool").chmod(0o640)
    owner = (project.stat().st_uid, project.stat().st_gid)
    script = "mkdir -p d/e; echo n > d/e/n; chmod 755 d/e/n; echo t > tool; rm -r pkg; ln -s tool l"
    assert sandbox.exec(["sh", "-c", script], keep=True).returncode == 0
    applied = sandbox.apply()
    assert (set(applied.written), set(applied.deleted)) == ({"d/", "d/e/", "d/e/n", "tool", "l"}, {"pkg"})
    assert applied.refused == ()
    assert ((project / "d/e/n").stat().st_mode & 0o777, (project / "tool").stat().st_mode & 0o777) == (0o755, 0o640)
    assert (project / "l").readlink() == Path("tool")
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in project.rglob("*")} == {owner}
    assert not (project / "pkg").exists()


def test_only_what_lies_below(opened: Opener, tier: Tier, project: Path) -> None:
    sandbox = opened(tier)
    sandbox.exec(["sh", "-c", "echo x > pkg/x; echo x > pkg2; echo x > b.txt; rm pkg/a.txt"], keep=True)
    applied = sandbox.apply(below="pkg")
    assert (applied.written, applied.deleted) == (("pkg/x",), ("pkg/a.txt",))
    assert (project / "b.txt").read_text() == "two\n"
    assert not (project / "pkg2").exists()


def test_files_written_from_outside(opened: Opener, tier: Tier, project: Path) -> None:
    sandbox = opened(tier)
    sandbox.write_file("deep/er/file", b"\0bytes")
    sandbox.write_file(str(project / "b.txt"), b"three\n")
    sandbox.write_file("pkg/a.txt", b"kept bits")
    done = sandbox.exec(["sh", "-c", "cat b.txt; wc -c < deep/er/file; echo more >> b.txt; cat b.txt"])
    assert done.stdout.split() == ["three", "6", "three", "more"]
    assert sandbox.read_file("b.txt") == b"three\n"
    assert (project / "b.txt").read_text() == "two\n"
    sandbox.exec(["sh", "-c", "rm -r deep"], keep=True)
    sandbox.write_file("deep/again", b"x")
    assert sandbox.exec(["find", "deep"]).stdout.split() == ["deep", "deep/again"]


@pytest.mark.parametrize("path", ["../b.txt", "/etc/passwd", "", "pkg/../../x", "out/x", "away", "up", "up/x"])
def test_paths_outside_are_refused(opened: Opener, project: Path, path: str) -> None:
    (project / "out").symlink_to(project.parent)
    (project / "away").symlink_to("/etc/passwd")
    (project / "up").symlink_to("pkg/../../sibling.txt")
    sandbox = opened()
    with pytest.raises(UsageError):
        sandbox.read_file(path)
    with pytest.raises(UsageError):
        sandbox.write_file(path, b"")


def test_symlinks_inside_are_followed(opened: Opener, project: Path) -> None:
    (project / "alias").symlink_to("pkg")
    (project / "absolute").symlink_to(project / "b.txt")
    sandbox = opened()
    assert (sandbox.read_file("alias/a.txt"), sandbox.read_file("absolute")) == (b"one\n", b"two\n")
    sandbox.write_file("alias/a.txt", b"new")
    assert sandbox.read_file("pkg/a.txt") == b"new"
    assert sandbox.changes() == (Change(path="pkg/a.txt", kind=ChangeKind.WRITTEN),)


def test_a_worker_answers_and_ends_with_its_sandbox(opened: Opener, tier: Tier) -> None:
    sandbox = opened(tier)
    running = sandbox.start(["sh", "-c", "echo ready; echo bad >&2; while read line; do echo got $line; done; exit 5"])
    assert running.stdout.readline() == b"ready\n"
    for word in (b"a", b"b"):
        running.stdin.write(word + b"\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"got " + word + b"\n"
    assert running.poll() is None
    running.stdin.close()
    assert running.stdout.read() == b""
    while running.poll() is None:
        pass
    assert running.poll() == 5
    running.close()
    assert running.stderr_tail() == "bad\n"


def test_keeping_does_not_disturb_a_running_worker(opened: Opener, tier: Tier) -> None:
    sandbox = opened(tier)
    sandbox.write_file("b.txt", b"before")
    running = sandbox.start(["sh", "-c", "read line; cat b.txt"])
    sandbox.write_file("b.txt", b"after")
    running.stdin.write(b"\n")
    running.stdin.flush()
    assert running.stdout.read() == b"before"
    assert sandbox.exec(["cat", "b.txt"]).stdout == "after"


def test_a_closed_sandbox_says_so(opened: Opener) -> None:
    sandbox = opened()
    sandbox.close()
    with pytest.raises(SandboxError, match="closed"):
        sandbox.exec(["true"])


def test_nothing_is_left_behind(opened: Opener, tier: Tier) -> None:
    with opened(tier) as sandbox:
        sandbox.exec(["sh", "-c", "mkdir d; echo x > d/x; chmod 0 d/x; chmod 0 d; ln -s / l"], keep=True)
        running = sandbox.start(["sleep", "60"])
        assert running.poll() is None
        assert sandbox.private.exists()
        running.close()
        assert not list(sandbox.private.glob("run-*"))
    assert not sandbox.private.exists()
    assert sandbox.changes() == ()


def test_the_siblings_are_not_there(opened: Opener, mounting: Tier, project: Path) -> None:
    done = opened(mounting).exec(["ls", "-A", str(project.parent)])
    assert done.stdout == f"{project.name}\n"


def test_a_symlinked_spelling_of_the_path_works(tmp_path: Path, mounting: Tier) -> None:
    (tmp_path / "real" / "p").mkdir(parents=True)
    (tmp_path / "alias").symlink_to("real")
    given = tmp_path / "alias" / "p"
    with open_sandbox(Policy(workspace=given), tier=mounting) as sandbox:
        assert sandbox.exec(["sh", "-c", f"cd {given} && pwd -P"]).stdout.strip() == str(given.resolve())


def test_readable_folders_below_closed_ones(tmp_path: Path, mounting: Tier) -> None:
    (tmp_path / "closed" / "open").mkdir(parents=True)
    (tmp_path / "closed" / "open" / "file").write_text("shown")
    (tmp_path / "closed" / "other").write_text("hidden")
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "work").mkdir()
    shown = tmp_path / "closed" / "open"
    with open_sandbox(Policy(workspace=tmp_path / "work", readable=(shown,)), tier=mounting) as sandbox:
        script = f"cat {shown}/file; echo; ls {shown.parent}; touch {shown}/x || echo read-only"
        assert sandbox.exec(["sh", "-c", script]).stdout.split() == ["shown", "open", "read-only"]


@pytest.mark.parametrize("where", ["/", "/usr", "/tmp", "/proc/self", "/no/such/folder"])
def test_folders_that_cannot_be_a_workspace(where: str) -> None:
    with pytest.raises(UsageError):
        open_sandbox(Policy(workspace=Path(where)))


def test_a_readable_path_that_is_not_there(project: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_sandbox(Policy(workspace=project, readable=(project / "absent",)))


def test_hooks_and_config_cannot_be_written(opened: Opener, mounting: Tier, project: Path) -> None:
    (project / ".git" / "hooks").mkdir(parents=True)
    (project / ".git" / "config").write_text("[core]\n")
    script = "touch .git/hooks/x; echo >> .git/config; echo ok > .git/HEAD; cat .git/config .git/HEAD"
    done = opened(mounting).exec(["sh", "-c", script])
    assert done.stdout == "[core]\nok\n"
    assert done.stderr.count("Read-only file system") == 2


@pytest.mark.parametrize(("argv", "env"), [
    ([], {}), (["echo", "a\0b"], {}), (["true"], {"A=B": "c"}), (["true"], {"": "c"}), (["true"], {"A": "\0"}),
])  # fmt: skip
def test_what_no_command_can_be(project: Path, argv: list[str], env: dict[str, str]) -> None:
    with open_sandbox(Policy(workspace=project, env=env)) as sandbox, pytest.raises(UsageError):
        sandbox.exec(argv)


def test_limits_can_be_given_for_one_command(opened: Opener, tier: Tier) -> None:
    done = opened(tier).exec(["sh", "-c", "ulimit -n"], limits=Limits(open_files=64))
    assert done.stdout == "64\n"


def test_python_is_shown(opened: Opener, tier: Tier) -> None:
    done = opened(tier).exec([str(PYTHON), "-c", "import json, sys; print(json.dumps(sys.version_info[0]))"])
    assert (done.stdout, done.returncode) == ("3\n", 0)
