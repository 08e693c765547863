//! What is wrong with a document, and where: [`Problem`].

use std::{fmt, sync::Arc};

/// One thing that is wrong with a document, where it is, and what to do about it.
///
/// It is shown as a compiler shows an error:
///
/// ```text
/// error: unknown field `path`; did you mean `paths`?
///   --> .tekton/ci.yaml:7:5
///    |
///  7 |     path: ["src/**"]
///    |     ^
///    = at: spec.triggers[0].path
///    = help: known fields: actions, branches, ...
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, or whatever else names the source of the document.
    pub source: Arc<str>,
    /// The line in it, from 1; `None` when the document did not come from a text.
    pub line: Option<u32>,
    /// The column in the line, in characters, from 1.
    pub column: Option<u32>,
    /// The field, such as `spec.triggers[0].paths`; empty for the document as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, or what is allowed.
    pub remedy: Option<String>,
    /// The line of the text, unless it is longer than 1,000 characters.
    pub snippet: Option<String>,
}

impl Problem {
    /// A problem of a field, with no place in a text yet.
    pub(crate) fn at(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            source: "".into(),
            line: None,
            column: None,
            field: short(field.into()),
            message: short(message.into()),
            remedy: None,
            snippet: None,
        }
    }

    /// Adds what to do about it.
    pub(crate) fn help(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(short(remedy.into()));
        self
    }

    /// The problem in one line, for a status on a commit.
    pub fn one_line(&self) -> String {
        let mut line = String::new();
        if !self.source.is_empty() {
            line.push_str(&self.source);
            if let (Some(number), Some(column)) = (self.line, self.column) {
                line.push_str(&format!(":{number}:{column}"));
            }
            line.push_str(": ");
        }
        if !self.field.is_empty() {
            line.push_str(&self.field);
            line.push_str(": ");
        }
        line.push_str(&self.message);
        if let Some(remedy) = &self.remedy {
            line.push_str(&format!(" ({remedy})"));
        }
        printable(&line)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", printable(&self.message))?;
        let number = self.line.map(|line| line.to_string()).unwrap_or_default();
        let margin = " ".repeat(number.len().max(1));
        if !self.source.is_empty() {
            write!(f, "\n{margin} --> {}", printable(&self.source))?;
            if let (Some(line), Some(column)) = (self.line, self.column) {
                write!(f, ":{line}:{column}")?;
            }
        }
        if let (Some(text), Some(column)) = (&self.snippet, self.column) {
            let (shown, indent) = window(text, column);
            write!(f, "\n{margin}  |\n{number:>1}  | {shown}\n{margin}  | {indent}^")?;
        }
        if !self.field.is_empty() {
            write!(f, "\n{margin}  = at: {}", printable(&self.field))?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n{margin}  = help: {}", printable(remedy))?;
        }
        Ok(())
    }
}

/// The most problems of one document that are told.
const MOST: usize = 100;
/// The longest text that a problem holds, in characters. What is wrong may be as large as the
/// document is.
const LONGEST: usize = 1_000;

/// The first problems, and how many there are besides.
pub(crate) fn first_of(mut problems: Vec<Problem>) -> Vec<Problem> {
    let further = problems.len().saturating_sub(MOST);
    if further > 0 {
        problems.truncate(MOST);
        let mut rest = Problem::at("", further_problems(further));
        rest.source = problems.first().map_or_else(|| "".into(), |one| Arc::clone(&one.source));
        problems.push(rest);
    }
    problems
}

/// Says that there are more problems than are told.
pub(crate) fn further_problems(number: usize) -> String {
    format!("{number} further problems are not listed")
}

/// The line of a text, when it is short enough to be shown.
pub(crate) fn snippet(line: &str) -> Option<String> {
    line.chars().nth(LONGEST).is_none().then(|| line.to_owned())
}

fn short(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The part of a line around a column, and the blanks that stand before the column in it.
fn window(text: &str, column: u32) -> (String, String) {
    const WIDTH: usize = 100;
    let column = usize::try_from(column).unwrap_or(usize::MAX).saturating_sub(1);
    let from = column.saturating_sub(WIDTH / 2);
    let from = if text.chars().nth(WIDTH).is_none() { 0 } else { from };
    let shown: String = text.chars().skip(from).take(WIDTH).map(visible).collect();
    (shown, " ".repeat((column - from.min(column)).min(WIDTH)))
}

/// The text with control characters replaced, so that a terminal shows what is there.
fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(c: char) -> char {
    let reordering = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || reordering { char::REPLACEMENT_CHARACTER } else { c }
}

/// A value as a message shows it: quoted, with escapes, and cut when it is long.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let cut: String = text.chars().take(LONGEST).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{dots}")
}

/// The known name that is nearest to one that is not known, when it is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    if name.len() > 80 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean ...?` when a known name is near.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}
