//! What becomes of a request: the answer of its server, or what an injected fault makes of it.

use crate::answer::Answer;
use crate::fault::Fault;
use crate::payload::Delivery;
use crate::record::{Hop, Server};
use crate::request::Request;
use crate::script::Kind;
use crate::state::State;
use crate::token::Expiry;
use crate::{entra, identity, registry, storage};

/// What happens to the connection of a request that gets no answer.
pub(crate) enum NoAnswer {
    Hang,
    Close,
    Reset,
}

/// The answer of the server, unless `fault` changes or prevents it.
pub(crate) fn outcome(
    fault: Option<Fault>,
    server: Server,
    hop: Hop,
    state: &State,
    request: &Request,
) -> Result<(Answer, Delivery), NoAnswer> {
    let correct = |expiry| match server {
        Server::Entra => entra::answer(state, request, expiry),
        Server::Registry => registry::answer(state, request, expiry),
        Server::Storage => storage::answer(state, request),
        Server::Identity => identity::answer(state, request, expiry),
    };
    let Some(fault) = fault else {
        return Ok((correct(Expiry::Stated), Delivery::Whole));
    };
    let whole = |answer| Ok((answer, Delivery::Whole));
    match fault {
        Fault::Status(status) => whole(failure(state, hop, status, request)),
        Fault::StatusWith { status, headers, body } => {
            let answer = Answer::new(status).body(body);
            let answer = headers.iter().fold(answer, |answer, (name, value)| answer.header(name, value));
            let (is_chunked, is_last) = (answer.has("transfer-encoding"), answer.has("connection"));
            let answer = if is_chunked || is_last { answer.chunked() } else { answer };
            Ok((answer, if is_last { Delivery::UntilClose } else { Delivery::Whole }))
        }
        Fault::Throttled(left) => whole(registry::throttled(request, left)),
        Fault::CacheRule(status) => whole(registry::cache_rule_failure(state, status, request)),
        Fault::RefuseConnections => Err(NoAnswer::Reset),
        Fault::ResetMidBody => Ok((correct(Expiry::Stated), Delivery::Reset)),
        Fault::Hang => Err(NoAnswer::Hang),
        Fault::GarbageJson => whole(
            Answer::new(200)
                .header("Content-Type", "application/json; charset=utf-8")
                .body("{\"access_token\":\"eyJ, \"refresh_token\":"),
        ),
        Fault::HugeBody => {
            Ok((Answer::new(200).header("Content-Type", "application/json; charset=utf-8"), Delivery::Huge))
        }
        Fault::SlowDrip => Ok((correct(Expiry::Stated), Delivery::Drip)),
        Fault::WrongContentType => {
            let mut answer = correct(Expiry::Stated);
            answer.set_header("Content-Type", "text/html");
            whole(answer)
        }
        Fault::TokenWithoutExp => whole(correct(Expiry::Unstated)),
        Fault::TokenExpired => whole(correct(Expiry::Past)),
        Fault::DieBeforeResponse => Err(NoAnswer::Close),
        Fault::CutBody(after) => Ok((correct(Expiry::Stated), Delivery::Cut(after))),
        Fault::Challenge401 => whole(registry::challenge(state, request)),
        Fault::Chunked => whole(correct(Expiry::Stated).chunked()),
        Fault::UntilClose => Ok((correct(Expiry::Stated).chunked(), Delivery::UntilClose)),
        Fault::Gzip => whole(correct(Expiry::Stated).gzip()),
        Fault::PauseMidBody(pause) => Ok((correct(Expiry::Stated), Delivery::Pause(pause))),
        Fault::DripHead => Ok((correct(Expiry::Stated), Delivery::Script(Kind::DripHead))),
        Fault::Interim(status) => Ok((correct(Expiry::Stated), Delivery::Script(Kind::Interim(status)))),
        Fault::InterimThenClose(status) => {
            Ok((correct(Expiry::Stated), Delivery::Script(Kind::InterimThenClose(status))))
        }
        Fault::InterimForever(status) => Ok((correct(Expiry::Stated), Delivery::Script(Kind::InterimForever(status)))),
        Fault::Surplus(more) => Ok((correct(Expiry::Stated), Delivery::Script(Kind::Surplus(more)))),
        Fault::Coding(coding) => Ok((correct(Expiry::Stated), Delivery::Script(Kind::Coding(coding)))),
        Fault::NotHttp => Ok((correct(Expiry::Stated), Delivery::Script(Kind::NotHttp))),
        Fault::Raw(bytes) => {
            let sent = request.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let bytes = bytes.replace("{token}", sent.trim_start_matches("Bearer "));
            Ok((correct(Expiry::Stated), Delivery::Script(Kind::Raw(bytes))))
        }
        Fault::SwitchProtocols => Ok((correct(Expiry::Stated), Delivery::Script(Kind::SwitchProtocols))),
    }
}

/// The error answer that the hop itself would give with this status.
fn failure(state: &State, hop: Hop, status: u16, request: &Request) -> Answer {
    match hop {
        Hop::Entra => entra::failure(state, status),
        Hop::Imds => identity::failure(status),
        Hop::Exchange | Hop::Token | Hop::Data => registry::failure(state, status, request),
        Hop::Storage => storage::failure(state, status),
    }
}
