//! The real binary in front of the emulator, by what clients and the registry see.

/// Health and readiness.
mod admin;
/// What Azure's registries do that others do not.
mod azure;
/// Pulls through the proxy against direct ones.
mod bench;
/// Blobs that come through the proxy.
mod blobs;
/// Clients' files, shown and written.
mod client_config;
/// Secrets, ids and files of a sign-in as editors, shells and templates spoil them.
mod credentials;
/// An answer's header, and how long it may take.
mod deadline;
/// The demo, as a new user runs it.
mod demo;
/// Clients' connections: headers, bounds, what is refused before it is a request.
mod downstream;
/// The end of a process with requests under way.
mod drain;
/// HTTP/2 by prior knowledge.
mod h2c;
/// HTTP in every form that clients and registries use.
mod http;
/// Signing in: late, refused, revoked.
mod identity;
/// Answers before the answer.
mod interim;
/// What the registry says where it is asked for a blob that comes through the proxy.
mod located;
/// What the log says of requests, and what it is not made to say.
mod log;
/// Starting, listening and stopping.
mod process;
/// A whole pull, and what must not pass in either direction.
mod pull;
/// What is refused before anything is sent.
mod refuse;
/// One token a repository: in ABAC mode, and where one for all is refused.
mod repositories;
/// Several sources and registries through one port.
mod routes;
/// Each source of an identity, by name and in the chain.
mod sources;
/// A registry that fails or is slow.
mod upstream;
/// HTTP as it is on the wire, for requests that no client library would send.
mod wire;
