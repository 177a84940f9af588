"""A folder for what is made: made, or refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from riallm.core.errors import UsageError
from riallm.core.files import made_folder


def test_a_folder_is_made_and_taken_again_and_stays_empty(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    assert made_folder(place) == made_folder(place) == place
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [("file", "is no folder"), ("file/x", "Not a directory"), ("/proc/x", "into the folder /proc/x")],
)
def test_what_can_be_no_folder_is_refused(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match=f"{message}.*by --out"):
        made_folder(tmp_path / place)
    assert (tmp_path / "file").read_text() == "kept"
