//! The packages that scripts/package has made, in a real systemd: installed, set up by `init`, upgraded while clients pull, removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use acr_emulator::Image;
use testkit::{CLIENT, TENANT};

use crate::home::Home;
use crate::systemd::{SECRETS, Systemd, azure, configure, install};

/// Where scripts/test has put them.
const PACKAGES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../packages");
/// The pages.
const DOCUMENTS: &str = "usr/share/doc/acr-cache-proxy";
const ASK: &str = "http://127.0.0.1:8080";
/// What a package has besides the program and its units.
const FILES: [&str; 6] = [
    "etc/acr-cache-proxy/config.yaml",
    "usr/share/acr-cache-proxy/config.schema.json",
    "usr/share/bash-completion/completions/acr-cache-proxy",
    "usr/share/doc/acr-cache-proxy/install.md",
    "usr/share/man/man1/acr-cache-proxy.1.gz",
    "usr/share/man/man5/acr-cache-proxy.yaml.5.gz",
];

/// A kind of package, and the commands for it.
struct Kind {
    ending: &'static str,
    install: &'static str,
    /// Of a version that is there already, which the scripts of the package see as any other upgrade.
    upgrade: &'static str,
    remove: &'static str,
    /// Leaves nothing behind; rpm has no such command.
    purge: Option<&'static str>,
}

const KINDS: [Kind; 2] = [
    Kind {
        ending: ".deb",
        install: "dpkg --install",
        upgrade: "dpkg --install",
        remove: "dpkg --remove acr-cache-proxy",
        purge: Some("dpkg --purge acr-cache-proxy"),
    },
    // What it needs is in Debian's packages here, of which rpm knows nothing.
    Kind {
        ending: ".rpm",
        install: "rpm --force-debian --nodeps --install",
        upgrade: "rpm --force-debian --nodeps --force --upgrade",
        remove: "rpm --force-debian --erase acr-cache-proxy",
        purge: None,
    },
];

/// The package, inside the tree.
fn bring(systemd: &Systemd, ending: &str) -> String {
    let all = fs::read_dir(PACKAGES).unwrap_or_else(|error| panic!("{PACKAGES}: {error}: scripts/test makes it"));
    let path = all.map(|entry| entry.expect("read").path()).find(|path| path.to_string_lossy().ends_with(ending));
    let path: PathBuf = path.unwrap_or_else(|| panic!("{PACKAGES}: no {ending}"));
    let name = format!("root/package{ending}");
    fs::copy(&path, systemd.root.join(&name)).expect("copied");
    format!("/{name}")
}

/// Links of the pages here to files that are not there: those of the checkout led out of the package.
fn dead_links(directory: &Path) -> Vec<String> {
    let mut dead = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("read").path();
        if path.extension().is_none_or(|ending| ending != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("read");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let targets = targets.filter(|target| !target.is_empty() && !target.contains("://"));
        dead.extend(
            targets
                .filter(|target| !directory.join(target).exists())
                .map(|target| format!("{}: {target}", path.display())),
        );
    }
    dead
}

