//! The accept loop of one server, and the life of each of its connections.

use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection::Connection;
use crate::handler::handle;
use crate::record::Server;
use crate::state::State;
use crate::wire::{Wire, reset};

/// Serves one listener until its task is aborted, which closes all its connections.
pub(crate) async fn serve(listener: TcpListener, server: Server, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, server, tls.clone(), Arc::clone(&state)));
                }
                // For example out of file descriptors; the open connections are still served.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, server: Server, tls: Option<TlsAcceptor>, state: Arc<State>) {
    if state.is_refusing(server) || server.only_hop().is_some_and(|hop| state.faults.refuses(hop)) {
        return reset(stream);
    }
    let mut closing = state.closing(server);
    // A small answer must not wait until the one before it is acknowledged.
    let _ = stream.set_nodelay(true);
    let connection = Arc::new(Connection::new(state.next_connection()));
    let wire = match tls {
        None => Wire::plain(stream, Arc::clone(&connection.flushes)),
        Some(tls) => tokio::select! {
            accepted = tls.accept(stream) => match accepted {
                Ok(stream) => Wire::tls(stream, Arc::clone(&connection.flushes)),
                Err(_) => return,
            },
            _ = closing.changed() => return,
        },
    };
    let service = service_fn(|request| handle(request, server, Arc::clone(&state), Arc::clone(&connection)));
    let mut serving = http1::Builder::new().title_case_headers(true).serve_connection(TokioIo::new(wire), service);
    let script = tokio::select! {
        biased;
        // First, so that no request is answered that comes after it was closed.
        _ = closing.changed() => return,
        _ = &mut serving => return,
        () = connection.reset.notified() => None,
        script = connection.script.taken() => Some(script),
    };
    let wire = serving.into_parts().io.into_inner();
    match script {
        None => wire.reset(),
        Some(script) => tokio::select! {
            () = script.run(wire) => {}
            _ = closing.changed() => {}
        },
    }
}
