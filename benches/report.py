"""From results to lines of Markdown."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import re
import statistics
from pathlib import Path

from harness import Results

REPORT = Path(__file__).resolve().parents[1] / "docs/benchmarks.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->"


@dataclasses.dataclass(frozen=True)
class Goal:
    """Something of each round, and what its median should be: `>= 1.3`, say, or in words."""

    name: str
    values: list[float]
    goal: str

    def reached(self) -> str:
        """A goal that is missed by less than the rounds differ counts as reached."""
        limit = re.fullmatch(r"([<>])= ([\d.]+)", self.goal)
        if not limit:
            return ""
        missed = (statistics.median(self.values) - float(limit[2])) * (1 if limit[1] == "<" else -1)
        if missed <= 0:
            return "yes"
        return "within its spread" if missed < max(self.values) - min(self.values) else "no"


def goals(rows: list[Goal]) -> list[str]:
    lines = ["| | goal | measured | spread | reached |", "|" + "---|" * 5]
    for row in rows:
        middle = statistics.median(row.values)
        shown = format(middle, ",.0f" if middle >= 1000 else ".2f")
        lines.append(f"| {row.name} | {row.goal} | {shown} | {spread(row.values):.0%} | {row.reached()} |")
    return lines


def values(runs: list[dict], what: str) -> list[float]:
    return [run[what] for run in runs if what in run]


def ratios(results: Results, what: str, one: str, other: str) -> list[float]:
    """Of each round: both of a ratio were measured one soon after the other."""
    return [a[what] / b[what] for a, b in zip(results[one], results[other], strict=True)]


def median(runs: list[dict], what: str, form: str = ",.0f") -> str:
    """Nothing where it was not measured."""
    seen = values(runs, what)
    return format(statistics.median(seen), form) if seen else ""


def spread(seen: list[float]) -> float:
    return (max(seen) - min(seen)) / statistics.median(seen)


def table(results: Results) -> list[str]:
    lines = ["| | calls/s | spread | p50 ms | p99 ms | CPU us, service | CPU us, PostgreSQL | resident MB |",
             "|" + "---|" * 8]
    for name, runs in results.items():
        cells = [median(runs, "rate"), f"{spread(values(runs, 'rate')):.0%}", median(runs, "p50_ms", ".2f"),
                 median(runs, "p99_ms", ".2f"), median(runs, "service_us", ".1f"), median(runs, "postgres_us", ".1f"),
                 median(runs, "resident_mb")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.+)$", info, re.M)
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GiB, Linux {platform.release()}"


def write(how: str, lines: list[str]) -> None:
    """Puts the figures where those before them stand."""
    date = datetime.datetime.now(datetime.UTC).date()
    figures = [f"Measured on {date} on {machine()}, {how}.", "", *lines]
    before, _, rest = REPORT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    REPORT.write_text(before + BEGIN + "\n".join(figures) + f"\n{END}{after}")
