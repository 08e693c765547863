//! GitHub's webhook events: every published example, what becomes of each kind, and bytes that are no
//! events at all.

use std::{collections::BTreeMap, io::Write, path::PathBuf, sync::LazyLock};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use workflows_core::{
    CancelMode, Error, RunKey, SubjectClaim, Verified,
    engine::{Command, RerunOf},
    event::{Before, Comment, Lacks, Occurrence, PullRequestState},
};
use workflows_scm::{
    github::{GitHubDeliveries, GitHubDriver},
    webhook::{AccessChange, Delivery, DeliveryFormat, DeliveryHeaders, Told},
};

static DELIVERIES: LazyLock<GitHubDeliveries> =
    LazyLock::new(|| GitHubDriver::builder().allow("acme/*").build().unwrap().deliveries());

fn headers(event: &str) -> DeliveryHeaders {
    DeliveryHeaders::new([("X-GitHub-Event", event), ("X-GitHub-Delivery", "guid-1")])
}

fn try_decode(event: &str, body: impl Into<Bytes>) -> Result<Delivery, Error> {
    DELIVERIES.decode(&headers(event), &Verified::fetched(body.into()))
}

fn decode(event: &str, body: &Value) -> Delivery {
    try_decode(event, body.to_string()).unwrap()
}

fn claim(event: &str, body: &Value) -> SubjectClaim {
    match decode(event, body).told {
        Told::Claims(mut claims) if claims.len() == 1 => claims.remove(0),
        told => panic!("not one claim: {told:?}"),
    }
}

fn occurrence(event: &str, body: &Value) -> Occurrence {
    match claim(event, body) {
        SubjectClaim::Occurrence(occurrence) => *occurrence,
        claim => panic!("no occurrence: {claim:?}"),
    }
}

fn no_interest(event: &str, body: &Value) -> String {
    match decode(event, body).told {
        Told::Nothing(reason) => reason,
        told => panic!("of interest: {told:?}"),
    }
}

fn command(event: &str, body: &Value) -> Value {
    let occurrence = occurrence(event, body);
    assert_eq!(occurrence.kind.as_str(), "command");
    assert_eq!(&*occurrence.id, "guid-1", "the delivery is the idempotency key");
    json!(occurrence.data)
}

fn data_of(command: Command) -> Value {
    json!(command.occurrence("guid-1").data)
}

fn sha(digit: char) -> String {
    String::from(digit).repeat(40)
}

fn with(mut body: Value, more: Value) -> Value {
    let (Value::Object(body_members), Value::Object(more)) = (&mut body, more) else {
        panic!("two objects")
    };
    body_members.extend(more);
    body
}

fn base() -> Value {
    json!({
        "repository": {"id": 1, "full_name": "acme/api"},
        "sender": {"login": "ada", "type": "User"},
    })
}

fn pull_request() -> Value {
    json!({
        "number": 7, "title": "Add a thing", "user": {"login": "bob"}, "draft": false,
        "state": "open", "merged": false, "merged_at": null,
        "head": {"ref": "topic", "sha": sha('1'), "repo": {"id": 1}},
        "base": {"ref": "main", "sha": sha('2'), "repo": {"id": 1}},
        "labels": [{"name": "bug"}], "html_url": "https://github.com/acme/api/pull/7",
        "updated_at": "2026-01-02T03:04:05Z",
    })
}

// --- every published example ---------------------------------------------------------------------

