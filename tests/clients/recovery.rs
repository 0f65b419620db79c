//! The unit under systemd where something is wrong: a process that hangs or is killed, a host that is not up yet, a mistake.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use acr_emulator::{Fault, Hop, Server};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::home::Home;
use crate::program::{fail, run};
use crate::systemd::{SECRETS, Systemd, azure, azure_on, configure, install};

const CONFIG: &str = "etc/acr-cache-proxy/config.yaml";
const ASK: &str = "http://127.0.0.1:8080";
/// The unit's own time is too long for a test.
const DROP_IN: &str = "etc/systemd/system/acr-cache-proxy.service.d/override.conf";
const SHORT: &str = "[Service]\nWatchdogSec=3s\n";

fn property(systemd: &Systemd, name: &str) -> String {
    systemd.run(&format!("systemctl show --property={name} --value acr-cache-proxy")).trim().to_owned()
}

/// Waits until the watchdog has been fed after this.
fn is_fed(systemd: &Systemd) {
    let fed = || property(systemd, "WatchdogTimestampMonotonic");
    for _ in 0..2 {
        let before = fed();
        systemd.wait_until("the watchdog is fed", || fed() != before);
    }
}

/// Waits until systemd has started another process in place of this one, and that one serves.
fn is_replaced(systemd: &Systemd, first: &str) {
    systemd.wait_until("another process serves", || {
        let now = systemd.main_process();
        now != first && now != "0" && systemd.serves(ASK)
    });
}

