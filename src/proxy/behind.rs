//! What a failure is told as that came about behind an egress proxy.

use pingora_core::{Error, ErrorType};

use super::fail::reason;
use crate::net::addresses::Connect;
use crate::net::tunnel::{NoTunnel, Why};

/// The same error of a connection that was to be made, or has broken. If it went through a tunnel, that becomes the cause.
pub(crate) fn told(error: Box<Error>, connect: &Connect) -> Box<Error> {
    let is_told = NoTunnel::of(&error).is_some() || matches!(error.etype(), ErrorType::InternalError);
    match connect.tunnel() {
        Some(tunnel) if !is_told => {
            let cause = tunnel.refused(Why::Behind(reason(&error)));
            let mut told = Error::because(error.etype().clone(), "through a tunnel", cause);
            (told.esource, told.retry) = (error.esource().clone(), error.retry);
            told
        }
        _ => error,
    }
}
