#!/usr/bin/env python3
"""Joins two network namespaces by a link that takes its time, for kernels without netem.

delay.py NEAR FAR DELAY_MS [MBIT]: NEAR and FAR are files of namespaces (/proc/PID/ns/net, /run/netns/NAME). Each gets a
TUN device, 10.77.0.1 near, 10.77.0.2 and 10.77.0.3 far; what enters one leaves the other DELAY_MS later, behind what it
had to wait for at MBIT. Prints "ready", and works until it is killed.
"""

import collections
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

NAME = "far-away"
CLONE_NEWNET = 0x40000000
# linux/if_tun.h
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02
# A segment as TCP hands it down, with the header that says how it is to be cut; as long as IP's length field allows.
LONGEST = 65535 + 10
# Packets that are taken from one side before the other one's turn.
BATCH = 64


def device(namespace, *addresses):
    """A TUN device in a namespace. It passes TCP's segments whole, as network cards do, so that few packets carry much;
    what TCP counts as a segment stays that of an Ethernet."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as home, open(namespace) as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", NAME.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(descriptor, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
        for address in addresses:
            subprocess.run(["ip", "addr", "add", f"{address}/24", "dev", NAME], check=True)
        subprocess.run(["ip", "link", "set", NAME, "up", "mtu", "1500", "txqueuelen", "10000"], check=True)
        if libc.setns(home.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    return descriptor


class Direction:
    """What is on its way from one device to the other. TCP's windows bound how much that is."""

    def __init__(self, source, target, delay, rate):
        self.source, self.target, self.delay, self.rate = source, target, delay, rate
        self.sent = 0.0  # when the last packet has left its interface
        self.packets = collections.deque()

    def take(self):
        for _ in range(BATCH):
            try:
                packet = os.read(self.source, LONGEST)
            except BlockingIOError:
                return
            self.sent = max(self.sent, time.monotonic()) + (len(packet) / self.rate if self.rate else 0)
            self.packets.append((self.sent + self.delay, packet))

    def give(self):
        while self.packets and self.packets[0][0] <= time.monotonic():
            try:
                os.write(self.target, self.packets.popleft()[1])
            except OSError:
                pass  # lost, as packets are when a queue is full or a device is going down

    def wait(self):
        return self.packets[0][0] - time.monotonic() if self.packets else 3600


def main():
    near, far, delay, *rate = sys.argv[1:]
    near, far = device(near, "10.77.0.1"), device(far, "10.77.0.2", "10.77.0.3")
    rate = float(rate[0]) * 1e6 / 8 if rate else None
    directions = {near: Direction(near, far, float(delay) / 1e3, rate), far: Direction(far, near, float(delay) / 1e3, rate)}
    print("ready", flush=True)
    while True:
        wait = max(0, min(direction.wait() for direction in directions.values()))
        for readable in select.select(list(directions), [], [], wait)[0]:
            directions[readable].take()
        for direction in directions.values():
            direction.give()


if __name__ == "__main__":
    main()
