//! What goes wrong on request.

use jiff::Timestamp;

/// Something that goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 429, with the seconds to wait when there are any.
    TooManyRequests(Option<u64>),
    /// 403 for a secondary limit, with the seconds to wait when there are any.
    SecondaryLimit(Option<u64>),
    /// This status and an error's body; of 5xx, a page of HTML as a proxy sends it.
    Status(u16),
    /// 404, as of a replica that has not heard of it yet.
    NotYetThere,
    /// No answer, for as long as the client waits.
    Hang,
    /// Half of the answer, and then the connection breaks. What was asked for is done.
    Truncated,
    /// What was asked for is done, and the connection breaks before the answer's body.
    LostAnswer,
}

/// A fault that is planned.
#[derive(Debug)]
pub struct Planned {
    pattern: Pattern,
    fault: Fault,
    left: Left,
}

/// How long a fault goes on.
#[derive(Debug, Clone, Copy)]
pub enum Left {
    /// For so many calls.
    Calls(u32),
    /// Until then.
    Until(Timestamp),
}

/// What calls a fault is for.
#[derive(Debug)]
pub struct Pattern {
    method: String,
    path: String,
}

impl Pattern {
    /// Reads `METHOD /path`, either of which may have `*` for anything.
    pub fn parse(text: &str) -> Self {
        let (method, path) = text.split_once(' ').unwrap_or(("*", text));
        Self { method: method.to_owned(), path: path.to_owned() }
    }

    /// Whether a call fits, by the template of its route or its path.
    pub fn fits(&self, method: &str, template: &str, path: &str) -> bool {
        matches(&self.method, method)
            && (matches(&self.path, template) || matches(&self.path, path))
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| matches(rest, &text[at..]))
        }),
    }
}

impl Planned {
    /// A fault for the calls that fit a pattern.
    pub fn new(pattern: &str, fault: Fault, left: Left) -> Self {
        Self { pattern: Pattern::parse(pattern), fault, left }
    }
}

/// The fault of a call, if it is to have one; a fault that is for some calls is used up by it.
pub fn next(
    planned: &mut Vec<Planned>,
    method: &str,
    template: &str,
    path: &str,
    now: Timestamp,
) -> Option<Fault> {
    planned.retain(|one| match one.left {
        Left::Calls(left) => left > 0,
        Left::Until(until) => now < until,
    });
    let one = planned.iter_mut().find(|one| one.pattern.fits(method, template, path))?;
    if let Left::Calls(left) = &mut one.left {
        *left -= 1;
    }
    Some(one.fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_routes_and_paths() {
        let fits = |pattern: &str, method: &str, path: &str| {
            Pattern::parse(pattern).fits(method, "/repos/{owner}/{repo}/check-runs", path)
        };
        let path = "/repos/acme/api/check-runs";
        assert!(fits("POST /repos/{owner}/{repo}/check-runs", "POST", path));
        assert!(fits("POST /repos/acme/*/check-runs", "POST", path));
        assert!(fits("* *check-runs*", "PATCH", path));
        assert!(fits("*check-runs", "PATCH", path));
        assert!(!fits("GET *check-runs", "POST", path));
        assert!(!fits("POST /repos/acme/*/statuses", "POST", path));
    }
}
