#!/usr/bin/env python3
"""Memory of connections that have had a request and are kept: of the proxy, nginx and HAProxy, plain, over TLS, and of HTTP/2 over
TLS, in one run.

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

from attack import END_STREAM_AND_HEADERS, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame, headers
from process import free_port, listens, memory, proxy_settings
from run import ACCEPT, Bench, HERE, PATH, about, descriptors, write

REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{ACCEPT}\r\n\r\n".encode()
# RFC 9113: a frame, and two flags; RFC 7541: `:status 200` of the static table.
DATA, END_STREAM, ACK = 0, 1, 1
STATUS_200 = 0x88
# How connections are called in the table, whether they are over TLS, whether HTTP/2.
KINDS = {"plain": ("plain", False, False), "tls": ("TLS", True, False), "h2": ("TLS, HTTP/2", True, True)}
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
    """One connection of HTTP/1.1."""

    protocol = "http/1.1"

    def __init__(self, port, context):
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.received = b""
        if context:
            context.set_alpn_protocols([self.protocol])
            self.stream = context.wrap_socket(self.stream, server_hostname="example.azurecr.io")

    def send(self):
        self.stream.sendall(REQUEST)

    def receive(self):
        header = b""
        while not header.endswith(b"\r\n\r\n"):
            header += self.exactly(1)
        lines = header.lower().split(b"\r\n")
        if b" 200 " not in lines[0]:
            raise OSError(f"not a manifest: {header}")
        self.exactly(next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")))

    def exactly(self, size):
        while len(self.received) < size:
            part = self.stream.recv(65536)
            if not part:
                raise OSError("the connection has ended: it was not kept")
            self.received += part
        taken, self.received = self.received[:size], self.received[size:]
        return taken


class Http2(Client):
    """One connection of HTTP/2, with one request at a time."""

    protocol = "h2"

    def __init__(self, port, context):
        super().__init__(port, context)
        if self.stream.selected_alpn_protocol() != "h2":
            raise OSError("the server does not speak HTTP/2")
        self.stream.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        self.number = -1

    def send(self):
        self.number += 2
        self.stream.sendall(frame(HEADERS, END_STREAM_AND_HEADERS, self.number, headers(PATH)))

    def receive(self):
        size = 0
        while True:
            length, kind, flags, stream = (int.from_bytes(self.exactly(size)) for size in [3, 1, 1, 4])
            payload = self.exactly(length)
            if kind == SETTINGS and not flags & ACK:
                self.stream.sendall(frame(SETTINGS, ACK, 0, b""))
            elif kind == HEADERS and STATUS_200 not in payload[:3]:
                # It comes first, but for a new size of the table.
                raise OSError(f"not a manifest: {payload}")
            elif kind == DATA:
                size += length
            elif kind in [RST_STREAM, GOAWAY]:
                raise OSError(f"the request or its connection has ended: {payload}")
            if kind in [DATA, HEADERS] and flags & END_STREAM and stream == self.number:
                break
        if not size:
            raise OSError("a manifest without bytes")


class Idle(Bench):
    def start_all(self, kind):
        """Each with a process of its own for each kind of connections."""
        _, tls, http2 = KINDS[kind]
        (self.directory / "both.pem").write_bytes(
            (self.directory / "server.pem").read_bytes() + (self.directory / "server.key").read_bytes())
        certificate, key = self.directory / "server.pem", self.directory / "server.key"
        nginx = f"proxy_buffering off; ssl_certificate {certificate}; ssl_certificate_key {key};"
        self.start_nginx(f"nginx-{kind}", nginx, tls=f"ssl {'http2' if http2 else ''}" if tls else "")
        self.start_haproxy(f"haproxy-{kind}", tls=f"ssl crt {self.directory}/both.pem alpn h2,http/1.1" if tls else "")
        listener = {"tls": {"certificate": str(certificate), "key": str(key)}} if tls else {}
        for name, cache in [("proxy", "off"), ("proxy-cache", {"tags": "1h"})]:
            self.start_idle_proxy(f"{name}-{kind}", listener, cache)
        return [f"{name}-{kind}" for name in ["nginx", "haproxy", "proxy", "proxy-cache"]]

    def start_idle_proxy(self, name, listener, cache):
        port = self.ports.setdefault(name, free_port())
        config = proxy_settings(
            self.directory / f"{name}.yaml", [{"address": f"127.0.0.1:{port}"} | listener], self.ports["upstream"],
            self.directory / "ca.pem", cache, client_keepalive=KEEPALIVE)
        self.processes.start(name, [self.arguments.proxy, "--config", config], listens(port))

    def measure(self, name, kind):
        """KiB of each connection, after a request each, one after the other, and after a second one, many at once."""
        (_, tls, http2), context = KINDS[kind], None
        open_one = Http2 if http2 else Client
        if tls:
            context = ssl.create_default_context(cafile=self.directory / "ca.pem")
        pid, port = self.processes.pid(name), self.ports[name]
        for _ in range(FIRST):
            client = open_one(port, context)
            client.send()
            client.receive()
            client.stream.close()
        time.sleep(REST)
        before = memory(pid, "RssAnon")
        clients = []

        def grow(connections):
            while len(clients) < connections:
                clients.append(open_one(port, context))
                clients[-1].send()
                clients[-1].receive()
            time.sleep(REST)

        grow(CONNECTIONS)
        row = {"peer": name.removesuffix(f"-{kind}"), "kind": kind, "connections": CONNECTIONS, "before_kib": before}
        row["each_kib"] = (memory(pid, "RssAnon") - before) / CONNECTIONS
        if row["peer"].startswith("proxy"):
            grow(MANY)
            row["process_with_many_kib"] = memory(pid)
        # All of them are still open, or this fails.
        for begin in range(0, len(clients), AT_ONCE):
            for step in [open_one.send, open_one.receive]:
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
        for kind in KINDS:
            for round in range(self.arguments.rounds):
                names = self.start_all(kind)
                rows += [{"round": round} | self.measure(name, kind) for name in names]
                self.processes.stop(*names)
        return rows


def summary(rows):
    """Markdown: medians over the rounds."""
    lines = [f"| KiB of each of {CONNECTIONS:,} idle connections | after a request each | after another, 100 at once | "
             f"whole process with {MANY:,} |", "|---|---|---|---|"]
    for kind, peer in dict.fromkeys((row["kind"], row["peer"]) for row in rows):
        def median(key):
            return statistics.median(row[key] for row in rows if (row["kind"], row["peer"]) == (kind, peer))

        many = f"{median('process_with_many_kib') / 1024:.1f} MiB" if peer.startswith("proxy") else ""
        lines.append(f"| {KINDS[kind][0]}: {peer} | {median('each_kib'):.2f} | "
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
    made_by = about()
    bench = Idle(arguments)
    try:
        bench.set_up()
        rows = bench.rows()
    finally:
        bench.stop()
    write(arguments.out, "idle", made_by | {"idle": rows}, summary(rows))


if __name__ == "__main__":
    main()
