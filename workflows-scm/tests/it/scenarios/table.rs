//! What happens, and what comes of it.
//!
//! An event is written as its actions and its key without tenant and repository, with commits and
//! comments by the names that the table gives them: `updated: refs/heads/main/B/1`.

/// Something that somebody does in a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    /// A commit of that name on top of a branch, which begins at `main` when it is not there.
    Push {
        branch: &'static str,
        commit: &'static str,
    },
    /// Puts a branch at a commit, whatever it had.
    Put {
        branch: &'static str,
        at: &'static str,
    },
    DeleteBranch {
        branch: &'static str,
    },
    Tag {
        tag: &'static str,
        at: &'static str,
    },
    AnnotatedTag {
        tag: &'static str,
        at: &'static str,
    },
    DeleteTag {
        tag: &'static str,
    },
    /// Opens the pull request of the scenario, which is number 1.
    Open {
        from: &'static str,
        to: &'static str,
    },
    OpenDraft {
        from: &'static str,
        to: &'static str,
    },
    /// A stranger forks the repository, pushes a commit there and opens the pull request.
    OpenFromFork {
        commit: &'static str,
        to: &'static str,
    },
    /// The stranger pushes one more.
    PushToFork {
        commit: &'static str,
    },
    Close,
    Reopen,
    /// Merges it; the merge commit gets the name.
    Merge {
        commit: &'static str,
    },
    Retarget {
        to: &'static str,
    },
    MarkReady,
    ConvertToDraft,
    /// Gives it another title.
    Rename,
    Label {
        label: &'static str,
    },
    Unlabel {
        label: &'static str,
    },
    Comment {
        comment: &'static str,
    },
    CommentOnLine {
        comment: &'static str,
    },
    /// A review as a whole, with a text.
    Review {
        comment: &'static str,
    },
    CommentOnCommit {
        comment: &'static str,
        on: &'static str,
    },
}

/// A deed and the events that come of it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) deed: Deed,
    pub(crate) events: Vec<&'static str>,
    /// Whether one who looks after each step sees it.
    pub(crate) is_polled: bool,
}

#[derive(Debug)]
pub(crate) struct Scenario {
    /// Also the name of its repository.
    pub(crate) name: &'static str,
    pub(crate) steps: Vec<Step>,
    /// The events of one who looks once, when all is over.
    pub(crate) at_the_end: Vec<&'static str>,
}

impl Scenario {
    /// The events that who looks once, when all is over, does not see.
    pub(crate) fn missed_at_the_end(&self) -> Vec<&'static str> {
        let all = self.steps.iter().flat_map(|step| step.events.iter().copied());
        all.filter(|event| !self.at_the_end.contains(event)).collect()
    }
}

