//! Names in answers: lists, errors, links and redirects are in the names that the client used.

use acr_emulator::{Fault, Hop};
use serde_json::json;

use crate::fixture::{ABSENT, ACCEPT, CLIENT_FRAMINGS, Fixture, INDEX, NAMES, TAGS, json_of, path_of};
use crate::wire::{Client, Whole};

/// The target of a `Link` to the next page.
fn next(answer: &Whole) -> Option<String> {
    let (target, relation) = answer.header("link")?.strip_prefix('<')?.split_once('>')?;
    assert_eq!(relation, "; rel=\"next\"");
    Some(target.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tag_lists_and_links_to_their_pages_are_in_the_clients_names() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let all: Vec<_> = TAGS.iter().copied().chain(["zz-own"]).collect();
        for (name, namespace, repository) in NAMES {
            let start = format!("/v2/{name}/tags/list?");
            let pages = std::cell::RefCell::new(vec![path_of(name, namespace, "tags/list?n=4")]);
            let mut listed = Vec::new();
            loop {
                let page = pages.borrow().last().cloned().expect("one at least");
                let found = std::cell::RefCell::new(None);
                for method in ["GET", "HEAD"] {
                    fixture.in_every_framing(method, &page, |what, answer| {
                        assert_eq!(answer.status(), 200, "{what}: {answer:?}");
                        let link = next(answer);
                        if method == "HEAD" {
                            assert!(answer.body.is_empty(), "{what}");
                            assert_eq!(found.borrow().as_ref().map(|(link, _)| link), Some(&link), "{what}");
                            return;
                        }
                        let body = json_of(answer);
                        assert_eq!(body["name"], name, "{what}: {body}");
                        let seen = Some((link, body["tags"].clone()));
                        let first = found.replace(seen.clone());
                        assert!(first.is_none() || first == seen, "{what}: {first:?} {seen:?}");
                    });
                }
                let Some((link, tags)) = found.into_inner() else { panic!("no answer") };
                listed.extend(serde_json::from_value::<Vec<String>>(tags).expect("tags"));
                // The second page is asked for by all that the registry's own `Link` says.
                let asked = if pages.borrow().len() == 1 { "n=4" } else { "n=4&last=edge&orderby=" };
                assert_eq!(fixture.last().target, format!("/v2/{repository}/tags/list?{asked}"));
                let Some(link) = link else { break };
                assert!(link.starts_with(&start), "{link}");
                let says = namespace.map(|namespace| format!("&ns={namespace}")).unwrap_or_default();
                assert!(
                    link.ends_with(&says) && link.matches("ns=").count() == usize::from(namespace.is_some()),
                    "{link}"
                );
                assert!(pages.borrow().len() < all.len(), "the list goes on: {link}");
                pages.borrow_mut().push(link);
            }
            assert_eq!(listed, all, "{name} {namespace:?}");
            assert_eq!(pages.into_inner().len(), 2, "{name} {namespace:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_in_the_clients_names() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        for (name, namespace, repository) in NAMES {
            // Not the repository itself, but its neighbour, which nobody has pushed.
            let (name, repository) = (format!("{name}-none"), format!("{repository}-none"));
            let path = path_of(&name, namespace, "tags/list");
            fixture.in_every_framing("GET", &path, |what, answer| {
                let error = json_of(answer)["errors"][0].clone();
                assert_eq!((answer.status(), &error["code"]), (404, &json!("NAME_UNKNOWN")), "{what}: {answer:?}");
                assert_eq!(error["detail"]["name"], name.as_str(), "{what}");
            });
            fixture.in_every_framing("HEAD", &path, |what, answer| {
                assert_eq!((answer.status(), answer.body.len()), (404, 0), "{what}: {answer:?}");
            });
            let own = path_of(&name, namespace, "manifests/sha256:0");
            let answer = fixture.ask("GET", &own, "");
            assert!(
                answer.status() == 400 && !String::from_utf8_lossy(&answer.body).contains(&repository),
                "{answer:?}"
            );
            let body = json!({"errors": [{
                "code": "DENIED",
                "message": format!("no pull of {repository}:latest"),
                "detail": [{"Type": "repository", "Name": repository, "Action": "pull"}],
            }]});
            let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
            let fault = Fault::StatusWith { status: 403, headers, body: body.to_string() };
            fixture.azure.inject(Hop::Data, fault);
            for (version, headers, _) in CLIENT_FRAMINGS {
                let mut client = Client::new(fixture.proxy.address());
                let path = path_of(&name, namespace, "manifests/latest");
                let answer = client.ask("GET", &path, version, &format!("{ACCEPT}{headers}"));
                let error = json_of(&answer)["errors"][0].clone();
                assert_eq!((answer.status(), &error["code"]), (403, &json!("DENIED")), "{answer:?}");
                assert_eq!(error["message"], format!("no pull of {name}:latest"), "{answer:?}");
                assert_eq!(error["detail"][0]["Name"], name.as_str(), "{answer:?}");
            }
            fixture.azure.clear_faults();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_filtered_and_links_to_their_pages_are_in_the_clients_names() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let subject = &fixture.index;
        for (name, namespace, repository) in NAMES {
            fixture.azure.attach(repository, subject, "application/vnd.example.sbom+json", name);
            let path = path_of(
                name,
                namespace,
                &format!("referrers/{subject}?artifactType=application%2Fvnd.example.sbom%2Bjson"),
            );
            fixture.in_every_framing("GET", &path, |what, answer| {
                assert_eq!((answer.status(), answer.header("content-type")), (200, Some(INDEX)), "{what}: {answer:?}");
                assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"), "{what}: {answer:?}");
                let index = json_of(answer);
                assert!(index["manifests"].as_array().is_some_and(|list| !list.is_empty()), "{what}: {index}");
            });
            // By a name that no specification has.
            let continued = "artifactType=application%2Fvnd.example.sbom%2Bjson&skipTo=a%2Bb%2F%3D";
            let link = format!("</v2/{repository}/referrers/{subject}?{continued}>; rel=\"next\"");
            let headers = [("Content-Type", INDEX), ("Link", &link), ("OCI-Filters-Applied", "artifactType")];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let page =
                json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"x": repository}});
            let fault = Fault::StatusWith { status: 200, headers, body: page.to_string() };
            for method in ["GET", "HEAD"] {
                for (version, headers, _) in CLIENT_FRAMINGS {
                    fixture.azure.inject(Hop::Data, fault.clone().times(1));
                    let answer = Client::new(fixture.proxy.address()).ask(method, &path, version, headers);
                    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"), "{answer:?}");
                    assert!(
                        method == "HEAD" || answer.body == page.to_string().as_bytes(),
                        "byte for byte: {answer:?}"
                    );
                    let next = next(&answer).unwrap_or_else(|| panic!("no link: {answer:?}"));
                    assert!(next.starts_with(&format!("/v2/{name}/referrers/{subject}?{continued}")), "{next}");
                    assert_eq!(fixture.ask("GET", &next, "").status(), 200, "{next}");
                    assert_eq!(fixture.last().target, format!("/v2/{repository}/referrers/{subject}?{continued}"));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_several_link_headers_is_renamed_by_itself_and_none_leads_to_another_list() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let authority = format!("example.azurecr.io:{}", fixture.azure.registry_addr().port());
        let links = [
            "</v2/hub/library/busybox/tags/list?last=a>; rel=\"next\"",
            "<https://elsewhere.example/v2/hub/library/busybox/tags/list>; rel=\"next\"",
            "</v2/hub/library/other/tags/list>; rel=\"next\"",
            "</v2/hub/library/busybox/../other/tags/list>; rel=\"next\"",
            &format!("<https://{authority}/v2/hub/library/busybox/tags/list>; rel=\"first\""),
        ];
        let headers = links.map(|link| ("Link".to_owned(), link.to_owned())).into();
        fixture.azure.inject(Hop::Data, Fault::StatusWith { status: 200, headers, body: "{}".to_owned() });
        let answer = fixture.ask("GET", "/v2/busybox/tags/list?ns=docker.io", "");
        let lines =
            answer.head.head.lines().filter_map(|line| line.strip_prefix("Link: ").or(line.strip_prefix("link: ")));
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                "</v2/busybox/tags/list?last=a&ns=docker.io>; rel=\"next\"",
                "</v2/busybox/tags/list?ns=docker.io>; rel=\"first\"",
            ],
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_the_registry_itself_leads_to_the_proxy_and_others_are_unchanged() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let authority = format!("example.azurecr.io:{}", fixture.azure.registry_addr().port());
        for (name, namespace, repository) in NAMES {
            let (there, here) =
                (format!("/v2/{repository}/blobs/{ABSENT}"), path_of(name, namespace, &format!("blobs/{ABSENT}")));
            for (location, expected) in [
                (there.clone(), here.clone()),
                (format!("https://{authority}{there}"), here),
                (format!("https://elsewhere.example{there}"), format!("https://elsewhere.example{there}")),
                (
                    format!("https://x.blob.example/{repository}//data?sig=a%2Bb%3D&se=2026-01-01T00%3A00%3A00Z"),
                    format!("https://x.blob.example/{repository}//data?sig=a%2Bb%3D&se=2026-01-01T00%3A00%3A00Z"),
                ),
            ] {
                let headers = vec![("Location".to_owned(), location.clone())];
                fixture.azure.inject(Hop::Data, Fault::StatusWith { status: 307, headers, body: String::new() });
                for method in ["GET", "HEAD"] {
                    for (version, headers, _) in CLIENT_FRAMINGS {
                        let path = path_of(name, namespace, &format!("blobs/{}", fixture.layer));
                        let answer = Client::new(fixture.proxy.address()).ask(method, &path, version, headers);
                        let seen = (answer.status(), answer.header("location"));
                        assert_eq!(seen, (307, Some(expected.as_str())), "{method} {path}: {answer:?}");
                        if expected.starts_with('/') {
                            Client::new(fixture.proxy.address()).ask(method, &expected, version, headers);
                            assert_eq!(fixture.last().target, there, "{method} {path}");
                        }
                    }
                }
                fixture.azure.clear_faults();
            }
        }
    }
}

/// A client once got a 307 without its address, which was taken out as no client may go there.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_whose_address_is_for_no_client_is_no_answer() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let path = path_of(NAMES[0].0, NAMES[0].1, &format!("blobs/{}", fixture.layer));
        for location in ["/v2/other/blobs/x", "/", "//elsewhere.example/x"] {
            let headers = vec![("Location".to_owned(), location.to_owned())];
            fixture.azure.inject(Hop::Data, Fault::StatusWith { status: 307, headers, body: String::new() });
            for method in ["GET", "HEAD"] {
                let answer = Client::new(fixture.proxy.address()).ask(method, &path, "HTTP/1.1", "");
                assert_eq!(
                    (answer.status(), answer.header("location")),
                    (502, None),
                    "{method} {location}: {answer:?}"
                );
            }
            fixture.azure.clear_faults();
        }
    }
}

