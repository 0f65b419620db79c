//! Whether the environment of an engine sends its requests for the proxy to a forward proxy.

use oci::authority;

use super::expected::{Expected, by_hand, edit};
use super::finding::{Code, Examined, Finding, Fix, Way};
use crate::client_config::address::Address;
use crate::net::egress::NoProxy;
use crate::shell::shell_word;
use crate::unit::Unit;

const NO_PROXY: &str = "NO_PROXY";
/// The drop-in that the command writes. systemd takes them by name, and of two that set one variable the last counts.
const DROP_IN: &str = "zz-acr-cache-proxy.conf";
/// What is in it before and behind the list.
const BEFORE: &str = "[Service]\nEnvironment=\"NO_PROXY=";
const BEHIND: &str = "\"\n";

/// Adds what is wrong with the environment of an engine: if it sends requests for the proxy to a forward proxy, no pull comes here.
pub(super) fn judge(unit: &Unit, expected: &Expected<'_>, found: &mut Examined) {
    if let Some(finding) = of_unit(unit, expected, &Address::parse(&expected.here.url)) {
        found.find(finding);
        found.ways.values_mut().for_each(|way| *way = Way::Source);
    }
}

/// What is wrong if the environment sends requests for this address of the proxy to a forward proxy. Go asks none for
/// localhost and loopback addresses.
pub(super) fn of_unit(unit: &Unit, expected: &Expected<'_>, address: &Address) -> Option<Finding> {
    let variable = if expected.here.is_plain(address) { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let (_, file) = unit.variable(variable)?;
    let exempt = unit.variable(NO_PROXY).map(|(value, _)| value.as_str()).unwrap_or_default();
    if address.is_loopback() || is_exempt(exempt, address) {
        return None;
    }
    let host = &address.host;
    let value = if exempt.is_empty() { host.clone() } else { format!("{exempt},{host}") };
    let engine = unit.name.trim_end_matches(".service");
    let fix = if unit.is_script() {
        edit(file, &format!("  # export NO_PROXY={}; then: {}", shell_word(&value), unit.restart()))
    } else {
        exempted(unit, &value, address)
    };
    Some(Finding {
        registries: Vec::new(),
        code: Code::ForwardProxy,
        file: Some(file.clone()),
        text: format!("{variable} is set, and NO_PROXY does not have {host}, where the proxy is"),
        why: format!(
            "{engine} sends its requests for the proxy to that forward proxy, which cannot reach it, and pulls go to the source"
        ),
        fix,
    })
}

/// Gives the service this value of `NO_PROXY` by a drop-in of this program's own, so that nothing that others have written is lost. What
/// that does is tried first: where a later drop-in or a file of variables wins over it, that file is for an editor.
fn exempted(unit: &Unit, value: &str, address: &Address) -> Fix {
    let directory = format!("/etc/systemd/system/{}.d", unit.name);
    let path = format!("{directory}/{DROP_IN}");
    let restart = unit.restart();
    let edited = |file: &str| edit(file, &format!("  # NO_PROXY={value}; then: {restart}"));
    // Of two by one name, systemd takes one.
    if let Some(other) = unit.drop_in(DROP_IN)
        && !(other == path && unit.text(other).is_some_and(is_ours))
    {
        return edited(other);
    }
    let escaped = in_unit(value);
    let tried = unit.with_drop_in(&path, &format!("{BEFORE}{escaped}{BEHIND}"));
    let now = tried.variable(NO_PROXY);
    if now.is_some_and(|(list, _)| is_exempt(list, address)) {
        return by_hand(format!(
            "mkdir -p {directory} && printf '{}%s{}' {} > {path} && {restart}",
            BEFORE.replace('\n', "\\n"),
            BEHIND.replace('\n', "\\n"),
            shell_word(&escaped)
        ));
    }
    match now {
        Some((_, file)) if unit.text(file).is_none() || unit.is_edited(file) => edited(file),
        // A package's file, or `UnsetEnvironment=`, takes it away.
        _ => by_hand(format!("systemctl edit --full {}  # NO_PROXY={value}; then: {restart}", unit.name)),
    }
}

/// Whether a drop-in says nothing but what the command above has it say.
fn is_ours(content: &str) -> bool {
    content.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(BEHIND)).is_some_and(|list| !list.contains('\n'))
}

/// A value between the quotation marks of a unit (systemd.syntax(7)), where `%` begins a specifier.
fn in_unit(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('%', "%%")
}

