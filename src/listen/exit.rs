//! A part of the process that must not end by itself.

use log::error;
use pingora_core::server::ShutdownWatch;

/// Ends the process with status 1 when it is dropped before a shutdown, by a panic too: without a listener, or with no task
/// that renews tokens, the process would look alive and serve nobody.
pub(crate) struct ExitIfDropped {
    part: &'static str,
    shutdown: ShutdownWatch,
}

impl ExitIfDropped {
    /// Held by `part`, as the log names it, for as long as it runs.
    pub(crate) fn new(part: &'static str, shutdown: ShutdownWatch) -> Self {
        Self { part, shutdown }
    }
}

impl Drop for ExitIfDropped {
    fn drop(&mut self) {
        if !*self.shutdown.borrow() {
            error!("{} ended by itself, exiting", self.part);
            log::logger().flush();
            std::process::exit(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::sync::watch;

    use super::ExitIfDropped;

    /// Set for this test program when a test runs it again, to see it end.
    const STOPPING: &str = "EXIT_IF_DROPPED_STOPPING";

    /// A part that panics, before a shutdown or during it.
    async fn part(stopping: bool) {
        let (_shutdown, watch) = watch::channel(stopping);
        let _exit = ExitIfDropped::new("a part", watch);
        panic!("as a defect does");
    }

    #[test]
    fn a_panic_ends_the_process_unless_it_is_stopping_anyway() {
        if let Ok(stopping) = std::env::var(STOPPING) {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let ended = runtime.block_on(runtime.spawn(part(stopping == "true")));
            assert!(ended.is_err_and(|cause| cause.is_panic()), "the panic was survived");
            return;
        }
        // 1 is the program's own status; 101 would be that of a failed test.
        for (stopping, status) in [("false", 1), ("true", 0)] {
            let this = std::env::current_exe().expect("a test program");
            let name = "listen::exit::tests::a_panic_ends_the_process_unless_it_is_stopping_anyway";
            let output = Command::new(this).args(["--exact", name]).env(STOPPING, stopping).output().expect("it runs");
            assert_eq!(output.status.code(), Some(status), "{stopping}: {output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), status == 0, "{output:?}");
        }
    }
}
