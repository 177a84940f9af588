"""The exception tree: every error that a user can cause or mend is one of these.

    RiallmError (ValueError)
    |- UsageError          wrong options, missing files, nothing to do     exit 2
    |  `- ProjectError     the project cannot be worked on as it is        exit 2
    |- SandboxError        the sandbox itself is not available or broken   exit 3
    |- CheckpointError     weights or a saved run are damaged or foreign   exit 2
    |- TrainingError       a run cannot go on: its loss is no number       exit 1
    |- BudgetError         time, size or count limit of ours ran out       exit 1
    `- ClientError         a model client failed or lacks a capability     exit 2

Anything else that reaches the top is a bug of ours and keeps its traceback. A message says what was got,
what was expected, and what to do. "The sandbox is broken" is a type of its own so that it can never be
mistaken for the output of the program that ran inside.
"""

from __future__ import annotations


class RiallmError(ValueError):
    """Base of all errors meant for a user. `exit_code` is what the command line returns."""

    exit_code = 2


class UsageError(RiallmError):
    """The request cannot be carried out as written."""


class ProjectError(UsageError):
    """The project under repair cannot be worked on: no tests, all green, a syntax error, a lock held."""


class SandboxError(RiallmError):
    """No sandbox could be had, or it failed by itself. Never used for what ran inside."""

    exit_code = 3


class BudgetError(RiallmError):
    """A limit that we set on ourselves ran out."""

    exit_code = 1


class CheckpointError(RiallmError):
    """Weights, a tokenizer's data or a saved run are corrupt, truncated, foreign or of another shape."""


class TrainingError(RiallmError):
    """A training run cannot go on; its last good state is on the disk."""

    exit_code = 1


class ClientError(RiallmError):
    """A model client failed, or was asked for something that its `capabilities` deny."""