/// Whether the unit is in this state.
fn is(systemd: &Systemd, what: &str) -> bool {
    systemd.command(&format!("systemctl --quiet {what} acr-cache-proxy")).status().expect("systemctl runs").success()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_package_installs_upgrades_under_load_and_leaves_nothing_behind() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    for Kind { ending, install, upgrade, remove, purge } in KINDS {
        let package = bring(&systemd, ending);
        let there = |path: &str| systemd.root.join(path).exists();

        let said = systemd.run(&format!("{install} {package}"));
        assert!(said.contains("  acr-cache-proxy init\n"), "{ending}: {said}");
        assert!(!is(&systemd, "is-active") && !is(&systemd, "is-enabled"), "{ending}: nobody has set a registry yet");
        for file in FILES {
            assert!(there(file), "{ending}: {file}");
        }
        let dead = dead_links(&systemd.root.join(DOCUMENTS));
        assert!(dead.is_empty(), "{ending}: {dead:?}");
        configure(&systemd, &azure, "", SECRETS);
        systemd.run("systemctl enable --now acr-cache-proxy");
        assert!(systemd.serves(ASK), "{ending}: {}", systemd.journal());

        // An upgrade keeps what was set, and no client notices it.
        let first = systemd.main_process();
        let (is_over, served, failed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let counter = if systemd.serves(ASK) { &served } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
            let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                systemd.run(&format!("{upgrade} {package}"));
                systemd.wait_until("the new program has taken over", || systemd.main_process() != first);
            }));
            is_over.store(true, Ordering::Relaxed);
            upgraded.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        let (served, failed) = (served.into_inner(), failed.into_inner());
        assert!(failed == 0 && served > 0, "{ending}: {failed} failed, {served} served\n{}", systemd.journal());
        let config = fs::read_to_string(systemd.root.join(FILES[0])).expect("read");
        assert!(config.contains("ca_file"), "{ending}: an upgrade keeps the settings: {config}");

        systemd.run(&format!("kill -KILL {}", systemd.main_process()));
        systemd.wait_until("it serves again", || systemd.serves(ASK));

        let hosts = systemd.root.join("etc/containerd/certs.d/docker.io/hosts.toml");
        fs::create_dir_all(hosts.parent().expect("a directory")).expect("made");
        fs::write(&hosts, "# Written by acr-cache-proxy client-config\n").expect("written");
        let said = systemd.run(remove);
        assert!(
            said.contains("  /etc/containerd/certs.d/docker.io/hosts.toml\n"),
            "{ending}: engines still ask: {said}"
        );
        fs::remove_file(&hosts).expect("removed");
        assert!(!is(&systemd, "is-active") && !there("usr/bin/acr-cache-proxy"), "{ending}: it is removed");
        assert!(there("etc/acr-cache-proxy/environment"), "{ending}: removing keeps what the administrator wrote");
        if let Some(purge) = purge {
            let said = systemd.run(&format!("{install} {package}"));
            assert!(said.contains("systemctl enable --now acr-cache-proxy"), "{ending}: it stays stopped: {said}");
            systemd.run(remove);
            fs::write(systemd.root.join("etc/acr-cache-proxy/config.yaml.old"), "").expect("written");
            systemd.run(purge);
            assert!(!there("etc/acr-cache-proxy/config.yaml.old"), "{ending}: nor copies of the configuration");
            assert!(!there("etc/acr-cache-proxy/environment") && !there(FILES[0]), "{ending}: no secrets are left");
            assert!(there("etc/acr-cache-proxy/ca.pem"), "{ending}: files of others stay");
        }
        fs::remove_dir_all(systemd.root.join("etc/acr-cache-proxy")).expect("removed");
    }
}

/// dockerd as its package starts it, but for what namespaces without a network of their own do not have.
const DOCKER_DROP_IN: &str = "\
[Service]
ExecStart=
ExecStart=/usr/sbin/dockerd --host=fd:// --storage-driver=vfs --bridge=none --iptables=false --ip6tables=false
Environment=SSL_CERT_FILE=/etc/acr-cache-proxy/ca.pem
";

