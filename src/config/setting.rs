//! Every setting, each in one row: key, flag, variable, parser, default and words. `--help`, `conf/full.yaml` and the
//! reference in `docs/configuration.md` are made of these rows.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::address::{DEFAULT_LISTEN, parse_admin, parse_listen};
use super::domain::Domain;
use super::egress::EgressTable;
use super::file::{Document, Node};
use super::mistake::Place;
use super::parse::{
    parse_address, parse_blob_host, parse_blobs, parse_client_keepalive, parse_drain, parse_file, parse_host,
    parse_lasting, parse_log_format, parse_mode, parse_notice, parse_on_failure, parse_prefix, parse_registry,
    parse_sample, parse_threads, parse_token_wait, parse_unix, parse_word,
};
use super::proxy_protocol::ProxyProtocolTable;
use super::table::{
    Default, Entry, List, Nested, ROW, Row, Shape, Short, Switched, Table, Tables, Value, ValueOrTables, table,
};
use super::tls::TlsTable;
use crate::logger::{Format, parse_filter};
use oci::name::Prefix;
use oci::route::{Blobs, OnFailure, Source};

mod cache;
mod clients;
mod identity;

pub(crate) use cache::{CACHE, CacheTable};
pub(crate) use clients::{ACCESS, AccessTable, LIMITS, LimitsTable};
pub(crate) use identity::{IDENTITY, IdentityTable};

/// A level, or directives with a comma between two; which targets there are is for the program.
const FILTER: &str = r"^\s*([^,=]+=\s*)?[A-Za-z]+\s*(,\s*([^,=]+=\s*)?[A-Za-z]+\s*)*$";

/// Where Azure Arc's agent puts the keys that prove local access.
pub(crate) const ARC_KEY_DIRECTORY: &str = "/var/opt/azcmagent/tokens";

