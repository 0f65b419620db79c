//! The files of engines: what can be written is, what is left as it is is told, and what is left over is removed.

use std::process::Command;

use super::{DAEMON_JSON, Host, judge, run};
use testkit::SECRET;

const HUB: &str = "etc/docker/certs.d/docker.io/hosts.toml";
const GHCR: &str = "etc/docker/certs.d/ghcr.io/hosts.toml";
const QUAY: &str = "etc/docker/certs.d/quay.io/hosts.toml";
const ONE: [&str; 6] = ["--registry", "example.azurecr.io", "--prefix", "hub", "--skip", "try"];
const TWO: [&str; 10] = [
    "--registry",
    "example.azurecr.io",
    "--source",
    "docker.io",
    "--prefix",
    "hub",
    "--source",
    "ghcr.io",
    "--prefix",
    "ghcr",
];

/// None of dockerd's files was written, nor was anybody asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_somebody_else_kept_all_others_from_being_written() {
    let foreign = "server = \"https://ghcr.io\"\n";
    for (answers, daemon_json, more, question) in [
        (None, Some("{\"debug\": true}\n"), &["--yes"][..], None),
        (
            Some("y\ny\n"),
            Some("{\"debug\": true}\n"),
            &[],
            Some("Write them, and add to those of others, with a copy? [Y/n] "),
        ),
        (None, None, &["--yes"], None),
        (Some("y\ny\n"), None, &[], Some("Write them? [Y/n] ")),
    ] {
        let host = Host::new(SECRET).await;
        host.file(GHCR, foreign);
        daemon_json.map(|text| host.file(DAEMON_JSON, text));
        let (status, said) = host.run(answers, &[&TWO[..], &["--skip", "try"], more].concat()).await;
        let written = host.read(DAEMON_JSON).unwrap_or_default();
        assert!(written.contains("http://127.0.0.1:8080") && host.read(HUB).is_some(), "{said}");
        assert_eq!(written.contains("debug"), daemon_json.is_some(), "{written}");
        assert_eq!((status, host.read(GHCR).as_deref()), (1, Some(foreign)), "{said}");
        assert!(said.ends_with("docker: files that were left as they are: 1\n"), "{said}");
        assert!(
            said.contains("was not written from here. It is left as it is; merge this into it, each key once:"),
            "{said}"
        );
        assert!(question.is_none_or(|question| said.contains(question)), "{said}");
    }
}

/// A question with nothing to agree to.
#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_written_nobody_is_asked() {
    let host = Host::new(SECRET).await;
    host.run(None, &[&ONE[..], &["--yes"]].concat()).await;
    let foreign = "server = \"https://registry-1.docker.io\"\n";
    host.file(HUB, foreign);
    let (status, said) = host.run(Some(""), &ONE).await;
    assert_eq!((status, host.read(HUB).as_deref()), (1, Some(foreign)), "{said}");
    assert!(!said.contains("Write them") && said.ends_with("docker: files that were left as they are: 1\n"), "{said}");
}

/// It was left, with the flags of another command and status 0, and the proxy refused what it sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_route_that_is_gone_is_removed_where_that_is_agreed_to() {
    let all = [&TWO[..], &["--source", "quay.io", "--prefix", "quay", "--skip", "try", "--yes"]].concat();
    for (answers, more, question, is_gone) in [
        (None, &["--yes", "--replace"][..], None, true),
        (Some("y\ny\n"), &[], Some("Remove those that are not needed any more? [Y/n] "), true),
        (Some("y\nn\n"), &[], Some("Remove those that are not needed any more? [Y/n] "), false),
    ] {
        let host = Host::new(SECRET).await;
        host.run(None, &all).await;
        // A file of somebody else's stays, whatever became of its route.
        host.file(QUAY, "server = \"https://quay.io\"\n");
        let (status, said) = host.run(answers, &[&ONE[..], more].concat()).await;
        assert_eq!((status, host.read(GHCR).is_none()), (0, is_gone), "{said}");
        assert!(host.read(QUAY).is_some() && host.read(HUB).is_some(), "{said}");
        assert!(!said.contains("--prune") && question.is_none_or(|question| said.contains(question)), "{said}");
        let (_, said) = host.run(None, &ONE).await;
        assert_eq!(said.contains("The files of docker stand already"), is_gone, "{said}");
    }
}

/// `doctor` then found that containerd had no `hosts.toml`.
#[tokio::test(flavor = "multi_thread")]
async fn init_and_doctor_agree_on_a_containerd_beside_dockerd() {
    let host = Host::new(SECRET).await;
    let table = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
    host.file("usr/bin/containerd", "");
    host.file("etc/containerd/config.toml", &format!("version = 2\n{table}"));
    host.run(None, &[&ONE[..], &["--yes"]].concat()).await;
    assert!(host.read("etc/containerd/certs.d/docker.io/hosts.toml").is_some());
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    doctor.args(["doctor", "--root"]).arg(host.root.path()).env_clear();
    let (_, said) = judge(&tokio::task::spawn_blocking(move || run(&mut doctor, None)).await.expect("no panic"));
    assert!(said.contains("containerd  ") && !said.contains("past the proxy"), "{said}");
}
