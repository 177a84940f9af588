"""Drafts from the text itself, what they gain and what they cost: `riallm bench drafting [--prompts N] ...`.

Passages of real Python are gone on with, greedily, by two engines over one model: one drafts nothing, the other looks
up what followed the last tokens where they stood before. The two take turns in going first. Answers must be equal to
the last token, or the exit code is 1. Passages are taken until `--prompts` of them drafted at least once. Random tokens
come after, in which there is next to nothing to look up. Where no draft stood, time with drafts over time without is
what they cost. All times are of writing, from the first token on: a prompt is read alike by both.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from riallm.bench.card import Card, Figure, emit
from riallm.bench.own_text import passages
from riallm.bench.progress import progress_bar
from riallm.core.errors import BudgetError, ClientError, RiallmError, UsageError
from riallm.core.shipped import DEFAULT

if TYPE_CHECKING:
    from riallm.engine.auto import LocalModel
    from riallm.engine.local import LocalEngine
    from riallm.engine.request import Request, Usage

CHARS = 1200
"""Of a passage: some three hundred tokens, so that there is something to look up."""
TRIES = 20
"""So many prompts are tried for each one that is wanted, before it is given up."""
Which = Literal["plain", "drafted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One prompt, answered without drafts and with them."""

    same: bool
    plain: Usage
    drafted: Usage

    @property
    def speedup(self) -> float:
        """Seconds of writing without drafts over those with them."""
        return self.plain.completion_seconds / self.drafted.completion_seconds


def main(argv: list[str]) -> int:
    """Measure, print the card. 1: an answer with drafts was another one than without."""
    parser = argparse.ArgumentParser(prog="riallm bench drafting", description="drafts from the text itself")
    parser.add_argument("--model", default=DEFAULT, metavar="NAME|PATH", help=f"whose answers (default: {DEFAULT})")
    parser.add_argument("--compression", default="none", choices=("none", "8bit", "4bit", "nf4"))
    parser.add_argument("--prompts", type=int, default=200, metavar="N", help="that drafted (default: 200)")
    parser.add_argument("--random", type=int, default=50, metavar="N", help="of random tokens (default: 50)")
    parser.add_argument("--answer", type=int, default=48, metavar="N", help="tokens of an answer (default: 48)")
    parser.add_argument("--lookahead", type=int, metavar="N", help="tokens drafted at first (default: the engine's)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of passages, and of random tokens")
    options = parser.parse_args(argv)
    try:
        figures = run(options)
    except RiallmError as error:
        sys.stderr.write(f"drafting: {error}\n")
        return error.exit_code
    emit(Card(name="drafting", command=" ".join(["riallm bench drafting", *argv]), figures=figures))
    if figures["prompts_that_differ"]:
        sys.stderr.write("drafting: drafts changed an answer, which they must not\n")
        return 1
    return 0


def run(options: argparse.Namespace) -> dict[str, Figure]:
    """All figures. Raises UsageError for what cannot be measured."""
    if min(options.prompts, options.random) < 1 or options.answer < 4 or options.lookahead == 0:
        raise UsageError("--prompts, --random and --lookahead are from 1 on, --answer from 4 on: a draft needs room")
    import torch

    from riallm.engine.auto import AutoModel, ModelOptions
    from riallm.engine.local import EngineOptions
    from riallm.quant.compiled import kernel_status

    lookahead: int = EngineOptions().lookahead if options.lookahead is None else options.lookahead
    load = os.getloadavg()[0]
    model = AutoModel.from_pretrained(options.model, ModelOptions(compression=options.compression))
    if model.context < 2 * options.answer:
        raise UsageError(f"{model.name} holds {model.context} tokens, and answers of {options.answer} leave no prompt")
    with both(model, lookahead) as (plain, drafting):

        def pair(request: Request) -> Pair:
            return asked(plain, drafting, request)

        texts = text_requests(model, options.answer, options.seed)
        found = until(texts, pair, options.prompts, _drafted, "drafted")
        drawn = random_requests(model, options.answer, options.seed)
        misses = until(drawn, pair, options.random, _missed, "were never right")
    return {
        "load_before": load,
        "kernels": kernel_status(),
        "threads": torch.get_num_threads(),
        "model": model.name,
        "lookahead": lookahead,
        "answer_tokens": options.answer,
        **gains(found),
        **costs(misses),
        "prompts_that_differ": sum(not each.same for each in [*found, *misses]),
    }


@contextmanager
def both(model: LocalModel, lookahead: int) -> Iterator[tuple[LocalEngine, LocalEngine]]:
    """An engine that drafts nothing and one that does, over the same weights, each with pages of its own."""
    from riallm.engine.local import EngineOptions, LocalEngine

    made: list[LocalEngine] = []
    try:
        for ahead in (0, lookahead):
            made.append(
                LocalEngine(
                    model.model,
                    name=model.name,
                    identity=model.resident.identity,
                    decode=model.tokenizer.decode_bytes,
                    context=model.context,
                    options=EngineOptions(lookahead=ahead),
                )
            )
        yield made[0], made[1]
    finally:
        for engine in made:
            engine.close()


def text_requests(model: LocalModel, answer: int, seed: int) -> Iterator[Request]:
    """Passages of our own source files, as many tokens of each as the model has room for."""
    from riallm.engine.request import Request, Sampling

    tokenizer = model.tokenizer
    for text in passages(CHARS, seed=seed):
        ids = [*tokenizer.start, *tokenizer.encode(text)][-(model.context - answer) :]
        greedy = Sampling(temperature=0.0)
        yield Request(ids=tuple(ids), max_tokens=answer, sampling=greedy, ends=tokenizer.ends)


