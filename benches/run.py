#!/usr/bin/env python3
"""Compares the proxy with nginx and HAProxy on the same work, on one machine, in one run.

Called by scripts/bench. What it measures and how is said in benches/README.md; the figures go to benches/results/.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
PATH = "/v2/library/busybox/manifests/latest?ns=docker.io"
ACCEPT = (
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, */*"
)
TOKEN = "x" * 1200  # as long as one of ACR's


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, process, log):
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with status {process.returncode}:\n{log.read_text()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"{process.args[0]} does not listen on port {port}")


def tree(pid):
    """A process and its children."""
    found = [pid]
    for entry in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        found += [child for text in entry.read_text().split() for child in tree(int(text))]
    return found


def stat(pid, name):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return int(fields[{"utime": 11, "stime": 12}[name]])


def cpu_seconds(pid):
    return sum(stat(each, "utime") + stat(each, "stime") for each in tree(pid)) / TICK


def memory(pid, field="VmRSS"):
    """In KiB, of a process and its children."""
    total = 0
    for each in tree(pid):
        match = re.search(rf"{field}:\s+(\d+)", pathlib.Path(f"/proc/{each}/status").read_text())
        total += int(match.group(1)) if match else 0
    return total


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="acr-cache-proxy-bench-"))
        self.directory.chmod(0o755)  # nginx's workers are nobody
        self.processes = {}
        self.ports = {name: free_port() for name in ["upstream", "emulator", "nginx", "haproxy", "proxy"]}

    def text(self, name):
        text = (HERE / "peers" / name).read_text()
        values = {"DIR": self.directory, "TOKEN": TOKEN} | {key.upper(): port for key, port in self.ports.items()}
        for key, value in values.items():
            text = text.replace(f"@{key}@", str(value))
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def start(self, name, *command):
        log = self.directory / f"{name}.out"
        with open(log, "wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        self.processes[name] = process
        if name in self.ports:
            wait_for(self.ports[name], process, log)
        return process

    def set_up(self):
        manifest = self.directory / "manifest.json"
        manifest.write_text(json.dumps({"schemaVersion": 2, "padding": "x" * 2010}))
        run = lambda *command: subprocess.run(command, check=True, cwd=self.directory, capture_output=True)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", "ca.pem")
        (self.directory / "names").write_text("subjectAltName=DNS:example.azurecr.io\nbasicConstraints=CA:FALSE\n")
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/CN=example.azurecr.io", "-keyout", "server.key", "-out", "server.csr")
        run("openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", "server.pem")
        self.start("emulator", self.arguments.emulator, "--anonymous-pull", "--registry-listen",
                   f"127.0.0.1:{self.ports['emulator']}")
        self.start("upstream", "nginx", "-c", self.text("upstream.conf"))
        self.start("nginx", "nginx", "-c", self.text("nginx.conf"))
        self.start("haproxy", "haproxy", "-db", "-f", self.text("haproxy.cfg"))
        self.start_proxy("proxy", self.arguments.proxy)
        if self.arguments.other:
            self.ports["other"] = free_port()
            self.start_proxy("other", self.arguments.other)

    def start_proxy(self, name, binary):
        config = self.directory / f"{name}.yaml"
        config.write_text(
            f"listen: 127.0.0.1:{self.ports[name]}\n"
            f"upstream: {{domain: 'example.azurecr.io:{self.ports['upstream']}', prefix: hub, addresses: [127.0.0.1]}}\n"
            f"ca_file: {self.directory}/ca.pem\nidentity: {{kind: anonymous}}\n"
        )
        begun = time.monotonic()
        self.start(name, binary, "--config", str(config))
        while time.monotonic() - begun < 20:
            answer = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", self.url(name)],
                                    capture_output=True, text=True)
            if answer.stdout == "200":
                return time.monotonic() - begun
        sys.exit(f"{name} gives no manifest:\n{(self.directory / (name + '.out')).read_text()[-2000:]}")

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}{PATH}"

    def load(self, name, connections, seconds, close):
        """One run of wrk: requests a second, latencies, and the CPU that the peer's own processes spent."""
        command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", ACCEPT]
        command += ["-H", "Connection: close"] if close else []
        pid = self.processes[name].pid
        before = cpu_seconds(pid)
        output = subprocess.run([*command, self.url(name)], capture_output=True, text=True, check=True).stdout
        used = cpu_seconds(pid) - before
        requests = int(re.search(r"(\d+) requests in", output).group(1))
        found = {
            "peer": name,
            "requests": requests,
            "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)),
            "cpu_us": used / requests * 1e6,
            "rss_kib": memory(pid),
            "command": " ".join(command),
        }
        for percentile in ["50", "99"]:
            value, unit = re.search(rf"\n\s+{percentile}%\s+([\d.]+)(us|ms|s|m)\n", output).groups()
            found[f"p{percentile}_ms"] = float(value) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]
        errors = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        sockets = re.search(r"Socket errors: (.*)", output)
        found["errors"] = int(errors.group(1)) if errors else 0
        found["socket_errors"] = sockets.group(1) if sockets else ""
        return found

    def peers(self):
        return ["nginx", "haproxy", "proxy"] + (["other"] if self.arguments.other else [])

    def pass_through(self):
        """All peers in turn, several rounds, so that what the machine does meanwhile meets each of them."""
        rows = []
        for close in [False, True]:
            for name in self.peers():
                self.load(name, 32, 1, close)
            for round in range(self.arguments.rounds):
                for name in self.peers():
                    row = self.load(name, 32, self.arguments.seconds, close)
                    rows.append(row | {"close": close, "round": round})
                    print(f"{'close' if close else 'kept'} {round} {name:8} {row['rate']:9.0f}/s "
                          f"{row['cpu_us']:6.1f} us p99 {row['p99_ms']:.2f} ms", file=sys.stderr)
        return rows

    def growth(self):
        rows = []
        for close in [False, True]:
            for connections in [1, 10, 100, 1000]:
                row = self.load("proxy", max(2, connections), self.arguments.seconds, close)
                rows.append(row | {"connections": connections, "close": close})
                print(f"{'close' if close else 'kept'} {connections} connections {row['rate']:.0f}/s "
                      f"p99 {row['p99_ms']:.2f} ms {row['rss_kib'] // 1024} MiB {row['socket_errors']}", file=sys.stderr)
        return rows

    def idle(self):
        """Memory with 10,000 connections that say nothing, from a process of its own."""
        port = free_port()
        self.ports["idle"] = port
        start = self.start_proxy("idle", self.arguments.proxy)
        pid = self.processes["idle"].pid
        empty = memory(pid)
        held = []
        for _ in range(10000):
            client = socket.create_connection(("127.0.0.1", port))
            held.append(client)
        time.sleep(1)
        full = memory(pid)
        for client in held:
            client.close()
        return {
            "binary_bytes": os.path.getsize(self.arguments.proxy),
            "start_to_first_answer_ms": round(start * 1000, 1),
            "rss_idle_kib": empty,
            "rss_10000_idle_kib": full,
        }

    def stop(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def machine():
    model = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    version = lambda *command: (subprocess.run(command, capture_output=True, text=True).stdout or
                                subprocess.run(command, capture_output=True, text=True).stderr).splitlines()[0]
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "nginx": version("nginx", "-v"),
        "haproxy": version("haproxy", "-v"),
        "rustc": version("rustc", "--version"),
    }


