//! What triggers say to events, and that nothing that is ruled out is lost.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::matching::{
    ChangedFiles, EventDetails, Filter, FilterAnswer, FilterInput, Filters, MatchInput,
    MatchedCommand, NoDetails, SetDecision, TriggerSet, Verdict, expand_described,
    testing::{comment_event, definition, pull_request_event, revision},
};
use crate::{
    Error, Event, EventKind, Result,
    event::Payload,
    store::{Guard, Rejected},
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn set_of(trigger: Value) -> TriggerSet {
    let kind = EventKind::new(trigger["on"].as_str().unwrap());
    TriggerSet::new([definition("ci", "acme/api", json!([trigger]))], &kind)
}

/// What one trigger says to an event about which nothing else is known.
fn verdict(trigger: Value, event: Event) -> Verdict {
    verdict_with(trigger, event, Arc::new(NoDetails))
}

fn verdict_with(trigger: Value, event: Event, details: Arc<dyn EventDetails>) -> Verdict {
    let input = MatchInput::new(Arc::new(event), details);
    let decision = block_on(set_of(trigger).decide(&input, &Filters::default())).unwrap();
    assert!(decision.guards.is_empty());
    assert_eq!(decision.verdicts.len(), 1);
    decision.verdicts.into_iter().next().unwrap().1
}

fn matched() -> Verdict {
    Verdict::Matched { command: None }
}

fn rejected(filter: &str, wanted: &str, saw: Value) -> Verdict {
    Verdict::Rejected(Rejected { filter: filter.into(), wanted: wanted.to_owned(), saw })
}

fn failed(filter: &str, error: &str) -> Verdict {
    Verdict::Failed { filter: filter.into(), error: error.to_owned() }
}

fn push_event(reference: &str, action: &str) -> Event {
    let mut event = pull_request_event("main");
    event.kind = if reference.starts_with("refs/tags/") { EventKind::TAG } else { EventKind::PUSH };
    event.actions = vec![action.into()];
    event.pull_request = None;
    event.head = Some(revision(reference));
    event
}

fn acted(actions: &[&str]) -> Event {
    let mut event = pull_request_event("main");
    event.actions = actions.iter().map(|action| (*action).into()).collect();
    event
}

/// Details that count how often they were asked.
#[derive(Debug, Default)]
struct Counted {
    files: Vec<Arc<str>>,
    body: &'static str,
    files_asked: AtomicUsize,
    payload_asked: AtomicUsize,
}

#[async_trait]
impl EventDetails for Counted {
    async fn changed_files(&self) -> Result<ChangedFiles> {
        self.files_asked.fetch_add(1, Ordering::Relaxed);
        Ok(ChangedFiles::new(self.files.clone()))
    }

    async fn payload(&self) -> Result<Option<Payload>> {
        self.payload_asked.fetch_add(1, Ordering::Relaxed);
        let headers = [("X-GitHub-Event", "pull_request")];
        Ok(Some(Payload::new(headers, Bytes::from_static(self.body.as_bytes()))))
    }
}

#[derive(Debug)]
struct Unreachable(crate::ErrorKind);

#[async_trait]
impl EventDetails for Unreachable {
    async fn changed_files(&self) -> Result<ChangedFiles> {
        Err(Error::new(self.0, "list changed files", "no answer"))
    }

    async fn payload(&self) -> Result<Option<Payload>> {
        Err(Error::new(self.0, "read payload", "no answer"))
    }
}

#[test]
fn a_pull_request_trigger_is_for_the_usual_actions_unless_it_says_otherwise() {
    let plain = json!({"name": "t", "on": "pull_request"});
    let usual = "opened, updated, reopened, retargeted, ready";
    for action in ["opened", "updated", "reopened", "retargeted", "ready"] {
        assert_eq!(verdict(plain.clone(), acted(&[action])), matched());
    }
    assert_eq!(
        verdict(plain.clone(), acted(&["closed"])),
        rejected("actions", usual, json!(["closed"]))
    );
    assert_eq!(verdict(plain, acted(&["drafted", "updated"])), matched());
    let merged = json!({"name": "t", "on": "pull_request", "actions": ["merged"]});
    assert_eq!(verdict(merged.clone(), acted(&["merged"])), matched());
    assert_eq!(
        verdict(merged, acted(&["opened"])),
        rejected("actions", "merged", json!(["opened"]))
    );
}

#[test]
fn a_ref_that_went_away_starts_nothing() {
    let push = json!({"name": "t", "on": "push"});
    assert_eq!(verdict(push.clone(), push_event("refs/heads/main", "created")), matched());
    assert_eq!(verdict(push.clone(), push_event("refs/heads/main", "forced")), matched());
    assert_eq!(
        verdict(push, push_event("refs/heads/main", "deleted")),
        rejected("actions", "created, updated, forced", json!(["deleted"]))
    );
}

#[test]
fn branches_are_those_of_the_push_or_the_base_of_the_pull_request() {
    let branches = json!({"name": "t", "on": "pull_request", "branches": ["main", "release/*"]});
    assert_eq!(verdict(branches.clone(), pull_request_event("release/1")), matched());
    assert_eq!(
        verdict(branches, pull_request_event("dev")),
        rejected("branches", "main, release/*", json!("dev"))
    );
    let push = json!({"name": "t", "on": "push", "branches": {"exclude": ["dependabot/**"]}});
    assert_eq!(verdict(push.clone(), push_event("refs/heads/main", "updated")), matched());
    assert_eq!(
        verdict(push, push_event("refs/heads/dependabot/npm/x", "updated")),
        rejected("branches", "any, but not dependabot/**", json!("dependabot/npm/x"))
    );
    let tag = json!({"name": "t", "on": "tag", "tags": ["refs/tags/v*"]});
    assert_eq!(verdict(tag.clone(), push_event("refs/tags/v1", "created")), matched());
    assert_eq!(
        verdict(tag, push_event("refs/tags/x1", "created")),
        rejected("tags", "v*", json!("x1"))
    );
}

#[test]
fn labels_are_the_one_that_came_or_those_that_the_pull_request_has() {
    let trigger = json!({"name": "t", "on": "label", "labels": ["deploy", "bench"]});
    let labeled = |label: &str, action: &str| {
        let mut event = pull_request_event("main");
        event.kind = EventKind::LABEL;
        event.label = Some(label.into());
        event.actions = vec![action.into()];
        event
    };
    assert_eq!(verdict(trigger.clone(), labeled("bench", "labeled")), matched());
    assert_eq!(
        verdict(trigger.clone(), labeled("bug", "labeled")),
        rejected("labels", "deploy, bench", json!("bug"))
    );
    assert_eq!(
        verdict(trigger, labeled("bench", "unlabeled")),
        rejected("actions", "labeled", json!(["unlabeled"]))
    );
    let with = json!({"name": "t", "on": "pull_request", "labels": ["large"]});
    assert_eq!(verdict(with, pull_request_event("main")), matched());
    let without = json!({"name": "t", "on": "pull_request", "labels": ["deploy"]});
    assert_eq!(
        verdict(without, pull_request_event("main")),
        rejected("labels", "deploy", json!(["bug", "large"]))
    );
}

#[test]
fn a_comment_starts_the_trigger_of_its_command_with_its_arguments() {
    let bench = json!({"name": "t", "on": "comment", "command": "/bench"});
    let command = |arguments: &[&str]| Verdict::Matched {
        command: Some(MatchedCommand {
            index: 1,
            name: "/bench".into(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        }),
    };
    assert_eq!(
        verdict(bench.clone(), comment_event("/other\n/bench a 'b c'")),
        command(&["a", "b c"])
    );
    assert_eq!(
        verdict(bench.clone(), comment_event("/other\nplease /bench")),
        rejected("command", "/bench", json!(["/other"]))
    );
    assert_eq!(
        verdict(bench, comment_event("/bench 'a")),
        failed("command", "`/bench`: a ' is not closed on the line")
    );
    let quick = json!({"name": "t", "on": "comment", "command": "/bench",
        "filter": "event.comment.command == '/bench' && 'quick' in event.comment.arguments"});
    assert_eq!(verdict(quick.clone(), comment_event("x\n\n/a\n/bench quick")), command(&["quick"]));
    assert!(matches!(
        verdict(quick, comment_event("/bench slow")),
        Verdict::Rejected(Rejected { saw, .. })
            if saw == json!({"event.comment.command": "/bench", "event.comment.arguments": ["slow"]})
    ));
    let any = json!({"name": "t", "on": "comment"});
    assert_eq!(verdict(any, comment_event("hello")), matched());
}

#[test]
fn an_expression_that_says_no_is_told_with_what_it_saw() {
    let filter = "!event.pull_request.draft && event.base.branch != 'main'";
    let trigger = json!({"name": "t", "on": "pull_request", "filter": filter});
    assert_eq!(
        verdict(trigger, pull_request_event("main")),
        rejected(
            "filter",
            filter,
            json!({"event.pull_request.draft": false, "event.base.branch": "main"})
        )
    );
    let all = json!({"name": "t", "on": "pull_request",
        "filter": ["event.action == 'opened'", "event.sender == 'bob'"]});
    assert_eq!(
        verdict(all, pull_request_event("main")),
        rejected("filter", "event.sender == 'bob'", json!({"event.sender": "ada"}))
    );
}

#[test]
fn an_expression_that_cannot_be_evaluated_is_a_failure_and_no_match() {
    let trigger =
        json!({"name": "t", "on": "pull_request", "filter": "event.data.x > 3 || body.y"});
    let details = Arc::new(Counted { body: r#"{"y": "text"}"#, ..Counted::default() });
    assert!(matches!(
        verdict_with(trigger.clone(), pull_request_event("main"), details),
        Verdict::Failed { filter, error }
            if &*filter == "filter" && error.starts_with("event.data.x > 3 || body.y: ")
    ));
    assert_eq!(
        verdict(trigger.clone(), pull_request_event("main")),
        failed("filter", "event.data.x > 3 || body.y: there is no payload, so `body` has no value")
    );
    let broken = Arc::new(Counted { body: "{", ..Counted::default() });
    assert_eq!(
        verdict_with(trigger, pull_request_event("main"), broken),
        failed("filter", "the payload is not JSON: EOF while parsing an object at line 1 column 1")
    );
}

#[test]
fn paths_are_asked_for_when_all_else_holds() {
    let trigger = json!({"name": "t", "on": "pull_request", "branches": ["main"],
        "paths": {"exclude": ["**/*.md"]}, "filter": "size(event.changed_files) < 3"});
    let details = |files: &[&str]| {
        let files = files.iter().map(|file| Arc::from(*file)).collect();
        Arc::new(Counted { files, ..Counted::default() })
    };
    let docs = details(&["README.md"]);
    assert_eq!(
        verdict_with(trigger.clone(), pull_request_event("main"), docs.clone()),
        rejected("paths", "any, but not **/*.md", json!({"files": 1, "first": ["README.md"]}))
    );
    assert_eq!(docs.files_asked.load(Ordering::Relaxed), 1);
    let elsewhere = details(&["src/lib.rs"]);
    assert_eq!(
        verdict_with(trigger.clone(), pull_request_event("dev"), elsewhere.clone()),
        rejected("branches", "main", json!("dev"))
    );
    assert_eq!(elsewhere.files_asked.load(Ordering::Relaxed), 0);
    assert_eq!(
        verdict_with(trigger.clone(), pull_request_event("main"), details(&["a.rs", "b.rs"])),
        matched()
    );
    assert_eq!(
        verdict_with(trigger, pull_request_event("main"), details(&["a", "b", "c"])),
        rejected(
            "filter",
            "size(event.changed_files) < 3",
            json!({"event.changed_files": "3 files"})
        )
    );
}

#[test]
fn files_and_payload_are_fetched_once_for_all_triggers_and_sets() {
    let triggers: Vec<_> = (0..20)
        .map(|n| {
            json!({"name": format!("t{n}"), "on": "pull_request",
            "paths": {"include": [format!("dir{n}/**")]},
            "filter": "body.number == 7 && headers['x-github-event'] == 'pull_request'"})
        })
        .collect();
    let set =
        |repo| TriggerSet::new([definition("ci", repo, json!(triggers))], &EventKind::PULL_REQUEST);
    let details = Arc::new(Counted {
        files: vec!["dir3/x".into()],
        body: r#"{"number": 7}"#,
        ..Counted::default()
    });
    let input = MatchInput::new(
        Arc::new(pull_request_event("main")),
        Arc::clone(&details) as Arc<dyn EventDetails>,
    );
    block_on(async {
        for set in [set("acme/api"), set("acme/*")] {
            let decision = set.decide(&input, &Filters::default()).await.unwrap();
            let matches: Vec<_> = decision
                .verdicts
                .iter()
                .filter(|(_, v)| *v == matched())
                .map(|(n, _)| *n)
                .collect();
            assert_eq!(matches, [3]);
        }
    });
    assert_eq!(details.files_asked.load(Ordering::Relaxed), 1);
    assert_eq!(details.payload_asked.load(Ordering::Relaxed), 1);
}

#[test]
fn what_cannot_be_fetched_now_fails_the_decision_and_what_never_can_the_trigger() {
    let trigger = json!({"name": "t", "on": "pull_request", "paths": {"include": ["a"]}});
    let input = MatchInput::new(
        Arc::new(pull_request_event("main")),
        Arc::new(Unreachable(crate::ErrorKind::Transient)),
    );
    let error = block_on(set_of(trigger.clone()).decide(&input, &Filters::default())).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Transient);
    assert_eq!(
        verdict_with(
            trigger,
            pull_request_event("main"),
            Arc::new(Unreachable(crate::ErrorKind::NotFound))
        ),
        failed("paths", "list changed files: no answer")
    );
}

#[derive(Debug)]
struct Sunday;

#[async_trait]
impl Filter for Sunday {
    fn name(&self) -> &str {
        "sunday"
    }

    async fn accepts(&self, input: &FilterInput<'_>) -> Result<FilterAnswer> {
        assert_eq!(input.trigger, "t");
        match input.event.sender.as_deref() {
            Some("ada") => Ok(FilterAnswer::Yes),
            Some(other) => Ok(FilterAnswer::no("ada", other)),
            None => Err(Error::invalid("ask", "nobody")),
        }
    }
}

#[test]
fn a_custom_filter_is_asked_last() {
    let decide = |sender: Option<&str>, filters: &Filters| {
        let mut event = pull_request_event("main");
        event.sender = sender.map(Arc::from);
        let input = MatchInput::new(Arc::new(event), Arc::new(NoDetails));
        let set = set_of(json!({"name": "t", "on": "pull_request", "customFilter": "sunday"}));
        block_on(set.decide(&input, filters)).unwrap().verdicts.remove(0).1
    };
    let filters = Filters::new([Arc::new(Sunday) as Arc<dyn Filter>]).unwrap();
    assert_eq!(decide(Some("ada"), &filters), matched());
    assert_eq!(
        decide(Some("bob"), &filters),
        rejected("customFilter", "sunday: ada", json!("bob"))
    );
    assert_eq!(decide(None, &filters), failed("customFilter", "ask: nobody"));
    assert_eq!(
        decide(Some("ada"), &Filters::default()),
        failed("customFilter", "the platform has no filter `sunday`")
    );
    let twice = [Arc::new(Sunday) as Arc<dyn Filter>, Arc::new(Sunday)];
    assert_eq!(&*Filters::new(twice).unwrap_err(), "sunday");
}

#[test]
fn what_a_table_ruled_out_is_told_one_by_one_from_the_stored_description() {
    let triggers: Vec<_> = (0..10)
        .map(|n| json!({"name": format!("t{n}"), "on": "pull_request",
            "filter": format!("event.action in ['opened', 'updated'] && event.base.branch == 'b{n}'")}))
        .collect();
    let set =
        TriggerSet::new([definition("ci", "acme/api", json!(triggers))], &EventKind::PULL_REQUEST);
    let input = MatchInput::new(Arc::new(pull_request_event("b4")), Arc::new(NoDetails));
    let decision = block_on(set.decide(&input, &Filters::default())).unwrap();
    let guard = Guard {
        set: Arc::clone(set.digest()),
        path: "event.base.branch".into(),
        saw: json!("b4"),
        rejected: 9,
    };
    assert_eq!(
        decision,
        SetDecision { verdicts: vec![(4, matched())], guards: vec![guard.clone()] }
    );
    let stored = serde_json::from_str(&set.describe().to_string()).unwrap();
    let told = expand_described(&stored, &guard);
    assert_eq!(told.len(), 9);
    assert_eq!(told, set.expand(&guard));
    let (workflow, trigger, why) = &told[0];
    assert_eq!((workflow.to_string().as_str(), &**trigger), ("ci", "t0"));
    assert_eq!(
        Verdict::Rejected(why.clone()),
        rejected(
            "filter",
            "event.action in ['opened', 'updated'] && event.base.branch == 'b0'",
            json!("b4")
        )
    );
    assert!(told.iter().all(|(_, trigger, _)| &**trigger != "t4"));
}

#[test]
fn the_digest_is_that_of_the_content() {
    let set = |branch: &str| {
        let triggers: Vec<_> = (0..10)
            .map(|n| json!({"name": format!("t{n}"), "on": "push", "branches": [format!("{branch}{n}")]}))
            .collect();
        TriggerSet::new([definition("ci", "acme/api", json!(triggers))], &EventKind::PUSH)
    };
    assert_eq!(set("a").digest(), set("a").digest());
    assert_ne!(set("a").digest(), set("b").digest());
}

fn any_trigger() -> impl Strategy<Value = Value> {
    let branch = || prop::sample::select(vec!["main", "dev", "release/1", "x"]);
    let filter = prop_oneof![
        Just(None),
        branch().prop_map(|b| Some(format!("event.base.branch == '{b}'"))),
        (branch(), branch()).prop_map(|(a, b)| Some(format!(
            "event.base.branch in ['{a}', '{b}'] && event.sender == 'ada'"
        ))),
        branch().prop_map(|b| Some(format!("event.base.branch == '{b}' || event.sender == 'ada'"))),
        (branch(), branch()).prop_map(|(a, b)| Some(format!(
            "event.base.branch in ['main', 'x', '{a}'] && event.base.branch == '{b}'"
        ))),
        Just(Some("event.action in ['opened']".to_owned())),
        Just(Some("body.x == 'y'".to_owned())),
        Just(Some("body.missing == 'y' && event.action == 'opened'".to_owned())),
    ];
    let branches = prop_oneof![
        Just(None),
        branch().prop_map(|b| Some(json!([b]))),
        Just(Some(json!(["release/*"]))),
        branch().prop_map(|b| Some(json!({"exclude": [b]}))),
    ];
    (filter, branches).prop_map(|(filter, branches)| {
        let mut trigger = json!({"on": "pull_request"});
        if let Some(filter) = filter {
            trigger["filter"] = json!(filter);
        }
        if let Some(branches) = branches {
            trigger["branches"] = branches;
        }
        trigger
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A large set says of each trigger what the trigger alone says, or tells it by a guard.
    #[test]
    fn tables_change_no_answer_and_lose_none(
        mut triggers in prop::collection::vec(any_trigger(), 1..40),
        branch in prop::sample::select(vec!["main", "dev", "release/1", "other"]),
        body in prop::sample::select(vec![r#"{"x": "y"}"#, "{}", "not json"]),
    ) {
        for (n, trigger) in triggers.iter_mut().enumerate() {
            trigger["name"] = json!(format!("t{n}"));
        }
        let details: Arc<dyn EventDetails> = Arc::new(Counted { body, ..Counted::default() });
        let input = MatchInput::new(Arc::new(pull_request_event(branch)), details);
        let filters = Filters::default();
        let all = TriggerSet::new([definition("ci", "r", json!(triggers))], &EventKind::PULL_REQUEST);
        let decision = block_on(all.decide(&input, &filters)).unwrap();
        let mut ruled_out = Vec::new();
        for guard in &decision.guards {
            let told = all.expand(guard);
            prop_assert_eq!(told.len(), guard.rejected as usize);
            ruled_out.extend(told.into_iter().map(|(_, trigger, _)| trigger));
        }
        for (place, trigger) in triggers.iter().enumerate() {
            let alone = TriggerSet::new([definition("ci", "r", json!([trigger]))], &EventKind::PULL_REQUEST);
            let expected = block_on(alone.decide(&input, &filters)).unwrap().verdicts.remove(0).1;
            let name = trigger["name"].as_str().unwrap();
            let ruled_out = ruled_out.iter().filter(|other| &***other == name).count();
            match decision.verdicts.iter().find(|(other, _)| *other == place) {
                Some((_, verdict)) => {
                    prop_assert_eq!(verdict, &expected);
                    prop_assert_eq!(ruled_out, 0);
                }
                None => {
                    prop_assert!(matches!(expected, Verdict::Rejected(_)), "{:?}", expected);
                    prop_assert_eq!(ruled_out, 1);
                }
            }
        }
    }
}
