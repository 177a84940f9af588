"""Injectors on whole statements: forgotten, doubled, in the wrong order, in the wrong block, or from elsewhere."""

from __future__ import annotations

import ast
import builtins
import copy
import random
import textwrap
from collections.abc import Callable

from riallm.code.edit import Edit
from riallm.code.source import is_compound
from riallm.data.inject_site import Site

_TRIES = 12


def _shuffled(site: Site, draw: random.Random, accept: Callable[[ast.stmt], bool]) -> list[ast.stmt]:
    found = [item for item in site.items if accept(item) and site.lines_of(item) is not None]
    draw.shuffle(found)
    return found[:_TRIES]


def delete(site: Site, draw: random.Random) -> Edit | None:
    """A simple statement is forgotten; a block that held nothing else keeps a `pass`."""
    for item in _shuffled(site, draw, lambda item: not is_compound(item) and not isinstance(item, ast.Pass)):
        span = site.lines_of(item)
        assert span is not None
        alone = len(site.block(item)) == 1
        text = f"{site.indent_of(item)}pass{site.source.newline}" if alone else ""
        return site.edit(*span, text, "delete")
    return None


def duplicate(site: Site, draw: random.Random) -> Edit | None:
    """A statement that changes something is written twice."""
    changing = (ast.AugAssign, ast.Expr, ast.Assign)
    for item in _shuffled(site, draw, lambda item: isinstance(item, changing)):
        if isinstance(item, ast.Expr) and not isinstance(item.value, ast.Call | ast.Yield | ast.Await):
            continue
        if isinstance(item, ast.Assign) and not any(isinstance(node, ast.Call) for node in ast.walk(item.value)):
            continue
        span = site.lines_of(item)
        assert span is not None
        text = site.source.text[span[0] : span[1]]
        if text.endswith(site.source.newline):
            return site.edit(span[1], span[1], text, "duplicate")
    return None


def reorder(site: Site, draw: random.Random) -> Edit | None:
    """Two neighbours change places."""
    for item in _shuffled(site, draw, lambda item: True):
        block = site.block(item)
        at = block.index(item)
        if at + 1 == len(block):
            continue
        other = block[at + 1]
        if not isinstance(other, ast.stmt) or isinstance(item, ast.Return | ast.Raise):
            continue
        first, second = site.lines_of(item), site.lines_of(other)
        if first is None or second is None:
            continue
        text = site.source.text
        one, gap, two = text[first[0] : first[1]], text[first[1] : second[0]], text[second[0] : second[1]]
        if two.endswith(site.source.newline):
            return site.edit(first[0], second[1], two + gap + one, "reorder")
    return None


def move(site: Site, draw: random.Random) -> Edit | None:
    """The last statement of a block slips out of it, or the statement after a block slips in."""
    for item in _shuffled(site, draw, lambda item: isinstance(item, ast.For | ast.While | ast.If | ast.With)):
        body = item.body  # type: ignore[attr-defined]
        span = site.lines_of(item)
        if span is None or getattr(item, "orelse", None):
            continue
        block = site.block(item)
        at = block.index(item)
        follower = block[at + 1] if at + 1 < len(block) else None
        last = body[-1]
        inner = site.lines_of(last)
        if inner is None or site.source.line_of(inner[0]) == site.source.line_of(span[0]):
            continue
        outwards = draw.random() < 0.5
        text = site.source.text
        if outwards and len(body) > 1 and not is_compound(last) and inner[1] == span[1]:
            moved = _shift(text[inner[0] : inner[1]], site.indent_of(last), site.indent_of(item))
            return site.edit(*inner, moved, "move") if moved else None
        if not outwards and isinstance(follower, ast.stmt) and not is_compound(follower):
            after = site.lines_of(follower)
            if after is not None and not isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break):
                moved = _shift(text[after[0] : after[1]], site.indent_of(follower), site.indent_of(last))
                return site.edit(*after, moved, "move") if moved else None
    return None


def _shift(text: str, old: str, new: str) -> str:
    """Lines of `text` with the indentation `old` turned into `new`; empty when a line has another."""
    lines = text.splitlines(keepends=True)
    if any(line.strip() and not line.startswith(old) for line in lines) or '"""' in text or "'''" in text:
        return ""
    return "".join(new + line[len(old) :] if line.strip() else line for line in lines)


def guard(site: Site, draw: random.Random) -> Edit | None:
    """A guard is forgotten: its early exit goes altogether, or its body runs always."""
    for item in _shuffled(site, draw, lambda item: isinstance(item, ast.If) and not item.orelse):
        assert isinstance(item, ast.If)
        span, block = site.lines_of(item), site.block(item)
        if span is None or site.source.text[span[0] :].lstrip().startswith("elif"):
            continue
        leaves = isinstance(item.body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)
        if leaves and len(block) > 1:
            return site.edit(*span, "", "guard")
        inner = site.lines_of(item.body[0])
        if not leaves and inner is not None and inner[0] > span[0]:
            body = _shift(site.source.text[inner[0] : span[1]], site.indent_of(item.body[0]), site.indent_of(item))
            if body:
                return site.edit(*span, body, "guard")
    return None


def branches(site: Site, draw: random.Random) -> Edit | None:
    """The two branches of an `if` change places."""
    for item in _shuffled(site, draw, lambda item: isinstance(item, ast.If) and bool(item.orelse)):
        assert isinstance(item, ast.If)
        if len(item.orelse) == 1 and isinstance(item.orelse[0], ast.If):
            continue
        spans = [site.lines_of(part[0]) for part in (item.body, item.orelse)]
        ends = [site.lines_of(part[-1]) for part in (item.body, item.orelse)]
        if None in spans or None in ends:
            continue
        (start, _), (other, _) = spans  # type: ignore[misc]
        (_, stop), (_, finish) = ends  # type: ignore[misc]
        text = site.source.text
        middle = text[stop:other]
        if "else" not in middle or not text[other:finish].endswith(site.source.newline):
            continue
        return site.edit(start, finish, text[other:finish] + middle + text[start:stop], "branches")
    return None


def transplant(site: Site, draw: random.Random) -> Edit | None:
    """A statement is replaced by one of its kind from another function, its names bent to those at hand."""
    for item in _shuffled(site, draw, lambda item: not is_compound(item)):
        donors = [node for _, owner, node in site.library.statements[type(item).__name__] if owner is not site.function]
        own = {node.id for node in ast.walk(item) if isinstance(node, ast.Name)}
        if not donors or not site.names:
            continue
        donor = copy.deepcopy(draw.choice(donors))
        if any(
            isinstance(node, ast.Lambda | ast.NamedExpr | ast.GeneratorExp | ast.ListComp) for node in ast.walk(donor)
        ):
            continue
        known = set(site.names) | set(dir(builtins)) | {"self", "cls"} | own
        for node in ast.walk(donor):
            if isinstance(node, ast.Name) and node.id not in known:
                node.id = draw.choice(sorted(own & set(site.names)) or site.names)
        if isinstance(item, ast.Assign) and isinstance(donor, ast.Assign):
            donor.targets = copy.deepcopy(item.targets)
        span = site.lines_of(item)
        assert span is not None
        text = textwrap.indent(ast.unparse(donor), site.indent_of(item)) + site.source.newline
        if len(text) < 200:
            return site.edit(*span, text, "transplant")
    return None


STATEMENT_INJECTORS: dict[str, Callable[[Site, random.Random], Edit | None]] = {
    "delete": delete,
    "duplicate": duplicate,
    "reorder": reorder,
    "move": move,
    "guard": guard,
    "branches": branches,
    "transplant": transplant,
}
