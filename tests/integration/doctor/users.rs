//! Hosts whose users have files of podman's of their own.

use super::Broken;
use super::Do::{Install, Put, Write};

const SEARCH: &str = "unqualified-search-registries = [\"docker.io\"]\n";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "a file of a user whose home is not below /home, and which hides the system's",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/etc/passwd", "u2:x:1000:1000::/srv/u2:/bin/sh\n"),
            Put("/srv/u2/.config/containers/registries.conf", ""),
        ],
        found: &[("podman", "hidden")],
    },
    Broken {
        what: "a file of root's that hides the system's",
        made: &[Install(&["podman"]), Write(&["podman"]), Put("/root/.config/containers/registries.conf", "")],
        found: &[("podman", "hidden")],
    },
    Broken {
        what: "podman 6 reads a user's file of the same name in place of client-config's",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/home/ann/.config/containers/registries.conf.d/50-acr-cache-proxy.conf", ""),
        ],
        found: &[("podman", "hidden")],
    },
    Broken {
        what: "podman with all official images blocked by root's own drop-in",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/root/.config/containers/registries.conf.d/99-l.conf",
                "[[registry]]\nlocation = \"docker.io/library\"\nblocked = true\n",
            ),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with a file of a user's that hides the system's",
        made: &[Install(&["podman"]), Write(&["podman"]), Put("/home/ann/.config/containers/registries.conf", SEARCH)],
        found: &[("podman", "hidden")],
    },
    Broken {
        what: "podman with a file of a user's beside which the mirrors are",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/home/ann/.config/containers/registries.conf", SEARCH),
            Put(
                "/home/ann/.config/containers/registries.conf.d/50-acr-cache-proxy.conf",
                "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"@AT@\"\ninsecure = true\n\
                 [[registry]]\nprefix = \"ghcr.io\"\nlocation = \"ghcr.io\"\n[[registry.mirror]]\nlocation = \"@AT@/ghcr.io\"\ninsecure = true\n\
                 [[registry]]\nprefix = \"quay.io\"\nlocation = \"@AT@/quay.io\"\ninsecure = true\n",
            ),
        ],
        found: &[],
    },
    Broken {
        what: "podman with a drop-in of a user's",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put("/home/dev/.config/containers/registries.conf.d/99.conf", "[[registry]]\nlocation = \"docker.io\"\n"),
        ],
        found: &[("podman", "hidden")],
    },
    Broken {
        what: "podman with a user's own file that blocks the proxy",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/root/.config/containers/registries.conf",
                "[[registry]]\nlocation = \"@AT@\"\nblocked = true\n\
                 [[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"@AT@\"\ninsecure = true\n\
                 [[registry]]\nprefix = \"ghcr.io\"\nlocation = \"ghcr.io\"\n[[registry.mirror]]\nlocation = \"@AT@/ghcr.io\"\ninsecure = true\n\
                 [[registry]]\nprefix = \"quay.io\"\nlocation = \"@AT@/quay.io\"\ninsecure = true\n",
            ),
        ],
        found: &[("podman", "blocked")],
    },
    Broken {
        what: "podman with a drop-in of a user's that blocks the proxy",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/root/.config/containers/registries.conf.d/60-x.conf",
                "[[registry]]\nlocation = \"@AT@\"\nblocked = true\n",
            ),
            Put(
                "/home/ann/.config/containers/registries.conf.d/60-x.conf",
                "[[registry]]\nlocation = \"@AT@\"\nblocked = true\n",
            ),
        ],
        found: &[("podman", "blocked"), ("podman", "blocked")],
    },
    Broken {
        what: "podman 6 with an entry of a user's for official images that leads past the proxy",
        made: &[
            Install(&["podman"]),
            Write(&["podman"]),
            Put(
                "/home/ann/.config/containers/registries.conf.d/60-x.conf",
                "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"docker.io/library\"\n",
            ),
        ],
        found: &[("podman", "hidden")],
    },
];
