"""The page about the set of upstream bugs: how they were found, the counts, and one row a bug."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from riallm.data.upstream_bug import Bug

_HEAD = """# Real upstream bugs

`riallm/eval/sets/upstream.jsonl` lists bugs that users of well-known packages met: release n does the wrong thing, a
test that came with release n+1 shows it, and one hunk of the change between the two mends it. The file holds the
record of each bug (hunk, failing tests, commands, pinned packages, SHA-256 of both archives) and no other source text;
a bug's project is rebuilt from the two archives when it is needed.

    python -m riallm.data.upstream mine [PACKAGE ...]     look for bugs; goes on where it was broken off
    python -m riallm.data.upstream table                  the counts below
    python -m riallm.data.upstream verify [ID ...]        rebuild bugs and see that each record is true
    python -m riallm.data.upstream materialise ID FOLDER  rebuild one

## How a bug is found

1. Two consecutive final releases of a named package are fetched with pip's own finder and unpacked; no code of theirs
   runs while that is done. The licence is read from each release's metadata and must be MIT, BSD, Apache-2.0, PSF, ISC
   or as free.
2. The tests of n+1 replace those of n beside the sources of n. Their requirements are installed as pinned wheels; a
   copy of the package itself that another requirement brings is taken out again.
3. New and changed tests run in the sandbox on both. Red on n and green on n+1, twice each, is a candidate, unless
   what fails is an import, a missing name, an unknown argument or a missing warning: that is something new, not a bug.
4. Every contiguous region of the change in one source file is applied alone to n; where none mends a test, groups of
   regions that a unified diff shows as one hunk are tried (`regions` counts them). Comments, docstrings, versions,
   tables of data, new definitions alone and hunks of over 40 changed lines do not count.
5. The whole suite of n+1 runs twice without and twice with the hunk. A hunk that turns a green test red is dropped.
   Tests that stay red (they wait for other changes) are deselected by name in the commands of the record.

The visible command is the test modules that show the bug (at most 5 s); the rest of the suite is the hidden test.
At most four bugs are kept of one pair of releases, those with the smallest hunks. No repair was run while the set was
made, and none had a say in what belongs to it.

What this leaves out: packages whose source releases carry no tests or need a compiler, bugs whose fix is spread over
several places, suites that take over a minute, and tests that need the network. Features whose tests fail by an
assertion alone look like bugs to the script; a few of the hunks below add a case rather than mend one.

## Counts

"""


def page(bugs: Sequence[Bug], counts: str) -> str:
    """The page as Markdown; `counts` is the closing table of the miner."""
    sizes = [bug.size for bug in bugs]
    text = _HEAD + "```\n" + counts + "```\n\n## The bugs\n\n"
    text += f"{len(bugs)} bugs of {len({bug.package for bug in bugs})} projects; the median hunk changes "
    text += f"{median(sizes):.0f} lines. Size is lines removed + added.\n\n" if sizes else "no lines.\n\n"
    text += "| id | releases | licence | file | size | regions | error | red tests | visible s |\n"
    text += "| --- | --- | --- | --- | ---: | ---: | --- | ---: | ---: |\n"
    for bug in sorted(bugs, key=lambda bug: bug.sort_key):
        text += (
            f"| {bug.id} | {bug.version_before} -> {bug.version_after} | {bug.licence} | {bug.path} | "
            f"{bug.removed} + {bug.added} | {bug.regions} | {', '.join(bug.errors)} | {len(bug.fixed_tests)} | "
            f"{bug.visible_seconds:.1f} |\n"
        )
    return text
