//! What is said of the proxy itself.

use super::super::ask::Properties;
use super::super::finding::Fix;
use super::*;
use crate::client_config::Client;
use crate::config::Flags;

/// It was called something else that answers, one registry without a token made all of them unserved, and what a limit refused was not
/// told.
#[tokio::test]
async fn what_the_proxy_refuses_is_told_and_of_which_registries() {
    let settings = "routes:\n- {source: docker.io, domain: a.azurecr.io, prefix: a}\n- {source: ghcr.io, domain: b.azurecr.io, prefix: b}\n";
    let config = Config::load(&Flags::default().with_text("config.yaml".as_ref(), settings)).expect("valid");
    let expected = Expected::new(&config, Some("/c.yaml"), "http://127.0.0.1:8080", false, &[]);
    let answer = |status, is_registry, body: &str| Answer { status, is_registry, body: body.as_bytes().to_vec() };
    let denied =
        r#"{"errors":[{"code":"DENIED","message":"127.0.0.1 may not pull here: access.allow and access.deny"}]}"#;
    let ready = r#"{"summary":"ready"}"#;
    let unready = r#"{"summary":"not ready","upstreams":[{"domain":"a.azurecr.io","serves":"all"},{"domain":"b.azurecr.io","serves":"nothing"}]}"#;
    // doctor found nothing wrong with these, and pulls of what is not kept failed.
    let kept = r#"{"summary":"ready: only what is kept is served","upstreams":[{"domain":"a.azurecr.io","serves":"kept"},{"domain":"b.azurecr.io","serves":"all"}]}"#;
    let limited = serde_json::json!({"load": {"limited_last_hour": {"request_rate": 7, "connections_per_client": 0}}});
    let routes = |registry: &str| {
        let route = |route: &str, registry: &str, prefix: &str| serde_json::json!({"route": route, "registry": registry, "prefix": prefix});
        serde_json::json!({"routes": [route("docker.io", "a.azurecr.io", "a"), route("ghcr.io", registry, "b")]})
    };
    let (same, earlier) = (routes("b.azurecr.io"), routes("c.azurecr.io"));
    for (what, answers, readyz, status, codes, unserved) in [
        ("right", answer(200, true, ""), answer(200, false, ready), Value::Null, &[][..], &[][..]),
        (
            "denied",
            answer(403, false, denied),
            answer(200, false, ready),
            Value::Null,
            &[Code::Refused],
            &["docker.io", "ghcr.io"],
        ),
        ("another's 403", answer(403, false, "no"), answer(200, false, ready), Value::Null, &[Code::Stranger], &[]),
        ("no token", answer(200, true, ""), answer(503, false, unready), Value::Null, &[Code::NotReady], &["ghcr.io"]),
        (
            "an earlier release",
            answer(200, true, ""),
            answer(503, false, "no"),
            Value::Null,
            &[Code::NotReady],
            &["docker.io", "ghcr.io"],
        ),
        ("no token any more", answer(200, true, ""), answer(200, false, kept), Value::Null, &[Code::NotReady], &[]),
        ("the same routes", answer(200, true, ""), answer(200, false, ready), same, &[], &[]),
        (
            "settings that were not read",
            answer(200, true, ""),
            answer(200, false, ready),
            earlier,
            &[Code::NotLoaded],
            &["ghcr.io"],
        ),
        ("limited", answer(200, true, ""), answer(200, false, ready), limited, &[Code::Refused], &[]),
    ] {
        let nobody = elsewhere("http://127.0.0.1:1", &Sockets::default()).await;
        let facts = Facts {
            answers: Ok(Some(answers)),
            ready: Some(Ok(readyz)),
            status: Some(status),
            is_elsewhere: false,
            ..nobody
        };
        let found = judge(&facts, &expected);
        let is: Vec<_> = found.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(
            (is.as_slice(), found.unserved.keys().map(String::as_str).collect::<Vec<_>>().as_slice()),
            (codes, unserved),
            "{what}: {found:?}"
        );
    }
}

