"""The escape suite: every attack in every tier, as root and as an ordinary user, beside the same attack run free.

    riallm bench escape [--who root,user] [--run free,bubblewrap,...] [--peers]

An attack whose free run fails (its kernel feature is absent, or it takes root) proves nothing by being held; such
runs have a sign of their own and are counted. Prints a table and a card, whose last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from riallm.bench import ordinary, peers
from riallm.bench.attacks import ALL, Attack
from riallm.bench.attacks.run import Runner, free, in_tier, run_all
from riallm.bench.card import Card, emit
from riallm.core.errors import SandboxError
from riallm.sandbox import probe
from riallm.sandbox.base import Tier

Found = dict[str, dict[str, bool | str]]  # run -> attack -> got through, or why the run failed
FREE = "free"

# What the weaker tiers are known not to hold: (run, who) -> names of attacks. A gap that closes must leave here.
# Landlock rules opening files, not asking about them or changing what belongs to the same user anyway; and without
# a mount of its own the number of files is not limited. As root the uid drop holds three more.
GAPS: dict[tuple[str, str], frozenset[str]] = {
    ("landlock", "root"): frozenset({"files without end", "size and times of a hidden file", "watch a folder outside"}),
    ("landlock", "user"): frozenset(
        {
            "attributes of a file outside",
            "files without end",
            "permissions of a file outside",
            "size and times of a hidden file",
            "times of a file outside",
            "watch a folder outside",
        }
    ),
}


def runs(*, with_peers: bool) -> dict[str, Runner]:
    """Name -> how to run: free, the tiers that work here, and other people's sandboxes that are installed."""
    found: dict[str, Runner] = {FREE: free()}
    for report in probe():
        if report.available:
            found[str(report.tier)] = in_tier(report.tier)
    return found | (peers.runners() if with_peers else {})


def measure(names: Sequence[str], *, with_peers: bool = False, attacks: Sequence[Attack] = ALL) -> Found:
    """Run attacks as the user that this process is; SandboxError for a run that is not available here."""
    known = runs(with_peers=with_peers)
    missing = [name for name in names if name not in known]
    if missing:
        raise SandboxError(f"not available here: {', '.join(missing)}; available: {', '.join(known)}")
    found: Found = {}
    for name in names or known:
        # not in the folder for temporary files, where other sandboxes allow writing
        place = Path.home() if os.geteuid() else Path("/var/tmp")
        folder = Path(tempfile.mkdtemp(prefix="riallm-escape-", dir=place))
        folder.chmod(0o755)  # so that it is the sandbox that hides it, not its permissions
        found[name] = run_all(attacks, known[name], folder)
    return found


def measure_ordinary(names: Sequence[str], *, with_peers: bool = False) -> Found:
    """The same as an ordinary user, for which this process must be root."""
    with tempfile.TemporaryDirectory(prefix="riallm-home-", dir="/var/tmp") as home:
        os.chmod(home, 0o755)
        words = ["--who", "self", "--found", *(["--run", ",".join(names)] if names else [])]
        words += ["--peers"] if with_peers else []
        done = subprocess.run(
            [sys.executable, "-m", "riallm.bench.ordinary", home, "riallm.bench.escape", *words],
            capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ordinary.needed()[0])},
        )  # fmt: skip
    if done.returncode:
        raise SandboxError(f"the run as an ordinary user failed: {done.stderr.strip()[-2000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def sign(run: str, attack: Attack, found: Found) -> str:
    """One cell of the table; SIGNS tells what it says."""
    result = found[run][attack.name]
    if isinstance(result, str):
        return "!"
    if result:
        return "T"
    proven = run == FREE or FREE not in found or found[FREE][attack.name] is True
    return "." if proven else "o"


SIGNS = {
    "T": "got through",
    ".": "held",
    "o": "held, but so was the free run: it takes root, or something that this machine lacks",
    "!": "the run itself failed",
}


def table(found: dict[str, Found]) -> str:
    """All results: what the columns are, one attack a line, then the sums."""
    columns = {chr(ord("a") + n): pair for n, pair in enumerate((who, run) for who in found for run in found[who])}
    width = max(len(attack.name) for attack in ALL)
    lines = [f"{letter}  {run}, {who}" for letter, (who, run) in columns.items()]
    lines += ["", *(f"{mark}  {text}" for mark, text in SIGNS.items()), ""]
    lines.append(f"{'attack':{width}}  number  {'   '.join(columns)}")
    for attack in ALL:
        cells = "   ".join(sign(run, attack, found[who]) for who, run in columns.values())
        lines.append(f"{attack.name:{width}}  {attack.number:>6}  {cells}")
    for mark, text in SIGNS.items():
        counts = [sum(sign(run, attack, found[who]) == mark for attack in ALL) for who, run in columns.values()]
        lines.append(f"{text.partition(',')[0] + f' ({mark})':{width}}        " + " ".join(f"{n:>3}" for n in counts))
    return "\n".join(lines)


def figures(found: dict[str, Found]) -> dict[str, int]:
    """The sums for the card."""
    counts = {"attacks": len(ALL)}
    for who, results in found.items():
        for run, result in results.items():
            counts[f"through {run}, {who}"] = sum(value is True for value in result.values())
            broken = sum(isinstance(value, str) for value in result.values())
            if broken:
                counts[f"broken {run}, {who}"] = broken
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Exit code 1 when something came through the strongest tier."""
    parser = argparse.ArgumentParser(
        prog="riallm bench escape", description="every attack in every tier, beside the same attack run free"
    )
    parser.add_argument(
        "--who",
        default="root,user" if os.geteuid() == 0 else "self",
        help="root, user or self, with commas (default: root,user for root, else self)",
    )
    parser.add_argument("--run", default="", help="free, and names of tiers and peers, with commas (default: all)")
    parser.add_argument("--peers", action="store_true", help="beside other sandboxes that are installed")
    parser.add_argument("--found", action="store_true", help="print no card but each attack's outcome, as JSON")
    options = parser.parse_args(argv)
    names = [name for name in options.run.split(",") if name]
    found: dict[str, Found] = {}
    for who in options.who.split(","):
        take = measure_ordinary if who == "user" else measure
        found[who] = take(names, with_peers=options.peers)
    if options.found:
        sys.stdout.write(json.dumps(found["self"] if options.who == "self" else found) + "\n")
        return 0
    sys.stdout.write(table(found) + "\n\n")
    command = " ".join(["riallm bench escape", *(argv if argv is not None else sys.argv[1:])])
    emit(Card(name="escape", command=command, figures=figures(found)))
    strongest = (results.get(str(Tier.BUBBLEWRAP), {}) for results in found.values())
    return int(any(result is not False for results in strongest for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
