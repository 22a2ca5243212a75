"""Has a program of before write a database through its RPCs, and keeps its dump with the keys and with what was answered.

tests/it/harness/before.rs begins with these dumps. Once for each program that they are of:
.venv/bin/python -B tests/prove/fixture.py --program PROGRAM --postgres DIRECTORY --url URL --out tests/fixtures/COMMIT
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import time
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from contract import message, method
from program import Program
from scenario import databases, parser
from tables import Database, Sqlite

EVERYTHING = ("profiles.read", "profiles.write", "cases.report", "support")
KEYS = {  # of the first organization, with their scopes
    "all": EVERYTHING,
    "read": EVERYTHING[:1],
    "write": EVERYTHING[1:2],
    "report": EVERYTHING[2:3],
    "support": EVERYTHING[3:],
    "long": EVERYTHING[:2],
    "expired": EVERYTHING,
    "revoked": EVERYTHING,
}
LONG = "36500d"
STATUSES = ("OPEN", "ASSIGNED", "IN_PROGRESS", "APPROVED", "REJECTED", "NO_DECISION", "CANCELLED")
EVERY_FIELD = {
    "firstName": "Ada",
    "lastName": "Byron",
    "email": "Ada.Byron+tag@Example.com",
    "dob": "1985-12-10",
    "gender": "FEMALE",
    "phoneNumber": "+1 (551) 344-66.34",
    "address": "12 St James's Square",
    "address2": "\u00a7 3, \u201cthe attic\u201d; back\\slash",
    "city": "London",
    "state": "ny",
    "country": "gb",
    "postalCode": "00012",
}
NAMES = (  # first and last, as they are sent, and the beginning of the folded last name
    ("Zoe\u0308", "M\u00dcLLER", "muller"),
    ("Bj\u00f6rk", "\u00c5ngstr\u00f6m", "angstrom"),
    ("\u0141ukasz", "\u017b\u00f3\u0142\u0107", "zo\u0142c"),
    ("\u0418\u0432\u0430\u043d", "\u041f\u0435\u0442\u0440\u043e\u0432", "\u043f\u0435\u0442\u0440\u043e\u0432"),
    ("\u592a\u90ce", "\u5c71\u7530", "\u5c71\u7530"),
    ("Nuala", "O\u2019Brien-\u1e9eton", "o"),
    ("Gra\u200bce", "Hop\u00adper", "hopper grace"),  # a space of no width and a soft hyphen, which are removed today, stay here, and are not folded
    ("A" * 100, "B" * 100, "b" * 100),
)


class Writer:
    """Calls the program, and keeps what it is asked and what it answers."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{program.port}")
        self.keys: dict[str, str] = {}
        self.people: list[dict] = []  # with the beginnings of their folded last names
        self.writes: list[dict] = []  # those with a request id
        self.reads: list[dict] = []  # what changes nothing
        self.cases: list[dict] = []

    def key(self, name: str, organization: str, scopes: tuple[str, ...], *options: str) -> None:
        scopes = [word for scope in scopes for word in ("--scope", scope)]
        command = ("key", "create", "--organization", organization, "--name", name, *scopes, *options)
        self.keys[name] = self.program.command(*command)

    async def call(self, name: str, request: dict, key: str = "all") -> dict:
        """What was called, and the answer or the error."""
        called = {"key": key, "rpc": name, "request": request}
        service, _, short = name.partition("/")
        sent = json_format.ParseDict(request, message(f"{short}Request")())
        try:
            answer = await method(self.channel, name)(sent, metadata=(("cv-api-key", self.keys[key]),), timeout=10)
            return called | {"answer": json_format.MessageToDict(answer)}
        except grpc.aio.AioRpcError as error:
            status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
            info = error_details_pb2.ErrorInfo()
            status.details[0].Unpack(info)
            return called | {"error": info.reason}

    async def done(self, name: str, request: dict, key: str = "all") -> dict:
        """The answer of a call that succeeds. A write with a request id is kept."""
        called = await self.call(name, request, key)
        if "error" in called:
            raise RuntimeError(called)
        if "requestId" in request:
            self.writes.append(called)
        return called["answer"]

    async def read(self, name: str, request: dict, key: str = "all") -> dict:
        """Keeps what a call is answered that changes nothing."""
        self.reads.append(await self.call(name, request, key))
        return self.reads[-1].get("answer", {})

    async def create(self, fields: dict, prefix: str | None = None, request_id: str | None = None, key="all") -> dict:
        repeated = {"requestId": request_id} if request_id else {}
        profile = await self.done("ProfileService/CreateProfile", {"profile": fields} | repeated, key)
        organization, prefix = "south" if key == "south" else "north", prefix or fields["lastName"].lower()
        self.people.append({"id": profile["id"], "organization": organization, "prefix": prefix})
        return profile

    async def report(self, case: str, profile: dict, status: str, second: int) -> None:
        time_of = f"2026-11-01T10:00:{second:02}.123456Z"
        request = {"caseId": case, "profileId": profile["id"], "status": status, "statusTime": time_of}
        await self.done("CaseService/ReportCaseStatus", request)
        self.cases = [each for each in self.cases if each["caseId"] != case] + [request]

    async def write(self) -> None:
        for name in ("north", "south", "\u00d6stliche & S\u00f6hne"):
            self.program.command("organization", "create", name)
        for name, scopes in KEYS.items():
            options = {"long": ("--expires", LONG), "expired": ("--expires", "1s")}.get(name, ())
            self.key(name, "north", scopes, *options)
        expired = time.monotonic() + 1
        self.key("south", "south", EVERYTHING)
        self.program.command("key", "revoke", self.keys["revoked"].split("_")[1])
        for first, last, prefix in NAMES:
            await self.create({"firstName": first, "lastName": last}, prefix)
        await self.create({"firstName": "Ada", "lastName": "Foreigner", "email": "foreign@example.com"}, key="south")
        # An address and a number that today's rules refuse.
        await self.create({"firstName": "Lo", "lastName": "Cal", "email": "root@localhost", "phoneNumber": "+44(0)20123"})
        for gender in ("MALE", "OTHER"):
            await self.create({"firstName": "Jo", "lastName": "Doe", "dob": "1900-01-01", "gender": gender})
        await self.changes()
        for at, status in enumerate(STATUSES):
            person = await self.create({"firstName": "Case", "lastName": status.title(), "dob": "1999-12-31"})
            await self.report(f"case {status}", person, status, at)
        await self.locked()
        await asyncio.sleep(max(0, expired - time.monotonic()))
        await self.look()

    async def changes(self) -> None:
        """Every kind of change with a request id, of one person, and the roles."""
        self.ada = ada = await self.create(EVERY_FIELD, "byron", "create")
        id = {"id": ada["id"]}
        patched = {"profile": id | {"city": "Paris", "state": ""}, "requestId": "patch", "updateMask": "city,state"}
        await self.done("ProfileService/PatchProfile", patched)
        updated = {"email": "ada.byron+tag@example.com", "address": "1\u20132 rue de la Paix", "gender": "OTHER"}
        await self.done("ProfileService/UpdateProfile", {"data": updated, "requestId": "update"})
        replaced = EVERY_FIELD | id | {"etag": '"3"', "phoneNumber": "+4420123456"}
        await self.done("ProfileService/ReplaceProfile", {"profile": replaced, "requestId": "replace"})
        correct = {"profile": id | {"dob": "1985-10-12"}, "reason": "Swapped;\npassport seen.", "ticket": "T-4711"}
        await self.done("SupportService/CorrectProfile", correct | {"requestId": "correct"}, "support")
        for role in ("SUPPORT", "USER"):
            request = id | {"role": role, "reason": "a new post", "requestId": f"role {role}"}
            await self.done("SupportService/SetProfileRole", request)
        for role in ("PROVIDER", "SUPPORT", "ADMIN"):
            person = await self.create({"firstName": "Role", "lastName": role.title(), "email": f"{role}@example.com"})
            await self.done("SupportService/SetProfileRole", {"id": person["id"], "role": role, "reason": "hired"})

    async def locked(self) -> None:
        """One who was locked and is no longer, and one who is locked by two of three cases and corrected."""
        freed = await self.create({"firstName": "Fred", "lastName": "Freed"})
        for at, status in enumerate(("OPEN", "ASSIGNED", "CANCELLED")):
            await self.report("freed", freed, status, at)
        kept = await self.create({"firstName": "Karl", "lastName": "Kept", "dob": "1970-01-01", "gender": "MALE"})
        for case, status in (("kept 1", "ASSIGNED"), ("kept 2", "REJECTED"), ("kept 3", "APPROVED"), ("kept 3", "CANCELLED")):
            await self.report(case, kept, status, 10 + (status == "CANCELLED"))
        correct = {"profile": {"id": kept["id"], "dob": "1970-01-02"}, "reason": "by the passport"}
        await self.done("SupportService/CorrectProfile", correct)
        await self.read("ProfileService/PatchProfile", {"profile": {"id": kept["id"], "dob": "1970-01-03"}})
        await self.done("ProfileService/PatchProfile", {"profile": {"id": kept["id"], "city": "Bonn"}})

    async def look(self) -> None:
        """Reads everything, and is refused what is refused."""
        for person in self.people:
            id, key = {"id": person["id"]}, "south" if person["organization"] == "south" else "all"
            profile = await self.read("ProfileService/GetProfile", id, key)
            for field in ("email", "phoneNumber"):
                if field in profile:
                    await self.read("SupportService/FindProfile", {field: profile[field]}, key)
            await self.read("SupportService/ListProfileChanges", id, key)
        token = {}
        while token is not None:
            page = await self.read("SupportService/ListProfileChanges", {"id": self.ada["id"], "pageSize": 3} | token)
            token = {"pageToken": page["nextPageToken"]} if "nextPageToken" in page else None
        for case in self.cases:
            await self.read("CaseService/ReportCaseStatus", case)
        for write in self.writes:
            await self.read(write["rpc"], write["request"], write["key"])
            (about,) = write["request"].keys() & {"profile", "data", "role"}
            other = {"role": "ADMIN"} if about == "role" else {about: write["request"][about] | {"city": "Elsewhere"}}
            await self.read(write["rpc"], write["request"] | other, write["key"])
        for key in self.keys:
            await self.read("ProfileService/GetProfile", {"id": self.ada["id"]}, key)
        taken = {"firstName": "Eve", "lastName": "Else", "email": "ada.byron+tag@example.com"}
        for key in ("read", "write", "long", "south"):
            await self.read("ProfileService/CreateProfile", {"profile": taken}, key)

    def story(self) -> str:
        kept = {name: getattr(self, name) for name in ("keys", "people", "cases", "reads")}
        return json.dumps(kept, ensure_ascii=False, indent=0) + "\n"


def dump(database: Database, programs: str) -> str:
    """The database as SQL, without what only psql understands."""
    if isinstance(database, Sqlite):
        with contextlib.closing(sqlite3.connect(database.file)) as connection:
            # Tables are in the order of their names, those that others refer to behind them.
            return "\n".join(("PRAGMA foreign_keys = OFF;", *connection.iterdump())) + "\n"
    command = [f"{programs}/pg_dump", "--inserts", "--no-owner", "--no-privileges", database.url]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return "\n".join(line for line in lines if line and not line.startswith(("--", "\\"))) + "\n"


async def main() -> None:
    options = parser(__doc__)
    options.add_argument("--out", type=Path, required=True)
    arguments = options.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for new in databases(arguments):
        database = new()
        async with Program(arguments.program, database=database.url, key="none") as program:
            writer = Writer(program)
            await writer.write()
            await writer.channel.close()
            program.process.terminate()
            await asyncio.to_thread(program.process.wait)
        file = arguments.out / database.name.lower()
        file.with_suffix(".json").write_text(writer.story())
        file.with_suffix(".sql").write_text(dump(database, arguments.postgres))
        database.close()


if __name__ == "__main__":
    asyncio.run(main())
