//! Every metric: its name, what it is, its labels, and what it means. What a scrape gives and docs/metrics.md are made of this.
//!
//! Names follow Prometheus's conventions: base units, `_total` for counters, which the formats add. No label has a value that a
//! client can choose: `route` is a source and `registry` a login server of the settings, all others are in
//! [`super::labels`] or named in the help text.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Only grows, until the process ends.
    Counter,
    /// A value of now.
    Gauge,
    /// Durations by size, in seconds.
    Histogram,
}

/// A metric.
#[derive(Debug)]
pub(crate) struct Family {
    /// Its name, without `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Type,
    /// The names of its labels, in the order of their values in a sample.
    pub labels: &'static [&'static str],
    /// What it means: a sentence without its full stop, which OpenMetrics wants added.
    pub help: &'static str,
}

impl Family {
    /// Its name as queries have it.
    #[cfg(test)]
    pub(crate) fn series(&self) -> String {
        let suffix = if self.kind == Type::Counter { "_total" } else { "" };
        format!("{}{suffix}", self.name)
    }
}

/// Declares the families and the list of all.
macro_rules! catalogue {
    ($($name:ident = $kind:ident $text:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = $help]
            pub(crate) static $name: Family =
                Family { name: $text, kind: Type::$kind, labels: &[$($label),*], help: $help };
        )+

        /// All of them, in the order of a scrape.
        #[cfg(test)]
        pub(crate) static ALL: &[&Family] = &[$(&$name),+];
    };
}

