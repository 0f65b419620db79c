//! Hosts with dockerd.

use super::Broken;
use super::Do::{Fifo, Install, Link, Listen, Put, Remove, Swap, Write};

const SOCKET: &str = "/run/docker.sock";
const JSON: &str = "/etc/docker/daemon.json";
/// dockerd 26 with its own store, which has loaded the mirror.
const LOADED: &str = r#"{"ServerVersion": "26.1.5", "DriverStatus": [["Backing Filesystem", "extfs"]],
    "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#;
/// dockerd 28 with containerd's store.
const NEW: &str = r#"{"ServerVersion": "28.5.1", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#;
/// dockerd 28 has no empty list.
const NOTHING_LOADED: &str = r#"{"ServerVersion": "28.5.2", "RegistryConfig": {"Mirrors": null}}"#;
/// The same with containerd's store.
const NEW_WITH_NOTHING: &str = r#"{"ServerVersion": "28.5.2", "RegistryConfig": {"Mirrors": null},
    "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}"#;
/// Beside a daemon.json with mirrors dockerd does not start.
const MIRROR_BY_FLAG: &str = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// --registry-mirror=@URL@\n";
const MIRROR_BEHIND_COMMENT: &str = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// \\\n# a comment\n; another\n  --registry-mirror=@URL@\n";
/// As Debian's package has it.
const VARIABLE: &str =
    "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n";

/// Releases before and after a mirror may have a path.
const OLD_WITH_NOTHING: &str = r#"{"ServerVersion": "20.10.24+dfsg1", "RegistryConfig": {"Mirrors": []}}"#;
const OLD_LOADED: &str = r#"{"ServerVersion": "20.10.24+dfsg1", "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#;
const WITH_PATH: &str = r#"{"ServerVersion": "26.1.5+dfsg1", "RegistryConfig": {"Mirrors": ["@URL@/hub/"]}}"#;

