"""The order in which candidates are tried. Three arms, each the one before and one thing more:

random   no order at all (B0)
prior    log suspicion + log operator prior (B1)
model    the same + what scoring clients think: of the new text against the old (B2, an n-gram), and of the whole edit
         (B3, a model that was trained to mend code)

A patch that smells (deletes a check, widens a guard, repeats a test's value) goes behind all that do not, in
every arm but the random one.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from riallm.agent.client import INFILL, Client, Context, EditScore
from riallm.agent.repair.program import Program
from riallm.agent.repair.records import Candidate
from riallm.core.errors import UsageError

ARMS = ("random", "prior", "model")
RANGE = 12.0  # nats; beyond this a text is "strange" to the n-gram, not "stranger"
EDIT_RANGE = 30.0  # nats that the model's word on lines, or on a text, may count
ASKED = 1000  # candidates that a model that knows edits is asked about; it takes seconds
SMELL_PENALTY = 100.0  # more than any difference of the other terms
PLACE_WEIGHT = 0.5  # of suspicion among patches that pass
SIZE_WEIGHT = 0.02  # a character of replaced and new text


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each term counts beside the logarithm of suspicion, which counts 1. prior: of the operator. gain: nats of
    the new text against the old by the n-gram. place, text: `EditScore`. own: of an edit that the model proposed."""

    prior: float
    gain: float = 0.0
    place: float = 0.0
    text: float = 0.0
    own: float = 0.0


PRIOR = Weights(prior=1.0)
CACHE = Weights(prior=1.0, gain=0.2)  # the gain by hand, on 31 bugs of the injected set (docs/log.md)
# Fitted by riallm.eval.tasks.repair_order to 122 bugs of the set "calibration", as many as were asked; `own` chosen on
# 107 of them with the model that ships now (docs/log.md).
CACHE_FITTED = Weights(prior=0.47, gain=0.078)
MODEL = Weights(prior=0.23, gain=0.065, place=0.11, text=0.15, own=-1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Who is asked in the arm `model`: `cache` about texts, `model` about edits where there is one."""

    cache: Client | None = None
    model: Client | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinions:
    """By the candidate's key: gains (nats of the new text minus the old by the n-gram) and edits (the model's word).
    Empty where nobody was asked."""

    gains: Mapping[str, float] = field(default_factory=dict)
    edits: Mapping[str, EditScore] = field(default_factory=dict)

    @property
    def weights(self) -> Weights:
        """What is right for who was asked."""
        return MODEL if self.edits else CACHE if self.gains else PRIOR


def order(
    program: Program,
    candidates: Sequence[Candidate],
    *,
    arm: str,
    clients: Clients | None = None,
    known: Opinions | None = None,
    weights: Weights | None = None,
    seed: int = 0,
) -> list[Candidate]:
    """`candidates`, the one to try first first. Equal scores keep the order of their keys. known: what the clients have
    said already; they are asked where it is None. weights: other ones than those that are right for who was asked."""
    if arm not in ARMS:
        raise UsageError(f"no ranking {arm!r}; there are {', '.join(ARMS)}")
    stable = sorted(candidates, key=lambda candidate: candidate.key)
    if arm == "random":
        random.Random(seed).shuffle(stable)
        return stable
    if arm == "prior":
        known = Opinions()
    elif known is None:
        known = opinions(program, stable, clients)
    said = known
    return sorted(stable, key=lambda candidate: -score(candidate, said, weights))


def score(candidate: Candidate, known: Opinions, weights: Weights | None = None) -> float:
    """Higher is tried earlier."""
    weights = weights or known.weights
    found = math.log(candidate.suspicion) + weights.prior * math.log(max(candidate.edit.prior, 1e-12))
    found += weights.gain * max(-RANGE, min(RANGE, known.gains.get(candidate.key, 0.0)))
    if candidate.key in known.edits:
        edit = known.edits[candidate.key]
        found += weights.place * max(-EDIT_RANGE, edit.place) + weights.text * max(-EDIT_RANGE, edit.text)
    return found + weights.own * (candidate.edit.operator == INFILL) - SMELL_PENALTY * bool(candidate.smells)


def opinions(program: Program, candidates: Sequence[Candidate], clients: Clients | None) -> Opinions:
    """What the clients say of the candidates. Raises UsageError where there is none that can score."""
    clients = clients or Clients()
    if clients.model is None or not clients.model.capabilities.edits:
        return Opinions(gains=likelihood_gains(program, candidates, clients.model or clients.cache))
    gains = likelihood_gains(program, candidates, clients.cache) if clients.cache else {}
    return Opinions(gains=gains, edits=likely_edits(program, candidates, clients.model, gains))


def likely_edits(
    program: Program, candidates: Sequence[Candidate], model: Client, gains: Mapping[str, float] | None = None
) -> dict[str, EditScore]:
    """key -> what the model says. It is asked about the ASKED best by everything else that is known; the others get the
    least that any of those has."""
    cheap = Opinions(gains=gains or {})
    best_first = sorted(candidates, key=lambda candidate: -score(candidate, cheap))
    files: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in best_first[:ASKED]:
        files[candidate.edit.path].append(candidate)
    found: dict[str, EditScore] = {}
    for path, group in files.items():
        source = program.source(path)
        assert source is not None
        values = model.score_edits(source.text, [candidate.edit for candidate in group])
        found |= {candidate.key: value for candidate, value in zip(group, values, strict=True)}
    least = EditScore(
        place=min((value.place for value in found.values()), default=0.0),
        text=min((value.text for value in found.values()), default=0.0),
    )
    return {candidate.key: found.get(candidate.key, least) for candidate in candidates}


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
    program: Program,
    plausible: Sequence[Candidate],
    *,
    arm: str,
    clients: Clients | None = None,
    weights: Weights | None = None,
) -> list[Candidate]:
    """Candidates that passed, the most believable first: as `order`, but the tests have spoken on the place,
    so suspicion counts for less, and of two patches the smaller one is believed."""
    if arm == "random":
        return list(plausible)
    known = opinions(program, plausible, clients) if arm == "model" and plausible else Opinions()
    weights = weights or known.weights

    def belief(candidate: Candidate) -> float:
        place = math.log(candidate.suspicion)
        text = (score(candidate, known, weights) - place) / weights.prior  # in units of a prior, for any weights
        size = len(candidate.edit.text) + len(candidate.edit.original)
        return text + PLACE_WEIGHT * place - SIZE_WEIGHT * size

    return sorted(plausible, key=lambda candidate: (-belief(candidate), candidate.key))
