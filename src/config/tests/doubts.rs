//! What is likely not meant, and is no mistake.

use super::load;
use crate::config::Flags;

#[test]
fn a_registry_of_one_part_or_docker_hubs_name_is_doubted_unless_it_is_meant_as_it_is() {
    for (upstream, is_doubted) in [
        ("domain: example", true),
        ("domain: Example", true),
        ("domain: example.azurecr.io", false),
        // Docker Hub in the place of the registry that caches it passed in silence.
        ("domain: docker.io", true),
        ("domain: index.docker.io", true),
        ("domain: Registry-1.docker.io", true),
        ("domain: hub.docker.com", true),
        ("domain: mydocker.io", false),
        ("domain: 'docker.io:5000'", false),
        ("domain: docker.io, addresses: [10.0.0.5]", false),
        ("domain: example, addresses: [10.0.0.5]", false),
        ("domain: 'example:5000'", false),
        ("domain: localhost", false),
        ("domain: 10.0.0.5", false),
        ("domain: '[fd00::5]'", false),
    ] {
        let config = load(&format!("upstream: {{{upstream}}}"), Flags::default()).expect(upstream);
        assert_eq!(!config.doubts().is_empty(), is_doubted, "{upstream}");
    }
}

/// Routes that no image is for, and rules that let nobody in, passed in silence.
#[test]
fn what_nobody_can_pull_by_passed_in_silence() {
    const HUB: &str = "upstream: {domain: a.azurecr.io, prefix: hub}";
    for (text, expected) in [
        (HUB.to_owned(), ""),
        (
            "routes:\n  - {source: docker.io, domain: a.azurecr.io}\n  - {source: mydocker.com, domain: a.azurecr.io}"
                .to_owned(),
            "",
        ),
        (
            "routes: [{source: hub.docker.com, domain: a.azurecr.io}]".to_owned(),
            "the source hub.docker.com is a website, and images of Docker Hub are of docker.io: set the source to that",
        ),
        (
            "upstream: {domain: A.azurecr.io, prefix: a.azurecr.io/hub}".to_owned(),
            "the prefix a.azurecr.io/hub begins with the registry's name, which is not part of a repository there: set it to hub",
        ),
        (
            "upstream: {domain: a.azurecr.io, prefix: a.azurecr.io}".to_owned(),
            "the prefix a.azurecr.io begins with the registry's name, which is not part of a repository there: remove the prefix",
        ),
        ("upstream: {domain: a.azurecr.io, prefix: b.azurecr.io/hub}".to_owned(), ""),
        (
            "routes:\n- {source: docker.io, domain: a.azurecr.io, prefix: hub}\n- {source: ghcr.io, domain: a.azurecr.io, prefix: hub/ghcr}"
                .to_owned(),
            "the prefix hub/ghcr of ghcr.io is below hub, that of docker.io, so images of ghcr.io are pulled as docker.io/ghcr/... as well: give it a prefix that is not below another",
        ),
        (
            "routes:\n- {source: docker.io, domain: a.azurecr.io, prefix: hub}\n- {source: docker.io/library, domain: a.azurecr.io, prefix: hub/library}\n- {source: ghcr.io, domain: b.azurecr.io, prefix: hub/ghcr}"
                .to_owned(),
            "",
        ),
        (
            format!("{HUB}\naccess: {{allow: [127.0.0.1, 10.0.0.0]}}"),
            "access.allow: 10.0.0.0 is one address: if a network is meant, write its length, such as 10.0.0.0/8",
        ),
        (
            format!("{HUB}\naccess: {{deny: [192.168.0.0]}}"),
            "access.deny: 192.168.0.0 is one address: if a network is meant, write its length, such as 192.168.0.0/16",
        ),
        (format!("{HUB}\naccess: {{deny: [10.0.0.5, 10.1.2.0, 10.0.0.0/8]}}"), ""),
        (
            format!("{HUB}\naccess: {{allow: [10.0.0.0/8, 'fd00::/8']}}"),
            "nobody can pull at 127.0.0.1:8080, where clients come from 127.0.0.1, which access refuses: let 127.0.0.1 in, or set listen to an address that the allowed networks reach",
        ),
        (
            format!("{HUB}\nlisten: '[::1]:8080'\naccess: {{deny: ['::/0']}}"),
            "nobody can pull at [::1]:8080, where clients come from ::1, which access refuses: let ::1 in, or set listen to an address that the allowed networks reach",
        ),
        (format!("{HUB}\nlisten: 0.0.0.0:8080\naccess: {{allow: [10.0.0.0/8]}}"), ""),
        (format!("{HUB}\naccess: {{allow: [10.0.0.0/8, 127.0.0.0/8]}}"), ""),
        (format!("{HUB}\naccess: {{deny: [10.0.0.0/8]}}"), ""),
        // Their addresses are those of a balancer's clients.
        (
            format!(
                "{HUB}\nlisten: [{{address: ':8080', proxy_protocol: {{trusted: [127.0.0.1]}}}}]\naccess: {{allow: [10.0.0.0/8]}}"
            ),
            "",
        ),
    ] {
        let config = load(&text, Flags::default()).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
        assert_eq!(config.doubts().join("\n"), expected, "{text}");
    }
}
