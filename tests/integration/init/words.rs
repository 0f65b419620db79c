//! What is said of a configuration that is broken, or that is not there yet.

use super::{CONFIG, Host};
use testkit::SECRET;

/// An empty line kept it, which ended all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_kept_only_by_a_yes() {
    let host = Host::new(SECRET).await;
    for (broken, question) in [
        ("upstream: {domain: a\n listen: [\n", "Keep it as it is? [y/N] "),
        ("upstraem: {domain: a.azurecr.io}\n", "Keep it as it is? [y/N] "),
        ("upstream: {domain: a.azurecr.io, prefix: hub}\n", "Keep it as it is? [Y/n] "),
    ] {
        host.file(CONFIG, broken);
        let (_, said) = host.run(Some("\n"), &["--skip", "try"]).await;
        let asks = question.ends_with("[y/N] ");
        assert!(said.contains(question), "{said}");
        assert_eq!(said.contains("The registry's login server"), asks, "{said}");
        assert!(!said.contains("nothing was done: correct the configuration"), "{said}");
    }
}

/// It named a file that was not there, with a line of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_written_yet_is_not_called_by_the_files_name() {
    let host = Host::new(SECRET).await;
    let registry = host.registry();
    let flags = ["--yes", "--registry", &registry, "--prefix", "hub"];
    let (status, said) =
        host.run(None, &[&flags[..], &["--admin-address", "127.0.0.1:8080", "--skip", "try"]].concat()).await;
    assert!(status == 1 && said.contains("config.yaml (not written yet):22: admin: 127.0.0.1:8080 is taken"), "{said}");
    for place in ["config.yaml (not written yet)", &host.path(CONFIG).display().to_string()] {
        let (status, said) = host.run(None, &flags).await;
        assert!(status == 0 && said.contains(&format!("\nconfiguration {place}\n")), "{place}: {said}");
    }
}
