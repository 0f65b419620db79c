//! Hosts with containerd.

use super::Broken;
use super::Do::{Change, Install, Listen, Put, Remove, Swap, Write};

const CONFIG: &str = "/etc/containerd/config.toml";
const HUB: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
const QUAY: &str = "/etc/containerd/certs.d/quay.io/hosts.toml";
const SOCKET: &str = "/run/containerd/containerd.sock";
const V2: &str =
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n";
const V3: &str =
    "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "containerd 1 and a kubelet, as client-config has it",
        made: &[Install(&["containerd", "kubelet"]), Write(&["containerd"]), Put(CONFIG, V2), Listen(SOCKET, "")],
        found: &[],
    },
    Broken {
        what: "containerd at another socket that was not restarted",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(
                CONFIG,
                "version = 3\n[grpc]\n  address = \"/run/c3.sock\"\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
            ),
            Change(CONFIG),
            Listen("/run/c3.sock", ""),
        ],
        found: &[("containerd", "not-loaded")],
    },
    Broken {
        what: "containerd at a socket that a flag names and that was not restarted",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(CONFIG, V3),
            Put("/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd -a /run/c3.sock\n"),
            Change(CONFIG),
            Listen("/run/c3.sock", ""),
        ],
        found: &[("containerd", "not-loaded")],
    },
    Broken {
        what: "containerd without its CRI plugin, and a kubelet",
        made: &[
            Install(&["containerd", "kubelet"]),
            Write(&["containerd"]),
            Put(
                CONFIG,
                "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
            ),
        ],
        found: &[("containerd", "not-enabled")],
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
        what: "config.toml that is not TOML any more beside a containerd that runs, which pulls as before",
        made: &[
            Install(&["containerd"]),
            Write(&["containerd"]),
            Put(CONFIG, "version = 2\n[plugins\n"),
            Listen(SOCKET, ""),
        ],
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
];