/// Says it around what captures the output of tests that pass.
fn aloud(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn every_published_example_is_taken_in_or_recorded_as_of_no_interest() {
    let path = std::env::var_os("WORKFLOWS_GITHUB_EXAMPLES").map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(
                "../target/npm/node_modules/@octokit/webhooks-examples/api.github.com/index.json",
            )
        },
        PathBuf::from,
    );
    let Ok(text) = std::fs::read(&path) else {
        let skipped = format!(
            "GitHub's published webhook examples are not at {}; `npm install \
             @octokit/webhooks-examples` in target/npm, or name the file in \
             WORKFLOWS_GITHUB_EXAMPLES",
            path.display()
        );
        let may_skip = std::env::var("WORKFLOWS_TESTS_MAY_SKIP").as_deref() != Ok("0");
        assert!(may_skip, "{skipped}");
        aloud(&format!("SKIPPED: {skipped}"));
        return;
    };
    let events: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for event in &events {
        let name = event["name"].as_str().unwrap();
        for example in event["examples"].as_array().unwrap() {
            let counted = match try_decode(name, example.to_string()).map(|one| one.told) {
                Ok(Told::Claims(claims)) => match &claims[..] {
                    [SubjectClaim::Ref(_)] => "refs",
                    [SubjectClaim::PullRequest(_)] => "pull requests",
                    [SubjectClaim::Label(_)] => "labels",
                    [SubjectClaim::Occurrence(one)] if one.comment.is_some() => "comments",
                    [SubjectClaim::Occurrence(one)] if one.kind.as_str() == "command" => "commands",
                    [SubjectClaim::Occurrence(_)] => "other events",
                    claims => panic!("{name}: {claims:?}"),
                },
                Ok(Told::AccessChanged(_)) => "changes of access",
                Ok(Told::Nothing(_)) => "of no interest",
                Err(error) => {
                    problems.push(format!("{name} {}: {error}", example["action"]));
                    continue;
                }
            };
            *counts.entry(counted).or_default() += 1;
        }
    }
    let all: usize = counts.values().sum();
    aloud(&format!("{} kinds of events, {all} examples: {counts:?}", events.len()));
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(all >= 300, "the examples are not whole: {all}");
    for some in ["refs", "pull requests", "labels", "comments", "commands", "other events"] {
        assert!(counts.contains_key(some), "no example was taken for {some}: {counts:?}");
    }
}

// --- refs ----------------------------------------------------------------------------------------

fn push(more: Value) -> Value {
    let members = json!({
        "ref": "refs/heads/release/1.0", "before": sha('1'), "after": sha('2'),
        "created": false, "deleted": false, "forced": true, "commits": [],
        "head_commit": {"id": sha('2')},
    });
    with(with(base(), members), more)
}

fn pushed(more: Value) -> (String, Before, Option<String>, Option<bool>) {
    match claim("push", &push(more)) {
        SubjectClaim::Ref(claim) => (
            claim.name.to_string(),
            claim.before,
            claim.after.map(|commit| commit.to_string()),
            claim.forced,
        ),
        claim => panic!("{claim:?}"),
    }
}

#[test]
fn a_push_tells_where_a_branch_was_and_is() {
    let delivery = decode("push", &push(json!({})));
    assert_eq!(delivery.id.as_str(), "guid-1");
    assert_eq!(&*delivery.what, "push");
    assert_eq!(delivery.sender.as_deref(), Some("ada"));
    let repo = delivery.repo.unwrap();
    assert_eq!((repo.id.as_str(), &*repo.name), ("github.com/1", "acme/api"));

    let was = |digit| Before::Was(Some(sha(digit).parse().unwrap()));
    let branch = "refs/heads/release/1.0".to_owned();
    assert_eq!(pushed(json!({})), (branch.clone(), was('1'), Some(sha('2')), Some(true)));
    let created = json!({"before": sha('0'), "forced": false});
    assert_eq!(pushed(created), (branch.clone(), Before::Was(None), Some(sha('2')), Some(false)));
    let deleted = json!({"after": sha('0'), "head_commit": null});
    assert_eq!(pushed(deleted), (branch, was('1'), None, None));
}

#[test]
fn an_annotated_tag_stands_at_the_commit_that_it_marks() {
    let tag = |more| pushed(with(json!({"ref": "refs/tags/v1"}), more));
    let name = "refs/tags/v1".to_owned();
    let created = tag(json!({"before": sha('0'), "after": sha('a')}));
    assert_eq!(created, (name.clone(), Before::Was(None), Some(sha('2')), None));
    let moved = tag(json!({"before": sha('b'), "after": sha('a')}));
    assert_eq!(moved, (name.clone(), Before::Unknown, Some(sha('2')), None));
    let gone = tag(json!({"before": sha('a'), "after": sha('0'), "head_commit": null}));
    assert_eq!(gone, (name, Before::Unknown, None, None));
}

