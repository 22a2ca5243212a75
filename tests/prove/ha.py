"""Proves on a PostgreSQL that Patroni keeps highly available that nothing acknowledged is lost, whatever becomes of its
nodes, and compares the ways to it: scripts/prove ha.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
from cluster import PACKAGES, REWIND, Cluster, Node, missing, until
from peer import CREATE, GET, create_request, created_id, get_request
from program import Client, Program

CALLERS = 8
CONNECTIONS = 16  # of the program
ALLOWED = ("UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED")
ANSWER = 3.5  # seconds at the most
WRITES_AGAIN = 2  # seconds after the new primary, at the most
LEFT = 5  # seconds after which no session is kept with a node that was demoted
FROZEN = 40  # seconds
MEASURED, ROUNDS, WRITERS = 8, 3, 64  # seconds, how often, callers


class Load:
    """Callers that create profiles and read them again, and what became of their calls."""

    def __init__(self, program: Program) -> None:
        self.metadata = (("cv-api-key", program.key),)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{program.port}")
        self.acknowledged: list[bytes] = []
        self.refused: Counter[str] = Counter()
        self.wrong = 0
        self.slowest = 0.0
        self.going = True
        self.threads = [threading.Thread(target=self.call) for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def call(self) -> None:
        create, get = self.channel.unary_unary(CREATE), self.channel.unary_unary(GET)
        while self.going:
            started = time.monotonic()
            try:
                profile = create(create_request(), metadata=self.metadata)
                self.acknowledged.append(created_id(profile))
                self.slowest, started = max(self.slowest, time.monotonic() - started), time.monotonic()
                self.wrong += get(get_request(created_id(profile)), metadata=self.metadata) != profile
            except grpc.RpcError as error:
                details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
                reason = re.search(rb"[A-Z]+_[A-Z_]+", details)
                self.refused[f"{error.code().name} {reason[0].decode() if reason else error.details()}"] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)

    def until_it_writes(self, more: int = 1) -> float:
        """Waits for so many more creations."""
        goal = len(self.acknowledged) + more
        return until("there are writes", lambda: len(self.acknowledged) >= goal)

    def lost(self) -> int:
        """How many acknowledged profiles are not there."""
        self.going = False
        for thread in self.threads:
            thread.join()
        get = self.channel.unary_unary(GET)
        found = {created_id(get(get_request(each), metadata=self.metadata)) for each in self.acknowledged}
        return len(set(self.acknowledged) - found)


class Proof:
    """What happens to the nodes under load, and what was wrong then."""

    def __init__(self, cluster: Cluster, load: Load) -> None:
        self.cluster, self.load = cluster, load
        self.faults: list[str] = []

    def switchover(self) -> None:
        before = self.cluster.primary()
        self.replaced(before, "switchover", self.cluster.switch_over)
        self.left(before, "switchover")

    def killed(self) -> None:
        before = self.cluster.primary()
        self.replaced(before, "kill -9 of the primary", before.kill)
        before.start()
        self.left(before, "kill -9 of the primary")

    def frozen(self) -> None:
        before = self.cluster.primary()
        self.replaced(before, "freeze of the primary", lambda: before.signal(signal.SIGSTOP))
        before.signal(signal.SIGCONT)
        self.left(before, "freeze of the primary")

    def frozen_standby(self) -> None:
        """Commits wait for it. They keep their connections: no more sessions come."""
        primary = self.cluster.primary()
        standby = self.cluster.other(primary)
        self.load.until_it_writes(100)
        standby.signal(signal.SIGSTOP)
        began, count, most = time.monotonic(), len(self.load.acknowledged), 0
        waited = None
        while time.monotonic() - began < FROZEN:
            most = max(most, primary.sessions() or 0)
            if waited is None and len(self.load.acknowledged) > count + CALLERS:
                waited = time.monotonic() - began
            time.sleep(0.2)
        standby.signal(signal.SIGCONT)
        back = self.load.until_it_writes(100)
        without = f"writes again after {waited:.1f} s, when Patroni gave the standby up" if waited else "no write"
        seen = f"{without}; {most} sessions at the most; 100 writes {back:.2f} s after it"
        print(f"freeze of the standby for {FROZEN} s: {seen}")
        if most > CONNECTIONS + 1:
            self.faults.append(f"freeze of the standby: {most} sessions")
        self.cluster.until_synchronous()

    def replaced(self, before: Node, what: str, fault) -> None:
        """Lets something happen, and measures when the other node is the primary and when it is written to."""
        after = self.cluster.other(before)
        self.load.until_it_writes(100)
        began = time.monotonic()
        happening = threading.Thread(target=fault)  # a switchover is answered when it is over
        happening.start()
        until("the other node is the primary", after.is_primary)
        primary = time.monotonic() - began
        again = self.load.until_it_writes(CALLERS + 1)  # those on their way may have been saved before
        happening.join()
        print(f"{what}: a new primary after {primary:.2f} s, writes {again:.2f} s after that")
        if again > WRITES_AGAIN:
            self.faults.append(f"{what}: writes too late")

    def left(self, before: Node, what: str) -> None:
        """Looks for sessions with the node that was the primary, from its first answer as a standby until it is the
        synchronous one: pg_rewind may stop it once more on the way, and a node that is stopped has none.
        """
        until("the old primary answers", lambda: before.answers("/replica") and before.sessions() is not None)
        began, last = time.monotonic(), 0.0

        def is_synchronous() -> bool:
            nonlocal last
            if before.sessions():
                last = time.monotonic() - began
            return before.answers("/synchronous")

        until("the standby is synchronous", is_synchronous, REWIND)
        print(f"{what}: no session with the demoted node {last:.2f} s after it is a standby")
        if last > LEFT or before.sessions():
            self.faults.append(f"{what}: sessions with a demoted node")


def refuses(program: Path, url: str) -> str | None:
    """What the program says where it refuses to start."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROFILE_")}
    command = [program, "serve", "--listen", "127.0.0.1:0"]
    try:
        done = subprocess.run(
            command, env=environment | {"PROFILE_DATABASE_URL": url}, capture_output=True, text=True, timeout=20
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stderr.strip().splitlines()[-1] if done.returncode == 1 else None


async def creates(program: Path, url: str, key: str) -> float:
    """How many CreateProfile a second are answered by the program on this way."""
    async with Program(program, database=url, key=key) as running:
        arguments = (running.port, 4, MEASURED, WRITERS, 0, f"{CREATE}={create_request().hex()}")
        async with Client("load.py", *arguments, key=key) as client:
            client.go()
            figures = await client.figures(MEASURED + 20)
    outcomes = figures["outcomes"]
    if set(outcomes) - {"0"}:
        raise RuntimeError(f"creates were refused: {outcomes}")
    return outcomes["0"] / figures["seconds"]


async def compare(program: Path, cluster: Cluster, key: str) -> None:
    """Prints CreateProfile on each way, in turns."""
    primary = cluster.primary()
    pgbouncer = cluster.pgbouncer(primary.port, "session")
    ports = {"direct": primary.port, "HAProxy": cluster.haproxy, "PgBouncer": pgbouncer}
    rates: dict[str, list[float]] = {way: [] for way in ports}
    for _ in range(ROUNDS):
        for way, port in ports.items():
            rates[way].append(await creates(program, f"postgres://postgres@127.0.0.1:{port}/postgres", key))
    medians = {way: sorted(each)[len(each) // 2] for way, each in rates.items()}
    shown = ", ".join(f"{way} {rate:.0f}/s ({rate / medians['direct']:.2f})" for way, rate in medians.items())
    print(f"CreateProfile with {WRITERS} callers, the median of {ROUNDS}: {shown}")


async def prove(program: Path, cluster: Cluster) -> list[str]:
    url = f"postgres://postgres@127.0.0.1:{cluster.haproxy}/postgres"
    async with Program(program, database=url) as running:
        load = Load(running)
        proof = Proof(cluster, load)
        try:
            for happening in (proof.switchover, proof.killed, proof.frozen, proof.frozen_standby, proof.switchover):
                await asyncio.to_thread(happening)
            await asyncio.to_thread(load.until_it_writes, 100)
        finally:
            lost = await asyncio.to_thread(load.lost)
        key = running.key
    faults = proof.faults
    faults += [f"{lost} lost"] * bool(lost) + [f"{load.wrong} answered wrongly"] * bool(load.wrong)
    faults += [f"{count} x {code}" for code, count in load.refused.items() if not code.startswith(ALLOWED)]
    faults += ["an answer too late"] * (load.slowest > ANSWER)
    refused = ", ".join(f"{count} {code}" for code, count in load.refused.most_common())
    print(f"{len(load.acknowledged)} acknowledged, {lost} lost; {refused}; slowest answer {load.slowest:.2f} s")
    port = cluster.pgbouncer(cluster.primary().port, "transaction")
    said = refuses(program, f"postgres://postgres@127.0.0.1:{port}/postgres")
    print(f"PgBouncer in transaction mode: {said}")
    faults += ["transaction mode is not refused"] * ("session mode" not in (said or ""))
    await compare(program, cluster, key)
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("program", "postgres"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    if absent := missing(arguments.postgres):
        print(f"not proved: ha, for {', '.join(absent)} is not here (apt install {PACKAGES})")
        return
    with Cluster(arguments.postgres) as cluster:
        faults = asyncio.run(prove(arguments.program.resolve(), cluster))
    for fault in faults:
        print(f"FAILED {fault}")
    print(f"{int(not faults)} passed, {int(bool(faults))} failed")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
