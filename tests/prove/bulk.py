"""What an import does to the calls of a service on the same embedded database, which has one writer."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from program import Client
from proofs import World, proof, require

P99_MS = 1000


@proof()
async def bulk(world: World) -> str:
    """The importer rests for as long as it held the writer: the service's calls, half of them writes, go on."""
    people = world.pick(2_000, 50_000)
    with tempfile.TemporaryDirectory(prefix="prove.") as directory:
        file = Path(directory, "people.jsonl")
        with file.open("w") as lines:
            for number in range(people):
                person = {"firstName": "Ada", "lastName": f"Byron {number}", "email": f"p{number}@bulk.example.com"}
                lines.write(json.dumps(person) + "\n")
        async with Client("polite.py", world.program.port, "profile", key=world.program.key) as polite:
            said = await asyncio.to_thread(world.program.command, "import", "--organization", "north", str(file))
            figures = await polite.figures()
    require(f"{people} created" in said, f"the import said {said}")
    require(not figures["failures"], f"calls failed: {figures['first']}")
    require(figures["p99"] < P99_MS, f"p99 beside an import: {figures['p99']:.0f} ms")
    return f"beside an import of {people} people: p99 {figures['p99']:.0f} ms, longest {figures['longest']:.0f} ms"
