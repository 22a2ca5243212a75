"""Measures the service beside others, or two revisions of it; see scripts/bench, which builds and starts what this needs."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import against
import charts
import goals
import report
from harness import Bench
from measure import measure
from people import ORGANIZATIONS
from postgres import Postgres

QUICK_SECONDS, QUICK_PEOPLE, QUICK_NAMES = 0.3, 2000, ["patch", "lone-patch", "sqlite-patch"]
SECONDS, AGAINST_SECONDS, PEOPLE, MIXED_SECONDS = 4, 3, 200_000, 300


def main() -> None:
    args = options()
    if not args.program:
        return
    postgres = Postgres(args.url, args.binaries, args.data)
    directory = Path(tempfile.mkdtemp(prefix="profile-bench."))
    seconds = QUICK_SECONDS if args.quick else AGAINST_SECONDS if args.against else SECONDS
    people = QUICK_PEOPLE if args.quick else PEOPLE
    bench = Bench(args.tools, postgres, directory, seconds=seconds, rounds=args.rounds, warm_up=0 if args.quick else 1)
    try:
        if args.against:
            lines = against.compare(bench, {"this": args.program, args.against: args.other}, args.only, people,
                                    operated=args.operated, encrypted=args.tls)
        else:
            lines = goals.lines(measure(bench, args.program, people, 1 if args.quick else MIXED_SECONDS))
            charts.draw(lines, directory if args.quick else report.REPORT.parent)
            if args.quick:  # --against too, with nothing to build
                both = dict.fromkeys(["this", "itself"], args.program)
                lines += ["", *against.compare(bench, both, QUICK_NAMES, people, operated=True, encrypted=True)]
    finally:
        bench.stop()
        shutil.rmtree(directory)
    if args.quick:
        lines = ["Figures of a debug build and of far too short a time:", "", *lines]
    print("\n".join(lines))
    if not args.quick and not args.against:
        report.write(f"{people:,} profiles in {ORGANIZATIONS} organizations, medians of {args.rounds} rounds of {seconds} s"
                     " each", lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="a debug build, and as little as shows that all works")
    parser.add_argument("--against", metavar="REV", help="measure another revision beside this one; writes nothing")
    parser.add_argument("--operated", action="store_true",
                        help="with --against: metrics are on in this one, and traces of 1%% of the calls")
    parser.add_argument("--tls", action="store_true", help="with --against: this one is called over TLS")
    parser.add_argument("--only", metavar="NAME[,NAME]", type=lambda names: names.split(","),
                        help=f"what to measure with --against, of {','.join(against.MEASURES)}")
    parser.add_argument("--rounds", metavar="N", type=int, help="rounds that count (5)")
    for flag in ("--program", "--other", "--tools", "--binaries", "--data"):
        parser.add_argument(flag, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 5)
    if (args.only or args.operated or args.tls) and not args.against:
        parser.error("--only, --operated and --tls go with --against")
    args.only = args.only or list(against.MEASURES)
    if unknown := set(args.only) - set(against.MEASURES):
        parser.error(f"--only does not know {', '.join(sorted(unknown))}")
    return args


if __name__ == "__main__":
    main()
