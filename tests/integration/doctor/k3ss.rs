//! Hosts with k3s and RKE2.

use super::Broken;
use super::Do::{Fifo, Install, Listen, Put, Swap, Write};

/// Of the proxy.
const SETTINGS: &str = "/etc/acr-cache-proxy/config.yaml";
/// Of k3s and RKE2.
const WITH_THE_PROXY: &str = "mirrors:\n  \"*\":\n    endpoint: [\"@URL@\"]\n";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "RKE2's agent beside the unit of its server",
        made: &[
            Install(&["rke2"]),
            Put("/usr/local/lib/systemd/system/rke2-server.service", ""),
            Put("/usr/local/lib/systemd/system/rke2-agent.service", ""),
            Put("/etc/systemd/system/multi-user.target.wants/rke2-agent.service", ""),
        ],
        found: &[("rke2", "no-mirror")],
    },
    Broken {
        what: "RKE2 with both units, of which none boots",
        made: &[
            Install(&["rke2"]),
            Put("/usr/local/lib/systemd/system/rke2-server.service", ""),
            Put("/usr/local/lib/systemd/system/rke2-agent.service", ""),
        ],
        found: &[("rke2", "no-mirror")],
    },
    Broken {
        what: "k3s with the proxy, as it has made hosts.toml of it",
        made: &[
            Install(&["k3s"]),
            Put("/etc/rancher/k3s/registries.yaml", "mirrors:\n  \"*\":\n    endpoint: [\"@URL@\"]\n"),
            Put("/var/lib/rancher/k3s/agent/etc/containerd/certs.d/_default/hosts.toml", "[host.\"@URL@/v2\"]\n"),
        ],
        found: &[],
    },
    Broken {
        what: "k3s with the proxy, and the path that it asks for anyway",
        made: &[
            Install(&["k3s"]),
            Put("/etc/rancher/k3s/registries.yaml", "mirrors:\n  \"*\":\n    endpoint: [\"@URL@/v2\"]\n"),
        ],
        found: &[],
    },
    Broken {
        what: "k3s with an address in place of a list",
        made: &[
            Install(&["k3s"]),
            Put("/etc/rancher/k3s/registries.yaml", "mirrors:\n  docker.io:\n    endpoint: @URL@\n"),
        ],
        found: &[("k3s", "unreadable")],
    },
    Broken {
        what: "k3s with another mirror before the proxy, and without one of the registries",
        made: &[
            Install(&["k3s"]),
            Put(
                "/etc/rancher/k3s/registries.yaml",
                "mirrors:\n  docker.io:\n    endpoint: [\"https://mirror.gcr.io\", \"@URL@\"]\n  quay.io:\n    endpoint: [\"@URL@\"]\n",
            ),
        ],
        found: &[("k3s", "order"), ("k3s", "no-mirror")],
    },
    Broken {
        what: "RKE2 with a path behind the proxy's address",
        made: &[
            Install(&["rke2"]),
            Put("/etc/rancher/rke2/registries.yaml", "mirrors:\n  \"*\":\n    endpoint: [\"@URL@/hub\"]\n"),
        ],
        found: &[("rke2", "path")],
    },
    Broken { what: "k3s without registries.yaml", made: &[Install(&["k3s"])], found: &[("k3s", "no-mirror")] },
    Broken {
        what: "k3s with a flag for another registries.yaml, which has the proxy",
        made: &[
            Install(&["k3s"]),
            Put(
                "/etc/systemd/system/k3s.service",
                "[Service]\nExecStart=/usr/local/bin/k3s server --private-registry=/srv/registries.yaml\n",
            ),
            Put("/srv/registries.yaml", "mirrors:\n  \"*\":\n    endpoint: [\"@URL@\"]\n"),
        ],
        found: &[],
    },
    Broken {
        what: "RKE2 whose configuration names another registries.yaml, which lacks the proxy",
        made: &[
            Install(&["rke2"]),
            Put("/etc/rancher/rke2/registries.yaml", "mirrors:\n  \"*\":\n    endpoint: [\"@URL@\"]\n"),
            Put("/etc/rancher/rke2/config.yaml", "private-registry: /srv/registries.yaml\n"),
        ],
        found: &[("rke2", "no-mirror")],
    },
    Broken {
        what: "k3s with a flag for another configuration, which names a file that lacks the proxy",
        made: &[
            Install(&["k3s"]),
            Put(
                "/etc/systemd/system/k3s.service",
                "[Service]\nExecStart=/usr/local/bin/k3s server --config=/srv/c.yaml\n",
            ),
            Put("/srv/c.yaml", "private-registry: /srv/registries.yaml\n"),
            Put("/etc/rancher/k3s/registries.yaml", WITH_THE_PROXY),
        ],
        found: &[("k3s", "no-mirror")],
    },
    Broken {
        what: "k3s with a variable for another configuration, which counts more than the flag",
        made: &[
            Install(&["k3s"]),
            Put(
                "/etc/systemd/system/k3s.service",
                "[Service]\nEnvironmentFile=-/etc/systemd/system/k3s.service.env\nExecStart=/usr/local/bin/k3s server -c /srv/none.yaml\n",
            ),
            Put("/etc/systemd/system/k3s.service.env", "K3S_CONFIG_FILE=/srv/c.yaml\n"),
            Put("/srv/c.yaml", "private-registry: /srv/registries.yaml\n"),
            Put("/srv/registries.yaml", WITH_THE_PROXY),
        ],
        found: &[],
    },
    Broken {
        what: "RKE2 whose last file of the configuration adds another registries.yaml to a list",
        made: &[
            Install(&["rke2"]),
            Put("/etc/rancher/rke2/config.yaml", "private-registry: [/srv/a.yaml, /srv/b.yaml]\n"),
            Put("/etc/rancher/rke2/config.yaml.d/1.yaml", "debug: true\n"),
            Put("/etc/rancher/rke2/config.yaml.d/2.YML", "private-registry+:\n- /srv/registries.yaml\n"),
            Put("/etc/rancher/rke2/config.yaml.d/3.yaml.old", "private-registry: /srv/c.yaml\n"),
            Put("/srv/registries.yaml", WITH_THE_PROXY),
        ],
        found: &[],
    },
    Broken {
        what: "k3s with a configuration that is not YAML",
        made: &[
            Install(&["k3s"]),
            Put("/etc/rancher/k3s/registries.yaml", WITH_THE_PROXY),
            Put("/etc/rancher/k3s/config.yaml", "debug: true\nprivate-registry: [\n"),
        ],
        found: &[("k3s", "unreadable")],
    },
    Broken {
        what: "k3s with a file of its configuration that is a FIFO",
        made: &[
            Install(&["k3s"]),
            Put("/etc/rancher/k3s/registries.yaml", WITH_THE_PROXY),
            Fifo("/etc/rancher/k3s/config.yaml.d/1.yaml"),
        ],
        found: &[("k3s", "unreadable")],
    },
    Broken {
        what: "k3s with a configuration that is not there",
        made: &[
            Install(&["k3s"]),
            Put("/etc/rancher/k3s/registries.yaml", WITH_THE_PROXY),
            Put("/etc/systemd/system/k3s.service", "[Service]\nExecStart=/usr/local/bin/k3s server -c /srv/c.yaml\n"),
        ],
        found: &[("k3s", "unreadable")],
    },
    Broken {
        what: "k3s with a configuration from elsewhere",
        made: &[
            Install(&["k3s"]),
            Put("/etc/rancher/k3s/registries.yaml", WITH_THE_PROXY),
            Put(
                "/etc/systemd/system/k3s.service",
                "[Service]\nExecStart=/usr/local/bin/k3s server --config https://c.example/k3s\n",
            ),
        ],
        found: &[("k3s", "unreadable")],
    },
    Broken {
        what: "k3s with a rewrite beside the proxy",
        made: &[
            Install(&["k3s"]),
            Put(
                "/etc/rancher/k3s/registries.yaml",
                "mirrors:\n  \"*\":\n    endpoint: [\"@URL@\"]\n    rewrite:\n      \"^(.*)$\": \"hub/$1\"\n",
            ),
        ],
        found: &[("k3s", "path")],
    },
    Broken {
        what: "k3s with closed routes alone, which asks their sources",
        made: &[Swap(SETTINGS, "fallback", "closed"), Install(&["k3s"]), Write(&["k3s"])],
        found: &[("k3s", "not-closed")],
    },
    Broken {
        what: "k3s with closed routes alone, which asks nobody else",
        made: &[
            Swap(SETTINGS, "fallback", "closed"),
            Install(&["k3s"]),
            Write(&["k3s"]),
            Put("/etc/rancher/k3s/config.yaml", "disable-default-registry-endpoint: true\n"),
        ],
        found: &[],
    },
    Broken {
        what: "RKE2 with open routes alone, which asks nobody else by a file of its configuration",
        made: &[
            Swap(SETTINGS, "closed", "fallback"),
            Install(&["rke2"]),
            Write(&["rke2"]),
            Put("/etc/rancher/rke2/config.yaml", "disable-default-registry-endpoint: false\n"),
            Put("/etc/rancher/rke2/config.yaml.d/1.yaml", "disable-default-registry-endpoint: true\n"),
        ],
        found: &[("rke2", "no-fallback")],
    },
    Broken {
        what: "k3s with open routes alone, which asks nobody else by a flag",
        made: &[
            Swap(SETTINGS, "closed", "fallback"),
            Install(&["k3s"]),
            Write(&["k3s"]),
            Put(
                "/etc/systemd/system/k3s.service",
                "[Service]\nExecStart=/usr/local/bin/k3s server --disable-default-registry-endpoint --debug\n",
            ),
        ],
        found: &[("k3s", "no-fallback")],
    },
    Broken {
        what: "k3s with both kinds of routes, which asks nobody else",
        made: &[
            Install(&["k3s"]),
            Write(&["k3s"]),
            Put("/etc/rancher/k3s/config.yaml", "disable-default-registry-endpoint: true\n"),
        ],
        found: &[],
    },
    Broken {
        what: "k3s that was not restarted",
        made: &[
            Install(&["k3s"]),
            Put("/etc/systemd/system/k3s-agent.service", "[Service]\nExecStart=/usr/local/bin/k3s agent\n"),
            Put("/etc/rancher/k3s/registries.yaml", "mirrors:\n  \"*\":\n    endpoint: [\"@URL@\"]\n"),
            Put("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "version = 3\n"),
        ],
        found: &[("k3s", "not-loaded")],
    },
    Broken {
        what: "RKE2 with tabs in registries.yaml",
        made: &[Install(&["rke2"]), Put("/etc/rancher/rke2/registries.yaml", "mirrors:\n\t\"*\":\n")],
        found: &[("rke2", "unreadable")],
    },
    Broken {
        what: "RKE2 that runs goes on beside such a file: it was said to pull nothing",
        made: &[
            Install(&["rke2"]),
            Put("/etc/rancher/rke2/registries.yaml", "mirrors:\n\t\"*\":\n"),
            Listen("/run/k3s/containerd/containerd.sock", ""),
        ],
        found: &[("rke2", "unreadable")],
    },
    Broken {
        what: "RKE2 with such a file beside k3s, of which one runs: whose socket it is, nobody knows",
        made: &[
            Install(&["k3s", "rke2"]),
            Write(&["k3s"]),
            Put("/etc/rancher/rke2/registries.yaml", "mirrors:\n\t\"*\":\n"),
            Listen("/run/k3s/containerd/containerd.sock", ""),
        ],
        found: &[("rke2", "unreadable")],
    },
    Broken {
        what: "RKE2 with another port for one registry",
        made: &[
            Install(&["rke2"]),
            Put(
                "/etc/rancher/rke2/registries.yaml",
                "mirrors:\n  \"*\":\n    endpoint: [\"@URL@\"]\n  docker.io:\n    endpoint: [\"http://127.0.0.1:8081\"]\n",
            ),
        ],
        found: &[("rke2", "address")],
    },
];
