//! Maps the repository that a client names to a repository of a cache registry.
//!
//! A registry without a route is refused with 404, so that the client asks that registry itself. Choosing a route allocates
//! nothing.

use crate::authority;
use crate::name::{LIBRARY, Name, Prefix, Repository};
use crate::request::Pull;

/// Docker Hub: the registry that dockerd means, which names none.
pub const DOCKER_HUB: &str = "docker.io";
/// Other host names of Docker Hub.
const DOCKER_HUB_HOSTS: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// The domain of its website, whose name no image has.
const DOCKER_HUB_WEBSITE: &str = "docker.com";

/// Whether a host is Docker Hub's website, which people take for its registry.
pub fn is_docker_hubs_website(host: &str) -> bool {
    is_in_domain(host, DOCKER_HUB_WEBSITE)
}

/// Whether a host is Docker Hub's: its registry, another host below that name, or its website.
pub fn is_docker_hubs(host: &str) -> bool {
    is_in_domain(host, DOCKER_HUB) || is_docker_hubs_website(host)
}

/// Whether a host is this one, or below it.
fn is_in_domain(host: &str, domain: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The source of a cache rule: a registry, or a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    registry: String,
    path: String,
}

impl Source {
    /// `ghcr.io`, `docker.io/library`, `registry.example:5000`. The error says what to use.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (registry, path) = text.split_once('/').unwrap_or((text, ""));
        let path_is_valid = path.is_empty() && !text.ends_with('/') || Name::parse(path).is_some();
        if text.contains("://") || !names_a_registry(registry) || !path_is_valid {
            return Err(format!(
                "{text:?} is not a source: use the registry that the cache rule is for, such as docker.io, ghcr.io or docker.io/library"
            ));
        }
        Ok(Self { registry: known_as(&registry.to_ascii_lowercase()).to_owned(), path: path.to_owned() })
    }

    /// The whole of Docker Hub.
    pub fn docker_hub() -> Self {
        Self { registry: DOCKER_HUB.to_owned(), path: String::new() }
    }

    /// The registry's host, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry that the rule covers; empty for the whole registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The rest of a name after the path; `None` if the path does not cover the name. `short` means that `library/` belongs in
    /// front of the name. The returned flag tells whether it still belongs in front of the rest.
    fn strip<'a>(&self, short: bool, name: &'a str) -> Option<(bool, &'a str)> {
        if self.path.is_empty() {
            return Some((short, name));
        }
        let path = match self.path.strip_prefix(LIBRARY).filter(|_| short) {
            Some("") => return Some((false, name)),
            Some(rest) => rest.strip_prefix('/')?,
            None if short => return None,
            None => &self.path,
        };
        let rest = name.strip_prefix(path)?;
        if rest.is_empty() { Some((false, rest)) } else { Some((false, rest.strip_prefix('/')?)) }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.registry)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

/// What clients should do when a route fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Ask the source itself at once.
    #[default]
    Fallback,
    /// Fail, and retry here; never ask the source.
    Closed,
}

/// How a client gets the content of a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blobs {
    /// From storage, by the registry's redirect, which is passed on unchanged.
    #[default]
    Redirect,
    /// Layers as with [`Self::Redirect`], an image's configuration through the proxy, which then keeps it.
    ProxyConfig,
    /// Through the proxy, for clients that cannot reach the storage.
    Proxy,
}

impl Blobs {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Redirect, Self::ProxyConfig, Self::Proxy];

    /// As settings name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::ProxyConfig => "proxy_config",
            Self::Proxy => "proxy",
        }
    }
}

/// One row of the table. `D` is the destination: the settings of a cache registry, or what serves its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<D> {
    /// The registry, or the part of it, that the route is for.
    pub source: Source,
    /// The path in the cache registry: the target of the cache rule.
    pub prefix: Prefix,
    /// If the request's `Host` is one of these and the client names no registry, this source is meant.
    pub hosts: Vec<String>,
    /// Where the route leads.
    pub destination: D,
}

/// The table of routes, each with its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes<D> {
    /// The longest paths first.
    routes: Vec<Route<D>>,
    default: Option<String>,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Choice<'a, D> {
    /// The route that covers it.
    pub route: &'a Route<D>,
    /// The repository in the cache registry.
    pub repository: Repository<'a>,
}

/// There is no route. Holds the registry that was asked for, if one was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrouted<'a>(pub Option<&'a str>);

impl<D> Routes<D> {
    /// `default` is the registry that is meant where none is named; without it such requests have no route.
    pub fn new(mut routes: Vec<Route<D>>, default: Option<String>) -> Self {
        routes.sort_by_key(|route| std::cmp::Reverse(route.source.path.len()));
        Self { routes, default }
    }