#[test]
fn what_is_no_branch_or_tag_and_what_a_push_tells_better_are_of_no_interest() {
    assert!(no_interest("push", &push(json!({"ref": "refs/notes/x"}))).contains("neither"));
    let created = with(base(), json!({"ref": "v1", "ref_type": "tag"}));
    assert!(no_interest("create", &created).contains("push"));
    assert!(no_interest("delete", &created).contains("push"));
}

// --- pull requests -------------------------------------------------------------------------------

fn pulled(action: &str, more: Value) -> Value {
    let body = with(base(), json!({"action": action, "pull_request": pull_request()}));
    with(body, more)
}

#[test]
fn a_changed_pull_request_is_told_whole() {
    for action in
        ["opened", "reopened", "synchronize", "closed", "ready_for_review", "converted_to_draft"]
    {
        match claim("pull_request", &pulled(action, json!({}))) {
            SubjectClaim::PullRequest(claim) => {
                let told = claim.pull_request;
                assert_eq!((told.number, &*told.author, told.fork), (7, "bob", false));
                assert_eq!(&*told.base.reference, "refs/heads/main");
                assert_eq!(told.state, PullRequestState::Open);
            }
            claim => panic!("{action}: {claim:?}"),
        }
    }
    assert_eq!(&*decode("pull_request", &pulled("opened", json!({}))).what, "pull_request.opened");
}

#[test]
fn of_edits_only_another_base_counts() {
    let retargeted = pulled("edited", json!({"changes": {"base": {"ref": {"from": "old"}}}}));
    assert!(matches!(claim("pull_request", &retargeted), SubjectClaim::PullRequest(_)));
    let retitled = pulled("edited", json!({"changes": {"title": {"from": "old"}}}));
    assert!(no_interest("pull_request", &retitled).contains("title"));
    for action in ["assigned", "locked", "review_requested", "milestoned", "enqueued", "invented"] {
        no_interest("pull_request", &pulled(action, json!({})));
    }
}

#[test]
fn a_label_is_told_with_its_pull_request() {
    for (action, present) in [("labeled", true), ("unlabeled", false)] {
        match claim("pull_request", &pulled(action, json!({"label": {"name": "run me"}}))) {
            SubjectClaim::Label(claim) => {
                assert_eq!((&*claim.label, claim.present), ("run me", present));
                assert_eq!(claim.pull_request.number, 7);
            }
            claim => panic!("{claim:?}"),
        }
        no_interest("pull_request", &pulled(action, json!({})));
    }
}

// --- comments ------------------------------------------------------------------------------------

fn written(body: &str) -> Value {
    json!({
        "id": 99, "user": {"login": "ada"}, "body": body, "author_association": "OWNER",
        "created_at": "2026-01-02T03:04:05Z", "commit_id": sha('3'),
    })
}

fn said(occurrence: &Occurrence) -> (&str, &str, &str) {
    let Comment { id, author, body, .. } = occurrence.comment.as_ref().unwrap();
    (id, author, body)
}

#[test]
fn a_comment_on_a_pull_request_lacks_it_until_something_hangs_on_it() {
    let issue = json!({"number": 7, "pull_request": {"url": "x"}});
    let body = |action: &str, issue: Value| {
        with(base(), json!({"action": action, "issue": issue, "comment": written("/test")}))
    };
    let comment = occurrence("issue_comment", &body("created", issue.clone()));
    assert_eq!(said(&comment), ("99", "ada", "/test"));
    assert_eq!(comment.lacks, Some(Lacks::PullRequest { number: 7 }));
    assert_eq!(comment.pull_request, None);
    assert_eq!(comment.occurred_at, Some("2026-01-02T03:04:05Z".parse().unwrap()));

    no_interest("issue_comment", &body("created", json!({"number": 7})));
    no_interest("issue_comment", &body("edited", issue.clone()));
    no_interest("issue_comment", &body("deleted", issue));
}

