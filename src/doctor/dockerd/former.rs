//! Mirrors of dockerd that may have been this proxy's, and where nobody listens: dockerd asks there, and then the next one.

use std::net::Ipv4Addr;

use oci::authority;
use serde_json::Value;

use super::{Facts, parsed};
use crate::activation::Sockets;
use crate::client_config::address::{Address, Here, Verdict};
use crate::client_config::gone::{may_be_former, refuses};
use crate::doctor::expected::List;
use crate::doctor::finding::{Code, Examined, Finding, Fix};
use crate::host::Text;

/// Mirrors of the file, on this host's loopback interface, at which nobody listens.
pub(super) fn refusing(settings: Option<&Text>, sockets: &Sockets) -> Vec<Address> {
    let settings = settings.and_then(|text| text.content.as_deref().ok()).map(parsed).unwrap_or_default();
    let mirrors = settings["registry-mirrors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    // systemd does.
    let is_kept = |mirror: &Address| {
        let ip =
            authority::ip(&mirror.host).or_else(|| (mirror.host == "localhost").then(|| Ipv4Addr::LOCALHOST.into()));
        ip.is_some_and(|ip| sockets.alone_at_address((ip, mirror.port()).into()).is_some())
    };
    mirrors.map(Address::parse).filter(|mirror| !is_kept(mirror) && refuses(mirror)).collect()
}

impl Facts {
    /// Without addresses that may have been the proxy's and where nobody listens: after them dockerd asks the next one.
    pub(super) fn living(&self, here: &Here, mut mirrors: Vec<Address>) -> Vec<Address> {
        let is_gone =
            |mirror: &Address| may_be_former(here, mirror) && self.refusing.iter().any(|other| other.is_at(mirror));
        if mirrors.iter().any(|mirror| here.judge(mirror) == Verdict::Ours) {
            mirrors.retain(|mirror| !is_gone(mirror));
        }
        mirrors
    }
}

/// Says which of these mirrors are not living. Whether one was the proxy's only a person knows: it may be a registry that is stopped.
pub(super) fn find(
    mirrors: &[Address],
    living: &[Address],
    list: &List<'_>,
    here: &Here,
    taking_out: impl Fn(&Address) -> Fix,
    found: &mut Examined,
) {
    for (at, gone) in mirrors.iter().enumerate().filter(|(_, mirror)| !living.contains(mirror)) {
        if !mirrors[at..].iter().any(|other| here.judge(other) == Verdict::Ours) {
            found.notes.push(format!(
                "{}: {} has {gone} behind the proxy, where nothing listens: if it was the proxy's, take it out",
                list.file, list.key
            ));
            continue;
        }
        found.find(Finding {
            registries: Vec::new(),
            code: Code::Address,
            file: Some(list.file.to_owned()),
            text: format!("{} has {gone} before the proxy, {}, and nothing listens there", list.key, here.url),
            why: "dockerd asks there each time before it asks the proxy, and once something listens there, that has the pulls"
                .to_owned(),
            fix: taking_out(gone),
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

    /// It was said to pull past the proxy; it asked the dead address, and then the proxy. Then it was taken out of the file, and was the mirror
    /// of a registry that was stopped.
    #[test]
    fn an_address_where_nothing_listens_keeps_no_pull_from_the_proxy_and_is_a_persons_to_take_out() {
        let text = "routes: [{source: docker.io, domain: a.azurecr.io, prefix: hub}]\n";
        let config = Config::load(&Flags::default().with_text(Path::new("a.yaml"), text)).expect("right");
        let expected = Expected::new(&config, None, "http://127.0.0.1:8080", false, &[]);
        let (ours, gone, other) = ("http://127.0.0.1:8080", "http://127.0.0.1:8090", "http://127.0.0.1:5000");
        for (mirrors, loaded, codes, way, is_written) in [
            (vec![gone, ours], vec![gone, ours], vec![Code::Address], Way::Proxy, false),
            (vec![ours, gone], vec![ours, gone], vec![], Way::Proxy, false),
            (vec![gone], vec![gone], vec![Code::Address], Way::Source, true),
            (vec![other, ours], vec![other, ours], vec![Code::Order], Way::Source, false),
            (vec![gone, ours], vec![gone], vec![Code::Address, Code::NotLoaded], Way::Source, false),
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
                started: None,
                stopped: None,
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
            assert_eq!(by_command, is_written, "{mirrors:?}: {found:?}");
            let is_told = found.notes.iter().any(|note| note.contains("has http://127.0.0.1:8090 behind the proxy"));
            assert_eq!(is_told, mirrors == [ours, gone], "{:?}", found.notes);
        }
    }

    /// It was taken for one that listens, and the proxy behind it for one that is not asked.
    #[test]
    fn an_address_where_nothing_listens_is_seen_behind_a_byte_order_mark() {
        // It has the port and does not listen: no other test gets it.
        let silent = tokio::net::TcpSocket::new_v4().expect("a socket");
        silent.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let gone = format!("http://{}", silent.local_addr().expect("an address"));
        let content = serde_json::json!({ "registry-mirrors": [gone] }).to_string();
        for content in [content.clone(), format!("\u{feff}{content}")] {
            let text = Text { path: DAEMON_JSON.to_owned(), content: Ok(content) };
            assert_eq!(refusing(Some(&text), &Sockets::default()), [Address::parse(&gone)], "{text:?}");
        }
    }
}
