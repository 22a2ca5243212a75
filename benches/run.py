"""Measures the service against what PostgreSQL and an empty server of the same stack do; see scripts/bench."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import itertools
import json
import os
import platform
import re
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs/benchmarks.md"
ORGANIZATIONS = 20
CALLS = {"get": "GetProfile", "create": "CreateProfile", "patch": "PatchProfile", "update": "UpdateProfile",
         "mixed": "90/10 mixed"}
START_SECONDS = 20
SAMPLE_SECONDS = 0.25

COLUMNS = ("id, organization_id, revision, locked, role, first_name, last_name, email, dob, gender, phone_number,"
           " address, address2, city, state, country, postal_code, created_at, updated_at")
# Ids from numbers of 19 digits, which pgbench can say: those of organizations, of people, and of people it creates.
PREFIX = "0000000000000"
FIRST_ORGANIZATION, FIRST_PERSON, FIRST_CREATED = 10**18, 2 * 10**18, 5 * 10**18
STEP = 1_000_000_000_039
# Of person N.
PERSON = ("{id}, {organization}, 1, false, 'USER', 'Augusta Ada', 'King-Noel', 'person' || n || '@example.com',"
          " '1985-12-10'{date}, 'FEMALE', '+1' || (1000000000 + n), '12 Analytical Avenue', 'Apartment 4',"
          " 'Springfield', 'NY', 'US', '01010', {now}, {now}")


class Process:
    """A server, with its log in a file: what a call costs includes its line in the log."""

    def __init__(self, name: str, command: list[object], directory: Path) -> None:
        self.log = directory / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([str(part) for part in command], cwd=directory, stderr=log)
        self.target = self._listening()

    def _listening(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.log.read_text().splitlines():
                if '"listening"' in line:
                    return json.loads(line)["address"]
            time.sleep(0.01)  # a file tells nobody that it has grown
        raise RuntimeError(f"no server: {self.log.read_text()}")

    def cpu_seconds(self) -> float:
        return ticks(self.process.pid, children=False)

    def resident_mb(self, what: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{what}:\s+(\d+)", status, re.M)
        if not found:  # a process that has ended has no memory
            raise RuntimeError(f"the server has ended: {self.end_of_log()}")
        return int(found[1]) / 1024

    def end_of_log(self) -> str:
        return self.log.read_text()[-2000:]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(START_SECONDS)


def ticks(pid: int, *, children: bool) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15] if children else fields[11:13])) / os.sysconf("SC_CLK_TCK")


class Postgres:
    """The server that scripts/bench has started."""

    def __init__(self, url: str, binaries: Path, data: Path) -> None:
        self.server = url.rpartition("/")[0]
        self.binaries = binaries
        self.runs = itertools.count()
        self.postmaster = int((data / "postmaster.pid").read_text().split()[0])

    def url(self, database: str) -> str:
        return f"{self.server}/{database}"

    def sql(self, database: str, text: str) -> None:
        command = [self.binaries / "psql", "-qX", "-v", "ON_ERROR_STOP=1", self.url(database)]
        subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL)

    def cpu_seconds(self) -> float:
        """Of all processes, those that have ended too."""
        children = Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children")
        while True:
            before = children.read_text()
            # A process that ends meanwhile is counted by its parent from then on: neither twice nor never.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total = sum(ticks(int(child), children=False) for child in before.split())
                total += ticks(self.postmaster, children=True)
                if children.read_text() == before:
                    return total

    def pgbench(self, database: str, script: str, people: int, seconds: float, directory: Path) -> dict:
        """Runs the same statements as one transaction each, with 16 clients and prepared statements."""
        for old in directory.glob("pgbench_log*"):
            old.unlink()
        path = directory / "script.sql"
        path.write_text(script)
        command = [self.binaries / "pgbench", "-n", "-M", "prepared", "-c", "16", "-j", "2", "-T", max(1, round(seconds)),
                   "-D", f"people={people}", "-D", "created=0", "-D", f"run={next(self.runs)}", "-f", path, "--log", "--log-prefix=pgbench_log", "--sampling-rate=0.1",
                   self.url(database)]
        before = self.cpu_seconds()
        done = subprocess.run([str(part) for part in command], cwd=directory, text=True, capture_output=True)
        if done.returncode or "number of failed transactions: 0" not in done.stdout:
            raise RuntimeError(done.stdout + done.stderr)
        cpu = self.cpu_seconds() - before
        calls = int(re.search(r"actually processed: (\d+)", done.stdout)[1])
        times = sorted(int(line.split()[2]) / 1e3 for log in directory.glob("pgbench_log*") for line in log.open())
        return {"rate": float(re.search(r"tps = ([\d.]+)", done.stdout)[1]), "p50_ms": times[len(times) // 2],
                "p99_ms": times[len(times) * 99 // 100], "postgres_us": cpu / calls * 1e6}


def pgbench_scripts() -> dict[str, str]:
    """The statements that the service sends, but that ids and addresses are put together from numbers."""
    person = rf"""\set n random(0, :people - 1)
