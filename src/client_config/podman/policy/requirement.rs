//! Requirements of a `policy.json`, as `signature` of containers/image takes them: each of a known type, with the keys of that type.

use serde_json::{Map, Value};

/// Keys of which a requirement of a type has to have one, and all that it may have.
struct Kind {
    name: &'static str,
    needs: &'static [&'static str],
    /// Besides `type`; `None` where releases differ, so that nothing is claimed.
    takes: Option<&'static [&'static str]>,
}

const KINDS: [Kind; 5] = [
    Kind { name: "insecureAcceptAnything", needs: &[], takes: Some(&[]) },
    Kind { name: "reject", needs: &[], takes: Some(&[]) },
    Kind { name: "signedBy", needs: &["keyPath", "keyPaths", "keyData", "keyDatas"], takes: None },
    Kind {
        name: "sigstoreSigned",
        needs: &["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"],
        takes: None,
    },
    Kind { name: "signedBaseLayer", needs: &["baseLayerIdentity"], takes: Some(&["baseLayerIdentity"]) },
];

/// What a list of requirements asks of an image, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requirements {
    /// There is no such image.
    pub rejects: bool,
    /// A signature as cosign makes it, which is kept beside the image.
    pub sigstore: bool,
    /// A signature of GPG, which is kept in a look-aside.
    pub look_aside: bool,
}

/// What a list of requirements asks, which is that of `place`. The error says why the programs refuse the list.
pub(super) fn requirements(list: &Value, place: &str) -> Result<Requirements, String> {
    let list = list.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| format!("{place} has no list of requirements"))?;
    for requirement in list {
        is_taken(requirement).map_err(|wrong| format!("a requirement of {place} {wrong}"))?;
    }
    let has = |kind: &str| list.iter().any(|requirement| requirement["type"] == kind);
    let rejects = has("reject");
    // Of what is rejected no signature is of use.
    Ok(Requirements { rejects, sigstore: !rejects && has("sigstoreSigned"), look_aside: !rejects && has("signedBy") })
}

fn is_taken(requirement: &Value) -> Result<(), String> {
    let keys = requirement.as_object().map_or_else(Map::new, Clone::clone);
    let kind = KINDS.iter().find(|kind| requirement["type"] == kind.name).ok_or("is of no known type")?;
    let Kind { name, needs, takes } = kind;
    if !needs.is_empty() && needs.iter().all(|key| !keys.contains_key(*key)) {
        return Err(format!("is {name} without {}", needs.join(" or ")));
    }
    match takes {
        Some(takes) if keys.keys().any(|key| key != "type" && !takes.contains(&key.as_str())) => {
            Err(format!("is {name} with a key that there is not"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// doctor said that pulls came through the proxy, and every one of them failed: "invalid policy".
    #[test]
    fn a_requirement_that_podman_refuses_is_told() {
        for (list, expected) in [
            (r#"[{"type": "insecureAcceptAnything"}]"#, Ok(false)),
            (r#"[{"type": "insecureAcceptAnything"}, {"type": "reject"}]"#, Ok(true)),
            (r#"[{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a"], "signedIdentity": {}}]"#, Ok(false)),
            (r#"[{"type": "sigstoreSigned", "fulcio": {}, "rekorPublicKeyPath": "/a"}]"#, Ok(false)),
            (r#"[{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}]"#, Ok(false)),
            ("null", Err("it has no list of requirements")),
            ("[]", Err("it has no list of requirements")),
            ("[{}]", Err("a requirement of it is of no known type")),
            ("[1]", Err("a requirement of it is of no known type")),
            (r#"[{"type": "Reject"}]"#, Err("a requirement of it is of no known type")),
            (
                r#"[{"type": "insecureAcceptAnything", "x": 1}]"#,
                Err("a requirement of it is insecureAcceptAnything with a key that there is not"),
            ),
            (
                r#"[{"type": "signedBy", "keyType": "GPGKeys"}]"#,
                Err("a requirement of it is signedBy without keyPath or keyPaths or keyData or keyDatas"),
            ),
            (
                r#"[{"type": "sigstoreSigned"}]"#,
                Err(
                    "a requirement of it is sigstoreSigned without keyPath or keyPaths or keyData or keyDatas or fulcio or pki",
                ),
            ),
            (
                r#"[{"type": "signedBaseLayer"}]"#,
                Err("a requirement of it is signedBaseLayer without baseLayerIdentity"),
            ),
        ] {
            let list: Value = serde_json::from_str(list).expect("JSON");
            let rejects = requirements(&list, "it").map(|all| all.rejects);
            assert_eq!(rejects, expected.map_err(str::to_owned), "{list}");
        }
    }
}
