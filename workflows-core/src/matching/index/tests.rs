//! That the index finds what a plain search finds.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    Tenant,
    matching::testing::{definition, workflow},
};

fn repo(connection: &str, name: &str) -> RepoRef {
    RepoRef { connection: connection.into(), id: name.into(), name: name.into() }
}

fn in_scope(
    tenant: &str,
    connection: &str,
    name: &str,
    pattern: &str,
    kind: &str,
) -> Arc<Definition> {
    let workflow = workflow(name, pattern, json!([{"name": "t", "on": kind}]));
    let tenant = Tenant::new(tenant).unwrap();
    let id = WorkflowId::registered(name);
    Arc::new(Definition::new(tenant, id, connection.into(), pattern, &workflow).unwrap())
}

fn found(index: &Index, tenant: &str, repo: &RepoRef, kind: &str) -> Vec<String> {
    let set = index.triggers(&Tenant::new(tenant).unwrap(), repo, &EventKind::new(kind));
    let names =
        set.iter().flat_map(|set| set.candidates()).map(|c| c.definition().id().to_string());
    names.collect()
}

#[test]
fn a_workflow_is_found_by_tenant_connection_repository_and_kind() {
    let index = Index::new();
    index.upsert(in_scope("a", "acme", "named", "acme/api", "push")).unwrap();
    index.upsert(in_scope("a", "acme", "all", "acme/*", "push")).unwrap();
    index.upsert(in_scope("b", "acme", "other", "acme/api", "push")).unwrap();
    assert_eq!(found(&index, "a", &repo("acme", "acme/api"), "push"), ["all", "named"]);
    assert_eq!(found(&index, "a", &repo("acme", "acme/web"), "push"), ["all"]);
    assert_eq!(found(&index, "b", &repo("acme", "acme/api"), "push"), ["other"]);
    assert!(found(&index, "a", &repo("other", "acme/api"), "push").is_empty());
    assert!(found(&index, "a", &repo("acme", "acme/api"), "tag").is_empty());
    assert!(found(&index, "a", &repo("acme", "acme/sub/api"), "push").is_empty());
}

#[test]
fn a_change_is_seen_by_the_next_question() {
    let index = Index::new();
    let api = repo("acme", "acme/api");
    index.upsert(in_scope("a", "acme", "ci", "acme/api", "push")).unwrap();
    assert_eq!(found(&index, "a", &api, "push"), ["ci"]);
    index.upsert(in_scope("a", "acme", "ci", "acme/web", "push")).unwrap();
    assert!(found(&index, "a", &api, "push").is_empty());
    assert_eq!(found(&index, "a", &repo("acme", "acme/web"), "push"), ["ci"]);
    index.upsert(in_scope("a", "acme", "ci", "acme/*", "push")).unwrap();
    assert_eq!(found(&index, "a", &api, "push"), ["ci"]);
    assert_eq!(index.len(), 1);
    let tenant = Tenant::new("a").unwrap();
    assert!(index.remove(&tenant, &WorkflowId::registered("ci")).is_some());
    assert!(index.remove(&tenant, &WorkflowId::registered("ci")).is_none());
    assert!(found(&index, "a", &api, "push").is_empty());
    assert!(index.is_empty());
}

#[test]
fn a_pattern_that_is_none_is_refused_and_changes_nothing() {
    let index = Index::new();
    let error = index.upsert(in_scope("a", "acme", "ci", "acme/**x", "push")).unwrap_err();
    assert!(error.starts_with("`**` must stand alone"), "{error}");
    assert!(index.is_empty());
}

#[test]
fn interests_name_the_repositories_the_kinds_and_the_narrowest_prefixes() {
    let index = Index::new();
    index
        .upsert(definition(
            "ci",
            "acme/api",
            json!([
                {"name": "a", "on": "push", "branches": ["main", "release/*", "release/1"]},
                {"name": "b", "on": "tag"},
                {"name": "c", "on": "pull_request", "branches": ["x"]},
            ]),
        ))
        .unwrap();
    index
        .upsert(definition(
            "night",
            "acme/*",
            json!([
                {"name": "n", "on": "schedule",
                 "schedule": {"cron": "@daily", "ref": "nightly", "asOf": "7d"}},
                {"name": "o", "on": "schedule", "schedule": {"cron": "@daily", "ref": "now"}},
            ]),
        ))
        .unwrap();
    let interests = index.interests();
    assert_eq!(interests.repos.len(), 1);
    let interest = interests.repos.first().unwrap();
    assert_eq!(&*interest.repo, "acme/api");
    let kinds: Vec<_> = interest.kinds.iter().map(EventKind::as_str).collect();
    assert_eq!(kinds, ["pull_request", "push", "schedule", "tag"]);
    let prefixes: Vec<_> = interest.ref_prefixes.iter().map(|prefix| &**prefix).collect();
    assert_eq!(
        prefixes,
        ["refs/heads/main", "refs/heads/nightly", "refs/heads/release/", "refs/tags/"]
    );
}

