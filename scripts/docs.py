#!/usr/bin/env python3
"""Checks the documents: scripts/docs.py [--program PROGRAM] [DOCUMENT…]

Links: each one of a Markdown file to a file or a heading of the repository must have its target, and each document of
docs/ must be linked from README.md.

Completeness: docs/configuration.md names every option and variable of `profile-service serve`, docs/errors.md every
reason of src/grpc/status.rs.

Blocks: the commands of the documents in the root and in docs/ are run as they stand. The tag of a fence says what becomes of its block:

- `sh`: it is run, in order, in one bash session for the document; variables carry over, and a command that fails ends
  everything.
- `sh server`, `sh gateway`: it is started in a session of its own and must come to listen on 127.0.0.1, port 50051
  or 8080; a server must also say that it is SERVING. It is ended before the next of its kind or at the end. What it prints is shown only if it does not get there.
- `sh by-hand`: it is not run; its syntax is checked.
- `python FILE`: it is written to FILE.
- `json` or `text`, with nothing between it and an `sh` block: what that block prints, on both outputs. Ids, times,
  keys and their names may differ.

Each document is run in a copy of the repository of its own, so that the embedded database is a new one; the target
directory is shared. `profile-service` is on the PATH, and so are the tools of .venv. With --program no cargo is called:
`cargo run` stands for PROGRAM then.
"""

from __future__ import annotations

import argparse
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
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVERS = {"sh server": ("127.0.0.1", 50051), "sh gateway": ("127.0.0.1", 8080)}
SHELL = ("sh", "sh by-hand", *SERVERS)
OTHERS = ("json", "text", "yaml", "proto", "rust", "sql", "mermaid")
BASH = ["bash", "-euo", "pipefail"]
START_SECONDS = 900  # a server may have to be built first
STOP_SECONDS = 30
LONGEST_SECONDS = 300  # of a block, which may build something

FENCE = re.compile(r"^( *)```([^`\n]*)\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.MULTILINE)
VARYING = [
    (re.compile(r"ps_[0-9a-f]+_[0-9a-f]+"), "<key>"),
    (re.compile(r"\b(guide|privacy|rest)-\d+\b"), "<name>"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "<uuid>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"), "<time>"),
]


class Failure(Exception):
    """Why a document is wrong, or cannot be run."""


@dataclasses.dataclass
class Block:
    line: int
    kind: str  # one of SHELL, or "python FILE"
    script: str
    expected: str | None = None


def parse(text: str) -> list[Block]:
    """A document's `sh` and `python` blocks with what they should print."""
    blocks: list[Block] = []
    previous = None  # the block whose fence has just ended, and where
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start()) + 1
        kind = " ".join(fence[2].split())
        body = re.sub(f"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
        if kind in SHELL or re.fullmatch(r"python \w+\.py", kind):
            blocks.append(Block(line, kind, body))
            previous = (blocks[-1], fence.end())
            continue
        if kind not in OTHERS:
            raise Failure(f"line {line}: a block must be one of {', '.join((*SHELL, 'python FILE', *OTHERS))}: {kind!r}")
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


def markdown_files() -> list[Path]:
    """Every Markdown file of the repository, tracked or about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in sorted(names.split("\0")) if name and (ROOT / name).exists()]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        anchor, number = slug, 0
        while anchor in found:
            number += 1
            anchor = f"{slug}-{number}"
        found.add(anchor)
    return found


def check_links(files: list[Path]) -> int:
    """How many links there are. A link without its target is a failure."""
    count = 0
    wrong: list[str] = []
    linked: set[Path] = set()
    for file in files:
        text = INLINE_CODE.sub("", FENCE.sub("", file.read_text()))
        for target in LINK.findall(text):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            name, _, anchor = target.partition("#")
            path = (file.parent / name).resolve() if name else file
            if file == ROOT / "README.md":
                linked.add(path)
            if not path.exists() or not path.is_relative_to(ROOT):
                wrong.append(f"{file.relative_to(ROOT)}: there is no {target}")
            elif anchor and (path.suffix != ".md" or anchor not in anchors(path.read_text())):
                wrong.append(f"{file.relative_to(ROOT)}: there is no heading {target}")
    documents = [file for file in files if file.parent == ROOT / "docs"]
    wrong += [f"README.md: no link to docs/{file.name}" for file in documents if file not in linked]
    if wrong:
        raise Failure("\n".join(wrong))
    return count


def check_complete(program: Path) -> None:
    """Every option, variable and reason must be in its document."""
    help_text = subprocess.run([program, "serve", "--help"], check=True, capture_output=True, text=True).stdout
    options = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", help_text, re.MULTILINE)
    variables = re.findall(r"\[env: ([A-Z_]+)", help_text)
    source = (ROOT / "src/grpc/status.rs").read_text()
    reasons = re.findall(r'"([A-Z_]+)"', source.partition("pub const REASONS")[2].partition("];")[0])
    for document, names in ("configuration", {*options, *variables} - {"--help"}), ("errors", reasons):
        text = (ROOT / f"docs/{document}.md").read_text()
        missing = sorted(name for name in names if f"`{name}`" not in text)
        if missing or not names:
            raise Failure(f"docs/{document}.md lacks {', '.join(missing) or 'everything'}")


def answers(address: tuple[str, int]) -> bool:
    """Whether something listens there."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(address) == 0


class Runner:
    """Runs a document's blocks in a copy of the repository."""

    def __init__(self, directory: Path, path: str) -> None:
        self.copy = directory / "copy"
        self.script = directory / "script"
        self.output = directory / "output"
        self.log = directory / "log"
        self.servers: dict[str, subprocess.Popen] = {}
        # With their times, and with .git for build.rs: cargo then finds everything built.
        ignored = shutil.ignore_patterns(".venv", "node_modules", "profiles.db*", "target")
        shutil.copytree(ROOT, self.copy, symlinks=True, ignore=ignored)
        if (ROOT / ".venv").exists():
            (self.copy / ".venv").symlink_to(ROOT / ".venv")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PROFILE_")}
        self.environment["CARGO_TARGET_DIR"] = str(target_directory())
        self.environment["PATH"] = path
        self.session = self.start(BASH, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, command: list[str], **options) -> subprocess.Popen:
        return subprocess.Popen(command, cwd=self.copy, env=self.environment, start_new_session=True, **options)

    def run(self, block: Block) -> None:
        """Does with a block what its kind says."""
        if block.kind in SERVERS:
            self.serve(block)
        elif block.kind == "sh by-hand":
            parsed = subprocess.run(["bash", "-n"], input=block.script, capture_output=True, text=True, check=False)
            if parsed.returncode != 0:
                raise Failure(parsed.stderr)
        elif block.kind == "sh":
            self.call(block)
        else:
            (self.copy / block.kind.split()[1]).write_text(block.script)

    def call(self, block: Block) -> None:
        """Runs a block in the session and compares what it prints."""
        self.script.write_text(block.script)
        # The script is sourced from a file, so that no command can read the rest of it from standard input.
        print(f". {self.script} </dev/null >{self.output} 2>&1; echo ended", file=self.session.stdin, flush=True)
        overdue = threading.Timer(LONGEST_SECONDS, self.session.kill)
        overdue.start()
        try:
            ended = self.session.stdout.readline()
        finally:
            overdue.cancel()
        output = self.output.read_text()
        if not ended:
            raise Failure(f"it failed, or took {LONGEST_SECONDS} s:\n{output}")
        if block.expected is not None:
            expected, actual = normalized(block.expected), normalized(output)
            if expected != actual:
                raise Failure("\n".join(difflib.unified_diff(expected, actual, "document", "actual", lineterm="")))

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
        while not answers(address) or not self.is_serving(block.kind):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"the server does not listen:\n{self.log.read_text()}")
            time.sleep(0.1)

    def is_serving(self, kind: str) -> bool:
        """Whether a service has begun to serve; it listens before it has made the first organization."""
        if kind != "sh server":
            return True
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self.start(["profile-service", "health"], stdin=subprocess.DEVNULL, **quiet).wait() == 0

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


