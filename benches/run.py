#!/usr/bin/env python3
"""Compares the proxy with nginx and HAProxy on the same work, on one machine, in one run.

Called by scripts/bench. What it measures and how is said in benches/README.md; the figures go to benches/results/.
"""

import argparse
import hashlib
import http.client
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from process import Processes, cpu_seconds, free_port, listens, memory, proxy_settings

HERE = pathlib.Path(__file__).resolve().parent
PATH = "/v2/library/busybox/manifests/latest?ns=docker.io"
ACCEPT = (
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, */*"
)
# Names nothing that the cache keeps, so that with the cache, too, a request passes through. As long as the other.
PASSES = (
    "Accept: application/vnd.oci.image.config.v1+json, application/vnd.docker.container.image.v1+json, "
    "application/vnd.docker.plugin.v1+json, application/json, */*"
)
TOKEN = "x" * 1200  # as long as one of ACR's
CONNECTIONS = 32  # of the comparison
# Requests a second that every peer does with ease on two cores which it shares with the load and the registry.
RATES = {False: 3000, True: 1500}
# Of one client more than 1,536 requests at once are refused.
GROWTH = [1, 10, 100, 1000]
IDLE = [1000, 10000]
# A connection is one descriptor of the load's and one of the proxy's, which may have one more to the registry.
DESCRIPTORS = 2 * IDLE[-1] + 1000
STARTS = 5
WAYS = {False: "kept connections", True: "a connection a request"}


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="acr-cache-proxy-bench-"))
        self.directory.chmod(0o755)  # nginx's workers are nobody
        self.processes = Processes(self.directory)
        self.ports = {name: free_port() for name in ["upstream", "emulator", "nginx", "haproxy"]}
        self.stores = 0

    def text(self, name, peer="", store="", tls=""):
        text = (HERE / "peers" / name).read_text()
        # The first ones may contain the others.
        values = {"STORE": store, "TLS": tls, "PEER": peer, "PORT": self.ports.get(peer), "DIR": self.directory, "TOKEN": TOKEN,
                  "DIGEST": f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"}
        for key, value in (values | {key.upper(): port for key, port in self.ports.items()}).items():
            text = text.replace(f"@{key}@", str(value))
        path = self.directory / f"{peer}{name}"
        path.write_text(text)
        return str(path)

    def start(self, name, *command):
        self.processes.start(name, command, listens(self.ports[name]))

    def set_up(self):
        self.manifest = json.dumps({"schemaVersion": 2, "padding": "x" * 2010}).encode()
        (self.directory / "manifest.json").write_bytes(self.manifest)
        run = lambda *command: subprocess.run(command, check=True, cwd=self.directory, capture_output=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", "ca.pem")
        (self.directory / "names").write_text("subjectAltName=DNS:example.azurecr.io\nbasicConstraints=CA:FALSE\n")
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/CN=example.azurecr.io", "-keyout", "server.key", "-out", "server.csr")
        run("openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", "server.pem")
        run("rustc", "--edition", "2024", "-O", "-o", "rate", HERE / "rate.rs")
        self.start("emulator", self.arguments.emulator, "--anonymous-pull", "--registry-listen",
                   f"127.0.0.1:{self.ports['emulator']}", "--ca-out", self.directory / "emulator-ca.pem")
        self.start("upstream", "nginx", "-c", self.text("upstream.conf"))

    def set_up_peers(self):
        self.start_nginx("nginx", "proxy_buffering off;")
        self.start_nginx("nginx-cache", (HERE / "peers" / "nginx-cache.conf").read_text())
        self.start_haproxy("haproxy")
        for name, binary in [("proxy", self.arguments.proxy), ("other", self.arguments.other)]:
            if binary:
                self.start_proxy(name, binary)
                self.start_proxy(f"{name}-cache", binary, cache={})

    def start_nginx(self, name, store, **values):
        self.ports.setdefault(name, free_port())
        self.start(name, "nginx", "-c", self.text("nginx.conf", name, store, **values))

    def start_haproxy(self, name, **values):
        self.ports.setdefault(name, free_port())
        self.start(name, "haproxy", "-db", "-f", self.text("haproxy.cfg", name, **values))

    def start_proxy(self, name, binary, upstream="upstream", ca="ca.pem", cache="off"):
        """Gives how long it took from the start to the first manifest."""
        port = self.ports.setdefault(name, free_port())
        config = proxy_settings(self.directory / f"{name}.yaml", f"127.0.0.1:{port}", self.ports[upstream], self.directory / ca, cache)

        def ready():
            try:
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                client.request("GET", PATH, headers=dict([ACCEPT.split(": ", 1)]))
                return client.getresponse().status == 200
            except OSError:
                return False

        begun = time.monotonic()
        self.processes.start(name, [binary, "--config", config], ready)
        return time.monotonic() - begun

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}{PATH}"

    def load(self, name, connections, seconds, close, accept=ACCEPT, distinct=False):
        """One run of wrk: requests a second, latencies, and what the peer's own processes took."""
        command = ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s",
                   "-H", accept]
        command += ["-H", "Connection: close"] if close else []
        command += ["-s", str(HERE / "distinct.lua")] if distinct else []
        command += [self.url(name)]
        if distinct:
            self.stores += 1
            command += ["--", f"run-{self.stores}"]
        pid = self.processes.pid(name)
        before, most = cpu_seconds(pid), 0
        wrk = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while True:
            try:
                output = wrk.communicate(timeout=0.2)[0]
                break
            except subprocess.TimeoutExpired:
                most = max(most, memory(pid))
        if wrk.returncode:
            sys.exit(f"{' '.join(command)}: status {wrk.returncode}\n{output}")
        requests = int(re.search(r"(\d+) requests in", output).group(1))
        found = {
            "peer": name,
            "requests": requests,
            "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)),
            "cpu_us": (cpu_seconds(pid) - before) / max(1, requests) * 1e6,
            "rss_kib": most,
            "command": " ".join(command).replace(f"{HERE.parent}/", ""),
        }
        for percentile in ["50", "99"]:
            value, unit = re.search(rf"\n\s+{percentile}%\s+([\d.]+)(us|ms|s|m)\s*\n", output).groups()
            found[f"p{percentile}_ms"] = float(value) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]
        errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        sockets = re.search(r"Socket errors: (.*)", output)
        found["errors"] = int(errors.group(1)) if errors else 0
        found["socket_errors"] = sockets.group(1) if sockets else ""
        return found

    def fixed(self, name, seconds, close, accept):
        """The same work at a rate that all peers keep up with: an open loop, so that latency is what a client sees."""
        command = [self.directory / "rate", f"127.0.0.1:{self.ports[name]}", PATH, RATES[close], seconds, CONNECTIONS,
                   "close" if close else "kept", accept]
        pid = self.processes.pid(name)
        before = cpu_seconds(pid)
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        used = (cpu_seconds(pid) - before) / max(1, found["requests"]) * 1e6
        return {"peer": name, "offered_rate": RATES[close], "cpu_us": used} | found

    def builds(self):
        return ["proxy"] + (["other"] if self.arguments.other else [])

    def pass_through(self):
        """All peers in turn, several rounds, so that what the machine does meanwhile meets each of them."""
        saturated, fixed = [], []
        # With the cache, which has to let the request pass, and without.
        accepts = {name: ACCEPT for name in ["nginx", "haproxy", *self.builds()]}
        accepts |= {f"{name}-cache": PASSES for name in self.builds()}
        for close in WAYS:
            for name, accept in accepts.items():
                self.load(name, CONNECTIONS, 1, close, accept)
            for round in range(self.arguments.rounds):
                where = {"close": close, "round": round}
                for name, accept in accepts.items():
                    row = self.load(name, CONNECTIONS, self.arguments.seconds, close, accept)
                    saturated.append(row | where)
                    report(f"{WAYS[close]}, {round}", row)
                for name, accept in accepts.items():
                    row = self.fixed(name, self.arguments.seconds, close, accept)
                    fixed.append(row | where)
                    print(f"{WAYS[close]}, {round}: {name:12}{row['offered_rate']:7.0f}/s {row['cpu_us']:6.1f} us, "
                          f"p99 {row['p99'] / 1e3:.2f} ms, errors {row['errors']}", file=sys.stderr)
        return {"pass_through": saturated, "fixed_rate": fixed}

    def cache(self):
        """One tag that is kept, and tags of which each is fetched and kept, beside peers that pass the same on."""
        found = {"hit": [], "miss": []}
        names = ["nginx", "haproxy", "nginx-cache", *(f"{name}-cache" for name in self.builds())]
        for kind, rows in found.items():
            for close in WAYS:
                load = lambda name, seconds: self.load(name, CONNECTIONS, seconds, close, distinct=kind == "miss")
                for name in names:
                    load(name, 1)
                for round in range(self.arguments.rounds):
                    for name in names:
                        row = load(name, self.arguments.seconds)
                        rows.append(row | {"close": close, "round": round})
                        report(f"{kind}, {WAYS[close]}, {round}", row)
        return found

    def growth(self):
        """From 1 to 1,000 connections, by a process of its own for either way, so that memory is what that way takes."""
        rows = []
        for close in WAYS:
            name = f"load-{'close' if close else 'kept'}"
            self.start_proxy(name, self.arguments.proxy)
            for connections in levels(GROWTH):
                row = self.load(name, connections, self.arguments.seconds, close)
                rows.append(row | {"connections": connections, "close": close})
                print(f"{WAYS[close]}, {connections}: {row['rate']:.0f}/s {row['cpu_us']:.1f} us, p99 {row['p99_ms']:.2f} "
                      f"ms, {row['rss_kib'] / 1024:.0f} MiB, errors {row['errors']} {row['socket_errors']}",
                      file=sys.stderr)
            self.processes.stop(name)
        return rows

    def size(self):
        """The binary, its start, and memory at rest and with connections that say nothing, of a process of its own."""
        starts = []
        for _ in range(STARTS):
            if starts:
                self.processes.stop("size")
            starts.append(self.start_proxy("size", self.arguments.proxy, cache={}))
        pid = self.processes.pid("size")
        rss = {0: memory(pid)}
        held = []
        for connections in levels(IDLE):
            while len(held) < connections:
                held.append(socket.create_connection(("127.0.0.1", self.ports["size"])))
            time.sleep(1)  # they are accepted after they stand
            rss[connections] = memory(pid)
        for client in held:
            client.close()
        return {
            "binary_bytes": os.path.getsize(self.arguments.proxy),
            "start_to_first_answer_ms": [round(start * 1000, 1) for start in starts],
            "rss_kib_by_idle_connections": rss,
        }

    def train(self):
        """The load that scripts/pgo has its compiler learn from: pass-through, hits, misses and whole pulls, in both ways."""
        self.start_proxy("proxy", self.arguments.proxy)
        self.start_proxy("proxy-cache", self.arguments.proxy, cache={})
        self.start_proxy("pulls", self.arguments.proxy, "emulator", "emulator-ca.pem")
        for close in WAYS:
            for name, distinct in [("proxy", False), ("proxy-cache", False), ("proxy-cache", True)]:
                row = self.load(name, CONNECTIONS, self.arguments.seconds, close, distinct=distinct)
                report(f"{WAYS[close]}{', distinct' if distinct else ''}", row)
        command = [self.arguments.proxy, "bench", "--via", f"http://127.0.0.1:{self.ports['pulls']}", "--image",
                   "library/busybox:latest", "--ca-file", self.directory / "emulator-ca.pem", "--cold", "--per-pull",
                   "--concurrency", "8", "--duration", f"{self.arguments.seconds}s"]
        # What this client does is not what is to be learnt.
        environment = os.environ | {"LLVM_PROFILE_FILE": "/dev/null"}
        subprocess.run([str(word) for word in command], env=environment, check=True)

    def stop(self):
        self.processes.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def report(what, row):
    print(f"{what}: {row['peer']:12}{row['rate']:7.0f}/s {row['cpu_us']:6.1f} us, p99 {row['p99_ms']:.2f} ms, "
          f"errors {row['errors']} {row['socket_errors']}", file=sys.stderr)


