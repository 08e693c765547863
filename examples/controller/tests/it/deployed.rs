//! A cluster, a GitHub, and processes of the controller.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use workflows_core::SystemClock;
use workflows_github_standin::{AppHandle, Hub, RepoHandle};
use workflows_kube_standin::{Cluster, Resource, Tekton};

/// The namespace of the workflows.
pub(crate) const TEAM: &str = "team-a";
const TOKEN: &str = "token-of-the-controller";

/// A cluster and a GitHub that know each other.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) tekton: Tekton,
    pub(crate) repo: RepoHandle,
    /// Where GitHub delivers to.
    pub(crate) port: u16,
    pub(crate) directory: TempDir,
    hub: Hub,
    _app: AppHandle,
}

impl World {
    /// Custom resources, roles, a connection to `acme/api`, and a workflow that runs on each push.
    pub(crate) async fn new() -> Self {
        let cluster = Cluster::start().await;
        let tekton = cluster.tekton();
        cluster.namespace(TEAM);
        cluster.namespace("workflows");
        cluster.define().await;
        cluster.token(TOKEN, "system:serviceaccount:workflows:workflows-controller", &[]);
        cluster.bind_manifests(&[
            include_str!("../../deploy/rbac.yaml"),
            include_str!("../../deploy/rbac-all-namespaces.yaml"),
        ]);

        let port = free_port();
        let hub = Hub::start(Arc::new(SystemClock));
        let repo = hub.create_repo("acme/api");
        repo.push("main", &[("README.md", "# API")]);
        let app = hub.create_app("ci");
        app.install("acme");
        app.hook(&format!("http://127.0.0.1:{port}/hooks/{TEAM}/acme"), "h00k");
        secret(&cluster, "app", "key", app.private_key()).await;
        secret(&cluster, "hook", "secret", "h00k").await;
        let connection = json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "ScmConnection",
            "metadata": {"name": "acme"},
            "spec": {
                "driver": "github", "url": hub.api(), "repositories": ["acme/*"],
                "credentials": {"app": {"id": app.id(), "privateKey": {"name": "app", "key": "key"}}},
                "webhook": {"secret": {"name": "hook", "key": "secret"}},
            },
        });
        post(&cluster, &custom("scmconnections"), &connection).await;
        let workflow = json!({
            "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": "ci"},
            "spec": {
                "repos": [{"name": "code", "connection": "acme", "repo": "acme/api"}],
                "triggers": [{"name": "push", "on": "push"}],
                "params": [{"name": "revision", "value": "$(event.head.sha)"}],
                "pipelineSpec": {"tasks": [
                    {"name": "a", "taskSpec": {"steps": [{"name": "s", "image": "alpine", "script": "true"}]}},
                ]},
            },
        });
        post(&cluster, &custom("workflows"), &workflow).await;
        let directory = tempfile::tempdir().unwrap();
        write_kubeconfig(&cluster, &directory.path().join("kubeconfig"));
        Self { cluster, tekton, repo, port, directory, hub, _app: app }
    }

    /// Makes a Secret of the team's.
    pub(crate) async fn secret(&self, name: &str, key: &str, value: &str) {
        secret(&self.cluster, name, key, value).await;
    }

    /// Makes a custom resource of the team's.
    pub(crate) async fn apply(&self, plural: &str, object: &Value) {
        post(&self.cluster, &custom(plural), object).await;
    }

    /// Starts a process of the controller with this ledger.
    pub(crate) fn start(&self, replica: &str, port: u16, ledger: (&str, &str)) -> Process {
        self.start_with(replica, port, &[ledger])
    }

    /// Starts a process of the controller with these settings besides the usual ones.
    pub(crate) fn start_with(
        &self,
        replica: &str,
        port: u16,
        settings: &[(&str, &str)],
    ) -> Process {
        let log = self.directory.path().join(format!("{replica}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let api = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_workflows-controller"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("POD_NAME", replica)
            .env("POD_NAMESPACE", "workflows")
            .env("HOOKS_ADDRESS", format!("127.0.0.1:{port}"))
            .env("API_ADDRESS", format!("127.0.0.1:{api}"))
            .env("PUBLIC_URL", format!("http://127.0.0.1:{port}"))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Process { child, api }
    }

    /// The runs of a commit.
    pub(crate) fn runs_of(&self, commit: &str) -> usize {
        let is_of = |run: &&Value| run["spec"]["params"][0]["value"] == commit;
        self.tekton.runs().iter().filter(is_of).count()
    }

    /// Has Tekton do what is to be done, until all of these commits have a check that is concluded.
    pub(crate) async fn conclude(&self, commits: &[String]) {
        // GitHub lets an App do 900 points a minute, and a commit's run and check are some twenty.
        let of_points = Duration::from_secs(2) * u32::try_from(commits.len()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(120) + of_points;
        loop {
            for run in self.tekton.under_way() {
                let name = run["metadata"]["name"].as_str().unwrap();
                self.tekton.finish(TEAM, name, true);
            }
            let left: Vec<&String> =
                commits.iter().filter(|commit| !self.is_concluded(commit)).collect();
            if left.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {} commits are not concluded, among them {} with {} runs and the checks {:?}, \
                 which GitHub told of as {:?}\n{}",
                left.len(),
                commits.len(),
                left[0],
                self.runs_of(left[0]),
                self.repo.checks(left[0]),
                self.told_of(left[0]),
                self.logs(),
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_concluded(&self, commit: &str) -> bool {
        let checks = self.repo.checks(commit);
        checks.last().is_some_and(|check| check.conclusion.as_deref() == Some("success"))
    }

    /// The deliveries of a commit, each with the code that it was answered with.
    fn told_of(&self, commit: &str) -> Vec<(String, Option<u16>)> {
        let all = self.hub.deliveries().into_iter();
        let of_commit = all.filter(|one| one.body.contains(commit));
        of_commit.map(|one| (format!("{} {}", one.event, one.guid), one.status)).collect()
    }

    /// What the processes warned of, and the last that they said.
    pub(crate) fn logs(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let (before, last) = lines.split_at(lines.len().saturating_sub(30));
                let warns = |line: &&&str| !line.contains("\"INFO\"");
                let warned: Vec<&str> = before.iter().filter(warns).copied().collect();
                let warned = &warned[warned.len().saturating_sub(30)..];
                let name = path.display();
                all.push_str(&format!(
                    "{name}:\n{}\n...\n{}\n",
                    warned.join("\n"),
                    last.join("\n")
                ));
            }
        }
        all
    }
}

/// A process of the controller, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// Its inner port.
    pub(crate) api: u16,
}

impl Process {
    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.get("/readyz").await.as_deref() != Some("200") {
            assert!(Instant::now() < deadline, "the controller does not get ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The code that a path of its inner port answers with.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        let answer = self.answer(path).await?;
        answer.split(' ').nth(1).map(str::to_owned)
    }

    /// The whole answer.
    pub(crate) async fn answer(&self, path: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.api)).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        tokio::time::timeout(Duration::from_secs(10), asked).await.ok()?
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// As a machine that breaks.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to stop, and returns whether it ended well.
    pub(crate) fn terminate(mut self) -> bool {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody uses now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn custom(plural: &str) -> String {
    format!("/apis/workflows.tekton.dev/v1alpha1/namespaces/{TEAM}/{plural}")
}

async fn secret(cluster: &Cluster, name: &str, key: &str, value: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "data": {key: data_encoding::BASE64.encode(value.as_bytes())},
    });
    post(cluster, &format!("/api/v1/namespaces/{TEAM}/secrets"), &secret).await;
}

async fn post(cluster: &Cluster, path: &str, object: &Value) {
    let request = axum::http::Request::post(path)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    cluster.client().request::<Value>(request).await.unwrap();
}

fn write_kubeconfig(cluster: &Cluster, path: &Path) {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": cluster.url()}}],
        "users": [{"name": "it", "user": {"token": TOKEN}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "workflows"}}],
    });
    std::fs::write(path, config.to_string()).unwrap();
}

/// What every replica's Lease is.
pub(crate) fn lease(world: &World) -> Option<String> {
    let leases =
        Resource::namespaced("coordination.k8s.io", "v1", "Lease", "leases").without_status();
    let lease = world.cluster.object(&leases, "workflows", "workflows-controller")?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}
