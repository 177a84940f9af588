"""The Python surface of the Reactive Transformer's document: a model that keeps its conversation, under the names that
the document's quick start has.

Underneath is `engine.conversation.Session`, which has the memory as a value and forks; `session` gives it. Here the
memory is the model's own, one conversation or a batch of them, and what cannot be honoured is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, TypeVar

from riallm.core.errors import UsageError
from riallm.core.shipped import folder_of, home, names

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from riallm.engine.conversation import Session
    from riallm.engine.turn import Step
    from riallm.models.rxt import RxT
    from riallm.tokenizer.hybrid import HybridTokenizer
    from riallm.tokenizer.stream import StreamDecoder

UPDATE_BEGINS, UPDATE_DONE = -1, -2
"""What `interact` yields behind an answer, in the place of tokens."""
NOTES = {UPDATE_BEGINS: "\n[memory update begins]\n", UPDATE_DONE: "[memory updated]\n"}
TOKENIZER = "tokenizer.json"
Thinking = Literal["fast", "extended"]
T = TypeVar("T")


def load_tokenizer_from_hf_hub(name: str | Path) -> HybridTokenizer:
    """The tokenizer of a model that comes with us, by name, or of a folder. Nothing is downloaded."""
    inside = Path(name) / TOKENIZER
    return load_tokenizer_from_file(inside if inside.is_file() else _folder(name) / TOKENIZER)


def load_tokenizer_from_file(path: str | Path) -> HybridTokenizer:
    """The tokenizer of a file. Raises UsageError when there is none, or it has no markers of interactions,
    CheckpointError when it is damaged or of another program."""
    from riallm.tokenizer import saved
    from riallm.tokenizer.interaction import markers

    found = saved.load(Path(path))
    markers(found)
    return found


class Tokens(TypedDict):
    """Both (B, T): ids, and 1 where they are no padding."""

    input_ids: Tensor
    attention_mask: Tensor


class RxTBeta:
    """A model and the conversation that it is in. B rows: one, or as many as `set_batch_mode` says."""

    def __init__(self, model: RxT, tokenizer: HybridTokenizer) -> None:
        """Raises UsageError for a tokenizer without markers, or with more tokens than the model has."""
        self.model = model
        self._batched = False
        self._restart(1, ends=())
        self.set_tokenizer(tokenizer)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, tokenizer: HybridTokenizer | None = None) -> Self:
        """A model that comes with us, by name, or of a folder; tokenizer: None takes the one beside the weights.

        Raises UsageError for a name that is not known, CheckpointError for a model that is damaged or no RxT.
        """
        from riallm.models.load import load_rxt

        folder = _folder(name)
        model = load_rxt(folder)
        return cls(model, load_tokenizer_from_file(folder / TOKENIZER) if tokenizer is None else tokenizer)

    def share_components(self) -> None:
        """Nothing: encoder and decoder of this model share their embedding, and there is one memory, from the start.
        The memory stays as it is."""

    def to(self, device: torch.device | str) -> Self:
        """Model and memory on another device. Raises UsageError for one that cannot be used here."""
        state = self.session.state
        self.model.to(_device(device))
        self.session.load(state)
        return self

    def set_tokenizer(self, tokenizer: HybridTokenizer) -> None:
        """The tokenizer that texts are read and answers shown with. Raises UsageError for one that does not fit."""
        from riallm.tokenizer.interaction import markers

        own = markers(tokenizer)
        if tokenizer.vocab_size > self.model.config.vocab_size:
            raise UsageError(
                f"this tokenizer has {tokenizer.vocab_size} tokens, the model {self.model.config.vocab_size}; take the "
                "one that lies beside its weights"
            )
        self.tokenizer, self._markers, self.session.ends = tokenizer, own, frozenset({own.end})
        self._streams: dict[tuple[int, bool], StreamDecoder] = {}

    # Texts

    def tokenize_full_interaction(
        self,
        query: str,
        answer: str,
        max_seq_len: int | None = None,
        device: torch.device | str = "cpu",
        *,
        think: str | None = None,
    ) -> Tokens:
        """`input_ids` and `attention_mask` (1, T) of a query with its answer, and reasoning between them. Raises
        UsageError where all of it is blank, and where it is more than `max_seq_len` or what the model takes, whichever
        is less (None: the latter): cut off, it would lose its end."""
        from riallm.tokenizer.interaction import interaction_ids

        _check_texts(query, answer, *([] if think is None else [think]))
        return self._padded([interaction_ids(self.tokenizer, query, answer, thought=think)], max_seq_len, device)

    def tokenize_query(self, text: str, max_seq_len: int | None = None, device: torch.device | str = "cpu") -> Tokens:
        """As `tokenize_full_interaction`, of a query that `interact` answers, which is not blank."""
        return self.tokenize_batch([text], max_seq_len, device)

    def tokenize_batch(
        self, texts: Sequence[str], max_seq_len: int | None = None, device: torch.device | str = "cpu"
    ) -> Tokens:
        """As `tokenize_query`, of B queries: (B, T), shorter ones filled up on the right."""
        from riallm.tokenizer.interaction import query_ids

        if isinstance(texts, str) or not isinstance(texts, Collection):
            raise UsageError(f"got {texts!r}, expected a list of texts; for a single one there is tokenize_query")
        for text in texts:
            _check_texts(text)
        return self._padded([query_ids(self.tokenizer, text) for text in texts], max_seq_len, device)

    def stringify_token(self, token_id: int, skip_special_tokens: bool = True, show_memory_update: bool = False) -> str:
        """The text that is sure with this token of an answer, which may be none inside a character, so that the texts
        of all tokens in a row are whole. -1 and -2: what was held back, and with `show_memory_update` a note."""
        return self._said(0, int(token_id), skip_special_tokens, show_memory_update)

    def stringify_tokens(self, token_ids: Sequence[int] | Tensor, skip_special_tokens: bool = True) -> str:
        """The text of a whole answer (T,); -1 and -2 are no text."""
        ids = [int(token) for token in token_ids]
        return self.tokenizer.decode([token for token in ids if token not in NOTES], specials=not skip_special_tokens)

    def stringify_batch(
        self, token_ids: Tensor, skip_special_tokens: bool = True, show_memory_update: bool = False
    ) -> list[str]:
        """A text for each row: of a step (B,) as `stringify_token`, of whole rows (B, T) as `stringify_tokens`."""
        rows = token_ids.tolist()
        if token_ids.ndim == 1:
            told = (skip_special_tokens, show_memory_update)
            return [self._said(number, token, *told) for number, token in enumerate(rows)]
        return [self.stringify_tokens(row, skip_special_tokens) for row in rows]

    # The memory

    def init_stm_state(
        self, input_ids: Tensor, attention_mask: Tensor, *, add_noise: float = 0.0, force: bool = False
    ) -> None:
        """Write whole interactions (B, T), one a row, into the memory, and return when that is done. Raises UsageError
        for noise and `force`, which belong to training."""
        if add_noise or force:
            raise UsageError("the memory is written as it is in a conversation: leave add_noise and force as they are")
        self.session.tell_rows(_rows(input_ids, attention_mask))
        self.session.wait()

    update_stm = init_stm_state

    def reset_stm_state(self, *, seed: int = 0) -> None:
        """Forget the conversation: a memory as it is before one, where it is drawn by `seed`."""
        self.session.load(self.model.start(self.session.num_rows, seed=seed))

    def export_stm_state(self) -> Tensor:
        """(L, B, S, D): a copy of the memory, every bit of it. How many interactions are in it does not go with it:
        `load_stm_state` counts from 0. `session.state` has both, and is saved and loaded with both."""
        return self.session.state.slots.clone()

    def load_stm_state(self, stm_state: Tensor) -> None:
        """Go on from a memory (L, B, S, D). Raises UsageError for another shape or type, and for what is no number."""
        from riallm.nn.memory_state import MemoryState

        _check_tensors("export_stm_state", stm_state=stm_state)
        self.session.load(MemoryState(slots=stm_state.detach().clone(), model=self.model.fingerprint))

    def set_batch_mode(self, use_batch_mode: bool, batch_size: int | None = None) -> None:
        """From now on hold `batch_size` conversations side by side, or one; they begin anew."""
        if not isinstance(use_batch_mode, bool):
            raise UsageError(f"use_batch_mode is {use_batch_mode!r}; it is True or False")
        if use_batch_mode != (batch_size is not None) or (batch_size is not None and batch_size < 1):
            raise UsageError(f"batch_size is {batch_size}; it is at least 1 with batch mode, and not given without")
        self._batched = use_batch_mode
        self._restart(batch_size or 1, ends=self.session.ends)

    # Answers

    def interact(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        max_seq_len: int | None = None,
        *,
        seed: int | None = None,
        thinking_mode: Thinking = "fast",
        use_self_attn_cache: bool = True,
    ) -> Iterator[int]:
        """The answer to a query (1, T), token by token, its end included; then -1 as the memory begins to be written,
        in another thread, and -2 when it is. It is written all the same when nobody reads on.

        max_seq_len: at most so many tokens of query and answer together, and never more than the model takes. seed:
        None gives another answer every time. thinking_mode: "extended" reasons before it answers: only for a model
        that was trained to, which nothing in its folder tells. rxt-nano was not: it answers, and remembers, what makes
        no sense. Raises UsageError for what cannot be honoured, at the call, ClientError where an update failed.
        """
        if self._batched:
            raise UsageError("the model is in batch mode; use batch_interact, or set_batch_mode(False)")
        rows = self._prompts(input_ids, attention_mask, thinking_mode, use_self_attn_cache)
        if len(rows) != 1:
            raise UsageError(f"{len(rows)} queries; interact answers one. Use set_batch_mode and batch_interact")
        told = _told(temperature, top_k, top_p, self._room(max_seq_len), seed)
        reply = self.session.ask(rows[0], **told)
        self._streams.clear()
        return _behind(reply, self.session, UPDATE_BEGINS, UPDATE_DONE)

    def batch_interact(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        max_seq_len: int | None = None,
        *,
        seed: int | None = None,
        thinking_mode: Thinking = "fast",
        use_self_attn_cache: bool = True,
    ) -> Iterator[Tensor]:
        """As `interact`, for a query of each conversation (B, T): vectors (B,), in which a row that is over has the pad
        token, and in the end one of -1 and one of -2. Row r draws by `seed` + r."""
        rows = self._prompts(input_ids, attention_mask, thinking_mode, use_self_attn_cache)
        told = _told(temperature, top_k, top_p, self._room(max_seq_len), seed)
        steps = self._steps(rows, told)
        return (
            input_ids.new_tensor([self._markers.pad if token is None else token for token in step]) for step in steps
        )

    def batch_interactions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        max_seq_len: int | None = None,
        *,
        seed: int | None = None,
        thinking_mode: Thinking = "fast",
        return_interactions_with_queries: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """All answers of `batch_interact`, once the memory is written: ids (B, T), filled up with the pad token, and
        mask (B, T). With queries: whole interactions, as they were written."""
        rows = self._prompts(input_ids, attention_mask, thinking_mode, True)
        made = [list(row) if return_interactions_with_queries else [] for row in rows]
        for step in self._steps(rows, _told(temperature, top_k, top_p, self._room(max_seq_len), seed)):
            for row, token in zip(made, step, strict=True):
                if token is not None and token not in NOTES:
                    row.append(token)
        found = self._padded(made, None, input_ids.device)
        return found["input_ids"], found["attention_mask"]

    def _steps(self, rows: list[list[int]], told: dict[str, Any]) -> Iterator[Step]:
        """Of all conversations, the marks of the update included."""
        num = self.session.num_rows
        reply = self.session.ask_rows(rows, **told)
        self._streams.clear()
        return _behind(reply, self.session, (UPDATE_BEGINS,) * num, (UPDATE_DONE,) * num)

    def _restart(self, num_rows: int, *, ends: Collection[int]) -> None:
        from riallm.engine.conversation import Session

        self.session = Session(self.model, self.model.start(num_rows), ends=ends)

    def _prompts(self, input_ids: Tensor, attention_mask: Tensor, mode: str, cached: bool) -> list[list[int]]:
        """The queries, and behind each the marker of what the model goes on with."""
        follows = {"fast": self._markers.answer, "extended": self._markers.think}
        if mode not in follows:
            raise UsageError(f"thinking_mode is {mode!r}; there are {', '.join(follows)}: it is you who decides")
        if not cached:
            raise UsageError("use_self_attn_cache is always on: without it answers are the same, only later")
        return [[*row, follows[mode]] for row in _rows(input_ids, attention_mask)]

    def _said(self, row: int, token: int, skip: bool, show: bool) -> str:
        from riallm.tokenizer.stream import StreamDecoder

        if (row, skip) not in self._streams:
            self._streams[row, skip] = StreamDecoder(self.tokenizer, specials=not skip)
        stream = self._streams[row, skip]
        if token in NOTES:
            return stream.finish() + (NOTES[token] if show else "")
        return stream.push(token)

    def _room(self, max_seq_len: int | None) -> int:
        """Tokens of query and answer together. What is given is a maximum: the quick start gives its own model's."""
        limit = self.model.config.max_interaction
        if max_seq_len is not None and max_seq_len < 1:
            raise UsageError(f"max_seq_len is {max_seq_len}; it is at least 1, query and answer together")
        return limit if max_seq_len is None else min(max_seq_len, limit)

    def _padded(self, rows: Sequence[Sequence[int]], max_seq_len: int | None, device: torch.device | str) -> Tokens:
        import torch

        device = _device(device)
        room, longest = self._room(max_seq_len), max(map(len, rows), default=0)
        if not 0 < longest <= room:
            raise UsageError(f"{longest} tokens; there is room for 1 to {room}, query and answer together")
        ids = [[*row, *[self._markers.pad] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }


class RxTAlpha(RxTBeta):
    """The document's earlier class: the same here, since what tells them apart is the tokens of the templates."""


def _check_texts(*texts: str) -> None:
    """Raises UsageError for what is no text, and unless one of them says something."""
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"got {type(text).__name__}, expected text: a str; several are for tokenize_batch")
    if not any(text.strip() for text in texts):
        raise UsageError(f"{texts[0]!r} says nothing; give text that is not blank")


