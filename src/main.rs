//! Arguments -> command -> exit status.

use std::io::{self, Write as _};
use std::process::ExitCode;

use acr_cache_proxy::cli::{self, Command, Serve};
use acr_cache_proxy::serve::ServeError;
use acr_cache_proxy::{client_config, logger, serve};
use log::warn;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A start that fails is 1, and so is a file that is not written; a wrong flag or setting is 2, mostly said by [`cli`].
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let outcome = match cli::parse(std::env::args_os()) {
        Ok(Command::Serve(serve)) => {
            let Serve { config, warnings, exit_with_stdin } = *serve;
            if exit_with_stdin {
                exit_when_stdin_ends();
            }
            logger::start(config.log());
            // Not by the log, which might not show it.
            if let Some(sentence) = logger::doubt(config.log()) {
                logger::complain(&sentence);
            }
            for warning in warnings {
                warn!("{warning}");
            }
            match serve::serve(&config) {
                Err(cause @ ServeError::Setting(_)) => {
                    log::logger().flush();
                    logger::complain(&cause.to_string());
                    return ExitCode::from(cli::WRONG);
                }
                outcome => outcome.map_err(|cause| cause.to_string()),
            }
        }
        #[cfg(feature = "demo")]
        Ok(Command::Demo(options)) => acr_cache_proxy::demo::run(&options),
        Ok(Command::ClientConfig(task)) => client_config::run(&task),
        #[cfg(feature = "bench")]
        Ok(Command::Bench(options, target)) => acr_cache_proxy::bench::run(&options, &target),
        Err(exit) => {
            if exit.to_stdout {
                // Whoever reads may have left, as `head` does.
                let _ = write!(io::stdout(), "{}", exit.message);
            } else {
                logger::complain(&exit.message);
            }
            return ExitCode::from(exit.status);
        }
    };
    log::logger().flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            logger::complain(&cause);
            ExitCode::from(FAILED)
        }
    }
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
