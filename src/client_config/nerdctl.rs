//! nerdctl, which reads containerd's `hosts.toml` by itself.

use super::{Client, Mirror, Setup, containerd};
use crate::config::Routes;
use crate::host::Host;

pub(crate) const AFTER_REMOVAL: &str = "nerdctl reads hosts.toml at each pull, so there is nothing to restart; containerd's own pulls went by the same files";

/// By itself it looks in `/etc/containerd/certs.d`, then in `/etc/docker/certs.d`, whatever containerd's configuration says;
/// without root, below `~/.config` (`hosts_dir` in `docs/config.md` of containerd/nerdctl).
pub(crate) fn setup(routes: &Routes, mirror: &Mirror, host: &Host) -> Setup {
    let mut notes = vec![
        "nerdctl reads hosts.toml at each pull, and needs no config_path in containerd's config.toml; --hosts-dir and hosts_dir in nerdctl.toml name other directories".to_owned(),
        "a user without root has the files in ~/.config/containerd/certs.d: copy them there".to_owned(),
        "nerdctl build goes by buildkitd.toml: acr-cache-proxy client-config buildkit".to_owned(),
    ];
    notes.extend(containerd::about_certificates(mirror, host));
    notes.extend(containerd::about_ipv6(mirror));
    notes.extend(containerd::about_closed(routes));
    let (files, certificates) = containerd::files(routes, mirror, host);
    Setup::new(Client::Nerdctl, files, notes).with(certificates)
}
