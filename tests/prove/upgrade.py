"""Proves that a program and a newer one serve one PostgreSQL side by side, and that the older one alone goes on after that.

--from PROGRAM is the program of the last release, and --program this one, whose migrations it makes at its start. Without
--from, --program is the older one, and the newer is built of this source with a migration of the proof's own; --quick has
two of one build, and makes that migration by SQL.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from checker import UNEXPECTED, Violation
from program import ROOT
from replica import Replica
from scenario import Scenario, parser, play
from tables import Postgres
from traffic import Mix

MIX = Mix({"create": 10, "patch": 30, "update": 20, "report": 10, "get": 15, "look_up": 5, "pages": 10})
SECONDS = {True: 3, False: 60}  # side by side, quick or not
HOPS = 10  # how often the followers go on with any of the programs meanwhile
WARNING = "the schema is of a newer program"
MIGRATION = "m20990101_000001_expand"
# The index is made by hand before, as docs/operations.md says, and the migration finds it.
INDEX = "CREATE INDEX CONCURRENTLY IF NOT EXISTS profile_city ON profile (organization_id, city)"
EXPAND = (
    "ALTER TABLE profile ADD COLUMN nickname TEXT",
    "ALTER TABLE profile_change ADD COLUMN origin TEXT NOT NULL DEFAULT 'call'",
    "CREATE TABLE profile_note (profile_id uuid PRIMARY KEY, note TEXT NOT NULL)",
    INDEX.replace("CONCURRENTLY ", ""),
)
RECORD = f"INSERT INTO seaql_migrations (version, applied_at) VALUES ('{MIGRATION}', 0)"
SOURCE = f"""//! The migration of a newer program.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {{
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {{
        for statement in [{", ".join(f'"{statement}"' for statement in EXPAND)}] {{
            manager.get_connection().execute_unprepared(statement).await?;
        }}
        Ok(())
    }}
}}
"""


def build_newer() -> Path:
    """A debug build of this source with one more migration. Its dependencies are kept for the next time."""
    below = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "newer")
    source = below / "source"
    shutil.rmtree(source, ignore_errors=True)
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    (source / f"src/migration/{MIGRATION}.rs").write_text(SOURCE)
    module = source / "src/migration/mod.rs"
    lines = module.read_text().splitlines()
    for like, line in (r"mod m\d", f"mod {MIGRATION};"), (r" +Box::new\(m\d", f"Box::new({MIGRATION}::Migration),"):
        lines.insert(1 + max(at for at, each in enumerate(lines) if re.match(like, each)), line)
    module.write_text("\n".join(lines))
    command = ["cargo", "build", "-q", "--locked", "--bin", "profile-service"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(below / "target"), "PROFILE_COMMIT": "newer"}
    subprocess.run(command, cwd=source, env=environment, check=True)
    return below / "target/debug/profile-service"


async def go_on(scenario: Scenario, seconds: float) -> None:
    """Traffic goes on for so long, and the followers go on with other streams, which begin at either program."""
    for _ in range(HOPS):
        await asyncio.sleep(seconds / HOPS)
        for follower in scenario.followers:
            follower.interrupt()


def upgrade(newer: Path, own: bool, quick: bool):
    """A newer program joins, the older one starts again on the newer schema, the newer one goes, and comes back."""
    seconds = SECONDS[quick]

    async def happen(scenario: Scenario) -> None:
        database, (older,) = scenario.database, scenario.replicas
        known = migrations(database)
        await go_on(scenario, seconds / 6)
        if own:
            await asyncio.to_thread(database.execute, INDEX)
        if own and quick:
            await expand(database)
        joined = await scenario.join(newer, {})
        unknown = migrations(database) - known
        if own and unknown != {MIGRATION}:
            scenario.violations.append(Violation(UNEXPECTED, f"the newer program has made {unknown}"))
        await scenario.follow("the one with a snapshot", skip_existing=False)
        await go_on(scenario, seconds / 2)
        await older.stop()
        await older.start()
        if (warned := warned_of(older)) != unknown:
            scenario.violations.append(Violation(UNEXPECTED, f"the older program warns of {warned}, not of {unknown}"))
        await go_on(scenario, seconds / 2)
        scenario.replicas.remove(joined)
        try:
            await joined.stop()
            await go_on(scenario, seconds / 6)
            older.program.new_key("made by the older one")
            await older.stop()
            await older.start()
            await go_on(scenario, seconds / 6)
            await joined.start()  # so that everybody is read through both
        finally:
            scenario.replicas.append(joined)
        scenario.traffic.goal = scenario.traffic.begun

    return happen


async def expand(database: Postgres) -> None:
    """Makes the migration as a program does, which lets go of a table that is in use, and tries again."""
    while True:
        try:
            return await asyncio.to_thread(database.execute, "SET LOCAL lock_timeout = 1500", *EXPAND, RECORD)
        except subprocess.CalledProcessError as error:
            if "lock timeout" not in error.stderr and "deadlock" not in error.stderr:
                raise
        await asyncio.sleep(1)


def migrations(database: Postgres) -> set[str]:
    """The migrations that a database has had."""
    return {version for (version,) in database.query("SELECT version FROM seaql_migrations")}


def warned_of(replica: Replica) -> set[str]:
    """The migrations that a program does not know, as it has said at its start."""
    lines = [line["migrations"] for line in replica.program.log() if line["message"] == WARNING]
    return {name for line in lines for name in line.split(",")}


async def main() -> None:
    options = parser(__doc__)
    options.add_argument("--from", dest="older", type=Path, help="the program of the last release")
    arguments = options.parse_args()
    own = arguments.older is None
    older, newer = arguments.older or arguments.program, arguments.program
    if own and not arguments.quick:
        newer = build_newer()
    database = Postgres(arguments.postgres, arguments.url)
    try:
        happening = upgrade(newer, own, arguments.quick)
        played = await play(older, database, [{}], MIX, sys.maxsize, 1, happening)
    finally:
        database.close()
    taken = [int(replica.together("writes")[0]) for replica in played.replicas]
    if not all(taken):
        played.violations.append(Violation(UNEXPECTED, "one of the programs has written nothing"))
    longest = max(write.ended - write.begun for write in played.traffic.journal.writes)
    what = f"{taken[0]} writes by the older program, {taken[1]} by the newer one, the longest took {longest:.2f} s"
    failed = played.told(what)
    print(f"{int(not failed)} passed, {int(failed)} failed")
    sys.exit(failed)


if __name__ == "__main__":
    asyncio.run(main())
