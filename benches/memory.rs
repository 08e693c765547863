//! How much memory this process takes.

use std::fs;

/// Resident memory of this process in bytes, as Linux tells.
///
/// # Panics
///
/// Where there is no `/proc`.
pub fn resident() -> u64 {
    resident_of(std::process::id())
}

/// Resident memory of a process in bytes.
///
/// # Panics
///
/// Where there is no `/proc`, or no such process in it.
pub fn resident_of(process: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{process}/statm")).expect("Linux");
    let pages: u64 =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

/// The most resident memory that a process ever had, in bytes.
///
/// # Panics
///
/// Where there is no `/proc`, or no such process in it.
pub fn most_resident_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the most");
    let kibibytes = line.trim().trim_end_matches("kB").trim();
    kibibytes.parse::<u64>().expect("a number") << 10
}
