//! Events for this module's tests.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use crate::{
    ConnectionName, Event, EventKey, EventKind, RepoId, RepoRef, SourceName, Tenant,
    event::{Comment, PullRequest, PullRequestState, Revision, SubjectKey},
};

/// A comment `/bench fast` on pull request 7.
pub(crate) fn comment_event() -> Event {
    let commit = |digit: &str| digit.repeat(40).parse().unwrap();
    let head = Revision::new(commit("a"), "refs/heads/topic/x");
    let base = Revision::new(commit("b"), "refs/heads/main");
    Event {
        sequence: 1,
        key: EventKey::new("default/r/comment/1/once/1"),
        tenant: Tenant::default(),
        repo: RepoRef {
            connection: ConnectionName::new("acme"),
            id: RepoId::new("42"),
            name: "acme/api".into(),
        },
        kind: EventKind::COMMENT,
        actions: vec!["created".into()],
        subject: SubjectKey::pull_request(7),
        unchained: false,
        head: Some(head.clone()),
        base: Some(base.clone()),
        pull_request: Some(PullRequest {
            number: 7,
            title: "Make it fast".into(),
            author: "ann".into(),
            draft: false,
            state: PullRequestState::Open,
            head,
            base,
            fork: true,
            labels: vec!["perf".into(), "urgent".into()],
            url: Some("https://example.com/7".into()),
            updated_at: Timestamp::UNIX_EPOCH,
        }),
        label: None,
        lacks: None,
        comment: Some(Comment {
            id: "1".into(),
            author: "ann".into(),
            body: "/bench fast".into(),
            command: Some("/bench".into()),
            arguments: vec!["fast".into()],
        }),
        sender: Some("ann".into()),
        data: BTreeMap::new(),
        occurred_at: Timestamp::UNIX_EPOCH,
        received_at: Timestamp::UNIX_EPOCH,
        source: SourceName::new("test"),
        payload: None,
    }
}

/// A push to `main`.
pub(crate) fn push_event() -> Event {
    let mut event = comment_event();
    event.kind = EventKind::PUSH;
    event.actions = vec!["updated".into()];
    event.head = event.base.take();
    event.pull_request = None;
    event.comment = None;
    event
}

/// A caller's request with these parameters.
pub(crate) fn manual_event(params: &[(&str, serde_json::Value)]) -> Event {
    let mut event = push_event();
    event.kind = EventKind::MANUAL;
    event.actions = Vec::<Arc<str>>::new();
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    event.data = [("params".to_owned(), serde_json::Value::Object(params))].into();
    event
}
