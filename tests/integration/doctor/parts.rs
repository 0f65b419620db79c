//! Hosts with podman whose entries are for a part of what has a route, or of what the proxy is asked for.

use super::Broken;
use super::Do::{Install, Put, Write};

const X: &str = "/etc/containers/registries.conf.d/60-x.conf";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "podman with a mirror for a part of a closed route, whose source is asked after it",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                X,
                "[[registry]]\nprefix = \"quay.io/org\"\nlocation = \"quay.io/org\"\n[[registry.mirror]]\nlocation = \"@AT@/quay.io/org\"\ninsecure = true\n",
            ),
        ],
        found: &[("podman", "not-closed")],
    },
    Broken {
        what: "podman with an entry for a part of a closed route that asks another first",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                X,
                "[[registry]]\nprefix = \"quay.io/org\"\nlocation = \"@AT@/quay.io/org\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"other.example/org\"\n",
            ),
        ],
        found: &[("podman", "order")],
    },
    Broken {
        what: "podman with an entry for a part of a route that leads to another path of the proxy",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(X, "[[registry]]\nprefix = \"quay.io/org\"\nlocation = \"@AT@/ghcr.io/org\"\ninsecure = true\n"),
        ],
        found: &[("podman", "path")],
    },
    Broken {
        what: "podman with an entry for a part of a route without insecure",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(X, "[[registry]]\nprefix = \"quay.io/org\"\nlocation = \"@AT@/quay.io/org\"\n"),
        ],
        found: &[("podman", "insecure")],
    },
    Broken {
        what: "podman with a good entry for a part of a closed route",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(X, "[[registry]]\nprefix = \"quay.io/org\"\nlocation = \"@AT@/quay.io/org\"\ninsecure = true\n"),
        ],
        found: &[],
    },
    Broken {
        what: "podman with an entry that blocks the proxy's address without its port",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(X, "[[registry]]\nlocation = \"127.0.0.1\"\nblocked = true\n"),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with an entry that blocks what is asked of the proxy for one registry: all three were said to be blocked",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(X, "[[registry]]\nlocation = \"@AT@/ghcr.io\"\nblocked = true\n"),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with a blocked registry and without an entry for the others: --fix lifted the block",
        made: &[
            Install(&["podman"]),
            Put("/etc/containers/registries.conf", "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n"),
        ],
        found: &[("podman", "blocked"), ("podman", "no-mirror")],
    },
    Broken {
        what: "podman with an entry that blocks a part of what is asked of the proxy",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(X, "[[registry]]\nlocation = \"@AT@/ghcr.io/org\"\nblocked = true\n"),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with an entry beside which the one that blocks the proxy does not count",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                X,
                "[[registry]]\nlocation = \"127.0.0.1\"\nblocked = true\n[[registry]]\nlocation = \"@AT@\"\ninsecure = true\n",
            ),
        ],
        found: &[],
    },
];
