#!/usr/bin/env python3
"""Plays a fleet's day against the proxy, compressed in time, and counts what reaches the registry: with the cache and without.

Called by scripts/fleet. schedule.py has the fleet and the same count on paper; both go to benches/results/fleet.json. Time is
compressed by sending requests sooner and by dividing the cache's lifetimes by as much.
"""

import argparse
import asyncio
import collections
import dataclasses
import http.client
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from process import Processes, free_port, listens, proxy_settings
from schedule import LAYERS, LIFETIMES, LIMITS, MINUTE, SCENES, Fleet, Schedule, model

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER = ["application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"]
# dockerd 20.10 to 28 with its classic store; the order of the lines is random.
DOCKERD_ACCEPT = [*DOCKER, MANIFEST, INDEX, "application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json"]
# As many layers as an engine fetches at once.
AT_ONCE = 3
# What takes longer is a failure: an engine's own limit is not below it.
LIMIT = 60
# Between the end of the setting up and the first request.
HEAD_START = 1
PLATFORM = {"architecture": "amd64", "os": "linux"}


def name(image, build):
    """The tag of a build. What is built anew gets a new tag, so none has to move."""
    return f"team/image-{image:03}", f"1.{build}"


class Registry:
    """The emulator, and how many requests reach its data plane in each minute of the scene."""

    def __init__(self, processes, directory, binary, builds):
        self.reads, self.kinds = collections.Counter(), collections.Counter()
        self.begun, self.speed = None, None
        self.port, self.ca = free_port(), directory / "ca.pem"
        # The layers are not pulled: only the registry's own reads count.
        program = directory / "program"
        program.write_bytes(b"#!")
        images = [f"hub/{repository}:{tag}" for image, count in enumerate(builds)
                  for repository, tag in (name(image, build) for build in range(count))]
        command = [binary, "--anonymous-pull", "--registry-listen", f"127.0.0.1:{self.port}", "--ca-out", self.ca, "--binary",
                   program, "--layers", LAYERS, "--layer-bytes", 64]
        command += [word for image in images for word in ["--image", image]]
        output, journal = os.pipe()
        ready = threading.Event()
        self.reader = threading.Thread(target=self.read, args=[output, ready], daemon=True)
        self.reader.start()
        processes.start("emulator", command, ready.is_set, stdout=journal)
        os.close(journal)

    def read(self, output, ready):
        with open(output, "rb") as lines:
            for line in lines:
                # The first line says that all images are there.
                ready.set()
                if self.begun is None or b'"hop":"data"' not in line:
                    continue
                minute = int((time.monotonic() - self.begun) * self.speed // MINUTE)
                self.reads[minute] += 1
                kind = re.search(rb'"target":"[^"]*/(manifests/sha256:|manifests/|blobs/)', line)
                self.kinds[kind.group(1).decode() if kind else "other"] += 1


class Hosts:
    """The hosts' engines. Even ones are containerd, odd ones dockerd."""

    def __init__(self, port, digests, speed, scene):
        self.port, self.digests, self.speed, self.scene = port, digests, speed, scene
        self.late, self.failures, self.requests, self.pulls = [], collections.Counter(), 0, 0
        self.begun = time.monotonic() + HEAD_START

    async def play(self, starts):
        tasks = set()
        for start in starts:
            due = self.begun + (start.at - self.scene.begin) / self.speed
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            self.late.append((time.monotonic() - due) * 1000)
            task = asyncio.create_task(self.start(start))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        self.took = (time.monotonic() - self.begun) * self.speed / MINUTE

    async def start(self, start):
        engine = (Dockerd if start.host % 2 else Containerd)(self)
        try:
            async with asyncio.timeout(LIMIT):
                await self.pull(engine, start)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.failures[f"{type(error).__name__}: {error}"[:200]] += 1
        finally:
            engine.close()

    async def pull(self, engine, start):
        repository, tag = name(start.image, "missing" if start.build is None else start.build)
        await engine.ping()
        await engine.ask("HEAD", f"/v2/{repository}/manifests/{tag}", None, 404 if start.build is None else 200)
        if start.is_pulled:
            index, manifest, blobs = self.digests[start.image, start.build]
            await engine.ask("GET", f"/v2/{repository}/manifests/{index}", INDEX, 200)
            await engine.ask("GET", f"/v2/{repository}/manifests/{manifest}", MANIFEST, 200)
            left = list(reversed(blobs))

            async def fetch():
                while left:
                    await engine.ask("GET", f"/v2/{repository}/blobs/{left.pop()}", None, 307)

            await asyncio.gather(*(fetch() for _ in range(AT_ONCE)))
            self.pulls += 1


class Engine:
    """A container engine as a client. A redirect to storage is where it leaves the registry, so it ends there."""

    query, headers = "", ""

    def __init__(self, hosts):
        self.hosts, self.idle = hosts, []

    async def ping(self):
        """Whether the registry is there, which only dockerd wants to know."""

    def accept(self, media_type):
        raise NotImplementedError

    async def ask(self, method, path, media_type, expected):
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.hosts.port)
        try:
            accept = self.accept(media_type) if "/manifests/" in path else "Accept: */*\r\n"
            writer.write(f"{method} {path}{self.query} HTTP/1.1\r\nHost: 127.0.0.1:{self.hosts.port}\r\n{self.headers}{accept}\r\n"
                         .encode())
            head = await reader.readuntil(b"\r\n\r\n")
            self.hosts.requests += 1
            status = int(head[9:12])
            if status != expected:
                raise ValueError(f"{method} {re.sub('[0-9a-f]{64}', '…', path)}: {status}, not {expected}")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            if method != "HEAD" and length is None:
                raise ValueError(f"{method} {path}: an answer without Content-Length")
            if method != "HEAD":
                await reader.readexactly(int(length.group(1)))
        except BaseException:
            writer.close()
            raise
        self.keep(reader, writer)

    def keep(self, reader, writer):
        self.idle.append((reader, writer))

    def close(self):
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()


