//! A dockerd besides the one of the service, with a socket and a file of its own, is not looked at; a note says so.

use crate::host::{self, Host};
use crate::shell::shell_word;
use crate::unit::flag;

/// Which users have a dockerd of their own, which is not looked at; a sentence each.
pub(in crate::doctor) fn rootless(host: &Host) -> Vec<String> {
    const FILES: [&str; 2] = [".config/docker/daemon.json", ".config/systemd/user/docker.service"];
    let paths = host.homes().into_iter().filter_map(|home| {
        let paths = FILES.map(|file| format!("{home}/{file}"));
        paths.into_iter().find(|path| host.at(path).is_ok_and(|at| at.is_file()))
    });
    paths
        .map(|path| {
            format!("{path} is of a rootless dockerd, which is not looked at: the page on clients has its settings")
        })
        .collect()
}

/// The sentences about each process of dockerd but `main`, the one that is looked at. If none is known and somebody listens, a single
/// process is that one.
pub(super) fn find(main: Option<&[String]>, runs: bool) -> Vec<String> {
    others(host::processes("dockerd"), main, runs)
}

/// Pure.
fn others(all: Vec<(u32, Vec<String>)>, main: Option<&[String]>, runs: bool) -> Vec<String> {
    let is_alone = main.is_none() && runs && all.len() == 1;
    let others = all.into_iter().filter(|(_, command)| !is_alone && main != Some(command.as_slice()));
    others.map(|(pid, command)| note(pid, &command)).collect()
}

fn note(pid: u32, command: &[String]) -> String {
    let of = |names: &[&str]| names.iter().flat_map(|name| flag(command, name)).next();
    let socket = of(&["host", "H"])
        .filter(|at| at.starts_with("unix:"))
        .map_or(String::new(), |socket| format!("-H {} ", shell_word(&socket)));
    let by = match of(&["config-file"]) {
        Some(file) => format!("its file is {file}"),
        None => "it has no --config-file among its flags".to_owned(),
    };
    format!(
        "another dockerd runs, process {pid}, which is not looked at: docker {socket}info lists its registry mirrors; {by}"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    /// doctor said "ok", and its pulls went past the proxy.
    #[test]
    fn a_second_dockerd_is_told_and_the_first_is_not_one() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let first = words("/usr/sbin/dockerd -H fd://");
        let second = words("/usr/sbin/dockerd -H unix:///run/docker2.sock --config-file /etc/docker/two.json");
        let both = || vec![(1, first.clone()), (2, second.clone())];
        let said = others(both(), Some(&first), true);
        assert_eq!(
            said,
            [
                "another dockerd runs, process 2, which is not looked at: docker -H unix:///run/docker2.sock info lists its registry mirrors; its file is /etc/docker/two.json"
            ]
        );
        assert_eq!(others(vec![(1, first.clone())], None, true), [""; 0], "the one that listens");
        assert_eq!(others(vec![(2, second.clone())], None, false).len(), 1, "the service does not run");
    }

    /// cri-dockerd was taken for dockerd, and one that was started as `dockerd`, without its path, was not seen.
    #[test]
    fn a_process_is_found_by_the_name_of_its_program_and_not_by_the_end_of_it() {
        for (program, is_it) in [
            ("/none/dockerd-of-a-test", true),
            ("dockerd-of-a-test", true),
            ("/none/cri-dockerd-of-a-test", false),
            ("cri-dockerd-of-a-test", false),
        ] {
            let mut command = Command::new("/bin/sh");
            command.arg0(program).args(["-c", "read line", "sh", "-H", "unix:///run/docker2.sock"]);
            let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("it runs");
            let found = host::processes("dockerd-of-a-test");
            drop(child.stdin.take());
            child.wait().expect("it ends");
            let is_found = found.iter().any(|(pid, command)| *pid == child.id() && command.len() == 6);
            assert_eq!(is_found, is_it, "{program}: {found:?}");
        }
    }
}
