"""Checks what deploys the proxy: the Dockerfile, the Helm chart, the samples for Compose and Nomad.

scripts/deploy-check installs the tools and starts this in a network namespace with nothing but lo. With --update it
writes the table of values in the chart's README instead.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import chart
import cluster
import pod
import readme
import samples
from run import Failed, Tools, say


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the table of values in the chart's README")
    parser.add_argument("--tools", type=Path, required=True, help="where the tools are")
    parser.add_argument("--image", type=Path, help="the files of the image, as scripts/image --root lays them")
    arguments = parser.parse_args()
    if arguments.update:
        readme.update()
        return
    tools = Tools(arguments.tools)
    passed = 0
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        image = work / "image"
        shutil.copytree(arguments.image, image, symlinks=True)
        rendered = chart.render_all(tools)
        for check in (
            lambda: samples.check(tools, image, work),
            readme.check,
            lambda: chart.check(tools, rendered),
            lambda: pod.check(rendered, image, work),
            lambda: cluster.check(tools, rendered, work),
        ):
            for name in check():
                say(f"ok: {name}")
                passed += 1
    say(f"deploy: {passed} passed, 0 failed")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"deploy: {failure}")
