"""The command table: name -> "module:function". A command is imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys

COMMANDS: dict[str, tuple[str, str]] = {
    "fix": ("riallm.cli.fix:main", "find the bug behind a failing test and show a verified patch"),
    "complete": ("riallm.cli.complete:main", "fill a hole in a file with a model"),
    "chat": ("riallm.cli.chat:main", "talk to a model, or ask it once"),
    "serve": ("riallm.cli.serve:main", "models behind OpenAI's API"),
    "route": ("riallm.cli.route:main", "one address before several servers"),
    "eval": ("riallm.cli.eval:main", "measure: repair, bits per byte, infilling, pass@k, memory"),
    "bench": ("riallm.cli.bench:main", "measure speed and the sandbox: the benchmarks that print a card"),
    "audit": ("riallm.cli.audit:main", "show or verify the record of what was run"),
    "sandbox": ("riallm.cli.sandbox:main", "run one command in the sandbox"),
    "train": ("riallm.cli.train:main", "train a model from a recipe"),
    "data": ("riallm.cli.data:main", "build the training corpus, or report on it"),
    "models": ("riallm.cli.models:main", "the models by name: parameters, costs, memory"),
    "convert": ("riallm.cli.convert:main", "write a model in another form: ours, Hugging Face's, GGUF"),
    "verify": ("riallm.cli.verify:main", "check a model on the disk against its hashes"),
    "download": ("riallm.cli.download:main", "get a model from a Hugging Face hub"),
    "doctor": ("riallm.cli.doctor:main", "what this machine offers, and what is missing"),
}


def usage() -> str:
    """Help of the whole program, from the table alone."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return f"usage: riallm COMMAND [OPTIONS]\n\n{rows}\n\nriallm COMMAND --help tells a command's options.\n"


UNREAD = 141
"""The exit code where nobody reads what is written any more (`riallm ... | head`), as a shell counts it."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started us, as `<&-` does
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  for the whole run
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _is_unread():
            raise
        _unplug()
        return UNREAD
    except OSError as error:
        if not _is_full():
            raise
        _unplug()
        sys.stderr.write(f"riallm: standard output cannot be written: {error.strerror}\n")
        return 1


def _unplug() -> None:
    """Nothing more goes to standard output, or the interpreter complains as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_full() -> bool:
    """Whether standard output takes nothing, as on a full disk: what was held back, or else an empty line."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _is_unread() -> bool:
    """Whether standard output is a pipe that nobody reads."""
    import select

    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(argv: list[str] | None) -> int:
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from riallm import __version__

        sys.stdout.write(f"riallm {__version__}\n")
        return 0
    if args[0] == "--model":  # `riallm --model NAME --device cpu`, as the RIA document writes it
        args = ["chat", *args]
    if args[0] not in COMMANDS:
        sys.stderr.write(f"riallm: no command '{args[0]}'. Commands: {', '.join(COMMANDS)}.\n")
        return 2
    from riallm.core.errors import RiallmError

    module, function = COMMANDS[args[0]][0].split(":")
    try:
        return int(getattr(importlib.import_module(module), function)(args[1:]))
    except RiallmError as error:
        sys.stderr.write(f"riallm {args[0]}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write(f"\nriallm {args[0]}: stopped; nothing was changed.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
