//! acr-cache-proxy: pulls go through Azure Container Registry's cache, signed in with the machine's identity.
//!
//! Container clients ask this proxy without credentials. It rewrites `/v2/<name>` to `/v2/<prefix>/<name>`, adds the
//! registry's bearer token and passes the answer on; a redirect to blob storage goes to the client as it is.
//!
//! # Map, in the order of a request
//!
//! ```text
//! main -> cli -> config            arguments and file become values that cannot be wrong; in cli, a file a command
//! serve                            puts the parts together; below it:
//!   listen                         clients' connections:
//!     listener, downstream           accept a connection, and read its requests' headers within bounds
//!     connection, header, frames     its bytes, where a header ends, and how long a frame of HTTP/2 takes
//!     descriptors, refusal           how much is taken on, and what the rest is told
//!     watched                        each request with its deadline, over HTTP/2 too
//!     shutdown                       signals, and the end of the requests under way
//!   net::addresses                 names of registries, storage and sign-in: looked up in the background, connected to
//!     lookup, connect, table, call
//!   identity                       Entra token: a named source or the default chain; azure_identity's and our own
//!   token                          registry tokens: one background task calls, requests only read
//!     token::state                 what they are now: one value, published by that task, read without a lock
//!     token::refresh               that task: renews tokens before they end
//!     token::table, pending        tokens of single repositories, and who waits for a first one, in order of arrival
//!     token::acr                   the two calls to the registry
//!   proxy                          Pingora's phases:
//!     accept     request_filter          oci::request parses, route chooses, or it is refused
//!     authorize  request_filter          a token for the repository, waited for if it is on its way
//!     locate     request_filter          where a blob is, if it is to come through here; what else is said goes to the client
//!     forward    upstream_peer, upstream_request_filter, fail_to_connect, error_while_proxy
//!     epoch      which kept connections may still be used
//!     deadline   connected_to_upstream: the one of an answer's whole header
//!     authorize  upstream_response_filter   a 401 renews the token and replays, once; then one of the repository's own
//!     storage    upstream_response_filter   a blob's redirect is followed here, where a route says so
//!     relay      response_filter, response_body_filter   drops what is not the client's, puts names in its words
//!     fail       fail_to_proxy           the one table of failures
//!     log        logging                 one line, of bounded fields
//!     endpoint   which part of the API a request is for, and what that asks of the phases
//!     destination where a route leads: its registry, and how it is served
//! oci (a crate of its own)         the registry's vocabulary, pure: names, requests, errors, the way back of names and bodies
//!   route                          which repository of which cache registry stands for the one that is asked for
//! admin                            /healthz and /readyz, on a listener of their own
//! failure          why there is no token: below identity and token, which fail in its terms
//! file, value      files of a sign-in, read within limits; secrets and ids, cleaned or refused
//! browser                          requests of a page, which no container client is
//! load                             connections and requests under way, counted, with their bounds
//! net::trust                       CA certificates, the system's and private ones, for every TLS connection
//! secret, answer, logger           masked values; what servers say; the log
//! client_config                    files by which clients come here; install writes them, prune finds and removes them
//! demo                             the same program against an embedded stand-in for Azure
//! bench                            pulls through a proxy against direct ones; a client, not a part of the proxy
//! child                            the proxy as a child process, for demo and bench
//! ```
//!
//! # Flow
//!
//! The `upkeep` service owns every call that is not a pull: the registry's DNS, Entra ID, `/oauth2/exchange`,
//! `/oauth2/token`. Only storage's names are looked up for requests, once for all that want the same name. A request
//! takes the token that is there. If none is there yet it waits for the call under way, `token_wait` at most; it never
//! makes a call of its own, so a thousand requests cause one.
//!
//! # Invariants
//!
//! - `oci` has neither pingora nor tokio among its dependencies; imports point one way, from `serve` to the leaves.
//! - Once a request is parsed, only an allow-list of its headers is left (`proxy::forward::strip`), and the request that
//!   goes out is made of these. In the proxy, only `proxy::forward` sets `Authorization`; no header of the client's that
//!   carries a credential is read anywhere.
//! - The path that goes out is written from parsed parts, so it begins with `/v2/<prefix>/` whatever came in.
//! - A registry that no route is for is refused: nobody reaches one cache rule by the name of another.
//! - Manifests pass byte for byte, and so does a redirect to storage that the client is to follow.
//! - A token goes to the registry's own host over TLS and nowhere else. The one redirect that is followed, a blob's to
//!   storage that is known by name, is followed without it.
//! - Reading a token takes no lock that a renewal holds. A token is used until its own end, by the registry's
//!   clock as the token tells it, not by this host's.
//! - Constructors do no network I/O: the program listens whether or not Azure is there.
//! - Every wait, body, header, retry and table has a named bound, and so have connections and requests. What is beyond one is
//!   refused at once, and descriptors are kept back for the admin listener and for registries.
//! - On a connection, nothing behind a request with a body is served: where such a body ends is no question here.
//! - There is no way to push, no way to list the catalogue, and no cache yet.

pub mod admin;
pub mod answer;
pub mod bench;
pub mod browser;
pub mod child;
pub mod cli;
pub mod client_config;
pub mod config;
pub mod demo;
pub mod failure;
pub mod file;
pub mod identity;
mod listen;
pub mod load;
pub mod logger;
pub mod net;
pub mod proxy;
pub mod secret;
pub mod serve;
pub mod token;
pub mod value;
