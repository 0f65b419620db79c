//! What `--remove` leaves although the proxy may be in it: without settings nobody knows where the proxy is, so this is what can have it.

use std::path::{Path, PathBuf};

use super::look::{is_by_name, is_ours};
use super::untouched::Untouched;
use super::{Client, by_flag, docker_desktop};
use crate::host::Host;

/// A sentence for each file that stays, with what to do. `paths` are those of the client's files; of a directory for each registry others
/// have files too, and none of them is told.
pub(super) fn left(client: Client, root: &Path, paths: &[&str]) -> Vec<String> {
    if client == Client::Docker {
        return by_flag::left(root).into_iter().collect();
    }
    let host = Host::new(root.to_owned());
    if client == Client::DockerDesktop {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        return match docker_desktop::settings(home.as_deref()) {
            Ok(file) => by_flag::names_mirrors(&host, root, &file, docker_desktop::TAKE_OUT).into_iter().collect(),
            Err(why) => vec![why],
        };
    }
    let of = |path: &&str| {
        let read = host.read(path)?;
        let text = read.content.ok()?;
        if is_ours(text.as_bytes()) {
            return None;
        }
        let at = root.join(path.trim_start_matches('/'));
        let at = at.display();
        if is_by_name(path) {
            return Some(format!("{at} {}: rm {at}", Untouched::Unmarked.with_remedy()));
        }
        // The word of BuildKit and of k3s and RKE2 for what a mirror is in.
        text.contains("mirrors").then(|| {
            format!(
                "{at} is left as it is, because somebody else has written it: if the proxy is in its mirrors, take it out"
            )
        })
    };
    paths.iter().filter(|path| !path.contains('*')).filter_map(of).collect()
}
