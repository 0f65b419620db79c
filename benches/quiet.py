#!/usr/bin/env python3
"""What the proxy takes that nobody asks for anything, and how soon it is ready: as a unit of systemd with its watchdog, with a sign-in
at the emulator.

Called by scripts/idle; the figures go to benches/results/quiet.json and quiet.md. Wake-ups are voluntary context switches of all
threads, of /proc/PID/task/*/status. The time is from before the program is started to READY=1, and to the answer of a pull that is
sent then and waits for the first token.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from process import Processes, free_port, listens, memory
from run import HERE, about, write

# As the unit has it.
WATCHDOG = 30
# After the start, until memory and threads are what they stay, in seconds.
SETTLE = 10
MANIFEST = "/v2/library/a/manifests/1"
ACCEPT = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
# A start takes longer only where it fails.
LIMIT = 60


class Manager:
    """The service manager's socket."""

    def __init__(self, directory):
        self.path = str(directory / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(LIMIT)

    def wait_for(self, begin):
        while True:
            told = self.socket.recv(8192).decode()
            if told.startswith(begin):
                return told


class Quiet:
    def __init__(self, arguments, program, directory):
        self.arguments, self.program, self.directory = arguments, program, directory
        self.processes, self.manager = Processes(directory), Manager(directory)
        self.registry, self.entra, self.port = free_port(), free_port(), free_port()

    def set_up(self):
        content = self.directory / "program"
        content.write_text("#!")
        self.processes.start("emulator", [
            self.arguments.emulator, "--registry-listen", f"127.0.0.1:{self.registry}", "--entra-listen", f"127.0.0.1:{self.entra}",
            "--ca-out", self.directory / "ca.pem", "--binary", content, "--layers", "1", "--layer-bytes", "64",
            "--image", "hub/library/a:1"], listens(self.registry))
        (self.directory / "config.yaml").write_text(json.dumps({
            "listen": f"127.0.0.1:{self.port}", "admin": f"127.0.0.1:{free_port()}", "ca_file": str(self.directory / "ca.pem"),
            "upstream": {"domain": f"example.azurecr.io:{self.registry}", "prefix": "hub", "addresses": ["127.0.0.1"]},
        }) + "\n")

    def start(self):
        """Milliseconds to READY=1 and to the first pull, and the process."""
        variables = os.environ | {
            "NOTIFY_SOCKET": self.manager.path, "WATCHDOG_USEC": str(WATCHDOG * 1_000_000),
            "AZURE_AUTHORITY_HOST": f"https://127.0.0.1:{self.entra}", "AZURE_TENANT_ID": "72f988bf-0000-4000-8000-000000000001",
            "AZURE_CLIENT_ID": "72f988bf-0000-4000-8000-000000000002", "AZURE_CLIENT_SECRET": "a~secret-of-the-emulator"}
        command = [self.program, "--config", str(self.directory / "config.yaml")]
        with open(self.processes.log("proxy"), "wb") as log:
            begun = time.monotonic()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables)
        self.processes.running["proxy"] = process
        self.manager.wait_for("READY=1\n")
        ready = time.monotonic() - begun
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        client.request("GET", MANIFEST, headers={"Accept": ACCEPT})
        answer = client.getresponse()
        answer.read()
        pulled = time.monotonic() - begun
        client.close()
        if answer.status != 200:
            sys.exit(f"the first pull: {answer.status}\n{self.processes.last_words('proxy')}")
        return {"ready_ms": ready * 1000, "first_pull_ms": pulled * 1000}

    def rest(self):
        """Of the process that runs: its memory, and how often each of its threads wakes up."""
        pid = self.processes.pid("proxy")
        time.sleep(SETTLE)
        before, begun = wake_ups(pid), time.monotonic()
        time.sleep(self.arguments.seconds)
        after, took = wake_ups(pid), time.monotonic() - begun
        threads = {}
        for thread, (name, count) in after.items():
            threads[name] = threads.get(name, 0) + (count - before.get(thread, (name, 0))[1]) / took
        return {"resident_kib": memory(pid), "anonymous_kib": memory(pid, "RssAnon"), "threads": len(after),
                "wake_ups_per_second": sum(threads.values()),
                "by_thread": {name: round(rate, 3) for name, rate in sorted(threads.items()) if rate}}

    def starts(self):
        rows = []
        for _ in range(self.arguments.starts):
            rows.append(self.start())
            self.processes.stop("proxy")
        return rows


def wake_ups(pid):
    """Name and voluntary context switches of each thread."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        switches = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.MULTILINE)
        found[task.name] = ((task / "comm").read_text().strip(), int(switches.group(1)))
    return found


def summary(builds):
    """Markdown, a column a build."""
    def milliseconds(key):
        def cell(found):
            values = [row[key] for row in found["starts"]]
            return f"{statistics.median(values):.0f} ms ({max(values):.0f} ms)"
        return cell

    def kib(key):
        return lambda found: f"{found['rest'][key] / 1024:.1f} MiB"

    starts = len(next(iter(builds.values()))["starts"])
    rows = {
        f"Start to `READY=1`, median (most) of {starts}": milliseconds("ready_ms"),
        "Start to the first pull, sign-in included": milliseconds("first_pull_ms"),
        "Memory of the process": kib("resident_kib"),
        "of which its own, the rest is the program": kib("anonymous_kib"),
        "Wake-ups a second": lambda found: f"{found['rest']['wake_ups_per_second']:.2f}",
        "Threads": lambda found: str(found["rest"]["threads"]),
    }
    lines = [f"| At rest, with a watchdog of {WATCHDOG} s | {' | '.join(builds)} |", "|---|" + "---|" * len(builds)]
    lines += [f"| {name} | {' | '.join(cell(found) for found in builds.values())} |" for name, cell in rows.items()]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--other", help="a second build of the proxy")
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    made_by = about()
    builds = {}
    for name, program in [("proxy", arguments.proxy), ("other", arguments.other)]:
        if not program:
            continue
        with tempfile.TemporaryDirectory() as directory:
            bench = Quiet(arguments, program, pathlib.Path(directory))
            try:
                bench.set_up()
                starts = bench.starts()
                bench.start()
                builds[name] = {"starts": starts, "rest": bench.rest()}
            finally:
                bench.processes.stop()
    write(arguments.out, "quiet", made_by | {"builds": builds}, summary(builds))


if __name__ == "__main__":
    main()
