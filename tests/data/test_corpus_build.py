"""Whole builds from made-up releases: rows, shares, resuming, and inputs that are not as they should be."""

from __future__ import annotations

import io
import json
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from riallm.code.source import Source
from riallm.core.errors import RiallmError, UsageError
from riallm.core.files import sha256
from riallm.data.corpus import manifest, packages, shards
from riallm.data.corpus.build import build
from riallm.data.corpus.decontaminate import Protected, Text
from riallm.data.corpus.packages import Package
from riallm.data.corpus.recipe import CorpusRecipe
from riallm.data.corpus.rows import File, rows
from riallm.recipes.corpus import CORPORA, MANIFESTS, corpus
from riallm.recipes.protected import names

pytest.importorskip("datasketch", reason="the extra 'data' is not installed")
WORDS = ["alpha", "beta", "gamma", "delta", "kappa", "sigma", "omega", "theta"]


def module(seed: int, imports: str = "", functions: int = 6) -> str:
    """A Python file unlike that of any other seed."""
    draw = random.Random(seed)
    text = imports + "\n"
    for number in range(functions):
        name = f"{draw.choice(WORDS)}_{draw.choice(WORDS)}_{seed}_{number}"
        steps = "".join(
            f"    {draw.choice(WORDS)} = {draw.choice(WORDS)}.{draw.choice(WORDS)}_{draw.randrange(999)}"
            f" {draw.choice('+-*/%')} {draw.randrange(999)}\n"
            for _ in range(6)
        )
        text += f"\n\ndef {name}({', '.join(WORDS)}):\n{steps}    return {draw.choice(WORDS)}\n"
    return text


SECRET_ANSWER = module(99, functions=2)


