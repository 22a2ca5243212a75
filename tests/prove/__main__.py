"""Proves against the real program that hostile peers and overload do it no harm; see scripts/prove."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
import traceback
from pathlib import Path


import bulk  # noqa: F401 - it registers a proof
import overload  # noqa: F401 - so does this
import server_streams  # noqa: F401 - and this
from proofs import PROOFS, Fault, Proof, World
from program import Client, Program

MEMORY_MB = 150
P99_MS = {"profile": 50, "health": 100}  # of the polite client
QUICK_HEALTH_MS = 500  # a debug build, whose machine does other things besides, has more time
LONGEST = 300  # seconds that a proof may take


def causes(error: BaseException) -> list[str]:
    """What went wrong, and where."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for each in error.exceptions for cause in causes(each)]
    if isinstance(error, Fault):
        return [str(error)]
    at = traceback.extract_tb(error.__traceback__)[-1]
    return [f"{error!r} in {Path(at.filename).name}:{at.lineno}"]


async def run(proof: Proof, path: Path, quick: bool) -> bool:
    """Runs a proof beside a polite client and prints its line."""
    started = time.monotonic()
    faults, seen, figures = [], "", ""
    try:
        async with asyncio.timeout(LONGEST), Program(path, *proof.flags) as program:
            async with Client("polite.py", program.port, proof.client, key=program.key) as polite:
                try:
                    seen = await proof.prove(World(program, quick))
                except* Exception as group:
                    faults += list(causes(group))
                politely = await polite.figures()
            peak = program.peak_mb()
            figures = f"peak {peak:.0f} MB, {politely['calls']} polite calls, {politely['failures']} failed, "
            figures += f"p99 {politely['p99']:.0f} ms, longest {politely['longest']:.0f} ms"
            if peak >= MEMORY_MB:
                faults.append("too much memory")
            if politely["failures"]:
                faults.append(f"polite calls failed: {politely['first']}")
            if not quick and politely["p99"] >= P99_MS[proof.client]:
                faults.append("polite calls took too long")
            if proof.client == "health" and politely["longest"] > (QUICK_HEALTH_MS if quick else proof.longest):
                faults.append("health took too long")
            faults += [f"log: {line}" for line in program.log() if line["level"] == "ERROR"][:3]
    except Exception as error:
        faults += causes(error)
    print(f"{'FAILED' if faults else 'ok':6} {proof.name:12} {time.monotonic() - started:5.1f} s, {figures}; {seen}")
    for fault in dict.fromkeys(faults):
        print(f"       {fault}")
    sys.stdout.flush()
    return not faults


def main() -> None:
    names = [proof.name for proof in PROOFS]
    parser = argparse.ArgumentParser(prog="scripts/prove", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, on a debug build, in a minute")
    parser.add_argument("--program", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no {', '.join(unknown)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for thousands of connections
    chosen = [proof for proof in PROOFS if proof.name in (arguments.names or names)]
    passed = failed = 0
    for proof in chosen:
        if arguments.quick and not proof.quick:
            print(f"       {proof.name:12} takes too long to be quick")
        elif asyncio.run(run(proof, arguments.program, arguments.quick)):
            passed += 1
        else:
            failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
