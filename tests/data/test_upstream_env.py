"""The shared environments of upstream bugs: installed once, whole or absent, whoever asks at the same moment."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from riallm.core.errors import UsageError
from riallm.data.upstream_env import install

ASK = (
    "import sys; from pathlib import Path; from riallm.data.upstream_env import install\n"
    "found = install([sys.argv[1]], without='other', home=Path(sys.argv[2]), exact=True)\n"
    "import json; print(json.dumps([found.folder.name, list(found.pins), (found.folder / 'tiny.py').read_text()]))\n"
)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of many modules, so that putting it into its place takes a while."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(1500):
            file.writestr(f"parts/part{number}.py", f"x = {number}\n")
        file.writestr("tiny.py", "x = 1\n")
        file.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        file.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\n")
    return path


def test_processes_that_ask_at_once_share_one_whole_folder(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "packages"
    asked = [sys.executable, "-c", ASK, str(wheel), str(home)]
    running = [subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate(timeout=100) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], told
    assert len({answer for answer, _ in told}) == 1
    assert '["tiny==1.0"], "x = 1\\n"' in told[0][0]
    assert len([path for path in home.iterdir() if path.is_dir()]) == 1  # nothing half made lies about


def test_what_cannot_be_installed_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "packages"
    with pytest.raises(UsageError, match="pip could not install"):
        install([str(tmp_path / "absent-1.0-py3-none-any.whl")], without="other", home=home, exact=True)
    assert not [path for path in home.iterdir() if path.suffix != ".lock"]