    /// Every route, the longest paths first.
    pub fn iter(&self) -> impl Iterator<Item = &Route<D>> {
        self.routes.iter()
    }

    /// The same routes with other destinations, made in order from their sources and these. The first error ends it.
    pub fn try_map<T, E>(&self, mut destination: impl FnMut(&Source, &D) -> Result<T, E>) -> Result<Routes<T>, E> {
        let route = |route: &Route<D>| {
            Ok(Route {
                source: route.source.clone(),
                prefix: route.prefix.clone(),
                hosts: route.hosts.clone(),
                destination: destination(&route.source, &route.destination)?,
            })
        };
        let routes = self.routes.iter().map(route).collect::<Result<_, E>>()?;
        Ok(Routes { routes, default: self.default.clone() })
    }

    /// The registry that is meant where none is named.
    pub fn default_registry(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// The route of a request: by its `ns`, else by a leading path segment that names a registry, else by the `Host` that
    /// was addressed, else the default; then by the longest path that covers the name.
    pub fn choose<'a>(&'a self, pull: &'a Pull<'_>, host: Option<&str>) -> Result<Choice<'a, D>, Unrouted<'a>> {
        self.choose_name(pull.name, pull.namespace.as_deref(), host)
    }

    /// The same by a name and the registry that is named beside it.
    pub fn choose_name<'a>(
        &'a self,
        name: Name<'a>,
        namespace: Option<&'a str>,
        host: Option<&str>,
    ) -> Result<Choice<'a, D>, Unrouted<'a>> {
        let name = name.as_str();
        let leading = name.split_once('/').filter(|(first, _)| names_a_registry(first));
        let (registry, name) = match (namespace, leading) {
            // A mirror with a path, asked by a client that says `ns` as well.
            (Some(namespace), Some((first, rest))) if same_registry(namespace, first) => (namespace, rest),
            (Some(namespace), _) => (namespace, name),
            (None, Some(leading)) => leading,
            (None, None) => {
                let addressed = host.and_then(|host| self.addressed_as(host)).or(self.default.as_deref());
                (addressed.ok_or(Unrouted(None))?, name)
            }
        };
        let registry = known_as(registry);
        let short = registry == DOCKER_HUB && !name.contains('/');
        let covering = self.routes.iter().find_map(|route| {
            if !route.source.registry.eq_ignore_ascii_case(registry) {
                return None;
            }
            let (library, rest) = route.source.strip(short, name)?;
            let repository = Repository::new(route.prefix.as_str(), library, rest);
            (!repository.is_empty()).then_some(Choice { route, repository })
        });
        covering.ok_or(Unrouted(Some(registry)))
    }

    /// The registry that a host stands for: with its port, else without.
    fn addressed_as(&self, host: &str) -> Option<&str> {
        let registry = |host: &str| {
            let is_it = |known: &String| known.eq_ignore_ascii_case(host);
            self.routes.iter().find(|route| route.hosts.iter().any(is_it)).map(|route| route.source.registry())
        };
        registry(host).or_else(|| match authority::split(host) {
            (host, Some(_)) => registry(host),
            (_, None) => None,
        })
    }
}

/// Docker Hub by its usual name, others by their own.
pub(crate) fn known_as(registry: &str) -> &str {
    if DOCKER_HUB_HOSTS.iter().any(|alias| alias.eq_ignore_ascii_case(registry)) { DOCKER_HUB } else { registry }
}

fn same_registry(a: &str, b: &str) -> bool {
    known_as(a).eq_ignore_ascii_case(known_as(b))
}

/// As image references tell a registry from a repository's first part: by a dot or a port, or as `localhost`.
pub(crate) fn names_a_registry(text: &str) -> bool {
    let (host, port) = authority::split(text);
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let meant = host.contains('.') || port.is_some() || host == "localhost";
    meant && host.split('.').all(label) && port.is_none_or(|port| authority::port(port).is_some())
}

