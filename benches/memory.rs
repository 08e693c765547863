//! How much memory this process takes.

use std::fs;

/// Resident memory of this process in bytes, as Linux tells.
///
/// # Panics
///
/// Where there is no `/proc`.
pub fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 =
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}
