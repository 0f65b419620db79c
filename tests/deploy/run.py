"""Programs that end in time, and where they are."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/acr-cache-proxy"
# The version of Kubernetes for which the chart is rendered: that of the API server in tools/kubernetes/go.mod.
KUBERNETES = "1.36.3"
# No tool here takes a tenth of it, on a machine that does nothing else.
LIMIT_SECONDS = 120


class Failed(Exception):
    """A check that failed, in words."""


class Tools:
    """The programs that scripts/deploy-check has installed."""

    def __init__(self, directory):
        self.directory = directory

    def path(self, name):
        for place in ("bin", "venv/bin"):
            if (path := self.directory / place / name).exists():
                return path
        raise Failed(f"{name} is not installed: run scripts/deploy-check")

    def run(self, name, *arguments, **options):
        return run(self.path(name), *arguments, **options)


def run(*command, fails=False, **options):
    """Runs a command to its end, which has to be a good one, or with `fails` a bad one; gives what it printed."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=LIMIT_SECONDS, check=False, **options,
    )
    if (done.returncode != 0) != fails:
        words = " ".join(str(word) for word in command)
        raise Failed(f"{words}: status {done.returncode}{' and no error' if fails else ''}\n{done.stdout}")
    return done.stdout


def say(line):
    print(line, flush=True)


def require(condition, words):
    """`assert` that is never optimized away, with words for whoever reads them."""
    if not condition:
        raise Failed(words)
