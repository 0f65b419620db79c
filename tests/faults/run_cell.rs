//! One cell of the table: sets the fault, pulls, and compares what the client saw.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use acr_emulator::{Emulator, Fault, Hop, Image, Options, Recorded, Server};
use tokio::runtime::Handle;

use crate::cell::{Cell, Moment, Outcome, Retry};
use crate::client::Client;
use crate::secrets;
use testkit::{PATIENCE, Proxy, Setup};

/// What a cell asks for: its body is short enough to drip to its end.
const LOOK: &str = "/v2/library/busybox/tags/list";
/// What clients under load pull.
const PULL: &str = "/v2/library/busybox/manifests/latest";
const CLIENTS: usize = 2;
/// Each client's rate under load; full load is the soak's.
const PACE: Duration = Duration::from_millis(50);
/// Answers that each client sees of a fault under load.
const ANSWERS: usize = 5;

/// The fault that a row of the table names.
pub(crate) fn fault(name: &str) -> Option<Fault> {
    let with = |status, headers: &[(&str, &str)], body: &str| Fault::StatusWith {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.to_owned(),
    };
    Some(match name {
        "connection refused" => Fault::RefuseConnections,
        "reset mid-body" => Fault::ResetMidBody,
        "hang" => Fault::Hang,
        "403 with empty body" => with(403, &[], ""),
        "429 with Retry-After" => with(
            429,
            &[("Retry-After", "7"), ("Content-Type", "application/json")],
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}],"error":"too_many_requests"}"#,
        ),
        "garbage JSON" => Fault::GarbageJson,
        "huge body" => Fault::HugeBody,
        "slow drip" => Fault::SlowDrip,
        "wrong content type" => Fault::WrongContentType,
        "token without exp" => Fault::TokenWithoutExp,
        "token already expired" => Fault::TokenExpired,
        status => Fault::Status(status.parse().ok()?),
    })
}

/// An emulator of Azure and a proxy in front of it, for one cell.
struct Stage<'a> {
    runtime: &'a Handle,
    cell: &'a Cell,
    azure: Emulator,
    /// A blob of the image, whose redirect carries a signature.
    blob: String,
    requests: Vec<Recorded>,
}

/// Runs a cell. `Err` says what was seen instead.
pub(crate) fn cell(runtime: &Handle, cell: &Cell) -> Result<(), String> {
    let fault = fault(&cell.fault).ok_or("the emulator has no such fault")?;
    let mut stage = Stage::new(runtime, cell);
    let proxy = match cell.moment {
        Moment::Start => stage.at_start(fault)?,
        Moment::FirstRefresh | Moment::Load => stage.at_refresh(fault)?,
    };
    stage.requests.extend(stage.azure.take_requests());
    match secrets::in_log(&proxy.end(), &stage.requests) {
        Some(secret) => Err(format!("a secret is in the log: {secret}")),
        None => Ok(()),
    }
}

impl<'a> Stage<'a> {
    fn new(runtime: &'a Handle, cell: &'a Cell) -> Self {
        let options =
            Options { identity_listen: (cell.hop == Hop::Imds).then(|| ([127, 0, 0, 1], 0).into()), ..lifetimes(cell) };
        let azure = runtime.block_on(Emulator::start(options)).expect("the emulator starts");
        let pushed = azure.push(Image::small("hub/library/busybox", "latest"));
        let blob = format!("/v2/library/busybox/blobs/{}", pushed.blobs[0]);
        Self { runtime, cell, azure, blob, requests: Vec::new() }
    }

    fn start(&self) -> Proxy {
        let setup = Setup::new(&self.azure).cache("off");
        match self.azure.identity_addr() {
            None => setup,
            Some(_) => setup.managed(&self.azure),
        }
        .start()
    }