\set person {FIRST_PERSON} + :n * {STEP}
\set organization {FIRST_ORGANIZATION} + :n % {ORGANIZATIONS}
\set value random(0, 99999999)
"""
    created = rf"""\set created :created + 1
\set person {FIRST_CREATED} + :run * 10000000000000 + :client_id * 100000000000 + :created
\set organization {FIRST_ORGANIZATION} + :created % {ORGANIZATIONS}
\set value random(100000000000000, 999999999999999)
"""
    row = ", ".join(f'"profile".{column}' for column in COLUMNS.split(", "))
    organization, identity = f"('{PREFIX}' || :organization)::uuid", f"('{PREFIX}' || :person)::uuid"
    select = f"SELECT {row} FROM profile WHERE organization_id = {organization} AND "
    for_update = " LIMIT 1 FOR UPDATE \\gset\n"
    change = "UPDATE profile SET revision = :revision + 1, {column} = 'City ' || :value, updated_at = now() WHERE id = :id;"
    history = ("INSERT INTO profile_change (profile_id, revision, organization_id, changed_at, rpc, key_id, key_name,"
               " lock_overridden, fields, old_values, new_values) VALUES ({id}, {revision}, " + organization +
               ", now(), 'ProfileService/PatchProfile', '0123456789abcdef', 'bench', false, '{fields}', {old}, {new});")
    city = "'{\"city\":\"City ' || :value || '\"}'"
    changed = history.format(id=":id", revision=":revision + 1", fields="city", old=city, new=city)
    new = PERSON.format(id=identity, organization=organization, date="::date", now="now()")
    # Somewhere in the indexes, as the service's are, and not one behind the other.
    new = new.replace("'person' || n", "'new' || :value").replace("'+1' || (1000000000 + n)", "'+' || :value")
    fields = "role first_name last_name email dob gender phone_number address address2 city state country postal_code"
    values = json.dumps({"role": "USER", "first_name": "Augusta Ada", "last_name": "King-Noel", "email": "new@example.com",
                         "dob": "1985-12-10", "gender": "FEMALE", "phone_number": "+800000000000000",
                         "address": "12 Analytical Avenue", "address2": "Apartment 4", "city": "Springfield",
                         "state": "NY", "country": "US", "postal_code": "01010"}, separators=(",", ":"))
    first = history.format(id=identity, revision=1, fields=fields, old="NULL", new=f"'{values}'")
    return {
        "get": f"{person}{select}id = {identity};\n",
        "create": f"{created}BEGIN;\nINSERT INTO profile ({COLUMNS}) VALUES ({new});\n{first}\nCOMMIT;\n",
        "patch": f"{person}BEGIN;\n{select}id = {identity}{for_update}{change.format(column='city')}\n{changed}\nCOMMIT;\n",
        "update": f"{person}BEGIN;\n{select}email = 'person' || :n || '@example.com'{for_update}"
                  f"{change.format(column='address')}\n{changed}\nCOMMIT;\n",
    }


class Bench:
    def __init__(self, args: argparse.Namespace, directory: Path) -> None:
        self.args = args
        self.directory = directory
        self.postgres = Postgres(args.url, args.binaries, args.data)
        self.keys = [(secrets.token_hex(8), secrets.token_hex(32)) for _ in range(ORGANIZATIONS)]
        (directory / "keys").write_text("".join(f"ps_{lookup}_{secret}\n" for lookup, secret in self.keys))
        self.processes: dict[str, Process] = {}

    # The people.

    def fill(self, database: str, people: int) -> None:
        self.postgres.sql("postgres", f"CREATE DATABASE {database}")
        self.service("migrate", "--database-url", self.postgres.url(database))
        keys = ", ".join(f"('{lookup}', '{organization_id(n)}', 'bench', '\\x{digest(secret).hex()}',"
                         f" 'profiles.read profiles.write', now())" for n, (lookup, secret) in enumerate(self.keys))
        person = PERSON.format(id=f"('{PREFIX}' || ({FIRST_PERSON} + n * {STEP}))::uuid",
                               organization=f"('{PREFIX}' || ({FIRST_ORGANIZATION} + n % {ORGANIZATIONS}))::uuid",
                               date="::date", now="now()")
        self.postgres.sql(database, f"""
            INSERT INTO organization SELECT ('{PREFIX}' || ({FIRST_ORGANIZATION} + n))::uuid, 'organization ' || n, now()
                FROM generate_series(0, {ORGANIZATIONS - 1}) n;
            INSERT INTO api_key (id, organization_id, name, secret_sha256, scopes, created_at) VALUES {keys};
            INSERT INTO profile ({COLUMNS}) SELECT {person} FROM generate_series(0::bigint, {people - 1}) n;
            VACUUM ANALYZE;
            CHECKPOINT;
        """)

    def fill_sqlite(self, file: Path, people: int) -> None:
        self.service("migrate", "--database-url", f"sqlite://{file}?mode=rwc")
        now = "'2026-01-01T00:00:00.000000+00:00'"
        person = PERSON.format(id="person(n)", organization=f"organization_id(n % {ORGANIZATIONS})", date="", now=now)
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.create_function("person", 1, lambda n: person_id(n).bytes)
            database.create_function("organization_id", 1, lambda n: organization_id(n).bytes)
            numbers = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers LIMIT {})"
            database.execute(f"INSERT INTO organization {numbers.format(ORGANIZATIONS)}"
                             f" SELECT organization_id(n), 'organization ' || n, {now} FROM numbers")
            for n, (lookup, secret) in enumerate(self.keys):
                database.execute("INSERT INTO api_key (id, organization_id, name, secret_sha256, scopes, created_at)"
                                 f" VALUES (?, organization_id({n}), 'bench', ?, 'profiles.read profiles.write', {now})",
                                 (lookup, digest(secret)))
            database.execute(f"INSERT INTO profile ({COLUMNS}) {numbers.format(people)} SELECT {person} FROM numbers")
            database.execute("ANALYZE")
            database.commit()

    def ids(self, people: int) -> Path:
        path = self.directory / f"ids.{people}"
        if not path.exists():
            path.write_bytes(b"".join(person_id(n).bytes for n in range(people)))
        return path

    # What is measured.

    def service(self, *arguments: str) -> None:
        subprocess.run([self.args.program, *arguments], cwd=self.directory, check=True, capture_output=True)

    def serve(self, name: str, database_url: str) -> None:
        command = [self.args.program, "serve", "--listen", "127.0.0.1:0", "--database-url", database_url]
        self.processes[name] = Process(name, command, self.directory)

    def compare(self, name: str, database_url: str) -> None:
        command = [self.args.tools, "serve", "--server", name, "--database-url", database_url]
        self.processes[name] = Process(name, command, self.directory)

    def load(self, server: str, call: str, seconds: float, *, people: int, rate: float | None = None) -> dict:
        process = self.processes[server]
        os.truncate(process.log, 0)
        command = [self.args.tools, "load", "--target", process.target, "--keys", self.directory / "keys", "--ids",
                   self.ids(people), "--call", call, "--seconds", seconds]
        if rate:
            command += ["--rate", rate]
        before = process.cpu_seconds(), self.postgres.cpu_seconds()
        resident = []
        with subprocess.Popen([str(part) for part in command], text=True, stdout=subprocess.PIPE) as loading:
            while loading.poll() is None:
                resident.append(process.resident_mb())
                with contextlib.suppress(subprocess.TimeoutExpired):
                    loading.wait(SAMPLE_SECONDS)
            answer = loading.stdout.read()
        if loading.returncode:
            raise RuntimeError(f"the load failed; of the server: {process.end_of_log()}")
        seen = json.loads(answer)
        after = process.cpu_seconds(), self.postgres.cpu_seconds()
        if seen["failed"]:
            raise RuntimeError(f"{seen['failed']} of {seen['calls']} calls failed: {process.end_of_log()}")
        return {"rate": seen["calls"] / seen["seconds"], "p50_ms": seen["p50_ms"], "p99_ms": seen["p99_ms"],
                "service_us": (after[0] - before[0]) / seen["calls"] * 1e6,
                "postgres_us": (after[1] - before[1]) / seen["calls"] * 1e6, "resident_mb": statistics.median(resident)}

    def rounds(self, runs: dict) -> dict[str, list[dict]]:
        """Everything in turns, so that what the machine does besides hits all of it alike. A run may look at those before.

        The first round of a full run does not count: PostgreSQL's processes have not seen all of their memory before it.
        """
        results: dict[str, list[dict]] = {name: [] for name in runs}
        for number in range(self.args.warm_up + self.args.rounds):
            for name, run in runs.items():
                results[name].append(run(results))
                print(f"round {number}: {name}: {results[name][-1]['rate']:,.0f}/s", flush=True)
        return {name: seen[self.args.warm_up:] for name, seen in results.items()}

    def stop(self) -> None:
        for process in self.processes.values():
            process.stop()


def organization_id(number: int) -> uuid.UUID:
    return uuid.UUID(f"{PREFIX}{FIRST_ORGANIZATION + number}")


def person_id(number: int) -> uuid.UUID:
    return uuid.UUID(f"{PREFIX}{FIRST_PERSON + number * STEP}")


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def median(results: list[dict], what: str) -> float | None:
    values = [result[what] for result in results if what in result]
    return statistics.median(values) if values else None


def spread(results: list[dict]) -> float:
    rates = [result["rate"] for result in results]
    return (max(rates) - min(rates)) / statistics.median(rates)


def ratio(results: dict, what: str, one: str, other: str) -> float:
    """The median of the rounds' ratios: both of a ratio were measured one soon after the other."""
    return statistics.median(a[what] / b[what] for a, b in zip(results[one], results[other], strict=True))