def target_directory() -> Path:
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def prepare_path(directory: Path, program: Path | None) -> tuple[Path, str]:
    """The program, and the PATH of the blocks, which has it."""
    tools = directory / "bin"
    tools.mkdir()
    if program is None:
        subprocess.run(["cargo", "build", "-q", "--locked"], cwd=ROOT, check=True)
        program = target_directory() / "debug/profile-service"
    else:
        program = program.resolve(strict=True)
        cargo = tools / "cargo"
        cargo.write_text(
            '#!/bin/bash\n[[ $1 == run ]] || exit 2\nshift\nfor word in -q --; do [[ ${1-} != "$word" ]] || shift; done\n'
            f'exec {program} "$@"\n'
        )
        cargo.chmod(0o755)
    (tools / "profile-service").symlink_to(program)
    return program, os.pathsep.join([str(tools), str(ROOT / ".venv/bin"), os.environ["PATH"]])


def run_document(document: Path, path: str) -> tuple[int, int]:
    """How many blocks were run, and how many are by hand."""
    blocks = parse(document.read_text())
    by_hand = sum(block.kind == "sh by-hand" for block in blocks)
    if not blocks:
        return 0, 0
    directory = Path(tempfile.mkdtemp(prefix="docs."))
    block = None
    try:
        with contextlib.closing(Runner(directory, path)) as runner:
            for block in blocks:
                if block.kind != "sh by-hand":
                    first_line = block.script.strip().partition("\n")[0]
                    print(f"{document.name}:{block.line}: {first_line}", flush=True)
                runner.run(block)
    except Failure as failure:
        raise Failure(f"{document.name}:{block.line if block else 1}: {failure}") from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return len(blocks) - by_hand, by_hand


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks the documents.")
    parser.add_argument("--program", type=Path, help="a program that is built, in the place of cargo")
    parser.add_argument("documents", nargs="*", type=Path, help="whose blocks are run; all without")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that nothing is left running
    files = markdown_files()
    documents = arguments.documents or [file for file in files if file.parent in (ROOT, ROOT / "docs")]
    passed = by_hand = 0
    directory = Path(tempfile.mkdtemp(prefix="docs."))
    try:
        links = check_links(files)
        program, path = prepare_path(directory, arguments.program)
        check_complete(program)
        for document in documents:
            ran, left = run_document(document, path)
            passed, by_hand = passed + ran, by_hand + left
        if not passed:
            raise Failure("there is nothing to run")
    except Failure as failure:
        print(failure)
        print(f"{passed} passed, 1 failed")
        sys.exit(1)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"links: {links}; by hand: {by_hand} blocks")
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
