//! What becomes of the custom resources.

use serde_json::{Value, json};
use workflows_core::{Permission, repo::StatusState};

use crate::{
    platform::{ACME, Platform, condition, resource, workflow},
    world::TEAM,
};

#[tokio::test]
async fn what_is_applied_runs_and_what_is_deleted_does_not() {
    let platform = Platform::start().await;
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    assert!(platform.ready("ScmConnection", ACME, "InUse").await.0);
    platform.apply("workflows", &workflow("ci", |_| {})).await;
    let (ready, message) = platform.ready("Workflow", "ci", "Registered").await;
    assert!(ready);
    assert_eq!(message, "it starts runs for events at acme/*");

    platform.hears(repo.push("alice", "main", &[("a", "1")])).await;
    let run = platform.run_of("ci").await;
    assert_eq!(run["metadata"]["namespace"], TEAM);
    let name = run["metadata"]["name"].as_str().unwrap();
    platform.tekton.finish(TEAM, name, true);

    // A change counts for what comes next.
    platform
        .apply(
            "workflows",
            &workflow("ci", |spec| spec["triggers"][0]["branches"] = json!(["never"])),
        )
        .await;
    platform.ready("Workflow", "ci", "Registered").await;
    platform.apply("workflows", &workflow("other", |_| {})).await;
    platform.ready("Workflow", "other", "Registered").await;
    platform.hears(repo.push("alice", "main", &[("a", "2")])).await;
    platform.run_of("other").await;
    assert_eq!(platform.runs_of("ci").len(), 1);

    platform.delete("workflows", "other").await;
    platform.apply("workflows", &workflow("third", |_| {})).await;
    platform.ready("Workflow", "third", "Registered").await;
    platform.hears(repo.push("alice", "main", &[("a", "3")])).await;
    platform.run_of("third").await;
    assert_eq!(platform.runs_of("other").len(), 1, "it was deleted");
    platform.stop().await;
}

#[tokio::test]
async fn what_the_schema_cannot_say_is_told_in_status() {
    let platform = Platform::start().await;
    let wrong = workflow("ci", |spec| {
        spec["triggers"][0]["filter"] = json!("event.nope.(");
        spec["params"] = json!([{"name": "x", "value": "$(event.nope)"}]);
    });
    platform.apply("workflows", &wrong).await;
    let (ready, message) = platform.ready("Workflow", "ci", "Invalid").await;
    assert!(!ready);
    assert!(message.contains("spec.triggers[0].filter: "), "{message}");
    assert!(message.contains("spec.params[0].value: "), "{message}");
    assert!(message.contains("connection"), "{message}");
    assert!(message.ends_with("until it is mended it starts nothing"), "{message}");

    platform.apply("workflows", &workflow("ci", |_| {})).await;
    let (_, message) = platform.ready("Workflow", "ci", "Invalid").await;
    assert!(message.contains("spec.repos[0].connection"), "{message}");
    // What it names comes.
    platform.connect(|_| {}).await;
    assert!(platform.ready("Workflow", "ci", "Registered").await.0);
    // And goes.
    platform.delete("scmconnections", ACME).await;
    assert!(!platform.ready("Workflow", "ci", "Invalid").await.0);
    platform.stop().await;
}

#[tokio::test]
async fn a_status_is_written_once_for_a_change() {
    let platform = Platform::start().await;
    platform.connect(|_| {}).await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    platform.apply("workflows", &workflow("ci", |_| {})).await;
    platform.ready("Workflow", "ci", "Registered").await;
    // Another program with the same to say says nothing.
    let other = Platform::join(platform.cluster.clone(), platform.tekton.clone()).await;
    other.apply("workflows", &workflow("second", |_| {})).await;
    other.ready("Workflow", "second", "Registered").await;
    let patches = |text: &str| {
        let all = platform.cluster.requests();
        let is_one = |(method, path): &&(String, String)| method == "PATCH" && path.contains(text);
        all.iter().filter(is_one).count()
    };
    assert_eq!(patches("/workflows/ci/status"), 1);
    assert!(patches("/workflows/second/status") <= 2, "at most one for each");
    other.stop().await;
    platform.stop().await;
}

