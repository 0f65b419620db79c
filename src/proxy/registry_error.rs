//! An error that the registry itself has answered, for the log: the client has it as its answer.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use oci::quote::registry_error;

use super::refused::Refused;
use crate::answer::is_page_of_another;
use crate::metrics::labels::Cause;
use crate::token::Bearer;

/// Of a body that is passed on. An error says what it is in a few sentences.
const MAX_BODY: usize = 16 << 10;

/// Its status, and its body as far as it is known. Displays as one bounded line: status, and code and message of the body.
#[derive(Clone, Debug)]
pub(crate) struct RegistryError {
    status: StatusCode,
    body: Bytes,
    /// It is a page for people, and nothing says that the registry has given it.
    is_page: bool,
    /// The token in use, which the body may repeat.
    bearer: Option<Arc<Bearer>>,
}

impl RegistryError {
    /// Of an answer with this body, or the beginning of it, of a registry that is asked with this token.
    pub(crate) fn of(status: StatusCode, body: &Bytes, bearer: Option<Arc<Bearer>>) -> Self {
        Self { status, body: body.clone(), is_page: false, bearer }
    }

    /// The same, with what its header says.
    pub(crate) fn with_header(self, headers: &HeaderMap) -> Self {
        Self { is_page: is_page_of_another(headers), ..self }
    }

    /// Why the request is refused by it, as far as its sender is not to blame.
    pub(crate) fn cause(&self) -> Option<Cause> {
        // Azure says nothing by a page: its status is that of whoever has written it.
        if self.is_page { Some(Cause::Page) } else { Cause::of_registry(self.status.as_u16()) }
    }

    /// It is about the identity's right to the repository, as far as its body says.
    pub(crate) fn is_right_refused(&self) -> bool {
        Refused::of(self.status, &HeaderMap::new(), &self.body) == Some(Refused::Right)
    }

    /// Another part of a body that is passed on.
    pub(crate) fn add(&mut self, part: &Bytes) {
        let room = MAX_BODY.saturating_sub(self.body.len()).min(part.len());
        if room == 0 {
            return;
        }
        self.body = match self.body.len() {
            0 => part.slice(..room),
            _ => [&self.body, &part[..room]].concat().into(),
        };
    }
}

impl Display for RegistryError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (code, message) = registry_error(&self.body, self.bearer.as_deref().map(Bearer::sent).as_slice());
        write!(f, "the registry answers {}", self.status.as_u16())?;
        code.iter().try_for_each(|code| write!(f, " {code}"))?;
        message.iter().try_for_each(|message| write!(f, ": {message}"))?;
        if self.is_page {
            f.write_str(", with a page for people: it may be of something between this host and the registry")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: &[u8] = br#"{"errors":[{"code":"DENIED","message":"no\nright"}]}"#;

    #[test]
    fn an_error_that_is_passed_on_in_parts_says_what_it_says_as_a_whole_within_a_bound() {
        let mut error = RegistryError::of(StatusCode::FORBIDDEN, &Bytes::new(), None);
        assert_eq!(error.to_string(), "the registry answers 403");
        for part in DENIED.chunks(7) {
            error.add(&Bytes::from_static(part));
        }
        assert_eq!(error.to_string(), "the registry answers 403 DENIED: no right");
        for _ in 0..3 {
            error.add(&Bytes::from(vec![b' '; MAX_BODY]));
        }
        assert_eq!(error.body.len(), MAX_BODY);
    }
}
