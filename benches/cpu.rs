//! How much processor time was spent.

use std::time::Duration;

/// The time that this process has had on processors, in the program and in the kernel for it, as
/// Linux counts it: to a hundredth of a second.
///
/// # Panics
///
/// Where there is no `/proc`.
pub fn spent() -> Duration {
    spent_by(std::process::id())
}

/// The time that a process has had on processors, likewise.
///
/// # Panics
///
/// Where there is no `/proc`, or no such process in it.
pub fn spent_by(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    // The name of the program, in brackets, may hold anything.
    let (_, numbers) = stat.rsplit_once(')').expect("the name");
    let ticks = |place: usize| -> u64 {
        numbers.split_whitespace().nth(place).and_then(|number| number.parse().ok()).expect("ticks")
    };
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}
