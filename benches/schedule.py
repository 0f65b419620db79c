"""What a fleet of hosts asks for in a day, and on paper what of it reaches the registry. `fleet.py` plays the same schedule.

A container that starts asks for its image's tag (`imagePullPolicy: Always`), and a host that lacks the image pulls it: the
index, one manifest, the configuration and the layers. Hosts come and go, images are built anew, and a few containers name a
tag that does not exist. Everything follows from the seed.
"""

import bisect
import dataclasses
import itertools
import math
import random

MINUTE, HOUR, DAY = 60, 3600, 86400
LAYERS = 10
# What ACR serves in a minute, by SKU.
LIMITS = {"Basic and Standard": 5000, "Premium": 10000}
# The settings of the cache, in seconds: the defaults.
LIFETIMES = {"tags": 30, "manifests": HOUR, "missing": 5, "redirects": 10 * MINUTE}
# After this a request has the registry asked: one for a redirect after half of its time, behind the answer.
ASKED_AFTER = LIFETIMES | {"redirects": LIFETIMES["redirects"] // 2}
# A kubelet's pauses between tries of an image that it cannot pull; the last one repeats.
BACK_OFF = [10, 20, 40, 80, 160, 300]


@dataclasses.dataclass(frozen=True)
class Fleet:
    """How large it is and how lively."""

    hosts: int = 1000
    images: int = 200
    # Of the images' popularity: the n-th is started n^-s times as often as the first.
    zipf: float = 1.0
    # Containers that a host starts in a day. They start between 0.4 and 1.6 times as often as on average, by the hour.
    starts: float = 100
    rhythm: float = 0.6
    peak_hour: float = 14
    # How long a host lives before another one takes its place, with no image on its disk, and an image before it is built anew;
    # both on average.
    host_life: float = DAY
    image_life: float = DAY


@dataclasses.dataclass(frozen=True)
class Scene:
    """A stretch of the day. The roll-out, if there is one, restarts the most popular image on all hosts within a minute."""

    name: str
    begin: float
    minutes: int
    roll_out: float | None = None
    # A container on as many hosts names a tag that does not exist, for an hour.
    mistaken: int = 0
    mistake: float = 0


SCENES = [
    Scene("roll-out", begin=9.75 * HOUR, minutes=30, roll_out=10 * HOUR),
    Scene("day", begin=0, minutes=24 * 60, mistaken=20, mistake=15 * HOUR),
]


@dataclasses.dataclass(frozen=True)
class Start:
    """A container starts: at which time, where, of which image and build. `build` is none for a tag that does not exist."""

    at: float
    host: int
    image: int
    build: int | None
    is_pulled: bool


class Schedule:
    """All starts of a scene in order; `builds` has the number of builds of each image."""

    def __init__(self, fleet, scene, seed):
        self.fleet, self.scene = fleet, scene
        self.random = random.Random(f"{seed} {scene.name}")
        weights = itertools.accumulate(rank ** -fleet.zipf for rank in range(1, fleet.images + 1))
        self.popularity = list(weights)
        end = scene.begin + scene.minutes * MINUTE
        # A day before it, so that hosts hold what they hold on any day.
        begin = scene.begin - DAY
        self.built = [self.poisson(begin, end, fleet.image_life) for _ in range(fleet.images)]
        if scene.roll_out is not None:
            self.built[0] = sorted([*(at for at in self.built[0] if at < scene.begin), scene.roll_out])
        # The build that is current when the scene begins is number 0 to those who run it.
        self.first = [bisect.bisect_right(times, scene.begin) for times in self.built]
        self.builds = [len(times) - first + 1 for times, first in zip(self.built, self.first)]
        self.starts = self.resolve(self.churn(begin, end))
        self.starts = [start for start in self.starts if start.at >= scene.begin]

    def poisson(self, begin, end, mean):
        """Times of events that are `mean` apart on average."""
        times, at = [], begin
        while (at := at + self.random.expovariate(1 / mean)) < end:
            times.append(at)
        return times

    def churn(self, begin, end):
        """Time, host and image of each start; no image is a host that was replaced."""
        fleet, scene = self.fleet, self.scene
        events = []
        most = fleet.starts / DAY * (1 + fleet.rhythm)
        for host in range(fleet.hosts):
            for at in self.poisson(begin, end, 1 / most):
                rhythm = 1 + fleet.rhythm * math.cos((at / HOUR - fleet.peak_hour) / 24 * math.tau)
                if self.random.random() * (1 + fleet.rhythm) < rhythm:
                    point = self.random.random() * self.popularity[-1]
                    events.append((at, host, bisect.bisect_left(self.popularity, point)))
            events += [(at, host, None) for at in self.poisson(begin, end, fleet.host_life)]
            if scene.roll_out is not None:
                events.append((scene.roll_out + self.random.random() * MINUTE, host, 0))
        for host in range(scene.mistaken):
            at = scene.mistake + self.random.random() * MINUTE
            for pause in itertools.chain(BACK_OFF, itertools.repeat(BACK_OFF[-1])):
                events.append((at, host, -1))
                at += pause
                if at > scene.mistake + HOUR:
                    break
        return sorted(events, key=lambda event: event[0])

    def resolve(self, events):
        """Which build a start is of, and whether its host has to pull it."""
        held = [set() for _ in range(self.fleet.hosts)]
        for at, host, image in events:
            if image is None:
                held[host].clear()
            elif image == -1:
                yield Start(at, host, 0, None, False)
            else:
                build = max(0, bisect.bisect_right(self.built[image], at) - self.first[image])
                yield Start(at, host, image, build, (image, build) not in held[host])
                held[host].add((image, build))


def requests(start):
    """What a start asks of a registry, by both dockerd and containerd, as the kind of thing and its name; `/v2/`, which dockerd
    asks for as well, is answered by the proxy."""
    if start.build is None:
        yield "missing", start.image
        return
    image = (start.image, start.build)
    # A tag is answered with the index, which its digest names as well.
    yield "tags", image
    if start.is_pulled:
        yield "manifests", (image, "index")
        yield "manifests", (image, "manifest")
        for blob in ["config", *range(LAYERS)]:
            yield "redirects", (image, blob)


def model(schedule, is_shielded):
    """Reads a minute at the registry, of requests that take no time."""
    begin = schedule.scene.begin
    reads = [0] * schedule.scene.minutes
    until = {}
    for start in schedule.starts:
        for kind, name in requests(start):
            key = kind, name
            if is_shielded and until.get(key, -math.inf) > start.at:
                continue
            until[key] = start.at + ASKED_AFTER[kind]
            if kind == "tags":
                index = "manifests", (name, "index")
                until[index] = start.at + ASKED_AFTER["manifests"]
            reads[int((start.at - begin) // MINUTE)] += 1
    return reads
