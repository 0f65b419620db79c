//! Command lines: what they mean, and what is said of wrong ones.

use super::*;

fn run(line: &str) -> Result<Command, Exit> {
    parse(std::iter::once("acr-cache-proxy").chain(line.split_whitespace()).map(OsString::from))
}

#[test]
fn the_go_programs_command_line_works_in_all_its_spellings() {
    for line in [
        "--upstream-domain example.azurecr.io --upstream-prefix hub --listen-address :8081",
        "-upstream-domain example.azurecr.io -upstream-prefix=hub -listen-address :8081",
        "serve --upstream-domain=example.azurecr.io --upstream-prefix=hub --listen-address=:8081",
    ] {
        let Ok(Command::Serve(serve)) = run(line) else { panic!("{line}") };
        let Serve { config, flags: _, warnings, exit_with_stdin } = *serve;
        assert_eq!(config.upstreams()[0].domain().host(), "example.azurecr.io", "{line}");
        assert_eq!(config.routes().iter().next().expect("a route").prefix.as_str(), "hub", "{line}");
        assert_eq!(config.listeners()[0].endpoint.to_string(), "[::]:8081", "{line}");
        assert!(warnings.is_empty() && !exit_with_stdin, "{line}");
    }
    let Ok(Command::Serve(serve)) = run("--upstream-domain a.azurecr.io --masquerade-domain b") else { panic!() };
    let warnings = serve.warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("--masquerade-domain has no effect"), "{warnings:?}");
}

#[test]
fn init_takes_the_registry_and_the_prefix_by_the_names_of_their_settings_too() {
    let parsed =
        ["--registry a.azurecr.io --prefix hub", "--upstream-domain a.azurecr.io --upstream-prefix hub"].map(|flags| {
            let Ok(Command::Init(options)) = run(&format!("init {flags}")) else { panic!("{flags}") };
            format!("{options:?}")
        });
    assert!(parsed[0] == parsed[1] && parsed[0].contains("a.azurecr.io"), "{parsed:?}");
}

