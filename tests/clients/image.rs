//! The container image: what is in it, that it is made the same each time, and that it runs.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::containerd::{self, Containerd};
use crate::containers;
use crate::daemon::{DAEMON_LIMIT, Daemon};
use crate::home::Home;
use crate::hub::{Site, TAG};
use crate::namespace;
use crate::program::{fail, installed, run};
use testkit::{CLIENT, PATIENCE, SECRET, TENANT};

/// The program of the tests, which is a dynamic one.
const PROGRAM: &str = env!("CARGO_BIN_EXE_acr-cache-proxy");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Where the proxy in the container listens, in a network of the test's own.
const ADDRESS: &str = "127.0.0.1:5000";
/// Everything in the image, by path, with type, mode, user and group.
const CONTENT: [(&str, &str); 16] = [
    ("./", "drwxr-xr-x 0/0"),
    ("./dev/", "drwxr-xr-x 0/0"),
    ("./etc/", "drwxr-xr-x 0/0"),
    ("./etc/nsswitch.conf", "-rw-r--r-- 0/0"),
    ("./etc/ssl/", "drwxr-xr-x 0/0"),
    ("./etc/ssl/certs/", "drwxr-xr-x 0/0"),
    ("./etc/ssl/certs/ca-certificates.crt", "-rw-r--r-- 0/0"),
    ("./proc/", "drwxr-xr-x 0/0"),
    ("./sys/", "drwxr-xr-x 0/0"),
    ("./tmp/", "drwxrwxrwt 0/0"),
    ("./usr/", "drwxr-xr-x 0/0"),
    ("./usr/bin/", "drwxr-xr-x 0/0"),
    ("./usr/bin/acr-cache-proxy", "-rwxr-xr-x 0/0"),
    ("./usr/share/", "drwxr-xr-x 0/0"),
    ("./usr/share/doc/", "drwxr-xr-x 0/0"),
    ("./usr/share/doc/acr-cache-proxy/", "drwxr-xr-x 0/0"),
];
const LICENCE: &str = "./usr/share/doc/acr-cache-proxy/LICENSE";

/// The layout that scripts/test has made before, with the proxy as a static program, or another one: `IMAGE`.
fn built() -> PathBuf {
    let made = || Path::new(PROGRAM).ancestors().nth(2).expect("below the target directory").join("image");
    let layout = std::env::var_os("IMAGE").map_or_else(made, PathBuf::from);
    let shown = layout.display();
    assert!(layout.join("oci-layout").exists(), "{shown}: there is no image: run PROFILE=dev scripts/image {shown}");
    layout
}

/// `scripts/image`, with the time of the build told.
fn image(arguments: &[&Path]) -> Command {
    let mut command = Command::new(Path::new(ROOT).join("scripts/image"));
    command.args(arguments).env("SOURCE_DATE_EPOCH", "1700000000").env("REVISION", "0123456789abcdef");
    command
}

/// The files below a directory, by their paths in it, with their bytes.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
        let name = PathBuf::from(entry.file_name());
        if entry.path().is_dir() {
            found.extend(content(&entry.path()).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            found.insert(name, std::fs::read(entry.path()).expect("read"));
        }
    }
    found
}

/// A blob of a layout by a descriptor.
fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    layout.join("blobs").join(descriptor["digest"].as_str().expect("a digest").replace(':', "/"))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON")
}

/// The manifests of a layout's image, in order.
fn manifests(layout: &Path) -> Vec<Value> {
    let index = json(&blob(layout, &json(&layout.join("index.json"))["manifests"][0]));
    index["manifests"].as_array().expect("a list").clone()
}

