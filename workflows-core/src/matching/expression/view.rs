//! What an expression can name: the variables, and the paths of `event`.

/// What stands at a path of `event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number,
    Bool,
    List,
    /// An object whose fields are those of the table.
    Object,
    /// An object with any fields.
    Open,
}

/// What an expression is about, and so the variables that it can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// An event, as a trigger sees it.
    Event,
    /// A run and its event, as a notification sees them.
    Run,
}

impl About {
    /// The variables.
    pub(super) fn variables(self) -> &'static [&'static str] {
        match self {
            Self::Event => &["event", "body", "headers"],
            Self::Run => &["event", "run"],
        }
    }

    /// The variables, for people.
    pub(super) fn listed(self) -> &'static str {
        match self {
            Self::Event => "`event`, `body` and `headers`",
            Self::Run => "`event` and `run`",
        }
    }
}

/// Every path of [`Event::view`](crate::Event::view), and `changed_files`, which is fetched when an
/// expression names it.
pub(super) const EVENT: &[(&str, Shape)] = &[
    ("action", Shape::Text),
    ("actions", Shape::List),
    ("base", Shape::Object),
    ("base.branch", Shape::Text),
    ("base.ref", Shape::Text),
    ("base.sha", Shape::Text),
    ("base.tag", Shape::Text),
    ("changed_files", Shape::List),
    ("comment", Shape::Object),
    ("comment.arguments", Shape::List),
    ("comment.author", Shape::Text),
    ("comment.body", Shape::Text),
    ("comment.command", Shape::Text),
    ("comment.id", Shape::Text),
    ("data", Shape::Open),
    ("head", Shape::Object),
    ("head.branch", Shape::Text),
    ("head.ref", Shape::Text),
    ("head.sha", Shape::Text),
    ("head.tag", Shape::Text),
    ("key", Shape::Text),
    ("kind", Shape::Text),
    ("label", Shape::Text),
    ("pull_request", Shape::Object),
    ("pull_request.author", Shape::Text),
    ("pull_request.base", Shape::Object),
    ("pull_request.base.branch", Shape::Text),
    ("pull_request.base.ref", Shape::Text),
    ("pull_request.base.sha", Shape::Text),
    ("pull_request.base.tag", Shape::Text),
    ("pull_request.draft", Shape::Bool),
    ("pull_request.fork", Shape::Bool),
    ("pull_request.head", Shape::Object),
    ("pull_request.head.branch", Shape::Text),
    ("pull_request.head.ref", Shape::Text),
    ("pull_request.head.sha", Shape::Text),
    ("pull_request.head.tag", Shape::Text),
    ("pull_request.labels", Shape::List),
    ("pull_request.number", Shape::Number),
    ("pull_request.state", Shape::Text),
    ("pull_request.title", Shape::Text),
    ("pull_request.url", Shape::Text),
    ("repo", Shape::Object),
    ("repo.connection", Shape::Text),
    ("repo.id", Shape::Text),
    ("repo.name", Shape::Text),
    ("repo.owner", Shape::Text),
    ("sender", Shape::Text),
    ("time", Shape::Text),
];

/// Every path of [`RunView::view`](crate::RunView::view).
pub(super) const RUN: &[(&str, Shape)] = &[
    ("attempt", Shape::Text),
    ("commit", Shape::Text),
    ("exit_code", Shape::Number),
    ("failed_step", Shape::Text),
    ("failed_task", Shape::Text),
    ("key", Shape::Text),
    ("message", Shape::Text),
    ("previous", Shape::Text),
    ("pull_request", Shape::Number),
    ("ref", Shape::Text),
    ("repo", Shape::Text),
    ("seconds", Shape::Number),
    ("state", Shape::Text),
    ("transition", Shape::Text),
    ("trigger", Shape::Text),
    ("workflow", Shape::Text),
];

/// What stands at a path of `event` (without `event.`), or why there is nothing.
pub(super) fn event_path(path: &str) -> Result<Shape, String> {
    if path.starts_with("data.") {
        return Ok(Shape::Open);
    }
    known_path(EVENT, path, "event.")
}

/// What stands at a path of `run` (without `run.`), or why there is nothing.
pub(super) fn run_path(path: &str) -> Result<Shape, String> {
    known_path(RUN, path, "run.")
}

fn known_path(table: &[(&str, Shape)], path: &str, prefix: &str) -> Result<Shape, String> {
    if let Ok(at) = table.binary_search_by(|(known, _)| (*known).cmp(path)) {
        return Ok(table[at].1);
    }
    let inside = table.iter().rev().find(|(known, shape)| {
        !matches!(shape, Shape::Object)
            && path.strip_prefix(known).is_some_and(|r| r.starts_with('.'))
    });
    Err(match inside {
        Some((known, _)) => {
            format!("`{prefix}{path}` does not exist: `{prefix}{known}` has no fields")
        }
        None => format!(
            "`{prefix}{path}` does not exist{}",
            meant(path, table.iter().map(|(known, _)| *known), prefix)
        ),
    })
}

/// `; is `x` meant?` for the nearest known name, when one is near.
pub(super) fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>, prefix: &str) -> String {
    let near = known
        .map(|candidate| (distance(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4);
    near.map_or_else(String::new, |(_, candidate)| format!("; is `{prefix}{candidate}` meant?"))
}

/// The Levenshtein distance, of the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let here = (diagonal + usize::from(from != *to)).min(left + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(EVENT.is_sorted_by_key(|(path, _)| *path));
        assert!(RUN.is_sorted_by_key(|(path, _)| *path));
    }

    #[test]
    fn the_distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("labels", "label"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
