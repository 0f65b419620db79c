//! What is wrong with settings, and the words for it.

use super::*;

/// All that is said about a file, without the folder.
fn said(text: &str) -> Vec<String> {
    load(text, Flags::default()).err().unwrap_or_default()
}

#[test]
fn a_key_with_nothing_behind_it_is_never_taken_for_a_value() {
    const OPEN: &str = "has no value: set the cache rule's target without its /*, such as hub, or prefix: '' to open the whole registry";
    const VALUE: &str = "has no value: set a value, or remove the key";
    const TABLE: &str = "has no value: indent its keys below it, or remove the key";
    let list = |example: &str| format!("has no value: set a list ({example}), [] for none, or remove the key");
    let upstream = "upstream:\n  domain: a.azurecr.io\n";
    for null in ["", " ~", " null", " # a comment"] {
        for (before, key, says) in [
            (upstream, "  prefix", OPEN),
            (upstream, "listen", VALUE),
            (upstream, "admin", VALUE),
            (upstream, "default", VALUE),
            (upstream, "ca_file", VALUE),
            (upstream, "token_wait", VALUE),
            (upstream, "threads", VALUE),
            (upstream, "log", VALUE),
            (upstream, "cache", TABLE),
            (upstream, "limits", TABLE),
            (upstream, "access", TABLE),
            ("upstream: {domain: a.azurecr.io}\naccess:\n", "  allow", &list("such as [10.0.0.0/8, 'fd00::/8']")),
            ("upstream: {domain: a.azurecr.io}\nlimits:\n", "  connections", VALUE),
            (upstream, "  cache", TABLE),
            ("upstream: {domain: a.azurecr.io}\ncache:\n", "  memory", VALUE),
            ("upstream: {domain: a.azurecr.io}\ncache:\n", "  tags", VALUE),
            ("upstream: {domain: a.azurecr.io}\ncache:\n", "  prefetch", &list("such as [linux/amd64]")),
            ("upstream: {domain: a.azurecr.io}\nlimits:\n", "  registry_reads_per_minute", VALUE),
            (upstream, "identity", TABLE),
            (upstream, "  identity", TABLE),
            (upstream, "  source", VALUE),
            (upstream, "  on_failure", VALUE),
            (upstream, "  blobs", VALUE),
            (upstream, "  addresses", &list("such as [10.0.0.5]")),
            (upstream, "  hosts", &list("such as [ghcr.mirror.internal]")),
            (upstream, "  blob_hosts", &list("such as [.blobs.internal]")),
            (upstream, "routes", &list("each item begins with a dash")),
            ("\nupstream:\n", "  domain", VALUE),
            ("\n\n", "upstream", TABLE),
            ("upstream: {domain: a.azurecr.io}\nidentity:\n", "  kind", VALUE),
            ("upstream: {domain: a.azurecr.io}\nidentity:\n", "  client_id", VALUE),
            ("routes:\n  - source: docker.io\n", "    domain", VALUE),
            ("routes:\n  - domain: a.azurecr.io\n", "    source", VALUE),
            ("routes:\n  - {source: docker.io, domain: a.azurecr.io}\n", "  -", TABLE),
            ("upstream: {domain: a.azurecr.io}\nlisten:\n", "  -", TABLE),
            ("upstream: {domain: a.azurecr.io}\nlisten:\n", "  - address", VALUE),
            ("upstream: {domain: a.azurecr.io}\nlisten:\n", "  - unix", VALUE),
        ] {
            let text = format!("{before}{key}{}{null}\n", if key.ends_with('-') { "" } else { ":" });
            let mistakes = said(&text);
            assert!(mistakes.len() == 1 && mistakes[0].ends_with(&format!(": {says}")), "{text:?}: {mistakes:?}");
            assert!(mistakes[0].starts_with("config.yaml:3: "), "{text:?}: {mistakes:?}");
        }
    }
    let meant = load("upstream: {domain: a.azurecr.io, prefix: ''}", Flags::default()).expect("said to be meant");
    assert_eq!(lines(&meant), ["docker.io -> a.azurecr.io/"]);
}