def _check_tensors(source: str, **given: Tensor) -> None:
    """Raises UsageError for what is no tensor."""
    import torch

    for name, value in given.items():
        if not isinstance(value, torch.Tensor):
            raise UsageError(f"{name} is of type {type(value).__name__}; expected a tensor, as {source} gives it")


def _rows(input_ids: Tensor, attention_mask: Tensor) -> list[list[int]]:
    """The tokens of each row (B, T) that its mask (B, T) keeps, at least one."""
    from riallm.models.rxt import truths

    _check_tensors("tokenize_query", input_ids=input_ids, attention_mask=attention_mask)
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape or input_ids.is_floating_point():
        raise UsageError(
            f"input_ids {tuple(input_ids.shape)} and attention_mask {tuple(attention_mask.shape)}; expected integers "
            "of the same shape (rows, tokens), as the tokenize methods give them"
        )
    kept = truths(attention_mask, input_ids.shape)
    found: list[list[int]] = [ids[mask].tolist() for ids, mask in zip(input_ids, kept, strict=True)]
    if not all(found):
        raise UsageError("a row of attention_mask keeps no token; every conversation says something")
    return found


def _device(device: torch.device | str) -> torch.device:
    """Raises UsageError for one that cannot be used here."""
    from riallm.engine.auto import device_named

    return device_named(str(device))


def _told(
    temperature: float, top_k: int | None, top_p: float | None, max_seq_len: int, seed: int | None
) -> dict[str, Any]:
    """As a session is asked."""
    return {
        "temperature": temperature,
        "top_k": 0 if top_k is None else top_k,
        "top_p": 1.0 if top_p is None else top_p,
        "max_length": max_seq_len,
        "seed": seed,
    }


def _behind(reply: Iterator[T], session: Session, begins: T, done: T) -> Iterator[T]:
    """The answer, and the two marks of its update. Who stops early closes the reply, and so it is written."""
    yield from reply
    yield begins
    session.wait()
    yield done


def _folder(name: str | Path) -> Path:
    if not any((place / "config.json").is_file() for place in (home() / name, Path(name))):
        raise UsageError(
            f"no model {str(name)!r}: it is no folder with a config.json, and no name. Shipped models: "
            f"{', '.join(names()) or 'none'}. Nothing is downloaded here: fetch it, then give its folder"
        )
    return folder_of(str(name))
