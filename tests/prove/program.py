"""The real program, and a polite client of it in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20


class Ended(RuntimeError):
    """The program has ended by itself."""


class Program:
    """A server with an organization and a key, on a new SQLite database unless it is given another, empty one. With a
    key it is one more on a database that has both. The environment is the server's alone, not of commands."""

    def __init__(
        self,
        path: Path,
        *flags: str,
        database: str | None = None,
        key: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.path = path
        self.flags = flags
        self.environment = environment or {}
        self.database = database
        self.key = key

    async def __aenter__(self) -> Program:
        self._files = tempfile.TemporaryDirectory(prefix="prove.")
        self.log_file = Path(self._files.name, "log")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("PROFILE_")}
        database = self.database or f"sqlite://{self._files.name}/profiles.db?mode=rwc"
        self._environment["PROFILE_DATABASE_URL"] = database
        try:
            command = [self.path, "serve", "--listen", "127.0.0.1:0", *self.flags]
            with self.log_file.open("wb") as log:  # a file, which never keeps the program from logging
                environment = self._environment | self.environment
                self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=log)
            self.port = await self.port_of("listening")
            if self.key is None:
                self.command("organization", "create", "north")
                self.key = self.new_key("t")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(AttributeError):
            self.process.kill()
            self.process.wait()
        self._files.cleanup()

    def new_key(self, name: str, *options: str) -> str:
        scopes = ["--scope", "profiles.read,profiles.write,profiles.list,cases.report"]
        return self.command("key", "create", "--organization", "north", "--name", name, *scopes, *options)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """The most resident memory so far, as the kernel has seen it, so that no peak is missed."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("the program has ended")

    def log(self) -> list[dict]:
        """The log's lines without one that is being written."""
        lines = self.log_file.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def command(self, *arguments: str) -> str:
        command = [self.path, *arguments]
        done = subprocess.run(command, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{arguments}: {done.stderr}")
        return done.stdout.strip()

    async def port_of(self, message: str) -> int:
        """The port that a line of the log tells."""
        async with asyncio.timeout(START_SECONDS):
            while self.process.poll() is None:
                for line in self.log():
                    if line["message"] == message:
                        return int(line["address"].rpartition(":")[2])
                await asyncio.sleep(0.01)  # a file tells nobody that it has grown
        raise Ended(f"the program has ended: {self.log_file.read_text()}")


class Client:
    """A script beside this one in a process of its own: hostile peers must not be what makes it slow.

    It says `ready` once it has been served, and its figures as JSON when its standard input is closed or it is done.
    """

    def __init__(self, script: str, *arguments: object, key: str) -> None:
        self.command = [sys.executable, "-B", str(Path(__file__).with_name(script)), *map(str, arguments)]
        self.key = key

    async def __aenter__(self) -> Client:
        pipe = subprocess.PIPE
        environment = os.environ | {"KEY": self.key}
        self.process = await asyncio.create_subprocess_exec(*self.command, env=environment, stdin=pipe, stdout=pipe)
        async with asyncio.timeout(START_SECONDS):
            if await self.process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{self.command} was not served")
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def go(self) -> None:
        """Starts a client that waits for others."""
        self.process.stdin.write(b"\n")

    async def figures(self, seconds: float = START_SECONDS) -> dict:
        """Ends the client, or waits for the end of one that ends by itself, and answers what it has seen."""
        self.process.stdin.close()
        async with asyncio.timeout(seconds):
            figures = json.loads(await self.process.stdout.read())
            await self.process.wait()
        return figures