#[test]
fn a_wrong_flag_is_one_sentence_and_status_2() {
    for (line, says) in [
        ("--upstream-domian a.azurecr.io", "there is no flag --upstream-domian: did you mean --upstream-domain?"),
        ("--listen-address", "--listen-address <ADDRESS> needs a value"),
        (
            "--upstream-domain a.azurecr.io --listen-address 8080",
            "--listen-address: \"8080\" is not an address to listen on",
        ),
        ("--upstream-domain a.azurecr.io --upstream-prefix Hub", "--upstream-prefix: \"Hub\" is not a repository path"),
        ("--upstream-domain https://a.azurecr.io/", "--upstream-domain: \"https://a.azurecr.io/\" has a scheme"),
        ("--upstream-domain a.azurecr.io --log loud", "--log: \"loud\" is not a log filter"),
        ("", "the registry is not named: set --upstream-domain"),
        ("start", "there is no command \"start\""),
        ("-write", "there is no flag --write: it is one of client-config"),
        ("-upstream-domian=a", "there is no flag --upstream-domian: did you mean --upstream-domain?"),
        ("-x", "there is no flag -x\n"),
        ("--config f client-config docker", "the command client-config comes before its flags: "),
        ("--upstream-domain a.azurecr.io extra", "\"extra\" is one word too many: all settings are flags"),
        ("serve extra", "\"extra\" is one word too many: serve takes flags only"),
        ("client-config docker podman", "\"podman\" is one word too many: client-config takes one client, and flags"),
        ("--config f --config g", "--config <FILE> is given twice"),
        ("doctor --fix --json", "--fix and --json exclude each other: set one of the two"),
        ("client-config", "client-config: name the client: docker, "),
        ("client-config oci", "client-config: unknown client \"oci\": use docker, "),
        (
            "client-config docker",
            "the registry is not named, because /etc/acr-cache-proxy/config.yaml is not there: name another file by --config, or set --upstream-domain",
        ),
        (
            "client-config docker --upstream-domain a.azurecr.io --listen-address :0",
            "listen: [::]:0 has a port only once the proxy runs",
        ),
        (
            "client-config docker --upstream-domain a.azurecr.io --mirror mirror.internal",
            "--mirror: \"mirror.internal\" is not the address of a mirror",
        ),
        (
            "client-config docker --upstream-domain a.azurecr.io --root /tmp",
            "--root is the directory below which files are looked at or written: set --check, ",
        ),
        ("client-config docker --prune --remove", "--remove also removes what --prune would"),
        ("client-config docker --merge --remove", "--remove takes away what is from here, --merge adds"),
        ("client-config docker --check --write", "--check changes nothing: set it without --write"),
        ("client-config docker --check --prune", "--check changes nothing: set it without --write"),
        ("client-config talos --write", "a node of Talos has no file to write to"),
        ("client-config kaniko --check", "kaniko reads no file"),
        ("check --image nginx", "--image is asked for with --online: set both"),
        ("check --online --image Nginx", "--image: \"Nginx\" is not an image: a repository is lower case"),
        ("doctor --pull Nginx", "--pull: \"Nginx\" is not an image: a repository is lower case"),
        ("doctor --mirror mirror.internal", "--mirror: \"mirror.internal\" is not the address of a mirror"),
        ("doctor --root /nonexistent", "--root /nonexistent: No such file or directory"),
        ("check --root /nonexistent", "--root /nonexistent: No such file or directory"),
        (
            "init --registry example.azurecr.io --prefix hub --yes --root /nonexistent",
            "--root /nonexistent: No such file or directory",
        ),
        ("check --offline", "there is no flag --offline of check"),
        ("warm nginx --exit-with-stdin", "there is no flag --exit-with-stdin of warm: it is one of serve\n"),
        ("generate", "<DIRECTORY> is missing"),
        ("warm", "no image is named: name some, such as library/nginx:1.27"),
        ("warm Nginx", "\"Nginx\" is not an image: a repository is lower case"),
        ("warm https://ghcr.io/org/app", "\"https://ghcr.io/org/app\" is not an image: it has a scheme"),
        ("warm nginx --platform amd64", "--platform: \"amd64\" is not a platform"),
        ("warm nginx --platform all,linux/amd64", "--platform: all has every other platform in it"),
        ("warm nginx --layers full", "--layers: unknown value \"full\": use first-byte, head or none"),
        ("warm nginx --via mirror:8080", "--via: \"mirror:8080\" is not the address of a mirror"),
        ("warm nginx --via http://user:secret@mirror", "--via: an address has no user name or password here"),
        ("warm --file /nonexistent", "--file: /nonexistent: No such file"),
        ("warm --file /dev/null", "--file: /dev/null: there is no image in it"),
        ("warm --file /dev/zero", "--file: /dev/zero: it has more than the 1048576 bytes"),
        ("warm nginx --wia http://a", "there is no flag --wia of warm: did you mean --via?"),
        ("client-config docker --wirte", "there is no flag --wirte of client-config: did you mean --write?"),
    ] {
        assert_wrong(line, says);
    }
}

#[cfg(all(feature = "bench", feature = "demo"))]
#[test]
fn a_wrong_flag_of_bench_or_demo_is_one_sentence_and_status_2() {
    for (line, says) in [
        ("demo --listen-address here", "--listen-address: \"here\" is not an address to listen on"),
        ("bench", "no image is named: set --image"),
        ("bench --image X --via http://a", "--image: \"X\" is not an image"),
        ("bench --image x --direct a --pulls -1", "--pulls: \"-1\" is not a number of pulls: use one from 1 to"),
        ("bench --imgae x", "there is no flag --imgae of bench: did you mean --image?"),
        ("--once", "there is no flag --once: it is one of demo"),
        (
            "demo --config f",
            "there is no flag --config of demo: it is one of serve, check, doctor, client-config, bench",
        ),
        ("--config f demo", "the command demo comes before its flags: acr-cache-proxy demo --flag ..."),
        ("bench extra", "\"extra\" is one word too many: bench takes flags only"),
        ("demo --once=yes", "--once takes no value"),
    ] {
        assert_wrong(line, says);
    }
}

