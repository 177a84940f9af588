"""riallm audit show|verify: the record of what was run on a project, and whether it is whole."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from riallm.agent.audit import AuditLog
from riallm.sandbox.output import clean


def main(argv: list[str]) -> int:
    """0: shown, or whole; 1: the record was tampered with; 2: there is none."""
    parser = argparse.ArgumentParser(prog="riallm audit", description=__doc__)
    parser.add_argument("action", choices=("show", "verify"))
    parser.add_argument("path", nargs="?", default=".", type=Path, help="the project's folder (default: here)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(argv)
    log = AuditLog(options.path)
    if options.action == "verify":
        num_entries, wrong = log.verify()
        if options.json:
            sys.stdout.write(json.dumps({"entries": num_entries, "whole": not wrong, "wrong": wrong}) + "\n")
        else:
            sys.stdout.write(f"{log.path}: {num_entries} entries, {wrong or 'every hash holds'}\n")
        return 1 if wrong else 0
    for entry in log.entries():
        if options.json:
            sys.stdout.write(json.dumps(asdict(entry)) + "\n")
            continue
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
        sys.stdout.write(clean(f"{when}  {entry.user}  {entry.event}  {json.dumps(entry.data)}") + "\n")
    return 0
