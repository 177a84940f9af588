"""What keeping a model in fewer bits costs: `riallm bench compression [--model NAME|DIR] [--package NAME ...]`.

The model is written anew in each way, opened as the engine opens it (with compression, activations are rounded to 8
bits as well), and reads files of held-out packages that no model of ours was trained on. A file's bits are compared
with those that the same weights take in bfloat16; the interval of the difference is over draws of the files.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from riallm.bench.card import Card, Figure, emit
from riallm.core.errors import RiallmError, UsageError
from riallm.core.shipped import DEFAULT, folder_of

WAYS = ("none", "8bit", "4bit", "nf4")


def main(argv: list[str]) -> int:
    """Measure, print the card."""
    parser = argparse.ArgumentParser(prog="riallm bench compression", description="bits a byte of each compression")
    parser.add_argument("--model", default=DEFAULT, help=f"a shipped model or a folder (default: {DEFAULT})")
    parser.add_argument(
        "--package",
        nargs="+",
        default=["cachetools", "schema", "semver"],
        help="held-out packages to read",
    )
    options = parser.parse_args(argv)
    try:
        figures = measure(folder_of(options.model), options.package)
    except RiallmError as error:
        sys.stderr.write(f"compression: {error}\n")
        return error.exit_code
    emit(Card(name="compression", command=" ".join(["riallm bench compression", *argv]), figures=figures))
    return 0


def measure(folder: Path, packages: Sequence[str]) -> dict[str, Figure]:
    """Bits a byte and perplexity a token of every way, and the difference to bfloat16 in percent with its interval."""
    from riallm.eval.sets.held_out import HELD_OUT, default_data
    from riallm.eval.stats import bootstrap
    from riallm.eval.tasks.bits import Text, texts
    from riallm.models.load import TOKENIZER
    from riallm.quant.compiled import kernel_status
    from riallm.tokenizer.saved import load

    unknown = [name for name in packages if name not in HELD_OUT]
    if unknown:
        raise UsageError(f"no held-out package {unknown[0]!r}; there are {', '.join(HELD_OUT)}")
    files: list[Text] = [text for name in packages for text in texts(HELD_OUT[name], default_data()) if text.data]
    tokenizer = load(folder / TOKENIZER)
    tokens = sum(len(tokenizer.encode_bytes(text.data)) for text in files)
    size = [len(text.data) for text in files]
    figures: dict[str, Figure] = {
        "kernels": kernel_status(),
        "packages": " ".join(packages),
        "files": len(files),
        "bytes": sum(size),
    }
    plain: list[float] = []
    with tempfile.TemporaryDirectory(prefix="riallm-compression-") as scratch:
        for way in WAYS:
            bits, weight_bytes = _bits(folder, Path(scratch) / way, way, files)
            plain = plain or bits
            figures[f"{way}_megabytes"] = weight_bytes / 1e6
            figures[f"{way}_bits_a_byte"] = sum(bits) / sum(size)
            figures[f"{way}_perplexity"] = 2 ** (sum(bits) / tokens)
            if way != "none":
                more = bootstrap(list(zip(plain, bits, strict=True)), _more_percent, seed=0)
                figures |= {
                    f"{way}_more_percent": more.value,
                    f"{way}_more_percent_low": more.low,
                    f"{way}_more_percent_high": more.high,
                }
    return figures


def _more_percent(pairs: Sequence[tuple[float, float]]) -> float:
    return 100 * (sum(bits for _, bits in pairs) / sum(plain for plain, _ in pairs) - 1)


def _bits(folder: Path, target: Path, way: str, files: Sequence[object]) -> tuple[list[float], int]:
    """Bits of each file with the weights kept in one way, and the memory of the weights."""
    from riallm.checkpoint.folder import read, write
    from riallm.checkpoint.tensors import packed_as
    from riallm.eval.tasks.bits import model_bits
    from riallm.models import resident
    from riallm.models.foreign_write import convert
    from riallm.models.load import TOKENIZER
    from riallm.tokenizer.saved import load

    if way == "none":  # what is packed already is unpacked
        stored = read(folder)
        write(target, stored.config, stored.tensors.kept_as(packed_as(None)), files=stored.files)
    else:
        convert(folder, target, compression=way)
    found = resident.load(target)
    tokenizer = load(folder / TOKENIZER)
    return [model_bits(found.model, tokenizer, [text]) for text in files], found.weight_bytes  # type: ignore


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
