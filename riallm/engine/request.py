"""What is asked of the engine and what it answers: plain values that cross threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from riallm.core.errors import UsageError
from riallm.nn.adapter import Adapter
from riallm.nn.memory_state import MemoryState
from riallm.nn.meta import TokenMeta

Finish = Literal["stop", "length", "cancelled", "error"]
"""stop: an end token, a stop string, or a grammar that is complete. length: max_tokens, the context, or the seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn. temperature 0: the likeliest one. top_k 0: all. min_p: of the likeliest one's share.

    repetition_penalty divides positive logits and multiplies negative ones of tokens that the prompt or the answer
    has; presence and frequency penalties are subtracted for tokens of the answer, as OpenAI has them. logit_bias is
    added. seed None: another one every time. The order: bias, penalties, temperature, top_k, top_p, min_p.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("temperature", 0.0, 100.0),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("presence_penalty", -2.0, 2.0),
            ("frequency_penalty", -2.0, 2.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; it lies between {low:g} and {high:g}")
        for name in ("top_p", "repetition_penalty"):
            if not getattr(self, name) > 0.0:
                raise UsageError(f"{name} is {getattr(self, name)}; it is above 0")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}; it is at least 0 (0: all tokens)")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it is at least 0, or none at all")


class Grammar(Protocol):
    """What an answer must be: a JSON schema, a regular expression, a grammar; one value for one request."""

    def allowed(self) -> bytes:
        """One bit a token of the vocabulary, the first in the lowest bit of the first byte: what may come next."""
        ...

    def accept(self, token: int) -> None:
        """Go on with a token that is allowed."""
        ...

    @property
    def complete(self) -> bool:
        """Whether nothing more may come."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interaction:
    """What a model with a memory does with a request. memory: what it is answered from, as soon as that is there; None:
    a new conversation's. after: is given the memory behind the answer, and runs from the moment that the answer is
    complete; None: nothing is written. row: the tokens to write, of the answer's text and of the interaction's tokens
    as they were; None: these.
    """

    memory: Future[MemoryState] | None = None
    after: Future[MemoryState] | None = None
    row: Callable[[str, tuple[int, ...]], Sequence[int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """ids: the prompt, at least one token. meta: the record of its tokens, default one file; the answer belongs to the
    file of the last one. ends: tokens that end the answer and are not part of it; stop: texts that do. logprobs: so
    many alternatives are told with every token, None for nothing. seconds: longest time from the first token on.
    store: whether a recorder hears of it. interaction: for a model with a memory; None: a new one, and nothing of it
    stays.
    """

    ids: tuple[int, ...]
    max_tokens: int
    meta: TokenMeta | None = None
    sampling: Sampling = field(default_factory=Sampling)
    ends: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    grammar: Grammar | None = None
    seconds: float | None = None
    store: bool = True
    interaction: Interaction | None = None

    def __post_init__(self) -> None:
        if not self.ids:
            raise UsageError("a prompt needs at least one token")
        if self.max_tokens < 0:
            raise UsageError(f"max_tokens is {self.max_tokens}; it is at least 0 (0: only read the prompt)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token of the answer; logprob and the likeliest alternatives (id, logprob) are of the model's own distribution,
    before temperature and all else of `Sampling`."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of a finished request. cached_tokens: of the prompt's, those that were found read already. drafted_tokens: that
    were proposed ahead, and accepted_tokens: those of them that stood. Seconds: waiting for its turn, reading the
    prompt, writing the answer."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    waiting_seconds: float = 0.0
    prompt_seconds: float = 0.0
    completion_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of an answer. text: what can be told now, never half a character nor what may become a stop string.
    tokens: those that came since the last piece. finish: in the last piece, with the usage; `error` says what failed
    when that is the reason."""

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finished:
    """A request that is over, however it ended. ids: of the answer, as far as it came. adapter: name and version of the
    one that it was answered with.

    taps: by number of layer the hidden states (T, D) behind the prompt's last token and then behind each token of the
    answer, so that row j is what token j was drawn from; on the processor, in the model's type. The last token was read
    only where the model went on and drew an end, so T is the number of `ids`, or one more. Empty where nothing was
    drawn.
    """

    request: Request
    ids: tuple[int, ...]
    finish: Finish
    usage: Usage
    adapter: tuple[str, int] | None
    taps: Mapping[int, Tensor]


class Recorder(Protocol):
    """Who hears of finished requests: a learner, or whoever keeps a record."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers whose hidden states it wants, the same at all times; they are held in memory until the
        request is over. Where there are any, every pass goes through the modules, not through one compiled call."""
        ...

    def record(self, finished: Finished) -> None:
        """One more is over; also those that were cancelled or failed, which `finish` tells, but none whose `store` is
        False. The engine's thread calls it once whoever asked has the last piece, and computes nothing meanwhile: put
        it into a queue and return. What it raises is logged, and that request is lost to it."""
        ...


class Ticket(Protocol):
    """A request that was taken on. Safe to use from another thread than the engine's."""

    def next(self, seconds: float | None = None) -> Delta | None:
        """The next piece, or None when none came within `seconds`; after the one with `finish` there is no further."""
        ...

    def notify(self, call: Callable[[], object]) -> None:
        """`call()` whenever a piece is there, from the engine's thread: how an event loop waits without a thread."""
        ...

    def cancel(self) -> None:
        """Nobody wants the answer any more; its memory is free with the next step. The last piece says `cancelled`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What an engine is doing now. Pages are of `paged.PAGE` tokens; cached ones are free but still hold a prefix. Of a
    model with a memory a page is the place of one conversation."""

    running: int
    waiting: int
    pages: int
    pages_used: int
    pages_cached: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    preemptions: int
    tokens_per_second: float


class Engine(Protocol):
    """A model that serves many requests at once. Safe to use from any thread."""

    name: str
    context: int
    vocab_size: int

    def submit(self, request: Request) -> Ticket:
        """Take on a request. Raises UsageError for one that can never fit (and says by how much), `BudgetError` when
        too many wait."""
        ...

    def publish(self, adapter: Adapter | None) -> None:
        """Answer what is submitted from now on with this adapter, of which a copy is made, or with none. Requests that
        were submitted before keep theirs to their end, so that each version in use costs a pass of its own a step, and
        one with an adapter goes through the modules, not through one compiled call. Raises UsageError for one that does
        not fit the model, and everything stays as it was."""
        ...

    def embed(self, prompts: list[list[int]]) -> list[list[float]]:
        """The mean of each prompt's hidden states, of length 1. Without any adapter: vectors are kept and compared for
        longer than a version lives."""
        ...

    def load(self) -> Load:
        """Figures for whoever watches."""
        ...

    def close(self, *, seconds: float = 0.0) -> None:
        """Take on nothing more, let what runs finish for so long, then cancel it and free everything."""
        ...
