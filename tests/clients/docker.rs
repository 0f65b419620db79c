use serde_json::json;

use crate::mirror::Mirror;
use crate::program::{Daemon, run};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn dockerd_pulls_and_runs() {
    let mirror = Mirror::start().await;
    let home = mirror.home().display();
    let settings = json!({
        "registry-mirrors": [format!("http://{}", mirror.address())],
        "data-root": format!("{home}/root"),
        "exec-root": format!("{home}/exec"),
        "pidfile": format!("{home}/dockerd.pid"),
        // Works on every filesystem, an overlay too.
        "storage-driver": "vfs",
        "bridge": "none",
        "iptables": false,
        "ip6tables": false,
    });
    let settings = mirror.file("daemon.json", &settings.to_string());
    let socket = mirror.home().join("docker.sock");
    let listen = format!("unix://{}", socket.display());
    let arguments = ["--config-file", &settings.to_string_lossy(), "--host", &listen];
    let _daemon = Daemon::start("dockerd", &arguments, mirror.home(), &mirror.ca(), &socket);
    let docker = |words: &str| run(&mut mirror.client(&format!("docker --host {listen} {words}")));

    for pull in mirror.pulls() {
        let platform = pull.platform.map(|arch| format!("--platform linux/{arch}")).unwrap_or_default();
        docker(&format!("pull --quiet {platform} {}", pull.reference));
        mirror.verify(pull, "docker/");
        let arch = docker(&format!("image inspect --format {{{{.Architecture}}}} {}", pull.reference));
        assert_eq!(arch.trim(), pull.arch, "{}", pull.reference);
        if pull.platform.is_none() {
            let printed = docker(&format!("run --rm --network none {} /bin/sh -c pwd", pull.reference));
            assert_eq!(printed.trim(), "/", "{}", pull.reference);
        }
    }
}
