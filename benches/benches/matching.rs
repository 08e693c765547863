//! How long it takes to find what an event starts: through the index, and by asking everybody.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Value, json};
use workflows_core::{
    AttemptId, Event, EventKind, RepoRef, Tenant, Workflow,
    event::{PullRequest, PullRequestState, Revision, SubjectKey},
    matching::{
        Definition, Expression, Filters, Index, MatchInput, NoDetails, Pattern, SetDecision,
        TriggerSet, Variables, Verdict,
    },
    store::{Decision, DecisionBatch, Outcome},
};

fn event(repo: &str, kind: EventKind, branch: &str) -> Event {
    let sha = "3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d".parse().expect("a commit");
    let revision = |name: &str| Revision::new(Clone::clone(&sha), format!("refs/heads/{name}"));
    let pull_request = (kind == EventKind::PULL_REQUEST).then(|| PullRequest {
        number: 7,
        title: "Make it faster".to_owned(),
        author: "ada".into(),
        draft: false,
        state: PullRequestState::Open,
        head: revision("faster"),
        base: revision(branch),
        fork: false,
        labels: vec!["performance".into()],
        url: Some("https://example.com/acme/api/pull/7".to_owned()),
        updated_at: Timestamp::UNIX_EPOCH,
    });
    Event {
        sequence: 1,
        key: "default/1/pull/7/x/1".into(),
        tenant: Tenant::default(),
        repo: RepoRef { connection: "acme".into(), id: repo.into(), name: repo.into() },
        actions: vec![if kind == EventKind::PUSH { "updated".into() } else { "opened".into() }],
        kind,
        subject: SubjectKey::pull_request(7),
        unchained: false,
        head: Some(revision(if pull_request.is_some() { "faster" } else { branch })),
        base: Some(revision(branch)),
        pull_request,
        label: None,
        lacks: None,
        comment: None,
        sender: Some("ada".into()),
        data: BTreeMap::new(),
        occurred_at: Timestamp::UNIX_EPOCH,
        received_at: Timestamp::UNIX_EPOCH,
        source: "bench".into(),
        payload: None,
    }
}

fn definition(name: &str, repo: &str, triggers: Value) -> Arc<Definition> {
    let document = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {
            "repos": [{"name": "code", "connection": "acme", "repo": repo}],
            "triggers": triggers,
            "pipelineRef": {"name": "ci"},
        },
    });
    let workflow: Workflow = serde_json::from_value(document).expect("a workflow");
    Arc::new(Definition::registered(Tenant::default(), &workflow).expect("compiles"))
}

/// N workflows over N/10 repositories: ten repositories to an organisation, nine workflows that
/// name a repository to ten that are for all of an organisation.
fn fleet(n: usize) -> Vec<Arc<Definition>> {
    (0..n)
        .map(|i| {
            let (repo, nth) = (i / 10, i % 10);
            let name = match nth {
                9 => format!("org-{}/*", repo / 10),
                _ => format!("org-{}/repo-{repo}", repo / 10),
            };
            let branch = if nth == 9 { format!("all-{repo}") } else { format!("branch-{nth}") };
            let trigger = json!([{"name": "push", "on": "push", "branches": [branch]}]);
            definition(&format!("workflow-{i}"), &name, trigger)
        })
        .collect()
}

/// The decisions of a set as the ledger gets them.
fn record(event: &Event, set: &TriggerSet, decision: SetDecision) -> Vec<u8> {
    let decisions = decision
        .verdicts
        .into_iter()
        .map(|(place, verdict)| {
            let candidate = &set.candidates()[place];
            let workflow = candidate.definition().id().clone();
            let trigger = Arc::clone(candidate.trigger().name());
            let outcome = match verdict {
                Verdict::Matched { .. } => Outcome::Matched {
                    run: workflows_core::RunKey::of(
                        &event.tenant,
                        &workflow,
                        &trigger,
                        &event.key,
                        &AttemptId::first(),
                    ),
                },
                Verdict::Rejected(rejected) => Outcome::Rejected(rejected),
                Verdict::Failed { filter, error } => {
                    Outcome::Failed { filter: filter.to_string(), error }
                }
            };
            Decision { workflow, trigger, outcome }
        })
        .collect();
    let batch = DecisionBatch {
        id: 0,
        tenant: event.tenant.clone(),
        event: event.key.clone(),
        attempt: AttemptId::first(),
        decisions,
        guards: decision.guards,
        commands: Vec::new(),
        judged_by: BTreeMap::new(),
        at: Timestamp::UNIX_EPOCH,
    };
    serde_json::to_vec(&batch).expect("serialises")
}

/// Matches one event and records what was decided; how many matched.
fn decide(index: &Index, event: &Arc<Event>, filters: &Filters) -> usize {
    let Some(set) = index.triggers(&event.tenant, &event.repo, &event.kind) else { return 0 };
    decide_set(&set, event, filters)
}

fn decide_set(set: &TriggerSet, event: &Arc<Event>, filters: &Filters) -> usize {
    let input = MatchInput::new(Arc::clone(event), Arc::new(NoDetails));
    let decision = futures::executor::block_on(set.decide(&input, filters)).expect("decides");
    let matched = |(_, verdict): &&(usize, Verdict)| matches!(verdict, Verdict::Matched { .. });
    let matches = decision.verdicts.iter().filter(matched).count();
    black_box(record(event, set, decision));
    matches
}

