//! An error of Entra ID: its OAuth code, its AADSTS number and its message.

/// An error as Entra words it.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error: &'static str,
    pub(super) code: u32,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, error: &'static str, code: u32, message: impl Into<String>) -> Refusal {
        Refusal { status, error, code, message: message.into() }
    }

    pub(super) fn missing(field: &str) -> Refusal {
        let message = format!("The request body must contain the following parameter: '{field}'.");
        Refusal::new(400, "invalid_request", 900_144, message)
    }
}