catalogue! {
    BUILD_INFO = Gauge "acr_cache_proxy_build_info" ["version", "build"]
        "Always 1: the version, the commit and the features of the program";

    REQUESTS = Counter "acr_cache_proxy_requests" ["route", "kind", "status", "cache"]
        "Requests of clients that are over, by route (its source, or none), kind (manifest, blob, tags, referrers, ping, other), status (0: nothing was sent; a status that is not common has its class, such as 5xx) and what the cache did (hit, revalidate, miss, refresh, collapsed, stale, pass, none)";
    REFUSED = Counter "acr_cache_proxy_requests_refused" ["route", "cause"]
        "Requests that were refused for a reason that is no mistake in them (403, 424, 429, 5xx, or a page instead of the registry's answer), after which clients may turn to the image's source, by route and cause (no_token, unresolved, egress, unauthorized, down, limited, queue, budget, unreachable, silent, broken, storage; registry_403, registry_424, registry_429, registry_5xx: the registry's own answer; page: that of something between this host and the registry; fault); what access or a limit refuses before a route is chosen is in acr_cache_proxy_refusals_total";
    FIRST_BYTE = Histogram "acr_cache_proxy_request_first_byte_seconds" ["route", "kind"]
        "From the end of a request's header until the header of its answer goes to the client";
    WHOLE = Histogram "acr_cache_proxy_request_duration_seconds" ["route", "kind"]
        "From the end of a request's header to the end of the answer";
    BODY_BYTES = Counter "acr_cache_proxy_response_body_bytes" ["route", "kind"]
        "Bytes of bodies that went to clients; layers that clients fetch from storage by a redirect are not among them";

    CALLS = Counter "acr_cache_proxy_upstream_requests" ["registry", "hop", "result"]
        "Calls that are over, each try counted, by registry, hop (identity: Entra ID or the machine's identity endpoint; exchange and token: the registry's token endpoints; read: manifests, lists, and where a blob is; storage: blobs through the proxy) and result (ok, not_found, limited: 429, refused: other 4xx, failed: 5xx or no valid answer, unreachable: no connection or no answer)";
    CALL_DURATION = Histogram "acr_cache_proxy_upstream_request_duration_seconds" ["registry", "hop"]
        "From sending a call to the header of its answer; a call for a token to the end of the answer";

    READY = Gauge "acr_cache_proxy_ready" []
        "Whether /readyz says 200";
    REGISTRY_READY = Gauge "acr_cache_proxy_registry_ready" ["registry"]
        "Whether there is a valid token, for every identity that signs in to this registry";
    TOKEN_AGE = Gauge "acr_cache_proxy_token_age_seconds" ["registry", "token"]
        "Age of the oldest token in use: refresh, which a sign-in gives, or access, with which the registry is read; no access token where each repository has its own";
    TOKEN_LEFT = Gauge "acr_cache_proxy_token_remaining_seconds" ["registry", "token"]
        "Time to the end of the token that ends first; 0 if it has ended. Tokens are renewed after half to two thirds of their life";
    TOKEN_FAILING = Gauge "acr_cache_proxy_token_failing_seconds" ["registry"]
        "How long the sign-in or the renewal of tokens has been failing; 0 if it works";
    REPOSITORY_TOKENS = Gauge "acr_cache_proxy_repository_tokens" ["registry"]
        "Tokens of single repositories, as registries in ABAC mode give them";

    DOWN = Gauge "acr_cache_proxy_registry_down" ["registry"]
        "Whether the registry is known to be down: it is probed until it answers, and requests get what is kept or fail at once";
    PAUSES = Counter "acr_cache_proxy_registry_pauses" ["registry"]
        "How often the registry has asked for a pause: 429, or 503 with Retry-After";
    PAUSE_LEFT = Gauge "acr_cache_proxy_registry_pause_remaining_seconds" ["registry", "call"]
        "What is left of the pause that the registry has asked for, by what is not asked for meanwhile (manifests, blobs, lists); 0 without one";
    STALE = Counter "acr_cache_proxy_stale_answers" ["registry"]
        "Answers that were stale because of trouble with the registry, its sign-in or a cache rule's source";
    BUDGET = Gauge "acr_cache_proxy_registry_budget_reads_per_minute" ["registry"]
        "limits.registry_reads_per_minute; absent if it is not set";
    BUDGET_WAIT = Gauge "acr_cache_proxy_registry_budget_wait_seconds" ["registry"]
        "How long a read that came now would wait for its turn; above 5 s it is refused. Absent without a budget";

    CACHE_BYTES = Gauge "acr_cache_proxy_cache_bytes" []
        "What is kept, headers and keys counted";
    CACHE_MAX_BYTES = Gauge "acr_cache_proxy_cache_max_bytes" []
        "cache.memory; 0 with cache: off";
    CACHE_ENTRIES = Gauge "acr_cache_proxy_cache_entries" []
        "Entries that are kept";
    CACHE_EVICTED_BYTES = Counter "acr_cache_proxy_cache_evicted_bytes" []
        "Bytes of entries that had to go for others";
    CACHE_EVICTED = Counter "acr_cache_proxy_cache_evicted_entries" []
        "Entries that had to go for others";
    CACHE_HITS = Counter "acr_cache_proxy_cache_hits" ["kind"]
        "Requests answered from memory, by what was kept (tags, manifests, missing, redirects, lists, configurations)";
    CACHE_PASSED = Counter "acr_cache_proxy_cache_passed" ["reason"]
        "Requests that went to the registry by themselves, by reason (kind, accept, full, answer, fault)";
    CACHE_SAVED = Counter "acr_cache_proxy_cache_reads_saved" []
        "Requests for which no registry was asked: hits, collapsed ones, and stale ones that cost no read; also those that then passed because their client does not accept the type";
    FLIGHTS = Gauge "acr_cache_proxy_cache_flights" []
        "Reads under way whose answers will be shared, those that wait for their turn or for a token included";

    CONNECTIONS = Gauge "acr_cache_proxy_connections" ["listener"]
        "Open connections, by listener (clients, admin)";
    ACCEPTED = Counter "acr_cache_proxy_connections_accepted" ["listener"]
        "Connections that were accepted, by listener (clients, admin), those that were refused then included";
    MAX_CONNECTIONS = Gauge "acr_cache_proxy_connections_max" ["listener"]
        "The most connections at once";
    IN_FLIGHT = Gauge "acr_cache_proxy_requests_in_flight" []
        "Requests of clients under way";
    MAX_IN_FLIGHT = Gauge "acr_cache_proxy_requests_in_flight_max" []
        "The most requests at once";
    REFUSALS = Counter "acr_cache_proxy_refusals" ["reason"]
        "Connections and requests refused before they were looked at, by reason (connections, requests: too many at once; network: access.allow and access.deny; certificate: access.certificates; connections_per_client, concurrent_requests_per_client, request_rate: limits of a client; header_time, header_size, malformed: no request came of it; slow_reader: the client took too little of its answer; reset: the client took its HTTP/2 request back before it began)";
    HANDSHAKES = Counter "acr_cache_proxy_tls_handshakes" ["result"]
        "TLS handshakes of clients that are over, by result (ok; no_certificate, bad_certificate: the client's; refused_by_client: it does not take the server's certificate or versions; client_left; failed: no handshake that is spoken here; not_tls; too_slow; too_many: under way)";
    PROXY_HEADERS = Counter "acr_cache_proxy_proxy_headers_refused" ["reason"]
        "Connections that ended because of a PROXY protocol header, by reason (untrusted: its sender; missing, malformed, too_long, too_slow)";
    CERTIFICATE_END = Gauge "acr_cache_proxy_listener_certificate_end_timestamp_seconds" ["address"]
        "When the certificate ends that a listener with TLS has in use, in seconds since 1970, by the listener's address as the log has it";
    LOG_DROPPED = Counter "acr_cache_proxy_log_lines_dropped" []
        "Log lines that were dropped because standard error was not read";
    SPANS = Counter "acr_cache_proxy_spans" ["result"]
        "Spans of requests that are over, of a program built with the feature otlp, by result (exported; queue_full: dropped because the collector is slow or gone; not_taken: refused by the collector, or not taken in time)";

    CPU = Counter "process_cpu_seconds" []
        "Processor time of this process, in user mode and in the kernel";
    RESIDENT = Gauge "process_resident_memory_bytes" []
        "Resident memory";
    VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Virtual memory";
    DESCRIPTORS = Gauge "process_open_fds" []
        "Open file descriptors";
    MAX_DESCRIPTORS = Gauge "process_max_fds" []
        "The most file descriptors: the soft limit";
    THREADS = Gauge "process_threads" []
        "Threads of this process";
    START = Gauge "process_start_time_seconds" []
        "Start of this process, in seconds since 1970";
}

#[cfg(test)]
mod tests;