#[test]
fn comments_on_lines_and_reviews_come_with_their_pull_request_when_it_is_told_whole() {
    let on_line = with(pulled("created", json!({})), json!({"comment": written("/test")}));
    let line = occurrence("pull_request_review_comment", &on_line);
    assert_eq!(said(&line), ("line-99", "ada", "/test"));
    assert_eq!(line.pull_request.unwrap().number, 7);

    let mut without_draft = on_line;
    without_draft["pull_request"].as_object_mut().unwrap().remove("draft");
    let line = occurrence("pull_request_review_comment", &without_draft);
    assert_eq!((line.pull_request, line.lacks), (None, Some(Lacks::PullRequest { number: 7 })));

    let review = |text: Value| {
        let mut review = written("");
        review["body"] = text;
        with(pulled("submitted", json!({})), json!({"review": review}))
    };
    let told = occurrence("pull_request_review", &review("/retest".into()));
    assert_eq!(said(&told), ("review-99", "ada", "/retest"));
    no_interest("pull_request_review", &review(Value::Null));
    no_interest("pull_request_review", &review(" \n".into()));
}

#[test]
fn a_comment_on_a_commit_is_for_that_commit() {
    let body = with(base(), json!({"action": "created", "comment": written("nice")}));
    let comment = occurrence("commit_comment", &body);
    assert_eq!(said(&comment).0, "commit-99");
    assert_eq!(comment.head.unwrap().sha.as_str(), sha('3'));
}

#[test]
fn an_account_that_is_gone_has_a_name() {
    let mut comment = written("x");
    comment["user"] = Value::Null;
    let mut body = with(base(), json!({"action": "created", "comment": comment}));
    body["sender"] = Value::Null;
    assert_eq!(said(&occurrence("commit_comment", &body)).1, "ghost");
    assert_eq!(decode("commit_comment", &body).sender, None);
}

// --- checks --------------------------------------------------------------------------------------

#[test]
fn buttons_of_checks_are_commands() {
    let check = |external_id: &str, more: Value| {
        let check = json!({"head_sha": sha('4'), "external_id": external_id});
        with(with(base(), json!({"check_run": check})), more)
    };
    let commit = || sha('4').parse().unwrap();
    let again = json!({"action": "rerequested"});
    let shown = RerunOf::Shown { external_id: "run-key".into(), commit: commit() };
    let rerun = data_of(Command::Rerun { of: shown });
    assert_eq!(command("check_run", &check("run-key", again.clone())), rerun);
    no_interest("check_run", &check("", again));
    no_interest("check_run", &check("run-key", json!({"action": "completed"})));

    let pressed = |identifier: &str| {
        let more = json!({"action": "requested_action",
            "requested_action": {"identifier": identifier}});
        check("run-key", more)
    };
    assert_eq!(
        command("check_run", &pressed("approve:7")),
        data_of(Command::Approve { pull_request: 7, head: commit() })
    );
    let run = RunKey::from("run-key".to_owned());
    assert_eq!(
        command("check_run", &pressed("cancel")),
        data_of(Command::Cancel { run, mode: CancelMode::RunFinally })
    );
    assert_eq!(command("check_run", &pressed("rerun")), rerun);
    assert!(no_interest("check_run", &pressed("fix_lint")).contains("another program"));

    let suite =
        with(base(), json!({"action": "rerequested", "check_suite": {"head_sha": sha('4')}}));
    let all = Command::Rerun { of: RerunOf::All { commit: commit() } };
    assert_eq!(command("check_suite", &suite), data_of(all));
    no_interest("check_suite", &with(suite, json!({"action": "requested"})));
}

// --- the rest ------------------------------------------------------------------------------------

