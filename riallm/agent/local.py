"""A model in this process as a client: fills holes, and says of edits how likely they are.

The libraries that it needs are an extra, and are imported when one is opened.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.agent.client import Capabilities, Context, EditScore, Infill
from riallm.agent.passage import Change, Passage, change, edit_of, olds, passage, spans
from riallm.code.edit import Edit
from riallm.code.source import Source
from riallm.core.errors import UsageError

if TYPE_CHECKING:
    from riallm.engine.prefix import Prefix
    from riallm.models.ria import RIA
    from riallm.tokenizer.hybrid import HybridTokenizer

ANSWER_TOKENS = 72
"""Left free for an answer behind what is shown."""

STARTS = 8
"""Lines of a passage that the wrong ones may begin with."""

PLACES = 16
"""Lines of a passage, one or several, whose mendings are asked for."""

STRAY = 0.1
"""Suspicion of a line that no red test ran."""

SUFFIX_SHARE = 0.3
"""Of what is shown around a hole, the part behind it."""


class LocalClient:
    """A RIA model from its folder. Nothing is kept between calls but the parsed text of the last file."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError without the extra libraries, CheckpointError for a damaged folder."""
        # oneDNN keeps what it prepared for every shape that it met: hundreds of megabytes for ours, few of which come
        # again. It reads this when torch is loaded.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
        try:
            import torch

            from riallm.models.load import TOKENIZER, load_ria
            from riallm.tokenizer.saved import load
        except ImportError as error:
            raise UsageError(
                f"--model {folder.name} needs more than the core: {error}. Run: pip install 'riallm[models]', or use "
                "--model ngram"
            ) from None
        self._model: RIA = load_ria(folder, dtype=torch.bfloat16).to(torch.bfloat16)
        self._tokenizer: HybridTokenizer = load(folder / TOKENIZER)
        self._room = self._model.config.max_position_embeddings - ANSWER_TOKENS
        self._last: tuple[str, str, Source] | None = None
        self.capabilities = Capabilities(name=folder.name, score=True, infill=True, edits=True)

    def _source(self, path: str, text: str) -> Source:
        if self._last is None or self._last[:2] != (path, text):
            self._last = (path, text, Source.parse(path, text.encode("utf-8", "surrogatepass")))
        return self._last[2]

    def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
        """Natural log-probability of each text standing in the hole and being all of it."""
        from riallm.engine.prefix import read, score
        from riallm.tokenizer.special import END_OF_TEXT

        end = self._tokenizer.special(END_OF_TEXT)
        rows = [[*ids, end] for ids in self._tokenizer.encode_batch(continuations)]
        return score(self._model, read(self._model, self._hole(context)), rows)

    def infill(self, context: Context, *, num: int, max_chars: int = 120, seed: int = 0) -> list[Infill]:
        """The likeliest fillings by beam search; the seed changes nothing."""
        from riallm.engine.prefix import read
        from riallm.engine.sampler import beam
        from riallm.tokenizer.special import END_OF_TEXT

        ends = {self._tokenizer.special(END_OF_TEXT)}
        prefix = read(self._model, self._hole(context))
        found = beam(self._model, prefix, num=num, max_tokens=ANSWER_TOKENS, ends=ends)
        texts = [(self._tokenizer.decode(row.ids), row.log_prob) for row in found if row.finished]
        return [Infill(text, log_prob) for text, log_prob in texts if len(text) <= max_chars]

    def _hole(self, context: Context) -> list[int]:
        """Tokens that ask for the hole: as much of both sides as there is room for, in whole tokens. What stands before
        it comes last, so that a small model need not look back for what it continues."""
        special = self._tokenizer.special
        head = self._tokenizer.valued("file", context.path)
        room = self._room - len(head) - 3
        # No token is longer than 16 characters on average; what lies further away cannot be shown.
        before, after = self._tokenizer.encode_batch((context.prefix[-16 * room :], context.suffix[: 16 * room]))
        behind = min(len(after), max(int(SUFFIX_SHARE * room), room - len(before)))
        before = before[max(0, len(before) - (room - behind)) :]
        return [
            *head,
            special("<|fim_suffix|>"),
            *after[:behind],
            special("<|fim_prefix|>"),
            *before,
            special("<|fim_middle|>"),
        ]

    def _fits(self, text: str) -> bool:
        return len(self._tokenizer.encode(text)) <= self._room - 40  # for the marker of the file

    def _shown(self, shown: Passage) -> tuple[Prefix, float]:
        """The passage, read up to where old lines are asked for, and the log-probability that there are any."""
        from riallm.engine.prefix import choose, extended, read

        special = self._tokenizer.special
        head = self._tokenizer.valued("file", shown.path)[-36:]
        text = self._tokenizer.encode(shown.text.rstrip("\n"))[: self._room - 40]
        behind = read(self._model, [*head, special("<|code_start|>"), *text, special("<|code_end|>")])
        wrong, _ = choose(self._model, behind, [[special("<|old|>")], [special("<|edit_end|>")]])
        prefix, _ = extended(self._model, behind, [special("<|old|>")])
        return prefix, wrong

    def score_edits(self, text: str, edits: Sequence[Edit]) -> list[EditScore]:
        """See `Client.score_edits`; an edit that cannot be shown gets the least that another one has."""
        found: dict[int, EditScore] = {}
        known: dict[tuple[str, int], Passage] = {}
        passages: dict[Passage, dict[str, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
        for index, edit in enumerate(edits):
            place = edit.path, edit.line
            if place not in known:  # whether it fits is a matter of tokens, and many edits share a line
                known[place] = passage(self._source(edit.path, text), edit.line, self._fits)
            shown = known[place]
            made = change(shown, edit)
            if made is not None:
                passages[shown][made.old].append((index, made.new))
        for shown, groups in passages.items():
            found |= self._score_passage(shown, groups)
        least = EditScore(
            place=min((value.place for value in found.values()), default=0.0),
            text=min((value.text for value in found.values()), default=0.0),
        )
        return [found.get(index, least) for index in range(len(edits))]

    def _score_passage(self, shown: Passage, groups: dict[str, list[tuple[int, str]]]) -> dict[int, EditScore]:
        """Whether anything is wrong; which lines, of those that may be meant; what they become, of the edits that are
        asked about. So neither the length of a line nor how well the model copies counts."""
        prefix, wrong = self._shown(shown)
        found: dict[int, EditScore] = {}
        places = self._chosen(prefix, sorted({*olds(shown), *groups}), "<|new|>")
        for old, news in groups.items():
            texts = self._texts(prefix, old, sorted({new for _, new in news}))
            found |= {index: EditScore(place=wrong + places[old], text=texts[new]) for index, new in news}
        return found

    def _answer(self, text: str, end: str) -> list[int]:
        return [*self._tokenizer.encode(text)[:ANSWER_TOKENS], self._tokenizer.special(end)]

    def _chosen(self, prefix: Prefix, texts: Sequence[str], end: str) -> dict[str, float]:
        """text -> log-probability among the texts; such as are alike as far as answers go have one together."""
        from riallm.engine.prefix import choose

        rows = [tuple(self._answer(text, end)) for text in texts]
        options = sorted(set(rows))
        values = dict(zip(options, choose(self._model, prefix, options), strict=True))
        return {text: values[row] for text, row in zip(texts, rows, strict=True)}

    def weigh(self, shown: Passage) -> tuple[float, dict[str, float]]:
        """Log-probability that anything in the passage is wrong; and of each of its lines (`passage.olds`), if so."""
        prefix, wrong = self._shown(shown)
        return wrong, self._chosen(prefix, olds(shown), "<|new|>")

    def become(self, shown: Passage, old: str, news: Sequence[str]) -> dict[str, float]:
        """Log-probability of each of the texts to replace the wrong lines `old`, if one of them does."""
        return self._texts(self._shown(shown)[0], old, news)

    def _texts(self, prefix: Prefix, old: str, news: Sequence[str]) -> dict[str, float]:
        from riallm.engine.prefix import extended

        place, _ = extended(self._model, prefix, self._answer(old, "<|new|>"))
        return self._chosen(place, news, "<|edit_end|>")

    def propose_edits(
        self, path: str, text: str, line: int, *, num: int, suspicion: Mapping[int, float] | None = None
    ) -> list[Edit]:
        """See `Client.propose_edits`. Which lines are wrong is asked of lines that are there, so none is invented; what
        they become is the work of one beam over the likeliest of them."""
        from riallm.engine.sampler import Start, beam

        source, end = self._source(path, text), self._tokenizer.special("<|edit_end|>")
        shown = passage(source, line, self._fits)
        prefix, wrong = self._shown(shown)
        first = source.line_of(shown.start)
        values = self._places(shown, prefix, {line - first: value for line, value in (suspicion or {}).items()})
        likeliest = sorted(values, key=lambda old: -values[old])[:PLACES]
        starts = [Start(ids=tuple(self._answer(old, "<|new|>")), log_prob=values[old]) for old in likeliest]
        edits = []
        for row in beam(self._model, prefix, num=num, max_tokens=ANSWER_TOKENS, ends={end}, starts=starts):
            if row.finished:
                made = Change(old=likeliest[row.start], new=self._tokenizer.decode(row.ids))
                edit = edit_of(source, shown, made, math.exp(wrong + row.log_prob))
                edits += [edit] if edit is not None else []
        return edits

    def _places(self, shown: Passage, prefix: Prefix, suspicion: Mapping[int, float]) -> dict[str, float]:
        """What may be wrong, one line or several -> its log-probability. suspicion: of lines of the passage, the first
        being 0; it counts as a probability."""
        lines = self._chosen(prefix, olds(shown), "<|new|>")
        for old in lines:
            line = shown.text.count("\n", 0, shown.text.index(old) + len(old))
            lines[old] += math.log(suspicion.get(line, STRAY)) if suspicion else 0.0
        found: dict[str, float] = {}
        for old in sorted(lines, key=lambda old: -lines[old])[:STARTS]:
            longer = [each for each in spans(shown, old) if len(self._tokenizer.encode(each)) <= ANSWER_TOKENS]
            how = self._chosen(prefix, longer, "<|new|>") if longer else {}
            found |= {each: lines[old] + value for each, value in how.items()}
        return found
