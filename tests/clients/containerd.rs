use std::path::{Path, PathBuf};

use crate::mirror::Mirror;
use crate::program::{Daemon, run};

const AGENT: &str = "containerd/";

/// The proxy as the mirror of docker.io, in a registries' directory.
fn by_hand(mirror: &Mirror) -> PathBuf {
    let hosts = mirror.file(
        "certs/docker.io/hosts.toml",
        &format!(
            "server = \"https://registry-1.docker.io\"\n[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
            mirror.address()
        ),
    );
    hosts.ancestors().nth(2).expect("two levels").to_owned()
}

/// containerd with a registries' directory; its socket.
pub fn start(mirror: &Mirror, hosts: &Path) -> (Daemon, PathBuf) {
    let home = mirror.home().display();
    let socket = mirror.home().join("containerd.sock");
    // The native snapshotter copies: it works on every filesystem, an overlay too.
    let config = mirror.file(
        "containerd.toml",
        &format!(
            "version = 2\nroot = \"{home}/root\"\nstate = \"{home}/state\"\n[grpc]\n  address = \"{}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"{}\"\n",
            socket.display(),
            hosts.display(),
        ),
    );
    let arguments = ["--config", &config.to_string_lossy()];
    (Daemon::start("containerd", &arguments, mirror.home(), &mirror.ca(), &socket), socket)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn ctr_pulls_by_hosts_toml() {
    let mirror = Mirror::start().await;
    let hosts = by_hand(&mirror);
    let (_daemon, socket) = start(&mirror, &hosts);
    for pull in mirror.pulls() {
        let platform = pull.platform.map(|arch| format!("--platform linux/{arch}")).unwrap_or_default();
        run(&mut mirror.client(&format!(
            "ctr --address {} images pull --snapshotter native --hosts-dir {} {platform} {}",
            socket.display(),
            hosts.display(),
            pull.reference
        )));
        mirror.verify(pull, AGENT);
    }
}

/// What a kubelet asks of its container runtime. It has no words for another architecture than the node's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn cri_pulls_as_for_a_kubelet() {
    let mirror = Mirror::start().await;
    let (_daemon, socket) = start(&mirror, &by_hand(&mirror));
    for pull in mirror.pulls().iter().filter(|pull| pull.platform.is_none()) {
        // PullImageRequest { image: ImageSpec { image: reference } }
        let message = field(&field(pull.reference.as_bytes()));
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        let request = mirror.home().join("request");
        std::fs::write(&request, [&[0][..], &length, &message].concat()).expect("a file is written");
        // gRPC is a POST in HTTP/2 whose outcome is in the trailers, which curl prints among the headers.
        let mut curl = mirror.client("curl --silent --show-error --http2-prior-knowledge --include --output -");
        curl.arg("--unix-socket").arg(&socket).arg("--data-binary").arg(format!("@{}", request.display()));
        curl.args(["--header", "Content-Type: application/grpc", "--header", "TE: trailers"]);
        let answer = run(curl.arg("http://localhost/runtime.v1.ImageService/PullImage"));
        assert!(answer.contains("grpc-status: 0\r\n"), "{answer}");
        assert!(answer.contains(&mirror.config(pull)), "the image's id: {answer}");
        mirror.verify(pull, AGENT);
    }
}

/// The first field of a protobuf message, of bytes: key, length, content.
fn field(content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short");
    assert!(length < 0x80, "longer ones take more than one byte");
    [&[1 << 3 | 2, length], content].concat()
}
