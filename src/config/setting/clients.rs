//! The rows of `access` and `limits`: which clients may pull, and how much.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::access::{NamePattern, Network, Share};
use crate::config::file::{Document, Node};
use crate::config::mistake::Place;
use crate::config::parse::{
    parse_burst, parse_client_connections, parse_client_requests, parse_connections, parse_header_size,
    parse_header_time, parse_reader_rate, parse_reads, parse_share,
};
use crate::config::table::{Default, Entry, List, ROW, Row, Shape, Table, Value, table};

table! {
    /// Which clients may pull.
    ACCESS: AccessRows, AccessTable {
        allow: List<Network> {
            value: "[NETWORK, ...]",
            default: Default::Text("[]"),
            example: "[10.0.0.0/8, 'fd00::/8']",
            help: "The networks whose clients may pull; an empty list is all networks",
            more: "A network is an address, or an address with the length of its prefix. An IPv4 address is IPv4 also where it \
                   comes as IPv6 (`::ffff:10.0.0.5`), so `::/0` is the addresses of IPv6 alone. A Unix socket's clients \
                   have no address; who may use it is up to its permissions."
        } parse Network::parse;

        certificates: List<NamePattern> {
            value: "[NAME, ...]",
            default: Default::Text("[]"),
            example: "['*.nodes.internal', 'system:node:*']",
            help: "The names of client certificates that may pull; an empty list asks for no name",
            more: "A common name or DNS name, or a URI (`spiffe://example.org/nodes/7`). `*.` in front stands for any name below \
                   a domain, `*` behind a `:` or `/` at the end for whatever follows. A client has to have one of these \
                   names and an allowed address. Each listener has to have a `client_ca` then, but for a Unix socket without \
                   `proxy_protocol`."
        } parse NamePattern::parse;

        deny: List<Network> {
            value: "[NETWORK, ...]",
            default: Default::Text("[]"),
            example: "[10.9.0.0/16]",
            help: "The networks whose clients may not pull, even if `allow` has them",
            more: ""
        } parse Network::parse;
    }
}

table! {
    /// How much clients may ask for, and how much the cache registries are asked for.
    LIMITS: LimitsRows, LimitsTable {
        connections: Value<NonZeroUsize> {
            value: "NUMBER",
            default: Default::Words("16384, or as many as the file descriptors suffice for"),
            example: "16384",
            range: Some((16, 1_000_000)),
            help: "The most connections of clients at once, 16 to 1000000",
            more: "File descriptors bound it as well, so more than these suffice for has no effect. A connection over it gets a \
                   503 at once. When only an eighth is left, idle connections are closed."
        } parse parse_connections;

        connections_per_client: Value<Option<NonZeroUsize>> {
            value: "NUMBER|off",
            default: Default::Text("off"),
            range: Some((1, 100_000)),
            help: "The most connections of one client at once, 1 to 100000, or off",
            more: "A client is an IPv4 address, or the first 64 bits of an IPv6 address. Off by default, because many hosts \
                   behind one NAT or one balancer without the PROXY protocol are one client here. A host that pulls has up to \
                   some 20 connections open. A connection over the limit gets a 503."
        } parse parse_client_connections;

        concurrent_requests_per_client: Value<Share> {
            value: "NUMBER|fair|off",
            default: Default::Text("fair"),
            range: Some((1, 100_000)),
            help: "The most requests of one client under way at once, 1 to 100000, or fair, or off",
            more: "With `fair` a client may have three times as many as there are places left for others: three quarters of all, \
                   1,536 as a rule, if nobody else asks, and fewer the more others ask. Clients are told apart as above: where many hosts are one \
                   client, raise it or switch it off. A request over it gets a 429."
        } parse parse_share;

        requests_per_second_per_client: Value<Option<NonZeroU32>> {
            value: "NUMBER|off",
            default: Default::Text("off"),
            range: Some((1, 100_000)),
            help: "The most requests of one client in a second, in the long run, 1 to 100000, or off",
            more: "Clients are told apart as above, and it is off by default for the same reason. An image takes about a dozen \
                   requests. A request over the limit gets a 429 whose `Retry-After` says when the next one passes."
        } parse parse_client_requests;

        request_burst_per_client: Value<NonZeroU32> {
            value: "NUMBER",
            default: Default::Words("those of ten seconds, at least 50"),
            example: "100",
            range: Some((1, 1_000_000)),
            help: "How many requests of one client may come at once, 1 to 1000000",
            more: "Without `requests_per_second_per_client` it is an error."
        } parse parse_burst;

        header_time: Value<Duration> {
            value: "TIME",
            default: Default::Text("20s"),
            help: "How long the whole header of a request may take, 1s to 2m",
            more: "The first of a connection from when that is accepted, further ones from their first byte, and so each frame of \
                   HTTP/2. A header is a packet or two; one that is lost three times arrives after 15 s. Beyond it is a 408."
        } parse parse_header_time;

        header_size: Value<usize> {
            value: "SIZE",
            default: Default::Text("64KiB"),
            help: "The most bytes of a request's header, 4KiB to 512KiB",
            more: "Real ones have less than 1 KiB. A larger one gets a 431."
        } parse parse_header_size;

        slow_reader_bytes_per_second: Value<Option<NonZeroU32>> {
            value: "NUMBER|off",
            default: Default::Text("500"),
            range: Some((1, 100_000)),
            help: "The fewest bytes a second that a client may take of an answer, 1 to 100000, or off",
            more: "Counted over a minute in which something waits to be sent, so a pause does no harm, and neither does a slow \
                   registry. Who takes less is cut off. The default is what Apache's mod_reqtimeout asks for; the slowest link \
                   over which images are pulled, by satellite or GPRS, has ten times that. With `off`, only a client that takes \
                   nothing at all for a minute is cut off; over HTTP/2, one that takes less than a piece of an answer, 64 KiB at \
                   most, in a minute."
        } parse parse_reader_rate;

        registry_reads_per_minute: Value<Option<NonZeroU32>> {
            value: "NUMBER|off",
            default: Default::Text("off"),
            range: Some((60, 100_000)),
            help: "The most reads a minute that each cache registry is asked for, 60 to 100000, or off",
            more: "Azure allows an identity 5,000 in Basic and Standard registries and 10,000 in Premium ones, and answers \
                   429 to the rest. Requests over this number wait in the order in which they came, 5 s at most. What would \
                   have to wait longer is answered at once, by what is kept or by 503 with `Retry-After`. A read \
                   that no client waits for, of `cache.prefetch` or of a redirect before its end, is skipped unless half of \
                   the reads that may go out at once are unused. One client \
                   can use the number up for all: `requests_per_second_per_client` bounds it. All \
                   that sign in as the same identity share what Azure allows, so give each of several proxies its part. The \
                   routes of one proxy share this number where they name the same registry and their `identity` says the \
                   same: one that `kind: default` finds in variables and the same one written out in another route count as \
                   two, so write it in one way."
        } parse parse_reads;
    }
}