#[tokio::test]
async fn connections_that_cannot_be_used_say_why() {
    let platform = Platform::start().await;
    for (change, expected) in [
        (
            json!({"driver": "sourcehut"}),
            "spec.driver: there is no driver \"sourcehut\"; there are: git, github, gitlab, panicking, scripted",
        ),
        (json!({"repositories": ["["]}), "spec.repositories: "),
        (json!({"poll": {"interval": "soon"}}), "spec.poll: "),
        (json!({"poll": {"interval": "1ms"}}), "the interval is shorter than a second"),
        (
            json!({"webhook": {"secret": {"name": "a", "key": "b"}}}),
            "spec.webhook: the host delivers nothing",
        ),
        (
            json!({"driver": "github", "settings": {"a": 1}}),
            "spec.settings: driver github has none",
        ),
        (
            json!({"driver": "gitlab", "settings": {"a": 1}}),
            "spec.settings: driver gitlab has none",
        ),
        (
            json!({"driver": "git", "url": "file:///etc"}),
            "spec.url: it must begin with https://, http:// or ssh://",
        ),
        (
            json!({"driver": "git", "url": "https://git.example.com", "webUrl": "https://a:b@c"}),
            "read the address of pages: it holds a user name or password",
        ),
        (
            json!({"webUrl": null, "notify": [{"notifier": "chat", "filter": "run.state =="}]}),
            "spec.notify[0]: read a notification: filter: ",
        ),
    ] {
        platform
            .connect(|spec| {
                for (name, value) in change.as_object().unwrap() {
                    spec[name] = value.clone();
                }
            })
            .await;
        let (ready, message) = platform.ready("ScmConnection", ACME, "Invalid").await;
        assert!(!ready);
        let _ = platform
            .cluster
            .until(expected, |cluster| {
                let object = cluster.object(&resource("ScmConnection"), TEAM, ACME)?;
                let message = condition(&object, "Ready")?["message"].as_str()?.to_owned();
                message.contains(expected).then_some(())
            })
            .await;
        assert!(message.contains("until it is mended it is not used"), "{message}");
    }
    platform.stop().await;
}

#[tokio::test]
async fn a_connection_whose_driver_panics_goes_all_the_same() {
    let platform = Platform::start().await;
    let connection = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "ScmConnection",
        "metadata": {"name": ACME, "finalizers": ["workflows.tekton.dev/webhooks"]},
        "spec": {
            "driver": "panicking", "repositories": ["acme/api"], "poll": {"interval": "1h"},
            "definitionsDirectory": "",
        },
    });
    platform.apply("scmconnections", &connection).await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    platform.delete("scmconnections", ACME).await;
    let is_gone = |cluster: &workflows_kube_standin::Cluster| {
        cluster.object(&resource("ScmConnection"), TEAM, ACME).is_none().then_some(())
    };
    platform.cluster.until("the connection to go", is_gone).await;
    platform.stop().await;
}

