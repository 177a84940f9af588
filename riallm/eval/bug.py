"""One item of a repair set: a folder with a bug, the tests that show it, and the tests that judge a fix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from riallm.code.edit import Edit
from riallm.core.files import canonical_json, sha256

PATTERNS = (
    "off-by-one",
    "missing null check",
    "type error",
    "race condition",
    "memory leak",
    "api misuse",
    "configuration error",
    "other",
)
"""The debug patterns of the RIA document's section 5.5.2, and "other"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One item. Paths are relative to the project folder, with forward slashes.

    write: puts the whole project with all its tests into an empty folder; with `fixed` as it should be, else with
      the bug.
    visible: pytest arguments of the command that the repair is given. A test module that is neither here nor
      imported is taken out of the folder before the repair sees it.
    hidden: pytest arguments of the tests that judge a fix (their passes without the bug are what must pass).
    withheld: tests of the visible modules that are kept from the repair and belong to the hidden ones.
    injector: "operator:NAME", "unlike:NAME" or "real".
    gold: the edits that give the correct text back, for reference; empty where the truth is another program.
    digest: hash of everything that a verdict depends on; verdicts are cached under it.
    """

    id: str
    set: str
    pattern: str
    injector: str
    write: Callable[[Path, bool], None]
    visible: tuple[str, ...]
    hidden: tuple[str, ...]
    withheld: tuple[str, ...] = ()
    gold: tuple[Edit, ...] = ()
    python: str = ""  # relative to the project; empty: the interpreter that evaluates
    readable: tuple[Path, ...] = ()
    digest: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """How the bug came about: "operator", "unlike" or "real"."""
        return self.injector.partition(":")[0]

    @property
    def visible_args(self) -> tuple[str, ...]:
        """pytest arguments of the visible run, the withheld tests left out."""
        return (*self.visible, *(f"--deselect={name}" for name in self.withheld))


def digest_of(*parts: object) -> str:
    """Hash of JSON values: the `digest` of a bug made from them."""
    return sha256(canonical_json(parts).encode())[:24]
