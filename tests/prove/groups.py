"""Proves that any list of changes that are made at once ends as some order of them one by one, and that bugs are found.

The test is tests/it/order.rs. It plays so many scenarios on each database, and then with programs into which a bug was
put on purpose: bugs/*.patch, each applied to a copy of the source. bugs/seeds.txt has for each bug and database the seed
of the scenario that catches it, or `-` where none is known. What happens at once is not the
same each time: such a scenario is played until it catches the bug, and other seeds are tried where it does not.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUGS = ROOT / "tests/prove/bugs"
SEEDS = BUGS / "seeds.txt"
TEST = ["cargo", "test", "-q", "--locked", "--test", "it", "--", "--exact", "--nocapture"]
NAME = "order::any_list_of_changes_ends_as_some_order_of_them_one_by_one"

# How often the scenario of a seed is played, and how many other seeds are tried.
PLAYS = 20
OTHERS = 600


def play(url: str | None, **settings: str) -> tuple[bool, str]:
    """Runs the test on SQLite, or on the PostgreSQL at this URL: whether it passes, and what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE_URL"}
    environment |= settings | ({"TEST_DATABASE_URL": url} if url else {})
    ran = subprocess.run([*TEST, NAME], cwd=ROOT, env=environment, capture_output=True, text=True)
    return ran.returncode == 0, ran.stdout + ran.stderr


class Copy:
    """A copy of the source, to put bugs into. What it is built from is shared; what is built is not."""

    def __init__(self) -> None:
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
        self.source, self.built = target / "bugs/source", target / "bugs/built"
        shutil.rmtree(self.source, ignore_errors=True)
        shutil.copytree(ROOT, self.source, ignore=shutil.ignore_patterns("target", ".git", ".venv", "node_modules"))
        self.environment = {name: value for name, value in os.environ.items() if name != "RUSTC_WORKSPACE_WRAPPER"}
        self.environment |= {"CARGO_BUILD_BUILD_DIR": str(target), "CARGO_TARGET_DIR": str(self.built)}

    def build(self, bug: str) -> Path:
        """The program with this bug."""
        patch = ["patch", "-p1", "-s", "-i", str(BUGS / f"{bug}.patch")]
        # With the example its dependencies are built as for the tests.
        build = ["cargo", "build", "-q", "--locked", "--bin", "profile-service", "--example", "client"]
        subprocess.run(patch, cwd=self.source, check=True)
        try:
            subprocess.run(build, cwd=self.source, env=self.environment, check=True)
        finally:
            subprocess.run([*patch, "-R"], cwd=self.source, check=True)
        return self.built / "debug/profile-service"


def catch(url: str | None, program: Path, seed: str) -> str:
    """The seed of a scenario that catches the bug of this program; empty where none does."""
    others = ",".join(map(str, range(1, OTHERS + 1)))
    for seeds in ([",".join([seed] * PLAYS)] if seed.isdecimal() else []) + [others]:
        passes, said = play(url, PROFILE_TEST_PROGRAM=str(program), PROFILE_TEST_SEEDS=seeds, PROPTEST_MAX_SHRINK_ITERS="0")
        if not passes and (caught := re.search(r"^seed (\d+): Test failed: a violation", said, re.MULTILINE)):
            return caught[1]
        if not passes:
            sys.exit(f"the test did not judge:\n{said[-4000:]}")
    return ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", help="a PostgreSQL besides SQLite")
    parser.add_argument("--rounds", type=int, default=500, help="scenarios that the program itself is tried with")
    parser.add_argument("--record", action="store_true", help="write the seeds that caught bugs into the table")
    parser.add_argument("--bug", action="append", help="this one alone")
    arguments = parser.parse_args()
    databases = {"sqlite": None} | ({"postgresql": arguments.url} if arguments.url else {})
    for database, url in databases.items() if arguments.rounds else []:
        began = time.monotonic()
        passes, said = play(url, PROFILE_TEST_ROUNDS=str(arguments.rounds))
        if not passes:
            sys.exit(f"{database}:\n{said}")
        counts = re.search(r"Counts \{.*\}", said)
        print(f"{database}: {counts and counts[0]} in {time.monotonic() - began:.0f} s", flush=True)

    header, *lines = SEEDS.read_text().splitlines()
    table = {line.split()[0]: dict(zip(header.split()[1:], line.split()[1:])) for line in lines}
    copy, missed = Copy(), []
    for bug in arguments.bug or table:
        began = time.monotonic()
        program = copy.build(bug)
        print(f"{bug}, built in {time.monotonic() - began:.0f} s", flush=True)
        for database, url in databases.items():
            if table[bug][database] == "-":
                continue
            began = time.monotonic()
            seed = catch(url, program, table[bug][database])
            known = "" if seed == table[bug][database] else ", another than the table has"
            print(f"  {database}: seed {seed or 'none'}{known}, after {time.monotonic() - began:.0f} s", flush=True)
            if seed:
                table[bug][database] = seed
            else:
                missed.append(f"{bug} on {database}")
    if arguments.record:
        rows = [" ".join([bug, *seeds.values()]) for bug, seeds in table.items()]
        SEEDS.write_text("\n".join([header, *rows]) + "\n")
    if missed:
        sys.exit(f"not caught: {', '.join(missed)}")


if __name__ == "__main__":
    main()