#[tokio::test]
async fn what_others_say_in_a_status_stays() {
    let platform = Platform::start().await;
    platform.connect(|_| {}).await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    let foreign = json!({
        "type": "Audited", "status": "True", "reason": "Seen", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let object = platform.cluster.object(&resource("ScmConnection"), TEAM, ACME).unwrap();
    let mut conditions = object["status"]["conditions"].as_array().unwrap().clone();
    conditions.push(foreign.clone());
    let others = json!({"status": {"conditions": conditions}});
    platform.patch_status("scmconnections", ACME, &others).await;
    // The server is at odds with every write for a while.
    let conflict = workflows_kube_standin::Refusal::modified(&resource("ScmConnection"), ACME);
    let at_odds = workflows_kube_standin::Fault::Refused(conflict);
    platform.cluster.fail(&format!("/scmconnections/{ACME}/status"), 3, at_odds);
    platform.connect(|spec| spec["repositories"] = json!(["["])).await;
    platform.ready("ScmConnection", ACME, "Invalid").await;
    let object = platform.cluster.object(&resource("ScmConnection"), TEAM, ACME).unwrap();
    assert_eq!(condition(&object, "Audited"), Some(foreign));
    assert_eq!(object["status"]["observedGeneration"], object["metadata"]["generation"]);
    platform.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_missing_is_told_and_seen_when_it_comes() {
    let platform = Platform::start().await;
    platform
        .connect(|spec| spec["credentials"] = json!({"token": {"name": "host", "key": "token"}}))
        .await;
    let (ready, message) = platform.ready("ScmConnection", ACME, "SecretMissing").await;
    assert!(!ready);
    assert!(message.contains("host"), "{message}");
    platform.secret("host", "token", "s3cret").await;
    assert!(platform.ready("ScmConnection", ACME, "InUse").await.0);
    platform.stop().await;
}

/// A document of the repository, with this in its spec.
fn in_repository(spec: &str) -> String {
    format!(
        "apiVersion: workflows.tekton.dev/v1alpha1\nkind: Workflow\nmetadata: {{ name: own }}\nspec:\n  \
         triggers: [{{ name: push, on: push }}]\n  pipelineSpec:\n    tasks:\n    - name: build\n      taskSpec: \
         {{ steps: [{{ name: run, image: alpine, script: 'true' }}] }}\n{spec}"
    )
}

#[tokio::test]
async fn a_repository_gets_what_its_policy_grants_and_nothing_else() {
    let platform = Platform::start().await;
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    let asks = in_repository("  serviceAccountName: deploy\n");

    platform.hears(repo.push("alice", "main", &[(".tekton/own.yaml", &asks)])).await;
    let head = repo.head("main");
    let refused = wait_for_status(&platform, &repo, &head, "workflows/own").await;
    assert_eq!(refused.0, StatusState::Failure);
    assert!(refused.1.contains("the built-in policy: a workflow of a repository asks for the service account \
                                \"deploy\", which is not allowed (spec.inRepository.serviceAccounts)"), "{}", refused.1);
    assert_eq!(platform.tekton.runs(), Vec::<Value>::new());

    let policy = |accounts: &[&str]| {
        json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Policy",
            "metadata": {"name": "granted"}, "spec": {"inRepository": {"serviceAccounts": accounts}},
        })
    };
    platform.apply("policies", &policy(&["deploy*"])).await;
    platform.ready("Policy", "granted", "InForce").await;
    platform.hears(repo.push("alice", "main", &[("a", "1")])).await;
    let run = platform.run_of("own").await;
    assert_eq!(run["spec"]["taskRunTemplate"]["serviceAccountName"], "deploy");
    let judged = platform
        .handle
        .runs(workflows_core::store::RunQuery::of(crate::world::tenant()))
        .await
        .unwrap();
    let judged = &judged.items[0].judged_by;
    assert!(judged["policy"].starts_with("team-a/granted uid "), "{judged:?}");

    // One that cannot be understood forbids.
    platform.apply("policies", &policy(&["["])).await;
    let (ready, message) = platform.ready("Policy", "granted", "Invalid").await;
    assert!(!ready);
    assert!(message.ends_with("until it is mended it forbids everything"), "{message}");
    platform.hears(repo.push("alice", "main", &[("a", "2")])).await;
    let refused = wait_for_status(&platform, &repo, &repo.head("main"), "workflows/own").await;
    assert!(refused.1.contains("Policy team-a/granted cannot be understood"), "{}", refused.1);
    assert_eq!(platform.tekton.runs().len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn the_platforms_policies_hold_for_every_tenant() {
    let platform = Platform::start().await;
    platform.cluster.namespace("platform");
    let repo = platform.scm.create("acme/api");
    repo.permit("alice", Permission::Write);
    platform.connect(|_| {}).await;
    let policy = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "limits"},
        "spec": {"registered": {"serviceAccounts": ["ci"]}, "limits": {"timeout": "30m"}},
    });
    platform.apply_in("platform", "policies", &policy).await;
    platform
        .cluster
        .until("the policy to be in force", |cluster| {
            condition(&cluster.object(&resource("Policy"), "platform", "limits")?, "Ready")
        })
        .await;
    platform.apply("workflows", &workflow("slow", |_| {})).await;
    platform
        .apply(
            "workflows",
            &workflow("quick", |spec| spec["timeouts"] = json!({"pipeline": "20m"})),
        )
        .await;
    platform
        .apply(
            "workflows",
            &workflow("mighty", |spec| {
                spec["timeouts"] = json!({"pipeline": "20m"});
                spec["serviceAccountName"] = json!("admin");
            }),
        )
        .await;
    for (name, reason) in [("slow", "Denied"), ("quick", "Allowed"), ("mighty", "Denied")] {
        platform.ready("Workflow", name, "Registered").await;
        allowed(&platform, name, reason).await;
    }
    let told = allowed(&platform, "mighty", "Denied").await;
    assert!(told.starts_with("Policy platform/limits: a registered workflow asks for"), "{told}");
    platform.hears(repo.push("alice", "main", &[("a", "1")])).await;
    platform.run_of("quick").await;
    let head = repo.head("main");
    let slow = wait_for_status(&platform, &repo, &head, "workflows/slow").await.1;
    assert!(
        slow.contains("Policy platform/limits: the run may take 1h, and at most 30m are allowed"),
        "{slow}"
    );
    let mighty = wait_for_status(&platform, &repo, &head, "workflows/mighty").await.1;
    assert!(mighty.contains("(spec.registered.serviceAccounts)"), "{mighty}");
    assert_eq!(platform.tekton.runs().len(), 1);
    platform.stop().await;
}

