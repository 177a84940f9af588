"""Fillings come from what is visible and used: nearer and more frequent first, nothing out of scope."""

from __future__ import annotations

import ast

import pytest

from riallm.code.builtins_table import arity, builtins_like, members_of, methods_beside
from riallm.code.ingredients import ingredients_of
from riallm.code.scopes import role_of, scope_of
from riallm.code.source import Function, Item, Source
from riallm.code.vocabulary import Vocabulary

SHOP = """\
import os
from json import loads as read

LIMIT = 10
RATE = 0.2

class Cart(Base):
    currency = "EUR"

    def __init__(self, owner, limit=5):
        self.owner = owner
        self.items = []

    def total(self, tax, rounding=None):
        amount = 0
        for item in self.items:
            amount += item.price * tax["rate"]
        def helper(extra):
            return amount + extra
        if amount > LIMIT and rounding is not None:
            raise CartError("too much")
        later = round(amount, ndigits=rounding)
        return later

    def clear(self):
        self.items.clear()
        self.items = []
        return self.owner.strip()

def outside(price):
    try:
        return read(price)
    except ValueError:
        return sorted([x for x in price], key=len)
"""
OTHER = """\
def use(item):
    item.discount()
    item.name
    d['key']
    raise NotFound(1)
    return fetch(item, wait=2)
"""


@pytest.fixture(scope="module")
def shop() -> tuple[Source, Vocabulary]:
    source = Source.from_text("shop.py", SHOP)
    return source, Vocabulary.build([source, Source.from_text("other.py", OTHER)])


def item(source: Source, text: str) -> Item:
    found = source.item_at(source.text.index(text))
    assert found is not None
    return found


def names(ranked: list[tuple[str, float]]) -> list[str]:
    assert [weight for _, weight in ranked] == sorted((weight for _, weight in ranked), reverse=True)
    assert all(weight > 0 for _, weight in ranked)
    return [name for name, _ in ranked]


def test_variables_by_nearness(shop: tuple[Source, Vocabulary]) -> None:
    source, vocabulary = shop
    found = names(vocabulary.variables(source, item(source, "amount +=")))
    assert set(found[:4]) == {"amount", "item", "tax", "self"}
    assert found.index("later") > found.index("rounding")  # not bound yet
    assert found.index("LIMIT") > found.index("later") or vocabulary.scope(source, item(source, "amount +=")).locals
    assert {"LIMIT", "RATE", "None"} <= set(found)
    assert not {"price", "x", "extra", "owner", "currency"} & set(found)


def test_inner_functions_see_what_is_around(shop: tuple[Source, Vocabulary]) -> None:
    source, vocabulary = shop
    found = names(vocabulary.variables(source, item(source, "return amount + extra")))
    assert found[0] == "extra"
    assert {"amount", "tax", "LIMIT"} <= set(found)


def test_defaults_are_evaluated_outside(shop: tuple[Source, Vocabulary]) -> None:
    source, vocabulary = shop
    assert "owner" not in names(vocabulary.variables(source, item(source, "def __init__")))


def test_members_of_self_and_of_receivers(shop: tuple[Source, Vocabulary]) -> None:
    source, vocabulary = shop
    here = item(source, "amount +=")
    assert set(names(vocabulary.attributes(source, here, "self"))[:2]) == {"items", "owner"}
    assert "clear" in names(vocabulary.methods(source, here, "self"))[:3]
    of_item = names(vocabulary.attributes(source, here, "item"))
    assert of_item[0] == "price" and "name" in of_item[:3]
    assert names(vocabulary.plain_methods(source, here, "item"))[0] == "discount"
    assert names(vocabulary.methods(source, here, "items"))[0] == "clear"
    assert names(vocabulary.keys(source, "tax")) == ["'rate'"]
    assert names(vocabulary.keys(source, "d")) == ["'key'"]


def test_callees_keywords_and_signatures(shop: tuple[Source, Vocabulary]) -> None:
    source, vocabulary = shop
    callees = names(vocabulary.callees(source, item(source, "later = round")))
    assert callees[0] == "round" and "sorted" in callees and "outside" in callees
    assert "helper" not in callees[:1] and "fetch" not in callees
    assert names(vocabulary.keywords(source, "sorted")) == ["key"]
    assert names(vocabulary.keywords(source, "fetch")) == ["wait"]
    assert set(names(vocabulary.keywords(source, "total"))) == {"tax", "rounding"}
    signature = vocabulary.signature(source, "Cart")
    assert signature is not None and signature.positional == ("owner", "limit") and signature.required == 1


