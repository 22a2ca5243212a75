#!/usr/bin/env python3
"""Runs the commands of README.md as they stand, so that it cannot rot: scripts/readme.py [README]

The tag of a fence says what becomes of its block:

- `sh`: it is run, in order, in one bash session; variables carry over, and a command that fails ends everything.
- `sh server`, `sh gateway`: it is started in a session of its own and must come to listen on 127.0.0.1, port 50051
  or 8080. It is ended before the next of its kind or at the end. What it prints is shown only if it does not get there.
- `sh by-hand`: it is not run, only counted.
- `json` or `text`, with nothing between it and an `sh` block: what that block prints, on both outputs. Ids, times,
  keys and their names may differ.

All happens in a copy of the repository, so that the embedded database is a new one; the target directory is shared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVERS = {"sh server": ("127.0.0.1", 50051), "sh gateway": ("127.0.0.1", 8080)}
BASH = ["bash", "-euo", "pipefail"]
START_SECONDS = 900  # a server may have to be built first
STOP_SECONDS = 30

FENCE = re.compile(r"^( *)```([^`\n]*)\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
VARYING = [
    (re.compile(r"ps_[0-9a-f]+_[0-9a-f]+"), "<key>"),
    (re.compile(r"\breadme-\d+\b"), "<name>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
]


class Failure(Exception):
    """Why the README is wrong, or cannot be run."""


@dataclasses.dataclass
class Block:
    line: int
    kind: str  # "sh", "sh by-hand" or one of SERVERS
    script: str
    expected: str | None = None


def parse(text: str) -> list[Block]:
    """The README's `sh` blocks with what they should print."""
    blocks: list[Block] = []
    previous = None  # the block whose fence has just ended, and where
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start()) + 1
        kind = " ".join(fence[2].split())
        body = re.sub(f"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
        if kind in ("sh", "sh by-hand", *SERVERS):
            blocks.append(Block(line, kind, body))
            previous = (blocks[-1], fence.end())
            continue
        if kind.startswith("sh "):
            raise Failure(f"line {line}: what is {kind!r}?")
        if kind in ("json", "text") and previous:
            block, end = previous
            if block.kind == "sh" and not text[end : fence.start()].strip():
                block.expected = body
        previous = None
    return blocks


def normalized(text: str) -> list[str]:
    """The text's lines without what differs from run to run."""
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return [line.rstrip() for line in text.rstrip().splitlines()]


def answers(address: tuple[str, int]) -> bool:
    """Whether something listens there."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(address) == 0


class Runner:
    """Runs blocks in a copy of the repository."""

    def __init__(self, directory: Path) -> None:
        self.copy = directory / "copy"
        self.script = directory / "script"
        self.output = directory / "output"
        self.log = directory / "log"
        self.servers: dict[str, subprocess.Popen] = {}
        # With their times, and with .git for build.rs: cargo then finds everything built.
        ignored = shutil.ignore_patterns(".venv", "profiles.db*", "target")
        shutil.copytree(ROOT, self.copy, symlinks=True, ignore=ignored)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PROFILE_")}
        self.environment["CARGO_TARGET_DIR"] = str(ROOT / os.environ.get("CARGO_TARGET_DIR", "target"))
        self.session = self.start(BASH, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, command: list[str], **options) -> subprocess.Popen:
        return subprocess.Popen(command, cwd=self.copy, env=self.environment, start_new_session=True, **options)

    def run(self, block: Block) -> None:
        """Runs a block in the session and compares what it prints."""
        self.script.write_text(block.script)
        # The script is sourced from a file, so that no command can read the rest of it from standard input.
        print(f". {self.script} </dev/null >{self.output} 2>&1; echo ended", file=self.session.stdin, flush=True)
        ended = self.session.stdout.readline()
        output = self.output.read_text()
        if not ended:
            raise Failure(f"it failed:\n{output}")
        if block.expected is not None:
            expected, actual = normalized(block.expected), normalized(output)
            if expected != actual:
                raise Failure("\n".join(difflib.unified_diff(expected, actual, "README", "actual", lineterm="")))

    def serve(self, block: Block) -> None:
        """Starts a server instead of the one of its kind that runs, if any."""
        address = SERVERS[block.kind]
        self.stop_server(block.kind)
        if answers(address):
            raise Failure(f"{address[0]}:{address[1]} is taken")
        with self.log.open("w") as log:
            command = [*BASH, "-c", block.script]
            server = self.start(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.servers[block.kind] = server
        deadline = time.monotonic() + START_SECONDS
        while not answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"the server does not listen:\n{self.log.read_text()}")
            time.sleep(0.1)

    def stop_server(self, kind: str) -> None:
        if kind not in self.servers:
            return
        end(self.servers.pop(kind))
        deadline = time.monotonic() + STOP_SECONDS
        while answers(SERVERS[kind]):
            if time.monotonic() > deadline:
                raise Failure("the server does not end")
            time.sleep(0.1)

    def close(self) -> None:
        try:
            end(self.session)
        finally:
            for kind in list(self.servers):
                self.stop_server(kind)


def end(process: subprocess.Popen) -> None:
    """Ends a process and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise Failure(f"it took SIGKILL to end {process.args}") from None


def main() -> None:
    readme = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that nothing is left running
    passed = by_hand = 0
    directory = Path(tempfile.mkdtemp(prefix="readme."))
    try:
        blocks = parse(readme.read_text())
        with contextlib.closing(Runner(directory)) as runner:
            for block in blocks:
                if block.kind == "sh by-hand":
                    by_hand += 1
                    continue
                first_line = block.script.strip().partition("\n")[0]
                print(f"{readme.name}:{block.line}: {first_line}", flush=True)
                if block.kind in SERVERS:
                    runner.serve(block)
                else:
                    runner.run(block)
                passed += 1
        if not passed:
            raise Failure("there is nothing to run")
    except Failure as failure:
        print(failure)
        print(f"{passed} passed, 1 failed")
        sys.exit(1)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"by hand: {by_hand} blocks")
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
