//! Foreign text in errors.

/// Foreign text as it may stand in an error: one line, cut, quoted, without control characters.
pub(crate) fn printable(text: &str) -> String {
    let line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    format!("{line:?}")
}
