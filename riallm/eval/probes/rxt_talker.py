"""A model of the RxT family as somebody to talk to, by the same steps as its sessions. Needs the extra `models`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from riallm.core.errors import UsageError
from riallm.eval.probes.talk import Reply

if TYPE_CHECKING:
    from riallm.data.conversations.conversation import Turn
    from riallm.models.rxt import RxT
    from riallm.nn.memory_state import MemoryState
    from riallm.tokenizer.hybrid import HybridTokenizer

ANSWER_TOKENS = 24
"""Of an answer at most; an answer of these conversations has half of it, and a model that never ends is stopped."""


class RxTTalker:
    """See `Talker`; the memories are one `MemoryState`, a row a conversation."""

    def __init__(self, model: RxT, tokenizer: HybridTokenizer) -> None:
        """Raises UsageError for a tokenizer without markers, or with more tokens than the model has."""
        from riallm.tokenizer.interaction import markers

        self.model, self.tokenizer, self._markers = model, tokenizer, markers(tokenizer)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UsageError(
                f"this tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}; take the one "
                "that lies beside its weights"
            )

    def start(self, rows: int, *, seed: int) -> MemoryState:
        """See `Talker.start`."""
        return self.model.start(rows, seed=seed)

    def chosen(self, memory: MemoryState, rows: Sequence[int]) -> MemoryState:
        """See `Talker.chosen`."""
        return memory.rows(rows)

    def answer(self, queries: Sequence[str], memory: MemoryState, *, read: bool = True) -> list[Reply]:
        """See `Talker.answer`. Raises UsageError for a query that leaves no room for an answer."""
        from riallm.engine import turn as turns
        from riallm.engine.request import Sampling
        from riallm.tokenizer.interaction import query_ids

        own, limit = self._markers, self.model.config.max_interaction
        rows = [[*query_ids(self.tokenizer, query), own.answer] for query in queries]
        given = [len(row) for row in rows]
        if max(given) >= limit:
            raise UsageError(
                f"a question of {max(given)} tokens by this model's tokenizer; it takes {limit}, query and answer "
                "together, so it cannot be asked this"
            )
        limits = [min(limit, length + ANSWER_TOKENS) for length in given]
        turn = turns.Turn(
            self.model, memory, rows, Sampling(temperature=0.0), limits=limits, ends=(own.end,), read=read
        )
        while turn.step() is not None:
            pass
        texts = [
            self.tokenizer.decode(row[length:], specials=False) for row, length in zip(turn.rows, given, strict=True)
        ]
        return [Reply(*each) for each in zip(queries, texts, turn.rows, strict=True)]

    def nats(self, turns: Sequence[Turn], memory: MemoryState, *, read: bool = True) -> list[float]:
        """See `Talker.nats`. Raises UsageError for an interaction that is too long for the model."""
        import torch

        from riallm.data.conversations.tokens import interaction
        from riallm.engine.turn import side_by_side
        from riallm.nn.memory_state import Reading
        from riallm.nn.meta import TokenMeta

        rows = [interaction(self.tokenizer, turn) for turn in turns]
        tokens, mask = side_by_side([row.ids for row in rows], memory.slots.device)
        self.model.check_interaction(tokens)
        nothing = Reading(layers=(None,) * self.model.config.num_layers)
        with torch.inference_mode():
            state = self.model.open_turn(memory, self.model.reading(memory) if read else nothing, keep=False)
            hidden = self.model(tokens, TokenMeta.padded(mask), state).hidden
            found = []
            for row, (own, of) in enumerate(zip(rows, hidden, strict=True)):
                assert own.value is not None, "only what was told has a right value"
                begin, end = own.value
                log_probs = self.model.logits(of[begin - 1 : end - 1]).log_softmax(dim=-1)
                found.append(-log_probs.gather(1, tokens[row, begin:end, None]).sum())
        return [float(each) for each in found]

    def write(self, replies: Sequence[Reply], memory: MemoryState) -> MemoryState:
        """See `Talker.write`."""
        import torch

        from riallm.engine.turn import side_by_side

        tokens, mask = side_by_side([reply.ids for reply in replies], memory.slots.device)
        with torch.no_grad():
            return self.model.end_turn(tokens, mask, memory)
