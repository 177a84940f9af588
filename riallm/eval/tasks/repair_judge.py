"""The cold judge: the whole suite, hidden tests and all, in a new sandbox on the project with one candidate's patch."""

from __future__ import annotations

import io
import sys
import time
import tokenize
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from riallm.agent.repair.project import prefixes
from riallm.agent.repair.records import Candidate, Evidence
from riallm.agent.repair.validate import Isolation
from riallm.code.regions import shape
from riallm.code.source import parse_text
from riallm.core.errors import ProjectError
from riallm.eval.bug import Bug
from riallm.eval.runner import Outcomes, run_tests
from riallm.eval.tasks.repair_store import Verdicts
from riallm.sandbox import open_sandbox

SECONDS = 120.0
SECONDS_FACTOR = 5.0
SECONDS_FLOOR = 15.0


class Judge:
    """Judges the candidates of one bug. `asked` counts cold runs that were really made."""

    def __init__(self, bug: Bug, verdicts: Verdicts, scratch: Path, isolation: Isolation) -> None:
        self.bug, self._verdicts, self._scratch = bug, verdicts, scratch
        self._opener = partial(open_sandbox, tier=isolation.tier, unsafe=isolation.unsafe)
        self._folder = scratch / "judged"
        self._truth = scratch / "truth"
        self._must: frozenset[str] = frozenset()
        self._visible: frozenset[str] = frozenset()
        self._seconds = SECONDS
        self._shapes: dict[str, object] = {}
        self.asked = 0

    def write(self) -> None:
        """Put the correct program and the one to be judged on the disk; everything else comes after."""
        for folder, fixed in ((self._truth, True), (self._folder, False)):
            folder.mkdir()
            self.bug.write(folder, fixed)

    def control(self) -> None:
        """Run the correct program: what passes there is what a fix must pass. Raises ProjectError when that is nothing.

        The same correct program with the same tests is run once for all bugs that share its digest.
        """
        key = self.bug.notes.get("truth", "")
        known = self._verdicts.get(key, "truth", "") if key else None
        if known is None:
            known = self._verdicts.get(self.bug.digest, "truth", "")
        if known is None:
            first = self._run(self._truth, SECONDS, hash_seed=1)
            second = self._run(self._truth, SECONDS, hash_seed=2) if first.ended else first
            if not (first.ended and second.ended):
                raise ProjectError(f"control: the correct program's tests do not end within {SECONDS:.0f} s")
            known = [sorted(steady(first.passing, second.passing)), max(first.wall, second.wall)]
            self._verdicts.put(key or self.bug.digest, "truth", "", known)
        self._must = frozenset(known[0])
        self._seconds = SECONDS_FLOOR + SECONDS_FACTOR * float(known[1])
        if not self._must:
            raise ProjectError("control: no test passes with the correct program")

    def expect(self, evidence: Evidence) -> None:
        """Learn which tests the repair sees, and drop the bug when the correct program does not pass them."""
        red = {run.name for run in evidence.failing}
        if not red <= self._must:
            names = ", ".join(sorted(red - self._must)[:3])
            raise ProjectError(f"control: red tests that the correct program does not pass either: {names}")
        self._visible = frozenset(red | {run.name for run in evidence.passing}) & self._must

    def _args(self) -> Sequence[str]:
        asked = dict.fromkeys((*self.bug.hidden, *self.bug.visible, *self.bug.withheld))
        return tuple(name for name in asked if "::" not in name or name.partition("::")[0] not in asked)

    def _run(self, folder: Path, seconds: float, hash_seed: int = 0) -> Outcomes:
        python = folder / self.bug.python if self.bug.python else Path(sys.executable)
        return run_tests(
            folder,
            self._args(),
            opener=self._opener,
            seconds=seconds,
            python=python,
            readable=(*prefixes(python, folder), *self.bug.readable),
            hash_seed=hash_seed,
        )

    def ask(self, candidate: Candidate) -> tuple[str, float]:
        """What is said, and the seconds that it took when it was asked first: "correct", "wrong" (a hidden test
        fails), or "not plausible" (cold, a visible test fails)."""
        known = self._verdicts.get(self.bug.digest, "hidden", candidate.key)
        if known is None:
            self.asked += 1
            began = time.monotonic()
            path = self._folder / candidate.edit.path
            original = path.read_bytes()
            path.write_bytes(self._patched(candidate, original))
            try:
                run = self._run(self._folder, self._seconds)
            finally:
                path.write_bytes(original)
            said = "wrong" if not run.ended or self._visible <= run.passing else "not plausible"
            said = "correct" if self._must <= run.passing else said
            known = [said, round(time.monotonic() - began, 4)]
            self._verdicts.put(self.bug.digest, "hidden", candidate.key, known)
        return str(known[0]), float(known[1])

    def _patched(self, candidate: Candidate, original: bytes) -> bytes:
        codec = "utf-8-sig" if original.startswith(b"\xef\xbb\xbf") else "utf-8"
        return candidate.edit.apply(original.decode(codec)).encode(codec)

    def exact(self, candidate: Candidate) -> bool:
        """Whether the patched file is the correct one, as syntax trees."""
        path = candidate.edit.path
        patched = self._patched(candidate, (self._folder / path).read_bytes())
        if path not in self._shapes:
            self._shapes[path] = shape(parse_text((self._truth / path).read_bytes().decode("utf-8-sig")))
        try:
            return shape(parse_text(patched.decode("utf-8-sig"))) == self._shapes[path]
        except SyntaxError:
            return False

    def original(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """The first candidate that gives the correct program's own text, compared as syntax trees.

        Only candidates that change the code's length, white space left out, as the fix does are parsed.
        """
        texts: dict[str, int] = {}
        for candidate in candidates:
            edit = candidate.edit
            if edit.path not in texts:
                wrong, right = ((folder / edit.path).read_bytes() for folder in (self._folder, self._truth))
                texts[edit.path] = _solid_code(right) - _solid_code(wrong)
            if _solid(edit.text) - _solid(edit.original) == texts[edit.path] and self.exact(candidate):
                return candidate
        return None


def steady(first: frozenset[str], second: frozenset[str]) -> frozenset[str]:
    """Names that pass in both runs, but none of a function whose names differ between them: parameters that are drawn
    from a set have other names in every run, and would be missed in the next one."""
    changing = {name.partition("[")[0] for name in first ^ second}
    return frozenset(name for name in first & second if name.partition("[")[0] not in changing)


def _solid(text: str) -> int:
    """Length without white space."""
    return len("".join(text.split()))


def _solid_code(data: bytes) -> int:
    """Length of a file's code without white space and comments, which no candidate has to repeat."""
    tokens = tokenize.tokenize(io.BytesIO(data).readline)
    return sum(_solid(token.string) for token in tokens if token.type not in (tokenize.COMMENT, tokenize.ENCODING))
