//! The program: its allocator, and the command that its arguments name.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    acr_cache_proxy::run()
}