#[test]
fn a_number_is_the_text_that_it_is_written_as() {
    let config = load(
        "upstream: {domain: a.azurecr.io, prefix: 1.10}\nidentity: {kind: client_secret, tenant_id: 00000001e1}",
        Flags::default(),
    )
    .expect("valid");
    assert_eq!(lines(&config), ["docker.io -> a.azurecr.io/1.10"]);
    let kind = config.upstreams()[0].identity().kind();
    let tenant_id = Some("00000001e1".to_owned());
    assert_eq!(kind, &Kind::ClientSecret { tenant_id, client_id: None, secret_file: None });
}

#[test]
fn a_wrong_value_is_told_with_all_that_would_be_right() {
    let every = ":8080 for every address of this host, 127.0.0.1:8080 for this host alone";
    let admin = ":8081 or 127.0.0.1:8081 for this host alone, 0.0.0.0:8081 for every address of this host";
    for (setting, says) in [
        ("listen: 8080", format!("listen: \"8080\" is not an address to listen on: use {every}")),
        ("listen: '8080'", format!("listen: \"8080\" is not an address to listen on: use {every}")),
        ("admin: 8081", format!("admin: \"8081\" is not an address to listen on: use {admin}")),
        ("token_wait: 10", "token_wait: \"10\" is not a time from 1s to 20s: use 10s".to_owned()),
        ("token_wait: 10sec", "token_wait: \"10sec\" is not a time from 1s to 20s: use 10s".to_owned()),
        ("token_wait: 1m", "token_wait: \"1m\" is not a time from 1s to 20s: use a whole number of s, m or h, such as 20s".to_owned()),
        ("token_wait: 30", "token_wait: \"30\" is not a time from 1s to 20s: use a whole number of s, m or h, such as 20s".to_owned()),
        ("token_wait: 1.5", "token_wait: \"1.5\" is not a time from 1s to 20s: use a whole number of s, m or h, such as 20s".to_owned()),
        (
            "access: {allow: [10.0.0.5/8]}",
            "access.allow[0]: \"10.0.0.5/8\" is not a network: use 10.0.0.0/8 for the network, 10.0.0.5 for this address alone".to_owned(),
        ),
        (
            "limits: {header_size: 1KiB}",
            "limits.header_size: \"1KiB\" is not a size from 4KiB to 512KiB: use a whole number of KiB, MiB or GiB, such as 64KiB".to_owned(),
        ),
        ("limits: {header_size: 64}", "limits.header_size: \"64\" is not a size from 4KiB to 512KiB: use 64KiB".to_owned()),
        ("limits: {header_time: 3m}", "limits.header_time: \"3m\" is not a time from 1s to 2m: use a whole number of s, m or h, such as 2m".to_owned()),
        (
            "limits: {slow_reader_bytes_per_second: 0}",
            "limits.slow_reader_bytes_per_second: \"0\" is not a number of bytes a second: use off, or a number from 1 to 100000".to_owned(),
        ),
        (
            "access: {certificates: ['*']}",
            "access.certificates[0]: \"*\" is not a name of a certificate: use one such as node-7.internal, *.nodes.internal, system:node:* or spiffe://example.org/nodes/*".to_owned(),
        ),
        (
            "access: {certificates: [node-7]}",
            "access.certificates[0]: nobody could pull at 127.0.0.1:8080, which asks for no certificates: set tls with client_ca there, or remove this".to_owned(),
        ),
        ("limits: {connections: 8}", "limits.connections: \"8\" is not a number of connections: use a number from 16 to 1000000".to_owned()),
        (
            "limits: {connections_per_client: 0}",
            "limits.connections_per_client: \"0\" is not a number of connections: use off, or a number from 1 to 100000".to_owned(),
        ),
        // What somebody had written was changed in the sentence about it.
        (
            "limits: {connections_per_client: 'x: use a number'}",
            "limits.connections_per_client: \"x: use a number\" is not a number of connections: use off, or a number from 1 to 100000".to_owned(),
        ),
        (
            "limits: {concurrent_requests_per_client: 'x: use off'}",
            "limits.concurrent_requests_per_client: \"x: use off\" is not a number of requests: use fair, off, or a number from 1 to 100000".to_owned(),
        ),
        (
            "limits: {request_burst_per_client: 9}",
            "limits.request_burst_per_client: has no effect without requests_per_second_per_client: set that, or remove this".to_owned(),
        ),
        ("threads: true", "threads: \"true\" is not a number of threads: use a number from 1 to 512".to_owned()),
        (
            "listen: [::1]:8080",
            "not YAML: did not find expected node content at line 2 column 10, while parsing a flow node: a value that begins with [ needs quotes around it".to_owned(),
        ),
    ] {
        let text = format!("upstream: {{domain: a.azurecr.io}}\n{setting}\n");
        assert_eq!(said(&text), [format!("config.yaml:2: {says}")]);
    }
}

