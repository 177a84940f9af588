"""Candidates: edit operators at the suspicious lines, and a model's infills where a client offers them."""

from __future__ import annotations

from collections.abc import Sequence

from riallm.agent.client import Client, Context
from riallm.agent.repair.program import Program
from riallm.agent.repair.records import Candidate, Suspect
from riallm.code.edit import Edit
from riallm.code.operators import propose_keyed, statement_key
from riallm.code.smells import smells

EDITS_PER_LINE = 300
INFILL_PRIOR = 0.05
INFILLS_PER_LINE = 8


def propose(
    program: Program,
    suspects: Sequence[Suspect],
    *,
    max_candidates: int,
    client: Client | None = None,
    test_text: str = "",
    seed: int = 0,
) -> list[Candidate]:
    """At most `max_candidates` candidates, one for each changed syntax tree; unordered but deterministic.

    Lines are visited by suspicion, so what the limit cuts off is the least suspicious. `test_text` is the text of
    the failing tests: a patch that repeats their values is marked.
    """
    found: dict[str, Candidate] = {}
    infills = client if client is not None and client.capabilities.infill else None
    for suspect in suspects:
        source = program.source(suspect.path)
        if source is None:
            continue
        edits = propose_keyed(source, suspect.line, program.vocabulary, limit=EDITS_PER_LINE)
        if infills is not None:
            edits = edits + infilled(program, suspect, infills, seed)
        for edit, key in edits:
            known = found.get(key)
            if known is None or known.suspicion * known.edit.prior < suspect.score * edit.prior:
                marks = smells(source, edit, tests=test_text)
                found[key] = Candidate(edit=edit, key=key, suspicion=suspect.score, smells=marks)
        if len(found) >= max_candidates:
            break
    return list(found.values())[:max_candidates]


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
            operator="infill",
            prior=INFILL_PRIOR,
        )
        if infill.text != edit.original and (key := statement_key(source, edit)):
            edits.append((edit, key))
    return edits
