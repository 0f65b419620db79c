#!/usr/bin/env python3
"""What slow and hostile clients do to a good one, to the proxy's memory and to the registry: for each kind in turn.

Called by scripts/hostile; the figures go to benches/results/hostile.json and hostile.md. The good client asks for an image that
is kept, with a new connection for each request; its rounds alone and beside the attack take turns, so that what else the machine
does meets both. Each kind has a proxy of its own, with one thread and the default limits.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

from attack import ATTACKS
from attack import PATH as KEPT
from process import cpu_seconds, free_port, listens, memory, proxy_settings
from run import Bench, HERE, about, descriptors, write

# Of the good client: a tenth of what one thread can do.
RATE = 500
CONNECTIONS = 8
# What its p99 may be of its p99 alone, and what the process may take, in MiB: it is 20 of program, the connections' own, and
# what 100 layers under way have.
GOAL = 1.5
MEMORY = 128
LAYERS, LAYER_BYTES = 1, 16 << 20
# From when all connections of the attack are open, for what it does at first only: 100 layers fill the kernel's buffers.
ONSET = 3
# Between rounds, for the connections of the attack to end.
REST = 0.5
# The proxy and the good client have one processor, the attack and the registry the others: it is the proxy that is measured, not
# who gets the processor, nor the kernel's work for what the attack sends, which interrupts whoever runs where it is sent.
PROCESSORS = sorted(os.sched_getaffinity(0))
ours, others = str(PROCESSORS[0]), ",".join(map(str, PROCESSORS[1:])) or str(PROCESSORS[0])
LAST = ["taskset", "-c", others, "nice", "-n", "19"]
# In real time where that is allowed: otherwise what else the machine does takes turns with them, and that is what p99 would show.
FIRST = ["taskset", "-c", ours, "chrt", "--rr", "1"]
if subprocess.run([*FIRST, "true"], capture_output=True).returncode:
    print("NOT in real time, which only root may have: p99 is of what else the machine does, too", file=sys.stderr)
    FIRST = ["taskset", "-c", ours]
# Keeps a processor awake and gives way to everything else: to wake a virtual one takes milliseconds at times, which would be
# most of p99.
AWAKE = ["chrt", "--idle", "0", sys.executable, "-c", "while True: pass"]


class Hostile(Bench):
    def set_up(self):
        for number in PROCESSORS:
            self.processes.start(f"awake-{number}", ["taskset", "-c", str(number), *AWAKE], lambda: True)
        subprocess.run(["rustc", "--edition", "2024", "-O", "-o", "rate", HERE / "rate.rs"], check=True, cwd=self.directory)
        program = self.directory / "program"
        program.write_bytes(b"#!")
        self.ports["storage"] = free_port()
        command = ["taskset", "-c", others, self.arguments.emulator, "--anonymous-pull",
                   "--registry-listen", f"127.0.0.1:{self.ports['emulator']}",
                   "--storage-listen", f"127.0.0.1:{self.ports['storage']}", "--ca-out", self.directory / "ca.pem", "--binary",
                   program, "--layers", LAYERS, "--layer-bytes", LAYER_BYTES, "--image", "hub/library/busybox:latest"]
        self.processes.start("emulator", command, lambda: b"ready" in self.processes.log("emulator").read_bytes())
        run = lambda *command: subprocess.run(command, check=True, cwd=self.directory, capture_output=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=example.azurecr.io", "-keyout", "server.key", "-out", "server.pem")

    def start_proxy(self, name):
        ports = {listener: free_port() for listener in ["plain", "tls", "balanced"]}
        self.ports |= ports | {name: ports["plain"]}
        address = lambda listener: {"address": f"127.0.0.1:{ports[listener]}"}
        certificate = {"certificate": f"{self.directory}/server.pem", "key": f"{self.directory}/server.key"}
        config = proxy_settings(
            self.directory / f"{name}.yaml",
            [address("plain"), address("tls") | {"tls": certificate},
             address("balanced") | {"proxy_protocol": {"trusted": ["127.0.0.2"]}}],
            self.ports["emulator"], self.directory / "ca.pem", {"tags": "1h"},
            upstream={"blobs": "proxy", "blob_hosts": [f"127.0.0.1:{self.ports['storage']}"]}, threads=1)
        self.processes.start(name, [*FIRST, self.arguments.proxy, "--config", config], listens(ports["plain"]))

    def layer(self, name):
        """The path of one, by its manifests; they and its redirect are then kept."""
        def get(path):
            done = subprocess.run(["curl", "-sSf", "-H", "Accept: application/vnd.oci.image.index.v1+json, "
                                   "application/vnd.oci.image.manifest.v1+json, */*", f"http://127.0.0.1:{self.ports[name]}{path}"],
                                  check=True, stdout=subprocess.PIPE)
            return done.stdout

        manifest = json.loads(get(KEPT))
        if "manifests" in manifest:
            manifest = json.loads(get(f"/v2/library/busybox/manifests/{manifest['manifests'][0]['digest']}"))
        path = f"/v2/library/busybox/blobs/{max(manifest['layers'], key=lambda layer: layer['size'])['digest']}"
        assert len(get(path)) >= LAYER_BYTES
        return path

    def reads(self):
        """Requests that have come to the registry; storage's are not among them."""
        return self.processes.log("emulator").read_bytes().count(b'"hop":"data"')

    def good(self, name, seconds):
        """One round of the good client, with what the proxy takes meanwhile."""
        command = [*FIRST, self.directory / "rate", f"127.0.0.1:{self.ports[name]}", KEPT, RATE, seconds, CONNECTIONS, "close",
                   "Accept: application/vnd.oci.image.index.v1+json, */*"]
        pid = self.processes.pid(name)
        before, begun = cpu_seconds(pid), time.monotonic()
        found = json.loads(subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True).stdout)
        return found | {"cpu": (cpu_seconds(pid) - before) / (time.monotonic() - begun)}

    def measure(self, kind):
        name = f"proxy-{kind}"
        self.start_proxy(name)
        layer = self.layer(name)
        pid = self.processes.pid(name)
        self.good(name, 1)
        before, reads, most = memory(pid), self.reads(), Most(pid)
        alone, beside, attacks = [], [], []
        for _ in range(self.arguments.rounds):
            alone.append(self.good(name, self.arguments.seconds))
            command = [*LAST, sys.executable, HERE / "attack.py", kind,
                       *(self.ports[listener] for listener in ["plain", "tls", "balanced"]), layer]
            attack = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
            try:
                if attack.stdout.readline() != "ready\n":
                    sys.exit(f"{kind}: the attack has not begun")
                time.sleep(ONSET)
                beside.append(self.good(name, self.arguments.seconds))
                attack.terminate()
                attacks.append(json.loads(attack.stdout.readline()))
            finally:
                attack.kill()
                attack.wait()
            time.sleep(REST)
        median = lambda rows, key: statistics.median(row[key] for row in rows)
        row = {
            "kind": kind, "what": ATTACKS[kind][0], "alone": alone, "beside": beside, "attacks": attacks,
            "p50_ratio": median(beside, "p50") / median(alone, "p50"), "p99_ratio": median(beside, "p99") / median(alone, "p99"),
            "p99_alone_us": median(alone, "p99"), "p99_us": median(beside, "p99"),
            "errors": sum(round["errors"] for round in alone + beside),
            "cpu_alone": median(alone, "cpu"), "cpu": median(beside, "cpu"),
            "memory_before_kib": before, "memory_most_kib": most.stop(), "reads_at_registry": self.reads() - reads,
            "done_a_second": median(attacks, "done_a_second"), "opened_a_second": median(attacks, "opened_a_second"),
        }
        self.processes.stop(name)
        print(f"{kind}: p99 {row['p99_alone_us'] / 1000:.2f} ms alone, {row['p99_us'] / 1000:.2f} ms beside, "
              f"{row['p99_ratio']:.2f}; CPU {row['cpu_alone']:.2f}, {row['cpu']:.2f}; {row['memory_before_kib'] / 1024:.0f} to "
              f"{row['memory_most_kib'] / 1024:.0f} MiB; {row['reads_at_registry']} reads, {row['errors']} errors; "
              f"{row['done_a_second']:.0f}/s done, {row['opened_a_second']:.0f}/s opened", file=sys.stderr)
        return row


