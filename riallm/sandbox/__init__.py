"""Running what is not trusted: one contract, tiers of isolation, limits, a warm worker.

`open_sandbox` and `probe` are imported on first use: the launcher imports this package too, and has no use for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from riallm.sandbox.open import TierReport as TierReport
    from riallm.sandbox.open import open_sandbox as open_sandbox
    from riallm.sandbox.open import probe as probe

_LAZY = ("TierReport", "open_sandbox", "probe")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from riallm.sandbox import open as opening

    return getattr(opening, name)
