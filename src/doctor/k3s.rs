//! k3s and RKE2, which make the `hosts.toml` of a containerd of their own out of `registries.yaml` when they start.

use serde_json::Value;

use super::expected::{Expected, List, by_hand, edit, leftover, misplaced, unreadable, with_path};
use super::finding::{Code, Examined, Finding, Fix, PAST, Part, REGISTRIES, Way, listed};
use super::forward_proxy;
use super::started::{self, Running, broken};
use crate::activation::Sockets;
use crate::client_config::address::{Address, Order, Verdict, order};
use crate::client_config::{self, Broken, Client, Node, SWITCH};
use crate::config::parse_yaml;
use crate::host::{DENIED, Host, Text};
use crate::shell::shell_word;

const KINDS: [(Part, Client); 2] = [(Part::K3s, Client::K3s), (Part::Rke2, Client::Rke2)];
/// Where the containerd of either listens.
const SOCKET: &str = "/run/k3s/containerd/containerd.sock";

/// What was read of one.
pub(super) struct Facts {
    part: Part,
    client: Client,
    /// Its service, and the file of its mirrors.
    node: Node,
    settings: Option<Text>,
    /// Its containerd runs; `None` where that cannot be seen.
    runs: Option<bool>,
    /// Where it puts what it makes of the file.
    generated_in: String,
    /// All that it has made, if it has ever run.
    generated: Option<String>,
    /// What it has made could not be read.
    is_closed: bool,
}

/// Those that are here.
pub(super) async fn read(host: &Host, sockets: &Sockets) -> Vec<Facts> {
    let here: Vec<_> = KINDS.into_iter().filter(|(part, _)| host.has_program(&[part.name()])).collect();
    // Where both are installed, the socket does not tell whose it is.
    let runs = if here.len() == 1 { Running::at(sockets, host.at(SOCKET)).await.runs } else { None };
    let facts = |(part, client): (Part, Client)| {
        let node = client_config::node(host, client);
        let generated_in = format!("/var/lib/rancher/{}/agent/etc/containerd", part.name());
        let certs = format!("{generated_in}/certs.d");
        let names = host.list(&certs);
        let mut is_closed = names.is_err();
        let hosts =
            names.unwrap_or_default().into_iter().filter_map(|name| host.read(&format!("{certs}/{name}/hosts.toml")));
        // Before it knew hosts.toml, they were in this one.
        let config = host.read(&format!("{generated_in}/config.toml"));
        let texts: Vec<_> = config.into_iter().chain(hosts).collect();
        is_closed |= texts.iter().any(|text| text.content.is_err());
        let generated: Vec<_> = texts.into_iter().filter_map(|text| text.content.ok()).collect();
        let generated = (!generated.is_empty()).then(|| generated.join("\n"));
        let settings = node.file.as_ref().ok().and_then(|file| host.read(file));
        Facts { part, client, node, settings, runs, generated_in, generated, is_closed }
    };
    here.into_iter().map(facts).collect()
}

/// Pure: what is wrong with one.
pub(super) fn judge(facts: &Facts, expected: &Expected<'_>) -> Examined {
    let mut found = Examined::new(facts.part);
    if !started::is_known(&facts.node.unit, &mut found) {
        return found;
    }
    let name = facts.part.name();
    let file = match &facts.node.file {
        Ok(file) => file.as_str(),
        Err(Broken { path, wrong }) => {
            let why = format!("it says which file of mirrors {name} reads, so where its pulls go is not known");
            let mut finding = unreadable(path, wrong, &why);
            if path.contains("://") {
                finding.fix = by_hand(format!("curl {} | grep private-registry", shell_word(path)));
            }
            found.find(finding);
            found.is_blind = true;
            return found;
        }
    };
    let content = facts.settings.as_ref().map(|text| text.content.clone()).unwrap_or_else(|| Ok(String::new()));
    let settings =
        content.and_then(|content| parse_yaml::<Value>(&content)).and_then(|settings| match no_list(&settings) {
            Some((entry, wrong)) => Err(format!("mirrors.{entry:?}.endpoint is {wrong}, and no list of addresses")),
            None => Ok(settings),
        });
    let settings = match settings {
        Ok(settings) => settings,
        Err(wrong) => {
            broken(file, &wrong, facts.runs, expected, &mut found);
            return found;
        }
    };
    let mut leads_here = true;
    for name in expected.names() {
        leads_here &= judge_registry(facts, expected, &settings, (file, name), &mut found);
    }
    for name in settings["mirrors"].as_object().into_iter().flat_map(serde_json::Map::keys) {
        let is_ours = endpoints(&settings, name).iter().any(|one| expected.here.judge(one) == Verdict::Ours);
        if name != "*" && is_ours && !expected.registries.contains_key(name.as_str()) {
            found.find(leftover(file, name, edit(file, &format!(" && {}", facts.node.restart))));
        }
    }
    if leads_here {
        loaded(facts, expected, file, &mut found);
    }
    last(facts, expected, &settings, &mut found);
    forward_proxy::judge(&facts.node.unit, expected, &mut found);
    found
}

fn endpoints(settings: &Value, name: &str) -> Vec<Address> {
    let all = settings["mirrors"][name]["endpoint"].as_array().into_iter().flatten();
    all.filter_map(Value::as_str).map(|url| Address::parse(url).or_tls(true)).collect()
}

