//! acr-cache-proxy: pulls go through Azure Container Registry's cache, signed in with the machine's identity.
//!
//! Container clients ask this proxy without credentials. It rewrites `/v2/<name>` to `/v2/<prefix>/<name>`, adds the
//! registry's bearer token and passes the answer on; a redirect to blob storage goes to the client as it is.
//!
//! # Map, in the order of a request
//!
//! ```text
//! main -> run -> cli -> config     arguments and file become values that cannot be wrong
//!   cli::serve, cli::check, cli::doctor, cli::init, cli::client_config, cli::warm, cli::reload, cli::bench, cli::demo    the flags of each command
//!   cli::generate, cli::completions    manual pages and the schema, completions of shells, for packages
//!   cli::mirror, cli::taken, cli::missing    flags of two of them; a command that this build leaves out
//!   cli::exit                        how a command line that starts nothing ends
//!   config::setting                every setting in one row: key, flag, variable, parser, default, words
//!     config::setting::cache, config::setting::clients, config::setting::identity    the rows of these tables
//!   config::parse, config::mistake   values out of text, and what is wrong with one
//!   config::file, config::tree, config::table    the file, its values with their lines, its tables
//!     config::hint                   why a text is not YAML
//!   config::listener, config::address    the listeners for clients; the forms of an address
//!   config::tls, config::proxy_protocol    what a listener asks of each connection
//!   config::access, config::routes, config::domain, config::identity, config::kind
//!   config::credential, config::service_user    files that systemd hands to the unit alone; those that its user may not read
//!   config::change                 what differs between two configurations, and when that takes effect
//!   config::log, config::notify, config::drain    what is logged, and how; who is told of a fault; how long the end takes
//!   config::doubt                  what is likely not meant, though it is no mistake
//!   config::cache                  what may be kept, and how long, of the file and of each route
//!   config::egress                 the proxy on the way out
//!   config::schema                 the settings as a JSON schema
//! serve                            puts the parts together; below it:
//!   reload                         the settings are read again, and take effect as a whole or not at all
//!   announce, error                what the log says at the start and of listeners; why there is no start
//!   takeover, upgrade, handover, standing    from when on clients are served; another process takes this one's place; what clients would lose by it
//!   registry, table                one registry, of its settings; the routes, replaced while requests run on the earlier ones
//!   spans, rounds                  whether spans are exported; what is done every few seconds
//!   upkeep                         what keeps the tokens and addresses of each registry of the table fresh
//!   listen                         clients' connections:
//!     set                            the listeners that are open, replaced while they are served
//!       bind, inherited                their sockets: bound, or handed over
//!     opening                        what comes before the first request, in one limit of time:
//!       tls, certificate, sessions     handshakes; files that are looked at again and again; how long sessions are resumed
//!     places                         which connection to the admin listener ends where there is no place for another
//!     listener, http                 accepts connections, gathers their requests' headers within bounds
//!     connection, socket             what Pingora reads of a connection; its write buffer, below TLS
//!       pace, unsent                   a client that takes next to nothing is given up; what the kernel keeps for one
//!     near_timer                     spares the timers of requests their system calls
//!     header, frames, fields         where an HTTP/1 header ends; the time of an HTTP/2 frame, the fields of a header block
//!     h2                             gives each request over HTTP/2 its deadlines
//!     refusal                        the answer to what never becomes a request
//!     descriptors                    how many connections and requests the file descriptors suffice for
//!     signal, drain, exit            which signals or stopped parts end the process, step by step, and what it waits for
//!   net::addresses                 names of registries, storage and sign-in: looked up in the background, connected to
//!     lookup, connect, way, table, call
//!   net::egress                    which of them are behind a forward proxy: the setting, variables, what is exempt
//!     url, rules
//!   net::tunnel                    CONNECT through that proxy, and what its refusals mean
//!     tls                            TLS to the proxy itself, and the pair of sockets by which Pingora keeps such a tunnel
//!   identity                       Entra token: a named source or the default chain; azure_identity's and our own
//!     chain, source                  the sources of this host in order; the kinds of source
//!     variables, inputs              what a source is configured by, and given
//!     client_secret, client_certificate, workload_identity, managed_identity, azure_arc, azure_cli
//!     azure, transport               the adapter of azure_identity, and its HTTP client
//!     remedy                         what to do about a sign-in that fails
//!   token                          registry tokens: one background task calls, requests only read
//!     token::state                 what they are now: one value, published by that task, read without a lock
//!     token::refresh               that task: renews tokens before they end
//!       eviction, outcome            which repositories lose their token, and what follows from a call
//!     token::table, pending        tokens of single repositories, and who waits for a first one, in turns of clients
//!     token::schedule, backoff     when a token is renewed, and the pauses between failures
//!     token::report                what the log says of failures
//!     token::slot                  one token, as requests read it
//!     token::acr                   the two calls to the registry
//!   cache                        what is kept of the registry's answers, pure:
//!     key, entry, store                its name, for how long it may be used, the bound on all of it
//!     flights, lookup                  one request asks for an object, however many want it; what each gets
//!     counters                         what it has done
//!   proxy                          Pingora's phases, in their order:
//!     admit                          request_filter: parsed by oci, routed, or refused; needs no token
//!       hop_by_hop                     what `Connection` lists goes no further, in either direction
//!     shield                         request_filter, then: the answer from what is kept, or from a flight that requests share
//!       answer, signature              made of what is kept; of an image whose signature is not known
//!       relocate                       upstream_response_filter: another redirect in place of a kept one that storage refuses
//!     cache_status                   what `Cache-Status` says of an answer
//!     fetch                          what a flight asks the registry, and again where that may help
//!       body, judge, content           reads a body within bounds; what an answer is to those who wait; what clients may have of it
//!       redirect                       when a redirect ends
//!       configuration                  the configuration of an image: from storage, whose redirect proves the right to it
//!       image                          what a manifest names: its configuration, and what is prefetched
//!     call                           one call on connections of our own, for flights and for `blob::locate`
//!     connections                    these connections, kept from one call to the next
//!     health                         how each registry does: what is asked of it, and what follows from its failures
//!       breaker, stale                 whether it is known to be down; since when stale answers stand in
//!       pause, limited, turn           the pause that it asks for, and when that is over; how many requests a minute go out
//!       place                          how many at once, and whose turn is next
//!       held                           since when its budget holds requests back
//!       aside                          what of its storage is not asked for by this proxy for a while
//!     probe                          what requests tell of it, and the probe that looks whether it is there
//!     authorize                      proxy_upstream_filter: a token for the repository, waited for if it is on its way
//!     blob                           with `blobs: proxy`:
//!       locate                         follows a redirect of the shield's; without the cache, asks for it in proxy_upstream_filter
//!       redirect, hosts, range         its redirect, which hosts may be storage, which part of it an answer is
//!       storage                        the phases of a request to storage
//!     forward                        upstream_peer to upstream_response_filter: the registry's address, request, response
//!     foreign                        what is not the registry's answer, by its header, and what is read by its body
//!     refused                        whether a 401 or 403 is about a right or about a fault elsewhere
//!     deadline                       connected_to_upstream: the time for the whole header of a response
//!     retry, epoch                   fail_to_connect, error_while_proxy: whether it is sent again, on which kept connections
//!     behind                         the same where an egress proxy is between
//!     relay                          response_filter: drops headers that are not for the client
//!       pace                           how long a client may take for a piece of an answer over HTTP/2
//!       names, framing, bounds         renames what is, how the end of a body is told, how much of it may pass
//!     held_body, room                a body that is held to its end; what all those take together
//!     reply, fail                    fail_to_proxy: this proxy's own answers, by the one table of failures
//!     registry_error                 the registry's own, for the log
//!     log                            logging: one line, of bounded fields
//!       log::span                      the same as the end of a span
//!     measure                        what requests and their calls add to the metrics
//!     served                         what its phases know besides: the place of its connection among those of its client
//!     context                        what a request carries through the phases, of these:
//!     target, endpoint               what the request asks for
//!     trace                          the trace that it is part of
//!     span (feature)                 its span, which is begun
//!     destination                    which registry it goes to
//!     attempts                       what changes from one try to the next
//!     trial                          one pull without all of that, for check
//! proxy_protocol (a crate of its own)    where a balancer's header ends, and whose connection it tells
//! oci (a crate of its own)         the registry's vocabulary, pure: names, requests, errors, and the client's names in answers
//!   route                          which repository of which cache registry stands for the one that is asked for
//!   printable, quote               text of others, so that no terminal obeys it; what a server says, without what it was sent
//! admin                            /, /status, /healthz, /readyz, /metrics, /cache and /cache/purge, on a listener of their own
//!   health, cache, purge, named    what is answered to each, and the image that a query names
//!   metrics, process               the catalogue with its numbers; what the kernel says of this process
//!   page, status, history, ways    the page for people, what it reads, a point for its plots every few seconds, and what routes it tells
//! alarm                            faults that last: told, remembered each hour, over
//!   watch, command                   looks for them; runs `notify.command`
//! control                          the socket by which `reload` asks a running proxy
//!   found, owner, variables          which process may be asked; who has a control socket; which variables it was started with
//! notify                           what the service manager is told: ready, status, stopping
//!   watchdog                         fed while all that serves answers
//! failure          why there is no token: below identity and token, which fail in its terms
//! file, value      files of others, read within limits; secrets and ids, cleaned or refused
//! browser                          tells a request of a browser from one of a container client
//! access                           who may pull, and how much: asked at the begin of a connection and with each request
//!   network, client                  networks of addresses; who counts as one client
//!   certificate                      names of client certificates
//!   bounds                           what everybody keeps to
//!   connected, share, rate, turns    the connections of each client, its requests under way, those a second, whose turn is next
//!   refusals                         what was refused, by reason, and which of it has a line in the log
//! peer                             what TLS has told about the client of a connection
//! load                             connections and requests under way: counted, bounded, awaited by the drain
//!   load::opening                    what came of connections before their first request
//! liveness                         asks the parts that serve whether they do, and finds threads that hang
//! label                            closed sets of values with names
//! metrics                          what is measured of requests and calls: arrays of atomics, found when a table is made
//!   catalogue                      the name, type, labels and meaning of every metric
//!   labels, histogram, meter       closed sets of label values; durations; what requests and calls add to
//!   spans                          what becomes of spans
//!   recent, history                bounded: images, clients, failed requests; the last quarter of an hour
//!   refused                          requests after which a client may turn to the source, of the last hour
//! net::trust                       CA certificates, the system's and private ones, for every TLS connection
//! net::certificate, net::verifier, net::client    what is wrong with a server's; another look at one; the HTTP client of other calls
//! chroot                           where a path of a tree leads, whose root is the tree's
//! directory                        a path below a root, walked so that no link of somebody else leads out of it
//! replace                          a file in the place of another one, in one step
//! environment_file, service_variables    the variables of a unit of systemd; taken by commands that go the service's way
//! installed, activation            which programs and units a host has, by their files; at which sockets systemd listens for a service
//! host, unit                       files of a host, read within bounds; what its systemd starts a program with
//!   unit::lines                      the lines of systemd's files
//!   unit::manager, unit::specifier   what systemd gives to every service; `%n` and so on in units
//!   unit::own, unit::handed          whether this program's own service has other settings than a command; its variables and credentials
//! program                          runs one to its end, and ends it with its process group
//! glob, shell                      whether a name is one of a pattern's; a text as one word of a command that is shown
//! secret, answer, digest           masked values; what servers say; whether content is what its digest says
//! logger                           the log
//!   filter, directives             which records are logged
//!   format, json, field            one record is one line or one object, and no value can forge a field
//!   writer                         a thread that writes to standard error, so that no request waits for it
//!   flood                          a bound on the lines that hostile clients cause
//! otlp (feature)                   spans of requests for a collector of OpenTelemetry
//!   settings, sampler                variables of the environment; which requests have a span
//!   span, message                    what of a request is exported; the same as OTLP has it
//!   queue, export                    spans that wait, and their thread; batches, attempts, losses
//!   collector                        one call to the collector
//! check                            what is wrong with the settings, and where the way to a registry breaks; exits
//!   configuration, warnings          all that a start would say of the settings
//!   images                           which image each route is asked for
//!   way, registry, pull              the ways to all registries: to a registry's token; from there to the first bytes of a blob
//!   reach, certificate               the way to one host; what its certificate says
//!   steps, report                    a hop has its line, and what follows a failure none; text and JSON
//! doctor                           whether this host's engines pull through the proxy, and what to do where they do not; exits
//!   ask, expected, settings          daemons of the host, asked within bounds; what the settings ask of engines; settings to judge nothing by
//!   started, failed                  how an engine is started; whether its service has failed
//!   trust, trust::shown, trust::clients, trust::presented    whether engines trust a proxy that speaks TLS; whether it takes their certificates
//!   forward_proxy                    whether an engine asks a forward proxy for it
//!   proxy, dockerd, containerd, podman, buildkitd, k3s    what is wrong with each, of what was read
//!   proxy::down, proxy::mirror, proxy::behind    why a proxy does not answer; what is at the address of --mirror; why it would not start again
//!   proxy::older, proxy::closed      variables of before; files that its user may not read
//!   dockerd::hub, dockerd::others    Docker Hub, by daemon.json or a flag; other registries
//!   dockerd::former, dockerd::second, dockerd::insecure    mirrors where the proxy was before; other processes of dockerd; mirrors without TLS's checks
//!   containerd::enable               whether containerd looks for hosts.toml, and the command for that
//!     containerd::settings             which table of its files counts
//!   pull, pull::failure, asked       a pull by each engine that runs; why it fails; whether the proxy was asked for the image
//!     hosts_toml                       files that containerd and dockerd read
//!     registries_conf                  files that podman and CRI-O read
//!       fault, shape, aliases, blocking  why one fails every pull; its keys and their types; its short names; what it blocks
//!       release, files, users, owner     releases that differ in what they read; which files count for whom; those of one user; who changes one
//!       certificates, signed             those for an address that cannot be loaded; signatures that nobody looks for there
//!     policy                           what podman accepts
//!   finding, report                  what is wrong, why it matters, what to do; text and JSON
//! init                             prepares a host step by step, each shown and agreed to
//!   ask, settings                    questions within bounds; what the answers make of the configuration
//!   trial                            check, with the variables that the service has
//!   step, port                       which of them can be left out; who listens where the proxy is to
//!   served, running                  what a proxy that listens already serves; whether it is the host's own, and goes by the configuration
//!   service, engines                 the unit's start; which clients the host has, and their files
//!   place, left                      the configuration in its place, with a copy of the one before; what is left to do, or nobody has agreed to
//! client_config                    files by which clients come here
//!   task                             shows, checks, writes, merges or removes them
//!   address                          which addresses are the proxy's
//!   look, standing                   what is in the place of each, and whether it stands as it would be written
//!   install, amend, prune            writes a file, adds to one of somebody else, finds and removes those from here
//!   left, untouched                  what --remove leaves; why --write leaves a file, and what mends that
//!   node, certificates               which file of mirrors a node of k3s or RKE2 reads; which certificates files name for the mirror
//!   by_flag, gone                    what dockerd is told by a flag, not by its file; addresses of the proxy where nobody listens
//!   masked, text                     a text of somebody else as it is shown, without its secrets; TOML and JSON by keys
//!   hosts_toml, hosts_toml::fault, podman::release, podman::signatures    what others say in hosts.toml and registries.d
//!   podman::policy, podman::policy::requirement    what images podman is to take; why one of its requirements is refused
//!   containerd, nerdctl, docker, docker_desktop, podman, buildkit, kubernetes, k3s    the files of each client
//!   talos, kaniko                    a patch and flags, for clients without files
//!   merge                            what somebody else's file lacks, and the file with it, pure:
//!     daemon_json, buildkitd_toml, registries_yaml
//! warm                             images through a running proxy before a roll-out; a client, like the one of bench
//!   client, failure                requests with their deadlines and pauses; why one fails
//!   image, content, report         one image in an engine's order; whether it is the image's content; what a run says
//! client_tls                       whom `warm` and `bench` trust, and the certificate that they present to a proxy
//! demo (feature)                   a pull through this program against an emulator of Azure
//! bench (feature)                  hands the crate below what it needs of this program
//!   emulated                       an emulator and a proxy for `bench --emulated`
//! hot_path (feature)               what tests and benches measure of a request's way
//!   served                         a whole request, of a hit
//! child                            the proxy as a child process, for demo and bench
//! acr_bench (a crate of its own)   pulls through a proxy and direct ones, measured; a client, without pingora
//! ```
//!
//! # Flow
//!
//! The `upkeep` service owns every call that is not a pull: the registry's DNS, Entra ID, `/oauth2/exchange`,
//! `/oauth2/token`. Only storage's names are looked up for requests, once for all that want the same name. A request
//! takes the token that is there. If none is there yet it waits for the call under way, `token_wait` at most; it never
//! makes a call of its own, so a thousand requests cause one.
//!
//! `request_filter` answers what is kept, which needs neither network nor token and so works without a sign-in. What can be
//! kept and is not is asked for by a flight, one for each object, whose answer is whole and checked before anybody gets a
//! byte of it. The request that came first drives it; if its client leaves, the rest goes on in a task of its own. All other
//! requests go on through Pingora's phases; they ask for a token in `proxy_upstream_filter`, which Pingora calls once before
//! its first try.
//!
//! # Layers
//!
//! A module imports only from lower lines.
//!
//! ```text
//! run
//! demo
//! cli
//! init
//! check, doctor
//! bench, client_config, hot_path, serve, warm
//! client_tls
//! admin, child, control, listen
//! alarm, notify
//! proxy
//! activation, cache, otlp, service_variables, token
//! identity
//! config, failure
//! logger, net, replace
//! unit
//! host
//! environment_file
//! answer, browser, digest, directory, file, installed, liveness, load, metrics, peer, program, secret, value
//! access
//! chroot, glob, label, shell
//! ```
//!
//! # Invariants
//!
//! Each names the tests that hold it; `tests/tidy` checks that they exist, the map and the layers.
//!
//! - `oci` depends on neither pingora nor tokio nor anything else that opens connections; imports form no circle and point
//!   from upper layers to lower ones.
//!   Held by `tidy::oci_depends_on_no_network`, `tidy::imports_form_no_circle`,
//!   `tidy::imports_point_from_upper_layers_to_lower_ones`.
//! - Of a parsed request only the headers of an allow-list are left, and the request to the registry is made of these. One
//!   place sets `Authorization` for the registry; no header of the client that carries a credential is read anywhere.
//!   Held by `integration::pull::only_headers_that_the_registry_needs_are_passed_on`, `tidy::authorization_is_set_in_one_place`.
//! - The path to the registry is written from parsed parts, so it begins with `/v2/<prefix>/` whatever the client sent.
//!   Held by `oci::request::tests::nothing_gets_out_of_the_prefix`,
//!   `oci::route::tests::no_name_gets_out_of_its_routes_prefix`.
//! - A registry without a route is refused: nobody reaches one cache rule by the name of another.
//!   Held by `integration::routes::a_name_goes_to_the_registry_and_the_prefix_of_its_source`,
//!   `oci::route::tests::without_a_default_a_name_alone_has_no_route`.
//! - Manifests pass byte for byte, and so does a redirect to storage that the client is to follow.
//!   Held by `integration::bodies::a_manifest_passes_byte_for_byte_in_every_framing`,
//!   `integration::names::a_redirect_to_the_registry_itself_leads_to_the_proxy_and_others_are_unchanged`.
//! - A token goes to the registry's own host over TLS and nowhere else. The one redirect that the proxy follows, of a layer or
//!   a configuration to a storage host on its list, is followed without the token.
//!   Held by `faults::token_leak::neither_a_challenge_nor_a_redirect_leads_a_token_to_another_host`,
//!   `integration::blobs::a_proxied_blob_passes_whole_and_in_ranges_and_no_token_goes_to_storage`,
//!   `integration::blobs::a_redirect_to_a_host_that_is_not_storage_is_refused`,
//!   `integration::configurations::no_configuration_is_fetched_from_a_host_that_is_not_storage`.
//! - What leaves goes through the egress proxy or, for a host that is exempt, directly: pulls, storage and calls for tokens by
//!   one rule. The identity endpoints of the machine are asked directly. Credentials of the egress proxy go to no one else.
//!   Held by `integration::egress::sign_in_pulls_and_blobs_go_through_tunnels_which_are_kept`,
//!   `integration::egress::a_proxy_that_is_spoken_to_over_tls_carries_all_of_it_and_its_tunnels_are_kept`,
//!   `integration::egress::the_identity_endpoints_of_the_machine_are_asked_directly`,
//!   `integration::egress::credentials_of_the_egress_proxy_go_to_no_one_else`.
//! - Of blobs only the configurations of images are kept, each in the repository whose manifest has named it, whole and with its
//!   digest. That the identity may have one is proved anew within `cache.manifests`.
//!   Held by `integration::configurations::what_is_no_configuration_to_keep_is_a_layer`,
//!   `integration::configurations::where_storage_gives_no_configuration_clients_are_redirected_to_it`,
//!   `integration::configurations::the_right_to_a_configuration_is_proved_again_and_its_body_is_not_fetched_again`.
//! - What root writes or removes below a tree stays in it: no link of a user is followed, whenever it came.
//!   Held by `clients::links::a_users_link_leads_root_nowhere_and_roots_link_is_followed`,
//!   `clients::links::a_users_link_leads_init_nowhere`.
//! - Secrets and tokens are in no log line, also where a server repeats what it was sent. No client gets a sentence of a sign-in that has
//!   one of them, nor a header of the registry that has its whole token as it is.
//!   Held by `integration::pull::no_secret_is_in_the_log_at_trace`, `secret::tests::prints_as_a_mask`,
//!   `integration::credentials::a_secret_that_a_server_repeats_in_its_refusal_reaches_neither_clients_nor_the_log`,
//!   `integration::pull::a_token_that_is_repeated_in_a_header_reaches_no_client_and_no_part_of_it_the_log`,
//!   `token::slot::tests::in_a_header_the_whole_token_is_found_as_it_is_and_in_no_other_spelling`.
//! - What others have written is printed so that a terminal shows it and obeys none of it.
//!   Held by `integration::terminal::a_key_or_a_file_name_with_escapes_is_shown_and_not_obeyed`,
//!   `integration::terminal::what_a_registry_and_a_proxy_say_runs_in_no_other_direction`,
//!   `integration::terminal::a_file_of_an_engine_that_is_shown_runs_in_no_other_direction`.
//! - Reading a token takes no lock that a renewal holds. A token is used until its own end, by the registry's clock as the
//!   token states it, not by this host's.
//!   Held by `faults::matrix::under_load_no_pull_fails_while_a_token_is_good`,
//!   `faults::clocks::two_hours_of_clock_skew_either_way_do_no_harm`, `faults::clocks::a_token_is_not_sent_after_its_end`.
//! - A request allocates nothing on its way to the registry but the path of the request that goes out, and for an answer that is
//!   kept the header that goes to the client.
//!   Held by `allocations::a_request_allocates_its_target_and_a_hit_its_header`.
//! - Constructors do no network I/O: the program listens whether or not Azure is there.
//!   Held by `integration::identity::it_listens_at_once_and_recovers_when_azure_comes_late`.
//! - What is kept outlasts the registry, its sign-in and its storage. A right that has ended takes what was kept of the repository
//!   away; a 401 or 403 about a cache rule's source does not.
//!   Held by `faults::kept::what_is_kept_outlasts_every_fault_and_what_is_not_fails_in_time`,
//!   `faults::outage::an_outage_of_ten_minutes_fails_no_warm_pull_and_ends_without_a_stampede`,
//!   `proxy::refused::tests::a_right_that_has_ended_is_told_from_trouble_elsewhere`.
//! - Nobody waits for a registry that is known to be down. One probe at a time looks whether it is back, and no repository that
//!   fails alone takes others with it.
//!   Held by `faults::down::a_registry_that_is_down_is_not_asked_until_a_probe_finds_it_back`,
//!   `faults::down::a_repository_that_fails_alone_takes_no_other_with_it`,
//!   `integration::cache::trouble::a_request_that_passes_the_cache_ends_when_the_registry_is_known_to_be_down`.
//! - Routes to one registry that sign in as the same identity share what the registry counts together, its reads and its pauses,
//!   whether it is down, and what is kept.
//!   Held by `integration::cache::routes::routes_to_one_registry_have_one_budget`,
//!   `integration::cache::routes::routes_to_one_registry_have_one_breaker`,
//!   `integration::cache::routes::routes_to_one_repository_have_one_purge`.
//! - Every wait, body, header, retry and table has a named bound, and so have connections and requests. What exceeds one is
//!   refused at once, and descriptors are kept back for the admin listener and for registries.
//!   Held by `integration::limits::connections_over_the_limit_are_refused_at_once_and_readyz_still_answers`,
//!   `integration::limits::requests_over_the_limit_are_refused_at_once`,
//!   `integration::downstream::a_header_over_64_kib_is_refused`,
//!   `integration::downstream::a_slow_header_is_refused_after_its_time_limit`.
//! - What is kept is given out only as what it is, and no longer than it may be: content by its digest, of its own registry
//!   and repository, a tag no older than its lifetime and as long again, more only in trouble, a redirect never beyond its
//!   time. One object has one flight at a time, whose end no client decides, and nothing of it is left afterwards.
//!   Held by `cache::tests::every_answer_is_one_that_the_reference_allows`,
//!   `cache::tests::the_same_holds_where_most_of_it_is_evicted`,
//!   `cache::tests::a_client_that_leaves_changes_nothing_for_the_others`,
//!   `cache::tests::a_thousand_requests_at_once_are_one_flight_for_each_object`,
//!   `proxy::fetch::tests::each_answer_is_judged_by_what_was_asked_for`.
//! - All that is kept stays within `cache.memory`, names and headers counted, and shares no memory with what it came in. What else
//!   is held of bodies, for clients that do not read them too, has a bound in common.
//!   Held by `integration::memory::the_memory_of_many_names_stays_within_its_bound`,
//!   `integration::memory::lists_that_nobody_reads_stay_within_their_room`,
//!   `proxy::fetch::content::tests::what_is_kept_shares_no_memory_with_the_response`.
//! - The address of a client is the peer's, or that which a trusted balancer tells; nobody else's word counts.
//!   Held by `integration::proxy_protocol::the_log_has_the_address_that_a_trusted_balancer_tells`,
//!   `integration::proxy_protocol::a_header_of_nobody_trusted_is_refused_and_named`.
//! - Who may not pull, by address or by the names of a certificate, is refused before anything is asked for it, also on
//!   connections that are open when the rules change. Whose address may not pull costs no handshake.
//!   Held by `integration::access::who_may_not_pull_is_told_so_and_nothing_of_it_reaches_the_registry`,
//!   `integration::certificates::who_may_pull_is_limited_to_names_of_certificates`,
//!   `integration::certificates::names_that_are_added_by_a_reload_count_for_connections_that_are_open`,
//!   `integration::certificates::a_client_whose_address_may_not_pull_is_turned_away_before_the_handshake`,
//!   `access::tests::deny_wins_and_no_allow_is_everybody`,
//!   `access::certificate::tests::a_name_fits_by_itself_or_below_a_star_and_only_where_it_is_of_that_kind`.
//! - No client has more than its part of connections, of requests, and of the time in which a slow one holds what it has. A
//!   request that is refused does not count, so a client that asks too often still gets its rate.
//!   Held by `integration::access::requests_over_a_clients_rate_are_refused_and_the_registry_hears_of_none`,
//!   `integration::access::connections_over_a_clients_limit_are_refused_and_make_room_when_they_end`,
//!   `access::rate::tests::as_many_pass_as_a_bucket_of_tokens_lets_through`,
//!   `integration::bodies::slow_reader::a_client_that_reads_a_byte_a_second_is_cut_off_and_counted_and_one_on_a_slow_link_gets_its_layer`,
//!   `listen::pace::tests::who_takes_too_little_in_a_minute_is_given_up_and_who_takes_enough_is_not`.
//! - A request has one line in the log, of bounded fields that no client and no server can forge, and no request waits for the
//!   log. What hostile clients cause without a request has so many lines a second; the counters have all of it.
//!   Held by `integration::log::no_client_or_server_can_forge_a_field_of_a_line`,
//!   `integration::log::as_json_each_line_is_an_object_that_no_client_can_add_to`,
//!   `proxy::log::tests::every_field_of_a_line_is_bounded`,
//!   `logger::writer::tests::a_blocked_standard_error_blocks_no_logging_and_dropped_lines_are_counted`,
//!   `integration::flood::a_flood_of_what_is_no_request_has_few_lines_and_the_log_says_how_many_have_none`.
//! - With the feature `otlp`, no request waits for the collector of its span. What that does not take is dropped within a bound,
//!   counted, and told once. A span has no secret, and the collector's credentials are in no log.
//!   Held by `otlp::losses::what_has_no_room_before_a_slow_collector_is_dropped_and_counted`,
//!   `otlp::losses::while_the_collector_is_gone_requests_go_on_and_the_log_says_so_once`,
//!   `otlp::losses::a_collector_that_hangs_does_not_keep_the_process_from_its_end`,
//!   `otlp::spans::a_span_has_the_names_of_the_conventions_and_the_fields_of_the_access_line`,
//!   `otlp::settings::credentials_reach_the_collector_and_no_log`.
//! - Where a client's certificate is required, no request without a good one is served, and a CA that is removed takes sessions
//!   and connections with it.
//!   Held by `integration::tls::a_client_needs_a_certificate_of_the_ca_where_one_is_required`,
//!   `integration::tls::a_removed_ca_ends_sessions_and_connections_and_an_added_one_ends_none`.
//! - No request that follows a body on the same connection is served, so where a body ends decides nothing.
//!   Held by `integration::downstream::no_request_behind_a_body_is_served`.
//! - No request that has begun before a signal is lost to it, nor one that comes while a balancer may still send it here; what
//!   is under way ends within `drain.timeout`.
//!   Held by `integration::drain::during_the_notice_all_is_served_as_ever_but_readiness_is_off`,
//!   `integration::drain::a_request_that_has_begun_before_the_signal_is_served`,
//!   `integration::drain::a_request_that_waits_for_the_sign_in_gets_its_token_during_the_drain`,
//!   `integration::process::clients_connected_at_the_signal_are_answered`.
//! - Settings that are read again take effect as a whole or not at all, fail no request, and come to what a fresh start with them
//!   would. A request keeps those that it began with; what has not changed keeps its tokens, connections and answers.
//!   Held by `integration::reload::property::any_sequence_of_configurations_under_load_equals_a_fresh_start_with_the_last_good_one`,
//!   `integration::reload::a_wrong_configuration_changes_nothing_and_is_told_whole`,
//!   `integration::reload::what_has_changed_takes_effect_at_once_and_the_rest_stays`,
//!   `integration::reload::a_request_under_way_ends_with_the_settings_that_it_began_with`,
//!   `integration::reload::listeners::listeners_are_added_and_removed_and_what_is_under_way_there_is_finished`,
//!   `integration::reload::listeners::tls_and_the_proxy_protocol_of_a_listener_change_for_new_connections_and_the_earlier_ones_end`.
//! - Another process takes this one's place only when it is ready, without a failed request; until then this one serves. Of sockets
//!   that the service manager keeps, none is without a listener, and a restart refuses nobody.
//!   Held by `integration::upgrade::upgrades_under_load_fail_no_request`,
//!   `integration::upgrade::after_a_failed_upgrade_the_old_process_goes_on`,
//!   `integration::upgrade::a_new_process_without_a_token_does_not_take_over`,
//!   `integration::upgrade::outage::an_upgrade_in_an_outage_of_the_sign_in_threw_away_what_was_kept`,
//!   `integration::upgrade::outage::an_upgrade_while_the_registry_is_down_or_wants_a_pause_threw_away_what_was_kept`,
//!   `integration::upgrade::a_restart_with_handed_over_sockets_refuses_nobody`,
//!   `integration::upgrade::an_upgrade_forgot_which_sockets_are_the_service_managers`,
//!   `integration::upgrade::a_socket_that_no_listener_is_for_is_an_error`.
//! - There is no way to push and no way to list the catalogue.
//!   Held by `integration::refuse::requests_that_are_not_pulls_are_refused`.

mod access;
mod activation;
mod admin;
mod alarm;
mod answer;
#[cfg(feature = "bench")]
mod bench;
mod browser;
mod cache;
mod check;
#[cfg(any(feature = "bench", feature = "demo"))]
mod child;
mod chroot;
mod cli;
mod client_config;
mod client_tls;
mod config;
mod control;
#[cfg(feature = "demo")]
mod demo;
mod digest;
mod directory;
mod doctor;
mod environment_file;
mod failure;
mod file;
mod glob;
mod host;
#[cfg(feature = "hot-path")]
#[doc(hidden)]
pub mod hot_path;
mod identity;
mod init;
mod installed;
mod label;
mod listen;
mod liveness;
mod load;
mod logger;
mod metrics;
mod net;
mod notify;
mod otlp;
mod peer;
mod program;
mod proxy;
mod replace;
mod run;
mod secret;
mod serve;
mod service_variables;
mod shell;
mod token;
mod unit;
mod value;
mod warm;

pub use run::run;
