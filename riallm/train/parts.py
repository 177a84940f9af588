"""Which parts of a model train, and from when on: a value of a run's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from torch import nn

from riallm.core.errors import UsageError

WRITING = ("memory_attention.*",)
"""Of a model with a memory: what writes it."""

READING = (*WRITING, "layers.*.read_attn.*", "layers.*.read_norm.*", "layers.*.slot_norm.*")
"""And what the decoder reads it with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trains:
    """From the share `begin` of a run on, those parameters train whose names match one of `parts`, and no others. A
    part is a pattern of names, for instance "memory_attention.*"; "*" is everything."""

    begin: float = 0.0
    parts: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if not 0.0 <= self.begin < 1.0 or not self.parts:
            raise UsageError(
                f"trains: begin is a share of the run, in [0, 1), and parts name at least one; got {self.begin} and "
                f"{self.parts}"
            )


class Parts:
    """The parameters of one model as a run trains them. Without any `Trains` nothing is touched."""

    def __init__(self, model: nn.Module, trains: Sequence[Trains]) -> None:
        """Raises UsageError for a part that names no parameter, and phases that do not begin one after the other from
        0 on."""
        begins = [phase.begin for phase in trains]
        if trains and (begins[0] != 0.0 or any(one >= other for one, other in pairwise(begins))):
            raise UsageError(f"trains: phases begin at {begins}; expected 0 first, and each later than the one before")
        self._parameters = dict(model.named_parameters())
        self._found = {name: parameter.requires_grad for name, parameter in self._parameters.items()}
        self._phases = [(phase.begin, self._named(phase.parts)) for phase in trains]

    def _named(self, parts: Sequence[str]) -> frozenset[str]:
        found: set[str] = set()
        for part in parts:
            names = [name for name in self._parameters if fnmatchcase(name, part)]
            if not names:
                known = sorted({name.split(".")[0] for name in self._parameters})
                raise UsageError(
                    f"trains: no parameter is called '{part}'; names begin with {', '.join(known)}, and '*' stands for "
                    "any rest"
                )
            found.update(names)
        return frozenset(found)

    def ever(self) -> None:
        """Have all those train that some phase trains: for making optimisers."""
        if self._phases:
            self._set(frozenset[str]().union(*(names for _, names in self._phases)))

    def at(self, elapsed: float) -> None:
        """Have those train whose phase it is at the elapsed share of the run."""
        if self._phases:
            self._set([names for begin, names in self._phases if begin <= elapsed][-1])

    def leave(self) -> None:
        """As they were before the run."""
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(self._found[name])

    def _set(self, names: frozenset[str]) -> None:
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in names)
