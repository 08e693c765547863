//! What one namespace has from another: the platform's policies, connections and notifiers that are
//! granted.

use std::sync::Arc;

use serde_json::{Value, json};
use workflows_core::{
    RunState, Tenant,
    conformance::ScriptedRepo,
    store::{DeliveryQuery, RunQuery},
};
use workflows_k8s::{KubernetesSecrets, Namespaces, TektonSink, controller::Controller};
use workflows_kube_standin::Cluster;

use crate::{
    platform::{ACME, CONTROLLER, Platform, ROLES, condition, resource, workflow},
    world::TEAM,
};

fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Policy",
        "metadata": {"name": "limits"}, "spec": spec,
    })
}

#[tokio::test]
async fn the_platforms_policies_hold_where_only_some_namespaces_are_followed() {
    let platform = Platform::of_the_team(Cluster::start().await).await;
    let repo = platform.scm.create("acme/api");
    let limits = policy(json!({"registered": {"serviceAccounts": ["ci"]}}));
    platform.apply_in("workflows", "policies", &limits).await;
    told(&platform, "Policy", ("workflows", "limits"), "Ready", "InForce").await;
    platform.connect(|_| {}).await;
    for (name, account) in [("mighty", "admin"), ("plain", "ci")] {
        let workflow = workflow(name, |spec| spec["serviceAccountName"] = json!(account));
        platform.apply("workflows", &workflow).await;
        platform.ready("Workflow", name, "Registered").await;
    }
    // Its own workflows do not run: it is none of the namespaces.
    platform.apply_in("workflows", "workflows", &workflow("idle", |_| {})).await;
    platform.hears(repo.push("alice", "main", &[("a", "1")])).await;
    platform.run_of("plain").await;
    let refused = refused(&platform, &repo, "workflows/mighty").await;
    assert!(
        refused.contains(
            "Policy workflows/limits: a registered workflow asks for the service account"
        ),
        "{refused}"
    );
    assert_eq!(platform.tekton.runs().len(), 1);
    let idle = platform.cluster.object(&resource("Workflow"), "workflows", "idle").unwrap();
    assert_eq!(idle["status"], Value::Null);
    platform.stop().await;
}

#[tokio::test]
async fn what_the_platform_grants_is_there_where_only_some_namespaces_are_followed() {
    let platform = Platform::of_the_team(Cluster::start().await).await;
    let repo = platform.scm.create("acme/api");
    let connection = granted_to(TEAM);
    platform.apply_in("workflows", "scmconnections", &connection).await;
    platform.apply("workflows", &workflow("ci", |_| {})).await;
    platform.ready("Workflow", "ci", "Registered").await;
    let own = [(".tekton/own.yaml", IN_REPOSITORY)];
    let pushed = repo.push("alice", "main", &own);
    for namespace in ["workflows", TEAM] {
        let mut pushed = pushed.clone();
        pushed.tenant = Tenant::new(namespace).unwrap();
        platform.hears(pushed).await;
    }
    platform.run_of("ci").await;
    rests(&platform).await;
    assert_eq!(platform.tekton.runs().len(), 1, "nothing runs outside of the namespaces");
    platform.stop().await;
}

#[tokio::test]
async fn nothing_begins_as_long_as_the_platforms_policies_cannot_be_read() {
    let cluster = Cluster::start().await;
    cluster.tekton();
    cluster.namespace(TEAM);
    cluster.namespace("workflows");
    cluster.define().await;
    let user = "system:serviceaccount:workflows:workflows-controller";
    cluster.token(CONTROLLER, user, &[]);
    let of_the_team = "
kind: RoleBinding
metadata: { name: workflows-controller, namespace: team-a }
roleRef: { kind: ClusterRole, name: workflows-controller }
subjects: [{ kind: ServiceAccount, name: workflows-controller, namespace: workflows }]
";
    cluster.bind_manifests(&[ROLES, of_the_team]);
    let client = cluster.client_with(CONTROLLER);
    let secrets = Arc::new(KubernetesSecrets::new(client.clone(), Namespaces::same_name()));
    let controller = Controller::builder(client, secrets.clone())
        .namespaces([TEAM])
        .platform(Tenant::new("workflows").unwrap())
        .build()
        .unwrap();
    let engine = workflows_core::Engine::builder()
        .store(Arc::new(workflows_core::store::MemoryStore::new(Arc::new(
            workflows_core::SystemClock,
        ))))
        .secrets(secrets)
        .policy(controller.policy())
        .source(controller.source())
        .sink("tekton", Arc::new(TektonSink::new(cluster.client(), Namespaces::same_name())))
        .build()
        .unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = {
        let (controller, shutdown) = (controller.clone(), shutdown.clone());
        tokio::spawn(async move { controller.run(&engine, shutdown).await })
    };
    let asked = |text: &str| {
        let requests = cluster.requests();
        requests.iter().filter(|(_, path)| path.contains(text)).count()
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while asked("/namespaces/workflows/policies") < 2 || asked("/team-a/workflows?") < 2 {
        assert!(tokio::time::Instant::now() < deadline, "it does not ask");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!*controller.synced().borrow());
    shutdown.cancel();
    running.await.unwrap();
}

/// A workflow of a repository that runs on each push.
const IN_REPOSITORY: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: own }
spec:
  triggers: [{ name: push, on: push }]
  pipelineSpec:
    tasks: [{ name: build, taskSpec: { steps: [{ name: run, image: alpine, script: 'true' }] } }]