/// As a platform engineer does it: the package, `init`, a pull.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn init_prepares_the_host_of_a_package_and_docker_pulls_through_it() {
    let azure = azure().await;
    azure.push(Image::small("hub/library/hello-world", "latest"));
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    let package = bring(&systemd, ".deb");
    systemd.run(&format!("dpkg --install {package}"));
    systemd.file("etc/hosts", "127.0.0.1 localhost example.azurecr.io\n");
    systemd.file("etc/acr-cache-proxy/ca.pem", azure.ca_pem());
    let variables = format!(
        "AZURE_AUTHORITY_HOST={}\nAZURE_TENANT_ID={TENANT}\nAZURE_CLIENT_ID={CLIENT}\n{SECRETS}\
         SSL_CERT_FILE=/etc/acr-cache-proxy/ca.pem\n",
        azure.authority()
    );
    systemd.file("etc/acr-cache-proxy/environment", &variables);
    systemd.run("chmod 0600 /etc/acr-cache-proxy/environment");
    systemd.file("etc/systemd/system/docker.service.d/override.conf", DOCKER_DROP_IN);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl start docker");

    // Who is not root sees all of it, and nothing is done.
    let registry = format!("example.azurecr.io:{}", azure.registry_addr().port());
    let init = format!("acr-cache-proxy init --yes --registry {registry} --prefix hub");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let output = systemd.command(&format!("{nobody} {init} --skip try")).output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("(needs root)"), "{said}");
    assert!(said.contains(&format!("sudo acr-cache-proxy init --registry {registry}")), "{said}");
    assert!(!is(&systemd, "is-active") && !is(&systemd, "is-enabled"), "{said}");

    let said = systemd.run(&init);
    assert!(said.contains("check: ok") && said.contains("in place of the package's example"), "{said}");
    assert!(is(&systemd, "is-active") && is(&systemd, "is-enabled"), "{said}");
    assert!(systemd.serves(ASK), "{}", systemd.journal());
    assert!(systemd.root.join("etc/docker/daemon.json").exists(), "{said}");

    systemd.run("systemctl reload docker");
    systemd.run("docker pull --quiet busybox");
    assert!(systemd.journal().contains("/v2/library/busybox/manifests/"), "by way of the proxy: {}", systemd.journal());

    // Once more changes nothing, and another prefix is taken by the service that runs.
    let first = systemd.main_process();
    let said = systemd.run(&init);
    assert!(said.contains("The files of docker stand already") && systemd.main_process() == first, "{said}");
    azure.push(Image::small("other/library/busybox", "latest"));
    azure.push(Image::small("other/library/hello-world", "latest"));
    systemd.run(&format!("acr-cache-proxy init --yes --replace --registry {registry} --prefix other"));
    assert!(systemd.serves(ASK) && systemd.main_process() == first, "{}", systemd.journal());
    let asked = azure.requests();
    assert!(
        asked.iter().any(|request| request.target.starts_with("/v2/other/library/busybox/")),
        "{}",
        systemd.journal()
    );
}

/// It said that nobody had named a registry where somebody had, and nothing where the new program did not take over or the unit was masked.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn what_a_package_says_after_its_installation_is_so() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    configure(&systemd, &azure, "", SECRETS);
    let own =
        fs::read_to_string(systemd.root.join(FILES[0])).expect("read").replace("example.azurecr.io", "mine.azurecr.io");
    let put = |text: &str| systemd.file(FILES[0], text);
    let says = |words: &str| systemd.run(&format!("sh /root/after-install {words}"));
    systemd.file("root/after-install", include_str!("../../packaging/after-install"));
    let (init, enable) =
        ("  acr-cache-proxy init\n", "as after a removal: systemctl enable --now acr-cache-proxy.service\n");
    put(include_str!("../../conf/minimal.yaml"));
    let said = says("configure");
    assert!(said.ends_with(init) && !said.contains("rpmsave"), "{said}");
    systemd.file("etc/acr-cache-proxy/config.yaml.rpmsave", &own);
    assert!(says("1").contains(": mv /etc/acr-cache-proxy/config.yaml.rpmsave /etc/"), "of rpm");
    put(&own);
    for words in ["configure", "configure 0.1.0", "1", "2"] {
        let said = says(words);
        assert!(said.ends_with(enable) && !said.contains(init), "{words}: {said}");
    }
    systemd.run("systemctl enable acr-cache-proxy");
    assert_eq!(says("2"), "");
    systemd.run("systemctl disable acr-cache-proxy");
    systemd.run("mv /etc/systemd/system/acr-cache-proxy.service /usr/lib/systemd/system/acr-cache-proxy.service");
    systemd.run("systemctl mask acr-cache-proxy");
    let unmask = "its unit is masked: systemctl unmask acr-cache-proxy.service && systemctl enable --now ";
    assert!(says("configure 0.1.0").contains(unmask));

    systemd.run("systemctl unmask acr-cache-proxy");
    configure(&systemd, &azure, "", SECRETS);
    systemd.run("systemctl start acr-cache-proxy");
    systemd.wait_until("it serves", || systemd.serves(ASK));
    for (program, says_at_end) in
        [("/usr/bin/acr-cache-proxy", ""), ("/bin/false", "  journalctl --unit acr-cache-proxy --lines 20\n")]
    {
        let first = systemd.main_process();
        systemd.run(&format!("cp {program} /usr/bin/new"));
        systemd.run("mv /usr/bin/new /usr/bin/acr-cache-proxy");
        let said = says("configure 0.1.0");
        assert!(said.ends_with(says_at_end) && said.is_empty() == says_at_end.is_empty(), "{program}: {said}");
        assert_eq!(systemd.main_process() == first, program == "/bin/false", "{said}");
    }
}
