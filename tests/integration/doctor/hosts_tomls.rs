//! `hosts.toml` that dockerd and containerd read, and do not understand as it was meant.

use super::Broken;
use super::Do::{Install, Listen, Put, Remove, Swap, Write};

const SOCKET: &str = "/run/docker.sock";
const GHCR: &str = "/etc/docker/certs.d/ghcr.io/hosts.toml";
const HUB: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
const QUAY: &str = "/etc/containerd/certs.d/quay.io/hosts.toml";
const CONFIG: &str = "/etc/containerd/config.toml";
/// dockerd 28 with containerd's store.
const NEW: &str = r#"{"ServerVersion": "28.5.2", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#;
const ENABLED: &str =
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "hosts.toml with a byte order mark",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Swap(HUB, "# Written by", "\u{feff}# Written by"),
        ],
        found: &[("containerd", "unreadable")],
    },
    Broken {
        what: "hosts.toml is a directory, with which every pull fails",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Remove(HUB),
            Put("/etc/containerd/certs.d/docker.io/hosts.toml/a", ""),
        ],
        found: &[("containerd", "unreadable")],
    },
    Broken {
        what: "a capability that this dockerd does not know",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(
                GHCR,
                "server = \"https://ghcr.io\"\n[host.\"@URL@\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n",
            ),
            Listen(SOCKET, NEW),
        ],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "skip_verify of dockerd as a text",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(GHCR, "server = \"https://ghcr.io\"\n[host.\"@URL@\"]\n  skip_verify = \"yes\"\n"),
            Listen(SOCKET, NEW),
        ],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "a CA certificate of dockerd that is not there",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(GHCR, "server = \"https://ghcr.io\"\n[host.\"@URL@\"]\n  ca = \"/nonexist.pem\"\n"),
            Listen(SOCKET, NEW),
        ],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "a scheme in capital letters in hosts.toml",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Swap(GHCR, "http://", "HTTP://"), Listen(SOCKET, NEW)],
        found: &[("dockerd", "address")],
    },
    Broken {
        what: "a scheme in capital letters in daemon.json",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Swap("/etc/docker/daemon.json", "http://", "HTTP://")],
        found: &[("dockerd", "address")],
    },
    Broken {
        what: "dockerd without the capability resolve asks the source for manifests",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(GHCR, "server = \"https://ghcr.io\"\n[host.\"@URL@\"]\n  capabilities = [\"pull\"]\n"),
            Listen(SOCKET, NEW),
        ],
        found: &[("dockerd", "capabilities")],
    },
    Broken {
        what: "capabilities in any letters, and the path that is put behind the address anyway",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(GHCR, "server = \"https://ghcr.io\"\n[host.\"@URL@/v2/\"]\n  capabilities = [\"Pull\", \"Resolve\"]\n"),
            Listen(SOCKET, NEW),
        ],
        found: &[],
    },
    Broken {
        what: "capabilities of containerd as a text",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Put(HUB, "server = \"https://registry-1.docker.io\"\n[host.\"@URL@\"]\n  capabilities = \"pull\"\n"),
        ],
        found: &[("containerd", "unreadable")],
    },
    Broken {
        what: "override_path of containerd without a path",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Put(HUB, "server = \"https://registry-1.docker.io\"\n[host.\"@URL@\"]\n  override_path = true\n"),
        ],
        found: &[("containerd", "path")],
    },
    Broken {
        what: "a path of containerd that names its registry, which was said to get 404",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Put(
                HUB,
                "server = \"https://registry-1.docker.io\"\n[host.\"@URL@/v2/docker.io\"]\n  override_path = true\n",
            ),
        ],
        found: &[],
    },
    Broken {
        what: "a path of containerd that names another registry",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Put(
                HUB,
                "server = \"https://registry-1.docker.io\"\n[host.\"@URL@/v2/ghcr.io\"]\n  override_path = true\n",
            ),
        ],
        found: &[("containerd", "path")],
    },
    Broken {
        what: "an empty directory of a registry hides that of all others",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Put("/etc/containerd/certs.d/_default/hosts.toml", "[host.\"@URL@\"]\n"),
            Remove(HUB),
        ],
        found: &[("containerd", "hidden")],
    },
    Broken {
        what: "a mirror with a path that dockerd does not ask, since its hosts.toml goes before",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put("/etc/docker/daemon.json", "{\"registry-mirrors\": [\"@URL@/docker.io\"]}"),
            Listen(
                SOCKET,
                r#"{"ServerVersion": "28.5.2", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
                    "RegistryConfig": {"Mirrors": ["@URL@/docker.io/"]}}"#,
            ),
        ],
        found: &[],
    },
    Broken {
        what: "a wrong port as host and as server of a closed route, of which pulls were said to go to the source",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Put(QUAY, "server = \"http://127.0.0.1:1\"\n[host.\"http://127.0.0.1:1\"]\n"),
        ],
        found: &[("containerd", "address")],
    },
    Broken {
        what: "TLS as host and as server of a closed route, of which pulls were said to go to the source",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Put(QUAY, "server = \"https://@AT@\"\n[host.\"https://@AT@\"]\n"),
        ],
        found: &[("containerd", "address")],
    },
    Broken {
        what: "a wrong path of a closed route, whose pulls come by the server",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, ENABLED),
            Put(QUAY, "server = \"@URL@\"\n[host.\"@URL@/quay.io\"]\n"),
        ],
        found: &[("containerd", "path")],
    },
];
