"""Who is in the databases: people of some organizations, each with a key."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import subprocess
import uuid
from pathlib import Path

from postgres import Postgres

ORGANIZATIONS = 20
COLUMNS = ("id, organization_id, revision, locked, role, first_name, last_name, email, dob, gender, phone_number,"
           " address, address2, city, state, country, postal_code, created_at, updated_at")
# Ids from numbers of 19 digits, which pgbench can say: those of organizations, of people, and of people it creates.
PREFIX = "0000000000000"
FIRST_ORGANIZATION, FIRST_PERSON, FIRST_CREATED = 10**18, 2 * 10**18, 5 * 10**18
STEP = 1_000_000_000_039
# Columns that revisions have one after the other, and what a person has there; what lists people by name needs.
LATER = {"sort_name": "'king-noel augusta ada'", "identifiers": "'crm|' || n"}
NAMES = ["--scope", "profiles.list"]
# Of person N.
PERSON = ("{id}, {organization}, 1, false, 'USER', 'Augusta Ada', 'King-Noel', 'person' || n || '@example.com',"
          " '1985-12-10'{date}, 'FEMALE', '+1' || (1000000000 + n), '12 Analytical Avenue', 'Apartment 4',"
          " 'Springfield', 'NY', 'US', '01010', {now}, {now}")


@dataclasses.dataclass(frozen=True)
class Database:
    """One that is filled, with what a load has to know of it."""

    url: str
    people: int
    ids: Path
    keys: Path


def fill(postgres: Postgres, program: Path, name: str, people: int, directory: Path) -> Database:
    """A database on PostgreSQL for this program, which makes its schema and keys."""
    url = postgres.url(name)
    postgres.sql("postgres", f"CREATE DATABASE {name}")
    service(program, "migrate", url)
    postgres.sql(name, f"""INSERT INTO organization (id, name, created_at)
        SELECT ('{PREFIX}' || ({FIRST_ORGANIZATION} + n))::uuid, 'organization ' || n, now()
        FROM generate_series(0, {ORGANIZATIONS - 1}) n""")
    found = postgres.sql(name, "SELECT column_name FROM information_schema.columns WHERE table_name = 'profile'")
    later = {column: value for column, value in LATER.items() if column in found.split()}
    database = Database(url, people, ids(people, directory), keys(program, url, directory / f"{name}.keys", later))
    person = f"('{PREFIX}' || ({FIRST_PERSON} + n * {STEP}))::uuid"
    organization = f"('{PREFIX}' || ({FIRST_ORGANIZATION} + n % {ORGANIZATIONS}))::uuid"
    row = PERSON.format(id=person, organization=organization, date="::date", now="now()")
    numbers = f"generate_series(0::bigint, {people - 1}) n"
    postgres.sql(name, f"""
        INSERT INTO profile ({columns(later)}) SELECT {values(row, later)} FROM {numbers};
        {identifiers(person, organization, later)} FROM {numbers};
        VACUUM ANALYZE;
        CHECKPOINT;
    """)
    return database


def fill_sqlite(program: Path, name: str, people: int, directory: Path) -> Database:
    """The same as a file."""
    file = directory / f"{name}.db"
    url = f"sqlite://{file}"
    file.touch()  # only `serve` makes one that is not there
    service(program, "migrate", url)
    now = "'2026-01-01T00:00:00.000000+00:00'"
    organization = f"organization_id(n % {ORGANIZATIONS})"
    row = PERSON.format(id="person(n)", organization=organization, date="", now=now)
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.create_function("person", 1, lambda n: person_id(n).bytes)
        database.create_function("organization_id", 1, lambda n: organization_id(n).bytes)
        numbers = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers LIMIT {})"
        database.execute(f"INSERT INTO organization (id, name, created_at) {numbers.format(ORGANIZATIONS)}"
                         f" SELECT organization_id(n), 'organization ' || n, {now} FROM numbers")
        found = {name for (name,) in database.execute("SELECT name FROM pragma_table_info('profile')")}
        later = {column: value for column, value in LATER.items() if column in found}
        with_numbers = numbers.format(people)
        database.execute(f"{with_numbers} INSERT INTO profile ({columns(later)}) SELECT {values(row, later)} FROM numbers")
        database.execute(f"{with_numbers} {identifiers('person(n)', organization, later)} FROM numbers")
        database.execute("ANALYZE")
        database.commit()
    return Database(url, people, ids(people, directory), keys(program, url, directory / f"{name}.db.keys", later))


def columns(later: dict[str, str]) -> str:
    return ", ".join([COLUMNS, *later])


def values(row: str, later: dict[str, str]) -> str:
    return ", ".join([row, *later.values()])


def identifiers(person: str, organization: str, later: dict[str, str]) -> str:
    """Their identifiers; a revision that has none is asked for nothing."""
    if "identifiers" not in later:
        return "SELECT 1"
    return ("INSERT INTO profile_identifier (organization_id, system, value, profile_id)"
            f" SELECT {organization}, 'crm', CAST(n AS text), {person}")


def keys(program: Path, url: str, path: Path, later: dict[str, str]) -> Path:
    """A file with a key for each organization, by the command line: how a key is stored is each revision's own business."""
    scopes = ["--scope", "profiles.read", "--scope", "profiles.write", *(NAMES if "sort_name" in later else [])]
    create = ["key", "create", "--name", "bench", *scopes, "--organization"]
    path.write_text("".join(service(program, *create, f"organization {n}", url) for n in range(ORGANIZATIONS)))
    return path


def service(program: Path, *arguments: str) -> str:
    """What a command about the database that comes last prints."""
    *command, url = arguments
    done = subprocess.run([program, *command, "--database-url", url], text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def ids(people: int, directory: Path) -> Path:
    path = directory / f"ids.{people}"
    if not path.exists():
        path.write_bytes(b"".join(person_id(n).bytes for n in range(people)))
    return path


def organization_id(number: int) -> uuid.UUID:
    return uuid.UUID(f"{PREFIX}{FIRST_ORGANIZATION + number}")


def person_id(number: int) -> uuid.UUID:
    return uuid.UUID(f"{PREFIX}{FIRST_PERSON + number * STEP}")
