#!/usr/bin/env python3
"""Real dockerd and containerd pull through the proxy, cold and warm, and directly, in turns, from a registry 20 ms away.

Called by scripts/bench as root in a network, mount and process namespace of its own. What it measures and how is said
in benches/README.md; the figures go to benches/results/.
"""

import argparse
import base64
import json
import os
import pathlib
import random
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from process import Processes, listens

HERE = pathlib.Path(__file__).resolve().parent
REGISTRY, STORAGE = "example.azurecr.io", "examplestorage.blob.core.windows.net"
REGISTRY_IP, STORAGE_IP = "10.77.0.2", "10.77.0.3"  # delay.py's
TENANT, CLIENT, SECRET = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002", "only-here"
NOBODY = "00000000-0000-0000-0000-000000000000"  # the user of a refresh token, as `az acr login` writes it
IMAGE = "library/sample"
# Which port serves which way to get blobs, and ADMIN more that proxy's admin listener; direct pulls use none.
PROXIES = {"redirect": 8080, "proxy_config": 8081, "proxy": 8082}
ADMIN = 100
WAYS = ["direct", *PROXIES]
# A side is a way, and whether the proxy is made to forget the image before the pull.
WARM = [(way, False) for way in WAYS]
COLD = [(way, True) for way in PROXIES]
# Images by name: layers, bytes of each, pulls on each side. The first one is for the metadata phase.
IMAGES = {
    "metadata": (1, 1_000, 20),
    "small": (1, 3 << 20, 12),
    "ten layers": (10, 5 << 20, 8),
    "1 GiB": (1, 1 << 30, 3),
}
# The emulator makes an image for two architectures; engines hold a layer packed and unpacked.
MEMORY_FOR_LARGE = 8 << 30
ONE_WAY_MS, MBIT = 10, 1000
PULL_LIMIT = 300
# What TLS says at a connection's end. No answer is so short.
TLS_ALERT = 24


class Wire:
    """What passes this namespace's interfaces, with the kernel's own times."""

    SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35  # asm-generic/socket.h

    def __init__(self):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
        self.socket.setsockopt(socket.SOL_SOCKET, self.SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, self.SO_RCVBUFFORCE, 64 << 20)
        self.socket.setblocking(False)

    def packets(self):
        """What passed since the last call: time, flags, payload, source and destination."""
        while True:
            try:
                packet, ancillary, *_ = self.socket.recvmsg(120, socket.CMSG_SPACE(16))
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
                continue
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            head = (packet[0] & 15) * 4
            source, target = struct.unpack("!HH", packet[head:head + 4])
            payload = struct.unpack("!H", packet[2:4])[0] - head - (packet[head + 12] >> 4) * 4
            addresses = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
            yield seconds + nanoseconds / 1e9, packet[head + 13], payload, (addresses[0], source), (addresses[1], target)

    def span(self, servers):
        """Of what passed: from the client's first SYN to one of `servers` to the last content from any of them, in
        seconds; and how many connections that took."""
        begun, ended, connections = None, None, set()
        for at, flags, payload, source, target in self.packets():
            if target in servers and flags & 0x12 == 0x02:
                begun = begun or at
                connections.add((source, target))
            if source in servers and payload > TLS_ALERT:
                ended = at
        return ended - begun, len(connections)