#[test]
fn merge_groups_releases_and_dispatches_are_events_of_their_own_kinds() {
    let group = json!({"head_sha": sha('5'), "head_ref": "refs/heads/gh-readonly-queue/main/pr-7",
        "base_sha": sha('2'), "base_ref": "refs/heads/main"});
    let group = |action: &str| with(base(), json!({"action": action, "merge_group": group}));
    let told = occurrence("merge_group", &group("checks_requested"));
    assert_eq!(told.kind.as_str(), "merge_group");
    assert_eq!(told.head.unwrap().sha.as_str(), sha('5'));
    assert_eq!(told.data["base_ref"], "refs/heads/main");
    no_interest("merge_group", &group("destroyed"));

    let release = |action: &str, draft: bool| {
        let release = json!({"id": 3, "tag_name": "v1", "draft": draft, "prerelease": false,
            "name": null, "published_at": "2026-01-02T03:04:05Z"});
        with(base(), json!({"action": action, "release": release}))
    };
    let told = occurrence("release", &release("published", false));
    assert_eq!(told.lacks, Some(Lacks::Commit { reference: "refs/tags/v1".into() }));
    assert_eq!(&*told.id, "3/published/2026-01-02T03:04:05Z");
    no_interest("release", &release("edited", false));
    no_interest("release", &release("published", true));

    let dispatch = json!({"action": "deploy", "branch": "main", "client_payload": {"to": "prod"}});
    let told = occurrence("repository_dispatch", &with(base(), dispatch));
    assert_eq!(told.actions, ["deploy".into()]);
    assert_eq!(told.lacks, Some(Lacks::Commit { reference: "refs/heads/main".into() }));
    assert_eq!(told.data["payload"]["to"], "prod");
}

#[test]
fn installations_change_what_is_reached() {
    let body = |action: &str| {
        json!({
            "action": action,
            "installation": {"id": 1, "account": {"login": "acme"}},
            "repositories": [{"id": 1, "full_name": "acme/api"}],
            "repositories_added": [{"id": 2, "full_name": "acme/web"}],
            "repositories_removed": [{"id": 3, "full_name": "acme/old"}],
            "sender": {"login": "ada"},
        })
    };
    let change = |event: &str, action: &str| match decode(event, &body(action)).told {
        Told::AccessChanged(change) => change,
        told => panic!("{told:?}"),
    };
    let AccessChange { owner, added, removed } = change("installation", "created");
    assert_eq!(owner.as_deref(), Some("acme"));
    assert_eq!(added, ["acme/web".into(), "acme/api".into()]);
    assert_eq!(removed, ["acme/old".into()]);
    assert_eq!(change("installation", "deleted").removed, ["acme/old".into(), "acme/api".into()]);
}

#[test]
fn what_nobody_knows_is_recorded_and_no_error() {
    assert!(
        no_interest("ping", &json!({"zen": "Keep it simple.", "hook_id": 1})).contains("works")
    );
    no_interest("ping", &with(base(), json!({"zen": "Keep it simple."})));
    no_interest("invented", &with(base(), json!({"action": "made_up"})));
    no_interest("invented", &json!({}));
    no_interest("star", &json!({"repository": "not an object", "action": 7, "sender": []}));
    assert_eq!(&*decode("star", &with(base(), json!({"action": "created"}))).what, "star.created");
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let refused = |event: &str, body: Value, because: &str| {
        let error = try_decode(event, body.to_string()).unwrap_err();
        assert_eq!(error.kind(), workflows_core::ErrorKind::Invalid);
        let error = error.to_string();
        assert!(error.contains(because), "{error}");
        assert!(error.contains("guid-1") || because.contains("JSON"), "{error}");
    };
    refused("push", push(json!({"after": "main"})), "`after`: read a commit id");
    refused("push", with(base(), json!({})), "`ref` is missing");
    refused("pull_request", with(base(), json!({"action": "opened"})), "`pull_request` is missing");
    let mut body = pulled("opened", json!({}));
    body["pull_request"]["head"].as_object_mut().unwrap().remove("sha");
    refused("pull_request", body, "missing field `sha`");
    refused("push", json!([1]), "no JSON object");
    let nameless = DeliveryHeaders::new([("X-GitHub-Delivery", "guid-1")]);
    let error = DELIVERIES.decode(&nameless, &Verified::fetched(Bytes::new())).unwrap_err();
    assert!(error.to_string().contains("X-GitHub-Event"), "{error}");
}

