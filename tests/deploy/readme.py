"""The table of values in the chart's README, made from the comments in values.yaml."""

import json
import re

import yaml

from run import CHART, Failed

BEGIN, END = "<!-- values: made by scripts/deploy-check --update -->\n", "<!-- end of values -->\n"
README = CHART / "README.md"


def table():
    lines = (CHART / "values.yaml").read_text().splitlines()
    values = yaml.safe_load("\n".join(lines))
    rows, path, comment = [], [], []
    # The depth of the last row: what is deeper belongs to its default.
    row_depth = None
    for line in lines:
        if match := re.match(r"^ *# ?(.*)$", line):
            comment.append(match.group(1))
            continue
        if not (match := re.match(r"^( *)([A-Za-z]+):", line)):
            comment = [] if not line else comment
            continue
        depth = len(match.group(1)) // 2
        if row_depth is not None and depth > row_depth:
            continue
        path = path[:depth] + [match.group(2)]
        value = values
        for key in path:
            value = value[key]
        row_depth = depth if comment else None
        if comment:
            rows.append(f"| `{'.'.join(path)}` | `{json.dumps(value)}` | {' '.join(comment).replace('|', '&#124;')} |\n")
        elif not isinstance(value, dict) or not value:
            raise Failed(f"values.yaml: {'.'.join(path)} has no comment")
        comment = []
    return "| Value | Default | Meaning |\n|---|---|---|\n" + "".join(rows)


def parts():
    text = README.read_text()
    before, rest = text.split(BEGIN)
    return before + BEGIN, rest.split(END)[0], END + rest.split(END)[1]


def update():
    before, _, after = parts()
    README.write_text(before + table() + after)


def check():
    if parts()[1] != table():
        raise Failed("charts/acr-cache-proxy/README.md: the table is not that of values.yaml: run scripts/deploy-check --update")
    yield "chart: README has every value"
