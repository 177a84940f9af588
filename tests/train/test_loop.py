"""The loop: it learns, resumes bit for bit, survives a kill and a full disk, and stops at a loss that is no number."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from riallm.core.errors import CheckpointError, TrainingError, UsageError
from riallm.models.base import Model
from riallm.models.ria import RIA
from riallm.models.zoo import nano
from riallm.nn.linear import Linear
from riallm.nn.meta import TokenMeta
from riallm.quant.packed import dequantise, packable, quantise
from riallm.train import saved
from riallm.train.loop import Run, Step, TrainConfig
from riallm.train.objective import IGNORED, Batch, Loss, next_token

TINY = nano(hidden=128, layers=1, inner=128, vocab=50, context=16)
CONFIG = TrainConfig(max_steps=12, accumulate=2, save_seconds=1e9)


def batch(number: int) -> Batch:
    """Rows that count upwards from a drawn beginning; the first target of each is not counted."""
    draw = torch.Generator().manual_seed(number)
    tokens = (torch.randint(0, 50, (3, 1), generator=draw) + torch.arange(17)) % 50
    targets = tokens[:, 1:].clone()
    targets[:, 0] = IGNORED
    return Batch(tokens=tokens[:, :-1], targets=targets, meta=TokenMeta.plain(3, 16), num_bytes=3 * 15)


def start(folder: Path, config: TrainConfig = CONFIG, objective=next_token, told=None) -> Run:  # type: ignore[no-untyped-def]
    model = RIA(TINY)
    model.initialise(seed=0)
    return Run(
        model, batch, objective, config, folder, on_step=(told.append if told is not None else lambda step: None)
    )


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.model.named_parameters()} | {
        f"mean {name}": tensor.clone() for name, tensor in run.mean.items()
    }


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_falls(tmp_path: Path) -> None:
    told: list[Step] = []
    start(tmp_path, dataclasses.replace(CONFIG, max_steps=60), told=told).train()
    assert told[0].nats > 3.0 > 1.0 > told[-1].nats
    assert told[-1].bits_per_byte == pytest.approx(told[-1].nats / 0.6931, rel=1e-3)  # a byte a target here
    assert told[3].num_tokens == 2 * 3 * 16 and told[3].flops_per_second > 0
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == list(
        range(1, 61)
    )


def test_rounded_training_computes_with_what_ships(tmp_path: Path) -> None:
    """From its share on, the loss is that of the weights in four bits; before, of the whole ones."""
    config = dataclasses.replace(CONFIG, accumulate=1, round_bits=4, round_from=0.5)
    seen: list[tuple[float, float, float]] = []

    def objective(model: Model, batch: Batch) -> Loss:
        loss = next_token(model, batch)
        copy = RIA(TINY)
        copy.load_state_dict(model.state_dict())
        with torch.no_grad():
            plain = float(next_token(copy, batch).terms["nats"])
            for module in copy.modules():
                if isinstance(module, Linear) and packable(module.weight, "int4"):
                    module.weight.copy_(dequantise(quantise(module.weight, "int4")))
            seen.append((float(loss.terms["nats"].detach()), plain, float(next_token(copy, batch).terms["nats"])))
        return loss

    start(tmp_path, config, objective).train()
    assert all(loss == pytest.approx(plain, rel=1e-6) for loss, plain, _ in seen[:6])
    assert all(loss == pytest.approx(shipped, rel=1e-5) for loss, _, shipped in seen[6:])
    assert all(plain != pytest.approx(shipped, rel=1e-4) for _, plain, shipped in seen[6:])


def test_accumulation_divides_by_all_units(tmp_path: Path) -> None:
    """Two batches at once give the gradient of the mean over all their targets, not the mean of two means."""

    def uneven(number: int) -> Batch:
        full = batch(number)
        targets = full.targets.clone()
        targets[:, : 3 + 9 * (number % 2)] = IGNORED
        return dataclasses.replace(full, targets=targets)

    model = RIA(TINY)
    model.initialise(seed=0)
    losses = [next_token(model, uneven(number)).terms["nats"] for number in (0, 1)]
    (sum(losses) / (uneven(0).num_units + uneven(1).num_units)).backward()  # type: ignore[union-attr]
    wanted = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    told: list[Step] = []
    run = start(tmp_path, dataclasses.replace(CONFIG, max_steps=1), told=told)
    run.source = uneven
    run.train()
    assert told[0].grad_norm == pytest.approx(float(wanted), rel=1e-4)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    whole.train()

    class Stop(Exception):
        pass

    def stop(step: Step) -> None:
        if step.step == 5:
            first.save()
        if step.step == 7:  # two steps past the save: they are done again
            raise Stop

    first = start(tmp_path / "parts")
    first.on_step = stop
    with pytest.raises(Stop):
        first.train()
    second = start(tmp_path / "parts")
    assert second.step == 5
    second.train()
    assert equal(weights(whole), weights(second))
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert [line["nats"] for line in lines[0]] == [line["nats"] for line in lines[1]]


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_loop
from dataclasses import replace
config = replace(test_loop.CONFIG, max_steps=400, save_seconds=0.0)
test_loop.start(Path({folder!r}), config).train()
"""


