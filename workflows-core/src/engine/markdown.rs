//! Text from outside in Markdown, where it stays text.
//!
//! All of it is put into code spans and fenced blocks, whose delimiters are longer than any run of
//! the same character inside. There nothing is markup: no link, image, HTML, mention or reference
//! comes of it (<https://spec.commonmark.org/0.31.2/#code-spans>, `#fenced-code-blocks`).

/// The text in a code span, on one line. Nothing comes of a text without anything to see.
pub(crate) fn code(text: &str) -> String {
    let text = one_line(text);
    if text.trim().is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// The text in a code span in a cell of a table, at most so many bytes of it. A bar would end the
/// cell, also in code, and a backslash before it cannot be relied on: a broken bar takes its place.
pub(crate) fn cell(text: &str, most: usize) -> String {
    code(&cut(text, most)).replace('|', "¦")
}

/// The lines in a fenced block, at most so many bytes in all: the last ones that fit.
pub(crate) fn block(lines: &[String], most: usize) -> String {
    let longest = lines.iter().map(|line| longest_run(line)).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let around = 2 * fence.len() + "text\n\n\n…\n".len();
    let mut left = most.saturating_sub(around);
    let fitting = lines.iter().rev().take_while(|line| {
        let fits = line.len() < left;
        left = left.saturating_sub(line.len() + 1);
        fits
    });
    let from = lines.len() - fitting.count();
    let more = if from > 0 { "…\n" } else { "" };
    let shown: String = lines[from..].iter().map(|line| format!("{}\n", one_line(line))).collect();
    format!("{fence}text\n{more}{shown}{fence}\n")
}

/// A link whose text and address come from outside; the text alone when the address is none that
/// may be followed.
pub(crate) fn link(text: &str, address: Option<&str>) -> String {
    let harmless = |address: &&str| {
        let scheme = address.starts_with("https://") || address.starts_with("http://");
        scheme
            && address.len() <= 2_000
            && address.chars().all(|c| {
                c.is_ascii_graphic() && !matches!(c, '<' | '>' | '|' | '\\' | '`' | '"' | '@')
            })
    };
    match address.filter(harmless) {
        Some(address) => format!("[{text}](<{address}>)"),
        None => text.to_owned(),
    }
}

/// At most so many bytes of a text, cut between two characters, with an ellipsis when it was cut.
pub(crate) fn cut(text: &str, most: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() <= most {
        return text.to_owned();
    }
    let mut shortened =
        text[..text.floor_char_boundary(most.saturating_sub(ELLIPSIS.len_utf8()))].to_owned();
    shortened.push(ELLIPSIS);
    shortened
}

/// Whether a character does something to a text instead of being seen in it: control characters, and
/// those that change the direction of what follows.
pub(crate) fn is_invisible(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

fn one_line(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c })
        .filter(|c| !is_invisible(*c))
        .collect()
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_name_or_message_is_in_code_that_it_cannot_end() {
        for (text, expected) in [
            ("[click](http://x) @alice #1 <b>", "`[click](http://x) @alice #1 <b>`"),
            ("a `b` c", "``a `b` c``"),
            ("``", "``` `` ```"),
            ("two\nlines\u{7}\u{202E}", "`two lines`"),
            (" \n", ""),
            ("", ""),
        ] {
            assert_eq!(code(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_cell_has_no_bar_whatever_stands_before_it() {
        assert_eq!(cell("a|b \\| c", 100), "`a¦b \\¦ c`");
        assert_eq!(cell("0123456789", 6), "`012…`");
    }

    #[test]
    fn a_log_cannot_end_the_block_that_it_is_shown_in() {
        let text = block(&lines(&["```", "````` <img src=x>", "done"]), 1_000);
        let fences: Vec<_> = text.lines().filter(|line| line.starts_with("``````")).collect();
        assert_eq!(fences, ["``````text", "``````"]);
    }

    #[test]
    fn of_a_long_log_the_last_lines_are_shown_within_the_limit() {
        let all: Vec<String> = (0..1_000).map(|n| format!("line {n} 🦀")).collect();
        let text = block(&all, 500);
        assert!(text.len() <= 500 && text.len() > 450, "{}", text.len());
        assert!(text.starts_with("```text\n…\nline 9") && text.ends_with("line 999 🦀\n```\n"));
        let whole = block(&all[..2], 500);
        assert_eq!(whole, "```text\nline 0 🦀\nline 1 🦀\n```\n");
        assert_eq!(block(&lines(&["x".repeat(1_000).as_str()]), 100), "```text\n…\n```\n");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("äöü", 6), "äöü");
        assert_eq!(cut("äöüß", 7), "äö…");
        assert_eq!(cut("a🦀🦀", 8), "a🦀…");
        assert_eq!(cut("a🦀🦀", 7), "a…");
        for most in 0..40 {
            let text = "🦀é".repeat(10);
            assert!(cut(&text, most.max(3)).len() <= most.max(3));
        }
    }

    #[test]
    fn only_an_address_that_may_be_followed_becomes_a_link() {
        let linked = link("`t`", Some("https://ci.example.com/runs/1?a=b"));
        assert_eq!(linked, "[`t`](<https://ci.example.com/runs/1?a=b>)");
        for address in
            ["javascript:alert(1)", "https://x/> <img src=y>", "https://a b", "http://u:p@h/"]
        {
            assert_eq!(link("`t`", Some(address)), "`t`", "{address}");
        }
    }
}
