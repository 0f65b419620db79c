//! Mirrors of dockerd that were this proxy's, and where nobody listens any more: dockerd asks there, and then the next one.

use serde_json::Value;

use super::Facts;
use crate::client_config::address::{Address, Here, Verdict};
use crate::client_config::gone::{refuses, was_ours};
use crate::doctor::expected::List;
use crate::doctor::finding::{Code, Examined, Finding, Fix};
use crate::doctor::text;
use crate::host::Text;

/// Mirrors of the file, on this host's loopback interface, at which nobody listens.
pub(super) fn refusing(settings: Option<&Text>) -> Vec<Address> {
    let settings = settings.and_then(|text| text::json(text.content.as_ref().ok()?).ok()).unwrap_or_default();
    let mirrors = settings["registry-mirrors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    mirrors.map(Address::parse).filter(refuses).collect()
}

impl Facts {
    /// Without addresses that were the proxy's and are nobody's: after them dockerd asks the next one.
    pub(super) fn living(&self, here: &Here, mut mirrors: Vec<Address>) -> Vec<Address> {
        let is_gone = |mirror: &Address| {
            let at = |other: &Address| other.host == mirror.host && other.port() == mirror.port();
            was_ours(here, mirror) && self.refusing.iter().any(at)
        };
        if mirrors.iter().any(|mirror| here.judge(mirror) == Verdict::Ours) {
            mirrors.retain(|mirror| !is_gone(mirror));
        }
        mirrors
    }
}

/// Says which of these mirrors are not living.
pub(super) fn find(
    mirrors: &[Address],
    living: &[Address],
    list: &List<'_>,
    here: &Here,
    fix: &Fix,
    found: &mut Examined,
) {
    for (at, gone) in mirrors.iter().enumerate().filter(|(_, mirror)| !living.contains(mirror)) {
        let is_before = mirrors[at..].iter().any(|other| here.judge(other) == Verdict::Ours);
        let next = if is_before { "the proxy" } else { "the source" };
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Address,
            file: Some(list.file.to_owned()),
            text: format!("{} has {gone}, where nothing listens, and the proxy is at {}", list.key, here.url),
            why: format!("dockerd asks there, where the proxy may have been before, each time before it asks {next}"),
            fix: fix.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use oci::route::DOCKER_HUB;

    use super::*;
    use crate::client_config::{Client, DAEMON_JSON};
    use crate::config::{Config, Flags};
    use crate::doctor::dockerd::judge;
    use crate::doctor::expected::Expected;
    use crate::doctor::finding::Way;
    use crate::unit::Unit;

    /// It was said to pull past the proxy, and to need an editor; it asked the dead address, and then the proxy.
    #[test]
    fn an_address_where_the_proxy_was_before_is_taken_out_by_client_config_and_keeps_no_pull_from_the_proxy() {
        let text = "routes: [{source: docker.io, domain: a.azurecr.io, prefix: hub}]\n";
        let config = Config::load(&Flags::default().with_text(Path::new("a.yaml"), text)).expect("right");
        let expected = Expected::new(&config, None, "http://127.0.0.1:8080", false, &[]);
        let (ours, gone, other) = ("http://127.0.0.1:8080", "http://127.0.0.1:8090", "http://127.0.0.1:5000");
        for (mirrors, loaded, codes, way) in [
            (vec![gone, ours], vec![gone, ours], vec![Code::Address], Way::Proxy),
            (vec![ours, gone], vec![ours], vec![Code::Address], Way::Proxy),
            (vec![gone], vec![gone], vec![Code::Address], Way::Source),
            (vec![other, ours], vec![other, ours], vec![Code::Order], Way::Source),
            (vec![gone, ours], vec![gone], vec![Code::Address, Code::NotLoaded], Way::Source),
        ] {
            let content = Ok(serde_json::json!({ "registry-mirrors": mirrors }).to_string());
            let info = serde_json::json!({ "ServerVersion": "26.1.5", "RegistryConfig": { "Mirrors": loaded } });
            let facts = Facts {
                settings: Some(Text { path: DAEMON_JSON.to_owned(), content }),
                refusal: None,
                installed: None,
                unit: Unit::default(),
                certs: Vec::new(),
                runs: true,
                has_old_flags: false,
                is_this: true,
                silent: None,
                info: Some(info),
                refusing: vec![Address::parse(gone)],
                seconds: Vec::new(),
            };
            let found = judge(&facts, &expected);
            let is_as = found.findings.iter().map(|finding| finding.code).eq(codes.iter().copied());
            assert!(is_as && found.ways.get(DOCKER_HUB) == Some(&way), "{mirrors:?}: {found:?}");
            let by_command = found.findings.iter().any(|finding| finding.fix.by == Some(Client::Docker));
            assert_eq!(by_command, codes.contains(&Code::Address), "{mirrors:?}: {found:?}");
        }
    }
}
