//! The other side: a cluster, a GitHub, those who send its deliveries, and who sees the runs.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use futures::{StreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinSet};
use workflows_core::SystemClock;
use workflows_github_standin::{AppHandle, Hub, RepoHandle, Role, SentDelivery};
use workflows_kube_standin::{Cluster, Resource};

use crate::program::Program;

const TEAM: &str = "team-a";
const CONNECTION: &str = "acme";
const USER: &str = "alice";
/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A delivery that was not sent yet.
pub(crate) struct Delivery {
    sent: SentDelivery,
    repo: RepoHandle,
    /// The commit that it is about.
    pub(crate) commit: String,
}

/// All that a controller needs.
pub(crate) struct World {
    cluster: Cluster,
    client: Client,
    hub: Hub,
    /// Of the first organisation, and of each of the others.
    repos: Vec<RepoHandle>,
    http: reqwest::Client,
    directory: TempDir,
    app: AppHandle,
}

/// A Workflow with these triggers, whose name is its number.
pub(crate) fn workflow(number: usize, repo: &str, triggers: &Value) -> Value {
    json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Workflow",
        "metadata": {"name": name(number)},
        "spec": {
            "repos": [{"name": "code", "connection": CONNECTION, "repo": repo}],
            "triggers": triggers,
            "params": [{"name": "revision", "value": "$(event.head.sha)"}],
            "pipelineSpec": {"tasks": [
                {"name": "build", "taskSpec": {"steps": [{"name": "run", "image": "alpine", "script": "true"}]}},
            ]},
        },
    })
}

fn name(number: usize) -> String {
    format!("w-{number:06}")
}

fn custom(plural: &str) -> String {
    format!("/apis/workflows.tekton.dev/v1alpha1/namespaces/{TEAM}/{plural}")
}

fn workflows() -> Resource {
    Resource::namespaced("workflows.tekton.dev", "v1alpha1", "Workflow", "workflows")
}

impl World {
    /// With the repository `acme/api` that has these files, and one like it in each further
    /// organisation, and a connection that reads what is defined in that directory of them, or
    /// nothing.
    pub(crate) async fn new(
        files: &[(&str, &str)],
        definitions: &str,
        organisations: usize,
    ) -> Self {
        let cluster = Cluster::start().await;
        cluster.tekton();
        cluster.namespace(TEAM);
        cluster.define().await;
        let client = cluster.client();
        let hub = Hub::start_unchecked(Arc::new(SystemClock));
        let app = hub.create_app("ci");
        let mut repos = Vec::with_capacity(organisations);
        for number in 0..organisations {
            let organisation = match number {
                0 => "acme".to_owned(),
                other => format!("acme-{other}"),
            };
            let repo = hub.create_repo(&format!("{organisation}/api"));
            repo.set_role(USER, Some(Role::Write));
            repo.push("main", files);
            app.install(&organisation);
            repos.push(repo);
        }
        // Nobody is there: what is delivered is sent by the senders of the benchmark.
        app.hook("http://127.0.0.1:9/", "h00k");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let directory = tempfile::tempdir().expect("a directory");
        let world = Self { cluster, client, hub, repos, http, directory, app };
        world.connect(definitions).await;
        world
    }

