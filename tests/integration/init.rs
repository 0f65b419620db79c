//! `init` at a terminal, and without one: what is agreed to is done, and nothing else.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use acr_emulator::{Emulator, Image};
use testkit::forward::ForwardProxy;
use testkit::{CLIENT, SECRET, TENANT};

mod engines;
mod running;
mod words;

const CONFIG: &str = "etc/acr-cache-proxy/config.yaml";
const DAEMON_JSON: &str = "etc/docker/daemon.json";
/// Ctrl-D and Ctrl-C, as a terminal sends them.
const END: &str = "\u{4}";
const INTERRUPT: &str = "\u{3}";
/// Answers that agree to all: registry, source, prefix, no other rule, and each step.
const SETTINGS: &str = "example.azurecr.io\n\nhub\n\n";

/// A host: its files, and what is on its network.
struct Host {
    root: tempfile::TempDir,
    azure: Emulator,
    _forward: ForwardProxy,
}

impl Host {
    /// With dockerd, and the sign-in of the tests in the service's variables.
    async fn new(secret: &str) -> Self {
        let azure = Emulator::start(testkit::options()).await.expect("the emulator starts");
        azure.push(Image::small("hub/library/hello-world", "latest"));
        let forward = ForwardProxy::start().await;
        let host = Self { root: tempfile::tempdir().expect("a directory"), azure, _forward: forward };
        host.file("usr/bin/dockerd", "");
        let ca = host.file("etc/ssl/ca.pem", host.azure.ca_pem());
        // The registry's name is known to the forward proxy alone.
        let variables = format!(
            "# of the service\nAZURE_AUTHORITY_HOST={}\nAZURE_TENANT_ID={TENANT}\nAZURE_CLIENT_ID={CLIENT}\n\
             AZURE_CLIENT_SECRET='{secret}'\nHTTPS_PROXY=http://{}\nSSL_CERT_FILE={}\n",
            host.azure.authority(),
            host._forward.address(),
            ca.display()
        );
        host.file("etc/acr-cache-proxy/environment", &variables);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        fs::write(&path, content).expect("written");
        path
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    fn registry(&self) -> String {
        format!("example.azurecr.io:{}", self.azure.registry_addr().port())
    }

    /// The answers to the questions about the registry and its rule.
    fn settings(&self) -> String {
        format!("{}\n\nhub\n\n", self.registry())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self.root.path(), arguments)
    }

    /// Off the runtime's thread, on which the emulator runs.
    async fn run(&self, answers: Option<&str>, arguments: &[&str]) -> (i32, String) {
        let (mut command, answers) = (self.command(arguments), answers.map(str::to_owned));
        let output =
            tokio::task::spawn_blocking(move || run(&mut command, answers.as_deref())).await.expect("no panic");
        judge(&output)
    }

    /// Everything below the configuration's and the engine's directories.
    fn files(&self) -> Vec<String> {
        let below = |name: &str| {
            let all = fs::read_dir(self.path(name)).into_iter().flatten();
            all.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let mut files = [below("etc/acr-cache-proxy"), below("etc/docker")].concat();
        files.retain(|name| name != "environment");
        files.sort_unstable();
        files
    }
}

fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
    command.args(["init", "--root"]).arg(root).args(arguments);
    command.env_clear().env("AZURE_CLIENT_SECRET", "of-the-shell").env("PATH", "/nonexistent");
    command
}

/// With a terminal whose input ends after the answers, or with none.
fn run(command: &mut Command, answers: Option<&str>) -> Output {
    let Some(answers) = answers else { return command.stdin(Stdio::null()).output().expect("it runs") };
    let (mut master, slave) = terminal();
    master.write_all(format!("{answers}{END}").as_bytes()).expect("the terminal takes it");
    command.stdin(slave).output().expect("it runs")
}

fn terminal() -> (File, OwnedFd) {
    let pair = nix::pty::openpty(None, None).expect("a terminal");
    (File::from(pair.master), pair.slave)
}

