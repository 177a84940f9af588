"""Lines that use another file: found where they are, and measured behind that file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from riallm.code.source import Source
from riallm.eval.tasks.crossfile import Use, _of_pair, complete
from riallm.models.load import TOKENIZER, load_ria
from riallm.nn.meta import Relation, TokenMeta
from riallm.testing.tiny import write_tiny
from riallm.tokenizer.saved import load

LIBRARY = "import os\n\n\ndef unrelated():\n    pass\n\n\ndef doubled(value):\n    return value * 2\n"
USER = '''"""Uses doubled."""
from pack.library import doubled


def local(value):
    """doubled(value)"""
    # doubled(value)
    return doubled(value) + 1


def unrelated():
    return unrelated() + 1000
'''


def found() -> list[Use]:
    return _of_pair(
        "p", Source.parse("pack/library.py", LIBRARY.encode()), Source.parse("pack/user.py", USER.encode()), True
    )


def test_only_code_that_uses_an_imported_name_counts() -> None:
    (use,) = found()
    assert use.line == "return doubled(value) + 1" and use.name == "doubled"
    assert (use.before + use.line) in USER and use.before.endswith("# doubled(value)\n    ")
    assert use.defined.lstrip().startswith(("pass", "def doubled")) and "def doubled" in use.defined


def test_a_line_is_measured_behind_the_file_that_it_imports(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "tiny", context=256)
    model, tokenizer = load_ria(folder), load(folder / TOKENIZER)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in model.layers:
            block.self_attn.alpha.normal_(generator=draws)  # type: ignore[union-attr, operator]
    (use,) = found()
    (done,) = complete(model, tokenizer, [use], context=256)
    other = [*tokenizer.valued("file", use.imported_path), *tokenizer.encode(use.defined)][:104]
    own = [*tokenizer.valued("file", use.path), *tokenizer.encode(use.before)]
    line = tokenizer.encode(use.line + "\n")
    ids = other + own
    relations = torch.tensor([[[Relation.SAME, Relation.MODULE], [Relation.IMPORT, Relation.SAME]]])
    meta = TokenMeta(
        positions=torch.arange(len(ids) + len(line))[None],
        segments=torch.zeros(1, len(ids) + len(line), dtype=torch.int64),
        files=torch.tensor([[0] * len(other) + [1] * (len(own) + len(line))]),
        relations=relations,
    )
    with torch.inference_mode():
        log_probs = model.logits(model(torch.tensor([[*ids, *line]]), meta).hidden[0]).log_softmax(-1)
    bits = -sum(float(log_probs[len(ids) + at - 1, token]) for at, token in enumerate(line)) / math.log(2)
    assert done.bits == pytest.approx(bits, rel=1e-3) and done.num_bytes == len(use.line) + 1 and not done.exact
