"""llama.cpp as a peer of the engine: where it is found, in which ways it is run, and what the card says of it.

It runs the same shape with as many threads over the same tokens, in processes of its own (`llama_cpp_peer.py`) that
take turns with ours. What either side spends of the processor while the other works is measured, so that a comparison
in which threads spin shows it.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from riallm.bench.card import Figure
from riallm.bench.llama_cpp_peer import INSTALL, PATIENCE, VARIABLE, Peer, Variant, answer_of, number, run
from riallm.core.errors import UsageError

VARIANTS = (
    Variant(name="llama_cpp", kind="q4_k_m"),
    Variant(name="llama_cpp_plain", kind="q4_k_m", repack=False),
    Variant(name="llama_cpp_q4_0", kind="q4_0"),
)
"""What people run by default comes first. Which is fastest depends on the processor and the task, and a comparison is
with the fastest, so the others are measured, too."""


def interpreter(named: str | None) -> str:
    """The Python that has llama-cpp-python: the one named, the variable's, or our own. Raises UsageError for none."""
    found = named or os.environ.get(VARIABLE)
    if found:
        return found
    if importlib.util.find_spec("llama_cpp") is None:
        raise UsageError(f"--peers compares with llama.cpp, which is not installed here. {INSTALL}")
    return sys.executable


def about(python: str) -> dict[str, Any]:
    """Version and build of llama.cpp in an interpreter. Raises UsageError where there is none."""
    return answer_of(run(python, "about", patience=PATIENCE))


def quantise(python: str, source: Path, target: Path, kind: str, *, threads: int) -> None:
    """A GGUF file in another type, by llama.cpp. Raises UsageError where that fails."""
    run(python, "quantise", str(source), str(target), kind, str(threads), patience=6 * PATIENCE)
    if not target.exists():
        raise UsageError(f"llama.cpp's worker wrote no {target}")


def figures(peers: Sequence[Peer], taken: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Figure]:
    """What the card says. taken: "decode" and "prefill" -> "" for ours or a peer's name -> tokens a second, a round
    each. Ratios are medians of the rounds' ratios, ours over theirs: what slows a whole round is in both. "best" is
    whichever of theirs has the highest median in a task."""
    if not peers:
        return {}
    found: dict[str, Figure] = {
        "llama_cpp_version": str(peers[0].about.get("version")),
        "llama_cpp_system": str(peers[0].about.get("system")),
    }
    for peer in peers:
        buffers = peer.ready.get("buffers_mib") or {}
        found[f"{peer.name}_model"] = str(peer.ready.get("ready"))
        found[f"{peer.name}_buffers_mib"] = ", ".join(f"{name} {size}" for name, size in buffers.items())
        found[f"{peer.name}_weight_gb"] = number(peer.ready, "weight_bytes") / 1e9
        for task, speeds in taken.items():
            found[f"{peer.name}_{task}_tokens_a_second"] = statistics.median(speeds[peer.name])
            found[f"{task}_ratio_{peer.name}"] = _ratio(speeds[""], speeds[peer.name])
    for task, speeds in taken.items():
        best = max((peer.name for peer in peers), key=lambda name: statistics.median(speeds[name]))
        found[f"{task}_best_llama_cpp"] = best
        found[f"{task}_ratio_best_llama_cpp"] = _ratio(speeds[""], speeds[best])
    own, idle = sum(peer.own_seconds for peer in peers), sum(peer.idle_seconds for peer in peers)
    found["idle_cores_while_llama_cpp_runs"] = sum(peer.own_cpu_seconds for peer in peers) / own
    found["llama_cpp_idle_cores"] = sum(peer.idle_cpu_seconds for peer in peers) / idle if idle else 0.0
    return found


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