/// The service was to be enabled and started, which did nothing, and engines were sent to an address where nobody was yet.
#[tokio::test]
async fn a_service_that_has_not_read_its_new_address_is_reloaded_before_engines_are_sent_there() {
    let settings = "upstream: {domain: example.azurecr.io, prefix: hub}\n";
    let config = Config::load(&Flags::default().with_text("config.yaml".as_ref(), settings)).expect("valid");
    let expected = Expected::new(&config, None, "http://127.0.0.1:8090", false, &[]);
    for (is_older, proxy, engine) in [
        (true, "systemctl reload acr-cache-proxy && ", "systemctl reload acr-cache-proxy && write"),
        (false, "systemctl enable --now ", "write"),
    ] {
        let nobody = elsewhere("http://127.0.0.1:1", &Sockets::default()).await;
        let state = if is_older { "active" } else { "inactive" };
        let service = Service { has_unit: true, state: Some(state.to_owned()), ..Service::default() };
        let facts = Facts { service, is_elsewhere: false, ..nobody };
        let found = judge(&facts, &expected);
        assert_eq!(found.runs, Some(is_older));
        assert!(found.findings.iter().all(|finding| finding.fix.command.starts_with(proxy)), "{found:?}");
        let mut dockerd = Examined::new(Part::Dockerd);
        let fix = Fix { command: "write".to_owned(), by: Some(Client::Docker) };
        dockerd.find(Finding { fix, ..stranger("", String::new(), &expected) });
        let mut parts = [dockerd];
        first(&facts, &mut parts);
        assert_eq!(parts[0].findings[0].fix.command, engine);
    }
}

/// Only "connection refused" was said, with the start that had just failed as the way out.
#[tokio::test]
async fn a_service_that_has_failed_or_is_masked_or_refused_a_reload_is_told_with_its_last_words() {
    let settings = "upstream: {domain: example.azurecr.io, prefix: hub}\n";
    let config = Config::load(&Flags::default().with_text("config.yaml".as_ref(), settings)).expect("valid");
    let expected = Expected::new(&config, None, "http://127.0.0.1:8090", false, &[]);
    let denied = "acr-cache-proxy: ca_file: /etc/ca.pem: Permission denied (os error 13)";
    let start = "systemctl enable --now acr-cache-proxy.service && systemctl status --no-pager acr-cache-proxy.service";
    let journal = "journalctl --unit acr-cache-proxy --lines 20 --no-pager  # put right what it says, if that is not done; then: ";
    for (state, said, says, fix) in [
        (
            "failed",
            "LoadState=loaded\nActiveState=failed\nSubState=failed\nNRestarts=0\nResult=exit-code\nExecMainStatus=2\n",
            format!(", and its service has failed with status 2: {denied}"),
            format!("{journal}{start}"),
        ),
        (
            "activating",
            "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nNRestarts=3\nResult=watchdog\nExecMainStatus=6\n",
            format!("fails at each start, and systemd starts it again and again (watchdog): {denied}"),
            format!("{journal}{start}"),
        ),
        (
            "inactive",
            "LoadState=masked\nActiveState=inactive\nSubState=dead\nResult=success\n",
            ", and its unit is masked".to_owned(),
            format!("systemctl unmask acr-cache-proxy.service && {start}"),
        ),
        // It was told to be enabled, which systemd refused each time.
        (
            "inactive",
            "LoadState=bad-setting\nActiveState=inactive\nSubState=dead\nResult=success\n",
            ", and systemd refuses its unit (bad-setting)".to_owned(),
            format!("{}{start}", down::VERIFY),
        ),
        (
            "active",
            "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nReloadResult=exit-code\n",
            "because its last reload has failed".to_owned(),
            format!("{journal}systemctl reload acr-cache-proxy"),
        ),
        (
            "inactive",
            "LoadState=loaded\nActiveState=inactive\nResult=success\n",
            "refused".to_owned(),
            start.to_owned(),
        ),
    ] {
        let nobody = elsewhere("http://127.0.0.1:1", &Sockets::default()).await;
        let mut last = down::Last::of(&Properties::of(said));
        last.line = last.failure.is_some().then(|| denied.to_owned());
        let service = Service { has_unit: true, state: Some(state.to_owned()), last, ..Service::default() };
        let found = judge(&Facts { service, is_elsewhere: false, ..nobody }, &expected);
        let [finding] = found.findings.as_slice() else { panic!("{found:?}") };
        assert!(finding.text.ends_with(&says), "{said}: {finding:?}");
        assert_eq!(finding.fix.command, fix, "{said}");
    }
}