    fn inject(&mut self, fault: Fault) {
        self.requests.extend(self.azure.take_requests());
        match (self.cell.hop, &fault) {
            // The one hop that has a connection of its own to be refused.
            (Hop::Data, Fault::RefuseConnections) => self.azure.refuse_connections(Server::Registry, true),
            (hop, _) => self.azure.inject(hop, fault),
        }
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Recorded) -> bool) -> Result<(), String> {
        self.wait_until(what, |requests| requests.iter().any(&condition))
    }

    /// Waits for requests, with a limit that only a broken test reaches.
    fn wait_until(&self, what: &str, condition: impl Fn(&[Recorded]) -> bool) -> Result<(), String> {
        let waited = self.azure.wait_for(condition);
        let waited = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, waited).await });
        waited.map_err(|_| format!("{what} never came"))
    }

    /// The renewal that the fault is for has met it.
    fn met(&self, fault: &Fault, proxy: &Proxy) -> Result<(), String> {
        let unheard = *fault == Fault::RefuseConnections && matches!(self.cell.hop, Hop::Imds | Hop::Entra);
        if unheard {
            // What is refused before it is a request leaves no record.
            proxy.wait_for_log(" WARN ");
            return Ok(());
        }
        self.wait_for("the renewal", |request| request.hop == self.cell.hop)
    }

    fn at_start(&mut self, fault: Fault) -> Result<Proxy, String> {
        if self.cell.hop != Hop::Data {
            self.inject(fault.clone());
        }
        let proxy = self.start();
        let mut client = Client::new(proxy.address());
        if self.cell.hop == Hop::Data {
            look(&mut client, PULL, &pulled())?;
            self.inject(fault);
        }
        look(&mut client, LOOK, &self.cell.expected)?;
        if self.cell.expected.retry_after != Retry::After(30) {
            self.azure.clear_faults();
            match self.cell.hop {
                Hop::Data => look(&mut client, &self.blob, &redirect())?,
                _ => self.recovered(&mut client)?,
            }
        }
        Ok(proxy)
    }

    /// The proxy signs in by itself, and the next pull succeeds. A call that met the fault may still be under way.
    fn recovered(&self, client: &mut Client) -> Result<(), String> {
        let mut seen = 0;
        loop {
            let tokens = |requests: &[Recorded]| requests.iter().filter(|request| is_token(request)).count();
            self.wait_until("a token", |requests| tokens(requests) > seen)?;
            seen = tokens(&self.azure.requests());
            if look(client, &self.blob, &no_token()).is_err() {
                return look(client, &self.blob, &redirect());
            }
        }
    }

    fn at_refresh(&mut self, fault: Fault) -> Result<Proxy, String> {
        let proxy = self.start();
        let mut client = Client::new(proxy.address());
        look(&mut client, PULL, &pulled())?;
        look(&mut client, &self.blob, &redirect())?;
        if self.cell.hop == Hop::Data {
            // A renewal takes place, and that it succeeds changes nothing for the data hop.
            self.requests.extend(self.azure.take_requests());
            self.wait_for("the renewal", is_token)?;
            self.inject(fault);
            return self.under(&proxy, |stage, _| look(&mut client, LOOK, &stage.cell.expected)).map(|()| proxy);
        }
        self.inject(fault.clone());
        self.under(&proxy, |stage, answers| {
            stage.met(&fault, &proxy)?;
            look(&mut client, LOOK, &stage.cell.expected)?;
            answers(ANSWERS)?;
            // What did no harm needs no recovery, and what will not mend by itself is asked for again half a minute
            // later: longer than these tokens live.
            if stage.cell.at_start.status == 503 && stage.cell.at_start.retry_after != Retry::After(30) {
                stage.azure.clear_faults();
                stage.azure.clear_requests();
                let hop = if stage.cell.hop == Hop::Token { Hop::Token } else { Hop::Exchange };
                stage.wait_for("the recovery", |request| request.hop == hop && request.status == 200)?;
                answers(1)?;
            }
            look(&mut client, &stage.blob, &redirect())
        })?;
        Ok(proxy)
    }

    /// Runs `act`, under load if the cell says so: clients that pull all the time and must see what the cell says.
    /// `act` is given a way to wait until each of them has seen so many more answers.
    fn under(
        &self,
        proxy: &Proxy,
        act: impl FnOnce(&Self, &dyn Fn(usize) -> Result<(), String>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.cell.moment != Moment::Load {
            return act(self, &|_| Ok(()));
        }
        let path = if self.cell.hop == Hop::Data { LOOK } else { PULL };
        let (done, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; CLIENTS]);
        std::thread::scope(|scope| {
            let clients = counts.each_ref().map(|count| {
                let done = &done;
                scope.spawn(move || -> Result<(), String> {
                    let mut client = Client::new(proxy.address());
                    // However soon it is done, each client has seen the answer.
                    while count.load(Ordering::SeqCst) == 0 || !done.load(Ordering::SeqCst) {
                        look(&mut client, path, &self.cell.expected)?;
                        count.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(PACE);
                    }
                    Ok(())
                })
            });
            let answers = |more: usize| {
                let goals = counts.each_ref().map(|count| count.load(Ordering::SeqCst) + more);
                while counts.iter().zip(goals).any(|(count, goal)| count.load(Ordering::SeqCst) < goal) {
                    if clients.iter().any(|client| client.is_finished()) {
                        return Err("a client gave up".to_owned());
                    }
                    std::thread::sleep(PACE);
                }
                Ok(())
            };
            let acted = act(self, &answers);
            done.store(true, Ordering::SeqCst);
            let clients = clients.map(|client| client.join().unwrap_or_else(|_| Err("a client crashed".to_owned())));
            clients.into_iter().find(Result::is_err).unwrap_or(acted)
        })
    }
}

/// Lifetimes that bring the renewal of what the hop gives near, and leave it a rest that outlasts the cell.
fn lifetimes(cell: &Cell) -> Options {
    let seconds = Duration::from_secs;
    let options = testkit::options();
    match (cell.moment, cell.hop) {
        (Moment::Start, _) => options,
        // An access token whose renewal takes its whole time limit, or a server's pause, must outlast that.
        (_, Hop::Token) if matches!(cell.fault.as_str(), "hang" | "slow drip" | "429 with Retry-After") => {
            Options { access_lifetime: seconds(40), ..options }
        }
        (_, Hop::Token) => Options { access_lifetime: seconds(18), ..options },
        (_, Hop::Data) => Options { access_lifetime: seconds(6), ..options },
        _ => Options { refresh_lifetime: seconds(6), entra_lifetime: seconds(6), ..options },
    }
}

fn is_token(request: &Recorded) -> bool {
    request.hop == Hop::Token && request.status == 200
}

fn pulled() -> Outcome {
    Outcome { status: 200, code: None, retry_after: Retry::No, cut: false, within: Duration::from_secs(10) }
}

fn redirect() -> Outcome {
    Outcome { status: 307, ..pulled() }
}

fn no_token() -> Outcome {
    Outcome { status: 503, code: Some("UNAVAILABLE".to_owned()), retry_after: Retry::After(1), ..pulled() }
}

fn look(client: &mut Client, path: &str, expected: &Outcome) -> Result<(), String> {
    let seen = client.get(path).map_err(|cause| format!("no answer: {cause}"))?;
    match expected.differs(&seen) {
        Some(seen) => Err(format!("{path}: expected {expected:?}, saw {seen}")),
        None => Ok(()),
    }
}