#[test]
#[ignore = "run by scripts/test in a network namespace of its own"]
fn the_image_is_the_same_each_time_and_has_the_program_its_certificates_and_no_shell() {
    namespace::assert_isolated();
    // Any static program will do: a small one.
    let program = installed("busybox");
    let home = Home::new(&[]);
    let [first, second, other, root] = ["first", "second", "other", "root"].map(|name| home.path().join(name));
    run(&mut image(&[&first, &program]));
    // Another copy with another time and mode, another mask, another time zone and language.
    let copy = home.path().join("copy");
    std::fs::copy(&program, &copy).expect("copied");
    run(Command::new("chmod").arg("0700").arg(&copy));
    let again = "umask 077; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", again]).arg(Path::new(ROOT).join("scripts/image")).arg(&second).arg(&copy);
    command.env("SOURCE_DATE_EPOCH", "1700000000").env("REVISION", "0123456789abcdef");
    run(command.env("TZ", "Asia/Tokyo").env("LANG", "de_DE.UTF-8").current_dir("/"));
    assert!(content(&first) == content(&second), "two runs give different bytes");

    let manifests_of_first = manifests(&first);
    let manifest = json(&blob(&first, &manifests_of_first[0]));
    let layer = blob(&first, &manifest["layers"][0]);
    let listed =
        run(Command::new("tar").args(["--list", "--verbose", "--numeric-owner", "--gzip", "--file"]).arg(layer));
    let listed: Vec<_> = listed
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[5], format!("{} {}", words[0], words[1]))
        })
        .collect();
    let mut expected: Vec<_> = CONTENT.iter().map(|(path, mode)| (*path, (*mode).to_owned())).collect();
    expected.push((LICENCE, "-rw-r--r-- 0/0".to_owned()));
    assert_eq!(listed, expected);

    // What is there already is not an earlier layout.
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join("file"), "somebody else's").expect("written");
    assert!(fail(&mut image(&[&other, &program])).contains("is not empty and not an OCI layout"));
    assert_eq!(content(&other).len(), 1);
    let said = fail(&mut image(&[&home.path().join("none"), Path::new(PROGRAM)]));
    assert!(said.contains("needs a dynamic loader"), "{said}");
    assert!(!home.path().join("none").exists());

    // A program of the other architecture, as far as its header tells.
    let mut foreign = std::fs::read(&program).expect("read");
    foreign[18] = if cfg!(target_arch = "aarch64") { 0x3e } else { 0xb7 };
    std::fs::write(home.path().join("foreign"), foreign).expect("written");
    run(&mut image(&[&first, &program, &home.path().join("foreign")]));
    let platforms: Vec<_> = manifests(&first).iter().map(|found| found["platform"].clone()).collect();
    let of = |architecture: &str| serde_json::json!({"architecture": architecture, "os": "linux"});
    let both = if cfg!(target_arch = "aarch64") { ["arm64", "amd64"] } else { ["amd64", "arm64"] };
    assert_eq!(platforms, both.map(of));
    assert_eq!(manifests(&first)[0], manifests_of_first[0], "the other architecture changes nothing in this one");

    // The Dockerfile's last stage, by buildah, over what its first stage lays.
    run(&mut image(&[Path::new("--root"), &root.join("image"), &program]));
    let dockerfile = std::fs::read_to_string(Path::new(ROOT).join("Dockerfile")).expect("read");
    let (build, last) = dockerfile.split_once("\nFROM scratch\n").expect("a last stage");
    assert!(build.contains("scripts/image --root /image\n"), "{build}");
    let last = format!("FROM scratch AS build\nCOPY image /image\nFROM scratch\n{last}");
    std::fs::write(root.join("Dockerfile"), last).expect("written");
    containers::configure(&home, "");
    let words = format!(
        "buildah build --isolation chroot --timestamp 1700000000 --build-arg REVISION=0123456789abcdef --tag oci:{}:built {}",
        home.path().join("buildah").display(),
        root.display()
    );
    run(&mut containers::client(&home, PATIENCE, &words));
    let built = home.path().join("buildah");
    let by_buildah = json(&blob(&built, &json(&built.join("index.json"))["manifests"][0]));
    let mut by_buildah = json(&blob(&built, &by_buildah["config"]))["config"].clone();
    let mut ours = json(&blob(&first, &manifest["config"]))["config"].clone();
    // What only one of the two can know.
    ours["Labels"].as_object_mut().expect("labels").remove("org.opencontainers.image.created");
    by_buildah["Labels"].as_object_mut().expect("labels").remove("io.buildah.version");
    by_buildah["WorkingDir"] = ours["WorkingDir"].clone();
    assert_eq!(by_buildah, ours);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_image_is_started_from_its_layout_without_a_right_and_pulled_through() {
    let site = Site::start().await;
    let layout = built();
    let home = site.home();
    containers::configure(&home, "");
    let port = site.azure.registry_addr().port();
    home.file(
        "config/config.yaml",
        &format!(
            "listen: {ADDRESS}\nca_file: /config/ca.pem\nupstream:\n  domain: example.azurecr.io:{port}\n  prefix: hub\n  addresses: [127.0.0.1]\n"
        ),
    );
    home.file("config/ca.pem", site.azure.ca_pem());
    // Everything that a container can do without: a writable root, capabilities, new rights, a shell.
    let words = format!(
        "podman --events-backend none --cgroup-manager cgroupfs run --name proxy --network host --read-only --read-only-tmpfs=false \
         --cap-drop all --security-opt no-new-privileges --volume {}:/config:ro --env AZURE_AUTHORITY_HOST={} \
         --env AZURE_TENANT_ID={TENANT} --env AZURE_CLIENT_ID={CLIENT} --env AZURE_CLIENT_SECRET={SECRET} \
         oci:{} --config /config/config.yaml",
        home.path().join("config").display(),
        site.azure.authority(),
        layout.display(),
    );
    let command = containers::client(&home, DAEMON_LIMIT, &words);
    let _proxy = Daemon::start("proxy", command, &home, || TcpStream::connect(ADDRESS).is_ok());
    let podman =
        |words: &str| containers::client(&home, PATIENCE, &format!("podman --cgroup-manager cgroupfs {words}"));
    assert_eq!(run(&mut podman("inspect --format {{.Config.User}} proxy")).trim(), "65532:65532");
    let said = fail(&mut podman("exec proxy sh -c true"));
    assert!(said.contains("not found") || said.contains("no such file"), "a shell: {said}");
    // The commands beside the daemon work in it.
    let printed = run(&mut podman("exec proxy acr-cache-proxy client-config containerd --config /config/config.yaml"));
    assert!(printed.contains(&format!("[host.\"http://{ADDRESS}\"]")), "{printed}");

    site.put("hub", "library/shipped");
    let containerd_home = site.home();
    let containerd = Containerd::start(&containerd_home, "docker.io", &containerd::closed(ADDRESS));
    run(&mut containerd.pull(PATIENCE, &format!("docker.io/library/shipped:{TAG}")));
    let manifests = "/v2/hub/library/shipped/manifests/";
    assert!(site.azure.requests().iter().any(|request| request.target.starts_with(manifests) && request.status == 200));
    assert!(site.hub.requests().is_empty(), "{:#?}", site.hub.requests());

    // As the container's first process it ends by SIGTERM; killed, its status would be 137.
    run(&mut podman("stop --time 60 proxy"));
    assert_eq!(run(&mut podman("inspect --format {{.State.ExitCode}} proxy")).trim(), "0");
}
