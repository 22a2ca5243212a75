"""Draws what the report's table says, as SVG."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import report
from measure import CALLS, GROUPED, GROWTH, title

WIDTH, MARGIN = 720, 20
COLORS = ["#1f5fa8", "#c4622d"]
STYLE = """
rect.paper { fill: #fff }
text { font: 13px system-ui, sans-serif; fill: #222 }
text.title { font-weight: 600; font-size: 15px }
.axis { stroke: #ddd }
.p50, .p99 { fill: none; stroke-width: 2 }
.p99 { stroke-dasharray: 5 4 }
"""

FIGURES = ["calls/s", "p50 ms", "p99 ms"]
# A row's figures by the heads of their columns.
Rows = dict[str, dict[str, float]]


def draw(lines: list[str], directory: Path) -> list[Path]:
    """Writes the charts of a report's lines."""
    measured = rows(lines)
    charts = {"throughput.svg": throughput(measured), "latency.svg": latency(measured)}
    for name, chart in charts.items():
        ET.indent(chart)
        (directory / name).write_text(ET.tostring(chart, encoding="unicode") + "\n")
    return [directory / name for name in charts]


def rows(lines: list[str]) -> Rows:
    """The rows of the table that has a rate, a p50 and a p99 of each run."""
    heads: list[str] = []
    found: Rows = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if set(FIGURES) <= set(cells):
            heads = cells
        elif not line.startswith("|"):
            heads = []
        elif heads and not cells[0].startswith("---"):
            row = dict(zip(heads, cells, strict=True))
            found[cells[0]] = {figure: float(row[figure].replace(",", "")) for figure in FIGURES}
    return found


def throughput(measured: Rows) -> ET.Element:
    """Bars: calls a second of the service and of pgbench."""
    calls = [call for call in CALLS if title("pgbench", call) in measured]
    left, step, bar = 130, 62, 20
    most = max(measured[title(server, call)]["calls/s"] for server in ("PostgreSQL", "pgbench") for call in calls)
    chart = paper(88 + step * len(calls), "Calls a second with 64 in flight, beside pgbench, on PostgreSQL without fsync")
    for number, (server, name) in enumerate([("PostgreSQL", "profile-service on PostgreSQL"), ("pgbench", "pgbench")]):
        legend(chart, left + 230 * number, COLORS[number], name)
        for row, call in enumerate(calls):
            rate = measured[title(server, call)]["calls/s"]
            y = 72 + step * row + (bar + 2) * number
            length = rate / most * (WIDTH - MARGIN - 60 - left)
            add(chart, "rect", x=left, y=y, width=length, height=bar, fill=COLORS[number])
            text(chart, left + length + 6, y + 15, f"{rate:,.0f}")
    for row, call in enumerate(calls):
        text(chart, left - 10, 72 + step * row + bar + 5, CALLS[call], anchor="end")
    return chart


def latency(measured: Rows) -> ET.Element:
    """Lines: p50 and p99 by the number of calls in flight, on a logarithmic scale."""
    left, right, top, bottom = 70, 150, 90, 330
    values = [figure for call in GROUPED for in_flight in GROWTH
              for figure in (measured[title("PostgreSQL", call, in_flight)][f"{p} ms"] for p in ("p50", "p99"))]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def y(milliseconds: float) -> float:
        return bottom - (math.log10(milliseconds) - low) / (high - low) * (bottom - top)

    def x(index: int) -> float:
        return left + index / (len(GROWTH) - 1) * (WIDTH - left - right)

    chart = paper(bottom + 60, "What a caller waits, by the calls in flight, on PostgreSQL without fsync")
    for power in range(low, high + 1):
        add(chart, "line", x1=left, x2=WIDTH - right, y1=y(10**power), y2=y(10**power)).set("class", "axis")
        text(chart, left - 8, y(10**power) + 4, f"{10**power:g} ms", anchor="end")
    for index, in_flight in enumerate(GROWTH):
        text(chart, x(index), bottom + 22, str(in_flight), anchor="middle")
    text(chart, (left + WIDTH - right) / 2, bottom + 44, "calls in flight", anchor="middle")
    for number, call in enumerate(GROUPED):
        legend(chart, left + 160 * number, COLORS[number], CALLS[call])
        for kind in ("p50", "p99"):
            seen = [measured[title("PostgreSQL", call, in_flight)][f"{kind} ms"] for in_flight in GROWTH]
            points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(seen))
            add(chart, "polyline", points=points, stroke=COLORS[number]).set("class", kind)
    for kind in ("p50", "p99"):
        ends = [measured[title("PostgreSQL", call, GROWTH[-1])][f"{kind} ms"] for call in GROUPED]
        text(chart, WIDTH - right + 10, y(sum(ends) / len(ends)) + 4, f"{kind}, {' and '.join(f'{end:.0f}' for end in ends)} ms")
    return chart


def paper(height: float, heading: str) -> ET.Element:
    chart = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height:g}", role="img")
    ET.SubElement(chart, "title").text = heading
    ET.SubElement(chart, "style").text = STYLE
    add(chart, "rect", width=WIDTH, height=height).set("class", "paper")
    text(chart, MARGIN, 28, heading).set("class", "title")
    return chart


def legend(chart: ET.Element, x: float, color: str, name: str) -> None:
    add(chart, "rect", x=x, y=44, width=12, height=12, fill=color)
    text(chart, x + 18, 55, name)


def add(chart: ET.Element, tag: str, **attributes: float | str) -> ET.Element:
    shown = {name: value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0") for name, value in attributes.items()}
    return ET.SubElement(chart, tag, shown)


def text(chart: ET.Element, x: float, y: float, words: str, anchor: str = "start") -> ET.Element:
    element = add(chart, "text", x=x, y=y, **{"text-anchor": anchor})
    element.text = words
    return element


if __name__ == "__main__":  # of the figures that are written down
    for path in draw(report.REPORT.read_text().splitlines(), report.REPORT.parent):
        print(path)
