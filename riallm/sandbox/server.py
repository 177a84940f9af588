"""The launch server: one small process, started once by each of ours, that forks a launcher for every command.

Forking takes a few milliseconds where starting an interpreter takes many. Standard library only, `python -I -S`.
It ends when its control channel is closed. A launcher does not depend on it: it watches its own channel and the
process that asked for it.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from riallm.sandbox import launch

_FDS = 4  # the launcher's channel, and stdin, stdout, stderr of the command


def main(argv: list[str]) -> int:
    """Serve the control channel whose descriptor is `argv[0]` until it is closed."""
    control = socket.socket(fileno=int(argv[0]))
    control.set_inheritable(False)
    while True:
        _reap()
        if not select.select([control], [], [], 1.0)[0]:
            continue
        data, descriptors, _, _ = socket.recv_fds(control, 1, _FDS)
        if not data:
            return 0
        if os.fork() == 0:
            _become_launcher(control, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _become_launcher(control: socket.socket, descriptors: list[int]) -> None:
    code = 1
    try:
        os.setsid()
        control.close()
        for number, descriptor in enumerate(descriptors[1:]):
            os.dup2(descriptor, number)
            os.close(descriptor)
        code = launch.serve(socket.socket(fileno=descriptors[0]))
    finally:
        os._exit(code)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
