//! Runs the command that the arguments name, and gives its exit status.

use std::io::{self, Write as _};
use std::process::ExitCode;

use log::warn;
use oci::printable;

use crate::cli::{self, Command, Serve};
use crate::serve::{self, ServeError};
use crate::{check, client_config, control, init, logger};

/// A command that fails; a wrong flag or setting has a status of its own, [`cli::WRONG`].
const FAILED: u8 = 1;

/// Reads the arguments of this process, runs the command, and returns when it has ended.
pub fn run() -> ExitCode {
    logger::tell_of_panics();
    let outcome = match cli::parse(std::env::args_os()) {
        Ok(Command::Serve(flags)) => serve(*flags),
        Ok(Command::Reload(pid)) => reload(pid).map_err(|cause| (FAILED, cause)),
        Ok(Command::Check(check)) => {
            let (options, flags) = *check;
            return ExitCode::from(check::run(&options, || cli::read_to_check(&flags)));
        }
        Ok(Command::Doctor(doctor)) => {
            let (options, flags) = *doctor;
            match crate::doctor::run(&options, || cli::read_for_service(&flags)) {
                Ok(status) => return ExitCode::from(status),
                Err(wrong) => Err((cli::WRONG, wrong)),
            }
        }
        Ok(Command::Init(options)) => return ExitCode::from(init::run(&options)),
        #[cfg(feature = "demo")]
        Ok(Command::Demo(options)) => crate::demo::run(&options).map_err(|cause| (FAILED, cause)),
        Ok(Command::ClientConfig(task)) => client_config::run(&task).map_err(|cause| (FAILED, cause)),
        Ok(Command::Warm(options)) => crate::warm::run(&options),
        Ok(Command::Generate(directory)) => cli::generate(&directory).map_err(|cause| (FAILED, cause)),
        #[cfg(feature = "bench")]
        Ok(Command::Bench(options, target)) => crate::bench::run(&options, &target).map_err(|cause| (FAILED, cause)),
        Err(exit) if exit.to_stdout => {
            // The reader may have closed it, as `head` does.
            let _ = write!(io::stdout(), "{}", exit.message);
            return ExitCode::from(exit.status);
        }
        Err(exit) => Err((exit.status, exit.message)),
    };
    log::logger().flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, message)) => {
            logger::complain(&message);
            ExitCode::from(status)
        }
    }
}

/// Serves until a signal ends it. The error has its exit status.
fn serve(Serve { config, flags, warnings, exit_with_stdin }: Serve) -> Result<(), (u8, String)> {
    if exit_with_stdin {
        exit_when_stdin_ends();
    }
    // Where the kernel gives huge pages to all, a heap of 4 MiB takes 16. An error is that it gives none.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
    logger::start(config.log());
    for warning in warnings {
        warn!("{warning}");
    }
    let source = Box::new(move || cli::read_again(&flags));
    serve::serve(&config, source).map_err(|cause| {
        let status = if matches!(cause, ServeError::Setting(_)) { cli::WRONG } else { FAILED };
        (status, cause.to_string())
    })
}

/// Prints what a running proxy says.
fn reload(pid: Option<u32>) -> Result<(), String> {
    let said = control::reload(pid)?;
    // If standard output is closed, the exit status still tells.
    let _ = writeln!(io::stdout(), "{}", printable::lines(&said));
    Ok(())
}

/// Ends this process at once when standard input ends. If it is a pipe, that is when the parent process ends, in whatever way.
fn exit_when_stdin_ends() {
    std::thread::spawn(|| {
        // Nothing is expected on it; an error means the same as the end.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        log::logger().flush();
        std::process::exit(0);
    });
}
