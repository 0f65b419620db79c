//! Where the program is.

/// The path at which cargo has built it.
pub(crate) fn binary() -> String {
    std::env::var("CARGO_BIN_EXE_acr-cache-proxy").expect("cargo tells a test where the program is")
}