/// All of these were "ok", and the next start failed, or was of another program.
#[tokio::test]
async fn a_service_that_answers_and_would_not_by_its_next_start_is_not_right() {
    let settings = "upstream: {domain: example.azurecr.io, prefix: hub}\nidentity: {kind: anonymous}\n";
    let config = Config::load(&Flags::default().with_text("config.yaml".as_ref(), settings)).expect("valid");
    let expected = Expected::new(&config, None, "http://127.0.0.1:8090", false, &[]);
    let signs_in = |kind: &str, id: Option<&str>| {
        let identity = serde_json::json!({"kind": kind, "id": id});
        let status = serde_json::json!({"registries": [{"domain": "example.azurecr.io", "identity": identity}]});
        other_identities(&status, &config)
    };
    let otherwise = signs_in("managed identity", Some("an-id"));
    assert_eq!(otherwise, ["example.azurecr.io: managed identity an-id, and not anonymous"]);
    let lack = || NotHandedOver { setting: "ca_file $CREDENTIALS_DIRECTORY/ca".to_owned(), name: "ca".to_owned() };
    let (ok, program) = ("LoadState=loaded\nActiveState=active\nReloadResult=success\n", "/usr/bin/acr-cache-proxy");
    for (said, replaced, not_handed_over, identities, expected_finding) in [
        (ok, None, vec![], signs_in("anonymous", None), None),
        (
            "LoadState=bad-setting\n",
            None,
            vec![],
            vec![],
            Some((Code::Failed, "systemd refuses", "systemd-analyze verify")),
        ),
        ("LoadState=masked\n", None, vec![], vec![], Some((Code::Failed, "its unit is masked", "systemctl unmask"))),
        ("ReloadResult=exit-code\n", None, vec![], vec![], Some((Code::NotLoaded, "the last reload", "journalctl "))),
        (
            ok,
            Some(program),
            vec![],
            vec![],
            Some((Code::NotLoaded, "the process that runs was started", "kill -USR2 ")),
        ),
        (
            ok,
            None,
            vec![lack()],
            vec![],
            Some((Code::Unreadable, "ca_file $CREDENTIALS_DIRECTORY/ca: ", "systemctl edit")),
        ),
        (
            ok,
            None,
            vec![],
            otherwise,
            Some((Code::NotLoaded, "the proxy that runs signs in otherwise", "systemctl reload")),
        ),
    ] {
        let nobody = elsewhere("http://127.0.0.1:1", &Sockets::default()).await;
        let service = Service {
            has_unit: true,
            state: Some("active".to_owned()),
            last: down::Last::of(&Properties::of(said)),
            replaced: replaced.map(str::to_owned),
            ..Service::default()
        };
        let facts = Facts { service, not_handed_over, other_identities: identities, is_elsewhere: false, ..nobody };
        let mut found = Examined::new(Part::Proxy);
        behind::find(&facts, &expected, &mut found);
        let is =
            found.findings.first().map(|finding| (finding.code, finding.text.as_str(), finding.fix.command.as_str()));
        let is_expected = match (is, expected_finding) {
            (Some((code, text, fix)), Some((wanted, says, does))) => {
                code == wanted && text.starts_with(says) && fix.starts_with(does)
            }
            (is, wanted) => is.is_none() && wanted.is_none(),
        };
        assert!(is_expected && found.findings.len() < 2, "{said}: {found:?}");
    }
}

/// A line of the process before was the reason why a start had failed.
#[test]
fn the_reason_of_a_start_that_failed_is_one_of_that_start() {
    for (status, expected) in [
        (
            "Result=exit-code\nExecMainStatus=2",
            Some("--identifier=acr-cache-proxy _SYSTEMD_INVOCATION_ID=a1 --lines=1"),
        ),
        ("Result=exit-code\nExecMainStatus=243", Some("--priority=err INVOCATION_ID=a1")),
        ("Result=watchdog\nExecMainStatus=6", None),
    ] {
        let command = down::journal(&Properties::of(&format!("InvocationID=a1\n{status}\n")));
        let words = command.map(|words| words.join(" "));
        assert_eq!(words.is_some(), expected.is_some(), "{status}");
        assert!(words.is_none_or(|words| expected.is_some_and(|end| words.ends_with(end))), "{status}");
    }
    assert_eq!(down::journal(&Properties::of("InvocationID=\nResult=exit-code\nExecMainStatus=2\n")), None);
}