table! {
    /// The whole file.
    FILE: FileRows, FileTable {
        listen: ValueOrTables<ListenTable> {
            flag: Some("listen-address"),
            value: "ADDRESS",
            default: Default::Text(DEFAULT_LISTEN),
            help: "Where to listen for clients: 127.0.0.1:8080, [::1]:8080, or :8080 for every address",
            more: "The default is loopback because clients are not authenticated. `\":8080\"` listens on every address of \
                   the host, IPv4 and IPv6. In the file it may be a list of tables instead, one for each listener; the \
                   flag stands for the whole list."
        };

        admin: Value<SocketAddr> {
            flag: Some("admin-address"),
            value: "ADDRESS",
            default: Default::Words("no such listener"),
            example: "127.0.0.1:8081",
            help: "Where to answer /, /status, /healthz, /readyz, /metrics and /cache; :8081 is 127.0.0.1:8081",
            more: "A port alone is on loopback; `0.0.0.0:8081` is every address of the host."
        } parse parse_admin;

        upstream: Nested<RouteTable> {
            value: "TABLE",
            default: Default::Words("none; the flags --upstream-domain and --upstream-prefix do as well"),
            help: "The one cache rule of a proxy that has only one: a table like an item of `routes`",
            more: "Its `source` is Docker Hub unless it says otherwise."
        };

        routes: Tables<RouteTable> {
            value: "LIST",
            default: Default::Words("none"),
            example: "[{source: docker.io, domain: example.azurecr.io, prefix: hub}]",
            help: "Several cache rules: a list of tables with the keys of `upstream`, in place of `upstream`",
            more: "Each needs its own `source` and may have its own `identity`. `conf/routes.yaml` is an example."
        };

        default: Value<String> {
            value: "HOST",
            default: Default::Words("docker.io, if a route has it"),
            example: "docker.io",
            help: "The registry that is meant where a client names none, as dockerd does",
            more: "It has to be the registry of a route."
        } parse parse_registry;

        identity: Nested<IdentityTable> {
            value: "TABLE",
            default: Default::Words("kind: default"),
            help: "Who signs in to the cache registries; a route may have an identity of its own",
            more: ""
        };

        ca_file: Value<PathBuf> {
            flag: Some("ca-file"),
            value: "FILE",
            default: Default::Words("none"),
            example: "/etc/ssl/private-ca.pem",
            help: "A PEM file of private CA certificates, trusted besides the system's",
            more: "They count for every TLS connection: to the registry, to blob storage, to Entra ID. Certificates that \
                   `SSL_CERT_FILE` and `SSL_CERT_DIR` name are trusted as well, and the system's stay trusted."
        } parse parse_file;

        token_wait: Value<Duration> {
            value: "TIME",
            default: Default::Text("10s"),
            pattern: "^0*([1-9]|1[0-9]|20)s$",
            help: "How long a request waits for a token that is being fetched, 1s to 20s",
            more: "After that it gets a 503."
        } parse parse_token_wait;

        client_keepalive: Value<Duration> {
            value: "TIME",
            default: Default::Text("75s"),
            help: "How long an idle connection of a client is kept open, 1s to 1h",
            more: "A load balancer in front should close its idle connections earlier, and most do after 60 s. Then no \
                   request is sent on a connection that is being closed."
        } parse parse_client_keepalive;

        drain: Nested<DrainTable> {
            value: "TABLE",
            default: Default::Words("the defaults of its keys"),
            help: "How the proxy ends after SIGTERM",
            more: ""
        };

        notify: Nested<NotifyTable> {
            value: "TABLE",
            default: Default::Words("nobody is told"),
            help: "Who is told of a fault that lasts",
            more: ""
        };

        cache: Switched<CacheTable> {
            value: "off|TABLE",
            default: Default::Words("on, with the defaults of its keys"),
            help: "What is kept in memory, so that the registry is asked once for what many clients pull",
            more: "`off` passes every request on to the registry. A route may have a `cache` of its own. Nothing is written \
                   to disk, and what is kept may be dropped at any time."
        };

        access: Nested<AccessTable> {
            value: "TABLE",
            default: Default::Words("everybody who reaches the listener"),
            help: "Which clients may pull",
            more: "It is about a client's true address, also behind a balancer that sends the PROXY protocol. Whoever may not \
                   gets a 403 that says so."
        };

        egress: Nested<EgressTable> {
            value: "TABLE",
            default: Default::Words("the variables HTTPS_PROXY, ALL_PROXY and NO_PROXY, else no proxy"),
            help: "The forward proxy through which registries, blob storage and Entra ID are reached",
            more: ""
        };

        limits: Nested<LimitsTable> {
            value: "TABLE",
            default: Default::Words("the defaults of its keys"),
            help: "How much clients may ask for, and how much the cache registries are asked for",
            more: ""
        };

        threads: Value<usize> {
            flag: Some("threads"),
            value: "NUMBER",
            default: Default::Words("1, or 2 where a route has blobs: proxy"),
            example: "1",
            range: Some((1, 512)),
            help: "How many threads carry requests",
            more: "One thread carries a hundred times the requests that a registry allows. Layers that pass through the \
                   proxy take about one core for each few Gbit/s."
        } parse parse_threads;

        log: Short<LogTable> {
            flag: Some("log"),
            variable: Some("RUST_LOG"),
            value: "FILTER|TABLE",
            default: Default::Text("info"),
            pattern: FILTER,
            help: "What to log: a level, or a list such as warn,access=info",
            more: "The levels are `off`, `error`, `warn`, `info`, `debug` and `trace`. A list gives levels by target: \
                   `access` is the one line a request, `acr_cache_proxy` and its modules are all the rest, and a few \
                   libraries have targets too. `warn,access=info` keeps the access lines and drops other reports. An \
                   unknown target is an error; in `RUST_LOG`, which other programs read as well, it is an error only if \
                   it looks like a known one or if nothing else would be logged. `debug` and `trace` say no more than \
                   `info`: what libraries log there quotes requests, so it is not compiled in. In the file it may be a table, \
                   of which the filter is one key."
        };
    }
}

