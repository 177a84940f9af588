"""Each operator makes the edit that its line in the table promises, on a small program of its own."""

from __future__ import annotations

import pytest

from riallm.code.operators import OPERATORS, propose
from riallm.code.source import Source
from riallm.code.vocabulary import Vocabulary

# operator, program, the line that is wrong (marked by <<), the lines that the edit must be able to make of it
# (or, ending in a line end, the whole program)
EXAMPLES: list[tuple[str, str, str]] = [
    ("change_identifier", "def f(width, height):\n    return width * width  #<<\n", "    return width * height"),
    ("change_identifier", "def f(a, b):\n    return [a for x in b]  #<<\n", "    return [x for x in b]"),
    (
        "add_self",
        "class A:\n    def g(self, size):\n        self.size = size\n    def f(self):\n        return size + 1  #<<\n",
        "        return self.size + 1",
    ),
    ("change_caller", "def f(new, old):\n    old.close()\n    old.close()  #<<\n", "    new.close()"),
    (
        "change_function",
        "def area(x):\n    return x\ndef rim(x):\n    return x\nprint(area(3))  #<<\n",
        "print(rim(3))",
    ),
    ("change_function", "def f(xs):\n    return min(xs)  #<<\n", "    return max(xs)"),
    ("change_method", "def f(s):\n    return s.lstrip()  #<<\n", "    return s.rstrip()"),
    ("change_method", "import math\ndef f(s):\n    return math.floor(s)  #<<\n", "    return math.ceil(s)"),
    ("add_argument", "def g(a, b):\n    return a\ndef f(a, b):\n    return g(a)  #<<\n", "    return g(a, b)"),
    (
        "add_keyword",
        "def f(xs, key):\n    sorted(xs, key=key)\n    return sorted(xs)  #<<\n",
        "    return sorted(xs, key=key)",
    ),
    ("remove_argument", "def f(d, k, x):\n    return d.get(k, x)  #<<\n", "    return d.get(k)"),
    ("remove_argument", "def f(xs, k):\n    return sorted(xs, key=k)  #<<\n", "    return sorted(xs)"),
    ("swap_arguments", "def f(t, x):\n    return isinstance(t, x)  #<<\n", "    return isinstance(x, t)"),
    ("change_keyword", "def f(g):\n    g(start=1)\n    g(begin=2)  #<<\n", "    g(start=2)"),
    ("change_operand", "def f(a, b, c):\n    if a < b:  #<<\n        return c\n", "    if a < c:"),
    ("swap_operands", "def f(a, b):\n    return a - b  #<<\n", "    return b - a"),
    ("swap_operands", "def f(a, b, c):\n    return (a - b) / c  #<<\n", "    return (c) / (a - b)"),
    ("drop_operand", "def f(a, b):\n    return a + b  #<<\n", "    return a"),
    ("add_offset", "def f(xs, i):\n    return xs[i]  #<<\n", "    return xs[i + 1]"),
    ("add_offset", "def f(xs, i):\n    return xs[i - 1]  #<<\n", "    return xs[i]"),
    ("add_offset", "def f(a, b):\n    return a * b  #<<\n", "    return a * (b - 1)"),
    ("change_arithmetic", "def f(a, b):\n    return a + b  #<<\n", "    return a - b"),
    ("change_arithmetic", "def f(a, b):\n    a += b  #<<\n    return a\n", "    a -= b"),
    ("change_comparison", "def f(a, b):\n    return (a) < (b)  #<<\n", "    return (a) <= (b)"),
    ("change_comparison", "def f(a, b):\n    return a not in b  #<<\n", "    return a in b"),
    ("change_comparison", "def f(a):\n    return a is None  #<<\n", "    return a is not None"),
    ("change_boolean_operator", "def f(a, b):\n    return a and b  #<<\n", "    return a or b"),
    ("change_unary", "def f(a):\n    if a:  #<<\n        return 1\n", "    if not a:"),
    ("change_unary", "def f(a):\n    return -a  #<<\n", "    return a"),
    ("wrap_call", "def f(a):\n    return 'n' + a  #<<\n", "    return 'n' + str(a)"),
    ("bound_value", "def f(a):\n    return a  #<<\n", "    return max(a, 0)"),
    ("unwrap_call", "def f(a):\n    return list(a)  #<<\n", "    return a"),
    ("copy_value", "def f(self, a):\n    self.a = a  #<<\n", "    self.a = list(a)"),
    ("call_parentheses", "def f(a):\n    a.keys()\n    return a.keys  #<<\n", "    return a.keys()"),
    ("change_await", "async def f(a):\n    return a()  #<<\n", "    return await a()"),
    ("change_await", "async def f(a):\n    with a as b:  #<<\n        pass\n", "    async with a as b:"),
    ("change_attribute", "def f(a):\n    a.width = 1\n    return a.height  #<<\n", "    return a.width"),
    ("add_attribute", "def f(a):\n    print(a.name)\n    return a  #<<\n", "    return a.name"),
    ("remove_attribute", "def f(a):\n    return a.name  #<<\n", "    return a"),
    ("add_method_call", "def f(a):\n    return a  #<<\n", "    return a.strip()"),
    ("remove_method_call", "def f(a):\n    return a.strip()  #<<\n", "    return a"),
    ("change_number", "def f(a):\n    return a[3]  #<<\n", "    return a[2]"),
    ("flip_boolean", "def f():\n    return True  #<<\n", "    return False"),
    ("change_constant_type", "def f(a):\n    return a == 1  #<<\n", '    return a == "1"'),
    ("change_string", "def f(a):\n    return a['Name']  #<<\n", "    return a['name']"),
    ("change_string", 'def f(a):\n    return a.split("\\"")  #<<\n', '    return a.split("")'),
    ("convert_string", "def f(a):\n    return 'is {a}'  #<<\n", "    return f'is {a}'"),
    ("stricter_condition", "def f(a, b):\n    if a:  #<<\n        return b\n", "    if a and b is not None:"),
    ("stricter_condition", "def f(a, b):\n    if a or b:  #<<\n        return b\n", "    if a:"),
    ("looser_condition", "def f(a, b):\n    if a and b:  #<<\n        return b\n", "    if b:"),
    ("looser_condition", "def f(a, b):\n    if a and b:  #<<\n        return b\n", "    if a and b or b is None:"),
    (
        "change_condition",
        "def f(a, b):\n    if a > b:\n        return 1\n    if b:  #<<\n        return b\n",
        "    if a > b:",
    ),
    ("change_truth_test", "def f(a):\n    if not a:  #<<\n        return 1\n", "    if a is None:"),
    ("add_element", "def f(a, b):\n    return [a]  #<<\n", "    return [a, b]"),
    ("add_element", "def f(a, b):\n    return {'a': a}  #<<\n", "    return {'a': a, \"b\": b}"),
    ("remove_element", "def f(a, b):\n    return [a, b]  #<<\n", "    return [b]"),
    ("swap_elements", "def f(a, b):\n    return a, b  #<<\n", "    return b, a"),
    ("collect_value", "def f(a, b):\n    return a + b  #<<\n", "    return a + [b]"),
    ("default_value", "def f(a):\n    return len(a)  #<<\n", "    return len(a or [])"),
    ("insert_guard", "def f(a):\n    return len(a)  #<<\n", "    if a is None:\n        return 0\n    return len(a)"),
    ("wrap_in_if", "def f(a, b):\n    a.append(b)  #<<\n", "    if b is not None:\n        a.append(b)"),
    ("remove_guard", "def f(a, b):\n    if b:  #<<\n        a.append(b)\n", "def f(a, b):\n    a.append(b)\n"),
    ("change_index", "def f(a):\n    return a[0]  #<<\n", "    return a[-1]"),
    ("change_slice", "def f(a, n):\n    return a[n:]  #<<\n", "    return a[:n]"),
    ("add_subscript", "def f(a):\n    return a  #<<\n", "    return a[0]"),
    ("remove_subscript", "def f(a):\n    return a[0]  #<<\n", "    return a"),
    ("dictionary_access", "def f(d, k):\n    return d[k]  #<<\n", "    return d.get(k)"),
    ("dictionary_access", "def f(d, k):\n    return d.get(k)  #<<\n", "    return d[k]"),
    ("change_return", "def f(a):\n    b = a\n    return a  #<<\n", "    return b"),
    ("insert_return", "def f(a):\n    a.sum()  #<<\n", "    return a.sum()"),
    ("insert_return", "def f(a):\n    b = a  #<<\n", "    b = a\n    return b"),
    ("return_or_yield", "def f(a):\n    yield a  #<<\n", "    yield from a"),
    (
        "insert_statement",
        "def f(a, b):\n    a.close()\n    print(a)\n    print(b)  #<<\n",
        "    b.close()\n    print(b)",
    ),
    ("delete_statement", "def f(a):\n    a = 2  #<<\n    return a\n", ""),
    ("delete_statement", "def f(a):\n    if a:\n        a = 2  #<<\n    return a\n", "        pass"),
    (
        "move_statement",
        "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n        return n  #<<\n",
        "    return n",
    ),
    (
        "move_statement",
        "def f(xs):\n    n = 0\n    for x in xs:\n        n += x\n    print(n)  #<<\n",
        "        print(n)",
    ),
    ("swap_statements", "def f(a, b):\n    a = b  #<<\n    b = a\n", "def f(a, b):\n    b = a\n    a = b\n"),
    (
        "change_keyword_word",
        "def f(a):\n    if a:\n        return 1\n    if not a:  #<<\n        return 2\n",
        "    elif not a:",
    ),
    ("change_range", "def f(n):\n    return list(range(n))  #<<\n", "    return list(range(n + 1))"),
    ("change_range", "def f(a, b):\n    return list(range(a, b))  #<<\n", "    return list(range(a, b + 1))"),
    ("change_iterable", "def f(d):\n    for k, v in d:  #<<\n        print(k)\n", "    for k, v in d.items():"),
    ("break_or_continue", "def f(xs):\n    for x in xs:\n        break  #<<\n", "        continue"),
    ("comprehension_condition", "def f(xs):\n    return [x for x in xs]  #<<\n", "    return [x for x in xs if x]"),
    ("comprehension_condition", "def f(xs):\n    return [x for x in xs if x]  #<<\n", "    return [x for x in xs]"),
    ("change_exception", "def f(xs):\n    raise KeyError(xs)  #<<\n", "    raise ValueError(xs)"),
    (
        "widen_exception",
        "def f(x):\n    try:\n        return int(x)\n    except ValueError:  #<<\n        return 0\n",
        "    except (ValueError, TypeError):",
    ),
    (
        "wrap_in_try",
        "def f(x):\n    return int(x)  #<<\n",
        "    try:\n        return int(x)\n    except ValueError:\n        return False",
    ),
    ("assign_or_augment", "def f(a, b):\n    a = b  #<<\n    return a\n", "    a += b"),
    ("assign_or_augment", "def f(a, b):\n    a += b  #<<\n    return a\n", "    a = b"),
    ("keep_result", "def f(a):\n    a.strip()  #<<\n    return a\n", "    a = a.strip()"),
    ("change_default", "def f(a=[]):  #<<\n    return a\n", "def f(a=None):"),
    (
        "change_decorator",
        "class A:\n    def make(cls):  #<<\n        return cls()\n",
        "    @classmethod\n    def make(cls):",
    ),
    (
        "replace_expression",
        "def f(a, b):\n    print(a.size - 1)\n    return b  #<<\n",
        "    return a.size - 1",
    ),
]