/// No file had the name.
#[test]
fn what_an_editor_adds_to_the_path_of_the_ca_file_is_no_part_of_it() {
    let text = "upstream: {domain: a.azurecr.io}\nca_file: \"\\uFEFF/etc/ca.pem\\n\"\n";
    let config = load(text, Flags::default()).expect("a file");
    assert_eq!(config.ca_file(), Some(Path::new("/etc/ca.pem")));
}

#[test]
fn a_file_of_another_editor_is_read_or_told_what_it_is() {
    let marked = "\u{feff}listen: 127.0.0.1:1\nupstream: {domain: a.azurecr.io}\nlog: loud\n";
    assert!(said(marked)[0].starts_with("config.yaml:3: log: \"loud\""), "{:?}", said(marked));
    assert!(load(&marked.replace("loud", "info"), Flags::default()).is_ok());
    assert!(load("upstream:\r\n  domain: a.azurecr.io\r\n  prefix: hub\r\n", Flags::default()).is_ok());
    for text in ["upstream:\n\tdomain: a.azurecr.io\n", "upstream:\n \tdomain: a.azurecr.io\n"] {
        assert_eq!(said(text), ["config.yaml:2: the line begins with a tab: indent with spaces"], "{text:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    for (bytes, says) in [
        (&b"log: info\n# caf\xe9\n"[..], "line 2 is not UTF-8: save the file as UTF-8"),
        (b"\xff\xfel\0o\0g\0", "it is text in UTF-16: save it as UTF-8"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        let mistakes = Config::load(&domain_flag().with_file(Some(path.clone()))).expect_err("not UTF-8");
        assert_eq!(mistakes.to_string(), format!("--config {}: {says}\n", path.display()));
    }
}

#[test]
fn mistakes_come_in_the_order_of_lines_and_none_follows_from_another() {
    for (text, expected) in [
        (
            "token_wait: 1h\nidentity: {kind: guess}\nthreads: none\nupstream: {domain: 'a b'}\nlisten: x:1\n",
            &[
                "config.yaml:1: token_wait: ",
                "config.yaml:2: identity.kind: ",
                "config.yaml:3: threads: ",
                "config.yaml:4: upstream.domain: ",
                "config.yaml:5: listen: ",
            ][..],
        ),
        // Of one line, in the order of columns.
        (
            "upstream: {prefix: Hub, domain: 'a b'}",
            &["config.yaml:1: upstream.prefix: ", "config.yaml:1: upstream.domain: "],
        ),
        // What is missing is there under a wrong name, or wrong itself.
        (
            "routes:\n  - {source: docker.io, domian: a.io}",
            &["config.yaml:2: routes[0].domian: unknown setting: did you mean domain?"],
        ),
        (
            "routes:\n  - {sorce: docker.io, domain: a.io}",
            &["config.yaml:2: routes[0].sorce: unknown setting: did you mean source?"],
        ),
        ("upstream: {domian: a.io}", &["config.yaml:1: upstream.domian: unknown setting: did you mean domain?"]),
        (
            "routes:\n  - {source: hub, domain: a.io}\n  - {source: docker.io, domain: a.io}",
            &["config.yaml:2: routes[0].source: \"hub\" is not a source"],
        ),
        (
            "routes:\n  - {source: hub, domain: a.io, hosts: [m.io]}\n  - {source: ghcr.io, domain: a.io, hosts: [m.io]}\ndefault: hub.io",
            &["config.yaml:2: routes[0].source: \"hub\" is not a source"],
        ),
        (
            "upstream: {domain: a.io}\nidentity: {knd: client_secret, tenant_id: t}",
            &["config.yaml:2: identity.knd: unknown setting: did you mean kind?"],
        ),
        (
            "upstream: {domain: a.io}\nidentity: {kind: guess, tenant_id: t}",
            &["config.yaml:2: identity.kind: unknown value \"guess\""],
        ),
        (
            "upstream: {domain: a.io}\nidentity: {kind: [x], tenant_id: t}",
            &["config.yaml:2: identity.kind: must be a text"],
        ),
        ("listen: x\nadmin: :8080\nupstream: {domain: a.io}", &["config.yaml:1: listen: \"x\" is not an address"]),
        (
            "upstream:\n  domain: a.io\n  domain: 'b c'\nlog: info\nlog: warn\nidentity: {kind: default, kind: default}",
            &[
                "config.yaml:3: upstream.domain: is set twice, first in line 2: remove one of the two",
                "config.yaml:5: log: is set twice, first in line 4: remove one of the two",
                "config.yaml:6: identity.kind: is set twice, first in line 6: remove one of the two",
            ],
        ),
    ] {
        let mistakes = said(text);
        let are_told = mistakes.iter().zip(expected).all(|(mistake, expected)| mistake.starts_with(expected));
        assert!(mistakes.len() == expected.len() && are_told, "{text}\n{mistakes:#?}");
    }
}

#[test]
fn a_wrong_listener_is_named_by_its_place() {
    for (listen, expected) in [
        ("[]", "listen: is an empty list: set one item or more, or remove the key"),
        ("{address: ':1'}", "listen: must be one value, or a list of tables: put a dash before the first key of each"),
        ("[':1']", "listen[0]: must be a table of address, unix, mode, tls, proxy_protocol, such as {address: ...}"),
        ("[{}]", "listen[0]: has neither address nor unix: set one of them"),
        ("[{mode: 0600}]", "listen[0]: has neither address nor unix: set one of them"),
        ("[{addres: ':1'}]", "listen[0].addres: unknown setting: did you mean address?"),
        ("[{address: ':1', unix: /a}]", "listen[0]: address and unix exclude each other: make two items of it"),
        ("[{address: ':1', mode: 0600}]", "listen[0].mode: is for a Unix socket: remove it"),
        ("[{unix: /a, mode: rw}]", "listen[0].mode: \"rw\" is not a file mode: use three octal digits, such as 0660"),
        (
            "[{unix: /a, mode: 01660}]",
            "listen[0].mode: \"01660\" is not a file mode: use three octal digits, such as 0660",
        ),
        (
            "[{unix: a}]",
            "listen[0].unix: \"a\" is not a socket's path: use one from the root, such as /run/acr-cache-proxy/clients.sock",
        ),
        ("[{unix: ''}]", "listen[0].unix: is empty: set a value, or remove the key"),
        (
            "[{unix: /run/m.sock/}]",
            "listen[0].unix: \"/run/m.sock/\" is a folder's path: name the socket in it, such as clients.sock",
        ),
        (
            "[{unix: /run/.}]",
            "listen[0].unix: \"/run/.\" is a folder's path: name the socket in it, such as clients.sock",
        ),
        ("[{unix: /}]", "listen[0].unix: \"/\" is a folder's path: name the socket in it, such as clients.sock"),
        (
            "[{address: ':1'}, {address: '127.0.0.1:1'}]",
            "listen[1].address: 127.0.0.1:1 is taken by config.yaml:2: listen[0].address, [::]:1: use another",
        ),
        (
            "[{unix: /a}, {address: ':1'}, {unix: /a}]",
            "listen[2].unix: unix:/a is taken by config.yaml:2: listen[0].unix, unix:/a: use another",
        ),
        ("[{address: ':1', tls: {key: /k}}]", "listen[0].tls: has no certificate: set it to a PEM file"),
        (
            "[{address: ':1', tls: {certificate: /c, key: /k, client_auth: optional}}]",
            "listen[0].tls.client_auth: has no effect without client_ca: set that to the CAs of the clients, or remove client_auth",
        ),
        (
            "[{address: ':1', tls: {certificate: /c, key: /k, client_ca: /a, client_auth: maybe}}]",
            "listen[0].tls.client_auth: unknown value \"maybe\": use required or optional",
        ),
        (
            "[{address: ':1', proxy_protocol: {trusted: []}}]",
            "listen[0].proxy_protocol: trusts nobody: set trusted to the networks of the balancers, such as [10.0.0.5]",
        ),
        (
            "[{address: ':1', proxy_protocol: {trusted: [10.0.0.5/8]}}]",
            "listen[0].proxy_protocol.trusted[0]: \"10.0.0.5/8\" is not a network: use 10.0.0.0/8 for the network, 10.0.0.5 for this address alone",
        ),
        (
            "[{address: ':1', proxy_protocol: {trusted: [balancer]}}]",
            "listen[0].proxy_protocol.trusted[0]: \"balancer\" is not a network: use an address, or one with the length of its prefix, such as 10.0.0.0/8 or fd00::/8",
        ),
    ] {
        let said = said(&format!("upstream: {{domain: a.io}}\nlisten: {listen}"));
        assert_eq!(said, [format!("config.yaml:2: {expected}")], "{listen}");
    }
    let long = format!("upstream: {{domain: a.io}}\nlisten: [{{unix: /{}}}]", "a".repeat(107));
    assert_eq!(said(&long), ["config.yaml:2: listen[0].unix: has 108 bytes: a socket's path has 107 at most"]);
    // A flag stands for the whole list, and what is wrong with that is told all the same.
    let flags = || Flags::default().with(&FILE.listen.row, ":1");
    let text = "upstream: {domain: a.io}\nlisten: [{address: ':2'}, {unix: /a}]";
    let config = load(text, flags()).expect("valid");
    assert_eq!(config.listeners().iter().map(|listener| listener.endpoint.to_string()).collect::<Vec<_>>(), ["[::]:1"]);
    assert_eq!(load("upstream: {domain: a.io}\nlisten: [{}]", flags()).map_err(|said| said.len()).err(), Some(1));
}

#[test]
fn the_admin_listener_cannot_have_the_clients_address() {
    for (text, expected) in [
        (
            "listen: 127.0.0.1:9000\nadmin: :9000",
            "config.yaml:3: admin: 127.0.0.1:9000 is taken by the listener for clients, 127.0.0.1:9000: use another port",
        ),
        (
            "listen: :9000\nadmin: 127.0.0.1:9000",
            "config.yaml:3: admin: 127.0.0.1:9000 is taken by the listener for clients, [::]:9000: use another port",
        ),
        (
            "listen: [{unix: /a}, {address: ':9000'}]\nadmin: :9000",
            "config.yaml:3: admin: 127.0.0.1:9000 is taken by the listener for clients, [::]:9000: use another port",
        ),
        (
            "# the default\nadmin: :8080",
            "config.yaml:3: admin: 127.0.0.1:8080 is taken by the listener for clients, 127.0.0.1:8080: use another port",
        ),
    ] {
        assert_eq!(said(&format!("upstream: {{domain: a.io}}\n{text}")), [expected]);
    }
    let flags = domain_flag().with(&FILE.admin.row, "127.0.0.1:1").with(&FILE.listen.row, ":1");
    let mistakes = Config::load(&flags).expect_err("the same port").to_string();
    assert!(
        mistakes.starts_with("--admin-address: 127.0.0.1:1 is taken by the listener for clients, [::]:1"),
        "{mistakes}"
    );
}

/// Each line of the file cost a reading of the whole file: 1,000 routes took 7 s, of an optimized program.
#[test]
fn a_long_configuration_is_read_in_no_time() {
    let routes: String =
        (0..2_000).map(|n| format!("  - {{source: r{n}.io, domain: example.azurecr.io, prefix: {n}}}\n")).collect();
    let networks: String = (0..4_000).map(|n| format!("10.{}.{}.0/24,", n >> 8, n & 255)).collect();
    let names: String = (0..4_000).map(|n| format!("h{n}.example.com,")).collect();
    let text = format!("access: {{deny: [{networks}]}}\negress: {{no_proxy: [{names}]}}\nroutes:\n{routes}");
    let begun = std::time::Instant::now();
    let config = load(&text, Flags::default()).expect("valid");
    // A machine that builds beside it is slow; before, it would have taken minutes.
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    assert_eq!(lines(&config).last().map(String::as_str), Some("r1999.io -> example.azurecr.io/1999"));
}

/// `reload` took the answer of a proxy with 8,000 mistakes for that of another program.
#[test]
fn of_thousands_of_mistakes_the_first_are_told_and_how_many_more_there_are() {
    let keys: String = (0..8_000).map(|n| format!("k{n}: 1\n")).collect();
    let mistakes = said(&format!("{keys}upstream: {{domain: a.azurecr.io}}\n"));
    assert_eq!(mistakes.len(), 51);
    assert!(mistakes[49].starts_with("config.yaml:50: k49: unknown setting"), "{}", mistakes[49]);
    assert_eq!(mistakes[50], "and 7950 more mistakes, which are told when these are gone");
}

#[test]
fn a_value_of_a_million_characters_is_told_without_its_middle() {
    let long = "a".repeat(900_000);
    for (text, at, says) in [
        (format!("log: \"{long}\"\n"), "config.yaml:1: log: \"aaa", "use"),
        (format!("? \"{long}\"\n: 1\n"), "config.yaml:1: aaa", ": unknown setting: use one of "),
        (
            format!("upstream: {{domain: \"{long}\"}}\n"),
            "config.yaml:1: upstream.domain: \"aaa",
            "such as example.azurecr.io",
        ),
    ] {
        let mistakes = said(&text);
        let [mistake, ..] = mistakes.as_slice() else { panic!("{at}: no mistake") };
        assert!(mistake.len() < 1_300 && mistake.starts_with(at) && mistake.contains(says), "{mistake}");
    }
}

#[test]
fn a_control_character_is_told_with_its_line() {
    let says = |place: &str, c: &str| {
        format!("config.yaml:{place}: there is the control character {c}, which no YAML has: remove it")
    };
    for (text, place, c) in [
        ("# x\nupstream: {domain: a.azurecr.io}\nlog: in\0fo\n", "3", "U+0000"),
        ("log: \u{1b}[31minfo\n", "1", "U+001B"),
        ("log: info\n\u{feff}threads: 1\n", "2", "U+FEFF"),
    ] {
        assert_eq!(said(text), [says(place, c)], "{text:?}");
    }
}

/// They were taken for hosts: `true:80`, `0.0.0.5:80`.
#[test]
fn a_switch_or_a_number_was_taken_for_the_address_of_a_proxy() {
    for (proxy, is_refused) in [
        ("true", true),
        ("on", true),
        ("Yes", true),
        ("none", true),
        ("5", true),
        ("3128", true),
        ("false", false),
        ("off", false),
        ("squid", false),
        ("'on:3128'", false),
        ("10.0.0.5", false),
    ] {
        let said = said(&format!("upstream: {{domain: a.io}}\negress: {{proxy: {proxy}}}")).concat();
        let begin = "config.yaml:2: egress.proxy: it is not the address of a proxy: use http://HOST:PORT";
        assert_eq!(said.starts_with(begin) && said.ends_with("; or off for none"), is_refused, "{proxy}: {said}");
    }
}

/// All keys of the table were listed, of which none was meant.
#[test]
fn a_key_of_another_table_and_the_name_of_a_flag_are_told_where_they_belong() {
    for (text, expected) in [
        ("blobs: proxy\n", "blobs: unknown setting here: did you mean upstream.blobs or routes.blobs?"),
        ("upstream_domain: a.azurecr.io\n", "upstream_domain: unknown setting here: did you mean upstream.domain?"),
        (
            "upstream:\n  domain: a.azurecr.io\n  memory: 1MiB\n",
            "upstream.memory: unknown setting here: did you mean cache.memory?",
        ),
        ("upstream:\n  domain: a.azurecr.io\n  prefx: hub\n", "upstream.prefx: unknown setting: did you mean prefix?"),
        ("listen_address: ':1'\n", "listen_address: unknown setting: did you mean listen?"),
        ("admin-address: ':1'\n", "admin-address: unknown setting: did you mean admin?"),
        (
            "upstream:\n  domain:a.azurecr.io\n",
            "1: upstream: domain: has no blank behind its colon, so it is no setting: ",
        ),
        ("upstream:\n  <<: {domain: a.azurecr.io}\n", "upstream.<<: merge keys are not supported: write the settings"),
        ("nonsense: 1\n", "nonsense: unknown setting: use one of "),
    ] {
        let mistakes = said(text).join("\n");
        assert!(mistakes.contains(expected), "{text}: {mistakes}");
    }
}