def descriptors():
    """As many as may be had, for this process and those that it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, DESCRIPTORS), max(most, DESCRIPTORS)))
    except ValueError:  # only root may raise its own limit, and not every root
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def levels(wanted):
    """Those for which there are descriptors enough."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = [level for level in wanted if 2 * level <= most]
    for level in wanted[len(possible):]:
        print(f"{level} connections: NOT measured: the limit of open files, {most}, is below {2 * level}", file=sys.stderr)
    return possible


def write(out, name, found, text):
    """The raw figures of a run, and what is said of them in Markdown, which is printed as well."""
    print(text)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        (out / f"{name}.md").write_text(text)


def about():
    """What a run was made by, and on which machine."""
    return {"machine": machine(), "command": [word.removeprefix(f"{HERE.parent}/") for word in sys.argv]}


def machine():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())

    def version(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        return (done.stdout or done.stderr).splitlines()[0]

    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "nginx": version("nginx", "-v"),
        "haproxy": version("haproxy", "-v"),
        "rustc": version("rustc", "--version"),
    }


def comparison(rows, keys):
    """Medians over the rounds, as ratios to nginx in the same run."""
    lines = []
    for close, way in WAYS.items():
        some = [row for row in rows if row["close"] == close]
        median = lambda name, key: statistics.median(row[key] for row in some if row["peer"] == name)
        for name in dict.fromkeys(row["peer"] for row in some):
            cells = " | ".join(f"{median(name, key) / median('nginx', key):.2f}" for key in keys)
            failed = sum(row["errors"] for row in some if row["peer"] == name)
            lines.append(f"| {way}: {name} | {median(name, 'cpu_us'):.1f} us | {cells} | {failed} |")
    return lines