    async fn connect(&self, definitions: &str) {
        let secrets = format!("/api/v1/namespaces/{TEAM}/secrets");
        for (name, value) in [("app", self.app.private_key()), ("hook", "h00k")] {
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                "data": {"value": BASE64.encode(value.as_bytes())},
            });
            self.ask("POST", &secrets, &secret).await;
        }
        let connection = json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "ScmConnection",
            "metadata": {"name": CONNECTION},
            "spec": {
                "driver": "github", "url": self.hub.api(), "repositories": ["acme*/*"],
                "definitionsDirectory": definitions,
                "credentials": {"app": {
                    "id": self.app.id(), "privateKey": {"name": "app", "key": "value"},
                }},
                "webhook": {"secret": {"name": "hook", "key": "value"}},
            },
        });
        self.ask("POST", &custom("scmconnections"), &connection).await;
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .expect("a request");
        let answer = self.client.request(request).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// What its API server is.
    pub(crate) fn server(&self) -> &'static str {
        match std::env::var_os("WORKFLOWS_TEST_KUBECONFIG") {
            Some(_) => "a real API server",
            None => "the stand-in for an API server",
        }
    }

    /// Starts the controller.
    pub(crate) async fn start(&self) -> Program {
        let (api, ledger) = (self.cluster.url(), self.directory.path().join("ledger.db"));
        let ledger = ledger.display().to_string();
        let started = tokio::task::spawn_blocking(move || Program::start(&api, &ledger));
        started.await.expect("it is started")
    }

    // --- Workflows -----------------------------------------------------------------------------

    /// Creates so many Workflows.
    pub(crate) async fn create_workflows(&self, count: usize, of: impl Fn(usize) -> Value) {
        const TOGETHER: usize = 16;
        let path = custom("workflows");
        stream::iter(0..count)
            .map(|number| {
                let (workflow, path) = (of(number), path.as_str());
                async move { self.ask("POST", path, &workflow).await }
            })
            .buffer_unordered(TOGETHER)
            .for_each(|_| async {})
            .await;
    }

    /// Waits until the status of so many Workflows says that they count.
    pub(crate) async fn all_registered(&self, count: usize) {
        let kind = workflows();
        for number in 0..count {
            let name = name(number);
            while !self.cluster.object(&kind, TEAM, &name).is_some_and(|one| counts(&one)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Replaces a Workflow, and returns how long it took until its status said that it counts.
    pub(crate) async fn change(&self, workflow: &Value) -> Duration {
        let name = workflow["metadata"]["name"].as_str().expect("a name");
        let kind = workflows();
        let now = self.cluster.object(&kind, TEAM, name).expect("it is there");
        let mut workflow = workflow.clone();
        workflow["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
        let begin = Instant::now();
        self.ask("PUT", &format!("{}/{name}", custom("workflows")), &workflow).await;
        let is_so = |cluster: &Cluster| {
            cluster.object(&kind, TEAM, name).filter(counts).map(|_| begin.elapsed())
        };
        self.cluster.until("the change to count", is_so).await
    }

    // --- deliveries ----------------------------------------------------------------------------

    /// Opens a pull request from a branch of its own.
    pub(crate) fn pull_request(&self, number: usize) -> Delivery {
        let branch = format!("topic-{number}");
        let repo = &self.repos[number % self.repos.len()];
        let user = repo.as_user(USER);
        user.push(&branch, &[("topic", &branch)]);
        let opened = user.open_pull_request("A change", &branch, "main");
        let commit = repo.head_of(opened);
        self.newest("pull_request", repo, commit)
    }

    /// Pushes to a branch.
    pub(crate) fn push(&self, branch: &str, turn: usize) -> Delivery {
        let repo = &self.repos[0];
        let commit = repo.as_user(USER).push(branch, &[("turn", &turn.to_string())]);
        self.newest("push", repo, commit)
    }

    fn newest(&self, event: &str, repo: &RepoHandle, commit: String) -> Delivery {
        let all = self.hub.deliveries();
        let newest = all.into_iter().rev().find(|one| one.event == event);
        Delivery { sent: newest.expect("it is delivered"), repo: repo.clone(), commit }
    }

    /// Sends a delivery, and returns the code of the answer.
    async fn post(&self, program: &Program, delivery: &Delivery) -> u16 {
        let url = format!("{}/hooks/{TEAM}/{CONNECTION}", program.address);
        let mut request = self.http.post(url);
        for (name, value) in &delivery.sent.headers {
            request = request.header(name, value);
        }
        let answer = request.body(delivery.sent.body.clone()).send().await;
        answer.expect("the controller answers").status().as_u16()
    }

    /// Sends a delivery that is taken in.
    pub(crate) async fn send(&self, program: &Program, delivery: &Delivery) {
        assert_eq!(self.post(program, delivery).await, 202, "it is taken in");
    }

    /// Sends a delivery as soon as they are taken in.
    pub(crate) async fn send_when_ready(&self, program: &Program, delivery: &Delivery) {
        let deadline = Instant::now() + PATIENCE;
        while self.post(program, delivery).await != 202 {
            assert!(Instant::now() < deadline, "no delivery is taken in");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Has so many senders send all of them. Returns of each when it was sent.
    pub(crate) async fn send_all(
        &self,
        program: &Program,
        deliveries: &[Delivery],
        senders: usize,
    ) -> Vec<(String, Instant)> {
        stream::iter(deliveries)
            .map(|delivery| async move {
                let sent = Instant::now();
                self.send(program, delivery).await;
                (delivery.commit.clone(), sent)
            })
            .buffer_unordered(senders)
            .collect()
            .await
    }

    /// Waits until the commits of all of them show a check.
    pub(crate) async fn until_checked(&self, deliveries: &[Delivery]) {
        let deadline = Instant::now() + PATIENCE;
        for delivery in deliveries {
            while delivery.repo.checks(&delivery.commit).is_empty() {
                assert!(Instant::now() < deadline, "a commit shows no check");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// How often GitHub was called.
    pub(crate) fn calls(&self) -> usize {
        self.hub.calls().len()
    }

    pub(crate) fn forget_calls(&self) {
        self.hub.forget_calls();
    }

    // --- runs ----------------------------------------------------------------------------------

    /// The runs as a watch tells of them from now on.
    pub(crate) fn runs(&self) -> Runs {
        let kind = GroupVersionKind::gvk("tekton.dev", "v1", "PipelineRun");
        let kind = ApiResource::from_gvk_with_plural(&kind, "pipelineruns");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), TEAM, &kind);
        let (sender, seen) = mpsc::unbounded_channel();
        let mut watch = JoinSet::new();
        watch.spawn(async move {
            let mut known = HashSet::new();
            // One that breaks is taken up again.
            let changes = watcher(api, watcher::Config::default()).default_backoff();
            let mut changes = changes.boxed();
            while let Some(change) = changes.next().await {
                let at = Instant::now();
                let (Ok(watcher::Event::Apply(run)) | Ok(watcher::Event::InitApply(run))) = change
                else {
                    continue;
                };
                if known.insert(run.uid()) {
                    let commit = run.annotations().get("workflows.tekton.dev/commit").cloned();
                    // The benchmark has ended when nobody listens.
                    let _ = sender.send((commit.unwrap_or_default(), at));
                }
            }
        });
        Runs { seen, _watch: watch }
    }
}

fn counts(object: &Value) -> bool {
    let status = &object["status"];
    status["observedGeneration"] == object["metadata"]["generation"]
        && status["conditions"][0]["status"] == "True"
}

/// Runs, each once, with the commit that it is for and when it was seen.
pub(crate) struct Runs {
    seen: mpsc::UnboundedReceiver<(String, Instant)>,
    /// It ends with this.
    _watch: JoinSet<()>,
}

impl Runs {
    /// The next one.
    pub(crate) async fn next(&mut self) -> (String, Instant) {
        self.within(PATIENCE).await.expect("a run comes")
    }

    /// The next one, when it comes in time.
    pub(crate) async fn within(&mut self, patience: Duration) -> Option<(String, Instant)> {
        tokio::time::timeout(patience, self.seen.recv()).await.ok().flatten()
    }
}
