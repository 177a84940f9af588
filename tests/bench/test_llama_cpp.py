"""The comparison with llama.cpp: what its process is asked, what is made of its answers, and how it can go wrong.

Stand-ins speak the worker's protocol in its place; the last test runs llama.cpp itself where it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from riallm.bench import engine, llama_cpp, llama_cpp_file
from riallm.bench.llama_cpp_peer import INSTALL, VARIABLE, Peer, Variant, opened
from riallm.core.errors import UsageError
from riallm.models import foreign, resident
from riallm.models.llama import LlamaConfig
from riallm.models.zoo import ZOO, Entry

TINY = LlamaConfig(
    vocab_size=320,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tie_word_embeddings=True,
    attention_bias=True,
)
STAND_IN = """#!{python}
import json, shutil, sys, time
task, *rest = sys.argv[3:]  # after -B and the worker's path
log = open({log!r}, "a")
log.write(json.dumps([task, *rest]) + "\\n")
def tell(told):
    print(json.dumps(told), flush=True)
if task == "about":
    tell({{"version": "1.2.3", "system": "AVX2 REPACK"}})
elif task == "quantise":
    shutil.copy(rest[0], rest[1])
else:
    tell({{"ready": "tiny", "weight_bytes": 5000, "buffers_mib": {{"CPU_REPACK": "1.5"}}}})
    for line in sys.stdin:
        asked = json.loads(line)
        log.write(line); log.flush()
        seconds = 0.5 if asked["do"] == "decode" else 0.25
        {answer}