class Containerd(Engine):
    """Asks for one media type once it knows it, keeps its connections for the pull, and says which registry it means."""

    query, headers = "?ns=docker.io", "User-Agent: containerd/1.6.20\r\n"

    def accept(self, media_type):
        return f"Accept: {', '.join([media_type] if media_type else [*DOCKER, MANIFEST, INDEX])}, */*\r\n"


class Dockerd(Engine):
    """A connection for each request, and all media types each time."""

    headers = "User-Agent: docker/20.10.24\r\nConnection: close\r\n"

    async def ping(self):
        await self.ask("GET", "/v2/", None, 200)

    def accept(self, media_type):
        return "".join(f"Accept: {each}\r\n" for each in DOCKERD_ACCEPT)

    def keep(self, reader, writer):
        writer.close()


def start_proxy(processes, directory, binary, registry, speed, is_shielded):
    port = free_port()
    lifetimes = {key: f"{round(seconds * 1000 / speed)}ms" for key, seconds in LIFETIMES.items()}
    config = proxy_settings(directory / "proxy.yaml", f"127.0.0.1:{port}", registry.port, registry.ca,
                            lifetimes if is_shielded else "off")
    processes.start("proxy", [binary, "--config", config], listens(port))
    return port, config.read_text()


def digests(port, builds):
    """The digests of each build: of the index, of the manifest for this platform, and of the blobs."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)

    def get(repository, reference):
        client.request("GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": f"{INDEX}, {MANIFEST}"})
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"{repository}:{reference}: {answer.status} {body[:300]}")
        return answer.headers["Docker-Content-Digest"], json.loads(body)

    found = {}
    for image, count in enumerate(builds):
        for build in range(count):
            repository, tag = name(image, build)
            digest, index = get(repository, tag)
            wanted = next(each["digest"] for each in index["manifests"] if each["platform"] == PLATFORM)
            _, manifest = get(repository, wanted)
            blobs = [each["digest"] for each in [manifest["config"], *manifest["layers"]]]
            found[image, build] = digest, wanted, blobs
    return found


def run(arguments, schedule, speed, is_shielded, known):
    """One scene against an emulator and a proxy of its own."""
    scene = schedule.scene
    with tempfile.TemporaryDirectory(prefix="acr-cache-proxy-fleet-") as path:
        directory = pathlib.Path(path)
        processes = Processes(directory)
        try:
            registry = Registry(processes, directory, arguments.emulator, schedule.builds)
            port, config = start_proxy(processes, directory, arguments.proxy, registry, speed, is_shielded)
            # Asked without the cache only, which the scene finds empty.
            known = known or digests(port, schedule.builds)
            hosts = Hosts(port, known, speed, scene)
            registry.speed, registry.begun = speed, hosts.begun
            asyncio.run(hosts.play(schedule.starts))
            # What the cache asks for by itself, behind the last answer.
            time.sleep(HEAD_START)
            processes.stop()
            registry.reader.join()
        finally:
            processes.stop()
    reads = [registry.reads[minute] for minute in range(max(scene.minutes, *registry.reads))]
    late = statistics.quantiles(hosts.late, n=100)
    found = {
        "reads": reads, "reads_by_kind": registry.kinds, "requests": hosts.requests, "pulls": hosts.pulls,
        "failures": hosts.failures, "late_ms": {"p50": round(late[49], 1), "p99": round(late[98], 1)},
        "minutes_taken": round(hosts.took, 1), "config": config,
    }
    print(f"{scene.name}, {'with' if is_shielded else 'without'} the cache: {sum(reads)} reads, at most {max(reads)} a minute; "
          f"{hosts.requests} requests; starts late by {found['late_ms']} ms", file=sys.stderr)
    for failure, count in hosts.failures.most_common(5):
        print(f"  {count} failed: {failure}", file=sys.stderr)
    return found, known


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--roll-out-speed", type=float, default=10, help="how many seconds of it pass in one")
    parser.add_argument("--day-speed", type=float, default=144)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    version = subprocess.run([arguments.proxy, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    here = pathlib.Path(__file__).resolve().parent.parent
    found = {
        "command": [word.removeprefix(f"{here}/") for word in sys.argv], "seed": arguments.seed, "version": version,
        "cores": os.cpu_count(), "load_before": os.getloadavg()[0], "fleet": dataclasses.asdict(Fleet()),
        "lifetimes_s": LIFETIMES, "layers": LAYERS, "limits": LIMITS, "scenes": [],
    }
    for scene, speed in zip(SCENES, [arguments.roll_out_speed, arguments.day_speed]):
        schedule = Schedule(Fleet(), scene, arguments.seed)
        row = dataclasses.asdict(scene) | {
            "speed": speed, "starts": len(schedule.starts), "pulls": sum(start.is_pulled for start in schedule.starts),
            "model": {way: model(schedule, is_shielded) for way, is_shielded in [("off", False), ("on", True)]}, "run": {},
        }
        known = None
        for way, is_shielded in [("off", False), ("on", True)]:
            row["run"][way], known = run(arguments, schedule, speed, is_shielded, known)
        found["scenes"].append(row)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "fleet.json").write_text(json.dumps(found, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
