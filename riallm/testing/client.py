"""A model that says what it was told to: the public seam for testing whatever speaks to a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from riallm.agent.client import INFILL, Capabilities, Context, EditScore, Infill
from riallm.code.edit import Edit
from riallm.core.errors import ClientError


class ScriptedClient:
    """Scores by a table of texts, infills by the text of the line that follows the hole's prefix.

    scores: text -> log-probability; others get `otherwise`. None: this model cannot score.
    infills: stripped original line -> fillings, likeliest first. None: this model cannot infill.
    edits: (old text, new text) of a file -> log-probability; others get `otherwise`. None: this model knows no edits.
    """

    def __init__(
        self,
        *,
        scores: Mapping[str, float] | None = None,
        infills: Mapping[str, Sequence[str]] | None = None,
        edits: Mapping[tuple[str, str], float] | None = None,
        originals: Mapping[str, str] | None = None,
        otherwise: float = -20.0,
    ) -> None:
        self._scores, self._infills, self._edits, self._otherwise = scores, infills, edits, otherwise
        self._originals = dict(originals or {})
        self.capabilities = Capabilities(
            name="scripted", score=scores is not None, infill=infills is not None, edits=edits is not None
        )
        self.asked: list[Context] = []

    def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        if self._scores is None:
            raise ClientError("this scripted model cannot score")
        self.asked.append(context)
        return [self._scores.get(text, self._otherwise) for text in continuations]

    def infill(self, context: Context, *, num: int, max_chars: int = 120, seed: int = 0) -> list[Infill]:
        if self._infills is None:
            raise ClientError("this scripted model cannot infill")
        self.asked.append(context)
        whole = self._originals.get(context.path, "")
        hole = whole[len(context.prefix) : len(whole) - len(context.suffix)].strip()
        texts = [text for text in self._infills.get(hole, ()) if len(text) <= max_chars][:num]
        return [Infill(text, -1.0 - index) for index, text in enumerate(texts)]

    def score_edits(self, text: str, edits: Sequence[Edit]) -> list[EditScore]:
        if self._edits is None:
            raise ClientError("this scripted model knows no edits")
        values = [self._edits.get((edit.original, edit.text), self._otherwise) for edit in edits]
        return [EditScore(place=0.0, text=value) for value in values]

    def propose_edits(
        self, path: str, text: str, line: int, *, num: int, suspicion: Mapping[int, float] | None = None
    ) -> list[Edit]:
        if self._edits is None:
            raise ClientError("this scripted model knows no edits")
        return [
            Edit(
                path=path,
                start=text.index(old),
                original=old,
                text=new,
                line=text[: text.index(old)].count("\n") + 1,
                operator=INFILL,
                prior=math.exp(value),
            )
            for (old, new), value in sorted(self._edits.items(), key=lambda item: -item[1])
            if old in text
        ][:num]
