//! What Slack takes, and how texts are made to fit.

/// In characters, of the text that notifications on a desk or a phone show. Slack recommends at
/// most 4,000 (<https://docs.slack.dev/reference/methods/chat.postMessage/#truncating>); more than a
/// line is read by nobody there.
pub(super) const FALLBACK: usize = 300;

/// In characters, of all texts of all blocks together. Slack documents no such limit and answers
/// `msg_blocks_too_long` from about 13,200 on (<https://github.com/slackapi/bolt-js/issues/2509>).
pub(super) const ALL_TEXTS: usize = 9_000;

/// In characters, of one line: a title, a message, a name.
pub(super) const LINE: usize = 300;

/// In characters, of a name inside a line.
pub(super) const NAME: usize = 120;

/// In bytes, of an address behind a link. Slack takes 3,000 of buttons
/// (<https://docs.slack.dev/reference/block-kit/block-elements/button-element/>) and says nothing of
/// links.
pub(super) const ADDRESS: usize = 2_000;

/// The text in one line without what is not seen, cut between characters.
pub(super) fn line(text: &str, most: usize) -> String {
    let one_line: String = text
        .chars()
        .map(|c| if matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect();
    cut(crate::describe::harmless(&one_line).trim(), most)
}

/// At most so many characters, the last a `…` when something was cut off.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The last lines that fit into so many characters; of the first of them its end.
pub(super) fn last_lines(lines: &[String], most_lines: usize, most: usize) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut left = most;
    for one in lines.iter().rev().take(most_lines) {
        let clean = crate::describe::harmless(one);
        let length = clean.chars().count();
        if length + 1 > left {
            if kept.is_empty() {
                kept.push(cut(&clean, left));
            }
            break;
        }
        left -= length + 1;
        kept.push(clean);
    }
    kept.reverse();
    kept.join("\n")
}

/// A text as Slack's own markup has it, in which nothing is markup
/// (<https://docs.slack.dev/messaging/formatting-message-text/#escaping>).
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_keep_to_their_line() {
        assert_eq!(line(" a\nb\u{202e}c\u{7} ", 10), "a b\u{fffd}c\u{fffd}");
        assert_eq!(cut("🦀🦀🦀", 2), "🦀…");
        assert_eq!(cut("🦀🦀", 2), "🦀🦀");
        assert_eq!(escaped("<!channel> & <@U1>"), "&lt;!channel&gt; &amp; &lt;@U1&gt;");
    }

    #[test]
    fn the_last_lines_are_kept() {
        let lines: Vec<String> = ["one", "two", "three"].map(str::to_owned).to_vec();
        assert_eq!(last_lines(&lines, 2, 100), "two\nthree");
        assert_eq!(last_lines(&lines, 9, 10), "two\nthree");
        assert_eq!(last_lines(&lines, 9, 9), "three");
        assert_eq!(last_lines(&lines, 9, 3), "th…");
        assert_eq!(last_lines(&[], 9, 3), "");
    }
}