/// The property that the tests below and the fuzzer check.
#[cfg(any(test, feature = "round-trip"))]
pub mod round_trip;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use http::Method;
    use proptest::prelude::*;

    fn route(source: &str, prefix: &str, hosts: &[&str]) -> Route<()> {
        Route {
            source: Source::parse(source).expect("a source"),
            prefix: Prefix::parse(prefix).expect("a prefix"),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            destination: (),
        }
    }

    fn table() -> Routes<()> {
        let routes = vec![
            route("docker.io", "hub", &[]),
            route("docker.io/bitnami", "vendors/bitnami", &[]),
            route("docker.io/library/nginx", "pinned/nginx", &[]),
            route("ghcr.io", "ghcr", &["ghcr.mirror.example", "127.0.0.1:9090"]),
            route("quay.io/prometheus", "prom", &["127.0.0.1"]),
            route("registry.example:5000", "own", &[]),
        ];
        Routes::new(routes, Some(DOCKER_HUB.to_owned()))
    }

    /// The repository that a request for a name reaches, or the registry that has no route.
    fn chosen(routes: &Routes<()>, name: &str, namespace: &str, host: &str) -> Result<String, Option<String>> {
        let (path, query) = (format!("/v2/{name}/manifests/latest"), format!("ns={namespace}"));
        let Ok(Request::Pull(pull)) = Request::parse(&Method::GET, &path, Some(&query)) else { panic!("{path}") };
        match routes.choose(&pull, Some(host)) {
            Ok(choice) => {
                let mut text = String::new();
                choice.repository.push_to(&mut text);
                Ok(text)
            }
            Err(Unrouted(registry)) => Err(registry.map(str::to_owned)),
        }
    }

    #[test]
    fn ns_then_the_path_then_the_host_then_the_default_name_the_registry_and_the_longest_path_wins() {
        for (name, namespace, host, expected) in [
            ("library/busybox", "", "", Ok("hub/library/busybox")),
            ("busybox", "", "", Ok("hub/library/busybox")),
            ("busybox", "docker.io", "", Ok("hub/library/busybox")),
            ("busybox", "index.docker.io", "", Ok("hub/library/busybox")),
            ("docker.io/busybox", "", "", Ok("hub/library/busybox")),
            ("docker.io/library/busybox", "docker.io", "", Ok("hub/library/busybox")),
            ("org/app", "ghcr.io", "", Ok("ghcr/org/app")),
            ("org/app", "GHCR.io", "", Ok("ghcr/org/app")),
            ("ghcr.io/org/app", "", "", Ok("ghcr/org/app")),
            ("ghcr.io/org/app", "ghcr.io", "", Ok("ghcr/org/app")),
            // What another registry holds under that name.
            ("ghcr.io/org/app", "docker.io", "", Ok("hub/ghcr.io/org/app")),
            ("org/app", "", "ghcr.mirror.example", Ok("ghcr/org/app")),
            ("org/app", "", "GHCR.mirror.example:8080", Ok("ghcr/org/app")),
            ("org/app", "", "127.0.0.1:9090", Ok("ghcr/org/app")),
            ("org/app", "", "localhost:8080", Ok("hub/org/app")),
            ("prometheus/node", "", "127.0.0.1:8080", Ok("prom/node")),
            ("prometheus/node", "", "127.0.0.1", Ok("prom/node")),
            ("other/node", "", "127.0.0.1", Err(Some("quay.io"))),
            ("org/app", "docker.io", "ghcr.mirror.example", Ok("hub/org/app")),
            ("app", "ghcr.io", "", Ok("ghcr/app")),
            ("bitnami/redis", "", "", Ok("vendors/bitnami/redis")),
            ("bitnamix/redis", "", "", Ok("hub/bitnamix/redis")),
            ("nginx", "", "", Ok("pinned/nginx")),
            ("library/nginx", "", "", Ok("pinned/nginx")),
            ("library/nginx/x", "", "", Ok("pinned/nginx/x")),
            ("nginxx", "", "", Ok("hub/library/nginxx")),
            ("prometheus/node", "quay.io", "", Ok("prom/node")),
            ("x/y", "registry.example:5000", "", Ok("own/x/y")),
            ("other/x", "quay.io", "", Err(Some("quay.io"))),
            ("x/y", "registry.example", "", Err(Some("registry.example"))),
            ("gcr.io/x/y", "", "", Err(Some("gcr.io"))),
            ("x", "registry.k8s.io", "", Err(Some("registry.k8s.io"))),
            // Not a registry: there is nothing behind it.
            ("my.app", "", "", Ok("hub/library/my.app")),
        ] {
            let expected = expected.map(str::to_owned).map_err(|registry: Option<&str>| registry.map(str::to_owned));
            assert_eq!(chosen(&table(), name, namespace, host), expected, "{name} ns={namespace} host={host}");
        }
    }

    #[test]
    fn without_a_default_a_name_alone_has_no_route() {
        let routes = Routes::new(vec![route("ghcr.io", "", &[])], None);
        assert_eq!(chosen(&routes, "library/busybox", "", ""), Err(None));
        assert_eq!(chosen(&routes, "org/app", "ghcr.io", ""), Ok("org/app".to_owned()));
    }

    #[test]
    fn a_whole_path_with_nothing_to_put_in_its_place_has_no_route() {
        let routes = Routes::new(vec![route("quay.io/org", "", &[])], None);
        assert_eq!(chosen(&routes, "org", "quay.io", ""), Err(Some("quay.io".to_owned())));
        assert_eq!(chosen(&routes, "org/app", "quay.io", ""), Ok("app".to_owned()));
    }

    #[test]
    fn a_source_is_a_registry_and_perhaps_a_path() {
        for (text, expected) in [
            ("docker.io", Some("docker.io")),
            ("index.docker.io/library", Some("docker.io/library")),
            ("GHCR.io/org", Some("ghcr.io/org")),
            ("registry.example:5000", Some("registry.example:5000")),
            ("localhost", Some("localhost")),
            ("hub", None),
            ("https://ghcr.io", None),
            ("ghcr.io/", None),
            ("ghcr.io/Org", None),
            ("ghcr.io/*", None),
            ("ghcr..io", None),
            ("", None),
        ] {
            assert_eq!(Source::parse(text).ok().map(|source| source.to_string()).as_deref(), expected, "{text}");
        }
    }

    /// Routes of every shape: paths within paths, empty prefixes, hosts, with a default and without.
    fn tables() -> impl Strategy<Value = Routes<()>> {
        let source = (
            prop::sample::select(vec!["docker.io", "ghcr.io", "quay.io", "a.io", "registry.example:5000"]),
            prop::sample::select(vec!["", "", "", "/library", "/library/nginx", "/nginx", "/a", "/a/b", "/org"]),
        );
        let prefix = prop_oneof![Just(String::new()), "[a-z]{1,3}([._-][a-z]{1,2})?(/(library|[a-z]{1,3})){0,2}"];
        let host = prop::sample::select(vec!["m.example", "m.example:8080", "127.0.0.1"]);
        let row = (source, prefix, prop::option::of(host))
            .prop_map(|((registry, path), prefix, host)| route(&format!("{registry}{path}"), &prefix, host.as_slice()));
        let default = prop::option::of(prop::sample::select(vec!["docker.io", "ghcr.io"]));
        (prop::collection::vec(row, 4..10), default)
            .prop_map(|(routes, default)| Routes::new(routes, default.map(str::to_owned)))
    }

    /// Paths and queries that are requests more often than not.
    fn requests() -> impl Strategy<Value = (String, String)> {
        let name =
            "((docker|ghcr|quay|a|gcr)\\.io/)?[a-z0-9]{1,4}([._-][a-z0-9]{1,3})?(/(library|nginx|org|[a-z]{1,4})){0,3}";
        let rest = prop_oneof![
            "manifests/[a-zA-Z0-9_][a-zA-Z0-9._-]{0,9}",
            "(manifests|blobs|referrers)/sha256(:|%3A|%3a)[a-f0-9]{64}",
            "blobs/a%2[bB]b:[a-zA-Z0-9=_-]{1,9}",
            Just("tags/list".to_owned()),
        ];
        let query = "(ns=(docker|index\\.docker|ghcr|quay|a|gcr)\\.io&)?(n=[0-9]{1,3}&)?(last=[a-z0-9]{1,5}&)?\
            (artifactType=a/[a-z]{1,5}%2Bjson&)?([a-zA-Z$]{1,5}=[a-zA-Z0-9/%+.=-]{0,8})?";
        (name, rest, query).prop_map(|(name, rest, query)| (format!("/v2/{name}/{rest}"), query))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_round_trip_ends_where_it_began(
            routes in tables(),
            (path, query) in requests(),
            host in prop::sample::select(vec!["", "m.example", "m.example:8080", "m.example:1", "127.0.0.1:1"]),
        ) {
            round_trip::check(&routes, &path, Some(&query), Some(host));
        }

        #[test]
        fn no_name_gets_out_of_its_routes_prefix(
            name in "([a-z0-9]{1,4}\\.io/)?[a-z0-9]{1,4}([._-][a-z0-9]{1,3})?(/(library|nginx|bitnami|[a-z]{1,4})){0,3}",
            namespace in prop::sample::select(vec!["", "docker.io", "ghcr.io", "quay.io", "gcr.io"]),
        ) {
            if let Ok(repository) = chosen(&table(), &name, namespace, "") {
                let prefixes = ["hub", "vendors/bitnami", "pinned/nginx", "ghcr", "prom", "own"];
                let below = |prefix: &&str| {
                    repository.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                prop_assert!(prefixes.iter().any(below), "{} -> {}", name, repository);
                prop_assert!(Name::parse(&repository).is_some(), "{} -> {}", name, repository);
            }
        }
    }

    #[test]
    fn requests_of_the_property_are_most_often_routed() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut routed = 0;
        for _ in 0..500 {
            let one = (tables(), requests()).new_tree(&mut runner).expect("a value");
            let (routes, (path, query)) = prop::strategy::ValueTree::current(&one);
            routed += usize::from(round_trip::check(&routes, &path, Some(&query), Some("m.example")));
        }
        assert!(routed > 100, "a property of nothing: {routed} of 500");
    }
}