/// Says what is wrong with the endpoints of a registry in this file, and where its pulls go. Gives whether the proxy is the first of them.
fn judge_registry(
    facts: &Facts,
    expected: &Expected<'_>,
    settings: &Value,
    (file, name): (&str, &str),
    found: &mut Examined,
) -> bool {
    let restart = &facts.node.restart;
    let entry = if settings["mirrors"][name].is_object() { name } else { "*" };
    let all = endpoints(settings, entry);
    let key = format!("the list of endpoints of {REGISTRIES}");
    let list = List { file, key: &key, registry: name, is_there: facts.settings.is_some() };
    let asked = order(&expected.here, &all);
    let fix = expected.write(facts.client, &format!(" && {restart}"));
    let Order::First(ours) = asked else {
        found.ways.insert(name.to_owned(), Way::Source);
        let to_front = matches!(asked, Order::Behind(..));
        let fix = if to_front { edit(file, &format!(" && {restart}")) } else { fix };
        misplaced(&expected.here, asked, &list, fix).into_iter().for_each(|finding| found.find(finding));
        return false;
    };
    // That path is the one that is asked for anyway.
    if !ours.is_bare() && (ours.has_user() || ours.path != "/v2") {
        let why = format!(
            "requests go to another path than /v2/, which the proxy refuses, and then to the source of {REGISTRIES}"
        );
        found.find(with_path(ours, &list, true, why, fix));
    }
    let rewrites = settings["mirrors"][entry]["rewrite"].as_object().is_some_and(|rules| !rules.is_empty());
    if rewrites {
        let then = format!("  # take the rewrite of {entry} out; then: {restart}");
        found.find(rewritten(file, name, edit(file, &then)));
    }
    found.ways.insert(name.to_owned(), if rewrites { Way::Source } else { Way::Proxy });
    true
}

/// Whether it has made something of a file that names the proxy.
fn loaded(facts: &Facts, expected: &Expected<'_>, file: &str, found: &mut Examined) {
    let (name, url) = (facts.part.name(), expected.here.url.as_str());
    let authority = url.split_once("://").map_or(url, |(_, authority)| authority);
    if facts.is_closed {
        found.notes.push(format!(
            "{}: {DENIED}: whether {name} has loaded its mirrors is not known: run doctor as root",
            facts.generated_in
        ));
        found.is_blind = true;
    } else if facts.generated.as_ref().is_some_and(|generated| !generated.contains(authority)) {
        found.find(Finding {
            registries: Vec::new(),
            code: Code::NotLoaded,
            file: Some(file.to_owned()),
            text: format!("it names the proxy, and what {name} has made of it at its last start does not"),
            why: "it is read at the start only, so pulls go past the proxy until the next one".to_owned(),
            fix: by_hand(facts.node.restart.clone()),
        });
        found.ways.values_mut().for_each(|way| *way = Way::Source);
    }
}

/// Whether the registries themselves are asked last, as their routes have it. One switch decides it for all registries of the file, so a
/// finding is what it puts right without breaking another one.
fn last(facts: &Facts, expected: &Expected<'_>, settings: &Value, found: &mut Examined) {
    let Some(source) = &facts.node.source else { return };
    let (name, file) = (facts.part.name(), source.file.as_str());
    let through: Vec<_> =
        found.ways.iter().filter(|(_, way)| **way == Way::Proxy).map(|(name, _)| name.clone()).collect();
    let (closed, open): (Vec<_>, Vec<_>) =
        through.iter().map(String::as_str).partition(|registry| expected.is_closed(registry));
    let entries = settings["mirrors"].as_object();
    let suits_all = entries.is_some_and(|entries| entries.keys().all(|entry| expected.is_closed(entry)));
    let of = |registries: &[&str], code, text: String, why, what: &str| Finding {
        registries: registries.iter().map(|name| (*name).to_owned()).collect(),
        code,
        file: Some(file.to_owned()),
        text,
        why,
        fix: edit(file, &format!("  # {what}; then: {}", facts.node.restart)),
    };
    match (closed.as_slice(), open.as_slice()) {
        ([], []) => {}
        (closed @ [_, ..], []) if source.is_asked && suits_all => found.find(of(
            closed,
            Code::NotClosed,
            format!("it does not set {SWITCH}, and the route is on_failure: closed"),
            format!("when a pull of {REGISTRIES} fails at the proxy, {name} goes to the source all the same"),
            &format!("{SWITCH}: true"),
        )),
        (closed, _) if source.is_asked => found.never_close(
            closed,
            &format!("and {name} asks the source when the proxy fails ({SWITCH} would close its other registries too)"),
        ),
        ([], open) => found.find(of(
            open,
            Code::NoFallback,
            format!("it sets {SWITCH}, and the route is on_failure: fallback"),
            format!("while the proxy is down, pulls of {REGISTRIES} fail that the source would answer"),
            &format!("take {SWITCH} out"),
        )),
        (closed, open @ [_, ..]) => found.notes.push(format!(
            "{file} sets {SWITCH}, as the closed route of {} needs it: so pulls of {} fail as well while the proxy is down",
            listed(closed),
            listed(open)
        )),
        _ => {}
    }
}

/// The first entry whose endpoints are no list, and what they are.
fn no_list(settings: &Value) -> Option<(&str, &'static str)> {
    settings["mirrors"].as_object()?.iter().find_map(|(name, entry)| match &entry["endpoint"] {
        Value::Null | Value::Array(_) => None,
        Value::String(_) => Some((name.as_str(), "one address")),
        _ => Some((name.as_str(), "something else")),
    })
}

/// Names are changed on the way to the proxy, which knows images by those that a pull has.
fn rewritten(file: &str, name: &str, fix: Fix) -> Finding {
    Finding {
        registries: vec![name.to_owned()],
        code: Code::Path,
        file: Some(file.to_owned()),
        text: format!("rewrite changes the names of images of {REGISTRIES} before the proxy is asked for them"),
        why: format!(
            "the proxy puts its prefix before a name that is another one already, and has no such image: {PAST}"
        ),
        fix,
    }
}
