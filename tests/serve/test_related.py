"""Prompts of RIA models: imported files stand before, every token knows its file, and the room is kept."""

from __future__ import annotations

import pytest
import torch

from riallm.core.errors import UsageError
from riallm.nn.meta import Relation
from riallm.serve.related import RelatedPrompts
from riallm.serve.served import File
from riallm.testing.tiny import write_tiny
from riallm.tokenizer.foreign import HybridText
from riallm.tokenizer.saved import load

BASE = File(path="pkg/base.py", text="class Base:\n    size = 3\n")
MIDDLE = File(path="pkg/middle.py", text="from pkg.base import Base\n\nclass Middle(Base):\n    pass\n")
FAR = File(path="far/away.py", text="nothing = 1\n")
PREFIX, SUFFIX = "from pkg.middle import Middle\n\nmade = ", "\nprint(made.size)\n"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> HybridText:
    folder = write_tiny(tmp_path_factory.mktemp("models") / "tiny", context=256)
    return HybridText(load(folder / "tokenizer.json"))


def test_files_stand_before_what_imports_them(text: HybridText) -> None:
    made = RelatedPrompts(text).infill(PREFIX, SUFFIX, files=[FAR, MIDDLE, BASE], path="app.py", room=500)
    assert made.meta is not None
    files = made.meta.files[0]
    assert files.tolist() == sorted(files.tolist()) and files[-1] == 3 and len(files) == len(made.ids)
    shown = [
        text.decode_bytes([made.ids[at] for at in range(len(made.ids)) if files[at] == number], specials=True).decode()
        for number in range(4)
    ]
    assert FAR.text in shown[0] and BASE.text in shown[1] and MIDDLE.text in shown[2]
    assert "<|fim_middle|>" in shown[3] and "app.py" in shown[3]
    table = made.meta.relations[0]
    assert table[3, 2] == Relation.IMPORT and table[2, 1] == Relation.IMPORT
    assert table[1, 2] == Relation.MODULE and table[3, 0] == Relation.NONE
    assert torch.equal(table.diagonal(), torch.full((4,), int(Relation.SAME)))
    assert made.meta.positions[0].tolist() == list(range(len(made.ids)))


@pytest.mark.parametrize("room", [60, 90, 150])
def test_the_room_is_kept_and_the_hole_is_whole(text: HybridText, room: int) -> None:
    long = File(path="pkg/middle.py", text="x = 1\n" * 400)
    made = RelatedPrompts(text).infill(PREFIX * 9, SUFFIX * 9, files=[FAR, long], path="app.py", room=room)
    assert len(made.ids) <= room and made.meta is not None
    names = {index: name for name, index in text.specials.items()}
    assert [names[index] for index in made.ids if index in names] == [
        "<|fim_suffix|>",
        "<|fim_prefix|>",
        "<|fim_middle|>",
    ]
    shown = text.decode_bytes(made.ids, specials=True).decode()
    assert "x = 1" in shown and "far/away" not in shown  # what is imported goes before what is not


def test_a_text_has_a_name_and_files_beside_it(text: HybridText) -> None:
    prompts = RelatedPrompts(text)
    alone = prompts.text("x = ", files=())
    assert alone.meta is None and text.decode_bytes(alone.ids, specials=True).endswith(b"x = ")
    assert alone.ids[: len(alone.ids) - len(text.encode("x = "))] == tuple(text.tokenizer.valued("file", "file.py"))
    beside = prompts.text("import far.away\nx = ", files=[FAR])
    assert beside.meta is not None and beside.meta.relations[0, 1, 0] == Relation.IMPORT
    assert prompts.text([1, 2], files=()).ids == (1, 2)
    with pytest.raises(UsageError, match="this prompt is ids"):
        prompts.text([1, 2], files=[FAR])
    chat = prompts.chat([{"role": "user", "content": "why?"}], tools=(), files=[FAR])
    assert chat.meta is not None and chat.meta.num_files == 2