/// A client was led to wherever the registry said.
#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_is_not_of_the_manifest_goes_to_no_client() {
    for cache in testkit::ASKING {
        let fixture = Fixture::start(cache).await;
        let digest = &fixture.index;
        for (location, expected) in [
            ("/v2/hub/library/busybox/manifests/1.36".to_owned(), Some("/v2/busybox/manifests/1.36".to_owned())),
            (format!("/v2/hub/library/busybox/manifests/{digest}"), Some(format!("/v2/busybox/manifests/{digest}"))),
            ("/v2/hub/library/busybox/manifests/latest".to_owned(), None),
            ("/v2/hub/library/other/manifests/1.36".to_owned(), None),
            ("/v2/hub/library/busybox/../other/manifests/1.36".to_owned(), None),
            ("https://elsewhere.example/v2/hub/library/busybox/manifests/1.36".to_owned(), None),
            ("//elsewhere.example/v2/hub/library/busybox/manifests/1.36".to_owned(), None),
            ("javascript:alert(1)".to_owned(), None),
            ("file:///etc/passwd".to_owned(), None),
        ] {
            // What is here whole leads nowhere, and a redirect of a manifest is followed by nobody.
            let passes = cache == "off";
            let mut cases = vec![(307, 502, None)];
            cases.extend(passes.then_some((200, 200, expected.as_deref())));
            for (status, seen, expected) in cases {
                let headers = vec![("Location".to_owned(), location.clone())];
                fixture.azure.inject(Hop::Data, Fault::StatusWith { status, headers, body: String::new() });
                for method in ["GET", "HEAD"] {
                    let answer = fixture.ask(method, "/v2/busybox/manifests/1.36", ACCEPT);
                    let told = (answer.status(), answer.header("location"));
                    assert_eq!(told, (seen, expected), "{cache}: {method} {location}: {answer:?}");
                }
                fixture.azure.clear_faults();
            }
        }
    }
}
