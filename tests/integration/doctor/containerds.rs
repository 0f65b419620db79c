//! Hosts with containerd, k3s and RKE2.

use super::Broken;
use super::Do::{Change, Fifo, Install, Listen, Put, Remove, Swap, Write};

const CONFIG: &str = "/etc/containerd/config.toml";
const HUB: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
const QUAY: &str = "/etc/containerd/certs.d/quay.io/hosts.toml";
const SOCKET: &str = "/run/containerd/containerd.sock";
const V2: &str =
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n";
const V3: &str =
    "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n";

/// Of k3s and RKE2.
const WITH_THE_PROXY: &str = "mirrors:\n  \"*\":\n    endpoint: [\"@URL@\"]\n";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "containerd 1 and a kubelet, as client-config has it",
        made: &[Install(&["containerd", "kubelet"]), Write(&["containerd"]), Put(CONFIG, V2), Listen(SOCKET, "")],
        found: &[],
    },
    Broken {
        what: "containerd 2, as client-config has it",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, V3)],
        found: &[],
    },
    Broken {
        what: "containerd with config_path in a file that is imported",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n"),
            Put("/etc/containerd/conf.d/mirror.toml", V3),
        ],
        found: &[],
    },
    Broken {
        what: "containerd with the mirrors of releases before hosts.toml",
        made: &[
            Install(&["containerd"]),
            Put(
                CONFIG,
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"*\"]\n  endpoint = [\"@URL@\"]\n",
            ),
        ],
        found: &[],
    },
    Broken {
        what: "containerd without config.toml",
        made: &[Install(&["containerd", "kubelet"]), Write(&["containerd"])],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config.toml without config_path",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, "version = 2\n")],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config.toml without a newline at its end",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, "version = 2\nroot = \"/var/lib/x\""),
        ],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config.toml whose plugins are in one line",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, "version = 2\nplugins = {}\n")],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config.toml with comments alone",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, "# root = \"/var/lib/containerd\"")],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config.toml with an empty config_path, as containerd prints it, and another plugin's",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(
                CONFIG,
                "version = 3\n[plugins]\n  [plugins.'io.containerd.cri.v1.images']\n    [plugins.'io.containerd.cri.v1.images'.registry]\n      config_path = ''\n\
                 \n  [plugins.'io.containerd.transfer.v1.local']\n    config_path = ''\n",
            ),
        ],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config_path behind a tab, of a directory that is not there, and no file yet",
        made: &[
            Install(&["containerd"]),
            Put(CONFIG, V2),
            Swap(CONFIG, "  config_path = \"/etc/containerd/certs.d\"", "\tconfig_path = \"/etc/containerd/cert.d\""),
        ],
        found: &[("containerd", "directory"), ("containerd", "no-mirror")],
    },
    Broken {
        what: "config_path of an imported file, with another directory than the files are in",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n"),
            Put("/etc/containerd/conf.d/mirror.toml", V3),
            Swap("/etc/containerd/conf.d/mirror.toml", "containerd/certs.d", "containerd/hosts.d"),
        ],
        found: &[("containerd", "directory")],
    },
    Broken {
        what: "config_path with a directory in which others have a file",
        made: &[
            Install(&["containerd"]),
            Put(CONFIG, V3),
            Swap(CONFIG, "containerd/certs.d", "containerd/hosts.d"),
            Put("/etc/containerd/hosts.d/registry.corp/hosts.toml", "server = \"https://registry.corp\"\n"),
        ],
        found: &[("containerd", "no-mirror")],
    },
    Broken {
        what: "config.toml of version 3 with the table of version 2",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(
                CONFIG,
                "version = 3\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
            ),
        ],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config.toml without a version",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(
                CONFIG,
                "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
            ),
        ],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config_path with two directories",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V3),
            Swap(CONFIG, "certs.d\"", "certs.d:/etc/docker/certs.d\""),
        ],
        found: &[("containerd", "not-enabled")],
    },
    Broken {
        what: "config_path with another directory than the files are in",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Swap(CONFIG, "containerd/certs.d", "containerd/hosts.d"),
        ],
        found: &[("containerd", "directory")],
    },
    Broken {
        what: "config_path and registry.mirrors",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(
                CONFIG,
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n  endpoint = [\"@URL@\"]\n",
            ),
        ],
        found: &[("containerd", "conflict")],
    },
    Broken {
        what: "config.toml that is not TOML",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, "version = 2\n[plugins\n")],
        found: &[("containerd", "unreadable")],
    },
    Broken {
        what: "config.toml was changed and containerd not restarted",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, V2), Listen(SOCKET, ""), Change(CONFIG)],
        found: &[("containerd", "not-loaded")],
    },
    Broken {
        what: "no hosts.toml for one of the routes",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, V2), Remove(HUB)],
        found: &[("containerd", "no-mirror")],
    },
    Broken {
        what: "hosts.toml of Docker Hub in the directory of its host",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Remove(HUB),
            Put("/etc/containerd/certs.d/registry-1.docker.io/hosts.toml", "[host.\"@URL@\"]\n"),
        ],
        found: &[("containerd", "directory")],
    },
    Broken {
        what: "hosts.toml with another port",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, V2), Swap(HUB, "@AT@", "127.0.0.1:8081")],
        found: &[("containerd", "address")],
    },
    Broken {
        what: "hosts.toml of somebody else with another mirror",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Put(HUB, "[host.\"https://mirror.gcr.io\"]\n  capabilities = [\"pull\", \"resolve\"]\n"),
        ],
        found: &[("containerd", "no-mirror")],
    },
    Broken {
        what: "hosts.toml with another mirror before the proxy",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Put(HUB, "[host.\"https://mirror.gcr.io\"]\n[host.\"@URL@\"]\n"),
        ],
        found: &[("containerd", "order")],
    },
    Broken {
        what: "hosts.toml without resolve",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Swap(HUB, "[\"pull\", \"resolve\"]", "[\"pull\"]"),
        ],
        found: &[("containerd", "capabilities")],
    },
    Broken {
        what: "hosts.toml with a path behind the address",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Put(
                HUB,
                "server = \"https://registry-1.docker.io\"\n[host.\"@URL@/hub\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
            ),
        ],
        found: &[("containerd", "path")],
    },
    Broken {
        what: "hosts.toml of a closed route that names the source",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Swap(QUAY, "server = \"@URL@\"", "server = \"https://quay.io\""),
        ],
        found: &[("containerd", "not-closed")],
    },
    Broken {
        what: "hosts.toml of an open route that names nobody but the proxy",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Put(HUB, "# Written by acr-cache-proxy client-config\nserver = \"@URL@\"\n[host.\"@URL@\"]\n"),
        ],
        found: &[("containerd", "no-fallback")],
    },
    Broken {
        what: "hosts.toml of a registry without a route",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, V2),
            Put(
                "/etc/containerd/certs.d/gcr.io/hosts.toml",
                "# Written by acr-cache-proxy client-config\n[host.\"@URL@\"]\n",
            ),
        ],
        found: &[("containerd", "leftover")],
    },
    Broken {
        what: "hosts.toml that is not TOML",
        made: &[Install(&["containerd"]), Write(&["containerd"]), Put(CONFIG, V2), Put(HUB, "[host.@URL@]\n")],
        found: &[("containerd", "unreadable")],
    },
    Broken {
        what: "containerd with imports beside its file, one of another version",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, "version = 2\nimports = [\"conf.d/*-mirrors.*\"]\n"),
            Put("/etc/containerd/conf.d/10-mirrors.toml", V3),
        ],
        found: &[],
    },
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
