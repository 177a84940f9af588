"""The engine end to end: answers, prompts and company: `riallm bench engine [--model NAME] [--peers]`.

Weights are drawn at random where nobody has the name's, since speed does not depend on them. One request after another
is asked for an answer behind a short prompt (decode), for one token behind a long one (prefill), and many at once. The
fixed cost of a token is what is left of its time without the operations that read weights. A peer is asked for the same
tokens in the same round, right after us.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.bench import llama_cpp, llama_cpp_file, llama_cpp_peer
from riallm.bench.card import Card, Figure, emit
from riallm.bench.kernels import bandwidth
from riallm.bench.llama_cpp import VARIANTS
from riallm.bench.llama_cpp_peer import VARIABLE, Peer
from riallm.core.errors import RiallmError, UsageError

if TYPE_CHECKING:
    from riallm.engine.auto import LocalModel
    from riallm.engine.request import Usage

MEGABYTES = 512


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench engine", description="speed of the engine")
    parser.add_argument(
        "--model", default="qwen2.5-1.5b", help="a name or path (default: qwen2.5-1.5b, random weights)"
    )
    parser.add_argument("--compression", default="4bit", choices=("none", "8bit", "4bit", "nf4"))
    parser.add_argument("--prompt", type=int, default=512, metavar="N", help="tokens of the long prompt (default: 512)")
    parser.add_argument("--answer", type=int, default=48, metavar="N", help="tokens of an answer (default: 48)")
    parser.add_argument("--clients", type=int, default=32, metavar="N", help="requests at once (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="the medians are over so many (default: 5)")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="llama.cpp beside us, round by round: its Q4_K_M (as it comes, and without repacking) and Q4_0 of the "
        "same shape, made once in the cache folder (2 GB for the default), or the same file where --model is one",
    )
    parser.add_argument(
        "--peer-python",
        metavar="PATH",
        help=f"the Python that has llama-cpp-python (default: {VARIABLE}, else our own)",
    )
    options = parser.parse_args(argv)
    try:
        figures = run(options)
    except RiallmError as error:
        sys.stderr.write(f"engine: {error}\n")
        return error.exit_code
    emit(Card(name="engine", command=" ".join(["riallm bench engine", *argv]), figures=figures))
    return 0


def run(options: argparse.Namespace) -> dict[str, Figure]:
    """All figures. Raises UsageError for what cannot be measured."""
    if min(options.prompt, options.clients, options.rounds) < 1 or options.answer < 2:
        raise UsageError("--prompt, --clients and --rounds are from 1 on, --answer from 2 on: its first token is apart")
    if options.peer_python and not options.peers:
        raise UsageError("--peer-python names who runs a peer; say --peers, too")
    import torch

    from riallm.models.zoo import ZOO
    from riallm.quant.compiled import kernel_status

    load = os.getloadavg()[0]  # a busy machine slows most whoever has threads that wait for each other
    # The peer first: what is wrong with it shows before anything takes long.
    with peers_of(options, threads=torch.get_num_threads()) as peers:
        model = opened(options.model, options.compression, options.model in ZOO)
        try:
            return {
                "load_before": load,
                "kernels": kernel_status(),
                "threads": torch.get_num_threads(),
                "layers": model.model.sizes.num_hidden_layers,
                "weight_gb": model.resident.weight_bytes / 1e9,
                **measure(model, options.prompt, options.answer, options.clients, options.rounds, peers),
            }
        finally:
            model.close()


@contextmanager
def peers_of(options: argparse.Namespace, *, threads: int) -> Iterator[list[Peer]]:
    """Those that were asked for, with a model each. Raises UsageError where there is no peer, or none for the model."""
    from riallm.models.zoo import ZOO

    if not options.peers:
        yield []
        return
    python = llama_cpp.interpreter(options.peer_python)
    about = llama_cpp.about(python)
    path = Path(options.model)
    if options.model in ZOO:
        made = llama_cpp_file.files_of(
            options.model,
            sorted({variant.kind for variant in VARIANTS}),
            partial(llama_cpp.quantise, python, threads=threads),
            say=lambda text: sys.stderr.write(f"engine: {text}\n"),
        )
        files = {variant: made[variant.kind] for variant in VARIANTS}
    elif path.suffix == ".gguf" and path.is_file():
        files = {variant: path for variant in VARIANTS if variant.kind == VARIANTS[0].kind}
    else:
        raise UsageError(
            f"--peers compares with the same model, and llama.cpp cannot open {options.model}; name a .gguf file "
            f"(riallm convert writes them) or a shape: {', '.join(ZOO)}"
        )
    context = max(options.prompt, 16 + options.answer)
    with llama_cpp_peer.opened(python, about, files, threads=threads, context=context) as peers:
        yield peers


def opened(name: str, compression: str, random: bool) -> LocalModel:
    """The model, with nothing drafted: speculation has a benchmark of its own."""
    from riallm.engine.auto import AutoModel, ModelOptions
    from riallm.engine.local import EngineOptions

    options = ModelOptions(compression=compression, random_weights=random)  # type: ignore[arg-type]
    engine = EngineOptions(kv_bytes=2 << 30, lookahead=0)
    return AutoModel.from_pretrained(name, options, engine_options=engine)


def measure(
    model: LocalModel, long: int, answer: int, clients: int, rounds: int, peers: Sequence[Peer] = ()
) -> dict[str, Figure]:
    """Figures of one model, medians over rounds in which everything takes its turn."""
    decode: dict[str, list[float]] = {name: [] for name in ("", *(peer.name for peer in peers))}
    prefill: dict[str, list[float]] = {name: [] for name in decode}
    together: list[float] = []
    read: list[float] = []
    spent: list[dict[str, float]] = []
    for number in range(rounds + 1):
        short, far = prompt(model, 16, number), prompt(model, long, 100 + number)
        written = {"": _speed(ask(model, [short], answer))}
        written |= {peer.name: peer.decode(short, answer) for peer in peers}
        (one,) = ask(model, [far], 1)
        understood = {"": one.prompt_tokens / one.prompt_seconds}
        understood |= {peer.name: peer.prefill(far) for peer in peers}
        many = ask(model, [prompt(model, 16, 1000 * (number + 1) + client) for client in range(clients)], answer)
        parts = taken_apart(model, answer)
        if number:  # the first round warms up
            spent.append(parts)
            for name in decode:
                decode[name].append(written[name])
                prefill[name].append(understood[name])
            together.append(_speed(many))
            read.append(bandwidth(MEGABYTES << 20, rounds=3))
    a_second, gb = statistics.median(decode[""]), model.resident.weight_bytes / 1e9
    bandwidth_gb = statistics.median(read)
    flops = model.resident.costs.flops_per_token
    return {
        "read_gb_a_second": bandwidth_gb,
        "decode_tokens_a_second": a_second,
        "decode_bandwidth_share": a_second * gb / bandwidth_gb,
        **{name: statistics.median(parts[name] for parts in spent) for name in spent[0]},
        "prefill_tokens": long,
        "prefill_tokens_a_second": statistics.median(prefill[""]),
        "prefill_gop_a_second": statistics.median(prefill[""]) * flops / 1e9,
        "clients": clients,
        "clients_tokens_a_second": statistics.median(together),
        "clients_over_one": statistics.median(together) / a_second,
        **llama_cpp.figures(peers, {"decode": decode, "prefill": prefill}),
    }


def taken_apart(model: LocalModel, answer: int) -> dict[str, float]:
    """Milliseconds of a token behind the first one: in all, of each operation of the blocks, and of the head. `fixed`
    is what is left without those that read weights, `python` what no operation takes. Empty without a compiled pass."""
    import torch

    program = model.model.program
    if program is None:
        return {}
    before, num_before = program.spent(), program.num_runs
    (usage,) = ask(model, [[0]], answer)  # of one token, so that its pass is like those of the answer
    after, num = program.spent(), program.num_runs - num_before
    whole = 1e3 / _speed([usage])
    parts = {name: 1e3 * (after[name].seconds - before[name].seconds) / num for name in after}
    hidden = torch.zeros(1, model.model.sizes.hidden_size)
    heads = []
    for _ in range(5):
        began = time.perf_counter()
        model.model.logits(hidden)
        heads.append(1e3 * (time.perf_counter() - began))
    parts["head"] = statistics.median(heads)
    weights = sum(parts[name] for name in parts if name == "head" or after[name].weight_bytes)
    return {
        "ms_a_token": whole,
        "fixed_ms_a_token": whole - weights,
        **{f"{name} ms": value for name, value in parts.items()},
        "python ms": whole - sum(parts.values()),
    }


def prompt(model: LocalModel, num: int, seed: int) -> list[int]:
    """Random tokens: nothing of one is in another."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(0, model.model.sizes.vocab_size, (num,), generator=draw).tolist()
    return ids


def ask(model: LocalModel, prompts: Sequence[Sequence[int]], answer: int) -> list[Usage]:
    """All at once; what each came to, when all are finished."""
    from riallm.engine.request import Request, Sampling

    sampling = Sampling(temperature=0.0)
    tickets = [model.engine.submit(Request(ids=tuple(ids), max_tokens=answer, sampling=sampling)) for ids in prompts]
    found: list[Usage] = []
    for ticket in tickets:
        while True:
            piece = ticket.next()
            assert piece is not None
            if piece.usage is not None:
                found.append(piece.usage)
                break
    return found


def _speed(usages: Sequence[Usage]) -> float:
    """Tokens a second of all together, from the first one on: the first token of each belongs to its prompt."""
    tokens = sum(each.completion_tokens - 1 for each in usages)
    return tokens / max(each.completion_seconds for each in usages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
