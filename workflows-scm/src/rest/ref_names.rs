//! Names of refs.

use std::sync::Arc;

/// What a host is asked for, without `refs/` and without a slash at the end, which hosts do not
/// understand alike; the shortest that cover all. What is found besides is left out.
pub(crate) fn asked_for(prefixes: &[Arc<str>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for prefix in prefixes {
        match prefix.strip_prefix("refs/").map(|name| name.trim_end_matches('/')) {
            Some(name) if !name.is_empty() => names.push(name.to_owned()),
            // All refs of people; those of pull requests have to be asked for.
            _ if "refs/".starts_with(&**prefix) => {
                names.extend(["heads".to_owned(), "tags".to_owned()]);
            }
            _ => {}
        }
    }
    names.sort();
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.last().is_some_and(|last| name.starts_with(last.as_str())) {
            kept.push(name);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_covers_the_prefixes_is_asked_for() {
        let of = |prefixes: &[&str]| {
            asked_for(&prefixes.iter().map(|prefix| Arc::from(*prefix)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["refs/heads/release/", "refs/heads/release/1"]), ["heads/release"]);
        assert_eq!(of(&["refs/tags/v", "refs/heads/main"]), ["heads/main", "tags/v"]);
        assert_eq!(of(&["refs/"]), ["heads", "tags"]);
        assert_eq!(of(&["refs/heads/main", "refs/"]), ["heads", "tags"]);
        assert_eq!(of(&["main"]), [""; 0]);
        assert_eq!(of(&[]), [""; 0]);
    }
}
