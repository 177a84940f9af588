"""Attacks on a sandbox as data: small harmless programs, and how the outside sees whether one got through."""

from __future__ import annotations

from riallm.bench.attacks.attack import Attack, Proof
from riallm.bench.attacks.files import FILES
from riallm.bench.attacks.kernel import KERNEL
from riallm.bench.attacks.network import NETWORK
from riallm.bench.attacks.processes import PROCESSES
from riallm.bench.attacks.resources import RESOURCES

ALL: tuple[Attack, ...] = (*FILES, *PROCESSES, *KERNEL, *RESOURCES, *NETWORK)

__all__ = ["ALL", "Attack", "Proof"]
