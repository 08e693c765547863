use std::collections::BTreeMap;

use serde_json::json;
use workflows_core::{EventKind, WorkflowId, event::SubjectKey, policy::Approval};

use super::*;

fn tenant() -> Tenant {
    Tenant::new("team-a").unwrap()
}

fn repo() -> RepoRef {
    RepoRef { connection: "acme".into(), id: "1".into(), name: "acme/api".into() }
}

/// A policy of the team's with this spec, as it is written.
fn policy(spec: Value) -> ClusterPolicy {
    let rules = serde_json::from_value::<PolicySpec>(spec).map_err(|error| error.to_string());
    let named = NamedPolicy {
        name: "granted".to_owned(),
        uid: "u".to_owned(),
        generation: 1,
        rules: rules.and_then(Rules::compile),
    };
    let policy = ClusterPolicy::new(None, "tekton".to_owned());
    policy.set(BTreeMap::from([(tenant(), vec![named].into())]));
    policy
}

/// A run with this spec, which is made through this sink and tells these.
struct Planned {
    spec: Value,
    sink: &'static str,
    notifiers: Vec<&'static str>,
}

fn run(spec: Value) -> Planned {
    Planned { spec, sink: "tekton", notifiers: Vec::new() }
}

async fn judged(policy: &ClusterPolicy, in_repository: bool, planned: &Planned) -> Verdict {
    let pipeline_run = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "ci-1"},
        "spec": planned.spec,
    });
    let (tenant, repo, workflow) = (tenant(), repo(), WorkflowId::registered("ci"));
    let metadata = BTreeMap::new();
    let run = PlannedRun::new(
        &tenant,
        &repo,
        &workflow,
        in_repository,
        &pipeline_run,
        planned.sink,
        planned.notifiers.clone(),
        &metadata,
    );
    policy.judge(&run).await.unwrap()
}

/// A workspace of the run.
fn workspace(source: Value) -> Value {
    let mut workspace = json!({"name": "w"});
    workspace.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    json!({"workspaces": [workspace]})
}

fn resolver(name: &str, namespace: Option<&str>) -> Value {
    let params: Vec<Value> =
        namespace.iter().map(|one| json!({"name": "namespace", "value": one})).collect();
    json!({"pipelineRef": {"resolver": name, "params": params}})
}

/// Each field of what may be used: what a run asks for by which it is judged, what allows it, and what
/// is like it and does not.
fn fields() -> Vec<(&'static str, Planned, Value, Value)> {
    let pod = json!({"taskRunTemplate": {"podTemplate": {"nodeSelector": {"a": "b"}}}});
    vec![
        (
            "serviceAccounts",
            run(json!({"taskRunTemplate": {"serviceAccountName": "ci-deploy"}})),
            json!(["ci-*"]),
            json!(["deploy"]),
        ),
        (
            "secrets",
            run(workspace(json!({"secret": {"secretName": "ci-key"}}))),
            json!(["ci-key"]),
            json!(["ci-keys", "ci-ke"]),
        ),
        (
            "configMaps",
            run(workspace(json!({"configMap": {"name": "settings"}}))),
            json!(["settings"]),
            json!(["other"]),
        ),
        (
            "volumeClaims",
            run(workspace(json!({"persistentVolumeClaim": {"claimName": "cache"}}))),
            json!(["cache"]),
            json!([]),
        ),
        (
            "workspaces",
            run(workspace(json!({"csi": {"driver": "vault"}}))),
            json!(["csi"]),
            json!(["emptyDir", "volumeClaimTemplate", "projected", "hostPath"]),
        ),
        ("resolvers", run(resolver("own", None)), json!(["own"]), json!(["git", "cluster"])),
        (
            "installed",
            run(json!({"pipelineRef": {"name": "release"}})),
            json!(["rel*"]),
            json!(["build"]),
        ),
        ("sinks", Planned { sink: "other", ..run(json!({})) }, json!(["other"]), json!(["tekton"])),
        (
            "notifiers",
            Planned { notifiers: vec!["chat"], ..run(json!({})) },
            json!(["chat"]),
            json!(["pager"]),
        ),
        ("podTemplate", run(pod), json!(true), json!(false)),
    ]
}

#[tokio::test]
async fn each_field_of_what_may_be_used_allows_it_and_nothing_else_does() {
    for (part, in_repository) in [("inRepository", true), ("registered", false)] {
        for (field, planned, allows, does_not) in fields() {
            let mut everything_else = json!({
                "serviceAccounts": ["*"], "secrets": ["*"], "configMaps": ["*"],
                "volumeClaims": ["*"], "installed": ["*"], "sinks": ["*"], "notifiers": ["*"],
                "resolvers": ["*"], "clusterNamespaces": ["*"], "podTemplate": true,
                "workspaces": ["emptyDir", "volumeClaimTemplate", "projected", "csi", "hostPath"],
            });
            everything_else[field] = does_not;
            let refuses = policy(json!({part: everything_else}));
            let Verdict::Deny { rule } = judged(&refuses, in_repository, &planned).await else {
                panic!("{part}.{field} does not forbid");
            };
            assert!(rule.starts_with("Policy team-a/granted: "), "{rule}");
            assert!(rule.ends_with(&format!("(spec.{part}.{field})")), "{field}: {rule}");
            let grants = policy(json!({part: {field: allows}}));
            let verdict = judged(&grants, in_repository, &planned).await;
            assert_eq!(verdict, Verdict::Allow, "{part}.{field} does not allow");
        }
    }
}

