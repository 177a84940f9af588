"""Candidates: edit operators at the suspicious lines, and a model's infills where a client offers them."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from riallm.agent.client import INFILL, Client, Context
from riallm.agent.passage import Passage, passage
from riallm.agent.repair.program import Program
from riallm.agent.repair.records import Candidate, Suspect
from riallm.code.edit import Edit
from riallm.code.operators import propose_keyed, statement_key
from riallm.code.smells import smells
from riallm.code.source import Source

EDITS_PER_LINE = 300
INFILL_PRIOR = 0.05
INFILLS_PER_LINE = 8
EDITS_PER_PLACE = 32
PLACES = 5
"""How many places, the most suspicious first, a model that knows edits is asked about."""
STRAY = 0.3
"""Of the suspicion that led to a place, what an edit of an unsuspected line there gets."""


def propose(
    program: Program,
    suspects: Sequence[Suspect],
    *,
    max_candidates: int,
    client: Client | None = None,
    test_text: str = "",
    until: float = math.inf,
    seed: int = 0,
) -> list[Candidate]:
    """At most `max_candidates` candidates, one for each changed syntax tree; unordered but deterministic.

    Lines are visited by suspicion, so what the limit cuts off is the least suspicious. `test_text` is the text of
    the failing tests: a patch that repeats their values is marked. until: see `from_model`.
    """
    found: dict[str, Candidate] = {}
    if client is not None and client.capabilities.edits:
        written = from_model(program, suspects, client, test_text=test_text, until=until)
        found = {candidate.key: candidate for candidate in written}
    infills = client if client is not None and client.capabilities.infill and not found else None
    for suspect in suspects:
        source = program.source(suspect.path)
        if source is None:
            continue
        edits = propose_keyed(source, suspect.line, program.vocabulary, limit=EDITS_PER_LINE)
        if infills is not None:
            edits = edits + infilled(program, suspect, infills, seed)
        for edit, key in edits:
            _keep(found, source, edit, key, suspect.score, test_text)
        if len(found) >= max_candidates:
            break
    return list(found.values())[:max_candidates]


def _keep(found: dict[str, Candidate], source: Source, edit: Edit, key: str, suspicion: float, test_text: str) -> None:
    known = found.get(key)
    if known is None or known.suspicion * known.edit.prior < suspicion * edit.prior:
        marks = smells(source, edit, tests=test_text)
        found[key] = Candidate(edit=edit, key=key, suspicion=suspicion, smells=marks)


def from_model(
    program: Program,
    suspects: Sequence[Suspect],
    client: Client,
    *,
    test_text: str = "",
    until: float = math.inf,
) -> list[Candidate]:
    """What a model that knows edits would change around the most suspicious lines. until: the time of the monotonic
    clock after which it is asked about no further place."""
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    for suspect in suspects:
        scores[suspect.path][suspect.line] = suspect.score
    found: dict[str, Candidate] = {}
    asked: set[Passage] = set()
    for suspect in suspects:
        source = program.source(suspect.path)
        if source is None:
            continue
        place = passage(source, suspect.line)
        if place in asked:
            continue
        if len(asked) == PLACES or time.monotonic() > until:
            break
        asked.add(place)
        known = scores[suspect.path]
        edits = client.propose_edits(suspect.path, source.text, suspect.line, num=EDITS_PER_PLACE, suspicion=known)
        total = sum(edit.prior for edit in edits) or 1.0
        for edit in edits:
            if key := statement_key(source, edit):
                suspicion = known.get(edit.line, STRAY * suspect.score)
                weighed = replace(edit, prior=INFILL_PRIOR * edit.prior / total)
                _keep(found, source, weighed, key, suspicion, test_text)
    return list(found.values())


def infilled(program: Program, suspect: Suspect, client: Client, seed: int) -> list[tuple[Edit, str]]:
    """The line's code replaced by what the model puts there; edits that parse and change something, with their keys."""
    source = program.source(suspect.path)
    assert source is not None
    start = source.line_starts[suspect.line - 1]
    end = source.line_end(start)
    text = source.text[start:end]
    start += len(text) - len(text.lstrip())
    context = Context(path=suspect.path, prefix=source.text[:start], suffix=source.text[end:])
    edits = []
    for infill in client.infill(context, num=INFILLS_PER_LINE, seed=seed):
        edit = Edit(
            path=suspect.path,
            start=start,
            original=source.text[start:end],
            text=infill.text,
            line=suspect.line,
            operator=INFILL,
            prior=INFILL_PRIOR,
        )
        if infill.text != edit.original and (key := statement_key(source, edit)):
            edits.append((edit, key))
    return edits
