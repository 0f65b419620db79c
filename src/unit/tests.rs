//! What units and their drop-ins come to.

use super::*;

#[test]
fn words_are_between_spaces_and_in_quotation_marks() {
    for (text, expected) in [
        ("", &[][..]),
        (" a  b ", &["a", "b"]),
        (r#""A=b c" 'd e'f "" g"#, &["A=b c", "d ef", "", "g"]),
        (r#""a\"b\\c" d\ e"#, &["a\"b\\c", "d e"]),
    ] {
        assert_eq!(words(text), expected, "{text}");
    }
}

#[test]
fn variables_of_the_command_line_have_their_values_in_it() {
    let root = tempfile::tempdir().expect("a directory");
    let put = |path: &str, content: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        std::fs::write(path, content).expect("written");
    };
    put("etc/default/docker", "#DOCKER_OPTS=\"-a\"\nDOCKER_OPTS=\"--registry-mirror=http://a --debug\"\n");
    let unit = "[Service]\nEnvironment=WHERE=/x\nEnvironmentFile=-/etc/default/docker\n\
                ExecStart=/usr/sbin/dockerd -H fd:// --root=${WHERE}/y${NONE} $DOCKER_OPTS $NONE\n";
    put("usr/lib/systemd/system/docker.service", unit);
    let unit = Unit::read(&Host::new(root.path().to_owned()), "docker.service");
    let expected = ["/usr/sbin/dockerd", "-H", "fd://", "--root=/x/y", "--registry-mirror=http://a", "--debug"];
    assert_eq!(unit.command, expected);
    assert_eq!(unit.file_of("registry-mirror"), "/etc/default/docker");
    assert_eq!(unit.file_of("root"), "/usr/lib/systemd/system/docker.service");
}

/// A forward proxy of theirs was not found, nor a flag of an alias's drop-in.
#[test]
fn the_service_manager_and_the_drop_ins_of_an_alias_have_their_part() {
    let root = tempfile::tempdir().expect("a directory");
    let put = |path: &str, content: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        std::fs::write(path, content).expect("written");
    };
    put(
        "usr/lib/systemd/system/moby.service",
        "[Service]\nPassEnvironment=HTTPS_PROXY\nEnvironmentFile=-%E/default/%p\nExecStart=/usr/bin/dockerd -H unix://%t/a.sock\n",
    );
    put("etc/default/docker", "A=1\n");
    for link in ["docker.service", "engine.service"] {
        std::os::unix::fs::symlink("moby.service", root.path().join("usr/lib/systemd/system").join(link))
            .expect("linked");
    }
    put("etc/systemd/system/moby.service.d/a.conf", "[Service]\nEnvironment=B=2\n");
    put("etc/systemd/system/engine.service.d/b.conf", "[Service]\nEnvironment=C=3\n");
    put("etc/systemd/system/other.service.d/c.conf", "[Service]\nEnvironment=D=4\n");
    put(
        "etc/systemd/system.conf.d/proxy.conf",
        "[Manager]\n#DefaultEnvironment=E=5\nDefaultEnvironment=HTTP_PROXY=http://p:1 B=0\nManagerEnvironment=HTTPS_PROXY=http://p:2 F=6\n",
    );
    let unit = Unit::read(&Host::new(root.path().to_owned()), "docker.service");
    let of = |name: &str| unit.variable(name).map(|(value, _)| value.as_str());
    let known = ["A", "B", "C", "D", "E", "F", "HTTP_PROXY", "HTTPS_PROXY"].map(of);
    let expected = [Some("1"), Some("2"), Some("3"), None, None, None, Some("http://p:1"), Some("http://p:2")];
    assert_eq!((known, unit.doubt()), (expected, None));
    assert_eq!(unit.flag("H"), ["unix:///run/a.sock"]);
    let none = Unit::read(&Host::new(root.path().to_owned()), "containerd.service");
    assert_eq!(none.variable("HTTP_PROXY"), None, "systemd starts none");
    put("etc/systemd/system/moby.service.d/a.conf", "[Service]\nEnvironmentFile=/etc/%H\n");
    let unit = Unit::read(&Host::new(root.path().to_owned()), "docker.service");
    assert_eq!(unit.doubt().as_deref(), Some("EnvironmentFile=/etc/%H has a specifier that is not followed"));
}

