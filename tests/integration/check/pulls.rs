//! Ways that are broken at an image: its manifest, a blob, storage.

use acr_emulator::{Emulator, Fault, Hop, Options};

use super::{Broken, FROM_BLOB, FROM_STORAGE, plain};

fn data(azure: &Emulator, part: &str, fault: Fault) {
    azure.inject(Hop::Data, fault.on_path(part));
}

/// What a company's filter answers.
fn page() -> Fault {
    let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
    Fault::StatusWith { status: 200, headers, body: "<html>This page is blocked.</html>".to_owned() }
}

const HELLO: &str = "hub/library/hello-world";

pub(super) const BROKEN: &[Broken] = &[
    Broken {
        what: "an index in an index, which engines pull: it was another image that was asked for",
        options: plain,
        breaks: |azure, _, setup| {
            const INDEX: &str = "application/vnd.oci.image.index.v1+json";
            let inner = azure.manifest(HELLO, "latest").expect("pushed");
            let size = inner.len();
            let digest = azure.put_manifest(HELLO, "inner", INDEX, inner);
            let outer = format!(
                r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{INDEX}","digest":"{digest}","size":{size}}}]}}"#
            );
            azure.put_manifest(HELLO, "latest", INDEX, outer);
            setup
        },
        found: &[],
        skipped: &[],
    },
    Broken {
        what: "an image of the old schema 1: a captive portal was said to be between",
        options: plain,
        breaks: |azure, _, setup| {
            const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
            let image =
                r#"{"schemaVersion":1,"name":"a","tag":"latest","architecture":"amd64","fsLayers":[],"history":[]}"#;
            azure.put_manifest(HELLO, "latest", SCHEMA_1, image);
            setup
        },
        found: &[(
            "manifest",
            "failed",
            "an image of the old schema 1, which docker and containerd no longer pull: name another image with --image",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the prefix is not that of a cache rule",
        options: plain,
        breaks: |_, _, setup| setup.edit(|config| config.replacen("prefix: hub", "prefix: docker", 1)),
        found: &[(
            "manifest",
            "failed",
            "library/hello-world:latest: the prefix \"docker\" is not the cache rule's target, or the rule does not cover the name: \
             az acr cache list --registry example shows the rules; --image tries another one: the registry answers 404 *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "no rule covers an image that nobody has named",
        options: plain,
        breaks: |_, _, setup| setup.upstream("  source: quay.io\n"),
        found: &[(
            "manifest",
            "warning",
            "quay.io/prometheus/busybox:latest: the prefix \"hub\" is not the cache rule's target, or the rule does not cover the name: \
             az acr cache list --registry example shows the rules; --image tries another one: the registry answers 404 *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "an image that somebody has named is missing",
        options: plain,
        breaks: |_, _, setup| setup.flag("--image", "grafana/loki:3.0.0"),
        found: &[(
            "manifest",
            "failed",
            "grafana/loki:3.0.0: there is no such tag or digest, or the prefix \"hub\" is not the cache rule's target, or the rule does not \
             cover the name: az acr cache list --registry example shows the rules: the registry answers 404 *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the prefix is forgotten",
        options: plain,
        breaks: |_, _, setup| setup.edit(|config| config.replacen("prefix: hub", "prefix: \"\"", 1)),
        found: &[(
            "manifest",
            "failed",
            "library/hello-world:latest: no prefix is set where the target of the cache rule has one, or the rule does not cover the name: *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the registry limits requests",
        options: plain,
        breaks: |azure, _, setup| {
            data(azure, "/manifests/", Fault::Status(429));
            setup
        },
        found: &[(
            "manifest",
            "failed",
            "the limit of the registry's tier is reached: try again in a minute: the registry answers 429 TOOMANYREQUESTS: *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the source of the rule limits pulls",
        options: plain,
        breaks: |azure, _, setup| {
            data(azure, "/manifests/", Fault::CacheRule(429));
            setup
        },
        found: &[(
            "manifest",
            "failed",
            "the limit of the rule's source for the account of the credential set is reached: try again later: \
             the registry answers 429 TOOMANYREQUESTS: too many requests to source registry for cache rule 'hub'. *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the source of the rule limits pulls, in its own words",
        options: plain,
        breaks: |azure, _, setup| {
            let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
            let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
            data(azure, "/manifests/", Fault::StatusWith { status: 429, headers, body: body.to_owned() });
            setup
        },
        found: &[(
            "manifest",
            "failed",
            "the limit of the rule's source for the account of the credential set is reached: try again later: \
             the registry answers 429 TOOMANYREQUESTS: You have reached your pull rate limit.",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the credential set is unhealthy",
        options: plain,
        breaks: |azure, _, setup| {
            data(azure, "/manifests/", Fault::CacheRule(403));
            setup
        },
        found: &[(
            "manifest",
            "failed",
            "the cache rule's credential set is unhealthy, or its account may not pull this image: the registry answers 403 DENIED: \
             requested access to pull from source 'docker.io/library/hello-world' for cache rule 'hub' has been denied. *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the source of the rule fails",
        options: plain,
        breaks: |azure, _, setup| {
            data(azure, "/manifests/", Fault::CacheRule(424));
            setup
        },
        found: &[(
            "manifest",
            "failed",
            "the source of the cache rule failed: try again later: the registry answers 424 UNKNOWN: request to pull *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the role covers other repositories only",
        options: || Options { abac: true, ..testkit::options() },
        breaks: |azure, _, setup| {
            azure.revoke_repository("hub/library/hello-world");
            setup
        },
        found: &[(
            "manifest",
            "failed",
            "the identity lacks AcrPull on this repository: the registry answers 401 UNAUTHORIZED: authentication required, *",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the registry refuses its token for all repositories, and one of the repository is good",
        options: || Options { refuses_wildcard_tokens: true, ..testkit::options() },
        breaks: |_, _, setup| setup,
        found: &[],
        skipped: &[],
    },
    Broken {
        what: "the manifest is a page",
        options: plain,
        breaks: |azure, _, setup| {
            data(azure, "/manifests/", Fault::GarbageJson);
            setup
        },
        found: &[(
            "manifest",
            "failed",
            "200 with a body that is not the JSON of a manifest: is a proxy or captive portal between?",
        )],
        skipped: FROM_BLOB,
    },
    Broken {
        what: "the registry has the manifest and not its blob",
        options: plain,
        breaks: |azure, _, setup| {
            data(azure, "/blobs/", Fault::Status(404));
            setup
        },
        found: &[(
            "blob",
            "failed",
            "the registry has the manifest and not this blob of it: try again in a minute; if it stays, delete the image in the registry, \
             so that the cache rule imports it once more: the registry answers 404 *",
        )],
        skipped: FROM_STORAGE,
    },
    Broken {
        what: "in place of the blob comes a page",
        options: plain,
        breaks: |azure, _, setup| {
            data(azure, "/blobs/", page());
            setup
        },
        found: &[("blob", "failed", "200 with a body that is not sha256:*: is a proxy or captive portal between?")],
        skipped: FROM_STORAGE,
    },
    Broken {
        what: "the redirect leads nowhere",
        options: plain,
        breaks: |azure, _, setup| {
            data(azure, "/blobs/", Fault::StatusWith { status: 307, headers: vec![], body: String::new() });
            setup
        },
        found: &[("blob", "failed", "307 that leads to no storage: is a proxy between?")],
        skipped: FROM_STORAGE,
    },
    Broken {
        what: "the redirect leads to a host that is not on the list",
        options: plain,
        breaks: |_, _, setup| setup.upstream("  blobs: proxy\n"),
        found: &[(
            "blob",
            "failed",
            "the registry redirects the blob to 127.0.0.1:*, which is not a known storage host: blob_hosts can add it",
        )],
        skipped: FROM_STORAGE,
    },
    Broken {
        what: "storage takes no connection",
        options: || Options { storage_port: Some(1), ..testkit::options() },
        breaks: |_, _, setup| setup,
        found: &[(
            "storage-tcp",
            "failed",
            "blob storage 127.0.0.1 is not reachable: connection refused: 127.0.0.1:1: open this host's way to it",
        )],
        skipped: &["storage-tls", "storage"],
    },
    Broken {
        what: "storage takes no connection, and clients of other hosts reach it by themselves",
        options: || Options { storage_port: Some(1), ..testkit::options() },
        breaks: |_, _, setup| setup.listen("0.0.0.0:8080"),
        found: &[
            (
                "configuration",
                "warning",
                "clients are not authenticated, and 0.0.0.0:8080 is reachable from outside: protect the port",
            ),
            (
                "storage-tcp",
                "warning",
                "blob storage 127.0.0.1 is not reachable: connection refused: 127.0.0.1:1: open this host's way to it",
            ),
        ],
        skipped: &["storage-tls", "storage"],
    },
    Broken {
        what: "storage has a certificate for other names",
        options: || Options { storage_host: "localhost.localdomain".to_owned(), ..testkit::options() },
        breaks: |azure, others, setup| {
            data(
                azure,
                "/blobs/",
                Fault::StatusWith {
                    status: 307,
                    headers: vec![("Location".to_owned(), format!("https://{}/x?sig=s", others.misnamed))],
                    body: String::new(),
                },
            );
            others.trust_both(azure, &setup);
            setup
        },
        found: &[(
            "storage-tls",
            "failed",
            "its certificate is for intranet.corp, and not for 127.0.0.1: check the domain and a private endpoint's DNS",
        )],
        skipped: &["storage"],
    },
    Broken {
        what: "storage refuses the address of the redirect",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Storage, Fault::Status(403));
            setup
        },
        found: &[(
            "storage",
            "failed",
            "blob storage 127.0.0.1: 403 AuthenticationFailed to the registry's redirect: the signature in the address is not valid, *",
        )],
        skipped: &[],
    },
    Broken {
        what: "storage does not have the blob",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Storage, Fault::Status(404));
            setup
        },
        found: &[(
            "storage",
            "failed",
            "blob storage 127.0.0.1: 404 BlobNotFound to the registry's redirect: try again in a minute; if it stays, delete the image *",
        )],
        skipped: &[],
    },
    Broken {
        what: "a block page comes in place of storage's answer",
        options: plain,
        breaks: |azure, _, setup| {
            azure.inject(Hop::Storage, page());
            setup
        },
        found: &[(
            "storage",
            "failed",
            "blob storage 127.0.0.1: 200 with a body that is not sha256:*: is a proxy or captive portal between?",
        )],
        skipped: &[],
    },
    Broken {
        what: "a firewall refuses storage in its own words",
        options: plain,
        breaks: |azure, _, setup| {
            let Fault::StatusWith { headers, body, .. } = page() else { return setup };
            azure.inject(Hop::Storage, Fault::StatusWith { status: 403, headers, body });
            setup
        },
        found: &[(
            "storage",
            "failed",
            "blob storage 127.0.0.1: 403 to the registry's redirect: is a proxy or firewall between that does not allow this host?",
        )],
        skipped: &[],
    },
];
