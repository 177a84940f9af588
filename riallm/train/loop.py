"""The one training loop: batches by number, sums from the objective, one division, one step; saved, resumed, told.

A batch is a function of its number alone, so a resumed run sees exactly what an uninterrupted one sees, and several
ranks share the work by taking numbers in turn.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from riallm.core.config import from_json, to_json
from riallm.core.errors import TrainingError, UsageError
from riallm.core.files import atomic_write
from riallm.core.interrupts import held
from riallm.models.base import Model
from riallm.nn.linear import round_weights
from riallm.quant.blocks import Bits
from riallm.train import saved
from riallm.train.objective import B, Objective
from riallm.train.optim import OptimiserConfig, optimisers, set_factor
from riallm.train.parallel import Ranks, like, whole
from riallm.train.parts import Parts, Trains
from riallm.train.schedule import Schedule

Source = Callable[[int], B]
"""The batch of a number; the same number always gives the same batch."""

Carry = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Carried(Generic[B]):
    """A source that is told what the objective made of an earlier batch: `made(number, carry)`. carry is that of the
    batch at the same place in the step before, None where there was none; it is saved with the run."""

    made: Callable[[int, Carry | None], B]


@dataclass(frozen=True, slots=True)
class Following(Generic[B]):
    """A source that changes as the run goes on: `made(number, elapsed)`, with the share of the run that is over before
    the batch's step. The share is saved with the run; where a clock decides, a run that goes on may see other batches
    than one that never stopped, as its schedule differs too."""

    made: Callable[[int, float], B]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """max_steps and max_seconds bound the run, whichever comes first; the schedule follows the larger elapsed share.

    accumulate: batches a step. clip: largest gradient norm, 0 for none. ema: decay of the running mean of the weights
    that is evaluated and shipped, 0 for none. save_seconds: between saves. round_bits: quantisation-aware training, in
    which the model computes with its matrices in so many bits from the elapsed share `round_from` on.
    """

    max_steps: int
    max_seconds: float | None = None
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.998
    save_seconds: float = 300.0
    round_bits: Bits | None = None
    round_from: float = 0.7
    seed: int = 0
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: Schedule = field(default_factory=Schedule)
    trains: tuple[Trains, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step did. nats are a target's, or what `Loss` has in their place; bits_per_byte is of the counted
    targets, None where they are no text; flops_per_second by the model's own count; metrics: what the objective told of
    the step's last batch."""

    step: int
    nats: float
    bits_per_byte: float | None
    factor: float
    grad_norm: float
    num_tokens: int
    seconds: float
    flops_per_second: float
    elapsed: float
    metrics: Mapping[str, float] = field(default_factory=dict)


