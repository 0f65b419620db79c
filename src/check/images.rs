//! Which image each route is asked for.

use http::Method;
use oci::image::Image;
use oci::request::{Pull, Request};
use oci::route::{DOCKER_HUB, Route, Routes};

use crate::config::Destination;
use crate::proxy::Target;

/// An image of a few KiB that everybody may pull, for sources where one is known. All rules of docs/azure.md cover that of
/// Docker Hub.
const KNOWN: [(&str, &str); 6] = [
    (DOCKER_HUB, "library/hello-world:latest"),
    ("mcr.microsoft.com", "mcr.microsoft.com/hello-world:latest"),
    ("registry.k8s.io", "registry.k8s.io/pause:3.9"),
    ("quay.io", "quay.io/prometheus/busybox:latest"),
    ("gcr.io", "gcr.io/distroless/static:latest"),
    ("public.ecr.aws", "public.ecr.aws/docker/library/hello-world:latest"),
];

/// An image of a route, as clients ask for it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// As people write it.
    pub image: Image,
    /// Somebody has named it; else that it is missing may only mean that the cache rule does not cover it.
    pub is_named: bool,
    path: String,
    query: String,
}

impl Wanted {
    fn new(image: Image, is_named: bool, default: Option<&str>) -> Self {
        let registry = image.registry().or(default).unwrap_or(DOCKER_HUB);
        let (path, query) =
            (format!("/v2/{}/manifests/{}", image.repository(), image.reference()), format!("ns={registry}"));
        Self { image, is_named, path, query }
    }

    /// The request in the registry's names.
    pub(super) fn target(&self, routes: &Routes<Destination>) -> Option<Target> {
        let pull = self.pull()?;
        let choice = routes.choose(&pull, None).ok()?;
        Some(Target::new(&pull, &choice.repository))
    }

    /// The request of a client; `None` for none that this proxy takes.
    fn pull(&self) -> Option<Pull<'_>> {
        match Request::parse(&Method::GET, &self.path, Some(&self.query)) {
            Ok(Request::Pull(pull)) => Some(pull),
            _ => None,
        }
    }

    /// Whether it goes by this route.
    fn is_of(&self, route: &Route<Destination>, routes: &Routes<Destination>) -> bool {
        let Some(pull) = self.pull() else { return false };
        routes.choose(&pull, None).is_ok_and(|choice| std::ptr::eq(choice.route, route))
    }
}

/// The images of all routes.
pub(super) struct Images {
    named: Vec<Wanted>,
    known: Vec<Wanted>,
}

impl Images {
    /// These, and the known ones for routes that none of them is for. The error has those that no route is for.
    pub(super) fn new(named: &[Image], routes: &Routes<Destination>) -> Result<Self, Vec<String>> {
        let default = routes.default_registry();
        let named: Vec<_> = named.iter().map(|image| Wanted::new(image.clone(), true, default)).collect();
        let known = KNOWN.iter().filter_map(|(_, image)| Image::parse(image).ok());
        let known = known.map(|image| Wanted::new(image, false, Some(DOCKER_HUB))).collect();
        let lost = named.iter().filter(|wanted| !routes.iter().any(|route| wanted.is_of(route, routes)));
        let lost: Vec<_> = lost.map(|wanted| format!("--image {}: no route is for it", wanted.image)).collect();
        if lost.is_empty() { Ok(Self { named, known }) } else { Err(lost) }
    }

    /// The images of a route, perhaps none.
    pub(super) fn of(&self, route: &Route<Destination>, routes: &Routes<Destination>) -> Vec<Wanted> {
        let of = |images: &[Wanted]| -> Vec<Wanted> {
            images.iter().filter(|wanted| wanted.is_of(route, routes)).cloned().collect()
        };
        match of(&self.named) {
            none if none.is_empty() => of(&self.known),
            named => named,
        }
    }
}
