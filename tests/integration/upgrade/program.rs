//! The program that is started to take a proxy's place: of which nobody knows whether it is one.

use super::{install, start_with_waiting};
use crate::wire;
use testkit::Setup;

/// A shell ran it, line by line, as the user of the proxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_program_of_this_machine_was_run_by_a_shell() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let (program, trace) = (setup.path("acr-cache-proxy"), setup.path("trace"));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_acr-cache-proxy"), &program).expect("linked");
    let mut proxy = setup.program(&program).start();
    let text = format!("echo > '{}'\n", trace.display());
    // The second one is of s390.
    let machine = format!("\x7fELF\x02\x02\x01{}\x02\0\x16\n{text}", "\0".repeat(10));
    for (number, content) in [text.as_str(), &machine, ""].into_iter().enumerate() {
        install(&program, content);
        proxy.signal("USR2");
        let says = "acr-cache-proxy: it is no program for this machine, neither as this one (ELF) nor a script (#!)";
        let told = |log: &str| (log.matches(says).count() > number).then_some(());
        proxy.wait_until("the error", told);
    }
    assert!(!proxy.log().contains("is started, and gets 30 s"), "{}", proxy.log());
    assert!(!trace.exists());
    assert!(proxy.is_running());
}

/// It had no lines of its own; and of a script without its interpreter it was said that the script is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_that_a_signal_had_ended_was_said_to_have_ended_by_itself() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let program = setup.path("acr-cache-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_acr-cache-proxy"), &program).expect("linked");
    let proxy = setup.program(&program).start();
    for (content, says) in [
        ("#!/bin/sh\nkill -KILL $$\n", " was ended by a signal, signal: 9 (SIGKILL): who sent it knows why"),
        ("#!/bin/sh\nkill -SEGV $$\n", " was ended by a signal, signal: 11 (SIGSEGV): its file may be damaged"),
        (
            "#!/bin/sh\r\n",
            ": the interpreter that its first line names is not there, or that line ends in CR LF: No such",
        ),
    ] {
        install(&program, content);
        proxy.signal("USR2");
        let line = proxy.wait_for_line(&["upgrade: this process goes on: ", says]);
        assert!(!line.contains("by itself") && !line.contains("its own lines"), "{line}");
    }
}

/// It has never been asked, and nobody is there who will.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_serves_when_the_old_one_is_killed_before_it_is_the_proxy() {
    let azure = testkit::azure().await;
    let (mut proxy, successor, go) = start_with_waiting(&azure);
    proxy.signal("KILL");
    proxy.wait();
    std::fs::write(&go, "").expect("written");
    proxy.wait_for_log("upgrade: the process that this one was to replace has ended");
    assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200);
    drop(successor);
}

/// What it had written was taken for its answers, and its word for what it did: the old process ended, and nobody served.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_that_answered_unasked_or_ended_after_its_word_left_nobody_to_serve() {
    let azure = testkit::azure().await;
    let setup = Setup::new(&azure);
    let program = setup.path("acr-cache-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_acr-cache-proxy"), &program).expect("linked");
    let proxy = setup.program(&program).start();
    // The socket by which it is asked is the last one that it gets.
    let (hear, say) = ("dd bs=64 count=1 <&$at >/dev/null 2>&1", "printf '\\n' >&$at");
    for (number, (script, says)) in [
        // It may be asked once before it has begun to write; while it writes nobody asks.
        (
            format!("kill -STOP $PPID\n{say}\n{say}\n{say}\nkill -CONT $PPID\nexec sleep 400"),
            ": it answers before it is asked",
        ),
        (format!("{hear}\n{say}\n{hear}\n{say}\nexit 0"), "does not begin to serve: "),
        (format!("{hear}\n{say}\n{hear}\n{say}\n{hear}\nexit 0"), "does not begin to serve: "),
    ]
    .into_iter()
    .enumerate()
    {
        install(&program, &format!("#!/bin/sh\nat=$((2 + LISTEN_FDS))\n{script}\n"));
        proxy.signal("USR2");
        let told = |log: &str| (log.matches("upgrade: this process goes on: process").count() > number).then_some(());
        proxy.wait_until("the error", told);
        let log = proxy.log();
        let line = log.lines().rfind(|line| line.contains("this process goes on: process")).expect("a line");
        assert!(line.contains(says), "{line}");
        assert_eq!(wire::ask(proxy.address(), "GET /v2/", "").status, 200, "{script}");
    }
    assert!(!proxy.log().contains("serves from now on"), "{}", proxy.log());
}
