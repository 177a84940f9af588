"""The only way to a model. Proposers and rankers speak this; a language model, an n-gram or a server answers.

A client says in `capabilities` what it can do, and the agent works with less when something is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from riallm.code.edit import Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A hole in a file: what stands before it and after it.

    prefix, suffix: the file's text around the hole, whole; clients cut what they cannot use.
    path: relative to the project root, so that a client may know the file's relations.
    """

    path: str
    prefix: str
    suffix: str


@dataclass(frozen=True, slots=True)
class Infill:
    """One way to fill a hole; `logprob` is the natural logarithm of its probability."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EditScore:
    """What a model says of an edit, as natural log-probabilities. place: that these lines are wrong. text: that they
    become those, rather than what another one of the edits that it was asked about makes of them."""

    place: float
    text: float


INFILL = "infill"
"""The `operator` of an edit that a model wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a client offers. `name` goes into reports and audit records. edits: it was trained to mend code, and says
    of whole edits how likely they are."""

    name: str
    score: bool = False
    infill: bool = False
    edits: bool = False
    generate: bool = False
    embed: bool = False
    context_chars: int | None = None
    extras: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Client(Protocol):
    """Protocol of every model as the agent sees it. A method that `capabilities` denies raises ClientError."""

    @property
    def capabilities(self) -> Capabilities: ...

    def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        """Natural log-probability of each text standing in the hole, the suffix included where possible."""
        ...

    def infill(self, context: Context, *, num: int, max_chars: int = 120, seed: int = 0) -> list[Infill]:
        """Up to `num` distinct fillings, likeliest first."""
        ...

    def score_edits(self, text: str, edits: Sequence[Edit]) -> list[EditScore]:
        """What is to be said of each edit of a file whose text is `text`, given what stands around it."""
        ...

    def propose_edits(
        self, path: str, text: str, line: int, *, num: int, suspicion: Mapping[int, float] | None = None
    ) -> list[Edit]:
        """Up to `num` edits of the function around a line of a file, likeliest first; `prior` is the probability.
        suspicion: of lines of the file, where tests have said anything of them."""
        ...
