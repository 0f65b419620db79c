//! Which certificates files name for a mirror that speaks TLS.

use std::fs;

use super::*;

const MIRROR: &str = "https://mirror.internal:8443";
const NAMES: [&str; 3] = ["ca.crt", "client.cert", "client.key"];

fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    fs::write(path, content).expect("written");
}

/// Written anew, each of these files lost the CA that somebody had put there, and the host went past the proxy.
#[test]
fn certificates_that_a_file_names_for_the_mirror_stay_and_else_those_in_its_directory_are_named() {
    let routes = config(None, &[("docker.io", false, &[]), ("ghcr.io", true, &[])]);
    for (client, certs_d) in [
        (Client::Docker, "/etc/docker/certs.d"),
        (Client::Containerd, "/etc/containerd/certs.d"),
        (Client::Nerdctl, "/etc/containerd/certs.d"),
        (Client::Buildkit, "/etc/buildkit/certs.d"),
        (Client::K3s, "/etc/rancher/k3s/certs.d"),
        (Client::Rke2, "/etc/rancher/rke2/certs.d"),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let setup = || setup(client, &routes, &mirror(MIRROR), root.path()).expect("files");
        let directory = format!("{certs_d}/mirror.internal:8443");
        assert!(says(&setup(), &format!("{directory}/ca.crt")), "{client:?}: {:?}", setup().notes);
        NAMES.iter().for_each(|name| put(root.path(), &format!("{directory}/{name}"), ""));
        let marked = |setup: &Setup| -> Vec<(String, String)> {
            let files = setup.files.iter().filter(|file| file.language == Language::Commented);
            files.map(|file| (file.path.clone(), file.content.clone())).collect()
        };
        let named = marked(&setup());
        let none_is_missing = |directory: &str, files: &[(String, String)]| {
            let has = |name: &&str| files.iter().all(|(_, text)| text.contains(&format!("\"{directory}/{name}\"")));
            assert!(!files.is_empty() && NAMES.iter().all(has), "{client:?}: {files:?}");
        };
        none_is_missing(&directory, &named);
        // Others that somebody has put there.
        for (path, text) in &named {
            put(root.path(), path, &text.replace(&directory, "/srv"));
        }
        assert_eq!(marked(&setup()), named, "{client:?}: what is named and is not there does not stay");
        NAMES.iter().for_each(|name| put(root.path(), &format!("/srv/{name}"), ""));
        none_is_missing("/srv", &marked(&setup()));
        assert!(setup().standing(root.path()).iter().skip(1).all(standing::Standing::stands), "{client:?}");
    }
}

/// `--check` called what the page says to do a file with more lines than it would have.
#[test]
fn a_ca_stands_wherever_in_the_entry_of_the_mirror_it_is_named() {
    let routes = config(None, &[("docker.io", false, &[])]);
    let root = tempfile::tempdir().expect("a directory");
    put(root.path(), "/srv/ca.crt", "");
    let setup = || setup(Client::Containerd, &routes, &mirror(MIRROR), root.path()).expect("files");
    let file = setup().files[0].clone();
    for (from, to, stands) in [
        ("\n  capabilities", "\n  ca = \"/srv/ca.crt\"\n  capabilities", true),
        ("\n  capabilities", "\n  ca = [\"/srv/ca.crt\"] # ours\n  capabilities", false),
        ("\n  capabilities", "\n  skip_verify = true\n  capabilities", false),
    ] {
        put(root.path(), &file.path, &file.content.replace(from, to));
        assert_eq!(setup().standing(root.path())[0].stands(), stands, "{to}");
    }
}
