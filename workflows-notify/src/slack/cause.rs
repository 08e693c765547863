//! What several failures have in common.

use workflows_core::{RunView, hash_of};

/// In characters, of the line that is looked at.
const LINE: usize = 300;

/// A name for the cause of a failure: the step that failed and the last line that it wrote, without
/// what differs from run to run (numbers, ids, times). `None` when it left nothing.
pub(super) fn of(run: &RunView) -> Option<String> {
    let failure = run.failure.as_ref()?;
    let line = failure.last_lines.iter().rev().find(|line| !line.trim().is_empty())?;
    Some(hash_of(&[&failure.step, &alike(line)]))
}

/// The words of a line that hold no digit.
fn alike(line: &str) -> String {
    let line: String = line.chars().take(LINE).collect();
    let words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let plain = words.filter(|word| !word.bytes().any(|c| c.is_ascii_digit()));
    plain.collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_in_ids_and_numbers_alone_are_alike() {
        let one =
            "2026-01-02T03:04:05Z ERROR: pull registry.acme.io/api@sha256:3f2a: timeout (30s)";
        let other =
            "2026-01-03T13:14:15Z error: pull registry.acme.io/api@sha256:99b0: timeout (7s)";
        assert_eq!(alike(one), alike(other));
        assert_eq!(alike(one), "error pull registry acme io api timeout");
        assert_ne!(alike("connection refused"), alike("assertion failed"));
    }
}
