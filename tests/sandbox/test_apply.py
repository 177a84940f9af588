"""Bringing changes home: what a hostile layer holds cannot reach past the folder, whatever the folder holds."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from riallm.core.errors import SandboxError
from riallm.sandbox import apply, copies, layer
from riallm.sandbox.apply import bring_home
from riallm.sandbox.staging import changes


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("as before")
    return tmp_path / "outside"


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> content, or what else it is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
    return found


def test_a_symlinked_folder_at_home_is_replaced_not_followed(stage: Path, home: Path, outside: Path) -> None:
    (home / "door").symlink_to(outside)
    (stage / "door").mkdir()
    (stage / "door" / "file").write_text("planted")
    bring_home(stage, home)
    assert tree(home) == {"door": "/", "door/file": "planted"}
    assert tree(outside) == {"file": "as before"}


def test_a_folder_swapped_between_check_and_use(
    stage: Path, home: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "door").mkdir()
    (stage / "door").mkdir()
    (stage / "door" / "file").write_text("planted")
    look = apply._lstat

    def look_and_swap(name: bytes, parent: int) -> os.stat_result | None:
        seen = look(name, parent)
        if name == b"door":
            (home / "door").rmdir()
            (home / "door").symlink_to(outside)
        return seen

    monkeypatch.setattr(apply, "_lstat", look_and_swap)
    with pytest.raises(SandboxError, match="could not be brought"):
        apply.bring_home(stage, home)
    assert tree(outside) == {"file": "as before"}


def test_a_symlinked_file_at_home_is_replaced_not_followed(stage: Path, home: Path, outside: Path) -> None:
    (home / "file").symlink_to(outside / "file")
    (stage / "file").write_text("planted")
    bring_home(stage, home)
    assert tree(home) == {"file": "planted"}
    assert tree(outside) == {"file": "as before"}


def test_a_hard_link_at_home_keeps_the_other_name_as_it_was(stage: Path, home: Path, outside: Path) -> None:
    os.link(outside / "file", home / "file")
    (stage / "file").write_text("new")
    bring_home(stage, home)
    assert (tree(home), tree(outside)) == ({"file": "new"}, {"file": "as before"})


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside/file", "a/../../outside", "..", "d/../../x", "./../x"])
def test_symlinks_that_lead_out(stage: Path, home: Path, target: str) -> None:
    (stage / "link").symlink_to(target)
    applied = bring_home(stage, home)
    assert [path for path, _ in applied.refused] == ["link"]
    assert tree(home) == {}


@pytest.mark.parametrize("target", ["b", "d/e", "./b", "d/../b", "nothing there"])
def test_symlinks_that_stay(stage: Path, home: Path, target: str) -> None:
    (stage / "sub").mkdir()
    (stage / "sub" / "link").symlink_to(target)
    assert bring_home(stage, home).refused == ()
    assert (home / "sub" / "link").readlink() == Path(target)


def test_a_chain_of_symlinks_does_not_lead_out(stage: Path, home: Path, outside: Path) -> None:
    (home / "a").mkdir()
    (home / "a" / "b").symlink_to("../../outside")  # the user's own
    (stage / "c").symlink_to("a/b/file")
    (stage / "d").symlink_to("d2")
    (stage / "d2").symlink_to("a/b")
    bring_home(stage, home)
    (stage / "c").unlink()
    (stage / "c").write_text("planted")
    bring_home(stage, home)
    assert tree(outside) == {"file": "as before"}
    assert (home / "c").read_text() == "planted"


def test_bits_that_lend_power_are_dropped_and_told(stage: Path, home: Path) -> None:
    (stage / "tool").write_text("x")
    (stage / "tool").chmod(0o6755)
    applied = bring_home(stage, home)
    assert [path for path, _ in applied.refused] == ["tool"]
    assert stat.S_IMODE((home / "tool").stat().st_mode) == 0o755


def test_kinds_that_are_no_files_stay_away(stage: Path, home: Path) -> None:
    os.mkfifo(stage / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(stage / "socket"))
        bring_home(stage, home)
    assert tree(home) == {}


def test_deletions_of_files_folders_and_links(stage: Path, home: Path, outside: Path) -> None:
    (home / "folder" / "deep").mkdir(parents=True)
    (home / "folder" / "deep" / "x").write_text("x")
    (home / "folder" / "away").symlink_to(outside)
    (home / "link").symlink_to(outside / "file")
    for name in ("folder", "link", "never was"):
        layer.whiteout(os.fsencode(stage / name))
    applied = bring_home(stage, home)
    assert (tree(home), applied.deleted) == ({}, ("folder", "link"))
    assert tree(outside) == {"file": "as before"}


def test_a_replaced_folder_loses_what_it_held(stage: Path, home: Path) -> None:
    (home / "d" / "old").mkdir(parents=True)
    (home / "d" / "same").write_text("1")
    (stage / "d").mkdir()
    (stage / "d" / "same").write_text("2")
    layer.make_opaque(os.fsencode(stage / "d"))
    bring_home(stage, home)
    assert tree(home) == {"d": "/", "d/same": "2"}


def test_a_file_where_a_folder_was_and_the_other_way_round(stage: Path, home: Path) -> None:
    (home / "one" / "x").mkdir(parents=True)
    (home / "two").write_text("2")
    (stage / "one").write_text("1")
    (stage / "two").mkdir()
    (stage / "two" / "y").write_text("y")
    bring_home(stage, home)
    assert tree(home) == {"one": "1", "two": "/", "two/y": "y"}


def test_odd_names(stage: Path, home: Path) -> None:
    names = [b"-rf", b"new\nline", b"bad \xff\xfe utf8", b" ", "\u202egnp.exe".encode(), b"$(touch x)", b"*"]
    for name in names:
        (Path(os.fsdecode(os.fsencode(stage) + b"/" + name))).write_text("x")
    applied = bring_home(stage, home)
    assert sorted(os.listdir(os.fsencode(home))) == sorted(names)
    assert len(applied.written) == len(changes(stage)) == len(names)


GIT = ["config", "hooks/pre-commit", "commondir", "objects/info/alternates", "info/attributes", "config.worktree",
       "modules/x/config", "worktrees/x/gitdir"]  # fmt: skip


@pytest.mark.parametrize("name", GIT)
def test_what_git_acts_on_stays_away(stage: Path, home: Path, name: str) -> None:
    for top in (".git", "sub/.git", "a/refs/.git"):
        path = stage / top / name
        path.parent.mkdir(parents=True)
        path.write_text("planted")
    (stage / ".git" / "HEAD").write_text("content")
    applied = bring_home(stage, home)
    assert "planted" not in tree(home).values()
    assert tree(home)[".git/HEAD"] == "content"
    assert not (home / "sub" / ".git").exists()
    assert not (home / "a" / "refs" / ".git").exists()
    assert any(path.startswith("sub/.git") for path, _ in applied.refused)


def test_the_hooks_of_a_repository_are_not_deleted_either(stage: Path, home: Path) -> None:
    (home / ".git" / "hooks").mkdir(parents=True)
    (home / ".git" / "config").write_text("mine")
    layer.whiteout(os.fsencode(stage / ".git"))
    assert bring_home(stage, home).refused[0][0] == ".git"
    (stage / ".git").unlink()
    (stage / ".git").mkdir()
    layer.make_opaque(os.fsencode(stage / ".git"))
    bring_home(stage, home)
    assert tree(home) == {".git": "/", ".git/config": "mine", ".git/hooks": "/"}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_pointer_to_another_repository_stays_away(stage: Path, home: Path, kind: str) -> None:
    if kind == "file":
        (stage / ".git").write_text("gitdir: evil")
    else:
        (stage / ".git").symlink_to("evil")
    assert bring_home(stage, home).refused[0][0] == ".git"
    assert tree(home) == {}


def test_a_repository_that_is_a_pointer_at_home_is_not_entered(stage: Path, home: Path, outside: Path) -> None:
    (home / ".git").symlink_to(outside)
    (stage / ".git").mkdir()
    (stage / ".git" / "HEAD").write_text("planted")
    bring_home(stage, home)
    assert tree(outside) == {"file": "as before"}
    assert (home / ".git").is_symlink()


def test_a_bare_repository_has_no_configuration(stage: Path, home: Path) -> None:
    for name in ("objects", "refs", "hooks"):
        (stage / "bare" / name).mkdir(parents=True)
    for name in ("HEAD", "config"):
        (stage / "bare" / name).write_text("planted")
    bring_home(stage, home)
    assert set(tree(home)) == {"bare", "bare/HEAD", "bare/objects", "bare/refs"}


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(stage: Path, tmp_path: Path) -> None:
    (stage / "x").write_text("x")
    with pytest.raises(SandboxError, match="could not be brought"):
        bring_home(stage, tmp_path / "absent")


def test_no_temporary_file_stays(stage: Path, home: Path) -> None:
    (stage / "x").write_text("x" * 3_000_000)
    bring_home(stage, home)
    assert tree(home) == {"x": "x" * 3_000_000}


def test_layers_merge_like_the_kernel_does(tmp_path: Path) -> None:
    kept, upper, view = (tmp_path / name for name in ("kept", "upper", "view"))
    for folder in (kept, upper, view):
        folder.mkdir()
    (kept / "a").mkdir()
    (kept / "a" / "old").write_text("old")
    (kept / "b").write_text("b")
    layer.whiteout(os.fsencode(kept / "c"))
    (upper / "a").mkdir()
    (upper / "a" / "new").write_text("new")
    layer.whiteout(os.fsencode(upper / "b"))
    (upper / "c").mkdir()
    (upper / "c" / "x").write_text("x")
    os.mkfifo(upper / "pipe")
    layer.merge(os.fsencode(upper), os.fsencode(kept), None)
    assert layer.is_opaque(os.fsencode(kept / "c"))
    assert layer.is_whiteout((kept / "b").lstat())
    (view / "c").mkdir()
    (view / "c" / "gone").write_text("gone")
    (view / "b").write_text("b")
    copies.overlay(os.fsencode(kept), os.fsencode(view), None)
    assert tree(view) == {"a": "/", "a/new": "new", "a/old": "old", "c": "/", "c/x": "x"}
    other = tmp_path / "other"
    other.mkdir()
    layer.duplicate(os.fsencode(kept), os.fsencode(other), None)
    assert changes(other) == changes(kept)