class Most:
    """The most memory of a process, looked at ten times a second."""

    def __init__(self, pid):
        self.pid, self.most, self.ended = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.ended.wait(0.1):
            self.most = max(self.most, memory(self.pid))

    def stop(self):
        self.ended.set()
        self.thread.join()
        return self.most


def summary(rows):
    """Markdown."""
    lines = [f"| The good client's {RATE} requests a second beside | p99 of alone | p50 of alone | failed | proxy's CPU, alone and "
             "beside | memory, at most | reads at the registry |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['what']} | {row['p99_ratio']:.2f} | {row['p50_ratio']:.2f} | {row['errors']} | "
                     f"{row['cpu_alone'] * 100:.0f} %, {row['cpu'] * 100:.0f} % | {row['memory_most_kib'] / 1024:.0f} MiB | "
                     f"{row['reads_at_registry']} |")
    missed = [row["kind"] for row in rows
              if row["p99_ratio"] > GOAL or row["memory_most_kib"] > MEMORY << 10 or row["reads_at_registry"] or row["errors"]]
    lines += ["", f"Goals: a p99 of at most {GOAL}, {MEMORY} MiB, no read and no failure. Missed: {', '.join(missed) or 'none'}."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", choices=[*ATTACKS], nargs="+", default=[*ATTACKS])
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    descriptors()
    made_by = about() | {"real_time": "chrt" in FIRST}
    bench = Hostile(arguments)
    try:
        bench.set_up()
        rows = [bench.measure(kind) for kind in arguments.only]
    finally:
        bench.stop()
    write(arguments.out, "hostile", made_by | {"hostile": rows}, summary(rows))


if __name__ == "__main__":
    main()