def edits_of(operator: str, program: str) -> tuple[list[str], str]:
    """The programs that the operator's edits make, and the program with the marked line cut out at `@`."""
    lines = program.split("\n")
    number = next(index for index, line in enumerate(lines) if line.endswith("#<<"))
    lines[number] = lines[number].removesuffix("#<<").rstrip()
    source = Source.from_text("a.py", "\n".join(lines))
    vocabulary = Vocabulary.build([source])
    edits = propose(source, number + 1, vocabulary, limit=5000, only=[operator])
    assert all(edit.operator == operator for edit in edits)
    return [edit.apply(source.text) for edit in edits], "\n".join([*lines[:number], "@", *lines[number + 1 :]])


@pytest.mark.parametrize(
    ("operator", "program", "wanted"), EXAMPLES, ids=lambda value: str(value).partition("\n")[0][:30]
)
def test_the_promised_edit_is_there(operator: str, program: str, wanted: str) -> None:
    made, frame = edits_of(operator, program)
    goal = frame.replace("@", wanted) if wanted else frame.replace("@\n", "")
    if wanted.endswith("\n"):
        goal = wanted
    assert goal in made, "\n---\n".join(made[:40])


def test_every_operator_has_an_example() -> None:
    assert {operator for operator, _, _ in EXAMPLES} == set(OPERATORS)
