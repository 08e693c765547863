//! A cluster with the custom resources, Tekton, and a program that follows them: an engine and a
//! controller, with a scripted host.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Capabilities, ConnectionName, Delivered, Engine, EngineHandle, Error, NotificationView,
    Notifier, Observation, RepoConnection, Result, ScmDriver, SystemClock, Tenant,
    conformance::ScriptedScm, engine::EngineBuilder, store::MemoryStore,
};
use workflows_k8s::{
    KubernetesSecrets, Namespaces, TektonSink,
    controller::{
        BuiltConnection, Controller, ControllerBuilder, DescribedConnection, DescribedNotifier,
        DriverKind, NotifierKind,
    },
};
use workflows_kube_standin::{Cluster, Resource, Tekton};

use crate::world::TEAM;

/// The name of the connection that tests use.
pub(crate) const ACME: &str = "acme";

/// The bearer token of the controller.
pub(crate) const CONTROLLER: &str = "token-of-the-controller";

/// A scripted host as a kind of host: a private one, as far as the controller knows.
#[derive(Debug)]
struct ScriptedKind(ScriptedScm);

impl DriverKind for ScriptedKind {
    fn name(&self) -> &str {
        "scripted"
    }

    fn build(&self, _: &DescribedConnection<'_>) -> Result<BuiltConnection> {
        Ok(BuiltConnection::new(Arc::new(self.0.clone())))
    }
}

/// A host whose driver panics.
#[derive(Debug)]
struct PanickingKind;

#[derive(Debug)]
struct Panicking;

impl DriverKind for PanickingKind {
    fn name(&self) -> &str {
        "panicking"
    }

    fn build(&self, _: &DescribedConnection<'_>) -> Result<BuiltConnection> {
        Ok(BuiltConnection::new(Arc::new(Panicking)))
    }
}

#[async_trait::async_trait]
impl ScmDriver for Panicking {
    fn host(&self) -> &str {
        "panic.example.com"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn connect(&self, _: &ConnectionName, _: &str) -> Result<Arc<dyn RepoConnection>> {
        panic!("this driver panics")
    }
}

/// Notifiers that note who tells: the namespace of each. With `settings.refuses` they refuse so many
/// times before.
#[derive(Debug, Clone, Default)]
struct RecorderKind(Arc<Mutex<Vec<String>>>);

impl NotifierKind for RecorderKind {
    fn name(&self) -> &str {
        "recorder"
    }

    fn build(&self, notifier: &DescribedNotifier<'_>) -> Result<Arc<dyn Notifier>> {
        let settings = notifier.spec.settings.as_ref();
        let refuses = settings.and_then(|settings| settings.get("refuses")?.as_u64()).unwrap_or(0);
        let (of, kind) = (notifier.tenant.to_string(), self.clone());
        Ok(Arc::new(Recorder { of, kind, refuses: refuses.into() }))
    }
}

#[derive(Debug)]
struct Recorder {
    of: String,
    kind: RecorderKind,
    refuses: AtomicU64,
}

#[async_trait::async_trait]
impl Notifier for Recorder {
    async fn deliver(&self, _: &NotificationView) -> Result<Delivered> {
        let left = self
            .refuses
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(Error::invalid("tell", "the receiver refuses it"));
        }
        self.kind.0.lock().unwrap().push(self.of.clone());
        Ok(Delivered::default())
    }
}

/// Notifiers that write to the log.
#[derive(Debug)]
struct LogKind;

impl NotifierKind for LogKind {
    fn name(&self) -> &str {
        "log"
    }

    fn build(&self, _: &DescribedNotifier<'_>) -> Result<Arc<dyn Notifier>> {
        Ok(Arc::new(workflows_notify::LogNotifier))
    }
}

/// The roles of the deployment.
pub(crate) const ROLES: &str = include_str!("../../../examples/controller/deploy/rbac.yaml");
const EVERYWHERE: &str =
    include_str!("../../../examples/controller/deploy/rbac-all-namespaces.yaml");
const IN_THE_TEAM: &str =
    include_str!("../../../examples/controller/deploy/rbac-some-namespaces.yaml");

/// Whose token that is.
pub(crate) const USER: &str = "system:serviceaccount:workflows:workflows-controller";

pub(crate) struct Platform {
    pub(crate) cluster: Cluster,
    pub(crate) tekton: Tekton,
    pub(crate) admin: Client,
    pub(crate) handle: EngineHandle,
    pub(crate) scm: ScriptedScm,
    /// Where hosts deliver to.
    pub(crate) hooks: String,
    recorder: RecorderKind,
    shutdown: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

impl Platform {
    /// All of it at work, with the repository `acme/api`.
    pub(crate) async fn start() -> Self {
        Self::of(Cluster::start().await).await
    }

    /// One whose cluster is never real, for what only a stand-in can be made to do.
    pub(crate) async fn stand_in(because: &str) -> Self {
        Self::of(Cluster::stand_in(because).await).await
    }

    async fn of(cluster: Cluster) -> Self {
        let (cluster, tekton) = Self::prepared(cluster).await;
        Self::join(cluster, tekton).await
    }