/// Whether a list of exceptions has the address.
pub(super) fn is_exempt(list: &str, address: &Address) -> bool {
    // For Go the end of a name is none of an address (CVE-2025-22870).
    let is_address = authority::ip(&address.host).is_some();
    let entries = list.split(',').filter_map(|entry| NoProxy::parse(entry).ok());
    entries.filter(|entry| !(is_address && entry.is_name())).any(|entry| entry.covers(&address.host, address.port()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Flags};
    use crate::host::Host;

    /// Gives the fix of a host with these files, and what is still wrong once it is done; `None` where it is for an editor.
    fn fix(files: &[(&str, &str)]) -> (String, Option<bool>) {
        let root = tempfile::tempdir().expect("a directory");
        let below = root.path().to_str().expect("plain").to_owned();
        let unit = ("/usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd\n");
        for (path, content) in [unit].iter().chain(files) {
            let path = format!("{below}{path}");
            std::fs::create_dir_all(Path::new(&path).parent().expect("in a directory")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        let text = "listen: 10.9.8.7:8080\nupstream: {domain: example.azurecr.io, prefix: hub}\n";
        let config = Config::load(&Flags::default().with_text("config.yaml".as_ref(), text)).expect("valid");
        let expected = Expected::new(&config, None, "http://10.9.8.7:8080", false, &[]);
        let address = Address::parse("http://10.9.8.7:8080");
        let look = || {
            let unit = Unit::read(&Host::new(root.path().to_owned()), "docker.service");
            of_unit(&unit, &expected, &address).map(|finding| finding.fix.command)
        };
        let command = look().expect("it is found");
        let Some(writes) = command.strip_suffix(" && systemctl daemon-reload && systemctl restart docker") else {
            return (command, None);
        };
        let writes = writes.replace(" /etc/", &format!(" {below}/etc/"));
        assert!(std::process::Command::new("sh").args(["-c", &writes]).status().expect("it runs").success());
        for (path, content) in files.iter().filter(|(path, _)| !path.ends_with(DROP_IN)) {
            assert_eq!(std::fs::read_to_string(format!("{below}{path}")).expect("it is there"), *content);
        }
        (command, Some(look().is_some()))
    }

    /// It was overwritten, with a forward proxy, other variables and limits of the user's in it, and where another file counts more, the
    /// command did nothing.
    #[test]
    fn the_fix_leaves_what_others_wrote_and_does_what_it_is_for() {
        const AT: &str = "/etc/systemd/system/docker.service.d";
        let own = "[Service]\nEnvironment=\"HTTP_PROXY=http://p:3128\" \"NO_PROXY=localhost,.corp\"\nEnvironment=FOO=bar\nLimitNOFILE=1048576\n";
        let proxy = "[Service]\nEnvironment=HTTP_PROXY=http://p:3128\n";
        let odd = "[Service]\nEnvironment=\"HTTP_PROXY=http://p:3128\" 'NO_PROXY=a%%b,it\"s\\\\,c'\n";
        let of = |name: &str| format!("{AT}/{name}");
        for (what, files, edits) in [
            ("a file by the name that was written", vec![(of("no-proxy.conf"), own)], None),
            ("one that sorts after it", vec![(of("x.conf"), own)], None),
            ("a value that is to be escaped", vec![(of("x.conf"), odd)], None),
            (
                "small letters",
                vec![(of("x.conf"), "[Service]\nEnvironment=http_proxy=http://p:3128 no_proxy=a\n")],
                None,
            ),
            (
                "ours of an earlier time",
                vec![(of("a.conf"), proxy), (of(DROP_IN), "[Service]\nEnvironment=\"NO_PROXY=a\"\n")],
                None,
            ),
            ("another's by our name", vec![(of(DROP_IN), own)], Some(of(DROP_IN))),
            (
                "another's by our name, in another place",
                vec![(of("a.conf"), proxy), (format!("/usr/lib/systemd/system/docker.service.d/{DROP_IN}"), "")],
                Some(format!("/usr/lib/systemd/system/docker.service.d/{DROP_IN}")),
            ),
            ("one that sorts last", vec![(of("zzz.conf"), own)], Some(of("zzz.conf"))),
            (
                "a file of variables",
                vec![
                    (of("a.conf"), "[Service]\nEnvironmentFile=/etc/proxy.env\n"),
                    ("/etc/proxy.env".to_owned(), "HTTP_PROXY=http://p:3128\nNO_PROXY=localhost\n"),
                ],
                Some("/etc/proxy.env".to_owned()),
            ),
            (
                "a package's",
                vec![("/usr/lib/systemd/system/docker.service.d/zzz.conf".to_owned(), own)],
                Some("docker.service".to_owned()),
            ),
        ] {
            let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
            let (command, after) = fix(&files);
            match edits {
                None => assert_eq!(after, Some(false), "{what}: {command}"),
                Some(file) => {
                    let begins = [
                        format!("${{EDITOR:-vi}} {file}  # NO_PROXY="),
                        format!("systemctl edit --full {file}  # NO_PROXY="),
                    ];
                    assert!(
                        after.is_none() && begins.iter().any(|begin| command.starts_with(begin)),
                        "{what}: {command}"
                    );
                }
            }
        }
    }

    /// As dockerd 28.5 has shown, whose pulls went to the forward proxy.
    #[test]
    fn the_end_of_a_name_is_no_exception_for_an_address() {
        for (list, url, is_exempted) in [
            ("localhost,.9.9", "http://10.9.9.9:8080", false),
            ("9.9", "http://10.9.9.9:8080", false),
            ("10.0.0.0/8", "http://10.9.9.9:8080", true),
            ("10.9.9.9:8080", "http://10.9.9.9:8080", true),
            ("10.9.9.9:8081", "http://10.9.9.9:8080", false),
            ("*", "http://10.9.9.9:8080", true),
            (".internal", "http://mirror.internal:8080", true),
        ] {
            assert_eq!(is_exempt(list, &Address::parse(url)), is_exempted, "{list} {url}");
        }
    }
}