";

/// The usual connection, granted to a namespace.
fn granted_to(namespace: &str) -> Value {
    json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "ScmConnection",
        "metadata": {"name": ACME},
        "spec": {
            "driver": "scripted", "repositories": ["acme/*"], "poll": {"interval": "1h"},
            "grants": [{"namespace": namespace}],
        },
    })
}

#[tokio::test]
async fn what_a_repository_defines_runs_once_and_where_its_connection_is() {
    let platform = Platform::start().await;
    platform.cluster.namespace("team-b");
    let repo = platform.scm.create("acme/api");
    platform.apply("scmconnections", &granted_to("team-b")).await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    platform.apply_in("team-b", "workflows", &workflow("ci", |_| {})).await;
    told(&platform, "Workflow", ("team-b", "ci"), "Ready", "Registered").await;
    let pushed = repo.push("alice", "main", &[(".tekton/own.yaml", IN_REPOSITORY)]);
    let mut of_other = pushed.clone();
    of_other.tenant = Tenant::new("team-b").unwrap();
    platform.hears(pushed).await;
    platform.hears(of_other).await;
    assert_eq!(platform.run_of("own").await["metadata"]["namespace"], TEAM);
    assert_eq!(platform.run_of("ci").await["metadata"]["namespace"], "team-b");
    rests(&platform).await;
    let of_other = RunQuery::of(Tenant::new("team-b").unwrap());
    let runs = platform.handle.runs(of_other).await.unwrap().items;
    let names: Vec<&str> = runs.iter().map(|run| &*run.workflow.name).collect();
    assert_eq!(names, ["ci"], "it did not ask for what the repository defines");
    assert_eq!(platform.runs_of("own").len(), 1);
    platform.stop().await;
}

#[tokio::test]
async fn of_several_notifiers_of_a_name_one_is_used_and_the_others_say_so() {
    let platform = Platform::start().await;
    for namespace in ["platform", "beta", "alpha"] {
        platform.cluster.namespace(namespace);
    }
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    let chat = |grants: &[&str]| {
        json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Notifier",
            "metadata": {"name": "chat"}, "spec": {"type": "recorder", "grants": grants},
        })
    };
    let mut told_by = Vec::new();
    // Each of `steps` changes who has the name; a run of the team tells who is used then.
    platform.apply_in("platform", "notifiers", &chat(&[TEAM])).await;
    told(&platform, "Notifier", ("platform", "chat"), "GrantsUsed", "InUse").await;
    let ci = workflow("ci", |spec| {
        spec["notify"] = json!([{"notifier": "chat", "on": ["succeeded"]}]);
    });
    platform.apply("workflows", &ci).await;
    platform.ready("Workflow", "ci", "Registered").await;
    told_by.push(who_tells(&platform, &repo).await);

    // Its own comes, and is not taken out by what the platform does not have any more.
    platform.apply("notifiers", &chat(&[])).await;
    let message = told(&platform, "Notifier", ("platform", "chat"), "GrantsUsed", "Hidden").await;
    assert_eq!(message, format!("{TEAM} has a chat of its own"));
    told_by.push(who_tells(&platform, &repo).await);

    // It goes while two others grant theirs.
    platform.apply_in("alpha", "notifiers", &chat(&[TEAM])).await;
    told(&platform, "Notifier", ("alpha", "chat"), "GrantsUsed", "Hidden").await;
    platform.delete("notifiers", "chat").await;
    told(&platform, "Notifier", ("platform", "chat"), "GrantsUsed", "InUse").await;
    told_by.push(who_tells(&platform, &repo).await);
    let message = told(&platform, "Notifier", ("alpha", "chat"), "GrantsUsed", "Hidden").await;
    assert_eq!(message, format!("{TEAM} is granted that of platform under this name"));

    // The platform's goes as well, and of two the first by name is used, whoever came first.
    platform.apply_in("beta", "notifiers", &chat(&[TEAM])).await;
    platform.apply_in("platform", "notifiers", &chat(&[])).await;
    told(&platform, "Notifier", ("alpha", "chat"), "GrantsUsed", "InUse").await;
    told(&platform, "Notifier", ("beta", "chat"), "GrantsUsed", "Hidden").await;
    told_by.push(who_tells(&platform, &repo).await);
    assert_eq!(told_by, ["platform", TEAM, "platform", "alpha"]);
    platform.stop().await;
}

