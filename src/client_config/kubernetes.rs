//! A script that writes the files of containerd on a node of Kubernetes.

use super::{Client, File, Language, MARKER, MARKER_REST, Mirror, Setup, containerd, registries};
use crate::config::Routes;
use crate::host::Host;

const PATH: &str = "/etc/acr-cache-proxy/setup-node.sh";
pub(crate) const PATHS: &[&str] = &["/etc/containerd/certs.d/*/hosts.toml", PATH];
pub(crate) const AFTER_REMOVAL: &str = "on each node where the script has run: sh setup-node.sh --remove";
const BEGIN: &str = include_str!("kubernetes/begin.sh");
const END: &str = include_str!("kubernetes/end.sh");
/// Where the script names the mirror's certificates, which are those of its node.
const CERTIFICATES: &str = "# certificates";

/// A script for each node, with containerd's files in it; both are written, and the script is shown.
pub(crate) fn setup(routes: &Routes, mirror: &Mirror, host: &Host) -> Setup {
    let (mut files, certificates) = containerd::files(routes, mirror, host);
    let begin = [("@MARKER@", MARKER), ("@CERTIFICATES@", CERTIFICATES)]
        .into_iter()
        .chain([("@URL@", mirror.url().as_str()), ("@AUTHORITY@", mirror.authority().as_str())])
        .fold(BEGIN.to_owned(), |text, (key, value)| text.replace(key, value));
    let keys: &[String] = if mirror.tls { &[CERTIFICATES.to_owned()] } else { &[] };
    let mut content = format!("#!/bin/sh\n{MARKER}{MARKER_REST}\n{begin}");
    for (file, (name, registry)) in files.iter_mut().zip(registries(routes)) {
        file.held = true;
        let directory = file.path.rsplit('/').nth(1).unwrap_or_default();
        // Nothing in a file of these ends the quotation: names of registries have no line breaks.
        let of_node = File::commented(&file.path, &containerd::hosts(name, &registry, mirror, keys)).content;
        content += &format!("\nplace '{directory}' <<'END'\n{of_node}END\n");
    }
    // The node's directory may be another one, which its script knows.
    let config_path = containerd::CONFIG_PATH.trim_end().replace(containerd::CERTS_D, "$certs");
    content += &END.replace("@CONFIG_PATH@", &config_path);
    let mut notes = vec![
        format!("run it as root on each node, by cloud-init or in the build of the node's image: sh {PATH}"),
        "it is for nodes with containerd; for CRI-O the files are those of: acr-cache-proxy client-config podman"
            .to_owned(),
    ];
    notes.extend(containerd::about_certificates(mirror, host));
    notes.extend(containerd::about_ipv6(mirror));
    notes.extend(containerd::about_closed(routes));
    let language = Language::Shell;
    files.push(File { path: PATH.to_owned(), content, language, held: false, addition: None, wanted: None });
    Setup::new(Client::Kubernetes, files, notes).with(certificates)
}