def child(folder: Path, **more: object) -> subprocess.Popen[str]:
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload,no-any-return]


def test_a_killed_run_goes_on_from_a_whole_save(tmp_path: Path) -> None:
    process = child(tmp_path)
    while not saved.steps(tmp_path / "saves") or saved.steps(tmp_path / "saves")[-1] < 4:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    run = start(tmp_path, dataclasses.replace(CONFIG, max_steps=400, save_seconds=0.0))
    assert 4 <= run.step < 400
    place = saved.latest(tmp_path / "saves")
    assert place is not None and saved.read(place).numbers["step"] == run.step


def test_a_run_killed_before_its_first_save_tells_each_step_once(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, max_steps=2)

    def killed(step: Step) -> None:
        raise RuntimeError("gone")

    run = start(tmp_path, config)
    run.on_step = killed
    with pytest.raises(RuntimeError, match="gone"):
        run.train()
    start(tmp_path, config).train()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_ctrl_c_saves(tmp_path: Path) -> None:
    def interrupt(step: Step) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    run = start(tmp_path)
    run.on_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert saved.steps(tmp_path / "saves") == [3]


def test_ctrl_c_amid_a_step_saves_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the weights of the first optimiser and before those of the second."""
    whole = start(tmp_path / "whole")
    whole.train()
    run = start(tmp_path / "parts")
    step = run.optimisers[0].step

    def interrupted() -> None:
        step()
        if run.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run.optimisers[0], "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert saved.steps(tmp_path / "parts/saves") == [5] and len(run.optimisers) > 1
    again = start(tmp_path / "parts")
    again.train()
    assert equal(weights(whole), weights(again))


def test_a_full_disk_is_told_and_leaves_the_earlier_save(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.step = 3
    run.save()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond this
    try:
        run.step = 4
        with pytest.raises(CheckpointError, match=r"step 4 could not be saved .* goes on from .*step-00000003"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert [path.name for path in (tmp_path / "saves").iterdir()] == ["step-00000003"]


def test_a_loss_that_is_no_number_stops_the_run_before_it_does_harm(tmp_path: Path) -> None:
    def poisoned(model: Model, given: Batch) -> Loss:
        loss = next_token(model, given)
        return Loss(terms={"nats": loss.terms["nats"] * (float("nan") if run.step == 4 else 1.0)})

    run = start(tmp_path, objective=poisoned)
    run.on_step = lambda step: run.save() if step.step == 4 else None
    with pytest.raises(TrainingError, match=r"step 4: the loss of batch 8 is nan.*step-00000004"):
        run.train()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(run).values())
    assert start(tmp_path).step == 4


def test_a_damaged_save_is_named(tmp_path: Path) -> None:
    run = start(tmp_path)
    place = run.save()
    data = bytearray((place / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "state.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged: its sha256 is"):
        start(tmp_path)
    (place / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        start(tmp_path)


def test_other_settings_or_another_model_are_refused(tmp_path: Path) -> None:
    start(tmp_path).save()
    with pytest.raises(UsageError, match="a run of other settings"):
        start(tmp_path, dataclasses.replace(CONFIG, seed=1))
    with pytest.raises(UsageError, match="a run of another model"):
        Run(RIA(nano(hidden=256, layers=1, inner=128, vocab=50, context=16)), batch, next_token, CONFIG, tmp_path)


def test_the_last_two_saves_are_kept(tmp_path: Path) -> None:
    run = start(tmp_path)
    for step in (1, 2, 3):
        run.step = step
        run.save()
    assert saved.steps(tmp_path / "saves") == [2, 3]


def test_a_clock_bounds_a_run_and_moves_its_schedule(tmp_path: Path) -> None:
    told: list[Step] = []
    run = start(tmp_path, dataclasses.replace(CONFIG, max_steps=10**6, max_seconds=1.0), told=told)
    run.train()
    assert run.seconds >= 1.0 and run.step < 10**6
    assert told[-1].elapsed == 1.0
    for before, after in pairwise(told):  # the schedule goes by the clock, however fast the steps are
        assert after.factor == run.config.schedule.factor(before.elapsed)