class Scene:
    """A registry far away that holds one image, two proxies here, and the engines."""

    def __init__(self, arguments, directory, layers, layer_bytes):
        self.arguments, self.directory = arguments, directory
        self.processes = Processes(directory)
        self.ca = directory / "ca.pem"
        self.set_up_registry(layers, layer_bytes)
        self.refresh_token = self.log_in()
        for way, port in PROXIES.items():
            self.start_proxy(way, port)

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), "SSL_CERT_FILE": str(self.ca)}

    def set_up_registry(self, layers, layer_bytes):
        emulator = [
            "nsenter", "--net=/run/netns/far", self.arguments.emulator, "--registry-listen", f"{REGISTRY_IP}:443",
            "--storage-listen", f"{STORAGE_IP}:443", "--storage-host", STORAGE, "--entra-listen", f"{REGISTRY_IP}:444",
            "--extra-name", REGISTRY_IP, "--tenant", TENANT, "--client-id", CLIENT, "--client-secret", SECRET,
            "--image", f"hub/{IMAGE}:latest", "--layers", layers, "--layer-bytes", layer_bytes, "--ca-out", self.ca,
        ]
        log = self.processes.log("emulator")
        self.processes.start("emulator", emulator, lambda: log.exists() and b'"ready"' in log.read_bytes()[:4096])

    def log_in(self):
        """What `az acr login` leaves behind: the registry's refresh token."""
        context = ssl.create_default_context(cafile=self.ca)

        def post(url, **form):
            data = urllib.parse.urlencode(form).encode()
            with urllib.request.urlopen(url, data, 30, context=context) as answer:
                return json.load(answer)

        entra = post(f"https://{REGISTRY_IP}:444/{TENANT}/oauth2/v2.0/token", grant_type="client_credentials",
                     client_id=CLIENT, client_secret=SECRET, scope="https://containerregistry.azure.net/.default")
        return post(f"https://{REGISTRY}/oauth2/exchange", grant_type="access_token", service=REGISTRY, tenant=TENANT,
                    access_token=entra["access_token"])["refresh_token"]

    def start_proxy(self, way, port):
        config = self.directory / f"{port}.yaml"
        (self.directory / "secret").write_text(SECRET)
        config.write_text(json.dumps({  # JSON is YAML
            "listen": f"127.0.0.1:{port}",
            "admin": f"127.0.0.1:{port + ADMIN}",
            "upstream": {"domain": REGISTRY, "prefix": "hub", "blobs": way},
            "ca_file": str(self.ca),
            "identity": {"kind": "client_secret", "authority": f"https://{REGISTRY_IP}:444/", "tenant_id": TENANT,
                         "client_id": CLIENT, "client_secret_file": str(self.directory / "secret")},
        }))
        self.processes.start(way, [self.arguments.proxy, "--config", config], listens(port), env=self.environment())

    def purge(self, way):
        """Makes a proxy forget the image; its connections stay."""
        url = f"http://127.0.0.1:{PROXIES[way] + ADMIN}/cache/purge?image=docker.io/{IMAGE}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=30) as answer:
            answer.read()

    def servers(self, way):
        """Who gives a client the metadata on this side: manifests, the configuration and where layers are."""
        storage = (STORAGE_IP, 443)
        if way == "direct":
            return {(REGISTRY_IP, 443), storage}
        here = ("127.0.0.1", PROXIES[way])
        return {here, storage} if way == "redirect" else {here}

    def run(self, command):
        begun = time.monotonic()
        done = subprocess.run([str(word) for word in command], env=self.environment(), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PULL_LIMIT)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return time.monotonic() - begun


def unix_socket(path):
    def ready():
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0
    return ready


class Docker:
    """A dockerd for each way: which mirror it asks is a setting of its own."""

    def __init__(self, scene):
        self.scene = scene
        login = base64.b64encode(f"{NOBODY}:".encode()).decode()
        auths = {REGISTRY: {"auth": login, "identitytoken": scene.refresh_token}}
        (scene.directory / ".docker").mkdir()
        (scene.directory / ".docker/config.json").write_text(json.dumps({"auths": auths}))
        for number, way in enumerate(WAYS):
            self.start(number, way)

    def socket(self, way):
        return self.scene.directory / f"docker{WAYS.index(way)}.sock"

    def start(self, number, way):
        home = self.scene.directory / f"docker{number}"
        home.mkdir()
        settings = home / "daemon.json"
        settings.write_text(json.dumps({
            "registry-mirrors": [f"http://127.0.0.1:{PROXIES[way]}"] if way in PROXIES else [],
            "data-root": f"{home}/root", "exec-root": f"{home}/exec", "pidfile": f"{home}/pid",
            "storage-driver": "overlay2", "bridge": "none", "iptables": False, "ip6tables": False,
        }))
        command = ["dockerd", "--config-file", settings, "--host", f"unix://{self.socket(way)}"]
        self.scene.processes.start(f"dockerd{number}", command, unix_socket(self.socket(way)),
                                   env=self.scene.environment())

    def docker(self, way, *words):
        return self.scene.run(["docker", "--host", f"unix://{self.socket(way)}", *words])

    def image(self, way):
        return f"{IMAGE}:latest" if way in PROXIES else f"{REGISTRY}/hub/{IMAGE}:latest"

    def pull(self, way):
        return self.docker(way, "pull", "--quiet", self.image(way))

    def forget(self, way):
        self.docker(way, "rmi", self.image(way))

    def stop(self):
        self.scene.processes.stop(*(f"dockerd{number}" for number in range(len(WAYS))))


