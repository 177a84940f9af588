"""JSON lines over a pair of descriptors, between the host and the worker and inside it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from typing import Any


class Channel:
    """JSON lines over a pair of descriptors."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer, self.buffer = reader, writer, b""

    def send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self.writer, data) :]

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """Next message; None at the end of the stream; TimeoutError past `seconds`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self.reader], [], [], left)[0]:
                raise TimeoutError
            data = os.read(self.reader, 1 << 16)
            if not data:
                return None
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        for descriptor in {self.reader, self.writer}:
            with contextlib.suppress(OSError):
                os.close(descriptor)
