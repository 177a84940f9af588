"""The order in which candidates are tried. Three arms, each the one before and one thing more:

random   no order at all (B0)
prior    log suspicion + log operator prior (B1)
model    the same + what a scoring client thinks of the new text against the old (B2 with an n-gram, B3 with a model)

A patch that smells (deletes a check, widens a guard, repeats a test's value) goes behind all that do not, in
every arm but the random one.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence

from riallm.agent.client import Client, Context
from riallm.agent.repair.program import Program
from riallm.agent.repair.records import Candidate
from riallm.core.errors import UsageError

ARMS = ("random", "prior", "model")
MODEL_WEIGHT = 0.5  # on the log-likelihood ratio: the prior has weighed the filling once already
MODEL_RANGE = 12.0  # nats; beyond this a ratio says "strange", not "stranger"
SMELL_PENALTY = 100.0  # more than any difference of the other terms
PLACE_WEIGHT = 0.5  # of suspicion among patches that pass
SIZE_WEIGHT = 0.02  # a character of replaced and new text


def order(
    program: Program, candidates: Sequence[Candidate], *, arm: str, client: Client | None = None, seed: int = 0
) -> list[Candidate]:
    """`candidates`, the one to try first first. Equal scores keep the order of their keys."""
    if arm not in ARMS:
        raise UsageError(f"no ranking {arm!r}; there are {', '.join(ARMS)}")
    stable = sorted(candidates, key=lambda candidate: candidate.key)
    if arm == "random":
        random.Random(seed).shuffle(stable)
        return stable
    gains = likelihood_gains(program, stable, client) if arm == "model" else {}
    return sorted(stable, key=lambda candidate: -score(candidate, gains.get(candidate.key, 0.0)))


def score(candidate: Candidate, gain: float) -> float:
    """Higher is tried earlier. `gain`: log-likelihood of the new text minus that of the old, in nats."""
    base = math.log(candidate.suspicion) + math.log(max(candidate.edit.prior, 1e-12))
    bounded = max(-MODEL_RANGE, min(MODEL_RANGE, gain))
    return base + MODEL_WEIGHT * bounded - SMELL_PENALTY * bool(candidate.smells)


def likelihood_gains(program: Program, candidates: Sequence[Candidate], client: Client | None) -> dict[str, float]:
    """key -> log P(new) - log P(old), each hole asked once with all its fillings."""
    if client is None or not client.capabilities.score:
        raise UsageError("ranking by a model needs a client that can score; use the ranking 'prior'")
    holes: dict[tuple[str, int, int], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        edit = candidate.edit
        holes[edit.path, edit.start, edit.end].append(candidate)
    gains: dict[str, float] = {}
    for (path, start, end), group in holes.items():
        source = program.source(path)
        assert source is not None
        context = Context(path=path, prefix=source.text[:start], suffix=source.text[end:])
        old, *new = client.score(context, [source.text[start:end], *(candidate.edit.text for candidate in group)])
        for candidate, value in zip(group, new, strict=True):
            gains[candidate.key] = value - old
    return gains


def prefer(
    program: Program, plausible: Sequence[Candidate], *, arm: str, client: Client | None = None
) -> list[Candidate]:
    """Candidates that passed, the most believable first: as `order`, but the tests have spoken on the place,
    so suspicion counts for less, and of two patches the smaller one is believed."""
    if arm == "random":
        return list(plausible)
    gains = likelihood_gains(program, plausible, client) if arm == "model" else {}

    def belief(candidate: Candidate) -> float:
        size = len(candidate.edit.text) + len(candidate.edit.original)
        place = (PLACE_WEIGHT - 1.0) * math.log(candidate.suspicion)
        return score(candidate, gains.get(candidate.key, 0.0)) + place - SIZE_WEIGHT * size

    return sorted(plausible, key=lambda candidate: (-belief(candidate), candidate.key))