class Containerd:
    """One containerd; each pull is a ctr of its own, told where to ask."""

    def __init__(self, scene):
        self.scene = scene
        home = scene.directory / "containerd"
        self.socket = home / "containerd.sock"
        for way, port in PROXIES.items():
            hosts = home / f"hosts{port}" / "docker.io"
            hosts.mkdir(parents=True)
            (hosts / "hosts.toml").write_text(f'[host."http://127.0.0.1:{port}"]\n  capabilities = ["pull", "resolve"]\n')
        config = home / "config.toml"
        config.write_text(f'version = 2\nroot = "{home}/root"\nstate = "{home}/state"\n'
                          f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{self.socket}"\n')
        scene.processes.start("containerd", ["containerd", "--config", config], unix_socket(self.socket),
                              env=scene.environment())

    def ctr(self, *words):
        return self.scene.run(["ctr", "--address", self.socket, "images", *words])

    def image(self, way):
        return f"docker.io/{IMAGE}:latest" if way in PROXIES else f"{REGISTRY}/hub/{IMAGE}:latest"

    def pull(self, way):
        where = ["--refresh", self.scene.refresh_token]
        if way in PROXIES:
            where = ["--hosts-dir", self.socket.parent / f"hosts{PROXIES[way]}"]
        return self.ctr("pull", "--snapshotter", "overlayfs", *where, self.image(way))

    def forget(self, way):
        self.ctr("rm", "--sync", self.image(way))

    def stop(self):
        self.scene.processes.stop("containerd")


ENGINES = {"dockerd": Docker, "containerd": Containerd}


def measure(scene, name, pulls):
    """All sides in turns, in an order by chance; the first round is to warm up and does not count."""
    rows = []
    # A cold pull differs in its metadata only.
    sides = WARM + COLD if name == "metadata" else WARM
    for engine, kind in ENGINES.items():
        client = kind(scene)
        wire = Wire() if name == "metadata" else None
        for number in range(pulls + 1):
            for way, cold in random.sample(sides, len(sides)):
                if cold:
                    scene.purge(way)
                if wire:
                    list(wire.packets())
                row = {"engine": engine, "image": name, "blobs": way, "cold": cold, "seconds": client.pull(way)}
                if wire:
                    row["metadata_seconds"], row["connections"] = wire.span(scene.servers(way))
                client.forget(way)
                if number:
                    rows.append(row)
        client.stop()
        for side in sides:
            print(f"{name}: {engine} {label(side)}: {median(rows, engine, name, side, 'seconds'):.3f} s", file=sys.stderr)
    return rows


def label(side):
    way, cold = side
    return way if way == "direct" else f"`blobs: {way}`, {'cold' if cold else 'warm'}"


def median(rows, engine, image, side, key):
    return statistics.median(row[key] for row in rows
                             if (row["engine"], row["image"], row["blobs"], row["cold"]) == (engine, image, *side))


def summary(rows, images, sides, key):
    """Markdown: medians, and what they are of a direct pull's."""
    lines = ["| | " + " | ".join(map(label, sides)) + " |", "|---" * (len(sides) + 1) + "|"]
    for image in images:
        for engine in ENGINES:
            direct, *through = [median(rows, engine, image, side, key) for side in sides]
            cells = [f"{direct * 1e3:.0f} ms"] + [f"{each * 1e3:.0f} ms, {each / direct:.2f}" for each in through]
            lines.append(f"| {engine}, {image} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def memory_available():
    fields = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) << 10


def join_namespaces(directory):
    """A network far away, and names for what is in it."""
    if os.geteuid() or pathlib.Path("/proc/net/route").read_text().count("\n") > 1:
        sys.exit("run scripts/bench: this needs root, and a network namespace with nothing but lo")
    for command in ["ip link set lo up", "ip netns add far", "nsenter --net=/run/netns/far ip link set lo up"]:
        subprocess.run(command.split(), check=True)
    hosts = directory / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{REGISTRY_IP} {REGISTRY}\n{STORAGE_IP} {STORAGE}\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    processes = Processes(directory)
    log = processes.log("delay")
    command = [sys.executable, HERE / "delay.py", "/proc/self/ns/net", "/run/netns/far", ONE_WAY_MS, MBIT]
    # Ahead of everything else: a late packet would look like a slow network.
    processes.start("delay", command, lambda: log.read_bytes() == b"ready\n", preexec_fn=lambda: os.nice(-15))
    return processes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", required=True)
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--image", choices=IMAGES, action="append", help="only these")
    parser.add_argument("--pulls", type=int, help="on each side, whatever the image")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    # /run is this namespace's own memory: what a disk takes is not what is measured.
    top = pathlib.Path(tempfile.mkdtemp(dir="/run"))
    joined = join_namespaces(top)
    rows, left_out = [], []
    for name in arguments.image or IMAGES:
        layers, layer_bytes, pulls = IMAGES[name]
        if layers * layer_bytes >= 1 << 30 and memory_available() < MEMORY_FOR_LARGE:
            left_out.append(name)
            print(f"{name}: NOT measured: it needs {MEMORY_FOR_LARGE >> 30} GiB of free memory", file=sys.stderr)
            continue
        directory = top / name.replace(" ", "-")
        directory.mkdir()
        scene = Scene(arguments, directory, layers, layer_bytes)
        try:
            rows += measure(scene, name, arguments.pulls or pulls)
        finally:
            scene.processes.stop()
    joined.stop()
    for name, images, sides, key in [
        ("engines-metadata", ["metadata"], WARM[:1] + COLD + WARM[1:], "metadata_seconds"),
        ("engines", [image for image in IMAGES if image != "metadata"], WARM, "seconds"),
    ]:
        measured = [row for row in rows if row["image"] in images]
        images = [image for image in images if any(row["image"] == image for row in measured)]
        if not images:
            continue
        text = summary(measured, images, sides, key)
        print(text)
        if arguments.out:
            found = {"rtt_ms": 2 * ONE_WAY_MS, "mbit": MBIT, "images": {image: IMAGES[image] for image in images},
                     "not_measured": left_out, "pulls": measured}
            (arguments.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
            (arguments.out / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
