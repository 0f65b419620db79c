//! The challenge of a registry's 401: `WWW-Authenticate: Bearer realm="…",service="…"` (RFC 9110 section 11.6.1, and the
//! distribution project's token authentication).

/// A parsed bearer challenge. The caller has to check whether the realm may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The URL of the token endpoint.
    pub realm: &'a str,
    /// The service that the token is for.
    pub service: &'a str,
    /// The missing access, such as `repository:<name>:pull`; several are separated by spaces.
    pub scope: Option<&'a str>,
    /// Why the token that came along was not enough, such as `insufficient_scope`.
    pub error: Option<&'a str>,
}

/// Real challenges have about 200 bytes; the name of a repository has 255 at most.
const MAX_CHALLENGE: usize = 4 << 10;

impl<'a> Challenge<'a> {
    /// The error is one sentence about what is wrong.
    pub fn parse(header: &'a str) -> Result<Self, &'static str> {
        if header.len() > MAX_CHALLENGE {
            return Err("the challenge is longer than 4 KiB");
        }
        let parameters = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, parameters)| parameters)
            .ok_or("the challenge is not for a bearer token")?;
        let realm = parameter(parameters, "realm").ok_or("the challenge names no realm")?;
        let service = parameter(parameters, "service").ok_or("the challenge names no service")?;
        Ok(Self { realm, service, scope: parameter(parameters, "scope"), error: parameter(parameters, "error") })
    }

    /// Whether the scope is exactly the pull of this repository.
    pub fn is_for_pull_of(&self, repository: &str) -> bool {
        let name = self.scope.and_then(|scope| scope.strip_prefix("repository:")?.strip_suffix(":pull"));
        name == Some(repository)
    }

    /// Whether the token was valid, but does not reach what was asked for (RFC 6750 section 3.1).
    pub fn is_too_narrow(&self) -> bool {
        self.error == Some("insufficient_scope")
    }
}

/// The value of a parameter, quoted or not. A comma inside quotes belongs to the value.
fn parameter<'a>(mut text: &'a str, wanted: &str) -> Option<&'a str> {
    loop {
        let (name, rest) = text.trim_start_matches([' ', ',']).split_once('=')?;
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_scope_for_the_pull_of_the_requested_repository_counts() {
        for (scope, counts) in [
            (r#",scope="repository:hub/x:pull""#, true),
            (r#",scope="repository:hub/x:pull",error="insufficient_scope""#, true),
            (",scope=repository:hub/x:pull", true),
            ("", false),
            (r#",scope="""#, false),
            (r#",scope="repository:hub/y:pull""#, false),
            (r#",scope="repository:*:pull""#, false),
            (r#",scope="repository:hub/x:pull,push""#, false),
            (r#",scope="repository:hub/x:push""#, false),
            (r#",scope="repository:hub/x:*""#, false),
            (r#",scope="repository:hub/x:pull repository:hub/y:pull""#, false),
            (r#",scope="registry:catalog:*""#, false),
        ] {
            let header = format!(r#"Bearer realm="https://r.example/oauth2/token",service="r.example"{scope}"#);
            let challenge = Challenge::parse(&header).expect(&header);
            assert_eq!(challenge.is_for_pull_of("hub/x"), counts, "{header}");
        }
    }

    #[test]
    fn other_schemes_incomplete_and_oversized_challenges_are_refused() {
        let long = format!(r#"Bearer realm="x",service="{}""#, "x".repeat(MAX_CHALLENGE));
        for header in ["", "Bearer", "Basic realm=\"x\"", "Bearer realm=\"x\"", "Bearer realm=\"x", long.as_str()] {
            assert!(Challenge::parse(header).is_err(), "{header}");
        }
    }
}
