"""Edit operators: the ways in which one statement of a program can be wrong, and the edits that would mend it."""

from riallm.code.operators.propose import categorise, drawn, propose, propose_keyed
from riallm.code.operators.table import OPERATORS
from riallm.code.regions import statement_key

__all__ = ["OPERATORS", "categorise", "drawn", "propose", "propose_keyed", "statement_key"]