"""
ANY = Variant(name="any", kind="any")
ANSWER = 'tell({"seconds": seconds, "idle_cpu_seconds": 3.0, "idle_seconds": 2.0})'


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small shape under two names, so that no file of a stand-in is in the cache when llama.cpp itself looks."""
    for name in ("tiny-shape", "tiny-real"):
        monkeypatch.setitem(ZOO, name, Entry(config=TINY, written=None, source="this test"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(engine, "MEGABYTES", 1)


def stand_in(folder: Path, answer: str = ANSWER, name: str = "python-with-peer") -> Path:
    """An interpreter that is none: it answers in the worker's place and notes what it was asked in NAME.log."""
    path = folder / name
    path.write_text(STAND_IN.format(python=sys.executable, log=str(folder / f"{name}.log"), answer=answer))
    path.chmod(0o755)
    return path


def measured(python: Path | str, *more: str) -> int:
    words = ["--model", "tiny-shape", "--prompt", "60", "--answer", "5", "--clients", "2", "--rounds", "1"]
    return engine.main([*words, "--peers", "--peer-python", str(python), *more])


def test_the_peer_is_asked_for_the_same_tokens_and_the_card_has_the_ratios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = stand_in(tmp_path)
    assert measured(python) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["llama_cpp_version"] == "1.2.3" and told["llama_cpp_system"] == "AVX2 REPACK"
    assert told["llama_cpp_model"] == "tiny" and told["llama_cpp_buffers_mib"] == "CPU_REPACK 1.5"
    assert told["llama_cpp_weight_gb"] == 5e-6 and told["llama_cpp_idle_cores"] == 1.5
    assert told["idle_cores_while_llama_cpp_runs"] >= 0
    assert told["decode_best_llama_cpp"] in ("llama_cpp", "llama_cpp_plain", "llama_cpp_q4_0")
    for name in ("llama_cpp", "llama_cpp_plain", "llama_cpp_q4_0"):
        assert told[f"{name}_decode_tokens_a_second"] == 4 / 0.5  # the first of five belongs to the prompt
        assert told[f"{name}_prefill_tokens_a_second"] == 60 / 0.25
        for task in ("decode", "prefill"):
            ours = told[f"{task}_tokens_a_second"]
            assert told[f"{task}_ratio_{name}"] == pytest.approx(ours / told[f"{name}_{task}_tokens_a_second"])
    lines = [json.loads(line) for line in (tmp_path / "python-with-peer.log").read_text().splitlines()]
    begun = [line for line in lines if isinstance(line, list) and line[0] == "serve"]
    threads = str(torch.get_num_threads())
    assert [line[2:] for line in begun] == [[threads, "60", how] for how in ("repack", "plain", "repack")]
    assert ["q4_k_m" in line[1] for line in begun] == [True, True, False]
    asked = [line for line in lines if isinstance(line, dict)]
    assert len(asked) == 3 * 2 * 2  # peers, tasks, and a round that warms up
    for at, what in enumerate(("decode", "prefill", "decode", "prefill")):
        same = asked[3 * at : 3 * at + 3]
        assert same[0] == same[1] == same[2] and same[0]["do"] == what
    assert asked[0]["tokens"] == 4 and len(asked[0]["ids"]) == 16 and len(asked[3]["ids"]) == 60
    assert asked[0]["ids"] != asked[6]["ids"]


def test_ratios_are_of_the_rounds() -> None:
    """A round in which the machine was slow for both counts as any other."""
    speeds = {"": [10.0, 1.0, 6.0], "llama_cpp": [5.0, 1.0, 2.0], "llama_cpp_plain": [4.0, 1.0, 4.0]}
    peers = [
        Peer(
            name=name,
            process=None,  # type: ignore[arg-type]
            errors=Path(),
            patience=1.0,
            about={"version": "1", "system": "AVX2"},
            ready={"ready": "m", "weight_bytes": 1},
            own_cpu_seconds=1.0,
            own_seconds=4.0,
        )
        for name in list(speeds)[1:]
    ]
    told = llama_cpp.figures(peers, {"decode": speeds})
    assert told["decode_ratio_llama_cpp"] == 2.0 and told["llama_cpp_decode_tokens_a_second"] == 2.0
    assert told["decode_best_llama_cpp"] == "llama_cpp_plain"
    assert told["decode_ratio_best_llama_cpp"] == told["decode_ratio_llama_cpp_plain"] == 1.5
    assert told["idle_cores_while_llama_cpp_runs"] == 0.25 and told["llama_cpp_idle_cores"] == 0.0
    assert llama_cpp.figures([], {"decode": {"": [1.0]}}) == {}


def test_files_are_made_once(tmp_path: Path) -> None:
    made: list[str] = []

    def quantise(source: Path, target: Path, kind: str) -> None:
        target.write_bytes(source.read_bytes())
        made.append(kind)

    said: list[str] = []
    for kinds in (("q4_k_m",), ("q4_k_m", "q4_0"), ("q4_k_m", "q4_0")):
        found = llama_cpp_file.files_of("tiny-shape", kinds, quantise, folder=tmp_path / "made", say=said.append)
        assert list(found) == list(kinds)
    assert made == ["q4_k_m", "q4_0"] and len(said) == 4
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(path.name for path in found.values())

    def fails(source: Path, target: Path, kind: str) -> None:
        target.write_bytes(b"half")
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        llama_cpp_file.files_of("tiny-shape", ("q4_0",), fails, folder=tmp_path / "other", say=said.append)
    assert [path.suffix for path in (tmp_path / "other").iterdir()] == [".partial"]  # nothing that looks whole
    with pytest.raises(UsageError, match=r"does not know the architecture of ria-1b; compare with one of ruv"):
        llama_cpp_file.files_of("ria-1b", ("q4_0",), quantise, say=said.append)


def test_a_drawn_file_is_the_shape_and_the_same_for_a_seed(tmp_path: Path) -> None:
    first, again, other = (tmp_path / f"{name}.gguf" for name in "abc")
    for path, seed in ((first, 0), (again, 0), (other, 1)):
        llama_cpp_file.write(TINY, path, name="tiny-shape", seed=seed)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    stored = foreign.open_model(first)
    assert foreign.config_of(stored) == TINY and stored.files == {}
    up, down = (stored.tensors[f"layers.1.mlp.{name}_proj.weight"] for name in ("up", "down"))
    assert isinstance(up, torch.Tensor) and isinstance(down, torch.Tensor)
    assert float(up.float().std()) == pytest.approx(256**-0.5, rel=0.02)
    assert float(down.float().std()) == pytest.approx(512**-0.5, rel=0.02)
    gate = stored.tensors["layers.1.mlp.gate_proj.weight"]
    assert isinstance(gate, torch.Tensor) and not torch.equal(up, gate)
    resident.load(first, kind="int4")


DEAD = "sys.stderr.write('no memory left\\n'); sys.exit(3)"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (DEAD, "ended with 3: no memory left"),
        ("print('loading', flush=True)", r"said b'loading\n'; expected one JSON object a line"),
        ("print('[1]', flush=True)", r"said b'[1]\n'; expected one JSON object a line"),
        ("sys.stdout.write('{'); sys.exit(0)", "ended with 0: it said nothing"),
        ('tell({"idle_cpu_seconds": 0, "idle_seconds": 0})', "without a number for seconds"),
        ('tell({"seconds": True, "idle_cpu_seconds": 0, "idle_seconds": 0})', "without a number for seconds"),
        ('tell({"seconds": 0, "idle_cpu_seconds": 0, "idle_seconds": 0})', "no measurement"),
        ('tell({"seconds": 1e9, "idle_cpu_seconds": 0, "idle_seconds": 0})', "no measurement"),
    ],
)
def test_a_peer_that_fails_is_named(tmp_path: Path, answer: str, complaint: str) -> None:
    with (
        pytest.raises(UsageError, match=re.escape(complaint)),
        opened(str(stand_in(tmp_path, answer)), {}, {ANY: tmp_path}, threads=1, context=9) as (peer,),
    ):
        peer.prefill([1])


