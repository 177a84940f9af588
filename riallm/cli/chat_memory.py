"""`riallm chat` with a model that keeps the conversation in a memory: answers as they come, and what updates did."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from riallm.cli.chat_line import next_line
from riallm.core.errors import CheckpointError, RiallmError, UsageError

if TYPE_CHECKING:
    from riallm.engine.conversation import Session
    from riallm.engine.memory_model import MemoryModel
    from riallm.nn.memory_state import MemoryState

FIRST = "main"
"""The conversation that it begins in."""


def converse(options: argparse.Namespace, model: MemoryModel) -> None:
    """Until the input ends, or :quit. Ctrl-C stops an answer and nothing else."""
    talk = Talk(options, model)
    if sys.stdin.isatty():
        kept = f"{model.name} remembers what is said in {model.model.config.num_slots} slots"
        room = f"query and answer together have at most {model.context} tokens"
        _note(f"[{kept}; {room}. :help tells more, :quit ends]")
    while True:
        try:
            line = next_line()
            if line is None or line.strip() == ":quit":
                break
            talk.heard(line.strip())
        except KeyboardInterrupt:
            _note("\n[:quit ends the conversation]")
        except RiallmError as error:
            _note(str(error))
    talk.close()


class Talk:
    """Conversations by name, one of which is spoken in."""

    def __init__(self, options: argparse.Namespace, model: MemoryModel) -> None:
        self._options, self._model = options, model
        self._sessions = {FIRST: model.session()}
        self._name = FIRST
        self._words: dict[str, tuple[str, str, Callable[[str], None]]] = {
            ":save": ("FILE", "keep the memory in a file", self._save),
            ":load": ("FILE", "go on from the memory in a file", self._load),
            ":fork": ("NAME", "go on in a copy of that name", self._fork),
            ":go": ("NAME", f"go on in another copy; the first is {FIRST}", self._go),
            ":forget": ("", "begin with a new memory", self._forget),
            ":reset": ("", "the same", self._forget),
            ":inspect": ("", "what can be seen of the memory", self._inspect),
            ":help": ("", "this", self._help),
            ":quit": ("", "the end; a memory that was not saved is gone", lambda _: None),
        }

    @property
    def session(self) -> Session:
        """The one that is spoken in."""
        return self._sessions[self._name]

    def heard(self, line: str) -> None:
        """A line: a word for the program, or for the model. Raises RiallmError, and all is as it was."""
        if not line.startswith(":"):
            if line:
                self._say(line)
            return
        word, _, rest = line.partition(" ")
        if word not in self._words:
            raise UsageError(f"no word {word}; there are {', '.join(self._words)}. :help says what they do")
        wanted, _, call = self._words[word]
        if bool(wanted) != bool(rest.strip()):
            told = repr(rest.strip()) if rest.strip() else "nothing"
            raise UsageError(f"{word} takes {'one ' + wanted if wanted else 'nothing'}, got {told}")
        call(rest.strip())

    def close(self) -> None:
        """Return when all that was said is written."""
        for session in self._sessions.values():
            session.close()

    def _say(self, text: str) -> None:
        from riallm.tokenizer.interaction import markers, query_ids
        from riallm.tokenizer.stream import StreamDecoder

        tokenizer, options = self._model.tokenizer.tokenizer, self._options
        before = self.session.state
        reply = self.session.ask(
            [*query_ids(tokenizer, text), markers(tokenizer).answer],
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
            max_length=self._model.context,
            seed=options.seed,
        )
        stream, stopped = StreamDecoder(tokenizer, specials=False), False
        said: list[int] = []
        try:
            for token in reply:
                said.append(token)
                sys.stdout.write(stream.push(token))
                sys.stdout.flush()
        except KeyboardInterrupt:
            stopped = True
        finally:
            reply.close()
        sys.stdout.write(stream.finish() + "\n")
        sys.stdout.flush()
        if stopped:
            _note("[stopped; what there is of the answer is remembered]")
        elif said[-1] not in self.session.ends:
            room = f"query and answer together have at most {self._model.context} tokens"
            _note(f"[cut off: {f'--max-tokens is {len(said)}' if len(said) == options.max_tokens else room}]")
        self._updated(before)

    def _updated(self, before: MemoryState) -> None:
        from riallm.engine.inspection import changed

        _note("[the memory is being updated]")
        began = time.perf_counter()
        try:
            self.session.wait()
        except KeyboardInterrupt:
            _note("[it goes on being updated; the next question waits for it]")
            return
        seconds, after = time.perf_counter() - began, self.session.state
        moved = 100 * changed(before, after)
        _note(
            f"[updated in {seconds:.2f} s: version {before.version} -> {after.version}, slots moved by {moved:.1f} %]"
        )

    def _save(self, rest: str) -> None:
        from riallm.nn.memory_state import check_memory_file

        path = _file(rest)
        if path.exists():
            try:
                check_memory_file(path)
            except CheckpointError:
                raise UsageError(f"{path} is there and holds no memory; it was left as it is. Give another") from None
        state = self.session.state
        state.save(path)
        _note(f"[version {state.version} is kept in {path}: {path.stat().st_size} bytes]")

    def _load(self, rest: str) -> None:
        from riallm.nn.memory_state import load_memory

        try:
            found = load_memory(_file(rest))
        except CheckpointError as error:
            raise UsageError(f"{error}. The conversation is as it was; :load takes a file that :save wrote") from None
        if found.num_rows != 1:
            raise UsageError(
                f"{rest} holds the memories of {found.num_rows} conversations side by side, and here one is talked in; "
                "give a file that :save wrote"
            )
        self.session.load(found)
        _note(f"[going on from version {self.session.version}]")

    def _fork(self, name: str) -> None:
        if name in self._sessions:
            raise UsageError(f"there is a {name} already; `:go {name}` goes on there, or give another name")
        self._sessions[name] = self.session.fork()
        back, self._name = self._name, name
        _note(f"[in {name}, a copy of version {self.session.version}; `:go {back}` goes back]")

    def _go(self, name: str) -> None:
        if name not in self._sessions:
            raise UsageError(f"there is no {name}; there are {', '.join(self._sessions)}")
        self._name = name
        _note(f"[in {name}, version {self.session.state.version}]")

    def _forget(self, rest: str) -> None:
        self.session.load(self._model.model.start())
        _note("[a new memory]")

    def _inspect(self, rest: str) -> None:
        from riallm.engine.inspection import looked

        state = self.session.state
        layers, _, slots, hidden = state.slots.shape
        told = f"version {state.version}, {layers} layers of {slots} slots of {hidden} numbers"
        sys.stdout.write(f"{self._name}: {told}, {state.num_bytes} bytes, model {state.model[:12] or 'unnamed'}\n")
        for number, layer in enumerate(looked(state)):
            rank = f"effective rank {layer.rank:.1f} of {min(slots, hidden)}"
            sys.stdout.write(f"  layer {number}: mean length of a slot {layer.norm:.3f}, {rank}\n")
        sys.stdout.flush()

    def _help(self, rest: str) -> None:
        for word, (wanted, meaning, _) in self._words.items():
            sys.stdout.write(f"{word + ' ' + wanted:14}{meaning}\n")
        sys.stdout.flush()


def _file(name: str) -> Path:
    """Raises UsageError for what the system takes for no name of a file."""
    try:
        path = Path(name).expanduser()
        with suppress(FileNotFoundError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{name!r} is no file that can be had ({error}); give another") from None
    return path


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
