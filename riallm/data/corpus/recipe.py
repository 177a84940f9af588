"""What a corpus is asked to be: which packages, which of them validate, and the shares that no part may pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from riallm.core.errors import UsageError
from riallm.core.files import canonical_json, sha256

RULES = "2"
"""Raise it when a filter changes what is kept: packages that were built under other rules are built again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRecipe:
    """packages: names, in the order in which they are built; of two copies the first package keeps its own.

    validation: names among them that are never trained on; put them first, so that their copies elsewhere go.
    test_share: at most this share of a package's bytes is tests. package_bytes: at most so much of one package.
    row_bytes: files of a package are joined in rows of about this size; a longer file is a row of its own.
    """

    name: str
    packages: tuple[str, ...]
    validation: tuple[str, ...]
    test_share: float = 0.25
    package_bytes: int = 12_000_000
    row_bytes: int = 100_000

    def __post_init__(self) -> None:
        stray = [name for name in self.validation if name not in self.packages]
        if stray or len(set(self.packages)) < len(self.packages):
            raise UsageError(f"recipe {self.name}: {', '.join(stray) or 'a package'} is not once among its packages")
        if not 0 <= self.test_share < 1 or min(self.package_bytes, self.row_bytes) < 1:
            raise UsageError(f"recipe {self.name}: test_share must be in [0, 1), sizes must be positive")

    @property
    def digest(self) -> str:
        """Changes with everything that decides what is kept, the list of packages apart."""
        values = asdict(self)
        for name in ("name", "packages", "validation"):
            del values[name]
        return sha256(canonical_json({**values, "rules": RULES}).encode())