/// Waits until a workflow says why the policies would let it run, or not.
async fn allowed(platform: &Platform, name: &str, reason: &str) -> String {
    platform
        .cluster
        .until(&format!("{name} to be {reason}"), |cluster| {
            let object = cluster.object(&resource("Workflow"), TEAM, name)?;
            let told = condition(&object, "Allowed")?;
            (told["reason"] == reason).then(|| told["message"].as_str().unwrap().to_owned())
        })
        .await
}

#[tokio::test]
async fn what_policies_say_of_a_workflow_is_told_when_they_change() {
    let platform = Platform::start().await;
    platform.connect(|_| {}).await;
    let ci = workflow("ci", |spec| spec["serviceAccountName"] = json!("deploy"));
    platform.apply("workflows", &ci).await;
    platform.ready("Workflow", "ci", "Registered").await;
    let object = platform.cluster.object(&resource("Workflow"), TEAM, "ci").unwrap();
    assert_eq!(condition(&object, "Allowed"), None, "no policy is about it");
    let policy = |accounts: &[&str]| {
        json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Policy",
            "metadata": {"name": "granted"}, "spec": {"registered": {"serviceAccounts": accounts}},
        })
    };
    platform.apply("policies", &policy(&["ci"])).await;
    let told = allowed(&platform, "ci", "Denied").await;
    assert!(told.contains("(spec.registered.serviceAccounts)"), "{told}");
    platform.apply("policies", &policy(&["deploy"])).await;
    allowed(&platform, "ci", "Allowed").await;
    platform.stop().await;
}

#[tokio::test]
async fn another_namespace_may_use_what_is_granted_to_it() {
    let platform = Platform::start().await;
    platform.cluster.namespace("team-b");
    let repo = platform.scm.create("acme/api");
    repo.push("alice", "main", &[("a", "0")]);
    platform.scm.create("acme/secret");
    platform
        .connect(|spec| {
            spec["grants"] = json!([{"namespace": "team-b", "repositories": ["acme/api"]}])
        })
        .await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    platform.apply_in("team-b", "workflows", &workflow("ci", |_| {})).await;
    platform
        .cluster
        .until("the workflow of the other team to be ready", |cluster| {
            let object = cluster.object(&resource("Workflow"), "team-b", "ci")?;
            (condition(&object, "Ready")?["status"] == "True").then_some(())
        })
        .await;
    let other = workflows_core::Tenant::new("team-b").unwrap();
    let submit = |name: &str| {
        workflows_core::engine::Submission::new(ACME, name, "1", "bob").in_tenant(other.clone())
    };
    platform.handle.submit(submit("acme/api")).await.unwrap();
    let error = platform.handle.submit(submit("acme/secret")).await.unwrap_err();
    assert!(error.to_string().contains("the connection does not allow this repository"), "{error}");
    let mut pushed = repo.push("alice", "main", &[("a", "1")]);
    pushed.tenant = other;
    platform.hears(pushed).await;
    assert_eq!(platform.run_of("ci").await["metadata"]["namespace"], "team-b");
    platform.stop().await;
}

