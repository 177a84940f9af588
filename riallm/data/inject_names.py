"""Injectors that mix up names with what other code uses in the same place: attributes, callees, keywords, keys."""

from __future__ import annotations

import ast
import builtins
import random
from collections import Counter
from collections.abc import Callable

from riallm.code.edit import Edit
from riallm.data.inject_site import Site


def _drawn(counts: Counter[str], other_than: str, draw: random.Random) -> str | None:
    """A name drawn by how often other code uses it, half of the time among those that look alike."""
    names = sorted(name for name in counts if name != other_than)
    if not names:
        return None
    alike = [name for name in names if _alike(name, other_than)]
    pool = alike if alike and draw.random() < 0.5 else names
    return draw.choices(pool, weights=[counts[name] ** 0.5 for name in pool])[0]


def _alike(one: str, other: str) -> bool:
    """Whether two names share a word, or their first three letters."""
    words = set(one.lower().strip("_").split("_")) & set(other.lower().strip("_").split("_"))
    return bool(words) or one[:3] == other[:3]


def attribute(site: Site, draw: random.Random) -> Edit | None:
    """`x.a` becomes `x.b`, where other code writes `.b` in such a place."""
    calls = {id(node.func): node for node in site.nodes if isinstance(node, ast.Call)}
    found = [node for node in site.nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)]
    draw.shuffle(found)
    for node in found:
        call = calls.get(id(node))
        key = (False, 0) if call is None else (True, len(call.args) + len(call.keywords))
        name = _drawn(site.library.attributes[key], node.attr, draw)
        _, end = site.source.span(node)
        if name and site.source.text[end - len(node.attr) : end] == node.attr:
            return site.edit(end - len(node.attr), end, name, "attribute")
    return None


def callee(site: Site, draw: random.Random) -> Edit | None:
    """A function is called that other code calls with as many arguments: one of this file or a builtin."""
    top = {name for node in site.source.top_level for name in _bound(node)}
    found = [node for node in site.nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    draw.shuffle(found)
    for node in found:
        assert isinstance(node.func, ast.Name)
        counts = site.library.callees[len(node.args) + len(node.keywords)]
        known = Counter({name: n for name, n in counts.items() if name in top or hasattr(builtins, name)})
        name = _drawn(known, node.func.id, draw)
        if name:
            return site.replace(node.func, name, "callee")
    return None


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom | ast.Import):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    return []


def keyword(site: Site, draw: random.Random) -> Edit | None:
    """A keyword argument goes under another name that calls of the same function use, or is left out."""
    found = [node for node in site.nodes if isinstance(node, ast.Call) and any(word.arg for word in node.keywords)]
    draw.shuffle(found)
    for node in found:
        word = draw.choice([word for word in node.keywords if word.arg])
        assert word.arg is not None
        start, end = site.source.span(word)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        taken = {other.arg for other in node.keywords}
        others = Counter({key: n for key, n in site.library.keywords[name].items() if key not in taken})
        other = _drawn(others, word.arg, draw)
        if other and draw.random() < 0.6:
            return site.edit(start, start + len(word.arg), other, "keyword")
        before = site.source.text.rfind(",", 0, start)
        if before > site.source.span(node.func)[1] and not site.source.text[before + 1 : start].strip():
            return site.edit(before, end, "", "keyword")
    return None


def key(site: Site, draw: random.Random) -> Edit | None:
    """A short string - a key, an option, a mode - is another one that other code uses."""
    found = [
        node
        for node in site.nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 30
    ]
    draw.shuffle(found)
    for node in found:
        text = site.source.segment(node)
        if text[:1] not in "'\"" or text[:3] in ("'''", '"""') or text[0] * 2 in text[1:-1]:
            continue
        other = _drawn(site.library.keys, str(node.value), draw)
        if other and other.isprintable() and "\\" not in other and text[0] not in other:
            return site.replace(node, f"{text[0]}{other}{text[0]}", "key")
    return None


NAME_INJECTORS: dict[str, Callable[[Site, random.Random], Edit | None]] = {
    "attribute": attribute,
    "callee": callee,
    "keyword": keyword,
    "key": key,
}