fn step(deed: Deed, events: &[&'static str]) -> Step {
    Step { deed, events: events.to_vec(), is_polled: true }
}

fn unseen_by_polls(deed: Deed, events: &[&'static str]) -> Step {
    Step { is_polled: false, ..step(deed, events) }
}

/// All scenarios. Each begins with a repository whose `main` has one commit, `start`.
pub(crate) fn scenarios() -> Vec<Scenario> {
    use Deed::*;
    vec![
        Scenario {
            name: "push",
            steps: vec![
                step(Push { branch: "main", commit: "A" }, &["updated: refs/heads/main/A/1"]),
                step(Push { branch: "main", commit: "B" }, &["updated: refs/heads/main/B/1"]),
            ],
            at_the_end: vec!["updated: refs/heads/main/B/1"],
        },
        Scenario {
            name: "force-push",
            steps: vec![
                step(Push { branch: "topic", commit: "A" }, &["created: refs/heads/topic/A/1"]),
                step(Push { branch: "other", commit: "B" }, &["created: refs/heads/other/B/1"]),
                step(Put { branch: "topic", at: "B" }, &["forced: refs/heads/topic/B/1"]),
            ],
            at_the_end: vec!["created: refs/heads/topic/B/1", "created: refs/heads/other/B/1"],
        },
        Scenario {
            name: "a-b-a",
            steps: vec![
                step(Push { branch: "main", commit: "A" }, &["updated: refs/heads/main/A/1"]),
                step(Push { branch: "main", commit: "B" }, &["updated: refs/heads/main/B/1"]),
                step(Put { branch: "main", at: "A" }, &["forced: refs/heads/main/A/2"]),
                step(Put { branch: "main", at: "B" }, &["updated: refs/heads/main/B/2"]),
                step(Put { branch: "main", at: "A" }, &["forced: refs/heads/main/A/3"]),
            ],
            at_the_end: vec!["updated: refs/heads/main/A/1"],
        },
        Scenario {
            name: "branch",
            steps: vec![
                step(Push { branch: "topic", commit: "A" }, &["created: refs/heads/topic/A/1"]),
                step(Push { branch: "topic", commit: "B" }, &["updated: refs/heads/topic/B/1"]),
                step(DeleteBranch { branch: "topic" }, &["deleted: refs/heads/topic/gone/1"]),
                step(Put { branch: "topic", at: "B" }, &["created: refs/heads/topic/B/2"]),
                step(DeleteBranch { branch: "topic" }, &["deleted: refs/heads/topic/gone/2"]),
            ],
            at_the_end: vec![],
        },
        Scenario {
            name: "tag",
            steps: vec![
                step(Push { branch: "main", commit: "A" }, &["updated: refs/heads/main/A/1"]),
                step(Tag { tag: "v1", at: "A" }, &["created: refs/tags/v1/A/1"]),
                step(Push { branch: "main", commit: "B" }, &["updated: refs/heads/main/B/1"]),
                step(Tag { tag: "v1", at: "B" }, &["updated: refs/tags/v1/B/1"]),
                step(AnnotatedTag { tag: "v2", at: "A" }, &["created: refs/tags/v2/A/1"]),
                step(AnnotatedTag { tag: "v2", at: "B" }, &["updated: refs/tags/v2/B/1"]),
                step(DeleteTag { tag: "v2" }, &["deleted: refs/tags/v2/gone/1"]),
                step(DeleteTag { tag: "v1" }, &["deleted: refs/tags/v1/gone/1"]),
                step(Tag { tag: "v1", at: "B" }, &["created: refs/tags/v1/B/2"]),
            ],
            at_the_end: vec!["updated: refs/heads/main/B/1", "created: refs/tags/v1/B/1"],
        },
        Scenario {
            name: "pull-request",
            steps: vec![
                step(Push { branch: "topic", commit: "A" }, &["created: refs/heads/topic/A/1"]),
                step(
                    Open { from: "topic", to: "main" },
                    &["opened: pull/1/A,refs/heads/main,ready,open/1"],
                ),
                step(
                    Push { branch: "topic", commit: "B" },
                    &[
                        "updated: refs/heads/topic/B/1",
                        "updated: pull/1/B,refs/heads/main,ready,open/1",
                    ],
                ),
                step(Rename, &[]),
                step(Close, &["closed: pull/1/B,refs/heads/main,ready,closed/1"]),
                step(Reopen, &["reopened: pull/1/B,refs/heads/main,ready,open/2"]),
                step(
                    Merge { commit: "M" },
                    &[
                        "updated: refs/heads/main/M/1",
                        "merged: pull/1/B,refs/heads/main,ready,merged/1",
                    ],
                ),
            ],
            at_the_end: vec![
                "created: refs/heads/topic/B/1",
                "updated: refs/heads/main/M/1",
                "merged: pull/1/B,refs/heads/main,ready,merged/1",
            ],
        },
        Scenario {
            name: "head-deleted",
            steps: vec![
                step(Push { branch: "topic", commit: "A" }, &["created: refs/heads/topic/A/1"]),
                step(
                    Open { from: "topic", to: "main" },
                    &["opened: pull/1/A,refs/heads/main,ready,open/1"],
                ),
                step(
                    DeleteBranch { branch: "topic" },
                    &[
                        "deleted: refs/heads/topic/gone/1",
                        "closed: pull/1/A,refs/heads/main,ready,closed/1",
                    ],
                ),
            ],
            at_the_end: vec!["closed: pull/1/A,refs/heads/main,ready,closed/1"],
        },
        Scenario {
            name: "draft",
            steps: vec![
                step(Push { branch: "topic", commit: "A" }, &["created: refs/heads/topic/A/1"]),
                step(
                    OpenDraft { from: "topic", to: "main" },
                    &["opened: pull/1/A,refs/heads/main,draft,open/1"],
                ),
                step(MarkReady, &["ready: pull/1/A,refs/heads/main,ready,open/1"]),
                step(ConvertToDraft, &["drafted: pull/1/A,refs/heads/main,draft,open/2"]),
                step(MarkReady, &["ready: pull/1/A,refs/heads/main,ready,open/2"]),
            ],
            at_the_end: vec![
                "created: refs/heads/topic/A/1",
                "opened: pull/1/A,refs/heads/main,ready,open/1",
            ],
        },
        Scenario {
            name: "retarget",
            steps: vec![
                step(Push { branch: "next", commit: "N" }, &["created: refs/heads/next/N/1"]),
                step(Push { branch: "topic", commit: "A" }, &["created: refs/heads/topic/A/1"]),
                step(
                    Open { from: "topic", to: "main" },
                    &["opened: pull/1/A,refs/heads/main,ready,open/1"],
                ),
                step(
                    Retarget { to: "next" },
                    &["retargeted: pull/1/A,refs/heads/next,ready,open/1"],
                ),
                step(
                    Retarget { to: "main" },
                    &["retargeted: pull/1/A,refs/heads/main,ready,open/2"],
                ),
            ],
            at_the_end: vec![
                "created: refs/heads/next/N/1",
                "created: refs/heads/topic/A/1",
                "opened: pull/1/A,refs/heads/main,ready,open/1",
            ],
        },
        Scenario {
            name: "fork",
            steps: vec![
                step(
                    OpenFromFork { commit: "F", to: "main" },
                    &["opened: pull/1/F,refs/heads/main,ready,open/1"],
                ),
                step(
                    PushToFork { commit: "G" },
                    &["updated: pull/1/G,refs/heads/main,ready,open/1"],
                ),
                step(Close, &["closed: pull/1/G,refs/heads/main,ready,closed/1"]),
            ],
            at_the_end: vec!["closed: pull/1/G,refs/heads/main,ready,closed/1"],
        },
        Scenario {
            name: "comment",
            steps: vec![
                step(Push { branch: "topic", commit: "A" }, &["created: refs/heads/topic/A/1"]),
                step(
                    Open { from: "topic", to: "main" },
                    &["opened: pull/1/A,refs/heads/main,ready,open/1"],
                ),
                step(Comment { comment: "C1" }, &["created: comment/C1/once/1"]),
                step(CommentOnLine { comment: "C2" }, &["created: comment/C2/once/1"]),
                unseen_by_polls(Review { comment: "C3" }, &["created: comment/C3/once/1"]),
                unseen_by_polls(
                    CommentOnCommit { comment: "C4", on: "A" },
                    &["created: comment/C4/once/1"],
                ),
                step(Comment { comment: "C5" }, &["created: comment/C5/once/1"]),
            ],
            at_the_end: vec![
                "created: refs/heads/topic/A/1",
                "opened: pull/1/A,refs/heads/main,ready,open/1",
                "created: comment/C1/once/1",
                "created: comment/C2/once/1",
                "created: comment/C5/once/1",
            ],
        },
        Scenario {
            name: "label",
            steps: vec![
                step(Push { branch: "topic", commit: "A" }, &["created: refs/heads/topic/A/1"]),
                step(
                    Open { from: "topic", to: "main" },
                    &["opened: pull/1/A,refs/heads/main,ready,open/1"],
                ),
                step(Label { label: "bug" }, &["labeled: pull/1/label/bug/present/1"]),
                step(Unlabel { label: "bug" }, &["unlabeled: pull/1/label/bug/absent/1"]),
                step(Label { label: "bug" }, &["labeled: pull/1/label/bug/present/2"]),
                step(Label { label: "large" }, &["labeled: pull/1/label/large/present/1"]),
                step(Unlabel { label: "bug" }, &["unlabeled: pull/1/label/bug/absent/2"]),
            ],
            at_the_end: vec![
                "created: refs/heads/topic/A/1",
                "opened: pull/1/A,refs/heads/main,ready,open/1",
                "labeled: pull/1/label/large/present/1",
            ],
        },
    ]
}