def test_a_peer_that_dies_ends_the_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(stand_in(tmp_path, DEAD)) == 2
    printed = capsys.readouterr()
    assert "engine: llama.cpp's worker ended with 3: no memory left" in printed.err and printed.out == ""


def test_a_peer_that_hangs_is_given_up(tmp_path: Path) -> None:
    python = stand_in(tmp_path, "time.sleep(60)")
    with (
        pytest.raises(UsageError, match=r"did not answer within 0\.5 seconds"),
        opened(str(python), {}, {ANY: tmp_path}, threads=1, context=9) as (peer,),
    ):
        peer.patience = 0.5
        began = time.monotonic()
        peer.prefill([1])
    assert time.monotonic() - began < 10 and peer.process.returncode is not None


def test_a_peer_ends_with_the_block(tmp_path: Path) -> None:
    with opened(str(stand_in(tmp_path)), {}, {ANY: tmp_path}, threads=1, context=9) as (peer,):
        assert peer.decode([1, 2], 5) == 8.0
    assert peer.process.returncode == 0


def test_threads_of_ours_that_spin_are_seen(tmp_path: Path) -> None:
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            pass

    thread = threading.Thread(target=spin)
    with opened(str(stand_in(tmp_path, f"time.sleep(0.3); {ANSWER}")), {}, {ANY: tmp_path}, threads=1, context=9) as (
        peer,
    ):
        peer.prefill([1])
        quiet = peer.own_cpu_seconds
        thread.start()
        peer.prefill([1])
        done.set()
        thread.join()
    assert peer.own_cpu_seconds - quiet > max(10 * quiet, 0.005)


def test_without_a_peer_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install = "pip install llama-cpp-python"
    assert measured(tmp_path / "nothing") == 2
    assert "nothing does not run" in (said := capsys.readouterr().err) and install in said
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    assert measured(bare) == 2
    assert f"{bare} has no llama-cpp-python" in (said := capsys.readouterr().err) and install in said
    words = ["--model", "tiny-shape", "--peers"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert engine.main(words) == 2
    said = capsys.readouterr().err
    assert "which is not installed here" in said and install in said and VARIABLE in said
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    assert engine.main(words) == 2
    assert "elsewhere does not run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "no-such-shape"], "llama.cpp cannot open no-such-shape"),
        (["--model", "ria-1b"], "does not know the architecture of ria-1b"),
        (["--answer", "1"], "--answer from 2 on"),
        (["--rounds", "0"], "--rounds are from 1 on"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: Sequence[str], complaint: str
) -> None:
    assert measured(stand_in(tmp_path), *words) == 2
    assert complaint in capsys.readouterr().err
    assert engine.main(["--peer-python", "python3"]) == 2
    assert "say --peers, too" in capsys.readouterr().err


def test_a_file_is_given_to_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.gguf"
    llama_cpp_file.write(TINY, path, name="model")
    assert measured(stand_in(tmp_path), "--model", str(path)) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["layers"] == 2 and "decode_ratio_llama_cpp" in told and "llama_cpp_q4_0_model" not in told
    log = [json.loads(line) for line in (tmp_path / "python-with-peer.log").read_text().splitlines()]
    assert [line[:2] for line in log if isinstance(line, list)] == [["about"], *[["serve", str(path)]] * 2]


def real_peer() -> str:
    """The interpreter that has llama.cpp, or a skip that says what is missing."""
    python = os.environ.get(VARIABLE) or sys.executable
    done = subprocess.run([python, "-c", "import llama_cpp"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"llama.cpp itself was NOT tried: {python} has no llama-cpp-python. {INSTALL}")
    return python


@pytest.fixture(scope="module")
def peer_python() -> str:
    """Asked for before a test loses the variable."""
    return real_peer()


def test_llama_cpp_itself(peer_python: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(peer_python, "--model", "tiny-real") == 0
    told: Mapping[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "CPU_REPACK" not in told["llama_cpp_plain_buffers_mib"]
    assert "Q4_K - Medium" in told["llama_cpp_model"] and "Q4_0" in told["llama_cpp_q4_0_model"]
    assert told["llama_cpp_version"] and told["llama_cpp_weight_gb"] > 0
    for task in ("decode", "prefill"):
        assert told[f"llama_cpp_{task}_tokens_a_second"] > 0 and told[f"{task}_ratio_llama_cpp"] > 0
    assert told["llama_cpp_idle_cores"] < 0.5
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    with (
        pytest.raises(UsageError, match=r"llama.cpp cannot open .*broken\.gguf"),
        opened(peer_python, {}, {ANY: broken}, threads=1, context=9),
    ):
        pass