    /// A cluster with the custom resources and the deployment's roles.
    pub(crate) async fn prepared(cluster: Cluster) -> (Cluster, Tekton) {
        let tekton = cluster.tekton();
        cluster.namespace(TEAM);
        cluster.define().await;
        cluster.namespace("workflows");
        // It may do what the deployment's roles say, and nothing else.
        cluster.token(CONTROLLER, USER, &[]);
        cluster.bind_manifests(&[ROLES, EVERYWHERE]);
        (cluster, tekton)
    }

    /// One that runs workflows of the team's namespace alone, with the rights for that; the platform's
    /// namespace is `workflows`.
    pub(crate) async fn of_the_team(cluster: Cluster) -> Self {
        let tekton = cluster.tekton();
        cluster.namespace(TEAM);
        cluster.namespace("workflows");
        cluster.define().await;
        cluster.token(CONTROLLER, USER, &[]);
        cluster.bind_manifests(&[ROLES, IN_THE_TEAM]);
        let scm = ScriptedScm::new().under(Tenant::new(TEAM).unwrap(), ACME);
        let client = cluster.client_with(CONTROLLER);
        Self::with(
            cluster,
            tekton,
            scm,
            |builder| builder.namespaces([TEAM]).platform(Tenant::new("workflows").unwrap()),
            with_pipeline_runs(&client, Namespaces::some([(Tenant::new(TEAM).unwrap(), TEAM)])),
        )
        .await
    }

    /// A program that follows a cluster, which may have another one.
    pub(crate) async fn join(cluster: Cluster, tekton: Tekton) -> Self {
        let tenant = Tenant::new(TEAM).unwrap();
        let client = cluster.client_with(CONTROLLER);
        let scm = ScriptedScm::new().under(tenant, ACME);
        Self::with(
            cluster,
            tekton,
            scm,
            |all| all,
            with_pipeline_runs(&client, Namespaces::same_name()),
        )
        .await
    }

    /// The program is started anew, and what it knew is lost.
    pub(crate) async fn with_a_new_ledger(self) -> Self {
        let (cluster, tekton, scm) = (self.cluster.clone(), self.tekton.clone(), self.scm.clone());
        self.stop().await;
        let client = cluster.client_with(CONTROLLER);
        Self::with(
            cluster,
            tekton,
            scm,
            |all| all,
            with_pipeline_runs(&client, Namespaces::same_name()),
        )
        .await
    }

    /// A program whose controller and whose engine are put together with this besides.
    pub(crate) async fn with(
        cluster: Cluster,
        tekton: Tekton,
        scm: ScriptedScm,
        controller_with: impl FnOnce(ControllerBuilder) -> ControllerBuilder,
        engine_with: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Self {
        let admin = cluster.client();
        let client = cluster.client_with(CONTROLLER);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hooks = format!("http://{}", listener.local_addr().unwrap());
        let recorder = RecorderKind::default();
        let secrets = Arc::new(KubernetesSecrets::new(client.clone(), Namespaces::same_name()));
        let controller = Controller::builder(client.clone(), secrets.clone())
            .driver(ScriptedKind(scm.clone()))
            .driver(PanickingKind)
            .notifier(LogKind)
            .notifier(recorder.clone())
            .public_url(&hooks)
            .platform(Tenant::new("platform").unwrap());
        let controller = controller_with(controller).build().unwrap();
        let engine = Engine::builder()
            .store(Arc::new(MemoryStore::new(Arc::new(SystemClock))))
            .secrets(secrets)
            .policy(controller.policy())
            .source(controller.source());
        let engine = engine_with(engine).build().unwrap();
        let handle = engine.handle();
        let shutdown = CancellationToken::new();
        let mut synced = controller.synced();
        let routes = controller.webhooks();
        let running = vec![
            tokio::spawn({
                let shutdown = shutdown.clone();
                async move {
                    let served = axum::serve(listener, routes);
                    let served = served.with_graceful_shutdown(shutdown.cancelled_owned());
                    served.await.unwrap();
                }
            }),
            tokio::spawn({
                let shutdown = shutdown.clone();
                async move { controller.run(&engine, shutdown).await }
            }),
        ];
        synced.wait_for(|synced| *synced).await.unwrap();
        Self { cluster, tekton, admin, handle, scm, hooks, recorder, shutdown, running }
    }

    /// The namespaces whose notifiers of the type `recorder` have told of something, in order.
    pub(crate) fn recorded(&self) -> Vec<String> {
        self.recorder.0.lock().unwrap().clone()
    }

    /// Ends the program.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        for running in self.running {
            running.await.unwrap();
        }
    }

    /// As `kubectl apply`, of an object of the team's namespace.
    pub(crate) async fn apply(&self, plural: &str, object: &Value) {
        self.apply_in(TEAM, plural, object).await;
    }