def summary(found):
    """Markdown: medians over the rounds, as ratios to nginx in the same run."""
    lines = ["| | CPU a request, of nginx | requests/s, of nginx | p99, of nginx |", "|---|---|---|---|"]
    for close in [False, True]:
        rows = [row for row in found["pass_through"] if row["close"] == close]
        names = list(dict.fromkeys(row["peer"] for row in rows))
        median = lambda name, key: statistics.median(row[key] for row in rows if row["peer"] == name)
        for name in names:
            ratios = [median(name, key) / median("nginx", key) for key in ["cpu_us", "rate", "p99_ms"]]
            kind = "a connection a request" if close else "kept connections"
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            lines.append(f"| {kind}: {name} ({median(name, 'cpu_us'):.1f} us) | {cells} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--other", help="a second build of the proxy, to be compared with the first")
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", choices=["pass-through"])
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bench = Bench(arguments)
    try:
        bench.set_up()
        found = {"machine": machine(), "command": sys.argv, "pass_through": bench.pass_through()}
        if not arguments.only:
            found["growth"] = bench.growth()
            found["size"] = bench.idle()
    finally:
        bench.stop()
    text = summary(found)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "pass-through.json").write_text(json.dumps(found, indent=1) + "\n")
        (arguments.out / "pass-through.md").write_text(text)


if __name__ == "__main__":
    main()
