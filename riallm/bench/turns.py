"""What a turn of a conversation costs as it gets longer: `riallm bench turns [--turns 128]`.

RxT in Beta-Micro's shape, beside a model without memory of as many active parameters, once with the keys and values of
all earlier turns at hand, once reading them anew every turn. Weights are random: they do not matter for time. A turn is
a query, an answer of a fixed length, and for RxT the update of its memory, which is told apart: nobody waits for it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from riallm.bench.card import Card, Figure, emit
from riallm.bench.peak import check_peak
from riallm.bench.progress import progress_bar
from riallm.bench.reactive import Reactive, counting_process
from riallm.bench.stateless import Turn, peer_config, peer_process
from riallm.core.errors import RiallmError, UsageError
from riallm.core.picture import check_plot, picture
from riallm.eval.stats import Estimate, bootstrap


@dataclass(frozen=True, slots=True)
class Measured:
    """RxT's conversations, which began at the steps `begins`; the peer's with its keys and values at hand; and of the
    turns with the numbers `chosen` the peer's that read all anew, and peaks and FLOPs of the first conversation."""

    ours: list[list[Turn]]
    begins: list[int]
    cached: list[Turn]
    chosen: list[int]
    anew: list[Turn]
    peaks: list[int]
    flops: list[int]


def slope(costs: Sequence[Sequence[float]], begins: Sequence[int]) -> Estimate:
    """The change a turn, as a share of the mean, of conversations that began at different steps: turns of the same step
    are compared with each other, so that a machine that gets slower or faster makes no slope. Interval by bootstrap
    over steps. First turns are left out."""
    mean = statistics.fmean(cost for each in costs for cost in each[1:])
    steps: dict[int, list[tuple[int, float]]] = {}
    for begin, each in zip(begins, costs, strict=True):
        for turn, cost in enumerate(each[1:], start=1):
            steps.setdefault(begin + turn, []).append((turn, cost / mean))
    compared = []
    for found in steps.values():
        middle = [statistics.fmean(values) for values in zip(*found, strict=True)]
        turns = [turn - middle[0] for turn, _ in found]
        rises = [cost - middle[1] for _, cost in found]
        if len(found) > 1:
            compared.append((sum(t * c for t, c in zip(turns, rises, strict=True)), sum(t * t for t in turns)))

    def fitted(pairs: Sequence[tuple[float, float]]) -> float:
        return sum(rise for rise, _ in pairs) / sum(square for _, square in pairs)

    return bootstrap(compared, fitted, seed=0)


def crossing(turns: Sequence[int], ours: float, theirs: Sequence[float]) -> float | None:
    """The turn from which on theirs costs more than ours, between measured turns by a straight line; None: the last
    does not."""
    less = [at for at, cost in enumerate(theirs) if cost <= ours]
    if not less:
        return float(turns[0])
    at = less[-1]
    if at + 1 == len(theirs):
        return None
    (turn, later), (cost, more) = turns[at : at + 2], theirs[at : at + 2]
    return turn + (later - turn) * (ours - cost) / (more - cost)


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench turns", description="what turn 2 to N of a conversation costs")
    parser.add_argument("--turns", type=int, default=128, help="of the conversation (default 128)")
    parser.add_argument("--query", type=int, default=64, help="tokens of a query (default 64)")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer (default 32)")
    parser.add_argument("--layers", type=int, default=14, help="a shallower model, for a trial (default 14)")
    parser.add_argument(
        "--conversations", type=int, default=4, help="that begin one after another, for slopes (default 4)"
    )
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw what each turn took")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    options = parser.parse_args(argv)
    try:
        if options.device == "cpu":
            check_peak()
        if options.turns < 3 or options.query < 1 or options.answer < 2 or options.layers < 1:
            raise UsageError("--turns is from 3 on, --query from 1, --answer from 2, --layers from 1")
        if not 2 <= options.conversations <= options.turns:
            raise UsageError("--conversations is from 2 on, and not more than --turns")
        if options.plot:
            check_plot(options.plot)
        measured = measure(
            options.turns, options.query, options.answer, options.layers, options.conversations, options.device
        )
    except RiallmError as error:
        sys.stderr.write(f"turns: {error}\n")
        return error.exit_code
    figures = told(measured) | {"query": options.query, "answer": options.answer} | machine(options.device)
    if options.plot:
        draw(measured, options.plot)
    emit(Card(name="turns", command=" ".join(["riallm bench turns", *argv]), figures=figures))
    return 0


def machine(device: str) -> dict[str, Figure]:
    """What it was measured with."""
    import torch

    name = "processor" if device == "cpu" else torch.cuda.get_device_name()
    return {"device": name, "threads": torch.get_num_threads()}


