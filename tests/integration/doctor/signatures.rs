//! Hosts whose `policy.json` requires signatures, and what their `registries.d` says of where they are.

use super::Do::{Install, Put, Remove, Write};
use super::{Broken, POLICY, SIGSTORE};

const OURS: &str = "/etc/containers/registries.d/50-acr-cache-proxy.yaml";
/// Requires GPG signatures of a part of Docker Hub's images.
const GPG: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}], \"transports\": {\"docker\": {\
    \"docker.io/org\": [{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyPath\": \"/k\"}]}}}\n";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "podman with a policy that requires sigstore signatures, as client-config has it",
        made: &[Install(&["podman"]), Put(POLICY, SIGSTORE), Write(&["podman"])],
        found: &[],
    },
    Broken {
        what: "podman that looks for signatures at the proxy, as all did once, and needs none",
        made: &[
            Install(&["podman"]),
            Put(POLICY, SIGSTORE),
            Write(&["podman"]),
            Put(POLICY, "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n"),
        ],
        found: &[],
    },
    Broken {
        what: "podman that looks for no signature that its policy requires: it was said that nothing is wrong",
        made: &[Install(&["podman"]), Put(POLICY, SIGSTORE), Write(&["podman"]), Remove(OURS)],
        found: &[("podman", "signature")],
    },
    Broken {
        what: "podman before 6, where a directory of root's hides where signatures are looked for",
        made: &[
            Install(&["podman"]),
            Put(POLICY, SIGSTORE),
            Write(&["podman"]),
            Put("/root/.config/containers/registries.d/e.yaml", "docker: {}\n"),
        ],
        found: &[("podman", "signature")],
    },
    Broken {
        what: "podman before 6, where a directory of a user's hides where signatures are looked for",
        made: &[
            Install(&["podman"]),
            Put(POLICY, SIGSTORE),
            Write(&["podman"]),
            Put("/home/ann/.config/containers/registries.d/e.yaml", "docker: {}\n"),
        ],
        found: &[("podman", "signature")],
    },
    Broken {
        what: "podman with a look-aside for the source, which does not count for the proxy: it was said that nothing is wrong",
        made: &[
            Install(&["podman"]),
            Put(POLICY, GPG),
            Put("/etc/containers/registries.d/hub.yaml", "docker: {docker.io: {lookaside: \"file:///srv/sigs\"}}\n"),
            Write(&["podman"]),
        ],
        found: &[("podman", "signature")],
    },
    Broken {
        what: "podman with a look-aside for the proxy",
        made: &[
            Install(&["podman"]),
            Put(POLICY, GPG),
            Put(
                "/etc/containers/registries.d/x.yaml",
                "docker: {\"@AT@/docker.io\": {lookaside: \"file:///srv/sigs\"}}\n",
            ),
            Write(&["podman"]),
        ],
        found: &[],
    },
];