#[tokio::test]
async fn a_ledger_that_is_lost_is_rebuilt_from_the_runs() {
    let platform = Platform::start().await;
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    let log = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Notifier",
        "metadata": {"name": "log"}, "spec": {"type": "log"},
    });
    platform.apply("notifiers", &log).await;
    let ci = workflow("ci", |spec| {
        spec["notify"] = json!([{"notifier": "log", "on": ["succeeded"]}]);
        spec["retention"] = json!({"runs": 7});
    });
    platform.apply("workflows", &ci).await;
    platform.ready("Workflow", "ci", "Registered").await;
    let minted_until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    platform.scm.credentials_end_at(minted_until);
    platform.hears(repo.push("alice", "main", &[("a", "1")])).await;
    let run = platform.run_of("ci").await;
    let name = run["metadata"]["name"].as_str().unwrap();

    // A program with a ledger of its own, for the same host.
    let platform = platform.with_a_new_ledger().await;
    let all = workflows_core::store::RunQuery::of(crate::world::tenant());
    let known = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        loop {
            match platform.handle.runs(all.clone()).await.unwrap().items.pop() {
                Some(run) => break run,
                None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    });
    let known = known.await.expect("the run is known again");
    assert_eq!(&*known.name, name);
    assert_eq!(known.retention.and_then(|retention| retention.runs), Some(7));
    assert_eq!(known.credential_until, Some(minted_until));
    platform.tekton.finish(TEAM, name, true);
    let (state, _) = wait_for_status(&platform, &repo, &repo.head("main"), "workflows/ci").await;
    assert_eq!(state, StatusState::Success);
    let told = workflows_core::store::DeliveryQuery::of(crate::world::tenant());
    let told = platform.handle.notifications(told).await.unwrap().items;
    assert_eq!(told.len(), 1, "the log is told of its end");
    assert_eq!(platform.tekton.runs().len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn watches_that_expire_and_break_lose_nothing() {
    let platform = Platform::stand_in("the server forgets at once").await;
    platform.connect(|_| {}).await;
    platform.apply("workflows", &workflow("kept", |_| {})).await;
    platform.ready("Workflow", "kept", "Registered").await;
    platform.cluster.compact();
    platform.cluster.fail(
        "GET /apis/workflows.tekton.dev",
        4,
        workflows_kube_standin::Fault::unavailable(),
    );
    platform.apply("workflows", &workflow("new", |_| {})).await;
    assert!(platform.ready("Workflow", "new", "Registered").await.0);
    platform.cluster.fail("PATCH", 2, workflows_kube_standin::Fault::unavailable());
    platform.apply("workflows", &workflow("late", |_| {})).await;
    assert!(
        platform.ready("Workflow", "late", "Registered").await.0,
        "its status is written in the end"
    );
    platform.stop().await;
}

/// Waits until a commit shows a status that is over; its state and its text.
pub(crate) async fn wait_for_status(
    platform: &Platform,
    repo: &workflows_core::conformance::ScriptedRepo,
    commit: &workflows_core::CommitId,
    context: &str,
) -> (StatusState, String) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(status) = repo.status(commit, context)
            && ![StatusState::Queued, StatusState::InProgress].contains(&status.state)
        {
            return (status.state, format!("{} {}", status.title, status.summary));
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{context} is not concluded: {:?}",
            repo.status_contexts(commit)
        );
        let _ = platform;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
