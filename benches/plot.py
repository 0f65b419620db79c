#!/usr/bin/env python3
"""Draws peers.svg and load.svg from pass-through.json: plot.py DIRECTORY. Readable on light and on dark ground."""

import json
import math
import pathlib
import statistics
import sys
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 760, 235, 60
ROW, GAP = 15, 12
COLOURS = {"nginx": "nginx", "haproxy": "HAProxy", "proxy": "acr-cache-proxy", "other": "acr-cache-proxy, other build"}
STYLE = """
svg{background:#fff}text{font:13px system-ui,sans-serif;fill:#222}.t{font-weight:600;font-size:15px}.m{fill:#666}
.e{text-anchor:end}.c{text-anchor:middle}.s{font-size:11px}.g{stroke:#ddd}.l{fill:none;stroke-width:2}
.nginx{fill:#7a8288;stroke:#7a8288}.haproxy{fill:#c98a1b;stroke:#c98a1b}.proxy{fill:#0b62c4;stroke:#0b62c4}
.other{fill:#7a4fc9;stroke:#7a4fc9}
@media(prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6e6e6}.m{fill:#9aa3ad}.g{stroke:#30363d}
.nginx{fill:#9aa3ad;stroke:#9aa3ad}.haproxy{fill:#e3a53a;stroke:#e3a53a}.proxy{fill:#4c9bf5;stroke:#4c9bf5}
.other{fill:#a98af0;stroke:#a98af0}}
""".replace("\n", "")


class Drawing:
    def __init__(self):
        self.parts, self.height = [], 0

    def add(self, element, text=None, **attributes):
        words = " ".join(f'{key.replace("_", "-").strip("-")}="{value:.1f}"' if isinstance(value, float) else
                         f'{key.replace("_", "-").strip("-")}="{escape(str(value))}"' for key, value in attributes.items())
        self.parts.append(f"<{element} {words}/>" if text is None else f"<{element} {words}>{escape(text)}</{element}>")

    def text(self, x, y, text, kind=""):
        self.add("text", text, x=float(x), y=float(y), class_=kind)

    def title(self, title, note):
        self.text(16, self.height + 26, title, "t")
        self.text(16, self.height + 45, note, "m")
        self.height += 58

    def legend(self, names):
        x = 16
        for name in names:
            self.add("rect", x=x, y=self.height + 2, width=12, height=12, class_=name)
            self.text(x + 18, self.height + 13, COLOURS[name])
            x += 40 + 7.5 * len(COLOURS[name])
        self.height += 24

    def svg(self):
        size = f'viewBox="0 0 {WIDTH} {self.height:.0f}" width="{WIDTH}" height="{self.height:.0f}"'
        return (f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><style>{STYLE}</style>'
                f'{"".join(self.parts)}</svg>\n')


def digits(value):
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def bars(drawing, groups):
    """Groups of (label, [(peer, value)])."""
    longest = max(value for _, rows in groups for _, value in rows)
    for label, rows in groups:
        drawing.text(LEFT - 10, drawing.height + len(rows) * ROW / 2 + 4, label, "e")
        for name, value in rows:
            length = (WIDTH - LEFT - RIGHT) * value / longest
            drawing.add("rect", x=LEFT, y=float(drawing.height), width=float(length), height=ROW - 3, class_=name)
            drawing.text(LEFT + length + 6, drawing.height + 10, digits(value), "m s")
            drawing.height += ROW
        drawing.height += GAP


def ranges(drawing, groups):
    """Groups of (label, [(peer, [values])]): a line from the first value to the last one, a dot at each, on a logarithmic
    axis."""
    values = [value for _, rows in groups for _, several in rows for value in several]
    low = 10 ** math.floor(math.log10(min(values)))
    high = max(values) * 1.2
    x = lambda value: LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / low) / math.log(high / low)
    top = drawing.height
    height = sum(len(rows) * ROW + GAP for _, rows in groups)
    ticks = [factor * 10 ** power for power in range(-3, 5) for factor in (1, 2, 5)]
    for tick in (tick for tick in ticks if low <= tick <= high):
        drawing.add("line", x1=float(x(tick)), x2=float(x(tick)), y1=float(top), y2=float(top + height), class_="g")
        drawing.text(x(tick), top + height + 14, f"{tick:g}", "m c s")
    for label, rows in groups:
        drawing.text(LEFT - 10, drawing.height + len(rows) * ROW / 2 + 4, label, "e")
        for name, several in rows:
            y = drawing.height + ROW / 2
            drawing.add("line", x1=float(x(several[0])), x2=float(x(several[-1])), y1=y, y2=y, class_=f"{name} l")
            for value in several:
                drawing.add("circle", cx=float(x(value)), cy=y, r=3.5, class_=name)
            drawing.text(x(several[-1]) + 8, y + 4, digits(several[-1]), "m s")
            drawing.height += ROW
        drawing.height += GAP
    drawing.height += 24


