"""Where the time of a model goes: seconds of every kind of unit, and the bytes of weights that went through it."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from torch import nn

from riallm.models.decoder import Decoder
from riallm.nn.linear import PackedModule


class Profiler:
    """Watches a model's units by hooks while it is open; a unit's time is that of its forward call. Where the blocks
    are one compiled call, its operations are the units."""

    def __init__(self, model: Decoder) -> None:
        self._model = model
        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[str, int] = defaultdict(int)
        self._bytes: dict[str, int] = defaultdict(int)
        self._begun: dict[str, float] = {}
        self._passes, self._whole = 0, 0.0
        for unit in model.units():
            self._watch(unit.module, unit.name.rsplit(".", 1)[-1])
        self._watch(model, "")

    def summary(self) -> dict[str, Any]:
        """passes, their seconds, and for each kind of unit: seconds in all, their share, calls, milliseconds a pass,
        GB/s of weights. What no unit takes (residual sums, masks, rotary angles) is under "other"."""
        program = self._model.program
        spent = {} if program is None else program.spent()
        units = {kind: self._told(self._seconds[kind], self._calls[kind], self._bytes[kind]) for kind in self._seconds}
        for name, op in spent.items():
            seconds, calls, weights = op.seconds, op.calls, op.weight_bytes
            if name in units:
                seconds, calls = seconds + self._seconds[name], calls + self._calls[name]
                weights += self._bytes[name]
            units[name] = self._told(seconds, calls, weights)
        other = self._whole - sum(unit["seconds"] for unit in units.values())
        units["other"] = self._told(max(0.0, other), self._passes, 0)
        return {"passes": self._passes, "seconds": self._whole, "units": units}

    def _told(self, seconds: float, calls: int, weights: int) -> dict[str, float]:
        return {
            "seconds": seconds,
            "share": seconds / self._whole if self._whole else 0.0,
            "calls": calls,
            "ms_a_pass": 1e3 * seconds / max(1, self._passes),
            "gb_a_second": weights / seconds / 1e9 if seconds else 0.0,
        }

    def _watch(self, module: nn.Module, kind: str) -> None:
        weights = weight_bytes(module)

        def before(*_: Any) -> None:
            self._begun[kind] = time.perf_counter()

        def after(*_: Any) -> None:
            seconds = time.perf_counter() - self._begun[kind]
            if kind:
                self._seconds[kind] += seconds
                self._calls[kind] += 1
                self._bytes[kind] += weights
            else:
                self._whole += seconds
                self._passes += 1

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)


def weight_bytes(module: nn.Module) -> int:
    """Memory of a module's weights, packed ones as they are."""
    packed = [each for each in module.modules() if isinstance(each, PackedModule)]
    return sum(each.prepared.num_bytes for each in packed) + sum(p.nbytes for p in module.parameters())