#[test]
fn a_schedule_that_looks_back_has_its_ref_watched_whatever_that_is_called() {
    let watched = |schedule: serde_json::Value| {
        let index = Index::new();
        let trigger = json!([{"name": "n", "on": "schedule", "schedule": schedule}]);
        index.upsert(definition("night", "acme/api", trigger)).unwrap();
        let interests = index.interests();
        let prefixes = interests.repos.first().unwrap().ref_prefixes.iter();
        prefixes.map(ToString::to_string).collect::<Vec<_>>()
    };
    let daily = |reference: Option<&str>, as_of: serde_json::Value| {
        let mut schedule = json!({"cron": "@daily", "asOf": as_of});
        if let Some(reference) = reference {
            schedule["ref"] = reference.into();
        }
        watched(schedule)
    };
    assert_eq!(daily(None, json!("7d")), ["refs/heads/"]);
    assert_eq!(daily(Some("v1"), json!("7d")), ["refs/heads/v1", "refs/tags/v1"]);
    assert_eq!(daily(Some("refs/tags/v1"), json!("7d")), ["refs/tags/v1"]);
    assert!(daily(Some("v1"), json!({"succeededIn": "ci"})).is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Upsert {
        tenant: &'static str,
        connection: &'static str,
        name: String,
        pattern: String,
        kind: &'static str,
    },
    Remove {
        tenant: &'static str,
        name: String,
    },
    Ask {
        tenant: &'static str,
        connection: &'static str,
        repo: String,
        kind: &'static str,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let tenant = || prop::sample::select(vec!["a", "b"]);
    let connection = || prop::sample::select(vec!["one", "two"]);
    let kind = || prop::sample::select(vec!["push", "tag"]);
    let pattern = "(a|b|ab)/(x|y|xy|\\*|x\\*|\\*y|\\*\\*|\\?)|\\*\\*|\\*\\*/\\*y|\\*|a/x/\\*|é\\*";
    let repo = "(a|b|ab)/(x|y|xy|x/y)|a|é|éa";
    prop_oneof![
        2 => (tenant(), connection(), "w[0-9]", pattern, kind()).prop_map(
            |(tenant, connection, name, pattern, kind)| Step::Upsert { tenant, connection, name, pattern, kind }
        ),
        1 => (tenant(), "w[0-9]").prop_map(|(tenant, name)| Step::Remove { tenant, name }),
        3 => (tenant(), connection(), repo, kind())
            .prop_map(|(tenant, connection, repo, kind)| Step::Ask { tenant, connection, repo, kind }),
    ]
}

proptest! {
    #[test]
    fn the_index_finds_what_a_plain_search_finds(steps in prop::collection::vec(step(), 1..60)) {
        let index = Index::new();
        let mut plain: BTreeMap<(String, String), Arc<Definition>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Upsert { tenant, connection, name, pattern, kind } => {
                    let definition = in_scope(tenant, connection, &name, &pattern, kind);
                    index.upsert(Arc::clone(&definition)).unwrap();
                    plain.insert((tenant.to_owned(), name), definition);
                }
                Step::Remove { tenant, name } => {
                    index.remove(&Tenant::new(tenant).unwrap(), &WorkflowId::registered(name.as_str()));
                    plain.remove(&(tenant.to_owned(), name));
                }
                Step::Ask { tenant, connection, repo: name, kind } => {
                    let expected: Vec<String> = plain
                        .iter()
                        .filter(|((of, _), d)| of == tenant && d.connection().as_str() == connection)
                        .filter(|(_, d)| d.triggers()[0].kind().as_str() == kind)
                        .filter(|(_, d)| Pattern::new(d.repo()).unwrap().matches(&name))
                        .map(|((_, name), _)| name.clone())
                        .collect();
                    prop_assert_eq!(found(&index, tenant, &repo(connection, &name), kind), expected);
                    let anew = Index::new();
                    plain.values().for_each(|one| anew.upsert(Arc::clone(one)).unwrap());
                    prop_assert_eq!(index.interests(), anew.interests());
                }
            }
            prop_assert_eq!(index.len(), plain.len());
        }
    }
}
