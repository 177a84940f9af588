"""Where the time of a model goes: seconds of every kind of unit, and the bytes of weights that went through it."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from torch import nn

from riallm.models.decoder import Decoder
from riallm.nn.linear import PackedModule


class Profiler:
    """Watches a model's units by hooks while it is open; a unit's time is that of its forward call."""

    def __init__(self, model: Decoder) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[str, int] = defaultdict(int)
        self._bytes: dict[str, int] = defaultdict(int)
        self._begun: dict[str, float] = {}
        self._passes, self._whole = 0, 0.0
        for unit in model.units():
            kind = unit.name.rsplit(".", 1)[-1]
            self._bytes[kind] += weight_bytes(unit.module)
            self._watch(unit.module, kind)
        self._watch(model, "")

    def summary(self) -> dict[str, Any]:
        """passes, their seconds, and for each kind of unit: seconds in all, their share, calls, milliseconds a pass,
        GB/s of weights. What no unit takes (residual sums, masks, rotary angles) is under "other"."""
        units = {
            kind: {
                "seconds": seconds,
                "share": seconds / self._whole if self._whole else 0.0,
                "calls": self._calls[kind],
                "ms_a_pass": 1e3 * seconds / max(1, self._passes),
                "gb_a_second": self._bytes[kind] * self._passes / seconds / 1e9 if seconds else 0.0,
            }
            for kind, seconds in self._seconds.items()
        }
        other = max(0.0, self._whole - sum(self._seconds.values()))
        share = other / self._whole if self._whole else 0.0
        units["other"] = {"seconds": other, "share": share, "ms_a_pass": 1e3 * other / max(1, self._passes)}
        return {"passes": self._passes, "seconds": self._whole, "units": units}

    def _watch(self, module: nn.Module, kind: str) -> None:
        def before(*_: Any) -> None:
            self._begun[kind] = time.perf_counter()

        def after(*_: Any) -> None:
            seconds = time.perf_counter() - self._begun[kind]
            if kind:
                self._seconds[kind] += seconds
                self._calls[kind] += 1
            else:
                self._whole += seconds
                self._passes += 1

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)


def weight_bytes(module: nn.Module) -> int:
    """Memory of a module's weights, packed ones as they are."""
    packed = [each for each in module.modules() if isinstance(each, PackedModule)]
    return sum(each.prepared.num_bytes for each in packed) + sum(p.nbytes for p in module.parameters())
