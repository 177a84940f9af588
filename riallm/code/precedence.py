"""How tightly an expression binds, and how tightly its place wants it: whether a replacement needs parentheses.

Levels follow the table of operator precedence in the Python language reference, loosest first.
"""

from __future__ import annotations

import ast

TUPLE, TERNARY, OR, AND, NOT, COMPARISON, BIT_OR, BIT_XOR, BIT_AND, SHIFT, SUM, TERM, UNARY, POWER, AWAIT, ATOM = range(
    16
)

_BINARY: dict[type[ast.operator], int] = {
    ast.BitOr: BIT_OR,
    ast.BitXor: BIT_XOR,
    ast.BitAnd: BIT_AND,
    ast.LShift: SHIFT,
    ast.RShift: SHIFT,
    ast.Add: SUM,
    ast.Sub: SUM,
    ast.Mult: TERM,
    ast.Div: TERM,
    ast.FloorDiv: TERM,
    ast.Mod: TERM,
    ast.MatMult: TERM,
    ast.Pow: POWER,
}
_WANTED: dict[tuple[type[ast.AST], str], int] = {
    (ast.Compare, "left"): BIT_OR,
    (ast.Compare, "comparators"): BIT_OR,
    (ast.IfExp, "body"): OR,
    (ast.IfExp, "test"): OR,
    (ast.IfExp, "orelse"): TERNARY,
    (ast.comprehension, "iter"): OR,
    (ast.comprehension, "ifs"): OR,
    (ast.FormattedValue, "value"): OR,
    (ast.Starred, "value"): BIT_OR,
    (ast.YieldFrom, "value"): TERNARY,
    (ast.Yield, "value"): TERNARY,
    (ast.NamedExpr, "value"): TERNARY,
    (ast.withitem, "context_expr"): TERNARY,
    (ast.FunctionDef, "decorator_list"): TERNARY,
    (ast.AsyncFunctionDef, "decorator_list"): TERNARY,
    (ast.ClassDef, "decorator_list"): TERNARY,
    (ast.ClassDef, "bases"): TERNARY,
    (ast.Dict, "keys"): TERNARY,
    (ast.Raise, "cause"): TERNARY,
    (ast.Match, "subject"): TERNARY,
    (ast.DictComp, "key"): TERNARY,
}
_BARE: tuple[tuple[type[ast.AST], str], ...] = (
    (ast.Assign, "value"),
    (ast.AugAssign, "value"),
    (ast.AnnAssign, "value"),
    (ast.Return, "value"),
    (ast.Expr, "value"),
    (ast.If, "test"),
    (ast.While, "test"),
    (ast.Assert, "test"),
    (ast.Assert, "msg"),
    (ast.For, "iter"),
    (ast.AsyncFor, "iter"),
    (ast.Raise, "exc"),
    (ast.Call, "args"),
    (ast.keyword, "value"),
    (ast.List, "elts"),
    (ast.Tuple, "elts"),
    (ast.Set, "elts"),
    (ast.Dict, "values"),
    (ast.Subscript, "slice"),
    (ast.Slice, "lower"),
    (ast.Slice, "upper"),
    (ast.Slice, "step"),
    (ast.Lambda, "body"),
    (ast.ListComp, "elt"),
    (ast.SetComp, "elt"),
    (ast.GeneratorExp, "elt"),
    (ast.DictComp, "value"),
    (ast.arguments, "defaults"),
    (ast.arguments, "kw_defaults"),
    (ast.match_case, "guard"),
)
_WANTED.update(dict.fromkeys(_BARE, TUPLE))


def level_of(node: ast.expr) -> int:
    """How tightly the expression binds when it is written without parentheses."""
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)]
    if isinstance(node, ast.UnaryOp):
        return NOT if isinstance(node.op, ast.Not) else UNARY
    if isinstance(node, ast.BoolOp):
        return AND if isinstance(node.op, ast.And) else OR
    if isinstance(node, ast.Compare):
        return COMPARISON
    if isinstance(node, ast.IfExp | ast.Lambda):
        return TERNARY
    if isinstance(node, ast.Await):
        return AWAIT
    if isinstance(node, ast.NamedExpr | ast.Tuple | ast.Starred | ast.Yield | ast.YieldFrom):
        return TUPLE
    return ATOM


def wanted(parent: ast.AST, field: str) -> int:
    """The loosest level that can stand at `parent.field` without parentheses."""
    if isinstance(parent, ast.BinOp):
        level = _BINARY[type(parent.op)]
        if isinstance(parent.op, ast.Pow):
            return AWAIT if field == "left" else UNARY
        return level if field == "left" else level + 1
    if isinstance(parent, ast.BoolOp):
        return NOT if isinstance(parent.op, ast.And) else AND
    if isinstance(parent, ast.UnaryOp):
        return NOT if isinstance(parent.op, ast.Not) else UNARY
    return _WANTED.get((type(parent), field), ATOM)
