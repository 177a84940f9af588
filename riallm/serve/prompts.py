"""Prompts of models whose tokens know nothing of files: chat templates, raw text, and the markers of a hole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from riallm.core.errors import UsageError
from riallm.serve.served import File, Prompt
from riallm.tokenizer.chat import ChatTemplate, template_of
from riallm.tokenizer.foreign import ForeignTokenizer, HybridText
from riallm.tokenizer.text import Fim, TextTokenizer

SUFFIX_SHARE = 0.3
"""Of what is shown around a hole, the part behind it."""

CHARS_PER_TOKEN = 16
"""No text is encoded that is longer than this many characters for each token that there is room for."""


class PlainPrompts:
    """For models of other programs: their own chat template and markers, or the defaults of `template_of`."""

    def __init__(self, tokenizer: TextTokenizer, *, template: ChatTemplate | None = None) -> None:
        """Needs the extra `serve`."""
        self._tokenizer = tokenizer
        variables = tokenizer.variables if isinstance(tokenizer, ForeignTokenizer) else None
        self._template = template or template_of(tokenizer, variables=variables)

    @property
    def tools(self) -> bool:
        return self._template.tools

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]], files: Sequence[File]
    ) -> Prompt:
        if tools and not self.tools:
            raise UsageError(
                "this model's chat template has no place for tools; leave `tools` out, or take another model"
            )
        if files:
            shown = "\n\n".join(f"`{file.path}`:\n```\n{file.text}\n```" for file in files)
            messages = _with_system(messages, shown)
        return _prompt(self._template.encode(self._tokenizer, messages, tools=tools))

    def text(self, prompt: str | Sequence[int], *, files: Sequence[File]) -> Prompt:
        if not isinstance(prompt, str):
            if files:
                raise UsageError("files are shown beside a text; this prompt is ids, so put them there yourself")
            return _prompt(_known(prompt, self._tokenizer))
        shown = self._files(files)
        return _prompt([*self._tokenizer.start, *shown, *self._raw(prompt)])

    def infill(self, prefix: str, suffix: str, *, files: Sequence[File], path: str | None, room: int) -> Prompt:
        fim = self._fim()
        head: list[int] = []
        if path is not None and fim.file is not None:
            head = [fim.file, *self._tokenizer.encode(f"{path}\n")]
        before, after = _around(self._tokenizer, prefix, suffix, room - len(head) - len(self._tokenizer.start) - 3)
        hole = _marked(fim, before, after)
        room -= len(hole) + len(head) + len(self._tokenizer.start)
        return _prompt([*self._tokenizer.start, *self._files(files, room=room), *head, *hole])

    def _fim(self) -> Fim:
        if self._tokenizer.fim is None:
            raise UsageError("this model has no markers for fill-in-the-middle; ask for a completion without a suffix")
        return self._tokenizer.fim

    def _raw(self, text: str) -> list[int]:
        """A prompt whose writer put the markers of a hole into it means them; all else stays text."""
        fim = self._tokenizer.fim
        pieces = self._tokenizer.pieces(text) if fim is not None else [text]
        if fim is None or not {fim.prefix, fim.suffix, fim.middle} <= {
            each for each in pieces if isinstance(each, int)
        }:
            return self._tokenizer.encode(text)
        names = {index: name for name, index in self._tokenizer.specials.items()}
        ids: list[int] = []
        pending = ""
        for piece in pieces:
            if isinstance(piece, str) or piece not in fim.ids:
                pending += piece if isinstance(piece, str) else names[piece]
                continue
            ids += [*(self._tokenizer.encode(pending) if pending else ()), piece]
            pending = ""
        return [*ids, *(self._tokenizer.encode(pending) if pending else ())]

    def _files(self, files: Sequence[File], *, room: int | None = None) -> list[int]:
        """Other files, the last one nearest; from the first on those that there is no room for are left out."""
        fim = self._tokenizer.fim
        rows: list[list[int]] = []
        for file in reversed(files):
            if fim is not None and fim.file is not None:
                row = [fim.file, *self._tokenizer.encode(f"{file.path}\n{file.text}\n")]
            else:
                row = self._tokenizer.encode(f"# {file.path}\n{file.text}\n\n")
            if room is not None and sum(len(each) for each in rows) + len(row) > room:
                break
            rows.append(row)
        return [index for row in reversed(rows) for index in row]


class HybridPrompts(PlainPrompts):
    """For RIA models, one file at a time: a hole is shown as in training, behind the marker of its file.

    Other files are refused: how they are shown depends on how they are related, which is told in `TokenMeta`.
    """

    def __init__(self, tokenizer: HybridText) -> None:
        super().__init__(tokenizer)
        self._hybrid = tokenizer.tokenizer

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]], files: Sequence[File]
    ) -> Prompt:
        _no_files(files)
        return super().chat(messages, tools=tools, files=())

    def text(self, prompt: str | Sequence[int], *, files: Sequence[File]) -> Prompt:
        _no_files(files)
        return super().text(prompt, files=())

    def infill(self, prefix: str, suffix: str, *, files: Sequence[File], path: str | None, room: int) -> Prompt:
        _no_files(files)
        head = self._hybrid.valued("file", path or "file.py")
        before, after = _around(self._tokenizer, prefix, suffix, room - len(head) - 3)
        return _prompt([*head, *_marked(self._fim(), before, after)])


def _no_files(files: Sequence[File]) -> None:
    if files:
        raise UsageError("this server shows the model one file at a time; leave out the other files")


def _around(tokenizer: TextTokenizer, prefix: str, suffix: str, room: int) -> tuple[list[int], list[int]]:
    """As much of both sides as there is room for, nearest to the hole."""
    room = max(room, 0)
    most = CHARS_PER_TOKEN * room
    before = tokenizer.encode(prefix[_cut(len(prefix), most) :]) if prefix else []
    after = tokenizer.encode(suffix[:most]) if suffix else []
    behind = min(len(after), max(int(SUFFIX_SHARE * room), room - len(before)))
    return before[_cut(len(before), room - behind) :], after[:behind]


def _cut(size: int, room: int) -> int:
    """Where to begin so that the rest fits. It goes on by eighths of the room: while somebody types, the text begins at
    the same place for a while, and what was read of it is found again."""
    step = max(1, room // 8)
    return min(size, -(-max(0, size - room) // step) * step)


def _marked(fim: Fim, before: Sequence[int], after: Sequence[int]) -> list[int]:
    if fim.order == "spm":
        return [fim.suffix, *after, fim.prefix, *before, fim.middle]
    return [fim.prefix, *before, fim.suffix, *after, fim.middle]


def _with_system(messages: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _known(ids: Sequence[int], tokenizer: TextTokenizer) -> Sequence[int]:
    wrong = next((index for index in ids if not 0 <= index < tokenizer.vocab_size), None)
    if wrong is not None:
        raise UsageError(f"token {wrong} is not in the vocabulary, which has ids 0 to {tokenizer.vocab_size - 1}")
    return ids


def _prompt(ids: Sequence[int]) -> Prompt:
    if not ids:
        raise UsageError("the prompt is empty; write something")
    return Prompt(ids=tuple(ids))
