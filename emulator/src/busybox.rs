//! The program with which images can be run: this machine's busybox, if it is statically linked.

use std::path::{Path, PathBuf};

/// Where busybox is on most machines, whatever the `PATH`.
const USUAL: [&str; 2] = ["/bin", "/usr/bin"];
/// The machine in an ELF header (System V ABI, the supplements of each processor).
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
/// A program header that names the loader of shared libraries.
const PT_INTERP: u32 = 3;

/// A static busybox of this machine: in `/bin`, `/usr/bin` or the `PATH`.
pub fn static_busybox() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = USUAL.map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    places.map(|directory| directory.join("busybox")).find(|file| is_static(file))
}

fn is_static(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|bytes| has_no_loader(&bytes).unwrap_or(false))
}

/// Whether this is a program for this machine that needs no dynamic loader; `None` if the file is truncated.
fn has_no_loader(elf: &[u8]) -> Option<bool> {
    let two = |at: usize| Some(u16::from_le_bytes(elf.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let four = |at: usize| Some(u32::from_le_bytes(elf.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let eight = |at: usize| Some(u64::from_le_bytes(elf.get(at..at.checked_add(8)?)?.try_into().ok()?));
    // 64 bits, the lower byte first.
    if !elf.starts_with(b"\x7fELF\x02\x01") || two(18)? != MACHINE {
        return Some(false);
    }
    let (start, size, count) = (usize::try_from(eight(32)?).ok()?, usize::from(two(54)?), usize::from(two(56)?));
    for number in 0..count {
        if four(start.checked_add(number * size)?)? == PT_INTERP {
            return Some(false);
        }
    }
    Some(count > 0)
}

#[cfg(test)]
mod tests {
    use super::{MACHINE, PT_INTERP, has_no_loader};

    /// A program with these program headers and nothing else.
    fn elf(machine: u16, headers: &[u32]) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56 * headers.len()];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18..20].copy_from_slice(&machine.to_le_bytes());
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = u8::try_from(headers.len()).expect("few");
        for (number, kind) in headers.iter().enumerate() {
            elf[64 + 56 * number..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        elf
    }

    #[test]
    fn a_program_that_needs_a_loader_is_not_static() {
        let (load, dynamic) = (1, 2);
        assert_eq!(has_no_loader(&elf(MACHINE, &[load, load])), Some(true));
        assert_eq!(has_no_loader(&elf(MACHINE, &[load, dynamic])), Some(true), "static, at any address");
        assert_eq!(has_no_loader(&elf(MACHINE, &[load, PT_INTERP])), Some(false));
        assert_eq!(has_no_loader(&elf(40, &[load])), Some(false), "of another machine");
        assert_eq!(has_no_loader(b"#!/bin/sh\n"), Some(false));
        assert_eq!(has_no_loader(&elf(MACHINE, &[load])[..60]), None);
    }

    #[test]
    fn this_machines_programs_are_told_apart() {
        // The test program itself is linked to the C library, as always.
        let this = std::env::current_exe().expect("a test program");
        assert!(cfg!(target_feature = "crt-static") || !super::is_static(&this));
    }
}
