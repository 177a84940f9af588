"""Downloads from a hub: a small real HTTP server that speaks the few endpoints, and a client that is killed."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from riallm.checkpoint import building
from riallm.checkpoint.download import RemoteFile, chosen
from riallm.core.errors import CheckpointError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/tiny"
BIG = "model.safetensors"


@dataclass
class Hub:
    """files: what it has. large: names that it keeps by sha256. Stops in the middle of `stop_in` until `go_on`."""

    files: dict[str, bytes]
    large: set[str]
    stop_in: str | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    lie: str | None = None
    url: str = ""

    def listing(self) -> bytes:
        siblings = []
        for name, data in self.files.items():
            told: dict[str, object] = {"rfilename": name, "size": len(data)}
            told["blobId"] = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            if name in self.large:
                digest = hashlib.sha256(data).hexdigest()
                told["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            siblings.append(told)
        return json.dumps({"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()


def handler(hub: Hub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path, self.headers.get("Range")))
            if path in (f"/api/models/{REPOSITORY}", f"/api/models/{REPOSITORY}/revision/{COMMIT}"):
                self.send(200, hub.listing(), {"Content-Type": "application/json"}, body=body)
                return
            name = path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")
            if name not in hub.files:
                self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
                return
            data = hub.files[name] if name != hub.lie else bytes(len(hub.files[name]))
            headers = {
                "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes",
            }
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send(206 if start else 200, data[start:], headers, body=body, stop=name == hub.stop_in)

        def send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool, stop: bool = False) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            try:
                if body and stop:
                    self.wfile.write(data[: len(data) * 3 // 4])
                    self.wfile.flush()
                    hub.stopped.set()
                    hub.go_on.wait(60)
                elif body:
                    self.wfile.write(data)
            except OSError:
                pass  # the client was killed

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    # Larger than what the client takes at a time, which is ten megabytes.
    weights = save({"model.embed_tokens.weight": torch.randn(3000, 1500)})
    files = {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        BIG: weights,
        "pytorch_model.bin": b"cos\nsystem\n(S'false'\ntR.",
        "training_args.bin": b"cos\nsystem\n(S'false'\ntR.",
        "original/consolidated.00.pth": b"pickle",
        "original/params.json": b"{}",
        "README.md": b"hello",
        "LICENSE": b"do as you like",
        "evil.py": b"print(1)",
    }
    made = Hub(files=files, large={BIG})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    made.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


def environment(hub: Hub, home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HTTP", "http", "ALL_PROXY"))}
    return {**kept, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}


def run(hub: Hub, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "riallm", "download", REPOSITORY, "--to", str(folder / "m"), *options]
    env = environment(hub, folder / "home")
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)


def test_only_what_is_read_as_data_comes_and_all_of_it_is_checked(hub: Hub, tmp_path: Path) -> None:
    done = run(hub, tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    wanted = {"config.json", "tokenizer.json", BIG, "LICENSE"}
    assert set(told["files"]) == wanted and told["revision"] == COMMIT
    assert {path.name for path in (tmp_path / "m").iterdir()} == {*wanted, "SHA256SUMS"}
    assert all((tmp_path / "m" / name).read_bytes() == hub.files[name] for name in wanted)
    assert not [path for _, path, _ in hub.asked if path.endswith((".bin", ".pth", ".py", ".md"))]
    verified = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "m", capture_output=True
    )
    assert verified.returncode == 0, verified.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["m"]
    again = run(hub, tmp_path)
    assert again.returncode == 2 and "m is there already" in again.stderr


def test_a_killed_download_goes_on_behind_what_it_has(hub: Hub, tmp_path: Path) -> None:
    hub.stop_in = BIG
    command = [sys.executable, "-m", "riallm", "download", REPOSITORY, "--to", str(tmp_path / "m")]
    with subprocess.Popen(command, env=environment(hub, tmp_path / "home")) as child:
        assert hub.stopped.wait(60)
        place = building.partial_of(tmp_path / "m")
        while not any(path.stat().st_size > 1 << 20 for path in place.rglob("*.part")):
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "m").exists(), "half a download looked whole"
    (part,) = place.rglob("*.part")
    there = part.stat().st_size
    hub.stop_in = None
    hub.go_on.set()
    hub.asked.clear()
    done = run(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m" / BIG).read_bytes() == hub.files[BIG]
    ranges = [asked for command, path, asked in hub.asked if command == "GET" and path.endswith(BIG)]
    assert len(ranges) == 1 and ranges[0] is not None
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) == there > 1 << 20
    assert not [path for command, path, _ in hub.asked if command == "GET" and path.endswith("LICENSE")]


def test_a_file_that_is_not_what_the_hub_says_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    for name in ("config.json", BIG):
        hub.lie = name
        done = run(hub, tmp_path)
        assert done.returncode == 2 and f"{name} came with" in done.stderr and "the same command gets it" in done.stderr
        assert not (tmp_path / "m").exists()
    hub.lie = None
    done = run(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m" / BIG).read_bytes() == hub.files[BIG]


def test_what_the_hub_does_not_give_is_said(hub: Hub, tmp_path: Path) -> None:
    hub.files = {name: data for name, data in hub.files.items() if name != BIG}
    done = run(hub, tmp_path)
    assert done.returncode == 2 and "pytorch_model.bin, a pickle, which runs code when it is read" in done.stderr
    done = run(hub, tmp_path, "--revision", "nothing")
    assert done.returncode == 2 and f"{REPOSITORY} at {hub.url} is not there" in done.stderr
    hub.url = "http://127.0.0.1:9"
    done = run(hub, tmp_path)
    assert done.returncode == 2 and "127.0.0.1:9 cannot be reached" in done.stderr


def remote(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name=name, num_bytes=1, sha256=None, blob=None) for name in names]


def test_of_many_gguf_files_one_is_named() -> None:
    files = remote("a-q4.gguf", "a-q8.gguf", "config.json", "imatrix.dat")
    with pytest.raises(UsageError, match=r"has 2 GGUF files; name one with --include: a-q4\.gguf, a-q8\.gguf"):
        chosen(files, (), "x/y")
    assert [file.name for file in chosen(files, ["*q8*"], "x/y")] == ["config.json", "a-q8.gguf"]
    with pytest.raises(UsageError, match=r"no weights like \*q5\*; it has a-q4\.gguf, a-q8\.gguf"):
        chosen(files, ["*q5*"], "x/y")
    shards = remote("a-00001-of-00002.gguf", "a-00002-of-00002.gguf")
    assert chosen(shards, (), "x/y") == shards
    both = remote("model-00001-of-00001.safetensors", "consolidated.safetensors", "a.gguf")
    assert [file.name for file in chosen(both, (), "x/y")] == ["model-00001-of-00001.safetensors"]
    with pytest.raises(CheckpointError, match="has neither"):
        chosen(remote("README.md"), (), "x/y")