def release(folder: Path, name: str, files: dict[str, str | bytes]) -> Package:
    """A source archive in `folder`, and its pin."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for inner, text in files.items():
            data = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(f"{name}-1.0/{inner}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return Package(name=name, version="1.0", filename=path.name, sha256=sha256(path.read_bytes()), spdx="MIT")


def world(tmp_path: Path) -> dict[str, Package]:
    """Two releases with one of every kind of file."""
    one = {
        "one/__init__.py": "",
        "one/base.py": module(1),
        "one/aaa.py": module(2, "from one.base import x\n"),
        "one/broken.py": "def f(:\n" * 60,
        "one/latin.py": ("# é\n" + module(3)).encode("latin-1"),
        "one/leak.py": module(4) + SECRET_ANSWER,
        "one/gpl.py": "# Copyright X. GNU General Public License\n\n" + module(5),
        "one/_vendor/six.py": module(6),
        **{f"tests/test_{i}.py": module(10 + i) for i in range(4)},
    }
    two = {"two/copy.py": module(1), "two/near.py": module(2) + "\n\nLAST = 1\n", "two/own.py": module(30)}
    return {name: release(tmp_path / "archives", name, files) for name, files in (("one", one), ("two", two))}  # type: ignore[arg-type]


RECIPE = CorpusRecipe(name="trial", packages=("one", "two"), validation=("two",))


def made(tmp_path: Path, pinned: dict[str, Package], **more: object) -> tuple[manifest.Manifest, list[str]]:
    lines: list[str] = []
    protected = Protected.of([Text(set="bench", text=SECRET_ANSWER, code=True)])
    options = {"recipe": RECIPE, "protected": protected, "pinned": pinned, "say": lines.append, **more}
    recipe = options.pop("recipe")
    built = build(recipe, folder=tmp_path / "out", archives=tmp_path / "archives", **options)  # type: ignore[arg-type]
    return built, lines


def test_a_build_counts_every_reason_and_keeps_the_rest(tmp_path: Path) -> None:
    built, _ = made(tmp_path, world(tmp_path))
    one, two = built.packages
    reasons = {reason: left.files for reason, left in one.left_out.items()}
    assert reasons == {
        "does not parse": 1, "not UTF-8": 1, "evaluation set": 1, "licence not permissive": 1, "vendored": 1,
        "too small": 1, "over the share of tests": 4,
    }  # fmt: skip
    assert one.contaminated == {"bench": ("one/leak.py",)}
    assert {reason: left.files for reason, left in two.left_out.items()} == {"exact copy": 1, "near copy": 1}
    assert (two.split, two.kept_files, two.raw_files) == ("validation", 1, 3)
    rows_read = list(shards.read_corpus(tmp_path / "out", "train"))
    assert [document.path for row in rows_read for document in row.documents] == ["one/base.py", "one/aaa.py"]
    assert rows_read[0].documents[1].imports == rows_read[0].documents[1].same_module == (0,)
    assert [row.package for row in shards.read_corpus(tmp_path / "out", "validation")] == ["two"]


def test_tests_keep_to_their_share_and_packages_to_theirs(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"p/m{i}/x.py": module(100 + i) for i in range(12)}
    files |= {f"tests/test_{i}.py": module(200 + i) for i in range(12)}
    pinned = {"one": release(tmp_path / "archives", "one", files)}
    size = len(module(100))
    recipe = replace(RECIPE, packages=("one",), validation=(), package_bytes=8 * size)
    (record,) = made(tmp_path, pinned, recipe=recipe)[0].packages
    assert 0 < record.test_bytes <= 0.26 * record.kept_bytes
    assert record.kept_bytes <= 8 * size
    assert record.left_out["over the share of one package"].files >= 6


def test_a_second_build_makes_nothing_again_and_comes_to_the_same(tmp_path: Path) -> None:
    pinned = world(tmp_path)
    first, _ = made(tmp_path, pinned)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.xz")}
    (tmp_path / "out" / "two.json").unlink()  # stopped before the second package's record was left
    second, _ = made(tmp_path, pinned)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.xz")}
    assert second == first and second.content == first.content
    assert after["one.jsonl.xz"] == before["one.jsonl.xz"] and after["two.jsonl.xz"] != before["two.jsonl.xz"]


def test_other_rules_make_everything_again(tmp_path: Path) -> None:
    pinned = world(tmp_path)
    made(tmp_path, pinned)
    built, _ = made(tmp_path, pinned, protected=Protected.of([]))
    assert built.packages[0].contaminated == {} and "evaluation set" not in built.packages[0].left_out


def test_a_changed_archive_is_refused_with_both_hashes(tmp_path: Path) -> None:
    pinned = world(tmp_path)
    archive = tmp_path / "archives" / "one-1.0.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(UsageError) as caught:
        made(tmp_path, pinned)
    assert pinned["one"].sha256 in str(caught.value) and sha256(archive.read_bytes()) in str(caught.value)


def test_a_truncated_archive_that_was_pinned_so_is_refused_in_words(tmp_path: Path) -> None:
    pinned = world(tmp_path)
    archive = tmp_path / "archives" / "one-1.0.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(UsageError, match="cannot be unpacked"):
        made(tmp_path, pinned | {"one": replace(pinned["one"], sha256=sha256(archive.read_bytes()))})


def test_without_a_network_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(packages, "list_sdists", unreachable)
    gone = Package(name="one", version="1.0", filename="one-1.0.tar.gz", sha256="0" * 64, spdx="MIT")
    with pytest.raises(UsageError, match="check the network"):
        made(tmp_path, {"one": gone, "two": gone})


def test_a_full_disk_leaves_the_old_shard_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shards.shard(tmp_path, "one")
    shards.write(path, [])
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"No space left.*again"):
        shards.write(path, [])
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["one.jsonl.xz"]


def test_ctrl_c_leaves_finished_packages(tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    pinned = world(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path, pinned, say=stop)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one.json", "one.jsonl.xz", "one.signatures.npz"}
    assert made(tmp_path, pinned)[0].packages[1].kept_files == 1


def test_evaluation_packages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RiallmError, match="has one"):
        made(tmp_path, world(tmp_path), held_out=frozenset({"one"}))


def test_a_cut_shard_and_a_changed_manifest_are_refused(tmp_path: Path) -> None:
    made(tmp_path, world(tmp_path))
    path = shards.shard(tmp_path / "out", "one")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UsageError, match="no whole shard"):
        list(shards.read_corpus(tmp_path / "out", "train"))
    stated = tmp_path / "out" / "manifest.json"
    entry = json.loads(stated.read_text())
    entry["packages"][0]["content"] = "0" * 64
    stated.write_text(json.dumps(entry))
    with pytest.raises(UsageError, match="build again"):
        manifest.read(stated)
    with pytest.raises(UsageError, match="riallm data build"):
        list(shards.read_corpus(tmp_path, "train"))


def test_rows_hold_every_file_once_and_imports_look_back() -> None:
    files = {
        f"p/m{i}.py": File(
            source=Source.from_text(f"p/m{i}.py", module(i, "".join(f"import p.m{j}\n" for j in range(i + 1, 6)))),
            spdx="MIT",
            is_test=False,
        )
        for i in range(6)
    }
    limit = 3 * len(module(0))
    found = list(rows(files, package="p", version="1", split="train", limit=limit))
    order = [document.path for row in found for document in row.documents]
    assert order == [f"p/m{i}.py" for i in reversed(range(6))] and len(found) > 1
    for row in found:
        for at, document in enumerate(row.documents):
            assert document.imports == document.same_module == tuple(range(at))


def test_files_of_other_folders_are_neither_imports_nor_neighbours() -> None:
    files = {
        path: File(source=Source.from_text(path, module(at)), spdx="MIT", is_test=False)
        for at, path in enumerate(("p/a.py", "q/b.py", "q/c.py"))
    }
    (row,) = rows(files, package="p", version="1", split="train", limit=10**6)
    assert [document.imports for document in row.documents] == [(), (), ()]
    assert [document.same_module for document in row.documents] == [(), (), (1,)]


def test_recipes_are_pinned_and_hold_no_evaluation_package() -> None:
    pinned = packages.table()
    for name in CORPORA:
        recipe = corpus(name)
        assert recipe.name == name and set(recipe.packages) - {packages.CPYTHON} <= set(pinned)
        assert not {package.replace("-", "_") for package in recipe.packages} & names()
    with pytest.raises(UsageError, match="python_small, python_full"):
        corpus("python_huge")


def test_the_published_manifest_keeps_its_promises() -> None:
    path = MANIFESTS / "python_full.json"
    if not path.exists():
        pytest.skip("python_full has not been published")
    published = manifest.read(path)
    recipe, pinned, whole = corpus("python_full"), packages.table(), published.totals()
    assert tuple(record.name for record in published.packages) == recipe.packages
    assert all(pinned[one.name].sha256 == one.sha256 for one in published.packages if one.name in pinned)
    assert max(record.kept_bytes for record in published.packages) <= 0.08 * whole["kept_bytes"]
    assert whole["test_bytes"] <= 0.25 * whole["kept_bytes"]
    text = manifest.notices(published)
    assert all((f"- {one.name} {one.version}" in text) is (one.split == "train") for one in published.packages)


def test_the_standard_library_is_read_without_its_tests() -> None:
    package = packages.standard_library()
    with packages.opened(package, Path("nowhere")) as root:
        found = packages.python_files(package, root)
    assert "json/decoder.py" in found
    assert not [path for path in found if path.startswith(("test/", "site-packages/"))]
