"""The processes of a run: started, waited for, measured, stopped. And the proxy's settings."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")
# A daemon on a busy machine.
START_LIMIT = 60
# Longer than the proxy's own drain.
STOP_LIMIT = 30


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port):
    def ready():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    return ready


def proxy_settings(path, listen, registry, ca, cache, upstream={}, **more):
    """Writes them to a file: a registry at a port of this machine, which asks nobody to sign in. They are YAML, because JSON is."""
    path.write_text(json.dumps({
        "listen": listen,
        "upstream": {"domain": f"example.azurecr.io:{registry}", "prefix": "hub", "addresses": ["127.0.0.1"]} | upstream,
        "ca_file": str(ca), "identity": {"kind": "anonymous"}, "cache": cache,
    } | more) + "\n")
    return path


def tree(pid):
    """A process and its children."""
    found = [pid]
    for entry in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        found += [child for text in entry.read_text().split() for child in tree(int(text))]
    return found


def cpu_seconds(pid):
    total = 0
    for each in tree(pid):
        fields = pathlib.Path(f"/proc/{each}/stat").read_text().rsplit(") ", 1)[1].split()
        total += int(fields[11]) + int(fields[12])  # utime, stime
    return total / TICK


def memory(pid, field="VmRSS"):
    """In KiB, of a process and its children. "RssAnon" is without the pages of files, such as the program itself."""
    total = 0
    for each in tree(pid):
        match = re.search(rf"{field}:\s+(\d+)", pathlib.Path(f"/proc/{each}/status").read_text())
        total += int(match.group(1)) if match else 0
    return total


class Processes:
    def __init__(self, directory):
        self.directory = directory
        self.running = {}

    def log(self, name):
        return self.directory / f"{name}.out"

    def start(self, name, command, ready, stdout=None, **options):
        """Starts it and waits until `ready` says so; its output goes to a file, or what it prints to `stdout`."""
        with open(self.log(name), "wb") as output:
            process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=stdout or output,
                                       stderr=output, **options)
        self.running[name] = process
        end = time.monotonic() + START_LIMIT
        while not ready():
            if process.poll() is not None:
                sys.exit(f"{name} ended with status {process.returncode}:\n{self.last_words(name)}")
            if time.monotonic() > end:
                sys.exit(f"{name} is not ready after {START_LIMIT} s:\n{self.last_words(name)}")
            time.sleep(0.005)
        return process

    def pid(self, name):
        return self.running[name].pid

    def last_words(self, name):
        return self.log(name).read_text(errors="replace")[-2000:]

    def stop(self, *names):
        """Those named, or all, the last one first."""
        stopped = [self.running.pop(name) for name in names or reversed(list(self.running))]
        for process in stopped:
            process.send_signal(signal.SIGTERM)
        for process in stopped:
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