def test_constants_of_function_file_and_project(shop: tuple[Source, Vocabulary]) -> None:
    source, vocabulary = shop
    here = item(source, "amount +=")
    assert set(names(vocabulary.strings(source, here))[:2]) == {"rate", "too much"}
    assert "EUR" in names(vocabulary.strings(source, here))
    assert "key" in names(vocabulary.strings(source, here)) and "key" not in vocabulary.facts(source).strings
    assert vocabulary.facts(source).bound == {
        "os": "import",
        "read": "import",
        "LIMIT": "variable",
        "RATE": "variable",
        "Cart": "class",
        "outside": "function",
    }
    assert names(vocabulary.numbers(source, here))[0] == "0"
    assert {"10", "0.2", "5"} <= set(names(vocabulary.numbers(source, here)))
    exceptions = names(vocabulary.exceptions(source))
    assert {"ValueError", "KeyError"} <= set(exceptions)
    assert not {"NotFound", "CartError"} & set(exceptions)  # neither is bound in this file


def test_ingredients_are_texts_of_this_function(shop: tuple[Source, Vocabulary]) -> None:
    source, vocabulary = shop
    stock = vocabulary.ingredients(source, item(source, "amount +="))
    assert [each.text for each in stock.conditions] == ["amount > LIMIT", "rounding is not None"]
    texts = [each.text for each in stock.expressions]
    assert "item.price" in texts and 'item.price * tax["rate"]' in texts and 'CartError("too much")' in texts
    assert "amount + extra" not in texts
    assert [each.text for each in stock.statements] == [
        "amount = 0",
        'amount += item.price * tax["rate"]',
        "later = round(amount, ndigits=rounding)",
        "return later",
    ]
    assert stock.conditions[0].names == {"amount", "LIMIT"}
    assert [each.text for each in ingredients_of(source, None).statements][:2] == ["LIMIT = 10", "RATE = 0.2"]


def test_scopes() -> None:
    source = Source.from_text(
        "a.py",
        "def f(a, *b, c=1, **d):\n"
        "    import os.path as p, sys\n"
        "    with a as (e, g): pass\n"
        "    h = [i for i in (j := a)]\n"
        "    k = lambda m: m\n"
        "    def n(): o = 1\n"
        "    try: pass\n"
        "    except E as q: pass\n"
        "    match a:\n"
        "        case [r, *s] | {'t': r, **s}: pass\n"
        "    for t in a: del t\n"
        "    u = {v: w for v, w in a}, {x for x in a}, (y for y in a), lambda z=a: z\n"
        "    class B: C = 1\n"
        "    from os import *\n"
        "    async def A(aa): pass\n",
    )
    (function,) = source.top_level
    assert isinstance(function, Function)
    scope = scope_of(source, function)
    assert scope.parameters == ("a", "c", "b", "d")
    assert set(scope.locals) == set("abcdeghknpqrstuAB") | {"sys"}
    assert scope.inner == set("ijmvwxyz")
    assert scope.locals["t"][0] == 11 and scope.locals["a"][0] == 1
    assert scope.roles["a"] >= {"walked"}
    assert role_of(ast.parse("a.b").body[0].value, "value") == "receiver"  # type: ignore[attr-defined]


def test_a_file_that_is_not_of_the_project_is_known_by_itself() -> None:
    source = Source.from_text("new.py", SHOP)
    found = Vocabulary().attributes(source, item(source, "amount +="), "item")
    assert found[0][0] == "price"


def test_what_is_known_of_python() -> None:
    assert "rstrip" in methods_beside("lstrip") and "append" in methods_beside("extend")
    assert methods_beside("no_such") == methods_beside("__len__") == ()
    assert "ceil" in members_of("math") and members_of("subprocess") == members_of("no.such") == ()
    assert builtins_like("min") == ("max",)
    assert arity("len") == (1, 1) and arity("isinstance") == (2, 2) and arity("math.floor") == (1, 1)
    assert arity("print") is None and arity("os.system") is None and arity("no_such") is None
