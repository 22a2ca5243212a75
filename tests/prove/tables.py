"""Databases of a proof: SQLite and PostgreSQL alike, made anew, and read for the checker."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import sqlite3
import subprocess
import tempfile
import uuid
from pathlib import Path

from checker import Row, Tables
from journal import FIELDS, LOCKS, REPORT, UNLOCKS, State, case_key


class Sqlite:
    name = "SQLite"

    def __init__(self) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="prove.")
        self.file = Path(self._files.name, "profiles.db")
        self.url = f"sqlite://{self.file}?mode=rwc"

    def query(self, statement: str) -> list[list]:
        """Rows. An id is its 36 characters."""
        with contextlib.closing(sqlite3.connect(self.file, timeout=30)) as connection:
            rows = connection.execute(statement).fetchall()
        return [[str(uuid.UUID(bytes=each)) if isinstance(each, bytes) else each for each in row] for row in rows]

    def execute(self, *statements: str) -> None:
        """Runs statements in one transaction."""
        with contextlib.closing(sqlite3.connect(self.file, timeout=30)) as connection:
            connection.executescript(";".join(("BEGIN IMMEDIATE", *statements, "COMMIT")))

    def id(self, profile: str) -> str:
        """An id as a statement has it."""
        return f"x'{profile.replace('-', '')}'"

    def damage(self) -> list[str]:
        """What is broken in the file as a kill has left it, with its log that nobody has played back."""
        with tempfile.TemporaryDirectory(prefix="prove.") as directory:
            for file in self.file.parent.glob("profiles.db*"):
                if not file.name.endswith("-shm"):
                    shutil.copy(file, directory)
            with contextlib.closing(sqlite3.connect(Path(directory, "profiles.db"))) as connection:
                found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        self._files.cleanup()


class Postgres:
    """A database of its own on a server, by the programs of PostgreSQL."""

    name = "PostgreSQL"

    def __init__(self, programs: str, server: str) -> None:
        self._psql = [f"{programs}/psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c"]
        self._server, self._database = server, f"prove_{uuid.uuid4().hex}"
        self._run(f"CREATE DATABASE {self._database}", server)
        self.url = f"{server.rpartition('/')[0]}/{self._database}"

    def _run(self, statement: str, url: str) -> str:
        return subprocess.run([*self._psql, statement, url], check=True, capture_output=True, text=True).stdout

    def query(self, statement: str) -> list[list]:
        """Rows. An id is its 36 characters."""
        printed = self._run(f"SELECT to_json(t) FROM ({statement}) t", self.url)
        return [list(json.loads(row).values()) for row in printed.splitlines()]

    def execute(self, *statements: str) -> None:
        """Runs statements in one transaction."""
        self._run(";".join(statements), self.url)

    def id(self, profile: str) -> str:
        """An id as a statement has it."""
        return f"'{profile}'"

    def damage(self) -> list[str]:
        """A kill of the program leaves the server's files alone."""
        return []

    def close(self) -> None:
        self._run(f"DROP DATABASE {self._database} WITH (FORCE)", self._server)


Database = Sqlite | Postgres
ROW = ("profile_id", "revision", "changed_at", "rpc", "request_id", "case_id", "new_values")


def read(database: Database) -> Tables:
    """What the checker needs. Nobody writes meanwhile."""
    profiles = database.query(f"SELECT id, revision, updated_at, locked, {', '.join(FIELDS)} FROM profile")
    history = database.query(f"SELECT {', '.join(ROW)} FROM profile_change")
    claims = database.query("SELECT request_id, profile_id FROM write_request")
    cases = database.query("SELECT case_id, profile_id, status FROM profile_case")
    feed = database.query("SELECT profile_id, revision FROM feed ORDER BY position")
    pending = database.query("SELECT changes FROM feed_pending ORDER BY id")
    for (changes,) in pending:  # of each its organization, its profile and its revision
        words = changes.split()
        feed += [[words[at + 1], int(words[at + 2])] for at in range(0, len(words), 3)]
    return Tables(
        profiles={row[0]: State(row[1], time(row[2]), present(row[4:]), bool(row[3])) for row in profiles},
        history=[Row(row[0], row[1], time(row[2]), key_of(*row[3:])) for row in history],
        claims=dict(claims),
        cases={case_id: (profile, status) for case_id, profile, status in cases},
        feed=[(profile, revision) for profile, revision in feed],
    )


def time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def present(values: list[str | None]) -> dict[str, str]:
    return {field: value for field, value in zip(FIELDS, values) if value}


def key_of(rpc: str, request_id: str | None, case_id: str | None, new_values: str | None) -> str:
    """The key of the write that a row of history is of."""
    if rpc != REPORT:
        return request_id or "none"
    return case_key(case_id, LOCKS if "locked" in json.loads(new_values or "{}") else UNLOCKS)