#[tokio::test]
async fn a_grant_of_a_connection_that_does_nothing_says_so() {
    let platform = Platform::start().await;
    platform.cluster.namespace("platform");
    platform.apply_in("platform", "scmconnections", &granted_to(TEAM)).await;
    told(&platform, "ScmConnection", ("platform", ACME), "GrantsUsed", "InUse").await;
    platform.connect(|_| {}).await;
    let message =
        told(&platform, "ScmConnection", ("platform", ACME), "GrantsUsed", "Hidden").await;
    assert_eq!(message, format!("{TEAM} has a {ACME} of its own"));
    // Its own is used also when it is wrong: what it says may not mean another one suddenly.
    platform.connect(|spec| spec["repositories"] = json!(["["])).await;
    platform.ready("ScmConnection", ACME, "Invalid").await;
    platform.apply("workflows", &workflow("ci", |_| {})).await;
    let (ready, message) = platform.ready("Workflow", "ci", "Invalid").await;
    assert!(!ready && message.contains("spec.repos[0].connection"), "{message}");
    platform.stop().await;
}

#[tokio::test]
async fn who_is_told_by_default_and_in_any_case_is_what_notifiers_and_connections_say() {
    let platform = Platform::start().await;
    for namespace in ["platform", "alpha"] {
        platform.cluster.namespace(namespace);
    }
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    platform.apply("workflows", &workflow("ci", |_| {})).await;
    platform.ready("Workflow", "ci", "Registered").await;
    let notifier = |name: &str, occasions: Value| {
        let mut spec = json!({"type": "recorder", "grants": [TEAM]});
        spec.as_object_mut().unwrap().extend(occasions.as_object().unwrap().clone());
        json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Notifier",
            "metadata": {"name": name}, "spec": spec,
        })
    };
    let ended = json!({"on": ["succeeded"], "filter": "run.repo == 'acme/api'"});
    let apply = async |namespace: &str, object: Value| {
        platform.apply_in(namespace, "notifiers", &object).await;
        let name = object["metadata"]["name"].as_str().unwrap();
        told(&platform, "Notifier", (namespace, name), "Ready", "InUse").await;
    };
    apply("alpha", notifier("chat", json!({"byDefault": ended}))).await;
    assert_eq!(all_who_tell(&platform, &repo).await, ["alpha"]);
    apply("platform", notifier("audit", json!({"always": ended}))).await;
    assert_eq!(all_who_tell(&platform, &repo).await, ["alpha", "platform"]);

    // The connection is closer to the run.
    let pager = json!([{"notifier": "pager", "on": ["succeeded"]}]);
    platform.connect(|spec| spec["notify"] = pager.clone()).await;
    let found = ("ScmConnection", (TEAM, ACME), "NotifiersFound");
    let message = told(&platform, found.0, found.1, found.2, "Missing").await;
    assert!(
        message
            .starts_with(&format!("{TEAM} has no notifier that can be used by the name of pager"))
    );
    apply(TEAM, notifier("pager", json!({"grants": []}))).await;
    told(&platform, found.0, found.1, found.2, "Found").await;
    assert_eq!(all_who_tell(&platform, &repo).await, ["platform", TEAM]);
    platform.connect(|spec| spec["notify"] = json!([])).await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    assert_eq!(all_who_tell(&platform, &repo).await, ["platform"]);

    // What cannot be used tells nobody and says why; what goes is not told any more.
    let wrong = json!({"always": {"on": ["succeeded"], "filter": "run.state =="}});
    platform.apply_in("platform", "notifiers", &notifier("audit", wrong)).await;
    let message = told(&platform, "Notifier", ("platform", "audit"), "Ready", "Invalid").await;
    assert!(message.starts_with("spec.always: read a notification: filter: "), "{message}");
    platform.connect(|spec| spec["notify"] = Value::Null).await;
    platform.ready("ScmConnection", ACME, "InUse").await;
    assert_eq!(all_who_tell(&platform, &repo).await, ["alpha"]);
    platform.stop().await;
}

