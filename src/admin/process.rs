//! What the kernel counts of this process, by proc(5) and under the names that every client library of Prometheus uses.

use nix::sys::resource::{Resource, getrlimit};

/// The unit of times in `/proc`, which Linux fixes for programs on every architecture that this one is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What there is to tell; `None` where `/proc` does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// In user mode and in the kernel, in seconds.
    pub cpu: Option<f64>,
    /// Bytes.
    pub resident: Option<u64>,
    /// Bytes.
    pub size: Option<u64>,
    pub threads: Option<u64>,
    pub descriptors: Option<u64>,
    pub max_descriptors: Option<u64>,
    /// Seconds since 1970.
    pub start: Option<f64>,
}

impl Process {
    /// This one, now.
    pub(super) fn read() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        // The one with which the directory is read is not counted.
        let open = std::fs::read_dir("/proc/self/fd").map(|entries| (entries.count() as u64).saturating_sub(1));
        Self {
            descriptors: open.ok(),
            max_descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            ..parse(&read("self/stat"), &read("self/status"), &read("stat"))
        }
    }
}

fn parse(stat: &str, status: &str, system: &str) -> Process {
    // The name in parentheses may have blanks and parentheses itself.
    let fields: Vec<_> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    // Numbered as in proc(5); the third is the first behind the name.
    let seconds = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    let line = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let boot = line(system, "btime ").map(|boot| boot as f64);
    Process {
        cpu: seconds(14).zip(seconds(15)).map(|(user, system)| user + system),
        start: boot.zip(seconds(22)).map(|(boot, since)| boot + since),
        threads: line(status, "Threads:"),
        size: line(status, "VmSize:").map(|kilobytes| kilobytes << 10),
        resident: line(status, "VmRSS:").map(|kilobytes| kilobytes << 10),
        ..Process::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_proc_5() {
        let stat = "42 (a) b) R 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 5 0 1000 8192000 300";
        let status = "Name:\ta) b\nVmSize:\t    8000 kB\nVmRSS:\t    1200 kB\nThreads:\t5\n";
        let process = parse(stat, status, "cpu 1 2\nbtime 1700000000\n");
        assert_eq!((process.cpu, process.threads, process.start), (Some(3.0), Some(5), Some(1_700_000_010.0)));
        assert_eq!((process.size, process.resident), (Some(8000 << 10), Some(1200 << 10)));
        assert!(parse("", "", "").cpu.is_none());
    }

    #[test]
    fn this_process_is_told_of() {
        let process = Process::read();
        assert!(
            process.resident.is_some_and(|bytes| bytes > 1 << 20) && process.descriptors.is_some_and(|open| open > 2)
        );
        assert!(process.start.is_some_and(|start| start > 1.6e9) && process.max_descriptors.is_some());
    }
}