/// doctor took a forward proxy's exception for one that the engine has, and systemd passes over it.
#[test]
fn an_exported_variable_is_one_for_a_script_and_none_for_systemd() {
    let root = tempfile::tempdir().expect("a directory");
    let put = |path: &str, content: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        std::fs::write(path, content).expect("written");
    };
    put("etc/default/docker", "export NO_PROXY=mirror.internal\nDOCKER_OPTS=--debug\n");
    let host = Host::new(root.path().to_owned());
    let no_proxy = |unit: &Unit| unit.variable("NO_PROXY").map(|(value, _)| value.clone());
    let read = || Unit::read_or_script(&host, "docker.service", &["/etc/default/docker"], "DOCKER_OPTS");
    assert_eq!(no_proxy(&read()).as_deref(), Some("mirror.internal"), "by a script");
    put(
        "usr/lib/systemd/system/docker.service",
        "[Service]\nEnvironmentFile=/etc/default/docker\nExecStart=/usr/bin/dockerd $DOCKER_OPTS\n",
    );
    assert_eq!((no_proxy(&read()), read().command), (None, words("/usr/bin/dockerd --debug")));
}

/// It was taken for empty, and doctor wrote a mirror beside the flag that `systemctl set-environment` gave dockerd by it.
#[test]
fn a_variable_of_the_command_line_that_only_systemd_knows_is_not_known() {
    for (unit, is_known) in [
        ("PassEnvironment=DOCKER_OPTS\nExecStart=/usr/bin/dockerd $DOCKER_OPTS\n", false),
        ("PassEnvironment=A B\nExecStart=/usr/bin/dockerd --root=/x/${B}\n", false),
        ("PassEnvironment=DOCKER_OPTS\nExecStart=/usr/bin/dockerd\n", true),
        ("PassEnvironment=A\nEnvironment=A=1\nExecStart=/usr/bin/dockerd $A\n", true),
        ("PassEnvironment=A\nPassEnvironment=\nExecStart=/usr/bin/dockerd $A\n", true),
        ("EnvironmentFile=-/etc/none\nExecStart=/usr/bin/dockerd $DOCKER_OPTS\n", true),
    ] {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("etc/systemd/system");
        std::fs::create_dir_all(&directory).expect("made");
        std::fs::write(directory.join("docker.service"), format!("[Service]\n{unit}")).expect("written");
        let unit_read = Unit::read(&Host::new(root.path().to_owned()), "docker.service");
        assert_eq!(unit_read.doubt().is_none(), is_known, "{unit}: {:?}", unit_read.doubt());
    }
}

#[test]
fn a_process_that_was_started_with_another_flag_than_its_unit_has_is_known() {
    let words = |text: &str| words(text);
    let unit = |command: &str| Unit { command: words(command), ..Unit::default() };
    for (on_disk, runs, differs) in [
        ("dockerd -H fd://", "dockerd -H fd:// --registry-mirror=http://a", true),
        ("dockerd --registry-mirror http://a", "dockerd --registry-mirror=http://a", false),
        ("dockerd --debug", "dockerd", false),
        ("", "dockerd --registry-mirror=http://a", false),
    ] {
        assert_eq!(unit(on_disk).differs_from(&words(runs), "registry-mirror"), differs, "{on_disk}");
    }
    let unread = Unit { unknown: vec![Unknown::Shell { path: String::new(), script: None }], ..unit("sh -c") };
    assert!(!unread.differs_from(&words("dockerd --registry-mirror=http://a"), "registry-mirror"));
}

/// With a supervisor in place of an init script, a mirror was written into the file beside the flag.
#[test]
fn without_a_unit_the_flags_of_the_process_are_of_no_file_that_is_known() {
    let root = tempfile::tempdir().expect("a directory");
    let mut unit = Unit::read_or_script(&Host::new(root.path().to_owned()), "docker.service", &[], "DOCKER_OPTS");
    assert!(unit.is_script());
    unit.runs_as(words("dockerd --registry-mirror=http://a"));
    assert_eq!(
        (unit.flag("registry-mirror"), unit.file_of("registry-mirror")),
        (words("http://a"), "what starts docker".to_owned())
    );
}

#[test]
fn a_flag_has_its_value_in_the_same_word_or_the_next() {
    let command = ["dockerd", "--registry-mirror", "a", "-H", "fd://", "--registry-mirror=b", "--registry-mirrors=c"];
    assert_eq!(flag(&command.map(str::to_owned), "registry-mirror"), ["a", "b"]);
    assert_eq!(flag(&command.map(str::to_owned), "H"), ["fd://"]);
}
