//! The image that a query names, for `/cache/purge` and `/status`.

use std::sync::Arc;

use http::StatusCode;
use oci::image::Image;
use oci::name::Name;
use oci::route::{Routes, Source};

use super::Reply;
use crate::proxy::Destination;

/// Where an image of a query goes.
pub(super) type Choice<'a> = oci::route::Choice<'a, Arc<Destination>>;

/// The one image of a query; `usage` says how it is named. The error is the answer.
pub(super) fn image(query: &str, usage: &str) -> Result<Image, Reply> {
    parsed(query, usage).map_err(wrong)
}

/// The route of an image. A registry alone would be a repository of the default registry, which nobody means.
pub(super) fn choose<'a>(routes: &'a Routes<Arc<Destination>>, image: &'a Image) -> Result<Choice<'a>, Reply> {
    let repository = image.repository();
    let alone = Source::parse(repository).ok().filter(|_| image.registry().is_none());
    if alone.is_some_and(|alone| routes.iter().any(|route| route.source.registry() == alone.registry())) {
        let sentence = format!("{repository} is a registry: name an image of it, such as {repository}/org/app:2.0");
        return Err(wrong(sentence));
    }
    let name = Name::parse(repository).ok_or_else(|| wrong(format!("{repository:?} is not a repository")))?;
    routes.choose_name(name, image.registry(), None).map_err(|unrouted| {
        let registry = unrouted.0.unwrap_or("a name without a registry");
        Reply::text(StatusCode::NOT_FOUND, format!("no route for {registry}: nothing of it is kept\n"))
    })
}

fn wrong(sentence: String) -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, sentence + "\n")
}

fn parsed(query: &str, usage: &str) -> Result<Image, String> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    match (parameters.next(), parameters.next()) {
        (Some((name, image)), None) if name == "image" => Image::parse(&image),
        (None, _) => Err(format!("no image is named: {usage}")),
        (Some((name, _)), None) => Err(format!("there is no parameter {name:?}: {usage}")),
        (Some(_), Some(_)) => Err(format!("more than one parameter: {usage}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_image() {
        for (query, expected) in [
            ("image=nginx", Ok("nginx")),
            ("image=ghcr.io%2Forg%2Fapp%3A2.0", Ok("ghcr.io/org/app:2.0")),
            ("image=docker.io/library/nginx:1.27", Ok("docker.io/library/nginx:1.27")),
            ("", Err("no image is named: use POST /cache/purge?image=")),
            ("image=", Err("\"\" is not an image: ")),
            ("image=Nginx", Err("\"Nginx\" is not an image: ")),
            ("image=a/../b", Err("\"a/../b\" is not an image: ")),
            ("name=nginx", Err("there is no parameter \"name\": use POST")),
            ("image=nginx&image=redis", Err("more than one parameter: use POST")),
        ] {
            match (parsed(query, "use POST /cache/purge?image="), expected) {
                (Ok(image), Ok(expected)) => assert_eq!(image.to_string(), expected, "{query}"),
                (Err(said), Err(expected)) => assert!(said.starts_with(expected), "{query}: {said}"),
                (found, _) => panic!("{query}: {found:?}"),
            }
        }
    }
}
