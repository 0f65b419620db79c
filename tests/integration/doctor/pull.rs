//! `doctor --pull`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use acr_emulator::{Fault, Hop};
use serde_json::Value;

use super::Do::{Install, Listen, Write};
use super::certificates::write;
use super::{Site, findings, found, listen_and};
use crate::wire;

/// The URL of a balancer in front of this proxy.
fn balanced(proxy: SocketAddr) -> String {
    let balancer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", balancer.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for mut client in balancer.incoming().flatten() {
            let mut request = [0; 1024];
            let length = client.read(&mut request).expect("a request");
            let answer = wire::send(proxy, &request[..length]);
            client.write_all(&answer).expect("it takes the answer");
        }
    });
    url
}

/// A dockerd that says it has pulled, and has not asked the proxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_the_proxy_has_not_seen_and_one_that_fails_are_told() {
    let (site, azure) = Site::start().await;
    const LOADED: &str = r#"{"ServerVersion": "26.1.5", "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#;
    for (answer, says) in [
        (LOADED, "docker.io/library/hello-world:latest was pulled, and the proxy was not asked"),
        (
            r#"{"error": "Get \"https://a.example/x?sig=hunter2\": refused", "RegistryConfig": {"Mirrors": ["@URL@/"]}}"#,
            "a pull of docker.io/library/hello-world:latest fails: Get \"https://a.example/x?\": refused",
        ),
    ] {
        let made = [Install(&["dockerd"]), Write(&["docker"]), Listen("/run/docker.sock", answer)];
        let host = site.host(&made);
        let output = host.doctor(&["--json", "--pull"]);
        assert_eq!(found(&output), [("dockerd".to_owned(), "pull".to_owned())]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let (_, finding) = findings(&report).next().expect("one");
        assert_eq!(finding["text"], says);
        let fix = finding["fix"].as_str().expect("text");
        assert!(fix.contains("journalctl --unit docker") && !fix.contains("acr-cache-proxy doctor"), "{fix}");
        assert_eq!(found(&host.doctor(&["--json"])), [], "without --pull nothing is pulled");
    }
    // Whatever else the proxy is asked for meanwhile is no sign that the engine has asked it.
    let host = site.host(&[Install(&["dockerd"]), Write(&["docker"])]);
    let at = site.proxy.address();
    listen_and(&host.path("/run/docker.sock"), &host.filled(LOADED), move |request| {
        if request.starts_with("POST /images/create?") {
            wire::ask(at, "GET /v2/", "");
        }
    });
    let output = host.doctor(&["--json", "--pull"]);
    assert_eq!(found(&output), [("dockerd".to_owned(), "pull".to_owned())], "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = findings(&report).next().expect("one").1["text"].to_string();
    assert!(text.contains("which was asked for other things meanwhile, has not served it"), "{text}");
    // Behind a balancer it was said not to have been asked, when another instance was.
    let balancer = balanced(at);
    let host = site.host(&[Install(&["dockerd"])]);
    write(&host, "docker", &balancer);
    listen_and(&host.path("/run/docker.sock"), &LOADED.replace("@URL@", &balancer), |_| ());
    let output = host.doctor(&["--json", "--pull", "--mirror", &balancer]);
    assert_eq!(found(&output), [], "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("because another instance may have been asked at the address of --mirror"), "{said}");
    // What it refuses comes from the source.
    azure.inject(Hop::Data, Fault::Status(503));
    let host = site.host(&[Install(&["dockerd"]), Write(&["docker"])]);
    listen_and(&host.path("/run/docker.sock"), &host.filled(LOADED), move |request| {
        if request.starts_with("POST /images/create?") {
            wire::ask(at, "GET /v2/library/hello-world/manifests/latest", "");
        }
    });
    let output = host.doctor(&["--json", "--pull"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all: Vec<_> = findings(&report).map(|(_, finding)| finding["text"].to_string()).collect();
    assert!(all.iter().any(|text| text.contains("was pulled, and the proxy has answered 503")), "{all:?}");
    // Of a registry without a route the proxy is not to be asked.
    let said = host.doctor(&["--pull", "registry.k8s.io/pause:3.9"]).stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("registry.k8s.io/pause:3.9 was not pulled: the proxy has no route for it"), "{said}");
    let serves_dockerd = [Install(&["dockerd", "containerd"]), Write(&["docker"])];
    let said = site.host(&serves_dockerd).doctor(&["--pull"]).stdout;
    assert!(!String::from_utf8_lossy(&said).contains("containerd was not asked"), "it pulls nothing for anybody");
}