/// Status and text.
fn judge(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    for secret in [SECRET, "of-the-shell", "wrong-one", "eyJ", "panicked"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    (output.status.code().expect("no signal"), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_become_a_configuration_that_is_tried_and_an_engine_that_comes_here() {
    let host = Host::new(SECRET).await;
    let (status, said) = host.run(Some(&format!("{}y\ny\ny\n", host.settings())), &[]).await;
    assert_eq!(status, 0, "{said}");
    for words in
        ["check: ok: pulls get through", "an Entra token, by client secret", "systemctl enable --now acr-cache-proxy"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let config = host.read(CONFIG).expect("written");
    assert!(config.contains(&format!("domain: \"{}\"\n  prefix: hub\n", host.registry())), "{config}");
    assert!(said.contains("listen: 127.0.0.1:8080"), "it is shown before: {said}");
    assert!(config.contains("\nadmin: 127.0.0.1:8081\n"), "doctor asks there for the tokens: {config}");
    assert!(host.read(DAEMON_JSON).expect("written").contains("http://127.0.0.1:8080"), "{said}");

    // Once more: what stands there is kept, and nothing changes.
    let files = host.files();
    let (status, said) = host.run(Some("\nn\n"), &[]).await;
    assert_eq!((status, host.files(), host.read(CONFIG)), (0, files, Some(config)), "{said}");
    assert!(
        said.contains("There is a configuration already") && said.contains("The files of docker stand already"),
        "{said}"
    );
}

/// "n" was taken for a registry's name.
#[tokio::test(flavor = "multi_thread")]
async fn no_other_cache_rule_is_also_a_word() {
    let host = Host::new(SECRET).await;
    let (status, said) = host.run(Some("example.azurecr.io\n\nhub\nNo\nn\ny\nn\n"), &[]).await;
    assert_eq!((status, host.files()), (0, vec!["config.yaml".to_owned()]), "{said}");
}

/// They were passed over by the trial as by systemd, and nobody was told.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_the_variables_that_systemd_passes_over_are_told() {
    let host = Host::new(SECRET).await;
    let variables = host.read("etc/acr-cache-proxy/environment").expect("there");
    host.file(
        "etc/acr-cache-proxy/environment",
        &variables.replace("AZURE_CLIENT_SECRET=", "export AZURE_CLIENT_SECRET="),
    );
    let registry = host.registry();
    let (_, said) = host.run(None, &["--yes", "--registry", &registry, "--prefix", "hub"]).await;
    let told =
        "environment: systemd passes over `export AZURE_CLIENT_SECRET=`: write AZURE_CLIENT_SECRET= without export";
    assert!(said.contains(told), "{said}");
}

/// What is refused is not done, and what was agreed to before is whole.
#[tokio::test(flavor = "multi_thread")]
async fn every_step_can_be_refused() {
    let host = Host::new(SECRET).await;
    let hosts_toml = "certs.d";
    for (answers, files) in [
        ("n\nn\n", &[][..]),
        ("n\ny\nn\n", &["config.yaml"]),
        ("n\ny\ny\n", &[hosts_toml, "config.yaml", "daemon.json"]),
    ] {
        let _ = fs::remove_file(host.path(CONFIG));
        let (status, said) = host.run(Some(&format!("{SETTINGS}{answers}")), &[]).await;
        assert_eq!(
            (status, host.files()),
            (0, files.iter().map(|name| (*name).to_owned()).collect()),
            "{answers:?} {said}"
        );
        assert!(!said.contains("check: "), "it was not to be tried: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_everything_is_shown_and_nothing_is_done() {
    let host = Host::new(SECRET).await;
    let (status, said) = host.run(None, &["--registry", "example.azurecr.io", "--prefix", "hub"]).await;
    assert_eq!((status, host.files()), (1, Vec::new()), "{said}");
    for words in [
        "domain: example.azurecr.io",
        "systemctl enable --now",
        "registry-mirrors",
        "nothing was done, because standard input is no terminal",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Only what is missing is asked for.
    for (flags, status, says) in [
        (&["--yes"][..], 1, "nobody can be asked: give --registry and --prefix\n"),
        (&["--registry", "example.azurecr.io"], 1, "nobody can be asked: give --prefix\n"),
        (&["--yes", "--registry", "example.azurecr.io"], 2, "--prefix: --yes asks nothing: give the target of the"),
    ] {
        let (found, said) = host.run(None, flags).await;
        assert_eq!((found, host.files()), (status, Vec::new()), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

/// The question named a file that was not there.
#[tokio::test(flavor = "multi_thread")]
async fn without_variables_of_the_service_none_are_promised_to_the_trial() {
    let host = Host::new(SECRET).await;
    fs::remove_file(host.path("etc/acr-cache-proxy/environment")).expect("removed");
    let (_, said) = host.run(Some(&format!("{SETTINGS}n\nn\n")), &[]).await;
    assert!(said.contains("\nTry the way to the registry? [Y/n] "), "{said}");
}

/// The last line was a command for a file that had just been refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_was_refused_is_not_to_be_checked() {
    let host = Host::new("wrong-one").await;
    let (status, said) = host.run(Some(&format!("{}y\nn\n", host.settings())), &[]).await;
    assert_eq!((status, host.files()), (1, Vec::new()), "{said}");
    // Typed without the root, it would have prepared the live host.
    let then = format!(
        "then: acr-cache-proxy init --registry {} --source docker.io --prefix hub --root {}\n",
        host.registry(),
        host.root.path().display()
    );
    assert!(said.ends_with(&then) && !said.contains("check --online"), "{said}");
    let (_, said) = host.run(Some(&format!("{}y\ny\nn\n", host.settings())), &[]).await;
    // From here it would go another way, as somebody else.
    let check = "; then, on that host: acr-cache-proxy check --online --config /etc/acr-cache-proxy/config.yaml\n";
    assert!(said.contains(check), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_yes_all_is_done_and_what_somebody_has_edited_is_left() {
    let host = Host::new(SECRET).await;
    let registry = host.registry();
    let flags = ["--yes", "--registry", &registry, "--prefix", "hub"];
    for _ in 0..2 {
        let (status, said) = host.run(None, &flags).await;
        assert_eq!(
            (status, host.files()),
            (0, ["certs.d", "config.yaml", "daemon.json"].map(str::to_owned).into()),
            "{said}"
        );
        assert!(said.contains("check: ok"), "{said}");
    }
    let edited = host.read(CONFIG).expect("written") + "token_wait: 3s\n";
    host.file(CONFIG, &edited);
    let (status, said) = host.run(None, &flags).await;
    assert_eq!((status, host.read(CONFIG).as_ref()), (1, Some(&edited)), "{said}");
    assert!(said.contains("  -token_wait: 3s\n") && said.contains("--replace replaces it"), "{said}");
    assert!(said.contains("The flags would change it so:") && !said.contains("Nothing else is done"), "{said}");
    assert!(!said.contains("is changed") && !said.contains("copy of it"), "nothing is changed: {said}");

    let (status, said) = host.run(None, &["--yes"]).await;
    assert_eq!((status, host.read(CONFIG).as_ref()), (0, Some(&edited)), "it goes on with what is there: {said}");

    let (status, said) = host.run(None, &[&flags[..], &["--replace"]].concat()).await;
    assert_eq!((status, host.read("etc/acr-cache-proxy/config.yaml.old").as_ref()), (0, Some(&edited)), "{said}");
    assert!(!host.read(CONFIG).expect("written").contains("token_wait"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_has_been_told_by_others_is_added_to_and_shown_before() {
    let host = Host::new(SECRET).await;
    let theirs = "{\n  \"debug\": true\n}\n";
    host.file(DAEMON_JSON, theirs);
    let flags = ["--registry", "example.azurecr.io", "--prefix", "hub", "--skip", "try"];
    let (status, said) = host.run(None, &flags).await;
    assert_eq!((status, host.read(DAEMON_JSON).as_deref()), (1, Some(theirs)), "{said}");
    assert!(said.contains("\n+") && said.contains("would merge"), "the difference: {said}");
    let (status, said) = host.run(None, &[&flags[..], &["--yes"]].concat()).await;
    let merged = host.read(DAEMON_JSON).expect("there");
    assert!(status == 0 && merged.contains("\"debug\": true") && merged.contains("http://127.0.0.1:8080"), "{said}");
}

/// dockerd did not start any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_among_dockerds_flags_is_told_and_its_file_left_alone() {
    let drop_in = "etc/systemd/system/docker.service.d/mirror.conf";
    for (program, why) in [
        (
            "/usr/bin/dockerd --registry-mirror=https://mirror.example",
            "gives dockerd --registry-mirror, and dockerd does not start",
        ),
        ("/usr/bin/start-docker", "runs the script /usr/bin/start-docker, whose commands are not followed"),
    ] {
        let host = Host::new(SECRET).await;
        host.file(drop_in, &format!("[Service]\nExecStart=\nExecStart={program}\n"));
        host.file("usr/bin/start-docker", "#!/bin/sh\nexec dockerd --registry-mirror https://mirror.example\n");
        let flags = ["--registry", "example.azurecr.io", "--prefix", "hub", "--skip", "try", "--yes"];
        let (status, said) = host.run(None, &flags).await;
        assert_eq!((status, host.files()), (1, ["certs.d", "config.yaml"].map(str::to_owned).into()), "{said}");
        let sentence = format!("/{drop_in} {why}");
        assert_eq!(said.matches(&sentence).count(), 2, "where it is shown, and at the end: {said}");
    }
}

/// A person is asked once more, and an empty line is no.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_edited_is_replaced_only_by_a_yes() {
    let host = Host::new(SECRET).await;
    for (answer, is_replaced) in [("\n", false), ("y\nn\n", true)] {
        let edited = "upstream: {domain: other.azurecr.io}\n";
        host.file(CONFIG, edited);
        let (status, said) = host.run(Some(&format!("n\n{SETTINGS}n\n{answer}")), &[]).await;
        assert_eq!(status, 0, "{said}");
        assert!(said.contains("docker.io -> other.azurecr.io/"), "{said}");
        assert!(said.contains("  -upstream: {domain: other.azurecr.io}\n  +"), "the difference: {said}");
        assert_eq!(host.read(CONFIG).as_deref() != Some(edited), is_replaced, "{said}");
        assert_eq!(host.read("etc/acr-cache-proxy/config.yaml.old").is_some(), is_replaced, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_fails_prevents_nothing_and_is_told_in_the_words_of_check() {
    let host = Host::new("wrong-one").await;
    let registry = host.registry();
    let (status, said) = host.run(None, &["--yes", "--registry", &registry, "--prefix", "hub"]).await;
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("failed   identity") && said.contains("check: failed: 1 hop fails"), "{said}");
    assert!(said.contains("what to do: set AZURE_CLIENT_SECRET to the secret's value, not its id"), "{said}");
    assert!(said.contains("the way to the registry is not open yet"), "{said}");
    assert_eq!(host.files(), ["certs.d", "config.yaml", "daemon.json"]);
    // What the shell has and the service has not is named, where it may be the reason.
    let environment = host.read("etc/acr-cache-proxy/environment").expect("there");
    let environment: String =
        environment.lines().filter(|line| !line.contains("SECRET")).map(|line| format!("{line}\n")).collect();
    host.file("etc/acr-cache-proxy/environment", &environment);
    let (status, said) = host.run(None, &["--yes"]).await;
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("Set here, but not for the service: AZURE_CLIENT_SECRET."), "{said}");
}

/// An empty line agreed to engines that were sent to a proxy without an identity.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_sign_in_that_fails_an_empty_answer_agrees_to_nothing() {
    let host = Host::new("wrong-one").await;
    let (status, said) = host.run(Some(&format!("{}y\n\n", host.settings())), &[]).await;
    assert_eq!((status, host.files()), (1, Vec::new()), "{said}");
    assert!(said.contains("an empty answer means no from here on.\n") && said.contains("Write it? [y/N] "), "{said}");
    let (status, said) = host.run(Some(&format!("{}y\ny\n\n", host.settings())), &[]).await;
    assert_eq!((status, host.files()), (1, vec!["config.yaml".to_owned()]), "{said}");
}

/// The file was written, and then refused.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_the_proxy_refuses_are_not_written() {
    let host = Host::new(SECRET).await;
    let flags = [
        "--registry",
        "example.azurecr.io",
        "--prefix",
        "hub",
        "--yes",
        "--skip",
        "try",
        "--admin-address",
        "127.0.0.1:8080",
    ];
    let (status, said) = host.run(None, &flags).await;
    assert_eq!((status, host.files()), (1, Vec::new()), "{said}");
    assert!(
        said.contains("is taken by the listener for clients") && said.contains("nothing was done: give other flags"),
        "{said}"
    );
}

/// Without a terminal nothing is written, so it is about this machine. The service did not start, and nobody had said so.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_something_else_has_is_told_with_the_flag_for_another_one() {
    let try_at = |address: std::net::SocketAddr| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acr-cache-proxy"));
        command.args(["init", "--registry", "example.azurecr.io", "--prefix", "hub", "--skip", "try"]);
        command.arg("--listen-address").arg(address.to_string()).env_clear();
        async move { judge(&tokio::task::spawn_blocking(move || run(&mut command, None)).await.expect("no panic")) }
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let (status, said) = try_at(address).await;
    assert_eq!(status, 1, "{said}");
    let sentence = format!("the proxy cannot listen on {address}, where another program listens");
    assert!(
        said.contains(&sentence)
            && said.contains("choose another port: acr-cache-proxy init --registry example.azurecr.io"),
        "{said}"
    );
    assert!(
        said.matches("--listen-address").count() == 1 && said.contains(" --skip try"),
        "it runs as it is told: {said}"
    );
    assert!(!said.contains(&format!("--listen-address {address} ")), "{said}");
    assert!(!said.contains("This goes into"), "{said}");

    let azure = testkit::azure().await;
    let proxy = testkit::Setup::new(&azure).start();
    let (_, said) = try_at(proxy.address()).await;
    assert!(!said.contains("another program"), "it is a proxy: {said}");
}

/// How each question ends, and an answer that does as little as goes on.
const QUESTIONS: [(&str, &str); 7] = [
    ("such as example.azurecr.io: ", "example.azurecr.io"),
    (" [docker.io]: ", ""),
    (" [none]: ", "hub"),
    (" [no more]: ", ""),
    ("/environment? [Y/n] ", "n"),
    ("Write it? [Y/n] ", "y"),
    ("Write them? [Y/n] ", "n"),
];

/// At each question the input ends, or Ctrl-C comes: what was agreed to before is whole, and nothing else is there.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_at_any_question_leaves_nothing_half_done() {
    let host = Host::new(SECRET).await;
    for count in 0..QUESTIONS.len() {
        for end in [END, INTERRUPT] {
            let _ = fs::remove_file(host.path(CONFIG));
            let root = host.root.path().to_owned();
            let output = tokio::task::spawn_blocking(move || cut_short(&root, count, end)).await.expect("no panic");
            let (status, signal) = (output.status.code(), output.status.signal());
            // setsid passes on the status of a program that a signal has ended as a shell does.
            let is_as_told = if end == END { status == Some(1) } else { signal == Some(2) || status == Some(130) };
            assert!(is_as_told, "{count} {end:?} {output:?}");
            let expected = if count == QUESTIONS.len() - 1 { vec!["config.yaml".to_owned()] } else { Vec::new() };
            assert_eq!(host.files(), expected, "{count} {end:?} {output:?}");
        }
    }
}

/// Answers so many questions, and ends the input or the program at the next.
fn cut_short(root: &Path, count: usize, end: &str) -> Output {
    let (mut master, slave) = terminal();
    let program = command(root, &[]);
    // The terminal has to be the program's own, so that its keys become signals, which a test in the background ignores.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=INT", "setsid", "--ctty", "--wait"])
        .arg(program.get_program())
        .args(program.get_args())
        .env_clear();
    let mut child = command.stdin(slave).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("setsid runs");
    drop(command);
    let mut output = child.stdout.take().expect("a pipe");
    let mut said = Vec::new();
    for (at, (question, answer)) in QUESTIONS.iter().enumerate().take(count + 1) {
        while !said.ends_with(question.as_bytes()) {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap_or_else(|cause| panic!("{cause}: {}", String::from_utf8_lossy(&said)));
            said.push(byte[0]);
        }
        let keys = if at == count { end.to_owned() } else { format!("{answer}\n") };
        master.write_all(keys.as_bytes()).expect("the terminal takes it");
    }
    child.stdout = Some(output);
    child.wait_with_output().expect("it ends")
}