pub(super) const BROKEN: &[Broken] = &[
    Broken { what: "no engine at all", made: &[], found: &[] },
    Broken {
        what: "a drop-in that is a FIFO",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Fifo("/etc/systemd/system/docker.service.d/a.conf")],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "a drop-in whose link leads to itself",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Link("/etc/systemd/system/docker.service.d/a.conf", "a.conf"),
        ],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "a file of variables that is a FIFO",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put("/lib/systemd/system/docker.service", VARIABLE),
            Fifo("/etc/default/docker"),
        ],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "a drop-in that is an absolute link in the tree",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put("/opt/corp/docker.conf", MIRROR_BY_FLAG),
            Link("/etc/systemd/system/docker.service.d/a.conf", "/opt/corp/docker.conf"),
        ],
        found: &[("dockerd", "conflict")],
    },
    Broken {
        what: "a comment within the line of its flags",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put("/etc/systemd/system/docker.service.d/a.conf", MIRROR_BEHIND_COMMENT),
        ],
        found: &[("dockerd", "conflict")],
    },
    Broken {
        what: "a variable of its flags that only systemd knows",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Remove("/etc/docker/daemon.json"),
            Put(
                "/etc/systemd/system/docker.service",
                "[Service]\nPassEnvironment=DOCKER_OPTS\nExecStart=/usr/bin/dockerd $DOCKER_OPTS\n",
            ),
        ],
        found: &[],
    },
    Broken {
        what: "a drop-in of all services",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put("/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd $MORE\n"),
            Put("/etc/systemd/system/service.d/a.conf", "[Service]\nEnvironment=MORE=--registry-mirror=@URL@\n"),
        ],
        found: &[("dockerd", "conflict")],
    },
    Broken {
        what: "a drop-in that hides one of all services",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put("/etc/systemd/system/service.d/a.conf", MIRROR_BY_FLAG),
            Link("/usr/lib/systemd/system/docker.service.d/a.conf", "/dev/null"),
            Put("/dev/null", ""),
        ],
        found: &[],
    },
    Broken {
        what: "a flag in one of the files of variables that a pattern names",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(
                "/lib/systemd/system/docker.service",
                "[Service]\nEnvironmentFile=-/etc/docker-*/[a-c]?.env\nExecStart=/usr/bin/dockerd $MORE\n",
            ),
            Put("/etc/docker-1/b1.env", "MORE=--registry-mirror=@URL@\n"),
            Put("/etc/docker-2/d1.env", "MORE=--debug\n"),
        ],
        found: &[("dockerd", "conflict")],
    },
    Broken {
        what: "a variable with a flag that is unset",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put("/lib/systemd/system/docker.service", VARIABLE),
            Put("/etc/default/docker", "DOCKER_OPTS=--registry-mirror=@URL@\n"),
            Put("/etc/systemd/system/docker.service.d/a.conf", "[Service]\nUnsetEnvironment=DOCKER_OPTS\n"),
        ],
        found: &[],
    },
    Broken {
        what: "another file of settings, by a flag",
        made: &[
            Install(&["dockerd"]),
            Put(
                "/etc/systemd/system/docker.service",
                "[Service]\nExecStart=/usr/bin/dockerd --config-file=/etc/d.json\n",
            ),
            Put("/etc/d.json", "{}"),
        ],
        found: &[("dockerd", "no-mirror")],
    },
    Broken {
        what: "another file of settings, by a flag, which is not there",
        made: &[
            Install(&["dockerd"]),
            Put(
                "/etc/systemd/system/docker.service",
                "[Service]\nExecStart=/usr/bin/dockerd --config-file=/etc/d.json\n",
            ),
        ],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "a shell that starts dockerd",
        made: &[
            Install(&["dockerd"]),
            Put(
                "/etc/systemd/system/docker.service",
                "[Service]\nExecStart=/bin/sh -c 'exec /usr/bin/dockerd $(cat /etc/docker/flags)'\n",
            ),
        ],
        found: &[],
    },
    Broken {
        what: "a rootless dockerd",
        made: &[
            Put("/etc/passwd", "ci:x:1000:1000::/var/lib/ci:/bin/sh\n"),
            Put("/var/lib/ci/.config/docker/daemon.json", "{}"),
        ],
        found: &[],
    },
    Broken {
        what: "a script that starts dockerd, which does not run",
        made: &[
            Install(&["dockerd"]),
            Put("/etc/systemd/system/docker.service", "[Service]\nExecStart=/usr/local/bin/start-docker\n"),
            Put("/usr/local/bin/start-docker", "#!/bin/sh\nexec dockerd --registry-mirror http://127.0.0.1:8090\n"),
        ],
        found: &[],
    },
    Broken {
        what: "a script that starts dockerd, which has loaded nothing",
        made: &[
            Install(&["dockerd"]),
            Put("/etc/systemd/system/docker.service", "[Service]\nExecStart=/usr/local/bin/start-docker\n"),
            Put("/usr/local/bin/start-docker", "#!/bin/sh\nexec dockerd\n"),
            Listen(SOCKET, NOTHING_LOADED),
        ],
        found: &[("dockerd", "no-mirror")],
    },
    Broken {
        what: "a shell that starts dockerd, which has loaded the mirror",
        made: &[
            Install(&["dockerd"]),
            Put("/etc/systemd/system/docker.service", "[Service]\nExecStart=/bin/sh -c 'exec dockerd'\n"),
            Listen(SOCKET, LOADED),
        ],
        found: &[],
    },
    Broken {
        what: "dockerd 26, as client-config has it",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Listen(SOCKET, LOADED)],
        found: &[],
    },
    Broken {
        what: "dockerd 26 with a byte order mark in daemon.json, which it takes",
        made: &[
            Install(&["dockerd"]),
            Put(JSON, "\u{feff}{\"registry-mirrors\": [\"@URL@\"]}\n"),
            Listen(SOCKET, LOADED),
        ],
        found: &[],
    },
    Broken {
        what: "dockerd 20 with a byte order mark in daemon.json, which it refuses",
        made: &[
            Install(&["dockerd"]),
            Put(JSON, "\u{feff}{\"registry-mirrors\": [\"@URL@\"]}\n"),
            Listen(SOCKET, OLD_LOADED),
        ],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "dockerd 28 with containerd's store, as client-config has it",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Listen(SOCKET, NEW)],
        found: &[],
    },
    Broken {
        what: "dockerd that does not run, as client-config has it",
        made: &[Install(&["dockerd"]), Write(&["docker"])],
        found: &[],
    },
    Broken {
        what: "dockerd beside containerd, which only serves it",
        made: &[
            Install(&["dockerd", "containerd"]),
            Write(&["docker"]),
            Put("/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n"),
        ],
        found: &[],
    },
    Broken { what: "dockerd without daemon.json", made: &[Install(&["dockerd"])], found: &[("dockerd", "no-mirror")] },
    Broken {
        what: "daemon.json with other settings only",
        made: &[Install(&["dockerd"]), Put(JSON, r#"{"debug": true}"#)],
        found: &[("dockerd", "no-mirror")],
    },
    Broken {
        what: "daemon.json with a comma too many",
        made: &[Install(&["dockerd"]), Put(JSON, "{\n  \"registry-mirrors\": [\"@URL@\"],\n}\n")],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "daemon.json with another port",
        made: &[Install(&["dockerd"]), Put(JSON, r#"{"registry-mirrors": ["http://127.0.0.1:8081"]}"#)],
        found: &[("dockerd", "address")],
    },
    Broken {
        what: "daemon.json with a host that is misspelt",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Swap(JSON, "127.0.0.1", "127.0.1.1")],
        found: &[("dockerd", "address")],
    },
    Broken {
        what: "daemon.json with https",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Swap(JSON, "http://", "https://")],
        found: &[("dockerd", "address")],
    },
    Broken {
        what: "daemon.json with a path behind the address",
        made: &[Install(&["dockerd"]), Put(JSON, r#"{"registry-mirrors": ["@URL@/hub"]}"#)],
        found: &[("dockerd", "path")],
    },
    Broken {
        what: "daemon.json with an address in place of a list",
        made: &[Install(&["dockerd"]), Put(JSON, r#"{"registry-mirrors": "@URL@"}"#)],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "daemon.json with the address without a scheme",
        made: &[Install(&["dockerd"]), Put(JSON, r#"{"registry-mirrors": ["@AT@"]}"#)],
        found: &[("dockerd", "path")],
    },
    Broken {
        what: "daemon.json with a path behind the address, and dockerd 20.10",
        made: &[
            Install(&["dockerd"]),
            Put(JSON, r#"{"registry-mirrors": ["@URL@/hub"]}"#),
            Listen(SOCKET, OLD_WITH_NOTHING),
        ],
        found: &[("dockerd", "path")],
    },
    Broken {
        what: "daemon.json with a path behind the address, and a dockerd that takes it",
        made: &[Install(&["dockerd"]), Put(JSON, r#"{"registry-mirrors": ["@URL@/hub"]}"#), Listen(SOCKET, WITH_PATH)],
        found: &[("dockerd", "path")],
    },
    Broken {
        what: "daemon.json with a path behind another mirror's address, and a dockerd that takes it",
        made: &[
            Install(&["dockerd"]),
            Put(JSON, r#"{"registry-mirrors": ["@URL@", "https://mirror.example/hub"]}"#),
            Listen(
                SOCKET,
                r#"{"ServerVersion": "26.1.5", "RegistryConfig": {"Mirrors": ["@URL@/", "https://mirror.example/hub/"]}}"#,
            ),
        ],
        found: &[],
    },
    Broken {
        what: "daemon.json with a password in the proxy's address",
        made: &[Install(&["dockerd"]), Put(JSON, r#"{"registry-mirrors": ["http://puller:hunter2@@AT@"]}"#)],
        found: &[("dockerd", "path")],
    },
    Broken {
        what: "daemon.json with a password in the address of another mirror",
        made: &[
            Install(&["dockerd"]),
            Put(JSON, r#"{"registry-mirrors": ["@URL@", "https://puller:hunter2@mirror.example"]}"#),
        ],
        found: &[("dockerd", "path")],
    },
    Broken {
        what: "daemon.json with another mirror before the proxy",
        made: &[Install(&["dockerd"]), Put(JSON, r#"{"registry-mirrors": ["https://mirror.gcr.io", "@URL@"]}"#)],
        found: &[("dockerd", "order")],
    },
    Broken {
        what: "daemon.json and a flag with mirrors",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(
                "/etc/systemd/system/docker.service.d/mirror.conf",
                "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// --registry-mirror=@URL@\n",
            ),
        ],
        found: &[("dockerd", "conflict")],
    },
    Broken {
        what: "a flag with the mirror, and no daemon.json",
        made: &[
            Install(&["dockerd"]),
            Put(
                "/lib/systemd/system/docker.service",
                "[Service]\nExecStart=/usr/bin/dockerd -H fd:// --registry-mirror @URL@\n",
            ),
        ],
        found: &[],
    },
    Broken {
        what: "a flag of a variable with the mirror, and no daemon.json",
        made: &[
            Install(&["dockerd"]),
            Put("/lib/systemd/system/docker.service", VARIABLE),
            Put("/etc/default/docker", "# DOCKER_OPTS=\"--debug\"\nDOCKER_OPTS=\"--registry-mirror=@URL@\"\n"),
        ],
        found: &[],
    },
    Broken {
        what: "a flag of a variable with another port, and no daemon.json",
        made: &[
            Install(&["dockerd"]),
            Put("/lib/systemd/system/docker.service", VARIABLE),
            Put("/etc/default/docker", "DOCKER_OPTS=\"--debug --registry-mirror=http://127.0.0.1:8081\"\n"),
        ],
        found: &[("dockerd", "address")],
    },
    Broken {
        what: "dockerd 28 with containerd's store and a flag, without a hosts.toml",
        made: &[
            Install(&["dockerd"]),
            Put(
                "/lib/systemd/system/docker.service",
                "[Service]\nExecStart=/usr/bin/dockerd -H fd:// --registry-mirror=@URL@\n",
            ),
            Listen(SOCKET, NEW),
        ],
        found: &[("dockerd", "no-mirror")],
    },
    Broken {
        what: "dockerd 28 that has loaded nothing",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Listen(SOCKET, NOTHING_LOADED)],
        found: &[("dockerd", "not-loaded")],
    },
    Broken {
        what: "dockerd 28 with containerd's store, which has loaded nothing and reads hosts.toml",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Listen(SOCKET, NEW_WITH_NOTHING)],
        found: &[],
    },
    Broken {
        what: "dockerd 28 with an empty daemon.json, which it takes for none",
        made: &[Install(&["dockerd"]), Write(&["docker"]), Put(JSON, ""), Listen(SOCKET, NEW_WITH_NOTHING)],
        found: &[],
    },
    Broken {
        what: "daemon.json was changed and dockerd not reloaded",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Listen(SOCKET, r#"{"ServerVersion": "26.1.5", "RegistryConfig": {"Mirrors": []}}"#),
        ],
        found: &[("dockerd", "not-loaded")],
    },
    Broken {
        what: "dockerd 28 with containerd's store without a hosts.toml",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Remove("/etc/docker/certs.d/ghcr.io/hosts.toml"),
            Listen(SOCKET, NEW),
        ],
        found: &[("dockerd", "no-mirror")],
    },
    Broken {
        what: "dockerd 28 with its own store, which builds by a hosts.toml that is not there",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Remove("/etc/docker/certs.d/ghcr.io/hosts.toml"),
            Listen(SOCKET, r#"{"ServerVersion": "28.5.2", "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#),
        ],
        found: &[("dockerd", "no-mirror")],
    },
    Broken {
        what: "dockerd 28 with its own store, which builds by a hosts.toml with another port",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put("/etc/docker/certs.d/quay.io/hosts.toml", "[host.\"http://127.0.0.1:1\"]\n"),
            Listen(SOCKET, r#"{"ServerVersion": "28.5.2", "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#),
        ],
        found: &[("dockerd", "address")],
    },
    Broken {
        what: "two lists of mirrors in daemon.json, of which the last counts",
        made: &[
            Install(&["dockerd"]),
            Put(JSON, r#"{"registry-mirrors": ["@URL@"], "registry-mirrors": ["https://mirror.example"]}"#),
        ],
        found: &[("dockerd", "no-mirror")],
    },
    Broken {
        what: "dockerd at a socket that hosts of daemon.json names, and has not loaded the mirror",
        made: &[
            Install(&["dockerd"]),
            Put(JSON, r#"{"hosts": ["unix:///run/other.sock"], "registry-mirrors": ["@URL@"]}"#),
            Listen("/run/other.sock", r#"{"ServerVersion": "26.1.5", "RegistryConfig": {"Mirrors": []}}"#),
        ],
        found: &[("dockerd", "not-loaded")],
    },
    Broken {
        what: "dockerd at a socket that a flag names, and has not loaded the mirror",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(
                "/lib/systemd/system/docker.service",
                "[Service]\nExecStart=/usr/sbin/dockerd -H unix:///run/other.sock\n",
            ),
            Listen("/run/other.sock", r#"{"ServerVersion": "26.1.5", "RegistryConfig": {"Mirrors": []}}"#),
        ],
        found: &[("dockerd", "not-loaded")],
    },
    Broken {
        what: "daemon.json that dockerd has not read yet and cannot read",
        made: &[Install(&["dockerd"]), Put(JSON, "{"), Listen(SOCKET, LOADED)],
        found: &[("dockerd", "unreadable")],
    },
    Broken {
        what: "a hosts.toml of dockerd for a registry without a route",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(
                "/etc/docker/certs.d/registry.k8s.io/hosts.toml",
                "# Written by acr-cache-proxy client-config\n[host.\"@URL@\"]\n",
            ),
            Listen(SOCKET, NEW),
        ],
        found: &[("dockerd", "leftover")],
    },
    Broken {
        what: "a forward proxy of dockerd, which asks none for loopback addresses",
        made: &[
            Install(&["dockerd"]),
            Write(&["docker"]),
            Put(
                "/etc/systemd/system/docker.service.d/proxy.conf",
                "[Service]\nEnvironment=\"HTTP_PROXY=http://puller:hunter2@proxy.corp:3128\"\n",
            ),
        ],
        found: &[],
    },
];