#[tokio::test]
async fn the_resolver_cluster_reads_in_no_namespace_that_is_not_allowed() {
    for (namespace, allowed, expected) in [
        (Some("shared"), json!(["shared"]), true),
        (Some("shared"), json!(["shared-*"]), false),
        (Some("kube-system"), json!(["shared"]), false),
        (Some("$(params.namespace)"), json!(["**-x", "shared"]), false),
        (Some("$(params.namespace)"), json!(["*"]), true),
        (None, json!(["shared"]), false),
        (None, json!(["*"]), true),
        (Some("shared"), json!([]), false),
    ] {
        let spec =
            json!({"inRepository": {"resolvers": ["cluster"], "clusterNamespaces": allowed}});
        let verdict = judged(&policy(spec), true, &run(resolver("cluster", namespace))).await;
        assert_eq!(verdict == Verdict::Allow, expected, "{namespace:?} {allowed}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_policy_is_about_its_repositories_and_limits_time() {
    let mighty = run(json!({"taskRunTemplate": {"serviceAccountName": "admin"}}));
    for (repositories, denied) in [
        (json!(["acme/api"]), true),
        (json!(["acme/*"]), true),
        (json!([]), true),
        (json!(["acme/web", "other/*"]), false),
    ] {
        let policy = policy(json!({"repositories": repositories, "registered": {}}));
        let verdict = judged(&policy, false, &mighty).await;
        assert_eq!(verdict != Verdict::Allow, denied, "{repositories}: {verdict:?}");
    }
    let policy = policy(json!({"limits": {"timeout": "2h"}}));
    for (timeouts, denied) in [
        (json!({"pipeline": "2h"}), false),
        (json!({"pipeline": "2h0m1s"}), true),
        (json!({"pipeline": "0"}), true),
        (Value::Null, false),
    ] {
        let planned = run(json!({"timeouts": timeouts}));
        let verdict = judged(&policy, true, &planned).await;
        assert_eq!(verdict != Verdict::Allow, denied, "{timeouts}: {verdict:?}");
    }
}

/// What may be said of a pull request from a fork: by its author's permission, and with an approval.
async fn of_fork(
    policy: &ClusterPolicy,
    permission: Option<Permission>,
    is_approved: bool,
) -> Verdict {
    let origin = FactsOrigin::Fork { author: "mallory".into() };
    let mut facts = Facts::new(tenant(), repo(), EventKind::PULL_REQUEST, Request::Run, origin);
    facts.permission = permission;
    facts.approval = is_approved.then(|| Approval {
        tenant: tenant(),
        repo: repo(),
        subject: SubjectKey::pull_request(1),
        head: "a".repeat(40).parse().unwrap(),
        by: "bob".into(),
        at: jiff::Timestamp::UNIX_EPOCH,
    });
    policy.decide(&facts).await.unwrap()
}

#[tokio::test]
async fn who_is_trusted_and_who_approves_is_for_the_policy_to_say() {
    let write = Some(Permission::Write);
    let maintain = Some(Permission::Maintain);
    let strict = policy(json!({"approvals": {"trusted": "Maintain", "approvers": "Admin"}}));
    assert_eq!(of_fork(&strict, maintain, false).await, Verdict::Allow);
    let Verdict::Wait { approvers } = of_fork(&strict, write, false).await else {
        panic!("it does not wait");
    };
    assert_eq!(approvers, "those with admin access to acme/api");
    assert_eq!(of_fork(&strict, None, true).await, Verdict::Allow);
    let nobody = policy(json!({"approvals": {"trusted": "Nobody", "approvers": "Nobody"}}));
    let admin = Some(Permission::Admin);
    assert!(matches!(of_fork(&nobody, admin, false).await, Verdict::Deny { .. }));
    let usual = policy(json!({}));
    assert_eq!(of_fork(&usual, write, false).await, Verdict::Allow);
    assert!(matches!(of_fork(&usual, None, false).await, Verdict::Wait { .. }));
}

#[test]
fn definitions_are_read_where_the_policy_says() {
    for (spec, at_base) in [
        (json!({}), false),
        (json!({"approvals": {"definitions": "Head"}}), false),
        (json!({"approvals": {"definitions": "Base"}}), true),
        (json!({"approvals": {"definitions": "Base"}, "repositories": ["acme/web"]}), false),
        (json!({"limits": {"timeout": "soon"}}), true),
    ] {
        let policy = policy(spec.clone());
        assert_eq!(policy.pins_definitions_to_base(&tenant(), &repo()), at_base, "{spec}");
    }
}

#[test]
fn what_a_workflow_asks_for_in_any_case_is_foretold() {
    let workflow = |repo: &str| {
        json!({"spec": {
            "repos": [{"name": "code", "connection": "acme", "repo": repo}],
            "serviceAccountName": "admin",
        }})
    };
    let foretold = |policy: &ClusterPolicy, repo: &str| {
        policy.foretell(&tenant(), &workflow(repo)).map(|verdict| verdict == Verdict::Allow)
    };
    let strict = policy(json!({"registered": {"serviceAccounts": ["ci"]}}));
    assert_eq!(foretold(&strict, "acme/api"), Some(false));
    let of_web = json!({"repositories": ["acme/web"], "registered": {}});
    let of_web = policy(of_web);
    assert_eq!(foretold(&of_web, "acme/web"), Some(false));
    assert_eq!(foretold(&of_web, "acme/api"), None);
    assert_eq!(foretold(&of_web, "acme/*"), None, "which repository it will be is not known");
    assert_eq!(foretold(&policy(json!({})), "acme/api"), Some(true));
    let none = ClusterPolicy::new(None, "tekton".to_owned());
    assert_eq!(foretold(&none, "acme/api"), None, "they were not read yet");
}