/// The threads of this name in a process of systemd's, by the ids that they have here.
fn threads(systemd: &Systemd, pid: &str, name: &str) -> Vec<i32> {
    let number_inside = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        line.split_whitespace().last().map(str::to_owned)
    };
    let is_it = |path: &PathBuf| {
        let status = fs::read_to_string(path.join("status")).ok();
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        status.and_then(|status| number_inside(&status)).is_some_and(|inside| inside == pid)
            && comm.contains("acr-cache")
    };
    let processes = fs::read_dir("/proc").expect("listed").flatten().map(|entry| entry.path());
    let process = processes.filter(|path| path.join("status").exists()).find(is_it);
    let process = process.unwrap_or_else(|| panic!("no process {pid}\n{}", systemd.journal()));
    let tasks = fs::read_dir(process.join("task")).expect("listed").flatten().map(|entry| entry.path());
    let found = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name));
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse().ok();
    found.filter_map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_watchdog_restarts_a_process_that_stands_still_and_one_whose_threads_hang() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    configure(&systemd, &azure, "", SECRETS);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl start acr-cache-proxy");
    assert_eq!(property(&systemd, "WatchdogUSec"), "30s", "of the unit as it is shipped");
    systemd.file(DROP_IN, SHORT);
    systemd.run("systemctl daemon-reload");
    systemd.run("systemctl restart acr-cache-proxy");
    assert!(systemd.serves(ASK), "{}", systemd.journal());
    is_fed(&systemd);

    // Neither a registry that is down nor a reload nor an upgrade stops the feeding.
    azure.inject(Hop::Exchange, Fault::Hang);
    azure.inject(Hop::Data, Fault::Hang);
    is_fed(&systemd);
    systemd.run("systemctl reload acr-cache-proxy");
    is_fed(&systemd);
    azure.clear_faults();
    let first = systemd.main_process();
    systemd.run(&format!("kill -USR2 {first}"));
    is_replaced(&systemd, &first);
    is_fed(&systemd);
    assert_eq!(property(&systemd, "NRestarts"), "0", "{}", systemd.journal());

    let second = systemd.main_process();
    systemd.run(&format!("kill -STOP {second}"));
    is_replaced(&systemd, &second);
    assert!(systemd.journal().contains("Watchdog timeout"), "{}", systemd.journal());
    is_fed(&systemd);

    // The threads that serve, while all others go on.
    let third = systemd.main_process();
    let serving = threads(&systemd, &third, "the listener");
    assert!(!serving.is_empty(), "{}", systemd.journal());
    let serving: Vec<_> = serving.into_iter().map(Pid::from_raw).collect();
    for thread in &serving {
        ptrace::seize(*thread, ptrace::Options::empty()).expect("seized");
        ptrace::interrupt(*thread).expect("interrupted");
    }
    systemd.wait_until("the watchdog finds that", || systemd.journal().matches("Watchdog timeout").count() == 2);
    // Who has stopped a thread has to see its end before the process can end.
    for thread in serving {
        while !matches!(
            waitpid(thread, Some(WaitPidFlag::__WALL)),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_)
        ) {}
    }
    is_replaced(&systemd, &third);
    assert!(systemd.journal().contains("not fed until all parts answer"), "{}", systemd.journal());
    is_fed(&systemd);
    assert_eq!(property(&systemd, "NRestarts"), "2", "{}", systemd.journal());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn the_unit_starts_before_the_network_and_the_identity_and_outlives_a_kill_and_a_mistake() {
    let azure = azure_on([0, 0, 0, 0].into()).await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    systemd.run("systemctl daemon-reload");

    // The registry is on an address that this host has no way to yet, and its sign-in refuses every connection.
    run(Command::new("ip").args(["route", "add", "unreachable", "192.0.2.1"]));
    let settings = "upstream: {domain: 'example.azurecr.io:PORT', prefix: hub, addresses: [192.0.2.1]}";
    let port = azure.registry_addr().port();
    azure.refuse_connections(Server::Entra, true);
    configure(&systemd, &azure, "", SECRETS);
    let usual = fs::read_to_string(systemd.root.join(CONFIG)).expect("read");
    let first = usual.lines().next().expect("a line");
    systemd.file(CONFIG, &usual.replace(first, &settings.replace("PORT", &port.to_string())));
    systemd.run("systemctl start acr-cache-proxy");
    assert_eq!(property(&systemd, "ActiveState"), "active", "{}", systemd.journal());
    let status = property(&systemd, "StatusText");
    assert!(status.starts_with("listening on http://127.0.0.1:8080; example.azurecr.io:"), "{status}");
    assert!(!systemd.serves(ASK));
    let process = systemd.main_process();
    systemd.wait_until("the status says why", || property(&systemd, "StatusText").contains("no token: "));
    run(Command::new("ip").args(["route", "del", "unreachable", "192.0.2.1"]));
    run(Command::new("ip").args(["address", "add", "192.0.2.1/32", "dev", "lo"]));
    azure.refuse_connections(Server::Entra, false);
    systemd.wait_until("it serves when both are there", || systemd.serves(ASK));
    systemd.wait_until("and says so", || property(&systemd, "StatusText").ends_with(": ready"));
    assert_eq!(systemd.main_process(), process, "the same process");
    systemd.file(CONFIG, &usual);

    systemd.run(&format!("kill -KILL {process}"));
    is_replaced(&systemd, &process);
    assert_eq!(property(&systemd, "NRestarts"), "1", "{}", systemd.journal());

    // A mistake: a reload fails, and the old settings serve on; a start fails once, with the line and what is right.
    let process = systemd.main_process();
    systemd.file(CONFIG, &format!("{usual}token_wait: soon\n"));
    fail(&mut systemd.command("systemctl reload acr-cache-proxy"));
    assert!(systemd.serves(ASK) && systemd.main_process() == process, "{}", systemd.journal());
    assert_eq!(property(&systemd, "ActiveState"), "active");
    fail(&mut systemd.command("systemctl restart acr-cache-proxy"));
    assert_eq!(property(&systemd, "ActiveState"), "failed");
    assert_eq!(property(&systemd, "ExecMainStatus"), "2");
    let (journal, line) = (systemd.journal(), usual.lines().count() + 1);
    let says = format!("acr-cache-proxy: /etc/acr-cache-proxy/config.yaml:{line}: token_wait: ");
    assert!(journal.contains(&says), "{says}\n{journal}");
    systemd.file(CONFIG, &usual);
    systemd.run("systemctl start acr-cache-proxy");
    assert!(systemd.serves(ASK), "{}", systemd.journal());
    assert_eq!(property(&systemd, "NRestarts"), "0", "a mistake is not retried: {}", systemd.journal());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/test in a network namespace of its own"]
async fn a_line_in_the_journal_has_its_priority() {
    let azure = azure().await;
    let home = Home::new(&[azure.ca_pem()]);
    let systemd = Systemd::boot(&home);
    install(&systemd);
    systemd.run("systemctl daemon-reload");
    azure.inject(Hop::Exchange, Fault::Status(503));
    for format in ["text", "json"] {
        configure(&systemd, &azure, &format!("log: {{format: {format}}}\n"), SECRETS);
        systemd.run("systemctl restart acr-cache-proxy");
        let of = |priority: &str| {
            systemd.run(&format!(
                "journalctl --no-pager --quiet --output=cat --priority={priority}..{priority} _PID={}",
                systemd.main_process()
            ))
        };
        systemd.wait_until("the failure is a warning", || of("warning").contains("token exchange: 503"));
        assert!(
            of("info").contains(": listening on http://") && !of("warning").contains("listening on"),
            "{}",
            of("info")
        );
        assert!(!of("info").contains("<6>"), "the priority is no part of the line: {}", of("info"));
    }
}

/// What systemd says of the unit as it is shipped: 10 is worst. Each point that is left is the price of a proxy: it needs the
/// host's network and the host's files, such as CA certificates.
#[test]
#[ignore = "needs systemd's tools, which scripts/install brings"]
fn the_unit_is_as_confined_as_a_proxy_can_be() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/acr-cache-proxy.service");
    let printed = run(Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager", "--threshold=15"])
        .arg(unit));
    let found: Vec<_> = printed.lines().filter_map(|line| line.strip_prefix("✗ ")?.split_whitespace().next()).collect();
    let expected = [
        "RootDirectory=/RootImage=",
        "RestrictAddressFamilies=~AF_UNIX",
        "RestrictAddressFamilies=~AF_(INET|INET6)",
        "PrivateNetwork=",
        "DeviceAllow=",
        "IPAddressDeny=",
    ];
    assert_eq!(found, expected, "{printed}");
}
