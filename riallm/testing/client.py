"""A model that says what it was told to: the public seam for testing whatever speaks to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from riallm.agent.client import Capabilities, Context, Infill
from riallm.core.errors import ClientError


class ScriptedClient:
    """Scores by a table of texts, infills by the text of the line that follows the hole's prefix.

    scores: text -> log-probability; others get `otherwise`. None: this model cannot score.
    infills: stripped original line -> fillings, likeliest first. None: this model cannot infill.
    """

    def __init__(
        self,
        *,
        scores: Mapping[str, float] | None = None,
        infills: Mapping[str, Sequence[str]] | None = None,
        originals: Mapping[str, str] | None = None,
        otherwise: float = -20.0,
    ) -> None:
        self._scores, self._infills, self._otherwise = scores, infills, otherwise
        self._originals = dict(originals or {})
        self.capabilities = Capabilities(name="scripted", score=scores is not None, infill=infills is not None)
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
