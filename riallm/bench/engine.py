"""The engine end to end: answers, prompts and company: `python -m riallm.bench.engine [--model NAME]`.

Weights are drawn at random where nobody has the name's, since speed does not depend on them. One request after another
is asked for an answer behind a short prompt (decode), for one token behind a long one (prefill), and many at once. The
fixed cost of a token is what is left of its time when the bytes of all weights have been read at the read bandwidth of
the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from riallm.bench.card import Card, Figure, emit
from riallm.bench.kernels import bandwidth
from riallm.core.errors import RiallmError

if TYPE_CHECKING:
    from riallm.engine.auto import LocalModel
    from riallm.engine.request import Usage

MEGABYTES = 512


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="python -m riallm.bench.engine", description="speed of the engine")
    parser.add_argument(
        "--model", default="qwen2.5-1.5b", help="a name or path (default: qwen2.5-1.5b, random weights)"
    )
    parser.add_argument("--compression", default="4bit", choices=("none", "8bit", "4bit", "nf4"))
    parser.add_argument("--prompt", type=int, default=512, metavar="N", help="tokens of the long prompt (default: 512)")
    parser.add_argument("--answer", type=int, default=48, metavar="N", help="tokens of an answer (default: 48)")
    parser.add_argument("--clients", type=int, default=32, metavar="N", help="requests at once (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="the medians are over so many (default: 5)")
    options = parser.parse_args(argv)
    import torch

    from riallm.models.zoo import ZOO
    from riallm.quant.compiled import kernel_status

    try:
        model = opened(options.model, options.compression, options.model in ZOO)
        try:
            figures: dict[str, Figure] = {
                "kernels": kernel_status(),
                "threads": torch.get_num_threads(),
                "layers": model.model.sizes.num_hidden_layers,
                "weight_gb": model.resident.weight_bytes / 1e9,
                **measure(model, options.prompt, options.answer, options.clients, options.rounds),
            }
        finally:
            model.close()
    except RiallmError as error:
        sys.stderr.write(f"engine: {error}\n")
        return error.exit_code
    emit(Card(name="engine", command=" ".join(["python -m riallm.bench.engine", *argv]), figures=figures))
    return 0


def opened(name: str, compression: str, random: bool) -> LocalModel:
    """The model, with nothing drafted: speculation has a benchmark of its own."""
    from riallm.engine.auto import AutoModel, ModelOptions
    from riallm.engine.local import EngineOptions

    options = ModelOptions(compression=compression, random_weights=random)  # type: ignore[arg-type]
    engine = EngineOptions(kv_bytes=2 << 30, lookahead=0)
    return AutoModel.from_pretrained(name, options, engine_options=engine)


def measure(model: LocalModel, long: int, answer: int, clients: int, rounds: int) -> dict[str, Figure]:
    """Figures of one model, medians over rounds in which everything takes its turn."""
    decode: list[float] = []
    prefill: list[float] = []
    together: list[float] = []
    read: list[float] = []
    for number in range(rounds + 1):
        one = ask(model, [prompt(model, 16, number)], answer)
        far = ask(model, [prompt(model, long, 100 + number)], 1)
        many = ask(model, [prompt(model, 16, 1000 * (number + 1) + client) for client in range(clients)], answer)
        if number:  # the first round warms up
            decode.append(_speed(one))
            prefill.append(far[0].prompt_tokens / far[0].prompt_seconds)
            together.append(_speed(many))
            read.append(bandwidth(MEGABYTES << 20, rounds=3))
    a_second, gb = statistics.median(decode), model.resident.weight_bytes / 1e9
    bandwidth_gb = statistics.median(read)
    flops = model.resident.costs.flops_per_token
    return {
        "read_gb_a_second": bandwidth_gb,
        "decode_tokens_a_second": a_second,
        "decode_bandwidth_share": a_second * gb / bandwidth_gb,
        "fixed_ms_a_token": 1e3 * (1 / a_second - gb / bandwidth_gb),
        "prefill_tokens": long,
        "prefill_tokens_a_second": statistics.median(prefill),
        "prefill_gop_a_second": statistics.median(prefill) * flops / 1e9,
        "clients": clients,
        "clients_tokens_a_second": statistics.median(together),
        "clients_over_one": statistics.median(together) / a_second,
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
