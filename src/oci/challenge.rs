//! What a registry says of who may ask: `WWW-Authenticate: Bearer realm="…",service="…"` (RFC 9110 section 11.6.1, and
//! the distribution project's token authentication).

/// A bearer challenge, taken apart. Whether its realm may be asked is for the caller to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// Where a token is to be had.
    pub realm: &'a str,
    /// What the token is for.
    pub service: &'a str,
}

impl<'a> Challenge<'a> {
    /// The error says what is missing.
    pub fn parse(header: &'a str) -> Result<Self, &'static str> {
        let parameters = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, parameters)| parameters)
            .ok_or("the challenge is not for a bearer token")?;
        let realm = parameter(parameters, "realm").ok_or("the challenge names no realm")?;
        let service = parameter(parameters, "service").ok_or("the challenge names no service")?;
        Ok(Self { realm, service })
    }
}

/// A parameter's value, quoted or not; a comma in quotes ends nothing.
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
