//! Whatever a registry says of its repository is put in the client's words, or is left alone.
//!
//! The input is the repository's name there, a line break, its name here, a line break, and a body or a header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::name::Name;
use oci::rename::Renaming;
use serde_json::Value;

const AUTHORITY: &str = "example.azurecr.io";

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\n');
    let (Some(from), Some(to), Some(said)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    if Name::parse(from).is_none() || Name::parse(to).is_none() {
        return;
    }
    let there = Renaming { from, to, namespace: Some("docker.io"), authority: AUTHORITY };
    if let Some(tags) = there.tags(said.as_bytes()) {
        let (before, after) = (parsed(said.as_bytes()), parsed(&tags));
        // What is not read stays as it is, a number that fits no type among it.
        assert_eq!(before.is_some(), after.is_some());
        if let (Some(before), Some(after)) = (before, after) {
            assert_eq!(before["tags"], after["tags"]);
            // Of two members with one name the last one counts, and it may be another's.
            let name = if before["name"] == from { Value::from(to) } else { before["name"].clone() };
            assert_eq!(after["name"], name);
        }
    }
    if let Some(errors) = there.errors(said.as_bytes()) {
        let (Some(before), Some(after)) = (parsed(said.as_bytes()), parsed(&errors)) else {
            panic!("a body that is read whole is one: {said}");
        };
        let codes = |body: &Value| {
            body["errors"].as_array().map(|all| all.iter().map(|one| one["code"].clone()).collect::<Vec<_>>())
        };
        assert_eq!(codes(&before), codes(&after));
    }
    if let Some(target) = there.target(said) {
        assert!(target.starts_with(&format!("/v2/{to}/")), "{target}");
        let back = Renaming { from: to, to: from, namespace: None, authority: AUTHORITY };
        let path = &said[said.find("/v2/").expect("it is in there")..];
        assert_eq!(back.target(&target).as_deref(), Some(path));
        let location = there.location(said).expect("a target");
        assert!(location.starts_with(&target) && location.ends_with("ns=docker.io"), "{location}");
    }
    if let Some(link) = there.link(said) {
        assert!(link.contains(&format!("</v2/{to}/")) && link.contains("ns=docker.io>"), "{link}");
    }
});

fn parsed(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}
