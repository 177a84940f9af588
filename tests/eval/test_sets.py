"""The sets: what they hold, and that their manifests keep the promises of docs/evaluation.md."""

import json
from collections import Counter

import pytest

from riallm.core.errors import UsageError
from riallm.data import upstream_bug
from riallm.eval.bug import PATTERNS
from riallm.eval.sets import benchmarks, folder, injected, smoke
from riallm.eval.sets.calibration import CALIBRATION
from riallm.eval.sets.held_out import HELD_OUT, settings
from riallm.eval.sets.load import drawn, load
from riallm.recipes.corpus import CORPORA


def test_smoke_has_thirty_bugs_of_both_families(tmp_path):
    bugs = smoke.load(tmp_path)
    lines = smoke.MANIFEST.read_text().splitlines()
    assert len(lines) >= 30
    if len(bugs) < len(lines):
        pytest.skip(f"this Python has written {len(lines) - len(bugs)} of the smoke functions otherwise")
    assert Counter(bug.kind for bug in bugs)["unlike"] >= 15
    assert len({bug.id for bug in bugs}) == len({bug.digest for bug in bugs}) == len(bugs)


def test_smoke_projects_with_and_without_their_bugs(tmp_path):
    for bug in smoke.load(tmp_path / "data"):
        path = bug.gold[0].path
        for fixed in (False, True):
            (tmp_path / bug.id / str(fixed)).mkdir(parents=True)
            bug.write(tmp_path / bug.id / str(fixed), fixed)
        buggy, correct = ((tmp_path / bug.id / str(fixed) / path).read_text() for fixed in (False, True))
        compile(buggy, path, "exec")
        assert buggy != correct
        for edit in sorted(bug.gold, key=lambda edit: -edit.start):
            buggy = edit.apply(buggy)
        assert buggy == correct
        assert correct.encode() == smoke.module_text(path.split("/")[1].removesuffix(".py"))


@pytest.mark.parametrize(("name", "least", "least_packages"), [("injected", 300, 8), ("calibration", 180, 7)])
def test_injected_manifests(name, least, least_packages):
    table, manifest = injected.SETS[name]
    rows = injected.rows(manifest)
    num = len(rows)
    assert num >= least
    packages, injectors = Counter(row["package"] for row in rows), Counter(row["injector"] for row in rows)
    assert len(packages) >= least_packages
    assert max(packages.values()) <= 0.15 * num + 1
    assert max(injectors.values()) <= 0.10 * num + 1
    assert sum(count for name, count in injectors.items() if name.startswith("unlike:")) >= num / 2
    assert {row["pattern"] for row in rows} <= set(PATTERNS)
    assert len({row["id"] for row in rows}) == num
    assert len({json.dumps([row["package"], row["path"], row["edits"]]) for row in rows}) == num
    for row in rows:
        held = table[row["package"]]
        assert row["version"] == held.version
        assert row["visible"] and row["red"] > len(row["withheld"])
        assert not row["path"].startswith(held.tests)


def test_what_weights_are_chosen_on_is_in_no_other_set():
    elsewhere = {*HELD_OUT, *(bug.package for bug in upstream_bug.load())}
    elsewhere |= {package for make in CORPORA.values() for package in make().packages}
    assert not elsewhere & set(CALIBRATION)


def test_held_out_packages_are_pinned_and_permissive():
    assert len(HELD_OUT) >= 8
    for held in (*HELD_OUT.values(), *CALIBRATION.values()):
        assert len(held.sha256) == 64
        assert held.licence in ("MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC")
        assert settings(held).startswith("[pytest]\n")


def test_benchmark_manifest_keeps_no_program():
    rows = [json.loads(line) for line in benchmarks.MANIFEST.read_text().splitlines()]
    counts = Counter(row["set"] for row in rows)
    assert set(counts) <= set(benchmarks.NAMES)
    assert max(counts.values()) <= 100
    for row in rows:
        assert set(row) <= {"set", "item", "injector", "pattern", "edits", "visible", "recorded"}
        assert row["visible"]
        assert row["edits"] or row["injector"] == "real"


def test_absent_benchmarks_are_said_aloud(tmp_path, monkeypatch):
    monkeypatch.setenv("RIALLM_BENCHMARKS", str(tmp_path))
    monkeypatch.setattr("riallm.eval.sets.benchmark_items.__file__", str(tmp_path / "a/b/c/d/e/f.py"))
    said = []
    assert load("humaneval", data=tmp_path, say=said.append) == []
    assert len(said) == 1 and "SKIPPED" in said[0] and "RIALLM_BENCHMARKS" in said[0]


def test_unknown_set(tmp_path):
    with pytest.raises(UsageError, match="no set 'nowhere'"):
        load("nowhere", data=tmp_path, say=print)


def test_a_draw_keeps_the_order():
    assert drawn("abcdefgh", 3, seed=1) == drawn("abcdefgh", 3, seed=1)
    assert drawn("abcdefgh", 3, seed=1) == sorted(drawn("abcdefgh", 3, seed=1))
    assert drawn("abc", None, seed=1) == ["a", "b", "c"]


def make_project(root, name="one", **changes):
    project = root / name
    (project / "tests").mkdir(parents=True)
    (project / "code.py").write_text("def double(x):\n    return x + 2\n")
    (project / "code.correct").write_text("def double(x):\n    return x * 2\n")
    (project / "tests/test_code.py").write_text("import code\n")
    record = {"visible": ["tests/test_code.py"], "fixed": {"code.py": "code.correct"}, **changes}
    (project / "bug.json").write_text(json.dumps(record))
    return project


def test_a_folder_of_projects(tmp_path):
    make_project(tmp_path / "set")
    (bug,) = folder.load(tmp_path / "set")
    for fixed in (False, True):
        target = tmp_path / f"{fixed}"
        target.mkdir()
        bug.write(target, fixed)
        assert ("x * 2" in (target / "code.py").read_text()) is fixed
        assert not (target / "bug.json").exists() and not (target / "code.correct").exists()


@pytest.mark.parametrize("changes", [{"visible": []}, {"fixed": {"code.py": "nowhere"}}, {"pattern": "bad luck"}])
def test_a_record_that_cannot_be_used(tmp_path, changes):
    make_project(tmp_path / "set", **changes)
    with pytest.raises(UsageError, match=r"bug\.json"):
        folder.load(tmp_path / "set")


def test_the_digest_knows_every_text_that_counts(tmp_path):
    project = make_project(tmp_path / "set")
    digests = [folder.load(tmp_path / "set")[0].digest]
    for path in ("code.py", "code.correct", "tests/test_code.py"):
        (project / path).write_text((project / path).read_text() + "\n")
        digests.append(folder.load(tmp_path / "set")[0].digest)
    assert len(set(digests)) == 4