fn one_event_against_a_fleet(criterion: &mut Criterion) {
    let filters = Filters::default();
    let mut group = criterion.benchmark_group("one_event_of_n_workflows");
    for n in [100, 1_000, 10_000, 100_000] {
        let definitions = fleet(n);
        let index = Index::new();
        for definition in &definitions {
            index.upsert(Arc::clone(definition)).expect("a pattern");
        }
        let repo = n / 20;
        let name = format!("org-{}/repo-{repo}", repo / 10);
        let event = Arc::new(event(&name, EventKind::PUSH, "branch-4"));
        assert_eq!(decide(&index, &event, &filters), 1);
        group.bench_function(BenchmarkId::new("index", n), |bencher| {
            bencher.iter(|| decide(&index, &event, &filters));
        });
        // The set of a repository's triggers is made anew after a change.
        group.bench_function(BenchmarkId::new("index_after_a_change", n), |bencher| {
            bencher.iter_batched(
                || index.upsert(Arc::clone(&definitions[repo * 10])).expect("a pattern"),
                |()| decide(&index, &event, &filters),
                BatchSize::PerIteration,
            );
        });
        if n <= 10_000 {
            let patterns: Vec<Pattern> =
                definitions.iter().map(|d| Pattern::new(d.repo()).expect("a pattern")).collect();
            group.bench_function(BenchmarkId::new("scan", n), |bencher| {
                bencher.iter(|| {
                    let of_repo = definitions
                        .iter()
                        .zip(&patterns)
                        .filter(|(_, pattern)| pattern.matches(&event.repo.name))
                        .map(|(definition, _)| Arc::clone(definition));
                    decide_set(&TriggerSet::new(of_repo, &event.kind), &event, &filters)
                });
            });
        }
    }
    group.finish();
}

fn one_event_against_many_filters(criterion: &mut Criterion) {
    let filters = Filters::default();
    let event = Arc::new(event("acme/api", EventKind::PULL_REQUEST, "main"));
    let mut group = criterion.benchmark_group("one_event_of_n_filters");
    for n in [100, 1_000, 5_000] {
        let source = |i: usize| {
            let branch = if i == n / 2 { "main".to_owned() } else { format!("branch-{i}") };
            format!("event.action in ['opened', 'updated'] && event.base.branch == '{branch}'")
        };
        let definitions = (0..n).map(|i| {
            let trigger = json!([{"name": "pr", "on": "pull_request", "filter": source(i)}]);
            definition(&format!("workflow-{i}"), "acme/api", trigger)
        });
        let set = TriggerSet::new(definitions, &EventKind::PULL_REQUEST);
        assert_eq!(decide_set(&set, &event, &filters), 1);
        group.bench_function(BenchmarkId::new("table", n), |bencher| {
            bencher.iter(|| decide_set(&set, &event, &filters));
        });
        // The same where nothing can be ruled out by a table.
        let definitions = (0..n).map(|i| {
            let filter = format!("!({})", source(i).replace("==", "!="));
            let trigger = json!([{"name": "pr", "on": "pull_request", "filter": filter}]);
            definition(&format!("workflow-{i}"), "acme/api", trigger)
        });
        let set = TriggerSet::new(definitions, &EventKind::PULL_REQUEST);
        group.bench_function(BenchmarkId::new("each_evaluated", n), |bencher| {
            bencher.iter(|| decide_set(&set, &event, &filters));
        });
    }
    group.finish();
}

fn expressions(criterion: &mut Criterion) {
    let event = event("acme/api", EventKind::PULL_REQUEST, "main").view();
    let variables = Variables::of_event(&event);
    let mut group = criterion.benchmark_group("expression");
    for (name, source) in [
        ("compared", "event.action in ['opened', 'updated'] && event.base.branch == 'main'"),
        ("evaluated", "event.base.branch != 'dev' && !event.pull_request.draft"),
        ("labels", "event.pull_request.labels.exists(l, l.startsWith('perf'))"),
        ("regex", "event.pull_request.title.matches('(?i)^make')"),
    ] {
        let expression = Expression::compile(source).expect("compiles");
        assert_eq!(expression.evaluate(&variables), Ok(true));
        group.bench_function(name, |bencher| bencher.iter(|| expression.evaluate(&variables)));
        group.bench_function(format!("{name}_compile"), |bencher| {
            bencher.iter(|| Expression::compile(source));
        });
    }
    // The worst that one evaluation may do, ended by its limit.
    let body = json!({"list": vec!["some text"; 20_000], "text": "aé ".repeat(80_000)});
    let mut variables = Variables::of_event(&event);
    variables.body = Some(&body);
    for (name, source) in [
        ("worst_loop", "body.list.all(x, body.list.all(y, x == y || y == x && x != 'z'))"),
        ("worst_regex", r"body.text.matches('(\\w+\\s?)*x$|(\\w|\\s)*y$')"),
    ] {
        let expression = Expression::compile(source).expect("compiles");
        group.bench_function(name, |bencher| bencher.iter(|| expression.evaluate(&variables)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = one_event_against_a_fleet, one_event_against_many_filters, expressions
}
criterion_main!(benches);
