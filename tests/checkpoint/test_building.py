"""Big files: an interruption costs little, a full disk is said, and no more than two tensors are in memory."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from riallm.checkpoint import building, folder
from riallm.checkpoint.building import FilePlan, Item, Work
from riallm.checkpoint.tensors import Tensors, Weight, in_memory, packed_as
from riallm.core.errors import CheckpointError

NAMES = [
    "embed_tokens.weight",
    *(f"layers.{at}.mlp.{part}_proj.weight" for at in range(4) for part in ("gate", "down")),
]


def model() -> Tensors:
    torch.manual_seed(0)
    return in_memory({name: torch.randn(64, 256) for name in NAMES})


class Interrupted(Exception):
    pass


def stopping(tensors: Tensors, after: int, asked: list[str]) -> Tensors:
    """The same, until so many tensors have been read."""

    def load(name: str) -> Weight:
        if len(asked) == after:
            raise Interrupted
        asked.append(name)
        return tensors[name]

    return Tensors({name: tensors.info(name) for name in tensors}, load)


def hashes(place: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}


def test_an_interrupted_try_goes_on_where_it_was(tmp_path: Path) -> None:
    folder.write(tmp_path / "whole", {}, model(), kind_of=packed_as("int4"))
    target, asked = tmp_path / "model", list[str]()
    with pytest.raises(Interrupted):
        folder.write(target, {}, stopping(model(), 4, asked), kind_of=packed_as("int4"), resume="a")
    assert not target.exists(), "half a model looked whole"
    assert len(asked) == 4
    again = list[str]()
    folder.write(target, {}, stopping(model(), 99, again), kind_of=packed_as("int4"), resume="a")
    assert again == NAMES[3:], "layer_1 was begun and is done again, what was finished is not"
    assert hashes(target) == hashes(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "whole"]


@pytest.mark.parametrize("other", ["source", "kind", "config"])
def test_an_unfinished_try_of_something_else_is_begun_anew(tmp_path: Path, other: str) -> None:
    target = tmp_path / "model"
    with pytest.raises(Interrupted):
        folder.write(target, {}, stopping(model(), 4, []), kind_of=packed_as("int4"), resume="a")
    again = list[str]()
    folder.write(
        target,
        {"x": 1} if other == "config" else {},
        stopping(model(), 99, again),
        kind_of=packed_as("int8" if other == "kind" else "int4"),
        resume="b" if other == "source" else "a",
    )
    assert again == NAMES
    folder.verify(target)


def test_without_a_word_for_the_source_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        folder.write(tmp_path / "model", {}, stopping(model(), 4, []))
    assert list(tmp_path.iterdir()) == []


def test_a_finished_file_that_was_damaged_meanwhile_is_made_again(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(Interrupted):
        folder.write(target, {}, stopping(model(), 4, []), resume="a")
    (building.partial_of(target) / "model" / "embed.safetensors").write_bytes(b"")
    again = list[str]()
    folder.write(target, {}, stopping(model(), 99, again), resume="a")
    assert again[0] == NAMES[0]
    folder.verify(target)


def long_work(asked: list[str], *, stop: int) -> Work:
    """One file of five items; a note is made after each."""
    items = tuple(Item(name=str(at), num_bytes=1000, padding=24) for at in range(5))

    def chunks(name: str) -> Iterator[memoryview]:
        if len(asked) == stop:
            raise Interrupted
        asked.append(name)
        yield memoryview(bytes([int(name)]) * 400)
        yield memoryview(bytes([int(name)]) * 600)

    return Work(
        files={"big": FilePlan(head=b"HEAD" * 8, items=items)},
        chunks=chunks,
        closing=lambda done: {"big.sha256": building.sums_of(done, {})},
        identity="x",
        sync_bytes=1000,
    )


def test_a_long_file_goes_on_behind_its_last_tensor(tmp_path: Path) -> None:
    target, asked = tmp_path / "big", list[str]()
    with pytest.raises(Interrupted):
        building.build_one(target, long_work(asked, stop=3))
    assert not target.exists() and not (tmp_path / "big.sha256").exists()
    building.build_one(target, long_work(again := [], stop=99))
    assert asked == ["0", "1", "2"] and again == ["3", "4"]
    data = target.read_bytes()
    assert data == b"HEAD" * 8 + b"".join(bytes([at]) * 1000 + bytes(24) for at in range(5))
    assert (tmp_path / "big.sha256").read_text() == f"{hashlib.sha256(data).hexdigest()}  big\n"


def test_a_long_file_that_is_not_what_was_noted_is_not_gone_on_with(tmp_path: Path) -> None:
    target = tmp_path / "big"
    with pytest.raises(Interrupted):
        building.build_one(target, long_work([], stop=3))
    unfinished = building.partial_of(target) / "model" / ".big"
    unfinished.write_bytes(b"TAIL" + unfinished.read_bytes()[4:])
    with pytest.raises(CheckpointError, match=r"\.big has another header; remove it"):
        building.build_one(target, long_work([], stop=99))
    unfinished.unlink()
    building.build_one(target, long_work([], stop=99))
    assert target.read_bytes()[:4] == b"HEAD"


def test_two_do_not_write_the_same_model(tmp_path: Path) -> None:
    place = building.partial_of(tmp_path / "model")
    place.mkdir()
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="model is being written by another process"):
            folder.write(tmp_path / "model", {}, model(), resume="a")
    finally:
        os.close(descriptor)
    folder.write(tmp_path / "model", {}, model(), resume="a")


def test_the_room_is_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    """A file system of one mebibyte, which is what a full disk is."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        big = in_memory({"embed_tokens.weight": torch.zeros(1024, 512)})
        asked = list[str]()
        for resume in ("a", None):
            with pytest.raises(CheckpointError, match=r"small has [\d,]+ bytes free; 2,1\d\d,\d\d\d more are needed"):
                folder.write(small / "model", {}, stopping(big, 99, asked), resume=resume)
        assert asked == [] and not (small / "model").exists()
        folder.write(small / "model", {}, model(), kind_of=packed_as("int4"), resume="a")
        folder.verify(small / "model")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_disk_that_fills_up_meanwhile_is_said_and_what_is_finished_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = in_memory({"embed_tokens.weight": torch.randn(64, 256), "lm_head.weight": torch.randn(1024, 256)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"could not be written: .*What is finished stays; the same command"):
            folder.write(tmp_path / "model", {}, tensors, resume="a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert not (tmp_path / "model").exists()
    again = list[str]()
    folder.write(tmp_path / "model", {}, stopping(tensors, 99, again), resume="a")
    assert again == ["lm_head.weight"]
    folder.verify(tmp_path / "model")


KILLED = """
import sys, time
from pathlib import Path
from riallm.models.foreign_write import convert

def hear(name, done, total):
    print(name, done, total, flush=True)
    if done > total / 2:
        time.sleep(1000)  # until somebody kills us

convert(Path(sys.argv[1]), Path(sys.argv[2]), to=sys.argv[3], compression="8bit", hear=hear)
"""


@pytest.mark.parametrize("to", ["split", "gguf"])
def test_a_killed_conversion_goes_on_and_gives_the_same_bytes(tmp_path: Path, to: str) -> None:
    from riallm.models.foreign_config import ours
    from riallm.models.foreign_write import convert
    from riallm.models.llama import Llama, LlamaConfig

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=64,
    )
    made = Llama(config)
    folder.write(tmp_path / "source", ours(config), {name: p.detach() for name, p in made.named_parameters()})
    name = "model.gguf" if to == "gguf" else "model"
    target = tmp_path / "killed" / name
    command = [sys.executable, "-c", KILLED, str(tmp_path / "source"), str(target), to]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            done, total = line.split()[1:]
            if int(done) > int(total) / 2:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    place = building.partial_of(target)
    assert not target.exists() and (to == "gguf" or json.loads((place / building.JOURNAL).read_text())["files"])
    finished = {path.name: path.stat().st_ino for path in (place / "model").iterdir() if path.name[0] != "."}
    convert(tmp_path / "source", target, to=to, compression="8bit")  # type: ignore[arg-type]
    convert(tmp_path / "source", tmp_path / "whole" / name, to=to, compression="8bit")  # type: ignore[arg-type]
    assert sorted(path.name for path in target.parent.iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )
    if to == "gguf":
        assert target.read_bytes() == (tmp_path / "whole" / name).read_bytes()
    else:
        assert hashes(target) == hashes(tmp_path / "whole" / name)
        assert finished and all((target / file).stat().st_ino == inode for file, inode in finished.items())


MEASURED = """
import sys
from pathlib import Path
import torch
from riallm.checkpoint import folder, huggingface
from riallm.checkpoint.tensors import packed_as

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

torch.set_num_threads(1)
stored = huggingface.read(Path(sys.argv[1]))
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = status("VmRSS")
folder.write(Path(sys.argv[2]), {}, stored.tensors, kind_of=packed_as(None if sys.argv[3] == "none" else sys.argv[3]))
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("kind", ["none", "int4"])
def test_two_tensors_are_in_memory_at_most(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import save_file

    size = 24 << 20
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    names = [f"layers.0.mlp.{part}_proj.weight" for part in ("gate", "up", "down")] + ["lm_head.weight"]
    save_file({name: torch.randn(1024, size // 4096) for name in names}, tmp_path / "m" / "model.safetensors")
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "m"), str(tmp_path / "out"), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    slack = 48 << 20  # what a piece takes while it is quantised, and what the libraries load when first used
    assert size < int(done.stdout) < 2 * size + slack - (size if kind == "none" else 0)
