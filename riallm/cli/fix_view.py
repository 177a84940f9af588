"""What `riallm fix` shows: the red tests, where it looked, live progress, the verified diff."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from riallm.agent.repair.program import Program
from riallm.agent.repair.records import Candidate, Evidence, Project, Suspect
from riallm.agent.repair.run import Observer, Outcome, counts
from riallm.sandbox.base import Tier
from riallm.sandbox.output import clean
from riallm.sandbox.warm import Ran

SHOWN_TESTS = 5
SHOWN_LINES = 5
SHOWN_TRIES = 5


class View(Observer):
    """Writes results to `out` and live progress to `err`."""

    def __init__(self, out: Console, err: Console) -> None:
        self._out = out
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._progress.add_task("running the tests", total=None, note="")
        self._program: Program | None = None
        self._ordered: Sequence[Candidate] = ()

    def close(self) -> None:
        """Take the live display away."""
        self._progress.stop()

    def say(self, markup: str) -> None:
        """One line of ours."""
        self._out.print(markup)

    def error(self, text: str) -> None:
        """A message for the user, with nothing in it that could move the cursor."""
        self.close()
        self._out.print(f"[bold red]riallm fix:[/] {escape(clean(text))}")

    def ask(self, question: str) -> bool:
        """True only for an explicit y."""
        self.close()
        try:
            return self._out.input(f"[bold]{question}[/] \\[y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    # --- the observer ----------------------------------------------------------------------------------------

    def project(self, project: Project) -> None:
        """What will be worked on."""
        self._program = Program(project)
        self._out.print(
            f"[bold]{escape(project.root.name)}[/]: {len(project.sources)} source files, "
            f"{len(project.tests)} test files, [dim]{escape(str(project.python))}[/]"
        )
        self._progress.start()

    def ran(self, run: Ran) -> None:
        self._progress.update(self._task, advance=1, note=escape(clean(run.test))[-60:])

    def seen(self, evidence: Evidence, tier: Tier) -> None:
        num_red = len(evidence.failing)
        self._out.print(
            f"[red]{num_red} red[/], [green]{len(evidence.passing)} green[/] of {len(evidence.runs)} tests "
            f"[dim](sandbox: {tier.value})[/]"
        )
        for run in evidence.failing[:SHOWN_TESTS]:
            lines = clean(run.message).splitlines() or [str(run.status)]
            self._out.print(f"  [red]{escape(clean(run.name))}[/]\n    {escape(lines[0][:160])}", soft_wrap=True)
        if num_red > SHOWN_TESTS:
            self._out.print(f"  [dim]and {num_red - SHOWN_TESTS} more[/]")
        if evidence.flaky:
            self._out.print(f"[yellow]flaky, left out:[/] {escape(clean(', '.join(evidence.flaky)))}")
        for name, text in evidence.broken:
            first = (clean(text).strip().splitlines() or [""])[-1]
            self._out.print(f"[yellow]not collected:[/] {escape(clean(name))}: {escape(first[:160])}")

    def localised(self, suspects: Sequence[Suspect]) -> None:
        self._out.print(f"Looked at {len(suspects)} suspicious lines, these first:")
        for suspect in suspects[:SHOWN_LINES]:
            source = self._program.source(suspect.path) if self._program else None
            start = source.line_starts[suspect.line - 1] if source else 0
            code = source.text[start : source.line_end(start)].strip() if source else ""
            self._out.print(
                f"  {suspect.score:.2f}  {escape(clean(f'{suspect.path}:{suspect.line}'))}  "
                f"[cyan]{escape(clean(code))[:90]}[/] [dim]{suspect.reason}[/]",
                soft_wrap=True,
            )
        self._progress.update(self._task, description="writing and ranking edits", note="")

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        self._ordered = candidates
        self._progress.update(self._task, description="trying edits", total=len(candidates), completed=0)

    def progress(self, num_tried: int, num_plausible: int, seconds: float, latest: Candidate | None) -> None:
        note = f"{num_plausible} pass   " if num_plausible else ""
        if latest is not None:
            edit = latest.edit
            note += escape(clean(f"{edit.path}:{edit.line}  {edit.original[:30]!r} -> {edit.text[:30]!r}"))
        self._progress.update(self._task, completed=num_tried, note=note)

    def confirming(self, candidate: Candidate) -> None:
        self._progress.update(self._task, description="running all tests again, cold", note="")

    # --- the end ---------------------------------------------------------------------------------------------

    def outcome(self, project: Project, outcome: Outcome, model: str) -> None:
        """What was tried, the diff, and the count of tests before and after."""
        self.close()
        rate = outcome.num_tried / max(outcome.search_seconds, 1e-3)
        self._out.print(
            f"Tried {outcome.num_tried} of {outcome.num_candidates} edits ({rate:.0f} a second, "
            f"ranked by {escape(model if model != 'none' else 'suspicion and priors')}); "
            f"{outcome.num_plausible} turned the red tests green."
        )
        for candidate in self._ordered[: min(SHOWN_TRIES, outcome.num_tried)]:
            text = f"{candidate.edit.path}:{candidate.edit.line}  {self._line_after(candidate)[:90]}"
            operator = candidate.edit.operator.replace("_", " ")
            self._out.print(f"  {escape(clean(text))}  [dim]{escape(operator)}[/]", soft_wrap=True)
        if outcome.num_tried > SHOWN_TRIES:
            self._out.print(f"  [dim]... and {outcome.num_tried - SHOWN_TRIES} more[/]")
        if outcome.candidate is None:
            self._out.print(f"[yellow]No verified patch[/] within {outcome.seconds:.1f} s.")
            return
        edit = outcome.candidate.edit
        before, after = counts(outcome.evidence.runs), counts(outcome.after)
        self._out.print(
            f"[bold green]Verified patch[/] at {escape(clean(f'{edit.path}:{edit.line}'))} in {outcome.seconds:.1f} s: "
            f"all tests run again, cold: {describe(before)} -> {describe(after)}."
        )
        if outcome.candidate.smells:
            smells = ", ".join(sorted(outcome.candidate.smells))
            self._out.print(f"[yellow]Look closely:[/] this patch {escape(smells)}.")
        self._out.print(diff(outcome.patch), soft_wrap=True)

    def _line_after(self, candidate: Candidate) -> str:
        """The code of the line where the edit begins, as the edit leaves it."""
        edit = candidate.edit
        source = self._program.source(edit.path) if self._program else None
        if source is None:
            return edit.text
        start = source.line_starts[source.line_of(edit.start) - 1]
        after = edit.apply(source.text)
        end = after.find("\n", edit.start + len(edit.text.rstrip()))
        return " ".join(after[start : end if end >= 0 else len(after)].split())


def describe(found: dict[str, int]) -> str:
    """Counts of tests in words."""
    return ", ".join(f"{number} {status}" for status, number in found.items()) or "no tests"


def diff(patch: str) -> Group:
    """A unified diff in colours, the changed characters marked; control characters cannot reach the terminal."""
    lines = ["  " + clean(line) for line in patch.splitlines()]
    shown: list[Text] = []
    for index, line in enumerate(lines):
        kind = line[2:3]
        before, after = lines[index - 1 : index], lines[index + 1 : index + 2]
        if line[2:].startswith(("+++", "---")):
            shown.append(Text(line, style="bold"))
        elif kind == "@":
            shown.append(Text(line, style="cyan"))
        elif kind == "-" and after and after[0].startswith("  +"):
            shown.append(marked(line, after[0], "red"))
        elif kind == "+" and before and before[0].startswith("  -"):
            shown.append(marked(line, before[0], "green"))
        else:
            shown.append(Text(line, style={"-": "red", "+": "green"}.get(kind, "")))
    return Group(*shown)


def marked(line: str, other: str, colour: str) -> Text:
    """`line` in a colour, what `other` does not have in reverse."""
    text = Text(line, style=colour)
    matcher = difflib.SequenceMatcher(None, other[3:], line[3:], autojunk=False)
    for tag, _, _, start, end in matcher.get_opcodes():
        if tag in ("insert", "replace"):
            text.stylize("reverse", start + 3, end + 3)
    return text