def number(value: float | None, form: str = ",.0f") -> str:
    return "" if value is None else format(value, form)


def table(results: dict[str, list[dict]]) -> list[str]:
    lines = ["| | calls/s | spread | p50 ms | p99 ms | CPU us, service | CPU us, PostgreSQL | resident MB |", "|" + "---|" * 8]
    for name, runs in results.items():
        values = [number(median(runs, "rate")), f"{spread(runs):.0%}", number(median(runs, "p50_ms"), ".2f"),
                  number(median(runs, "p99_ms"), ".2f"), number(median(runs, "service_us"), ".1f"),
                  number(median(runs, "postgres_us"), ".1f"), number(median(runs, "resident_mb"))]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return lines


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", info, re.M)
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB, Linux {platform.release()}"


def measure(bench: Bench) -> list[str]:
    """The lines of the report."""
    args, seconds, people = bench.args, bench.args.seconds, bench.args.people
    bench.fill("bench", people)
    bench.fill_sqlite(bench.directory / "bench.db", people)
    url = bench.postgres.url("bench")
    bench.serve("PostgreSQL", url)
    bench.serve("SQLite", f"sqlite://{bench.directory}/bench.db")
    bench.compare("floor", url)
    bench.compare("one-query-a-call", url)
    get, by_clock = "PostgreSQL: GetProfile", "GetProfile by the clock, at half the round's rate on PostgreSQL"
    runs = {}
    for call, title in CALLS.items():
        runs[f"PostgreSQL: {title}"] = lambda _, call=call: bench.load("PostgreSQL", call, seconds, people=people)
        if call in (scripts := pgbench_scripts()):
            runs[f"pgbench: {title}"] = lambda _, call=call: bench.postgres.pgbench(
                "bench", scripts[call], people, seconds, bench.directory)
        if call == "get":
            for server in ("PostgreSQL", "floor"):
                runs[f"{server}: {by_clock}"] = lambda results, server=server: bench.load(
                    server, "get", seconds, people=people, rate=results[get][-1]["rate"] / 2)
            for server, name in [("one-query-a-call", "one query a call"), ("floor", "floor")]:
                runs[f"{name}: {title}"] = lambda _, server=server: bench.load(server, "get", seconds, people=people)
        runs[f"SQLite: {title}"] = lambda _, call=call: bench.load("SQLite", call, seconds, people=people)
    results = bench.rounds(runs)
    lines = table(results)

    memory = []
    ends = time.monotonic() + args.memory_seconds
    while time.monotonic() < ends:
        memory.append(bench.load("PostgreSQL", "mixed", args.memory_seconds / 10, people=people)["resident_mb"])
    peak_memory = bench.processes["PostgreSQL"].resident_mb("VmHWM")
    bench.stop()
    bench.processes.clear()

    sizes = {}
    for size in (people // 10, people * 10):
        bench.fill(f"bench{size}", size)
        bench.serve(f"{size}", bench.postgres.url(f"bench{size}"))
        bench.load(f"{size}", "get", seconds * 15, people=size)  # each of PostgreSQL's processes maps its pages anew
        sizes[f"GetProfile of {size:,} profiles"] = lambda _, size=size: bench.load(f"{size}", "get", seconds, people=size)
    sized = bench.rounds(sizes)
    small, large = sized
    cost = {name: [{"cost": run["service_us"] + run["postgres_us"]} for run in runs] for name, runs in sized.items()}

    asked = [
        ("GetProfile, calls/s, of pgbench's SELECT of a random row", ratio(results, "rate", get, "pgbench: GetProfile"), ">= 0.55"),
        ("GetProfile, calls/s, of one query a call", ratio(results, "rate", get, "one query a call: GetProfile"), ">= 1.8"),
        ("GetProfile, CPU of the service, of the floor", ratio(results, "service_us", get, "floor: GetProfile"), "<= 1.8"),
        *((f"{CALLS[call]}, calls/s, of pgbench with the same statements",
           ratio(results, "rate", f"PostgreSQL: {CALLS[call]}", f"pgbench: {CALLS[call]}"), f">= {least}")
          for call, least in [("create", 0.55), ("patch", 0.55), ("update", 0.5)]),
        ("SQLite GetProfile, calls/s, of the floor", ratio(results, "rate", "SQLite: GetProfile", "floor: GetProfile"), ">= 0.4"),
        ("GetProfile by the clock, at half its peak: p99 in ms", median(results[f"PostgreSQL: {by_clock}"], "p99_ms"), "<= 5"),
        (f"resident MB at the most, 90/10 mixed for {args.memory_seconds:.0f} s", peak_memory, "<= 100"),
        ("the same, last of first tenth", memory[-1] / memory[0], "flat"),
        (f"CPU of GetProfile, service and PostgreSQL, {large.split(' ')[2]} profiles of {small.split(' ')[2]}",
         ratio(cost, "cost", large, small), "<= 1.2"),
    ]
    lines += ["", *table(sized), "", "| | measured | asked |", "|---|---|---|"]
    lines += [f"| {name} | {value:.2f} | {limit} |" for name, value, limit in asked]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--program", "--tools", "--binaries", "--data"):
        parser.add_argument(flag, type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--quick", action="store_true", help="a short run that shows that everything works; writes nothing")
    args = parser.parse_args()
    args.rounds, args.seconds, args.people, args.memory_seconds = (1, 0.3, 2000, 1) if args.quick else (5, 4, 200_000, 300)
    args.warm_up = 0 if args.quick else 1
    directory = Path(tempfile.mkdtemp(prefix="profile-bench."))
    bench = Bench(args, directory)
    try:
        lines = measure(bench)
    finally:
        bench.stop()
        shutil.rmtree(directory)
    print("\n".join(lines))
    if not args.quick:
        date = datetime.datetime.now(datetime.UTC).date()
        figures = [f"Measured on {date} on {machine()}, {args.people:,} profiles in {ORGANIZATIONS} organizations,"
                   f" medians of {args.rounds} rounds of {args.seconds} s each.", "", *lines]
        before, _, rest = REPORT.read_text().partition("<!-- figures -->\n")
        after = rest.partition("<!-- end of figures -->")[2]
        REPORT.write_text(f"{before}<!-- figures -->\n" + "\n".join(figures) + f"\n<!-- end of figures -->{after}")


if __name__ == "__main__":
    main()
