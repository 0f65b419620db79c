//! `client-config`: which client's files, where clients find the proxy, and what to do with the files.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Exit, expect_root, mistake};
use super::mirror::MirrorFlag;
use super::serve::{self, HOST_SETTINGS};
use crate::client_config::{self, Client, How, Mirror, Task};
use crate::config;

/// What `--help` says below the flags.
pub(super) fn examples() -> String {
    format!(
        "\
Examples:
  acr-cache-proxy client-config docker
      The files with which dockerd pulls through the proxy, to be looked at.
  acr-cache-proxy client-config docker --merge --write
      Writes them, and adds to a daemon.json of somebody else, of which a copy is kept.
  acr-cache-proxy client-config docker --check
      Whether they stand as they would be written.

{HOST_SETTINGS}
With --root it is the file below that directory.

Exit status: 0 if all files are as asked for, 1 if one is left as it is or differs, 2 for a wrong flag or setting."
    )
}

#[derive(Args)]
pub(super) struct ClientConfigFlags {
    /// docker, docker-desktop, containerd, nerdctl, podman (and buildah, skopeo, CRI-O), buildkit, kubernetes, k3s, rke2,
    /// talos or kaniko
    client: String,
    #[command(flatten)]
    mirror: MirrorFlag,
    /// Put the files in place, but never over a file that this program did not write
    #[arg(long)]
    write: bool,
    /// Add to a daemon.json, buildkitd.toml or registries.yaml of somebody else what it lacks, and keep the file from before; without
    /// --write, only show the difference; any other file of somebody else is left as it is
    #[arg(long)]
    merge: bool,
    /// Change nothing; tell for each file whether it stands as it would be written, and end with 1 if one does not
    #[arg(long)]
    check: bool,
    /// Also remove files that this program wrote for routes that are gone; without --write, only list them
    #[arg(long)]
    prune: bool,
    /// Remove every file that this program wrote for the client, but for daemon.json, which has no mark by which it is known: if it has
    /// mirrors, that is told; without --write, only list them; needs no settings
    #[arg(long)]
    remove: bool,
    /// The directory below which files are, such as the tree of an image [default: /]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    serve: serve::ServeFlags,
}

/// What to do. The settings are read only where the task needs them.
pub(super) fn parse(arguments: ClientConfigFlags) -> Result<Task, Exit> {
    let ClientConfigFlags { client, mirror, write, merge, check, prune, remove, root, mut serve } = arguments;
    let wrong = |sentence: String| mistake(&sentence);
    let client = Client::parse(&client).map_err(|sentence| wrong(format!("client-config: {sentence}")))?;
    if root.is_some() && !(write || merge || check || prune || remove) {
        return Err(wrong(
            "--root is the directory below which files are looked at or written: set --check, --write, --merge, --prune or --remove beside it"
                .to_owned(),
        ));
    }
    let root = root.unwrap_or_else(|| PathBuf::from("/"));
    if prune && remove {
        return Err(wrong("--remove also removes what --prune would: set one of the two".to_owned()));
    }
    if check && (write || merge || prune || remove) {
        return Err(wrong("--check changes nothing: set it without --write, --merge, --prune and --remove".to_owned()));
    }
    if merge && remove {
        return Err(wrong("--remove takes away what is from here, --merge adds: set one of the two".to_owned()));
    }
    if let Some(why) = client.without_files().filter(|_| write || merge || check || prune || remove) {
        return Err(wrong(why.to_owned()));
    }
    if write || merge || check || prune || remove {
        expect_root(&root)?;
    }
    if remove {
        return Ok(Task::Remove { client, root, write });
    }
    let mirror = mirror.parse()?;
    let file = serve.or_host(&root)?.then(|| serve.file()).flatten();
    let config = serve::load(serve)?;
    if let Some(file) = file.filter(|file| config::is_sample(Path::new(file))) {
        return Err(wrong(format!(
            "{file}: it is the package's example, whose registry nobody has: acr-cache-proxy init writes yours"
        )));
    }
    let mirror = mirror.map_or_else(|| Mirror::of(config.listeners()).map_err(wrong), Ok)?;
    let setup = client_config::setup(client, &config, &mirror, &root).map_err(wrong)?;
    Ok(if check {
        Task::Check { setup, root }
    } else if write || merge {
        Task::Write { setup, root, how: How { prune, merge, dry: !write } }
    } else if prune {
        Task::ListStale { setup, root }
    } else {
        Task::Show(setup)
    })
}
