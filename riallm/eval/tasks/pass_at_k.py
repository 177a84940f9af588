"""Functional correctness: how often one of k answers passes a problem's checks, with its uncertainty.

pass@k is estimated without bias from n >= k samples (Chen et al. 2021, section 2.1) and averaged over problems. A run
keeps one line a problem and goes on where it was stopped.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riallm.core.errors import UsageError
from riallm.eval.stats import Estimate, bootstrap, share
from riallm.eval.tasks.pass_judge import Outcome
from riallm.eval.tasks.pass_prompts import Problem, stopped, without_rest
from riallm.eval.tasks.repair_store import Results

if TYPE_CHECKING:
    from riallm.engine.prefix import Prefix

Row = dict[str, Any]

TOP_P = 0.95
BATCH = 16
"""Samples that are drawn side by side."""
CHUNK = 48
"""Tokens after which a single answer is looked at for its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """texts: one a sample, each cut at its end. cut: whether the prompt lost its left part; unfinished: samples that
    ran out of tokens."""

    texts: tuple[str, ...]
    cut: bool = False
    unfinished: int = 0


Writer = Callable[[Problem], Answers]


def pass_at_k(num: int, passed: int, k: int) -> float:
    """Chance that k of `num` samples, drawn without putting back, hold one of the `passed`: 1 - C(n-c, k) / C(n, k)."""
    if not 0 <= passed <= num or not 1 <= k <= num:
        raise ValueError(f"{passed} of {num} samples passed, k is {k}: 0 <= passed <= num and 1 <= k <= num must hold")
    return 1.0 - math.comb(num - passed, k) / math.comb(num, k)


def mean_pass(rows: Sequence[Row], k: int, *, seed: int) -> Estimate:
    """pass@k over problems with an interval of 95 %: a bootstrap over problems, or Wilson's where every problem has 0
    or 1, since resampling problems that are all alike would claim to know everything."""
    values = [pass_at_k(row["samples"], row["passed"], k) for row in rows]
    if set(values) <= {0.0, 1.0}:
        return share(sum(map(int, values)), len(values))
    return bootstrap(values, statistics.fmean, seed=seed)


def references(problem: Problem) -> Answers:
    """The control: the known answer, through the same stops as a model's."""
    text = stopped(problem.reference, problem.stops)
    return Answers(texts=(problem.reference if text is None else text,))


class ModelWriter:
    """Answers of a model in this process."""

    def __init__(self, folder: Path, *, samples: int, temperature: float, seed: int, answer_tokens: int) -> None:
        """Raises UsageError without the model's libraries, CheckpointError for a damaged folder."""
        try:
            import torch

            from riallm.models.load import TOKENIZER, load_ria
            from riallm.tokenizer.saved import load
        except ImportError as error:
            raise UsageError(f"models need more than the core: {error}. Run: pip install 'riallm[models]'") from None
        self._model = load_ria(folder, dtype=torch.bfloat16)
        self._tokenizer = load(folder / TOKENIZER)
        self._samples, self._temperature, self._seed = samples, temperature, seed
        context = self._model.config.max_position_embeddings
        self.answer_tokens = min(answer_tokens, context // 2)
        self._room = context - self.answer_tokens
        vocabulary = range(self._tokenizer.vocab_size)
        self._ends = {index for index in vocabulary if not self._tokenizer.is_ordinary(index)}

    def prompt_ids(self, problem: Problem) -> tuple[list[int], bool]:
        """The file's marker and as much of the prompt's right part as there is room for; whether it was cut."""
        head = self._tokenizer.valued("file", "solution.py")
        ids = self._tokenizer.encode(problem.prompt)
        room = self._room - len(head)
        if room < 1:
            raise UsageError(f"a context of {self._room + self.answer_tokens} tokens leaves no room for a prompt")
        return [*head, *ids[-room:]], len(ids) > room

    def __call__(self, problem: Problem) -> Answers:
        from riallm.engine.prefix import read
        from riallm.engine.sampler import sample

        ids, cut = self.prompt_ids(problem)
        prefix = read(self._model, ids)
        seed = zlib.crc32(f"{self._seed} {problem.id}".encode())
        if self._samples == 1:
            drawn = [self._single(prefix, problem, seed)]
        else:
            drawn = []
            for start in range(0, self._samples, BATCH):
                rows = sample(
                    self._model,
                    prefix,
                    num=min(BATCH, self._samples - start),
                    max_tokens=self.answer_tokens,
                    ends=self._ends,
                    temperature=self._temperature,
                    top_p=TOP_P,
                    seed=seed + start,
                )
                drawn += [(self._tokenizer.decode(row.ids), row.finished) for row in rows]
        texts, unfinished = [], 0
        for text, finished in drawn:
            whole = stopped(text, problem.stops)
            if whole is None:
                unfinished += not finished
                whole = text if finished else without_rest(text)
            texts.append(whole)
        return Answers(texts=tuple(texts), cut=cut, unfinished=unfinished)

    def _single(self, prefix: Prefix, problem: Problem, seed: int) -> tuple[str, bool]:
        """One sample, written in chunks so that nothing is written for long behind its end."""
        from riallm.engine.prefix import extended
        from riallm.engine.sampler import sample

        ids: list[int] = []
        while True:
            (row,) = sample(
                self._model,
                prefix,
                num=1,
                max_tokens=min(CHUNK, self.answer_tokens - len(ids)),
                ends=self._ends,
                temperature=self._temperature,
                top_p=TOP_P,
                seed=seed + len(ids),
            )
            ids += row.ids
            text = self._tokenizer.decode(ids)
            ended = row.finished or stopped(text, problem.stops) is not None
            if ended or len(ids) >= self.answer_tokens:
                return text, row.finished
            prefix, _ = extended(self._model, prefix, row.ids)


def run(
    problems: Sequence[Problem],
    write: Writer,
    judge: Callable[[str], Outcome],
    results: Results,
    *,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Answer and judge what `results` does not hold yet; the rows of all `problems`, in their order.

    A program that comes twice among a problem's samples is judged once.
    """
    known = results.latest()
    for problem in problems:
        if problem.id not in known:
            row = _row(problem, write(problem), judge)
            results.append(row)
            known[problem.id] = row
        on_row(known[problem.id])
    return [known[problem.id] for problem in problems]


def _row(problem: Problem, answers: Answers, judge: Callable[[str], Outcome]) -> Row:
    judged = {text: judge(problem.program(text)) for text in dict.fromkeys(answers.texts)}
    counts = Counter(judged[text] for text in answers.texts)
    return {
        "id": problem.id,
        "status": "done",
        "samples": len(answers.texts),
        "passed": counts[Outcome.PASSED],
        "outcomes": {str(outcome): counts[outcome] for outcome in Outcome},
        "cut": answers.cut,
        "unfinished": answers.unfinished,
        "answers": [{"text": text, "outcome": str(judged[text])} for text in answers.texts],
    }


def figures(rows: Sequence[Row], ks: Sequence[int], *, seed: int) -> dict[str, Any]:
    """What a run says: pass@k by k, and sums over all samples; `cut_prompts` and `problems` count problems."""
    return {
        "problems": len(rows),
        "pass_at": {k: mean_pass(rows, k, seed=seed) for k in ks},
        "outcomes": {str(outcome): sum(row["outcomes"][str(outcome)] for row in rows) for outcome in Outcome},
        "cut_prompts": sum(row["cut"] for row in rows),
        "unfinished_answers": sum(row["unfinished"] for row in rows),
    }