table! {
    /// An item of `listen`.
    LISTEN: ListenRows, ListenTable {
        address: Value<SocketAddr> {
            value: "ADDRESS",
            default: Default::Words("none; each item has `address` or `unix`"),
            example: "0.0.0.0:8080",
            help: "An address to listen on, in the forms of `listen` itself",
            more: ""
        } parse parse_listen;

        unix: Value<PathBuf> {
            value: "PATH",
            default: Default::Words("none"),
            example: "/run/acr-cache-proxy/clients.sock",
            help: "A Unix socket to listen on, for a balancer on the same host",
            more: "Its folder has to be there. A socket that an earlier process left behind is replaced; one that a process \
                   still serves, and a file of another kind, are errors. A symbolic link on the way to the folder is followed \
                   if root or the proxy's user made it, in a directory of one of them."
        } parse parse_unix;

        mode: Value<u32> {
            value: "MODE",
            default: Default::Text("0660"),
            help: "Who may connect to the Unix socket, as permission bits of its file",
            more: "With the default, that is the user and the group that the proxy runs as. `\"0666\"` is everybody who \
                   can reach the folder."
        } parse parse_mode;

        tls: Nested<TlsTable> {
            value: "TABLE",
            default: Default::Words("none: plain HTTP"),
            example: "{certificate: /etc/acr-cache-proxy/tls.crt, key: /etc/acr-cache-proxy/tls.key}",
            help: "TLS 1.2 and 1.3, and by ALPN HTTP/2 and HTTP/1.1: a table of files",
            more: "The files are read again every 5 seconds, and what is new in them counts for new connections. A pair that \
                   cannot be used changes nothing, and the log says so."
        };

        proxy_protocol: Nested<ProxyProtocolTable> {
            value: "TABLE",
            default: Default::Words("none: the peer of a connection is its client"),
            example: "{trusted: [10.0.0.5]}",
            help: "The PROXY protocol, version 1 or 2, by which a TCP balancer tells whose connection it passes on",
            more: "The header comes before TLS. The address in it is the client's in the log and in all limits; with LOCAL or \
                   UNKNOWN the real address counts."
        };
    }
}

table! {
    /// `upstream`, or an item of `routes`.
    ROUTE: RouteRows, RouteTable {
        domain: Value<Domain> {
            flag: Some("upstream-domain"),
            value: "HOST[:PORT]",
            default: Default::Required,
            example: "example.azurecr.io",
            help: "The login server of the cache registry, such as example.azurecr.io",
            more: "With a port if it is not 443."
        } parse Domain::parse;

        prefix: Value<Prefix> {
            flag: Some("upstream-prefix"),
            value: "PATH",
            default: Default::Text(""),
            example: "hub",
            help: "What goes before every repository name: the cache rule's target without its /*",
            more: "Empty, names go through as they are, and the whole registry is open.",
            if_empty: "set the cache rule's target without its /*, such as hub, or prefix: '' to open the whole registry"
        } parse parse_prefix;

        source: Value<Source> {
            value: "HOST[/PATH]",
            default: Default::Text("docker.io"),
            help: "What the cache rule is for: a registry, or a path in one such as docker.io/bitnami",
            more: "Of several routes the one with the longest source that fits is taken. An item of `routes` has to have it."
        } parse Source::parse;

        addresses: List<IpAddr> {
            value: "[IP, ...]",
            default: Default::Text("[]"),
            example: "[10.0.0.5]",
            help: "IP addresses to connect to instead of asking DNS for the domain",
            more: "TLS still verifies the domain. Routes that lead to the same domain with the same identity have the same \
                   addresses: they share its connections, `limits.registry_reads_per_minute` and what is kept."
        } parse parse_address;

        hosts: List<String> {
            value: "[HOST, ...]",
            default: Default::Text("[]"),
            example: "[ghcr.mirror.internal]",
            help: "Names of the proxy by which clients mean this source",
            more: "For clients that can name the source in no other way. The name is compared with the request's `Host`, \
                   with or without its port. The repository names below it are the source registry's own, also where \
                   `source` has a path."
        } parse parse_host;

        on_failure: Value<OnFailure> {
            value: "fallback|closed",
            default: Default::Text("fallback"),
            help: "What clients should do when a pull fails here: fallback or closed",
            more: "`fallback`: the client is to ask the source itself at once. `closed`: the client is to fail. What \
                   clients do is up to their configuration, which `acr-cache-proxy client-config` writes."
        } parse parse_on_failure;

        blobs: Value<Blobs> {
            value: "redirect|proxy_config|proxy",
            default: Default::Text("redirect"),
            help: "How clients get blobs: redirect, proxy_config or proxy",
            more: "`redirect`: clients fetch them from Azure's storage themselves. `proxy_config`: layers likewise, but an \
                   image's configuration comes from the proxy, which keeps it; no client then waits for the storage \
                   before it knows which layers it needs. `proxy`: all blobs pass through the proxy, for clients that \
                   cannot reach the storage."
        } parse parse_blobs;

        blob_hosts: List<String> {
            value: "[HOST, ...]",
            default: Default::Text("[]"),
            example: "[.blobs.internal]",
            help: "With blobs: proxy or proxy_config, more hosts that may hold blobs, besides Azure's own storage",
            more: "A host, with its port if that is not 443, or a suffix with a dot in front. With `blobs: \
                   redirect` it is an error."
        } parse parse_blob_host;

        cache: Switched<CacheTable> {
            value: "off|TABLE",
            default: Default::Words("the file's own cache"),
            example: "{tags: 5m}",
            help: "How long this route keeps what it fetched: off, or a table of the times in the file's `cache`",
            more: "A time that is not in the table is the file's. With `off` the route keeps nothing. `memory` and \
                   `prefetch` are for all routes and cannot be set here; an empty `prefetch` sets nothing."
        };

        identity: Nested<IdentityTable> {
            value: "TABLE",
            default: Default::Words("the file's own identity"),
            example: "{kind: anonymous}",
            help: "Who signs in to this domain: a table with the keys of the file's `identity`",
            more: ""
        };
    }
}