FULL_SPEED = ["| | CPU a request | of nginx | requests/s | p99 | errors |", "|---|---|---|---|---|---|"]


def pass_through_summary(found):
    """Markdown."""
    lines = [f"As fast as {CONNECTIONS} connections go, of nginx:", "", *FULL_SPEED]
    lines += comparison(found["pass_through"], ["cpu_us", "rate", "p99_ms"])
    rates = f"{RATES[False]} requests a second on kept connections, {RATES[True]} with a connection a request"
    lines += ["", f"At a fixed rate, {rates}, of nginx:", "",
              "| | CPU a request | of nginx | p50 | p99 | errors |", "|---|---|---|---|---|---|"]
    lines += comparison(found["fixed_rate"], ["cpu_us", "p50", "p99"])
    if "growth" in found:
        lines += ["", "| The proxy by connections | requests/s | CPU a request | p50, ms | p99, ms | RSS, MiB | errors |",
                  "|---|---|---|---|---|---|---|"]
        for row in found["growth"]:
            errors = ", ".join(filter(None, [str(row["errors"]), row["socket_errors"]]))
            lines.append(f"| {WAYS[row['close']]}: {row['connections']} | {row['rate']:.0f} | {row['cpu_us']:.1f} us | "
                         f"{row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['rss_kib'] / 1024:.1f} | {errors} |")
        size = found["size"]
        lines += ["", "| Size | |", "|---|---|", f"| binary | {size['binary_bytes'] / 2**20:.1f} MiB |",
                  f"| start to first manifest | {statistics.median(size['start_to_first_answer_ms']):.0f} ms |"]
        for connections, rss in size["rss_kib_by_idle_connections"].items():
            lines.append(f"| RSS with {connections} idle connections | {rss / 1024:.1f} MiB |")
    return "\n".join(lines) + "\n"


def cache_summary(found):
    """Markdown."""
    lines = []
    for kind, what in [("hit", "A manifest that is kept"), ("miss", "A manifest that is fetched and kept")]:
        lines += [f"{what}, as fast as {CONNECTIONS} connections go, of nginx passing it on:", "", *FULL_SPEED,
                  *comparison(found[kind], ["cpu_us", "rate", "p99_ms"]), ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--other", help="a second build of the proxy, to be compared with the first")
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", choices=["pass-through", "cache", "train"])
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    descriptors()
    made_by = about()
    bench = Bench(arguments)
    found = {}
    try:
        bench.set_up()
        if arguments.only == "train":
            bench.train()
            return
        bench.set_up_peers()
        if arguments.only != "cache":
            found["pass-through"] = bench.pass_through()
        if arguments.only != "pass-through":
            found["cache"] = bench.cache()
        if not arguments.only:
            found["pass-through"] |= {"growth": bench.growth(), "size": bench.size()}
    finally:
        bench.stop()
    for name, rows in found.items():
        text = {"pass-through": pass_through_summary, "cache": cache_summary}[name](rows)
        write(arguments.out, name, made_by | rows, text)


if __name__ == "__main__":
    main()
