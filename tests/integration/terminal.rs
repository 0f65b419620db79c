//! What others have written makes no terminal show anything but that text.

use std::path::Path;
use std::process::{Command, Output};

use acr_emulator::{Fault, Hop};
use testkit::Setup;

/// A title, a cleared screen, colours of two kinds, a text that runs backwards, and a line that would pass for one of this program's own.
const KEYS: [&str; 4] =
    [r"\e]0;PWNED\a\e[2J\e[31mkey", r"\x9b31m", r"\u202egpj.exe\u2066", r"key\nacr-cache-proxy: forged"];

fn run(arguments: &[&str], config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.args(arguments).arg("--config").arg(config).output().expect("it runs")
}

/// Every character of it can be shown, and every line is one of this program's.
fn assert_shown(what: &str, text: &str) {
    let is_obeyed = |c: char| c != '\n' && (c.is_control() || ('\u{2028}'..='\u{2069}').contains(&c));
    assert!(!text.contains(is_obeyed), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("acr-cache-proxy: forged")), "{what}: {text:?}");
}

/// Keys are quoted in what is wrong with them; values always were as Rust writes them.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_a_file_name_with_escapes_is_shown_and_not_obeyed() {
    let azure = testkit::azure().await;
    let files = tempfile::tempdir().expect("a directory");
    let file = files.path().join("\u{1b}[31m\u{202e}\nacr-cache-proxy: forged.yaml");
    let proxy = Setup::new(&azure).start();
    let good = std::fs::read_to_string(proxy.config()).expect("written");
    for key in KEYS {
        for (place, config) in [
            ("the file", format!("\"{key}\": 1\n{good}")),
            ("a table", format!("{good}limits: {{\"{key}\": 1}}\n")),
            ("a key twice", format!("\"{key}\": 1\n\"{key}\": 1\n{good}")),
            (
                "a list",
                good.replace("listen: 127.0.0.1:0", &format!("listen: [{{address: '127.0.0.1:0', \"{key}\": 1}}]")),
            ),
            ("an anchor", format!("log: *\"{key}\"\n")),
        ] {
            std::fs::write(&file, &config).expect("written");
            for command in [&[][..], &["check"], &["client-config", "docker"], &["doctor"], &["doctor", "--json"]] {
                let output = run(command, &file);
                let what = format!("{place} {key:?} {command:?}");
                assert!(!output.status.success(), "{what}: {output:?}");
                assert_shown(&what, &String::from_utf8(output.stdout).expect("text"));
                assert_shown(&what, &String::from_utf8(output.stderr).expect("text"));
            }
            let (is_done, said) = proxy.reload_with(&config);
            assert!(!is_done, "{place} {key:?}");
            assert_shown(place, &said);
        }
    }
    let none = files.path().join("\u{1b}[31m\nacr-cache-proxy: forged");
    for command in [&[][..], &["check"], &["check", "--json"], &["client-config", "docker"], &["doctor"]] {
        let output = run(command, &none);
        assert!(!output.status.success(), "{command:?}: {output:?}");
        assert_shown("no file", &String::from_utf8(output.stdout).expect("text"));
        assert_shown("no file", &String::from_utf8(output.stderr).expect("text"));
    }
}

fn shown(what: &str, output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert_shown(what, &text);
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_and_a_proxy_say_runs_in_no_other_direction() {
    let azure = testkit::azure().await;
    let message = "gpj.\\u202eexe\\u2066 \\u001b[8m\\u009b31m\\nacr-cache-proxy: forged";
    let error = |status| Fault::StatusWith {
        status,
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: format!(r#"{{"errors":[{{"code":"NO\u202eNE","message":"{message}"}}]}}"#),
    };
    azure.inject(Hop::Data, error(404));
    let proxy = Setup::new(&azure).start();
    let via = proxy.url("");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    let output = command.args(["warm", "busybox", "--via", &via]).output().expect("it runs");
    let said = shown("warm", &output);
    assert!(said.contains("gpj. exe"), "{said}");
    assert_shown("log", &proxy.end());

    azure.inject(Hop::Exchange, error(403));
    let said = tokio::task::spawn_blocking({
        let setup = Setup::new(&azure).switch("--online");
        move || shown("check", &setup.run("check"))
    });
    let said = said.await.expect("no panic");
    assert!(said.contains("gpj. exe"), "{said}");
}

#[test]
fn a_file_of_an_engine_that_is_shown_runs_in_no_other_direction() {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("etc/docker/daemon.json");
    std::fs::create_dir_all(file.parent().expect("one")).expect("made");
    let routes = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/routes.yaml");
    for content in ["{\"gpj.\u{202e}exe\": \"\u{9b}31m\",\n\"b\": 1}\n", "{\"\u{202e}\u{7f}"] {
        std::fs::write(&file, content).expect("written");
        for task in ["--merge", "--check", "--write"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
            command.args(["client-config", "docker", task, "--config", routes, "--root"]).arg(root.path());
            let said = shown(task, &command.output().expect("it runs"));
            assert!(said.contains("daemon.json"), "{task}: {said}");
        }
    }
}