def random_requests(model: LocalModel, answer: int, seed: int) -> Iterator[Request]:
    """Random tokens, drawn from and not taken greedily: nothing of a prompt comes back, and the answer does not run in
    circles that could be looked up. Nothing ends one early."""
    from riallm.engine.request import Request, Sampling

    draw = random.Random(seed)
    num = min(300, model.context - answer)
    for number in itertools.count():
        ids = tuple(draw.choices(range(model.model.sizes.vocab_size), k=num))
        yield Request(ids=ids, max_tokens=answer, sampling=Sampling(temperature=1.0, seed=number))


def until(
    requests: Iterable[Request], pair: Callable[[Request], Pair], num: int, counts: Callable[[Pair], bool], what: str
) -> list[Pair]:
    """Every pair, in order, until `num` of them count. Raises BudgetError when hardly any does."""
    found: list[Pair] = []
    there = 0
    with progress_bar(f"prompts that {what}", num) as done:
        for request in itertools.islice(requests, TRIES * num):
            found.append(pair(request))
            there += counts(found[-1])
            done(there)
            if there == num:
                return found
    raise BudgetError(f"of {len(found)} prompts only {there} {what}, and {num} are wanted; ask for fewer")


def asked(plain: LocalEngine, drafting: LocalEngine, request: Request) -> Pair:
    """Both answers; who goes first is another one from prompt to prompt."""
    engines = [plain, drafting]
    turned = sum(request.ids) % 2 == 1
    answers = [_answer(engine, request) for engine in (engines[::-1] if turned else engines)]
    (ids, usage), (others, used) = answers[::-1] if turned else answers
    return Pair(same=ids == others, plain=usage, drafted=used)


def gains(pairs: Sequence[Pair]) -> dict[str, Figure]:
    """Of passages: how many drafts stood, and how much faster answers were that drafted at all."""
    from riallm.eval.stats import median

    drafted = [each for each in pairs if _drafted(each)]
    proposed = sum(each.drafted.drafted_tokens for each in drafted)
    stood = sum(each.drafted.accepted_tokens for each in drafted)
    middle = median([each.speedup for each in drafted], seed=0)
    return {
        "prompts": len(pairs),
        "prompts_that_drafted": len(drafted),
        "prompt_tokens_mean": sum(each.plain.prompt_tokens for each in pairs) / len(pairs),
        "drafted_tokens": proposed,
        "accepted_tokens": stood,
        "acceptance_percent": 100 * stood / proposed,
        "speedup_median": middle.value,
        "speedup_median_low": middle.low,
        "speedup_median_high": middle.high,
        "speedup_least": min(each.speedup for each in drafted),
        "speedup_total": _seconds(pairs, "plain") / _seconds(pairs, "drafted"),
        **_costs("prompts", [each for each in drafted if _missed(each)]),
        "tokens_a_second_without": _tokens(pairs, "plain") / _seconds(pairs, "plain"),
        "tokens_a_second_with": _tokens(pairs, "drafted") / _seconds(pairs, "drafted"),
    }


def costs(pairs: Sequence[Pair]) -> dict[str, Figure]:
    """Of random tokens: what looking up costs where there is nothing to be found."""
    missed = [each for each in pairs if _missed(each)]
    return {
        "random_prompts": len(pairs),
        "random_drafted_tokens": sum(each.drafted.drafted_tokens for each in missed),
        **_costs("random_prompts", missed),
    }


def _costs(name: str, missed: Sequence[Pair]) -> dict[str, Figure]:
    """Time with drafts over time without, of prompts where no draft stood; None where there is no such prompt."""
    from riallm.eval.stats import median

    middle = median([1 / each.speedup for each in missed], seed=0)
    return {
        f"{name}_where_nothing_stood": len(missed),
        f"{name}_where_nothing_stood_time_ratio": middle.value if missed else None,
        f"{name}_where_nothing_stood_time_ratio_low": middle.low if missed else None,
        f"{name}_where_nothing_stood_time_ratio_high": middle.high if missed else None,
    }


def _drafted(pair: Pair) -> bool:
    return pair.drafted.drafted_tokens > 0


def _missed(pair: Pair) -> bool:
    return pair.drafted.accepted_tokens == 0


def _usages(pairs: Sequence[Pair], which: Which) -> list[Usage]:
    return [each.plain if which == "plain" else each.drafted for each in pairs]


def _seconds(pairs: Sequence[Pair], which: Which) -> float:
    return sum(usage.completion_seconds for usage in _usages(pairs, which))


def _tokens(pairs: Sequence[Pair], which: Which) -> int:
    """Behind the first one of each, which belongs to its prompt."""
    return sum(max(0, usage.completion_tokens - 1) for usage in _usages(pairs, which))


def _answer(engine: LocalEngine, request: Request) -> tuple[list[int], Usage]:
    ticket = engine.submit(request)
    ids: list[int] = []
    while True:
        piece = ticket.next()
        assert piece is not None
        ids += [token.id for token in piece.tokens]
        if piece.finish == "error":
            raise ClientError(f"{engine.name} failed: {piece.error}")
        if piece.usage is not None:
            return ids, piece.usage


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
