//! What holds for any routes and any request, whatever it is: it is refused, or it reaches a path below the prefix of its
//! route, and the way back leads to where it began.

use http::Method;

use crate::name::{MAX_NAME, Name};
use crate::rename::Renaming;
use crate::request::{MAX_QUERY, Pull, Reference, Request, Resource};
use crate::route::{Choice, Routes};

const AUTHORITY: &str = "example.azurecr.io";

/// Panics if it does not hold. False if the request is refused, or has no route.
pub fn check<D>(routes: &Routes<D>, path: &str, query: Option<&str>, host: Option<&str>) -> bool {
    let Ok(Request::Pull(pull)) = Request::parse(&Method::GET, path, query) else {
        return false;
    };
    let Ok(choice) = routes.choose(&pull, host) else {
        return false;
    };
    let repository = written(&choice);
    let there = pull.upstream_target(&choice.repository);
    is_below_its_prefix(&choice, &repository, &there);

    // As the registry would send a client there: by path, or by its own address.
    let names = Renaming {
        from: &repository,
        to: pull.name.as_str(),
        namespace: pull.namespace.as_deref(),
        authority: AUTHORITY,
    };
    let back = names.location(&there).expect("this repository's own path");
    assert_eq!(names.location(&format!("https://{AUTHORITY}:443{there}")).as_ref(), Some(&back));
    let (back_path, back_query) = match back.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (back.as_str(), None),
    };
    // What grows by being encoded anew may be refused on its way back.
    if back_query.is_some_and(|query| query.len() > MAX_QUERY) {
        return true;
    }
    let again = match Request::parse(&Method::GET, back_path, back_query) {
        Ok(Request::Pull(again)) => again,
        other => panic!("{back}: {other:?}"),
    };
    assert_eq!((again.name, &again.namespace), (pull.name, &pull.namespace), "{back}");
    assert!(is_same(&again, &pull), "{pull:?} became {again:?}");
    let chosen_again = routes.choose(&again, host).unwrap_or_else(|unrouted| panic!("{back}: {unrouted:?}"));
    assert_eq!((&chosen_again.route.source, written(&chosen_again)), (&choice.route.source, repository), "{back}");
    assert_eq!(again.upstream_target(&chosen_again.repository), there, "{back}");
    true
}

fn written<D>(choice: &Choice<'_, D>) -> String {
    let mut repository = String::new();
    choice.repository.push_to(&mut repository);
    assert_eq!(repository.len(), choice.repository.len());
    repository
}

fn is_below_its_prefix<D>(choice: &Choice<'_, D>, repository: &str, there: &str) {
    let prefix = choice.route.prefix.as_str();
    let rest = repository.strip_prefix(prefix).unwrap_or_else(|| panic!("{repository} is not below {prefix}"));
    assert!(prefix.is_empty() || rest.is_empty() || rest.starts_with('/'), "{repository} is not below {prefix}");
    assert!(Name::parse(repository).is_some() || repository.len() > MAX_NAME, "{repository}");
    let (path, query) = there.split_once('?').unwrap_or((there, ""));
    assert!(path.starts_with(&format!("/v2/{repository}/")), "{there}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{there}");
    assert!(!path.contains("//") && !path.contains(['%', '\\']), "{there}");
    assert!(there.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'), "{there}");
    assert!(query.split('&').all(|pair| !pair.starts_with("ns=")), "{there}");
}

/// A digest may have come encoded, and comes back plain; all else is compared as it is.
fn is_same(again: &Pull<'_>, pull: &Pull<'_>) -> bool {
    match (&again.resource, &pull.resource) {
        (Resource::Manifest(Reference::Digest(again)), Resource::Manifest(Reference::Digest(pull)))
        | (Resource::Blob(again), Resource::Blob(pull)) => again.to_string() == pull.to_string(),
        (Resource::Referrers(again, next), Resource::Referrers(pull, asked)) => {
            again.to_string() == pull.to_string() && next == asked
        }
        (again, pull) => again == pull,
    }
}