def peers(found):
    ways = [(False, "kept connections"), (True, "connection a request")]
    names = list(dict.fromkeys(row["peer"] for row in found["pass_through"]))

    def median(rows, name, close, key):
        return statistics.median(row[key] for row in rows if (row["peer"], row["close"]) == (name, close))

    drawing = Drawing()
    drawing.title("CPU a request, in µs", "a manifest of 2 KB over TLS from the registry; the process's own time, user and system")
    drawing.legend(names)
    loads = [(found["pass_through"], ", full load"), (found["fixed_rate"], ", fixed rate")]
    bars(drawing, [(way + load, [(name, median(rows, name, close, "cpu_us")) for name in names])
                   for close, way in ways for rows, load in loads])
    rates = [next(row["offered_rate"] for row in found["fixed_rate"] if row["close"] == close) for close, _ in ways]
    drawing.title("Latency at a fixed rate, in ms: p50, p90, p99, p99.9",
                  f"open loop: {rates[0]} requests a second on kept connections, {rates[1]} with a connection a request")
    shares = ["p50", "p90", "p99", "p99.9"]
    ranges(drawing, [(way, [(name, [median(found["fixed_rate"], name, close, share) / 1e3 for share in shares])
                            for name in names]) for close, way in ways])
    return drawing.svg()


def lines(drawing, title, rows, key, scale, unit):
    """By connections, both ways: kept ones drawn through, a connection a request broken. Both axes are logarithmic."""
    drawing.text(16, drawing.height + 16, title)
    drawing.text(16, drawing.height + 32, unit, "m")
    levels = sorted({row["connections"] for row in rows})
    height, top = 130, drawing.height + 18
    values = [row[key] * scale for row in rows if row[key] > 0]
    low, high = min(values) / 2.5, max(values) * 1.4
    x = lambda level: LEFT + (WIDTH - LEFT - RIGHT) * levels.index(level) / max(1, len(levels) - 1)
    y = lambda value: top + height * (1 - math.log(value / low) / math.log(high / low))
    for level in levels:
        drawing.add("line", x1=float(x(level)), x2=float(x(level)), y1=float(top), y2=float(top + height), class_="g")
        drawing.text(x(level), top + height + 16, f"{level:,}", "m c s")
    for close in [False, True]:
        points = [(x(row["connections"]), y(row[key] * scale), row[key] * scale) for row in rows
                  if row["close"] == close and row[key] > 0]
        dashes = "6 4" if close else "none"
        drawing.add("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b, _ in points), class_="proxy l",
                    style=f"fill:none;stroke-dasharray:{dashes}")
        for a, b, value in points:
            drawing.add("circle", cx=float(a), cy=float(b), r=3.0, class_="proxy")
            others = [row[key] * scale for row in rows if x(row["connections"]) == a and row["close"] != close]
            # The upper one's number is above it, the lower one's below.
            below = any(value < other or (value == other and close) for other in others)
            drawing.text(a, b + (16 if below else -8), digits(value), "m c s")
    drawing.height = top + height + 34


def load(found):
    drawing = Drawing()
    drawing.title("The proxy by the number of connections", "line: kept connections; "
                  "broken line: a connection a request; both axes are logarithmic")
    rows = found["growth"]
    lines(drawing, "Throughput", rows, "rate", 1e-3, "thousand requests a second")
    lines(drawing, "p99", rows, "p99_ms", 1, "ms")
    lines(drawing, "Memory (RSS)", rows, "rss_kib", 1 / 1024, "MiB")
    return drawing.svg()


def draw(directory):
    found = json.loads((directory / "pass-through.json").read_text())
    (directory / "peers.svg").write_text(peers(found))
    if "growth" in found:
        (directory / "load.svg").write_text(load(found))


if __name__ == "__main__":
    draw(pathlib.Path(sys.argv[1]))