table! {
    /// How the process ends.
    DRAIN: DrainRows, DrainTable {
        notice: Value<Duration> {
            value: "TIME",
            default: Default::Text("0s"),
            pattern: "^[0-9]+(s|m|h)$",
            help: "How long after SIGTERM clients are still served as before, 0s to 5m",
            more: "`/readyz` says 503 at once. Behind a load balancer, set the time in which it notices that, such as `5s`."
        } parse parse_notice;

        timeout: Value<Duration> {
            value: "TIME",
            default: Default::Text("25s"),
            help: "How long requests under way may take after the notice, 1s to 1h",
            more: "The proxy ends as soon as none is left. Together with `notice` it has to be less than what the service \
                   manager waits: Kubernetes kills after 30 s, and Docker after 10 s. systemd waits as long as is needed."
        } parse parse_drain;
    }
}

table! {
    /// Who is told of a fault that lasts.
    NOTIFY: NotifyRows, NotifyTable {
        command: List<String> {
            value: "[WORD, ...]",
            default: Default::Text("[]"),
            example: "[/usr/local/bin/tell-operations, --queue, mirrors]",
            help: "A program and its arguments, run when a fault lasts and when it is over",
            more: "It is run without a shell, for 30 s at most, and one at a time; no request waits for it. \
                   [Told when it matters](operations.md#told-when-it-matters) has what it finds in its environment."
        } parse parse_word;

        after: Value<Duration> {
            value: "TIME",
            default: Default::Text("5m"),
            help: "How long a fault has to be there until it lasts, 1s to 24h",
            more: "A fault that is away for as long, a minute at most, is over."
        } parse parse_lasting;
    }
}

table! {
    /// What is logged, and how.
    LOG: LogRows, LogTable {
        filter: Value<String> {
            value: "FILTER",
            default: Default::Text("info"),
            pattern: FILTER,
            help: "What to log: what `log` is where it is no table",
            more: ""
        } parse parse_filter;

        format: Value<Format> {
            value: "text|json",
            default: Default::Text("text"),
            help: "How a line is written: text, or json, one object a line",
            more: "[Log](operations.md#log) has the fields of both."
        } parse parse_log_format;

        sample: Value<NonZeroU32> {
            value: "NUMBER",
            default: Default::Text("1"),
            range: Some((1, 1_000_000)),
            help: "Of so many requests that succeed, one has its line, 1 to 1000000",
            more: "A line that stands for several says so (`sampled`). What fails, is refused or is ended by its client has its \
                   line as without a sample."
        } parse parse_sample;
    }
}
