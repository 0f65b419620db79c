#!/usr/bin/env python3
"""Memory of connections that have had a request and are kept: of the proxy, nginx and HAProxy, plain and over TLS, in one run.

Called by scripts/idle; the figures go to benches/results/idle.json and idle.md. It is memory that belongs to the process alone
(RssAnon of /proc/PID/status), less what it had after its first connections; what the kernel has for a socket is the same for all.
"""

import argparse
import pathlib
import socket
import ssl
import statistics
import sys
import time

from process import free_port, listens, memory
from run import ACCEPT, HERE, Bench, descriptors, machine, write

REQUEST = f"GET /v2/library/busybox/manifests/latest?ns=docker.io HTTP/1.1\r\nHost: localhost\r\n{ACCEPT}\r\n\r\n".encode()
# As many as nginx's and HAProxy's configurations allow.
CONNECTIONS = 4000
# Of the proxy alone, whose whole process they are to leave below 64 MiB.
MANY = 10000
# Before anything is measured: threads, pools and connections to the registry are there.
FIRST = 50
# Requests under way at once, the second time.
AT_ONCE = 100
# After the last answer, in seconds: allocators give back later.
REST = 3
# Longer than the measurement.
KEEPALIVE = "10m"


class Client:
    """One connection."""

    def __init__(self, port, context):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=30)
        if context:
            self.stream = context.wrap_socket(self.stream, server_hostname="example.azurecr.io")

    def send(self):
        self.stream.sendall(REQUEST)

    def receive(self):
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.more()
        header, body = answer.split(b"\r\n\r\n", 1)
        lines = header.lower().split(b"\r\n")
        if b" 200 " not in lines[0]:
            raise OSError(f"not a manifest: {header}")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        while len(body) < length:
            body += self.more()

    def more(self):
        part = self.stream.recv(65536)
        if not part:
            raise OSError("the connection has ended: it was not kept")
        return part


class Idle(Bench):
    def start_all(self, tls):
        """Each with a process of its own for plain connections and for TLS."""
        kind = "tls" if tls else "plain"
        (self.directory / "both.pem").write_bytes(
            (self.directory / "server.pem").read_bytes() + (self.directory / "server.key").read_bytes())
        certificate, key = self.directory / "server.pem", self.directory / "server.key"
        nginx = f"proxy_buffering off; ssl_certificate {certificate}; ssl_certificate_key {key};"
        self.start_nginx(f"nginx-{kind}", nginx, tls="ssl" if tls else "")
        self.start_haproxy(f"haproxy-{kind}", tls=f"ssl crt {self.directory}/both.pem" if tls else "")
        listener = f", tls: {{certificate: {certificate}, key: {key}}}" if tls else ""
        for name, cache in [("proxy", "off"), ("proxy-cache", "{tags: 1h}")]:
            self.start_idle_proxy(f"{name}-{kind}", listener, cache)
        return [f"{name}-{kind}" for name in ["nginx", "haproxy", "proxy", "proxy-cache"]]

    def start_idle_proxy(self, name, listener, cache):
        port = self.ports.setdefault(name, free_port())
        config = self.directory / f"{name}.yaml"
        config.write_text(
            f"listen: [{{address: '127.0.0.1:{port}'{listener}}}]\nclient_keepalive: {KEEPALIVE}\n"
            f"upstream: {{domain: 'example.azurecr.io:{self.ports['upstream']}', prefix: hub, addresses: [127.0.0.1]}}\n"
            f"ca_file: {self.directory}/ca.pem\nidentity: {{kind: anonymous}}\ncache: {cache}\n"
        )
        self.processes.start(name, [self.arguments.proxy, "--config", config], listens(port))

    def measure(self, name, tls):
        """KiB of each connection, after a request each, one after the other, and after a second one, many at once."""
        context = None
        if tls:
            context = ssl.create_default_context(cafile=self.directory / "ca.pem")
        pid, port = self.processes.pid(name), self.ports[name]
        for _ in range(FIRST):
            client = Client(port, context)
            client.send()
            client.receive()
            client.stream.close()
        time.sleep(REST)
        before = memory(pid, "RssAnon")
        clients = []

        def grow(connections):
            while len(clients) < connections:
                clients.append(Client(port, context))
                clients[-1].send()
                clients[-1].receive()
            time.sleep(REST)

        grow(CONNECTIONS)
        row = {"peer": name.rsplit("-", 1)[0], "tls": tls, "connections": CONNECTIONS, "before_kib": before}
        row["each_kib"] = (memory(pid, "RssAnon") - before) / CONNECTIONS
        if row["peer"].startswith("proxy"):
            grow(MANY)
            row["process_with_many_kib"] = memory(pid)
        # All of them are still open, or this fails.
        for begin in range(0, len(clients), AT_ONCE):
            for step in [Client.send, Client.receive]:
                for client in clients[begin:begin + AT_ONCE]:
                    step(client)
        time.sleep(REST)
        row["each_after_another_kib"] = (memory(pid, "RssAnon") - before) / len(clients)
        for client in clients:
            client.stream.close()
        print(", ".join(f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()),
              file=sys.stderr)
        return row

    def rows(self):
        """Of new processes each round: the kernel gives memory in pieces of up to 2 MiB, which are 0.5 KiB a connection."""
        rows = []
        for tls in [False, True]:
            for round in range(self.arguments.rounds):
                names = self.start_all(tls)
                rows += [{"round": round} | self.measure(name, tls) for name in names]
                self.processes.stop(*names)
        return rows


def summary(rows):
    """Markdown: medians over the rounds."""
    lines = [f"| KiB of each of {CONNECTIONS:,} idle connections | after a request each | after another, 100 at once | "
             f"whole process with {MANY:,} |", "|---|---|---|---|"]
    for tls, peer in dict.fromkeys((row["tls"], row["peer"]) for row in rows):
        def median(key):
            return statistics.median(row[key] for row in rows if (row["tls"], row["peer"]) == (tls, peer))

        many = f"{median('process_with_many_kib') / 1024:.1f} MiB" if peer.startswith("proxy") else ""
        lines.append(f"| {'TLS' if tls else 'plain'}: {peer} | {median('each_kib'):.2f} | "
                     f"{median('each_after_another_kib'):.2f} | {many} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    descriptors()
    about = {"machine": machine(), "command": [word.removeprefix(f"{HERE.parent}/") for word in sys.argv]}
    bench = Idle(arguments)
    try:
        bench.set_up()
        rows = bench.rows()
    finally:
        bench.stop()
    write(arguments.out, "idle", about | {"idle": rows}, summary(rows))


if __name__ == "__main__":
    main()
