//! Which changed files start a trigger.

use std::sync::Arc;

use super::{Patterns, Problem};
use crate::workflow;

/// The files that an event changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFiles {
    /// Their paths from the root of the repository; of a renamed file both.
    pub paths: Arc<[Arc<str>]>,
    /// Whether these are all. A host may tell of no more than a few thousand, and no more than
    /// [`ChangedFiles::MAX`] are looked at.
    pub complete: bool,
}

impl ChangedFiles {
    /// The most files of one event that are looked at.
    pub const MAX: usize = 100_000;

    /// All files that changed; over [`MAX`](Self::MAX) the rest is cut off, and the list is not
    /// complete.
    pub fn new(mut paths: Vec<Arc<str>>) -> Self {
        let complete = paths.len() <= Self::MAX;
        paths.truncate(Self::MAX);
        Self { paths: paths.into(), complete }
    }
}

/// A path filter: it accepts an event when at least one changed file is included and not excluded.
///
/// An event without changed files is not accepted. When the list of files is not complete and none
/// of those that are known counts, the event is accepted: one of the others may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFilter(Patterns);

impl PathFilter {
    /// Compiles a path filter.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with its patterns.
    pub fn new(filter: &workflow::PathFilter) -> Result<Self, Vec<Problem>> {
        Patterns::new("paths", &filter.include, &filter.exclude).map(Self)
    }

    /// Whether a trigger with this filter is for an event that changed these files.
    pub fn accepts(&self, files: &ChangedFiles) -> bool {
        !files.complete || files.paths.iter().any(|path| self.0.accepts(path))
    }

    /// The patterns.
    pub fn patterns(&self) -> &Patterns {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> PathFilter {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        PathFilter::new(&workflow::PathFilter { include: owned(include), exclude: owned(exclude) })
            .unwrap()
    }

    fn files(paths: &[&str]) -> ChangedFiles {
        ChangedFiles::new(paths.iter().map(|path| Arc::from(*path)).collect())
    }

    #[test]
    fn one_file_that_counts_is_enough() {
        let code = filter(&[], &["**/*.md", "docs/**"]);
        assert!(code.accepts(&files(&["README.md", "src/lib.rs"])));
        assert!(!code.accepts(&files(&["README.md", "docs/a.png"])));
        let front = filter(&["web/**"], &["web/**/*.md"]);
        assert!(front.accepts(&files(&["web/a/b.ts"])));
        assert!(!front.accepts(&files(&["web/a/b.md", "api/main.go"])));
    }

    #[test]
    fn an_event_without_changed_files_is_not_accepted() {
        assert!(!filter(&[], &["**/*.md"]).accepts(&files(&[])));
    }

    #[test]
    fn a_list_that_is_cut_off_is_accepted_because_the_rest_may_count() {
        let many = (0..=ChangedFiles::MAX).map(|n| Arc::from(format!("docs/{n}.md"))).collect();
        let files = ChangedFiles::new(many);
        assert_eq!(files.paths.len(), ChangedFiles::MAX);
        assert!(!files.complete);
        assert!(filter(&[], &["docs/**"]).accepts(&files));
    }
}
