//! Hosts with podman and CRI-O.

use super::Do::{Change, Install, Link, Listen, Put, Remove, Swap, Write};
use super::{Broken, POLICY, SIGSTORE};

const OURS: &str = "/etc/containers/registries.conf.d/50-acr-cache-proxy.conf";
const MAIN: &str = "/etc/containers/registries.conf";
const SEARCH: &str = "unqualified-search-registries = [\"docker.io\"]\n";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "podman 6 reads drop-ins in other directories, too: the pulls went past the proxy",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/usr/share/containers/registries.conf.d/99.conf", "[[registry]]\nlocation = \"docker.io\"\n"),
            Put("/etc/containers/registries.rootful.conf.d/98.conf", "[[registry]]\nlocation = \"ghcr.io\"\n"),
            Put("/etc/containers/registries.rootless.conf.d/99.conf", "[[registry]]\nlocation = \"quay.io\"\n"),
        ],
        found: &[("podman", "hidden"), ("podman", "hidden"), ("podman", "hidden")],
    },
    Broken {
        what: "podman 6 reads a file of the same name in place of client-config's",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/registries.rootful.conf.d/50-acr-cache-proxy.conf", ""),
        ],
        found: &[("podman", "hidden")],
    },
    Broken {
        what: "podman 6 does not read the first format, not even an empty list",
        made: &[Install(&["podman"]), Write(&["podman"]), Put(MAIN, "[registries.search]\nregistries = []\n")],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman 4 fails at a drop-in that is a link to nothing",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Link("/etc/containers/registries.conf.d/99-a.conf", "/etc/nosuch"),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a file of signatures that it refuses",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/registries.d/z.yaml", "default-docker:\n  use-sigstore-attachments: bogus\n"),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman 4 takes a file of signatures with a key twice, and later ones refuse it",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.d/z.yaml",
                "docker:\n  docker.io: {lookaside: \"file:///x\"}\n  docker.io: {lookaside: \"file:///y\"}\n",
            ),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a certificate for the proxy that has no key, by which it never asks the proxy",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/certs.d/@AT@/client.cert", ""),
            Put("/etc/containers/certs.d/docker.io/client.cert", ""),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman and buildah, as client-config has them",
        made: &[Install(&["podman", "buildah"]), Put(MAIN, SEARCH), Write(&["podman"])],
        found: &[],
    },
    Broken {
        what: "CRI-O, as client-config has it",
        made: &[Install(&["crio"]), Write(&["podman"]), Listen("/run/crio/crio.sock", r#"{"version": "1.32.1"}"#)],
        found: &[],
    },
    Broken {
        what: "podman without the file",
        made: &[Install(&["podman"]), Put(MAIN, SEARCH)],
        found: &[("podman", "no-mirror")],
    },
    Broken {
        what: "podman with a file that is not TOML",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/registries.conf.d/10-mine.conf", "[[registry]\n"),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with both formats in a file",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                MAIN,
                "unqualified-search-registries = [\"docker.io\"]\n[registries.search]\nregistries = [\"docker.io\"]\n",
            ),
        ],
        found: &[("podman", "conflict")],
    },
    Broken {
        what: "podman with a scheme in a location",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(OURS, "\"@AT@/ghcr.io\"", "\"http://127.0.0.1:8080/ghcr.io\""),
        ],
        found: &[("podman", "path")],
    },
    Broken {
        what: "podman with another port",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(OURS, "\"@AT@/docker.io\"", "\"127.0.0.1:8081/docker.io\""),
        ],
        found: &[("podman", "address")],
    },
    Broken {
        what: "podman with another port in a file that somebody keeps",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(
                OURS,
                "# Written by acr-cache-proxy client-config, which writes it anew: take this line out to keep changes.\n",
                "",
            ),
            Swap(OURS, "\"@AT@/docker.io\"", "\"127.0.0.1:8081/docker.io\""),
        ],
        found: &[("podman", "address")],
    },
    Broken {
        what: "podman with two files that say where signatures of the proxy's are",
        made: &[
            Install(&["podman"]),
            Put(POLICY, SIGSTORE),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.d/proxy.yaml",
                "docker:\n  \"@AT@\":\n    use-sigstore-attachments: true\n",
            ),
        ],
        found: &[("podman", "conflict")],
    },
    Broken {
        what: "podman with another file of signatures before that of the proxy's",
        made: &[
            Install(&["podman"]),
            Put(POLICY, SIGSTORE),
            Write(&["podman"]),
            Put("/etc/containers/registries.d/00.yaml", "docker: {\"@AT@\": {lookaside: https://x.example}}\n"),
        ],
        found: &[("podman", "conflict")],
    },
    Broken {
        what: "podman with another mirror before the proxy",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(
                OURS,
                "[[registry.mirror]]\nlocation = \"@AT@/docker.io\"",
                "[[registry.mirror]]\nlocation = \"mirror.gcr.io\"\n[[registry.mirror]]\nlocation = \"@AT@/docker.io\"",
            ),
        ],
        found: &[("podman", "order")],
    },
    Broken {
        what: "podman without insecure for plain HTTP",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(OURS, "location = \"@AT@/docker.io\"\ninsecure = true", "location = \"@AT@/docker.io\""),
        ],
        found: &[("podman", "insecure")],
    },
    Broken {
        what: "podman with a location that does not name the registry",
        made: &[Install(&["podman"]), Write(&["podman"]), Swap(OURS, "\"@AT@/ghcr.io\"", "\"@AT@\"")],
        found: &[("podman", "path")],
    },
    Broken {
        what: "podman with tags kept from mirrors",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(OURS, "location = \"docker.io\"\n", "location = \"docker.io\"\nmirror-by-digest-only = true\n"),
        ],
        found: &[("podman", "capabilities")],
    },
    Broken {
        what: "podman with a later file for the same registry",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/registries.conf.d/99-corp.conf", "[[registry]]\nlocation = \"docker.io\"\n"),
        ],
        found: &[("podman", "hidden")],
    },
    Broken {
        what: "podman with an entry that has no location",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/99-l.conf",
                "[[registry]]\nprefix = \"docker.io/library/busybox\"\nblocked = true\n",
            ),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with drop-ins of other letters, and a hidden one",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/98-l.conf",
                "[[Registry]]\nLocation = \"ghcr.io\"\nBlocked = true\n",
            ),
            Put(
                "/etc/containers/registries.conf.d/.99-l.conf",
                "\tshort-name-mode = \"bogus\"\n\n[aliases]\nbusybox = \"\"\n",
            ),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with an entry of other letters that blocks a registry",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/98-l.conf",
                "[[Registry]]\nLocation = \"ghcr.io\"\nBlocked = true\n",
            ),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with a directory among its drop-ins",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/registries.conf.d/99-l.conf/1.conf", "short-name-mode = \"bogus\"\n"),
        ],
        found: &[],
    },
    Broken {
        what: "podman with a pull-from-mirror that there is not",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/99-l.conf",
                "[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"bogus\"\n",
            ),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a scheme in a prefix",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/99-l.conf",
                "[[registry]]\n\tprefix = \"http://a.example\"\nlocation = \"b.example\"\n",
            ),
        ],
        found: &[("podman", "path")],
    },
    Broken {
        what: "podman with a path in a registry that is searched",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/99-l.conf",
                "unqualified-search-registries = [\"docker.io/library\"]\n",
            ),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with an alias that names no registry",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/registries.conf.d/99-l.conf", "[aliases]\nbusybox = \"nope\"\n"),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a text in place of true",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/99-l.conf",
                "[[registry]]\nlocation = \"a.example\"\ninsecure = \"true\"\n",
            ),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with all official images blocked",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/99-l.conf",
                "[[registry]]\nlocation = \"docker.io/library\"\nblocked = true\n",
            ),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with a blocked image",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/99-l.conf",
                "[[registry]]\nlocation = \"docker.io/library/busybox\"\nblocked = true\n",
            ),
        ],
        found: &[],
    },
    Broken {
        what: "podman with a short-name-mode that there is not",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/registries.conf.d/99-l.conf", "short-name-mode = \"bogus\"\n"),
        ],
        found: &[("podman", "unreadable")],
    },
    Broken {
        what: "podman with a blocked registry",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(OURS, "prefix = \"ghcr.io\"", "prefix = \"ghcr.io\"\nblocked = true"),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with an entry for official images that leads past the proxy: it was a note, and all of Docker Hub was said to be right",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/10-mirror.conf",
                "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"mirror.example/library\"\n",
            ),
        ],
        found: &[("podman", "hidden")],
    },
    Broken {
        what: "podman with an entry that takes a part of a closed route elsewhere",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/etc/containers/registries.conf.d/60-x.conf",
                "[[registry]]\nprefix = \"quay.io/org\"\nlocation = \"quay.io/org\"\n",
            ),
        ],
        found: &[("podman", "not-closed")],
    },
    Broken {
        what: "podman with an entry that blocks the proxy: pulls were said to go through it",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/containers/registries.conf.d/60-x.conf", "[[registry]]\nlocation = \"@AT@\"\nblocked = true\n"),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with a closed route whose source is asked",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(
                OURS,
                "location = \"@AT@/quay.io\"",
                "location = \"quay.io\"\n[[registry.mirror]]\nlocation = \"@AT@/quay.io\"",
            ),
        ],
        found: &[("podman", "not-closed")],
    },
    Broken {
        what: "podman with an entry for a registry without a route",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Swap(
                OURS,
                "\"ghcr.io\"\nlocation = \"ghcr.io\"",
                "\"ghcr.io\"\nlocation = \"ghcr.io\"\n[[registry.mirror]]\nlocation = \"@AT@/ghcr.io\"\ninsecure = true\n\n[[registry]]\nprefix = \"gcr.io\"\nlocation = \"gcr.io\"",
            ),
        ],
        found: &[("podman", "leftover")],
    },
    Broken {
        what: "CRI-O that was not told of a change",
        made: &[
            Install(&["crio"]),
            Write(&["podman"]),
            Listen("/run/crio/crio.sock", r#"{"version": "1.32.1"}"#),
            Change(OURS),
        ],
        found: &[("cri-o", "not-loaded")],
    },
    Broken {
        what: "CRI-O without the file",
        made: &[Install(&["crio"]), Write(&["podman"]), Remove(OURS)],
        found: &[("cri-o", "no-mirror")],
    },
    Broken {
        what: "buildkitd, as client-config has it",
        made: &[Install(&["buildkitd"]), Write(&["buildkit"]), Listen("/run/buildkit/buildkitd.sock", "")],
        found: &[],
    },
    Broken {
        what: "buildkitd without buildkitd.toml",
        made: &[Install(&["buildkitd"])],
        found: &[("buildkitd", "no-mirror")],
    },
];