/// It was the program's, which has other flags.
#[test]
fn the_help_that_is_named_is_that_of_the_command() {
    for (line, help) in [
        ("warm nginx --wia http://a", "see acr-cache-proxy warm --help"),
        ("check --offline", "see acr-cache-proxy check --help"),
        ("--offline", "see acr-cache-proxy --help"),
        ("foo", "see acr-cache-proxy --help"),
    ] {
        let exit = run(line).expect_err(line);
        assert_eq!(exit.message.lines().last(), Some(help), "{line}");
    }
}

#[test]
fn a_command_without_its_feature_says_how_to_get_it() {
    for (name, built) in [("bench", cfg!(feature = "bench")), ("demo", cfg!(feature = "demo"))] {
        let missing = format!("this build has no {name}: build with --features {name}\n");
        for rest in ["", " --help", " --version", " --once", " --image library/nginx --via http://a", " -x y"] {
            match run(&format!("{name}{rest}")) {
                Err(exit) if !built => {
                    assert_eq!((exit.message, exit.status, exit.to_stdout), (missing.clone(), 2, false));
                }
                Err(exit) => assert!(!exit.message.contains("this build has no"), "{name}{rest}: {}", exit.message),
                Ok(_) => assert!(built, "{name}{rest}"),
            }
        }
    }
}

#[test]
fn help_names_no_command_that_this_build_leaves_out() {
    for line in ["--help", "serve --help"] {
        let help = run(line).expect_err(line).message;
        for (name, built) in [("bench", cfg!(feature = "bench")), ("demo", cfg!(feature = "demo"))] {
            let named = help.contains(&format!("acr-cache-proxy {name}")) || help.contains(&format!("\n  {name} "));
            assert!(built || !named, "{line} names {name}: {help}");
        }
    }
    let unknown = run("serv").expect_err("no command").message;
    for (name, built) in [("bench", cfg!(feature = "bench")), ("demo", cfg!(feature = "demo"))] {
        assert_eq!(unknown.contains(name), built, "{unknown}");
    }
}

fn assert_wrong(line: &str, says: &str) {
    let exit = run(line).expect_err(line);
    assert!(exit.message.starts_with(says), "{line}: {}", exit.message);
    assert!(!exit.to_stdout && exit.status == 2, "{line}");
}

/// The long flags of a command, each as its parser wants it: with a value if it takes one.
fn long_flags(command: &clap::Command) -> Vec<String> {
    let long = |argument: &clap::Arg| {
        let value = if argument.get_action().takes_values() { "=x" } else { "" };
        argument.get_long().map(|name| format!("{name}{value}"))
    };
    command.get_arguments().filter_map(long).collect()
}

#[test]
fn every_long_flag_of_every_command_may_have_one_dash() {
    let mut program = Program::command();
    // Only this adds --help and --version.
    program.build();
    let mut commands = vec![(String::new(), long_flags(&program))];
    commands.extend(program.get_subcommands().map(|command| (format!("{} ", command.get_name()), long_flags(command))));
    let mut seen = 0;
    for (command, flags) in commands {
        for flag in flags {
            let said = |dashes: &str| match run(&format!("{command}{dashes}{flag}")) {
                Ok(command) => format!("{command:?}"),
                Err(exit) => exit.message,
            };
            let (one, two) = (said("-"), said("--"));
            assert_eq!(one, two, "{command}{flag}");
            assert!(!one.contains("there is no flag"), "{command}{flag}: {one}");
            seen += 1;
        }
    }
    let least = if cfg!(feature = "bench") { 50 } else { 20 };
    assert!(seen > least, "{seen}");
}

#[test]
fn clients_are_known_by_their_programs_names() {
    for (client, other) in [
        ("podman", &["crio", "cri-o", "CRI-O", "buildah", "skopeo"][..]),
        ("kubernetes", &["k8s"]),
        ("docker", &["dockerd"]),
        ("buildkit", &["buildkitd", "buildx"]),
    ] {
        for name in other {
            let setup = |name: &str| {
                let line = format!("client-config {name} --upstream-domain a.azurecr.io");
                let Ok(Command::ClientConfig(Task::Show(setup))) = run(&line) else { panic!("{line}") };
                setup
            };
            assert_eq!(setup(name), setup(client), "{name}");
        }
    }
}