def measure(num: int, query: int, answer: int, layers: int, conversations: int, device: str = "cpu") -> Measured:
    """All turns. Those whose number is a power of two are counted too, and measured with the history read anew. Raises
    UsageError where the device is not there."""
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"PyTorch sees no GPU here, so nothing is measured with --device {device}; leave it out")

    from riallm.models.zoo import RXT_BETA_MICRO

    shape, threads = replace(RXT_BETA_MICRO, num_layers=layers), torch.get_num_threads()
    talker = Reactive(shape, device=device)
    each, chosen = query + answer, [2**k for k in range(20) if 2**k <= num]
    begins = [number * num // conversations for number in range(conversations)]
    steps = num + begins[-1]
    with (
        torch.inference_mode(),
        peer_process(peer_config(shape), num_tokens=num * each, num_threads=threads, device=device) as peer,
        counting_process(shape, num_threads=threads, device=device) as counting,
        progress_bar("turns", steps + len(chosen)) as done,
    ):
        memories = [talker.model.start() for _ in begins]
        ours: list[list[Turn]] = [[] for _ in begins]
        cached: list[Turn] = []
        anew: list[Turn] = []
        watched = []
        order = random.Random(0)  # who comes first has colder caches: it shall not always be the longest conversation
        for step in range(steps):  # side by side, so that a busy moment of the machine meets all of them
            watched += [memories[0]] if step + 1 in chosen else []
            for number in order.sample(range(len(begins) + 1), len(begins) + 1):
                if number == len(begins):
                    cached += [peer.turn(query, answer)] if step < num else []
                elif 0 <= step - begins[number] < num:
                    turn, memories[number] = talker.turn(memories[number], query, answer)
                    ours[number].append(turn)
            done(step + 1)
        for number, before in enumerate(chosen):
            anew.append(peer.turn_anew((before - 1) * each, query, answer))
            done(steps + number + 1)
        peaks = [counting.peak(memory, query, answer) for memory in watched]
        flops = [counting.flops(memory, query, answer) for memory in watched]
    return Measured(ours, begins, cached, chosen, anew, peaks, flops)


def told(measured: Measured) -> dict[str, Figure]:
    """The figures of all turns. The first turn warms up and counts nowhere."""
    conversations, cached, anew, chosen = measured.ours, measured.cached, measured.anew, measured.chosen
    ours = conversations[0]
    later = [turn for turns in conversations for turn in turns[1:]]
    figures: dict[str, Figure] = {"turns": len(ours), "conversations": len(conversations)}
    for name in ("first", "rest", "update"):
        figures[f"{name}_milliseconds"] = 1000 * statistics.median(getattr(turn, name) for turn in later)
        change = slope([[getattr(turn, name) for turn in turns] for turns in conversations], measured.begins)
        figures[f"{name}_slope_percent_a_turn"] = 100 * change.value
        figures[f"{name}_slope_low"], figures[f"{name}_slope_high"] = 100 * change.low, 100 * change.high
    same = {"flops": measured.flops[1:], "kept": [turn.kept for turn in later], "peak": measured.peaks[1:]}
    for name, values in same.items():
        figures[f"{name}_median"] = statistics.median(values)
        figures[f"{name}_spread_percent"] = 100 * (max(values) - min(values)) / statistics.median(values)
    turns = range(2, len(ours) + 1)
    first = statistics.median(turn.first for turn in later)
    whole = statistics.median(turn.first + turn.rest + turn.update for turn in later)
    flops = statistics.median(same["flops"])
    rest_of = cached[1:]
    figures["cached_first_from_turn"] = crossing(turns, first, _line([turn.first for turn in rest_of]))
    figures["cached_whole_from_turn"] = crossing(turns, whole, _line([turn.first + turn.rest for turn in rest_of]))
    figures["cached_flops_from_turn"] = crossing(turns, flops, [turn.flops for turn in rest_of])
    figures["cached_bytes_from_turn"] = crossing(turns, later[0].kept, [turn.kept for turn in rest_of])
    at, reads = chosen[1:], anew[1:]
    figures["anew_first_from_turn"] = crossing(at, first, [turn.first for turn in reads])
    figures["anew_whole_from_turn"] = crossing(at, whole, [turn.first + turn.rest for turn in reads])
    figures["anew_flops_from_turn"] = crossing(at, flops, [turn.flops for turn in reads])
    for turn, read in zip(chosen, anew, strict=True):
        kept = cached[turn - 1]
        figures[f"turn_{turn}_first_milliseconds_ours"] = 1000 * ours[turn - 1].first
        figures[f"turn_{turn}_first_milliseconds_cached"] = 1000 * kept.first
        figures[f"turn_{turn}_first_milliseconds_anew"] = 1000 * read.first
        figures[f"turn_{turn}_gflops_cached"] = kept.flops / 1e9
        figures[f"turn_{turn}_gflops_anew"] = read.flops / 1e9
    return figures


def _line(values: Sequence[float]) -> list[float]:
    """The line of Theil and Sen, which a few turns on a busy machine do not move: through the middle, with the median
    of all slopes."""
    rise = statistics.median((b - a) / (j - i) for (i, a), (j, b) in combinations(enumerate(values), 2))
    begin = statistics.median(value - rise * at for at, value in enumerate(values))
    return [begin + rise * at for at in range(len(values))]


def draw(measured: Measured, path: Path) -> None:
    """Milliseconds by turn, to the first token and of the whole turn, RxT's with the update; the first is left out."""
    later = range(2, len(measured.cached) + 1)
    every = [(turn, cost) for costs in measured.ours for turn, cost in zip(later, costs[1:], strict=True)]
    drawn = {
        ("RxT", "C0."): every,
        ("stateless, keys and values at hand", "C1."): list(zip(later, measured.cached[1:], strict=True)),
        ("stateless, reading all anew", "C2o-"): list(zip(measured.chosen, measured.anew, strict=True))[1:],
    }
    with picture(path, rows=2) as [first, whole]:
        for (name, style), turns in drawn.items():
            at = [turn for turn, _ in turns]
            first.plot(at, [1000 * cost.first for _, cost in turns], style, label=name, markersize=3)
            whole.plot(at, [1000 * (cost.first + cost.rest + cost.update) for _, cost in turns], style, markersize=3)
        first.set_ylabel("to the first token, ms")
        whole.set_ylabel("a whole turn, ms")
        first.set_yscale("log")
        whole.set_yscale("log")
        first.legend(fontsize=8)
        whole.set_xscale("log", base=2)
        whole.set_xlabel("turn of the conversation")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
