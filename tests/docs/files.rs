//! Settings, values of the Helm chart, units, and the files of clients: what the program takes, or prints itself.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use crate::block::Block;
use crate::{program, root};

/// The routes of the examples: one, and two.
const ONE: &str = "routes:\n  - {source: docker.io, domain: example.azurecr.io, prefix: hub}\n";
const TWO: &str = "  - {source: ghcr.io, domain: example.azurecr.io, prefix: ghcr}\n";

/// Settings are taken by the program. What stands there for one table only gets the registry that it lacks.
pub(crate) fn settings(block: &Block) -> Result<(), String> {
    let has = |key: &str| block.text.lines().any(|line| line.starts_with(key));
    let registry = if has("upstream:") || has("routes:") { "" } else { "upstream: {domain: example.azurecr.io}\n" };
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(file.path(), block.text.clone() + registry).expect("written");
    // It loads the settings by the same parser as the proxy, and does not listen.
    let output = program(&[
        "client-config",
        "podman",
        "--mirror",
        "https://mirror.internal",
        "--config",
        &file.path().to_string_lossy(),
    ]);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A client's file, or the lines for one, are what `client-config` prints.
pub(crate) fn client(block: &Block) -> Result<(), String> {
    let directory = tempfile::tempdir().expect("a directory");
    // Where one requires signatures, podman has a file more.
    let policy = directory.path().join("etc/containers/policy.json");
    std::fs::create_dir_all(policy.parent().expect("a directory")).expect("made");
    std::fs::write(policy, "{\"default\": [{\"type\": \"sigstoreSigned\", \"keyPath\": \"/k\"}]}").expect("written");
    let root = directory.path().to_string_lossy();
    let mut printed = String::new();
    for routes in [ONE.to_owned(), ONE.to_owned() + TWO] {
        let config = directory.path().join("config.yaml");
        std::fs::write(&config, routes).expect("written");
        for client in ["docker", "containerd", "podman", "buildkit", "k3s", "talos", "kaniko"] {
            let output = program(&["client-config", client, "--config", &config.to_string_lossy()]);
            assert!(output.status.success(), "{output:?}");
            printed += &format!("{}\n", String::from_utf8_lossy(&output.stdout));
            // What is not a file is told in lines with an indent.
            printed += &String::from_utf8_lossy(&output.stderr)
                .lines()
                .map(|line| format!("{}\n", line.trim()))
                .collect::<String>();
        }
        let written = ["client-config", "podman", "--write", "--root", &root, "--config", &config.to_string_lossy()];
        assert!(program(&written).status.success());
        let signatures = directory.path().join("etc/containers/registries.d/50-acr-cache-proxy.yaml");
        printed += &std::fs::read_to_string(signatures).expect("written");
    }
    if printed.contains(&block.text) {
        return Ok(());
    }
    // The lines for containerd's own file stand below the version that they are for.
    if let Some(lines) = block.text.strip_prefix("version = ") {
        let (version, lines) = lines.split_once('\n').unwrap_or_default();
        let lines: String = lines.trim_start().lines().map(|line| format!("{}\n", line.trim())).collect();
        let (_, told) = printed.split_once(&format!("# version = {version} (")).unwrap_or_default();
        if !lines.is_empty() && told.split_once('\n').is_some_and(|(_, rest)| rest.starts_with(&lines)) {
            return Ok(());
        }
    }
    Err(format!("client-config prints no such file:\n{}", block.text))
}

/// Values of the Helm chart: each top key is one of the chart's, and the program takes what is in `config`. What the chart
/// makes of values is checked by scripts/deploy-check.
pub(crate) fn values(block: &Block) -> Result<(), String> {
    let read = |text: &str| serde_yaml::from_str::<serde_yaml::Mapping>(text).map_err(|cause| cause.to_string());
    let chart = std::fs::read_to_string(root().join("charts/acr-cache-proxy/values.yaml")).expect("the chart's values");
    let (known, given) = (read(&chart)?, read(&block.text)?);
    if let Some(key) = given.keys().find(|key| !known.contains_key(key)) {
        return Err(format!("the chart has no value {key:?}"));
    }
    let text = serde_yaml::to_string(&given["config"]).map_err(|cause| cause.to_string())?;
    settings(&Block { place: block.place.clone(), language: block.language.clone(), text })
}

/// The sample of a socket unit has the address that the proxy has by itself: with another one it does not start.
#[test]
fn the_socket_unit_is_for_the_listener_by_default() {
    let unit = std::fs::read_to_string(root().join("conf/acr-cache-proxy.socket")).expect("the unit");
    let sockets: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let all = std::fs::read_to_string(root().join("conf/full.yaml")).expect("the settings");
    let listen = all.lines().find_map(|line| line.strip_prefix("listen: ")).expect("the listener");
    assert_eq!(sockets, [listen]);
}

/// Several proxies may run on the host, and for a while two of this unit.
#[test]
fn the_unit_reloads_its_own_process() {
    let unit = std::fs::read_to_string(root().join("conf/acr-cache-proxy.service")).expect("the unit");
    let check = "-/usr/bin/acr-cache-proxy check --config /etc/acr-cache-proxy/config.yaml\n";
    assert!(
        unit.contains(&format!("\nExecStartPre={check}")) && unit.contains(&format!("\nExecReload={check}")),
        "{unit}"
    );
    assert!(unit.contains("\nExecReload=/usr/bin/acr-cache-proxy reload --pid $MAINPID\n"), "{unit}");
}

/// As OpenRC does, its functions played: it reads the script with a shell, and calls what is in it.
#[test]
fn the_script_for_openrc_runs_and_its_flags_are_the_programs() {
    let play = "ebegin() { :; }; eend() { return $1; }; use() { echo use $*; }; before() { echo before $*; }; \
                RC_SVCNAME=acr-cache-proxy; config=$1; . $2; command=$3; \
                depend; start_pre && echo checked; reload; echo \"$supervisor: $command $command_args\"";
    let directory = tempfile::tempdir().expect("a directory");
    let supervisor = directory.path().join("supervise-daemon");
    std::fs::write(&supervisor, "#!/bin/sh\necho supervise-daemon $*\n").expect("written");
    std::fs::set_permissions(&supervisor, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
    let run = |config: &str| {
        let mut command = std::process::Command::new("/bin/sh");
        command.env("PATH", format!("{}:/usr/bin:/bin", directory.path().display()));
        command.args(["-eu", "-c", play, "openrc-run", config]).arg(root().join("conf/acr-cache-proxy.openrc"));
        let output = command.arg(env!("CARGO_BIN_EXE_acr-cache-proxy")).output().expect("a shell runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let good = root().join("conf/minimal.yaml").display().to_string();
    let printed = run(&good);
    let signal = "supervise-daemon acr-cache-proxy --signal HUP --pidfile /run/acr-cache-proxy.pid\n";
    for part in ["use net dns\n", "before docker ", "checked\n", signal, "supervise-daemon: /"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let line = printed.lines().last().unwrap_or_default();
    let (_, arguments) = line.split_once(": ").and_then(|(_, command)| command.split_once(' ')).expect("a command");
    assert_eq!(arguments, format!("--config {good}"));
    let wrong = directory.path().join("config.yaml");
    std::fs::write(&wrong, "no_such_setting: 1\n").expect("written");
    assert!(!run(&wrong.display().to_string()).contains("checked\n"), "a mistake ends the start");
}

/// `check` said that the service gets the variables of that file, and the script never read it.
#[test]
fn the_script_for_openrc_gives_the_variables_of_the_file_and_evaluates_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("environment");
    let text = "# A=0\nA=1\nB='two $(id) `id`'\nC=\"3\"\nexport D=4\nE\n5F=6\nG=a=b\nH=last";
    std::fs::write(&file, text).expect("written");
    let play = "RC_SVCNAME=acr-cache-proxy; . $1; command=true; start_pre; exec env";
    let mut command = std::process::Command::new("/bin/sh");
    command.env_clear().env("environment", &file).env("PATH", "/usr/bin:/bin");
    command.args(["-eu", "-c", play, "openrc-run"]).arg(root().join("conf/acr-cache-proxy.openrc"));
    let printed = String::from_utf8(command.output().expect("a shell runs").stdout).expect("text");
    let of_file = |line: &&str| line.split_once('=').is_some_and(|(name, _)| name.trim_start_matches("5").len() == 1);
    let mut given: Vec<_> = printed.lines().filter(of_file).filter(|line| !line.starts_with('_')).collect();
    given.sort_unstable();
    assert_eq!(given, ["A=1", "B=two $(id) `id`", "C=3", "G=a=b", "H=last"], "{printed}");
}

/// A drop-in for the unit: settings in a section; those of the sandbox are ones that the unit has.
pub(crate) fn unit(block: &Block) -> Result<(), String> {
    let unit = std::fs::read_to_string(root().join("conf/acr-cache-proxy.service")).expect("the unit");
    let known: BTreeSet<_> = unit.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key).collect();
    let mut is_in_section = false;
    for line in block.text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let is_section = line.starts_with('[') && unit.lines().any(|other| other == line);
        is_in_section |= is_section;
        // These are systemd's own, and the unit has no use for them.
        let key = line.split_once('=').map(|(key, _)| key).unwrap_or_default();
        let of_drop_ins = ["LoadCredential", "Environment", "RuntimeDirectory", "SupplementaryGroups"];
        if !is_section && !(is_in_section && (known.contains(key) || of_drop_ins.contains(&key))) {
            return Err(format!("{line:?} is no setting of a unit, or stands in no section"));
        }
    }
    Ok(())
}

/// What `doctor` says is what it says of a host of its tests.
pub(crate) fn report(block: &Block) -> Result<(), String> {
    let reports = std::fs::read_to_string(root().join("tests/integration/doctor/reports.txt")).expect("reports");
    // The hosts are trees there, and for the host itself no command has this flag.
    let is_one = reports.replace(" --root /tree", "").contains(block.text.trim_end());
    if is_one { Ok(()) } else { Err("no host of tests/integration/doctor has this report".to_owned()) }
}