#[tokio::test]
async fn whom_a_connection_tells_is_told_of_its_own_namespace_alone() {
    let platform = Platform::start().await;
    platform.cluster.namespace("team-b");
    let repo = platform.scm.create("acme/api");
    let mut connection = granted_to("team-b");
    connection["spec"]["notify"] = json!([{"notifier": "pager", "on": ["succeeded"]}]);
    platform.apply("scmconnections", &connection).await;
    let pager = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Notifier",
        "metadata": {"name": "pager"}, "spec": {"type": "recorder"},
    });
    platform.apply("notifiers", &pager).await;
    told(&platform, "ScmConnection", (TEAM, ACME), "NotifiersFound", "Found").await;
    for namespace in [TEAM, "team-b"] {
        platform.apply_in(namespace, "workflows", &workflow("ci", |_| {})).await;
        told(&platform, "Workflow", (namespace, "ci"), "Ready", "Registered").await;
    }
    let pushed = repo.push("alice", "main", &[("a", "1")]);
    for namespace in [TEAM, "team-b"] {
        let mut pushed = pushed.clone();
        pushed.tenant = Tenant::new(namespace).unwrap();
        platform.hears(pushed).await;
    }
    let both = |_: &Cluster| Some(platform.runs_of("ci")).filter(|runs| runs.len() == 2);
    for run in platform.cluster.until("two runs", both).await {
        let text = |field: &str| run["metadata"][field].as_str().unwrap().to_owned();
        platform.tekton.finish(&text("namespace"), &text("name"), true);
    }
    crate::github::until("somebody to be told", || platform.recorded().pop()).await;
    let of_other = DeliveryQuery::of(Tenant::new("team-b").unwrap());
    let runs = RunQuery::of(Tenant::new("team-b").unwrap());
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while platform.handle.runs(runs.clone()).await.unwrap().items[0].state != RunState::Succeeded {
        assert!(tokio::time::Instant::now() < deadline, "the run of the other namespace goes on");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    rests(&platform).await;
    assert_eq!(platform.recorded(), [TEAM]);
    assert_eq!(platform.handle.notifications(of_other).await.unwrap().items, []);
    platform.stop().await;
}

/// Whose notifiers tell of a run of the team that succeeds, by name.
async fn all_who_tell(platform: &Platform, repo: &ScriptedRepo) -> Vec<String> {
    let before = platform.recorded().len();
    who_tells(platform, repo).await;
    rests(platform).await;
    let mut all = platform.recorded().split_off(before);
    all.sort();
    all
}

/// Whose notifier tells first of a run of the team that succeeds.
async fn who_tells(platform: &Platform, repo: &ScriptedRepo) -> String {
    let before = platform.recorded().len();
    let known = platform.runs_of("ci").len();
    let content = format!("{before} {known}");
    platform.hears(repo.push("alice", "main", &[("a", &content)])).await;
    let names = || -> Vec<String> {
        let runs = platform.tekton.under_way();
        runs.iter().map(|run| run["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let name = platform.cluster.until("a run", |_| names().pop()).await;
    platform.tekton.finish(TEAM, &name, true);
    crate::github::until("somebody to be told", || platform.recorded().get(before).cloned()).await
}

/// Waits until an object has a condition with this reason, and returns its message.
async fn told(
    platform: &Platform,
    kind: &str,
    (namespace, name): (&str, &str),
    wanted: &str,
    reason: &str,
) -> String {
    let resource = resource(kind);
    let what = format!("{kind} {namespace}/{name} to say {wanted} with {reason}");
    platform
        .cluster
        .until(&what, |cluster| {
            let object = cluster.object(&resource, namespace, name)?;
            let told = condition(&object, wanted)?;
            (told["reason"] == reason).then(|| told["message"].as_str().unwrap().to_owned())
        })
        .await
}

/// Waits until there is nothing to do.
async fn rests(platform: &Platform) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let health = platform.handle.health().await.unwrap();
        if health.stages.iter().all(|stage| stage.backlog.oldest_due.is_none()) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "it does not come to rest: {health:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Waits until a workflow's run at the head of `main` is refused; with which words.
async fn refused(platform: &Platform, repo: &ScriptedRepo, context: &str) -> String {
    let head = repo.head("main");
    crate::controller::wait_for_status(platform, repo, &head, context).await.1
}