class Run(Generic[B]):
    """One training run in a folder. `train()` goes on from the newest save; Ctrl-C saves and raises."""

    def __init__(
        self,
        model: Model,
        source: Source[B] | Carried[B] | Following[B],
        objective: Objective[B],
        config: TrainConfig,
        folder: Path,
        *,
        ranks: Ranks | None = None,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> None:
        """ranks: this process among those that share the run; the model is sharded already.

        Raises UsageError when the folder holds a run of another configuration.
        """
        self.model, self.source, self.objective, self.config, self.folder = model, source, objective, config, folder
        self.ranks, self.on_step = ranks or Ranks(), on_step
        self.parts = Parts(model, config.trains)
        if config.trains and self.ranks.world > 1:
            raise UsageError("parts of a model train on one rank only; leave `trains` out, or run without torchrun")
        if isinstance(source, Carried) and self.ranks.world > 1:
            raise UsageError("a source that carries state runs on one rank only, whose save would lack the others'")
        self.carry: dict[int, Carry] = {}
        self.parts.ever()
        self.optimisers = optimisers(model, config.optimiser)
        self.parts.leave()
        self.mean = {name: p.detach().clone() for name, p in model.named_parameters()} if config.ema else {}
        self.step, self.seconds = 0, 0.0
        self._same_config()
        place = saved.latest(folder / "saves")
        if place is not None:
            self._restore(saved.read(place))
        if self.ranks.rank == 0:
            self._cut_metrics()

    def _same_config(self) -> None:
        if self.config.accumulate % self.ranks.world:
            raise UsageError(
                f"accumulate is {self.config.accumulate}: the batches of a step must divide among "
                f"{self.ranks.world} ranks"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        known, text = self.folder / "train.json", json.dumps(to_json(self.config), indent=1, sort_keys=True)
        if not known.exists():
            atomic_write(known, text.encode())
        elif not self._is_same(known):
            raise UsageError(
                f"{self.folder} holds a run of other settings ({known.name}); give another folder, or the same settings"
            )

    def _is_same(self, known: Path) -> bool:
        """Whether the settings that were written down are ours; one that came later has its default there."""
        try:
            return from_json(TrainConfig, json.loads(known.read_text())) == self.config
        except ValueError:
            return False

    @property
    def elapsed(self) -> float:
        """The share of the run that is over."""
        share = self.step / self.config.max_steps
        limit = self.config.max_seconds
        return min(1.0, max(share, self.seconds / limit if limit else 0.0))

    def train(self) -> None:
        """Step until the run is over, saving on the way and at the end. Raises TrainingError for a loss that is no
        number; the newest save is then from before it."""
        last_save = time.monotonic()
        try:
            while self.elapsed < 1.0:
                self._one()
                if time.monotonic() - last_save >= self.config.save_seconds:
                    self.save()
                    last_save = time.monotonic()
        except KeyboardInterrupt:
            self.save()
            raise
        finally:
            self.parts.leave()
        self.save()

    def _one(self) -> None:
        began, config = time.monotonic(), self.config
        factor = config.schedule.factor(self.elapsed)
        self.parts.at(self.elapsed)
        round_weights(self.model, config.round_bits if self.elapsed >= config.round_from else None)
        numbers = range(self.step * config.accumulate, (self.step + 1) * config.accumulate)
        numbers = numbers[self.ranks.rank :: self.ranks.world]
        batches = [self._batch(place, number) for place, number in enumerate(numbers)]
        units = self.ranks.total(sum(batch.num_units for batch in batches))
        total = 0.0
        metrics: Mapping[str, float] = {}
        carries: dict[int, Carry] = {}
        for place, (number, batch) in enumerate(zip(numbers, batches, strict=True)):
            loss = self.objective(self.model, batch)
            summed = torch.stack(tuple(loss.terms.values())).sum()
            value = float(summed.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {self.step}: the loss of batch {number} is {value}. The weights are as they were after step "
                    f"{self.step - 1}; the newest save is {saved.latest(self.folder / 'saves') or 'not there yet'}."
                )
            if not summed.requires_grad:
                raise UsageError(f"step {self.step}: no part that trains has a share in the loss; look at `trains`")
            share = self.ranks.world / max(1, units)  # sharded gradients are averaged over the ranks
            (summed * share).backward()  # type: ignore[no-untyped-call]
            total += float(loss.told.detach())
            metrics = loss.metrics
            if loss.carry is not None:
                carries[place] = loss.carry
        norm = self._grad_norm()
        set_factor(self.optimisers, factor)
        with held():  # else a save could have weights of one step and the number of another
            for optimiser in self.optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            self._average()
            self.carry = carries if isinstance(self.source, Carried) else {}
            self.step += 1
            seconds = time.monotonic() - began
            self.seconds += seconds
        num_bytes = sum(batch.num_bytes for batch in batches) if "nats" in loss.terms else 0.0
        self._tell(batches, self.ranks.total(total), units, self.ranks.total(num_bytes), factor, norm, seconds, metrics)

    def _batch(self, place: int, number: int) -> B:
        if isinstance(self.source, Carried):
            return self.source.made(number, self.carry.get(place))
        if isinstance(self.source, Following):
            return self.source.made(number, self.elapsed)
        return self.source(number)

    def _grad_norm(self) -> float:
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        return float(whole(nn.utils.clip_grad_norm_(parameters, self.config.clip or math.inf)))

    @torch.no_grad()
    def _average(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self.mean:
                self.mean[name].lerp_(parameter, 1.0 - self.config.ema)

    def _tell(
        self,
        batches: Sequence[B],
        total: float,
        units: float,
        num_bytes: float,
        factor: float,
        norm: float,
        seconds: float,
        metrics: Mapping[str, float],
    ) -> None:
        num_tokens = int(self.ranks.total(sum(batch.num_tokens for batch in batches)))
        flops = self.model.costs().training_flops(num_tokens, batches[0].context)
        told = Step(
            step=self.step,
            nats=total / max(1, units),
            bits_per_byte=total / math.log(2) / num_bytes if num_bytes else None,
            factor=factor,
            grad_norm=norm,
            num_tokens=num_tokens,
            seconds=seconds,
            flops_per_second=flops / seconds,
            elapsed=self.elapsed,
            metrics=metrics,
        )
        if self.ranks.rank == 0:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(to_json(told)) + "\n")
        self.on_step(told)

    def save(self) -> Path | None:
        """Save everything that the next step depends on; where it is, on the first rank."""
        tensors = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.mean.items()}
        for at, carry in self.carry.items():
            tensors |= {f"carry.{at}.{part}": tensor for part, tensor in carry.items()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        counts: dict[str, Any] = {}
        for number, optimiser in enumerate(self.optimisers):
            for parameter, state in optimiser.state.items():
                for key, value in state.items():
                    place = f"optimiser.{number}.{names[id(parameter)]}.{key}"
                    if isinstance(value, Tensor):
                        tensors[place] = value
                    else:
                        counts[place] = value
        gathered = {name: whole(tensor) for name, tensor in tensors.items()}
        numbers = {"seconds": self.seconds, "counts": counts}
        written: Path | None = None
        if self.ranks.rank == 0:
            written = saved.save(self.folder / "saves", self.step, saved.Saved(tensors=gathered, numbers=numbers))
        self.ranks.wait()
        return written

    @torch.no_grad()
    def _restore(self, found: saved.Saved) -> None:
        own: dict[str, Tensor] = {f"model.{name}": p for name, p in self.model.named_parameters()}
        own |= {f"mean.{name}": tensor for name, tensor in self.mean.items()}
        wrong = [
            name for name, tensor in own.items() if getattr(found.tensors.get(name), "shape", None) != tensor.shape
        ]
        if wrong:
            raise UsageError(f"{self.folder} holds a run of another model: {wrong[0]} is missing or of another shape")
        for name, tensor in own.items():
            tensor.copy_(like(found.tensors[name], tensor))
        self.step, self.seconds = int(found.numbers["step"]), float(found.numbers["seconds"])
        for number, optimiser in enumerate(self.optimisers):
            self._restore_optimiser(number, optimiser, found)
        self.carry = {}
        for name, tensor in found.tensors.items():
            if name.startswith("carry."):
                _, at, part = name.split(".", 2)
                self.carry[int(at)] = {**self.carry.get(int(at), {}), part: tensor}

    def _restore_optimiser(self, number: int, optimiser: Optimizer, found: saved.Saved) -> None:
        names = {id(p): name for name, p in self.model.named_parameters()}
        values: dict[str, Any] = {**found.tensors, **found.numbers["counts"]}
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                prefix = f"optimiser.{number}.{names[id(parameter)]}."
                for name in [name for name in values if name.startswith(prefix)]:
                    value = values[name]
                    value = like(value, parameter) if isinstance(value, Tensor) else value
                    optimiser.state[parameter][name.removeprefix(prefix)] = value

    def _cut_metrics(self) -> None:
        """Drop the lines of steps that will be done again."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.step]
            atomic_write(path, "".join(line + "\n" for line in kept).encode())