    pub(crate) async fn apply_in(&self, namespace: &str, plural: &str, object: &Value) {
        let api_version = object["apiVersion"].as_str().unwrap();
        let root = if api_version.contains('/') { "apis" } else { "api" };
        let all = format!("/{root}/{api_version}/namespaces/{namespace}/{plural}");
        let one = format!("{all}/{}", object["metadata"]["name"].as_str().unwrap());
        let created = send(&self.admin, Method::POST, &all, object).await;
        match created {
            Ok(_) => {}
            Err(error) if error.contains("already exists") => {
                let mut object = object.clone();
                // The controller may write in between.
                for _ in 0..20 {
                    let now = send(&self.admin, Method::GET, &one, &json!({})).await.unwrap();
                    object["metadata"]["resourceVersion"] =
                        now["metadata"]["resourceVersion"].clone();
                    match send(&self.admin, Method::PUT, &one, &object).await {
                        Ok(_) => return,
                        Err(error) if error.contains("the object has been modified") => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                panic!("{one} changes all the time");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Somebody else writes into a status, as a merge patch.
    pub(crate) async fn patch_status(&self, plural: &str, name: &str, patch: &Value) {
        let path =
            format!("/apis/workflows.tekton.dev/v1alpha1/namespaces/{TEAM}/{plural}/{name}/status");
        let request = Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string().into_bytes())
            .unwrap();
        self.admin.request::<Value>(request).await.unwrap();
    }

    pub(crate) async fn delete(&self, plural: &str, name: &str) {
        let path = format!("/apis/workflows.tekton.dev/v1alpha1/namespaces/{TEAM}/{plural}/{name}");
        send(&self.admin, Method::DELETE, &path, &json!({})).await.unwrap();
    }

    pub(crate) async fn secret(&self, name: &str, key: &str, value: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "data": {key: data_encoding::BASE64.encode(value.as_bytes())},
        });
        self.apply("secrets", &secret).await;
    }

    /// Waits until an object's condition `Ready` has this reason for its present generation, and
    /// returns whether it holds, with its message.
    pub(crate) async fn ready(&self, kind: &str, name: &str, reason: &str) -> (bool, String) {
        let resource = resource(kind);
        let what = format!("{kind} {name} to be {reason}");
        self.cluster
            .until(&what, |cluster| {
                let object = cluster.object(&resource, TEAM, name)?;
                let ready = condition(&object, "Ready")?;
                let current = ready["observedGeneration"] == object["metadata"]["generation"];
                (current && ready["reason"] == reason).then(|| {
                    (ready["status"] == "True", ready["message"].as_str().unwrap().to_owned())
                })
            })
            .await
    }

    /// The usual connection, and whatever else this changes in it.
    pub(crate) async fn connect(&self, change: impl FnOnce(&mut Value)) {
        let mut connection = json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "ScmConnection",
            "metadata": {"name": ACME},
            "spec": {"driver": "scripted", "repositories": ["acme/*"], "poll": {"interval": "1h"}},
        });
        change(&mut connection["spec"]);
        self.apply("scmconnections", &connection).await;
    }

    /// The engine hears of something.
    pub(crate) async fn hears(&self, observation: Observation) {
        self.handle.publish(vec![observation]).await.unwrap();
    }

    /// Waits for a PipelineRun of a workflow.
    pub(crate) async fn run_of(&self, workflow: &str) -> Value {
        let what = format!("a run of {workflow}");
        self.cluster.until(&what, |_| self.runs_of(workflow).into_iter().next()).await
    }

    pub(crate) fn runs_of(&self, workflow: &str) -> Vec<Value> {
        let is_of = |run: &Value| {
            run["metadata"]["annotations"]["workflows.tekton.dev/workflow"] == workflow
                || run["metadata"]["labels"]["workflows.tekton.dev/workflow"] == workflow
        };
        self.tekton.runs().into_iter().filter(is_of).collect()
    }
}

/// An engine whose runs are PipelineRuns, made by this client.
pub(crate) fn with_pipeline_runs(
    client: &Client,
    namespaces: Namespaces,
) -> impl FnOnce(EngineBuilder) -> EngineBuilder + use<> {
    let sink = TektonSink::new(client.clone(), namespaces);
    move |engine| engine.sink("tekton", Arc::new(sink))
}

/// A Workflow that runs on pushes, with this besides in its spec.
pub(crate) fn workflow(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut workflow = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {
            "repos": [{"name": "code", "connection": ACME, "repo": "acme/*"}],
            "triggers": [{"name": "push", "on": "push"}],
            "pipelineSpec": {"tasks": [
                {"name": "build", "taskSpec": {"steps": [{"name": "run", "image": "alpine", "script": "true"}]}},
            ]},
        },
    });
    change(&mut workflow["spec"]);
    workflow
}

pub(crate) fn resource(kind: &str) -> Resource {
    let plural = match kind {
        "Policy" => "policies".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    Resource::namespaced("workflows.tekton.dev", "v1alpha1", kind, &plural)
}

pub(crate) fn condition(object: &Value, name: &str) -> Option<Value> {
    let all = object["status"]["conditions"].as_array()?;
    all.iter().find(|one| one["type"] == name).cloned()
}

async fn send(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value, String> {
    let body = if method == Method::GET { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    client.request::<Value>(request).await.map_err(|error| error.to_string())
}