#[test]
fn images_to_warm_are_named_in_every_way_and_each_counts_once() {
    use crate::warm::{Layers, Options, Platforms};
    let images =
        "nginx docker.io/library/nginx nginx:latest index.docker.io/nginx nginx:1 ghcr.io/nginx a/b a/b:latest";
    for (flags, layers, platforms, via) in [
        ("", Layers::FirstByte, 1, "http://127.0.0.1:8080"),
        ("-layers head -platform linux/amd64,linux/arm/v7", Layers::Head, 2, "http://127.0.0.1:8080"),
        ("--layers=none --platform linux/amd64 --platform linux/s390x", Layers::None, 2, "http://127.0.0.1:8080"),
        ("--platform all --via https://mirror.internal/", Layers::FirstByte, 0, "https://mirror.internal"),
    ] {
        let Ok(Command::Warm(options)) = run(&format!("warm {images} {flags}")) else { panic!("{flags}") };
        let Options {
            images,
            platforms: chosen,
            layers: how,
            signatures: false,
            via: proxy,
            ca_file: None,
            presented: None,
        } = options
        else {
            panic!()
        };
        let images: Vec<_> = images.iter().map(ToString::to_string).collect();
        assert_eq!(images, ["nginx", "nginx:1", "ghcr.io/nginx", "a/b"], "{flags}");
        let count = match chosen {
            Platforms::All => 0,
            Platforms::Some(chosen) => chosen.len(),
        };
        assert_eq!((how, count, proxy.as_str()), (layers, platforms, via), "{flags}");
    }
}

/// Every command with the proxy's settings had all of the proxy's flags in its help, and `client-config` did without a client there.
#[test]
fn help_has_what_a_command_goes_by_and_names_what_it_needs() {
    let help = |line: &str| run(&format!("{line} --help")).expect_err("it only prints").message;
    for flag in ["--exit-with-stdin", "--masquerade-domain"] {
        let flag = format!("{flag} ").replace("domain ", "domain <HOST>");
        for (command, has_it) in [("serve", true), ("check", false), ("doctor", false), ("client-config docker", false)]
        {
            assert_eq!(format!("{} ", help(command).replace('\n', " ")).contains(&flag), has_it, "{command} {flag}");
        }
        // Command lines of the proxy are still taken.
        let taken =
            run(&format!("check --upstream-domain a.azurecr.io {}", flag.replace("<HOST>", "=b").replace(' ', "")));
        assert!(taken.is_ok(), "{flag}: {taken:?}");
    }
    assert!(help("client-config").contains("Usage: acr-cache-proxy client-config [OPTIONS] <CLIENT>\n"));
}

/// Neither the commit nor the features are fixed: an archive has no repository, and a packager may choose.
#[test]
fn the_version_has_the_commit_and_the_features() {
    let message = run("--version").expect_err("it only prints").message;
    let rest = message.strip_prefix(concat!("acr-cache-proxy ", env!("CARGO_PKG_VERSION"), " (")).expect("number");
    let (commit, features) = rest.strip_suffix(")\n").and_then(|rest| rest.split_once("; features: ")).expect("both");
    assert!(!commit.is_empty() && !features.is_empty(), "{message}");
    assert_eq!(run("-V").expect_err("it only prints").message, message);
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (line, says) in [
        ("--help", "Examples:"),
        ("serve --help", "Examples:"),
        ("client-config --help", "--write"),
        ("warm --help", "--platform"),
        #[cfg(feature = "bench")]
        ("bench --help", "--emulated"),
        ("--version", VERSION),
        ("serve --version", VERSION),
        ("client-config --version", VERSION),
        ("warm --version", VERSION),
        #[cfg(feature = "bench")]
        ("bench --version", VERSION),
        #[cfg(feature = "demo")]
        ("demo --version", VERSION),
    ] {
        let exit = run(line).expect_err(line);
        assert!(exit.to_stdout && exit.status == 0 && exit.message.contains(says), "{line}: {}", exit.message);
    }
}
