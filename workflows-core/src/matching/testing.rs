//! Events and workflows for the tests of this module.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Definition;
use crate::{
    Event, EventKind, RepoRef, Tenant, Workflow,
    event::{Comment, PullRequest, PullRequestState, Revision, SubjectKey},
};

pub(super) fn revision(reference: &str) -> Revision {
    Revision::new("3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d".parse().unwrap(), reference)
}

pub(super) fn pull_request_event(base: &str) -> Event {
    let head = revision("refs/heads/feature");
    let base = revision(&format!("refs/heads/{base}"));
    let pull_request = PullRequest {
        number: 7,
        title: "Title".to_owned(),
        author: "ada".into(),
        draft: false,
        state: PullRequestState::Open,
        head: head.clone(),
        base: base.clone(),
        fork: false,
        labels: vec!["bug".into(), "large".into()],
        url: None,
        updated_at: Timestamp::UNIX_EPOCH,
    };
    Event {
        sequence: 1,
        key: "default/1/pull/7/x/1".into(),
        tenant: Tenant::default(),
        repo: RepoRef { connection: "acme".into(), id: "1".into(), name: "acme/api".into() },
        kind: EventKind::PULL_REQUEST,
        actions: vec!["opened".into()],
        subject: SubjectKey::pull_request(7),
        unchained: false,
        head: Some(head),
        base: Some(base),
        pull_request: Some(pull_request),
        label: None,
        lacks: None,
        comment: None,
        sender: Some("ada".into()),
        data: BTreeMap::new(),
        occurred_at: Timestamp::UNIX_EPOCH,
        received_at: Timestamp::UNIX_EPOCH,
        source: "test".into(),
        payload: None,
    }
}

pub(super) fn comment_event(body: &str) -> Event {
    let mut event = pull_request_event("main");
    event.kind = EventKind::COMMENT;
    event.actions = vec!["created".into()];
    event.comment = Some(Comment {
        id: "9".into(),
        author: "ada".into(),
        body: body.to_owned(),
        command: None,
        arguments: Vec::new(),
    });
    event
}

pub(super) fn workflow(name: &str, repo: &str, triggers: Value) -> Arc<Workflow> {
    let document = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {
            "repos": [{"name": "code", "connection": "acme", "repo": repo}],
            "triggers": triggers,
            "pipelineRef": {"name": "p"},
        },
    });
    Arc::new(serde_json::from_value(document).unwrap())
}

pub(super) fn definition(name: &str, repo: &str, triggers: Value) -> Arc<Definition> {
    Arc::new(Definition::registered(Tenant::default(), &workflow(name, repo, triggers)).unwrap())
}
