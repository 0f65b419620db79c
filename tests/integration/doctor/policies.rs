//! Hosts with podman, and what its `policy.json` says.

use super::Do::{Install, Put, Remove, Write};
use super::{Broken, POLICY};

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "podman with a policy that rejects all images",
        made: &[Install(&["podman"]), Write(&["podman"]), Put(POLICY, "{\"default\": [{\"type\": \"reject\"}]}\n")],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with a policy that rejects one registry's images, and one for a part of another's",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                POLICY,
                "{\"default\": [{\"type\": \"insecureAcceptAnything\"}], \"transports\": {\"docker\": {\
                 \"ghcr.io\": [{\"type\": \"reject\"}], \"docker.io/library\": [{\"type\": \"reject\"}]}}}\n",
            ),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with a policy of root's that is not JSON",
        made: &[Install(&["podman"]), Write(&["podman"]), Put("/root/.config/containers/policy.json", "{")],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a policy of a user's that rejects all images",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/home/ann/.config/containers/policy.json", "{\"default\": [{\"type\": \"reject\"}]}"),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman without a policy",
        made: &[Install(&["podman"]), Write(&["podman"]), Remove(POLICY)],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a policy of a user's alone",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Remove(POLICY),
            Put("/home/ann/.config/containers/policy.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}"),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a policy of root's alone",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Remove(POLICY),
            Put("/root/.config/containers/policy.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}"),
        ],
        found: &[],
    },
    Broken {
        what: "podman with a policy that has its default twice",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                POLICY,
                "{\"default\": [{\"type\": \"insecureAcceptAnything\"}],\n \"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n",
            ),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a policy that has an unknown requirement",
        made: &[Install(&["podman"]), Write(&["podman"]), Put(POLICY, "{\"default\": [{\"type\": \"nope\"}]}\n")],
        found: &[("podman", "unreadable")],
    },
];