#[test]
fn a_delivery_without_an_id_is_known_by_its_bytes() {
    let anonymous = DeliveryHeaders::new([("X-GitHub-Event", "push")]);
    let id = |body: Value| {
        let body = Verified::fetched(body.to_string().into());
        DELIVERIES.decode(&anonymous, &body).unwrap().id
    };
    assert_eq!(id(push(json!({}))), id(push(json!({}))));
    assert_ne!(id(push(json!({}))), id(push(json!({"forced": false}))));
    assert!(id(push(json!({}))).as_str().starts_with("sha256/"));
}

#[test]
fn repositories_that_the_driver_does_not_allow_are_not_served() {
    assert!(DELIVERIES.serves("Acme/API"));
    assert!(!DELIVERIES.serves("other/api"));
}

const EVENTS: &[&str] = &[
    "push",
    "create",
    "delete",
    "pull_request",
    "issue_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "commit_comment",
    "check_run",
    "check_suite",
    "merge_group",
    "release",
    "repository_dispatch",
    "installation",
    "installation_repositories",
    "repository",
    "ping",
    "star",
];

/// Bodies that have something of real ones.
fn seeds() -> Vec<(&'static str, Value)> {
    let check = json!({"head_sha": sha('4'), "external_id": "x"});
    vec![
        ("push", push(json!({}))),
        ("pull_request", pulled("opened", json!({}))),
        ("pull_request", pulled("labeled", json!({"label": {"name": "bug"}}))),
        (
            "pull_request_review",
            with(pulled("submitted", json!({})), json!({"review": written("x")})),
        ),
        ("commit_comment", with(base(), json!({"action": "created", "comment": written("x")}))),
        ("check_run", with(base(), json!({"action": "rerequested", "check_run": check}))),
        ("installation", json!({"action": "created", "installation": {"account": {"login": "a"}}})),
    ]
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_read_or_refused(
        event in proptest::sample::select(EVENTS),
        body in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = try_decode(event, body);
    }

    #[test]
    fn payloads_that_are_cut_or_changed_are_read_or_refused(
        which in 0..7_usize, cut in 0.0..1.0_f64, at in 0.0..1.0_f64, byte in any::<u8>(),
    ) {
        let (event, body) = seeds().swap_remove(which);
        let whole = body.to_string().into_bytes();
        let place = |share: f64| ((whole.len() as f64) * share) as usize;
        let _ = try_decode(event, whole[..place(cut)].to_vec());
        let mut changed = whole.clone();
        changed[place(at)] = byte;
        let _ = try_decode(event, changed);
    }

    #[test]
    fn members_of_another_shape_are_read_or_refused(
        which in 0..7_usize, member in any::<proptest::sample::Index>(), shape in 0..7_usize,
    ) {
        let (event, mut body) = seeds().swap_remove(which);
        let shapes = [json!(null), json!(true), json!(-1), json!(1e300), json!("x"), json!([[]]),
            json!({"id": {"id": 1}})];
        let mut paths = Vec::new();
        collect(&body, String::new(), &mut paths);
        let path = member.get(&paths).clone();
        *body.pointer_mut(&path).unwrap() = shapes[shape].clone();
        let _ = try_decode(event, body.to_string());
    }

    #[test]
    fn nesting_and_repetition_are_read_or_refused(depth in 0..20_000_usize, event in proptest::sample::select(EVENTS)) {
        for member in ["ref", "pull_request", "client_payload", "changes", "other", "repository"] {
            let nested = format!("{{\"{member}\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            let _ = try_decode(event, nested);
            let nested = format!("{{\"{member}\":{}1{}}}", "{\"a\":".repeat(depth), "}".repeat(depth));
            let _ = try_decode(event, nested);
        }
        let twice = format!("{{{}\"ref\":\"x\"}}", "\"ref\":1,".repeat(depth.min(1_000)));
        let _ = try_decode(event, twice);
    }
}

fn collect(value: &Value, at: String, paths: &mut Vec<String>) {
    paths.push(at.clone());
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                collect(value, format!("{at}/{name}"), paths);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect(value, format!("{at}/{index}"), paths);
            }
        }
        _ => {}
    }
}
