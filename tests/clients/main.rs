//! Real clients pull through the proxy: what they get, what the registry saw of it, and that nothing went around.
//!
//! They need root, and a network namespace with nothing but `lo`, since each of them falls back to Docker Hub when
//! its mirror fails. `scripts/test` gives them one.

/// Two proxies behind a balancer, one of which restarts.
mod balancers;
/// A layer in chunks, as containerd 2 fetches it where it is told to.
mod chunks;
/// Each of them by the files that `client-config` has put in place.
mod client_config;
/// containerd, by `ctr` and as a kubelet's container runtime.
mod containerd;
/// podman, buildah and skopeo, which share one library.
mod containers;
/// dockerd, which also runs what it has pulled.
mod docker;
/// dockerd 28, which also reads `hosts.toml`, with public registries behind its back.
mod docker_hosts;
/// What each client does with each failure, as the table in `failures.md` has it.
mod failures;
/// A client's files.
mod home;
/// Azure's registry, and the public ones that clients may turn to.
mod hub;
/// What has to be in an image of the proxy.
mod image;
/// The images, the proxy as their mirror, and what must be true of every pull.
mod mirror;
/// A registry that is known by name, until the name is gone.
mod name;
/// What keeps these tests from the machine's own network and files.
mod namespace;
/// Programs that end in time, and daemons that end with their test.
mod program;
/// Clients that reach several registries through one port.
mod registries;
/// What scripts/install leaves on a machine, and what scripts/test asks of its user.
mod scripts;
/// Signatures, which podman looks for by the address that it asks.
mod signatures;
/// Lists of tags, which no mirror is asked for.
mod tags;
/// A newer Debian, whose docker is another one.
mod tree;
