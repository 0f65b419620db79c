//! Hosts with BuildKit.

use super::Broken;
use super::Do::{Change, Install, Listen, Put, Swap, Write};

const BUILDKIT: &str = "/etc/buildkit/buildkitd.toml";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "buildkitd with another port",
        made: &[
            Install(&["buildkitd"]),
            Write(&["buildkit"]),
            Swap(
                BUILDKIT,
                "[registry.\"ghcr.io\"]\n  mirrors = [\"@AT@\"]",
                "[registry.\"ghcr.io\"]\n  mirrors = [\"127.0.0.1:8081\"]",
            ),
        ],
        found: &[("buildkitd", "address")],
    },
    Broken {
        what: "buildkitd that is told to speak TLS with the proxy",
        made: &[
            Install(&["buildkitd"]),
            Put(
                BUILDKIT,
                "[registry.\"docker.io\"]\nmirrors = [\"@AT@\"]\n[registry.\"ghcr.io\"]\nmirrors = [\"@AT@\"]\n[registry.\"quay.io\"]\nmirrors = [\"@AT@\"]\n\
                 [registry.\"@AT@\"]\nhttp = false\n",
            ),
        ],
        found: &[("buildkitd", "insecure")],
    },
    Broken {
        what: "buildkitd with a scheme before the address",
        made: &[
            Install(&["buildkitd"]),
            Put(
                BUILDKIT,
                "[registry.\"docker.io\"]\nmirrors = [\"@URL@\"]\n[registry.\"ghcr.io\"]\nmirrors = [\"@URL@\"]\n[registry.\"quay.io\"]\nmirrors = [\"@URL@\"]\n",
            ),
        ],
        found: &[("buildkitd", "path")],
    },
    Broken {
        what: "buildkitd that sends a registry without a route to the proxy",
        made: &[
            Install(&["buildkitd"]),
            Put(
                BUILDKIT,
                "[registry.\"docker.io\"]\nmirrors = [\"@AT@\"]\n[registry.\"ghcr.io\"]\nmirrors = [\"@AT@\"]\n[registry.\"quay.io\"]\nmirrors = [\"@AT@\"]\n\
                 [registry.\"gcr.io\"]\nmirrors = [\"@AT@\"]\n[registry.\"@AT@\"]\nhttp = true\n",
            ),
        ],
        found: &[("buildkitd", "leftover")],
    },
    Broken {
        what: "buildkitd that was not restarted",
        made: &[
            Install(&["buildkitd"]),
            Write(&["buildkit"]),
            Listen("/run/buildkit/buildkitd.sock", ""),
            Change(BUILDKIT),
        ],
        found: &[("buildkitd", "not-loaded")],
    },
    Broken {
        what: "buildkitd.toml that is not TOML",
        made: &[Install(&["buildkitd"]), Put(BUILDKIT, "[registry.\"docker.io\"\nmirrors = \"@AT@\"\n")],
        found: &[("buildkitd", "unreadable")],
    },
];
