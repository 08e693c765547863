//! A real API server in place of the stand-in.
//!
//! Requests go through the same port to it, so that they are counted and fail on demand as ever. Whose
//! a token is, and what pods say, is played here: there is nobody to issue tokens, and no node. What
//! tests ask and do by themselves goes to the server directly.

use std::{
    collections::BTreeSet,
    fs::File,
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    http::{HeaderValue, Method, Request, header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{Resource, access::Owner, access::Subject};

/// What the namespaces and roles of the tests have, by which they are told from others.
const LABEL: &str = "workflows.tekton.dev/made-by";
const SUITE: &str = "test-suite";

/// How long things may take that a cluster does by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Tests ask synchronously, in the middle of a runtime of theirs.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a thread for a real API server")
});

/// Works on another thread until it is done.
pub(crate) fn wait<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| RUNTIME.block_on(work)).join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A real API server, used by one test at a time.
pub(crate) struct Real {
    /// For what tests ask by themselves.
    client: Client,
    /// For what comes in through the port.
    onward: Client,
    namespaces: Mutex<BTreeSet<String>>,
    roles: Mutex<Vec<String>>,
    _alone: File,
}

impl Real {
    /// Connects to the current context of a kubeconfig, when no other test is at it.
    pub(crate) async fn connect(kubeconfig: &Path) -> Self {
        let lock = std::env::temp_dir().join("workflows-test-kubeconfig.lock");
        let alone = File::create(lock).expect("a lock between the tests");
        alone.lock().expect("a lock between the tests");
        let kubeconfig = Kubeconfig::read_from(kubeconfig)
            .unwrap_or_else(|error| panic!("WORKFLOWS_TEST_KUBECONFIG: {error}"));
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap_or_else(|error| panic!("WORKFLOWS_TEST_KUBECONFIG: {error}"));
        config.default_retry = false;
        // A client lives on the runtime that it was made on.
        let onward = Client::try_from(config.clone()).expect("a client of the real API server");
        let client = {
            let _runtime = RUNTIME.enter();
            Client::try_from(config).expect("a client of the real API server")
        };
        let real = Self {
            client,
            onward,
            namespaces: Mutex::default(),
            roles: Mutex::default(),
            _alone: alone,
        };
        real.clean_up();
        real
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .expect("a path");
        let response = self.client.send(request).await.expect("the real API server answers");
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), 1 << 28).await;
        let body = body.expect("the real API server answers");
        (code, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Asks the server itself.
    pub(crate) fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        wait(self.send(method, path, "application/json", body))
    }

    /// Changes fields of what is there.
    pub(crate) fn merge(&self, path: &str, patch: &Value) {
        let kind = "application/merge-patch+json";
        let (code, answer) = wait(self.send(Method::PATCH, path, kind, patch));
        assert_eq!(code, 200, "PATCH {path}: {answer}");
    }

    /// Looks until there is something to be found.
    pub(crate) fn until<T>(&self, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find() {
                return found;
            }
            let is_late = std::time::Instant::now() > deadline;
            assert!(!is_late, "the real cluster does not come to it: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn object(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        let path = resource.path(namespace, Some(name));
        match self.ask(Method::GET, &path, &Value::Null) {
            (200, object) => Some(object),
            (404, _) => None,
            (code, answer) => panic!("GET {path}: {code} {answer}"),
        }
    }

    /// The objects of a kind in the namespaces of this test, in the order of their names.
    pub(crate) fn objects(&self, resource: &Resource) -> Vec<Value> {
        let path = resource.path("", None);
        let (code, list) = self.ask(Method::GET, &path, &Value::Null);
        assert_eq!(code, 200, "GET {path}: {list}");
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ours = |object: &&Value| {
            let namespace = object["metadata"]["namespace"].as_str();
            namespace.is_none_or(|name| namespaces.contains(name))
        };
        list["items"].as_array().into_iter().flatten().filter(is_ours).cloned().collect()
    }

    /// Makes a namespace that is this test's.
    pub(crate) fn namespace(&self, name: &str) {
        {
            let mut known = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.insert(name.to_owned()) {
                return;
            }
        }
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {LABEL: SUITE}},
        });
        let (code, answer) = self.ask(Method::POST, "/api/v1/namespaces", &namespace);
        assert_eq!(code, 201, "it must be free for the tests: {answer}");
        let accounts = Resource::namespaced("", "v1", "ServiceAccount", "serviceaccounts");
        self.until("pods can be made", || self.object(&accounts, name, "default"));
    }

    /// Removes all that this test, or one that was ended in its midst, has made.
    fn clean_up(&self) {
        let ours = format!("/api/v1/namespaces?labelSelector={LABEL}%3D{SUITE}");
        let (_, list) = self.ask(Method::GET, &ours, &Value::Null);
        for one in list["items"].as_array().into_iter().flatten() {
            self.remove_namespace(one["metadata"]["name"].as_str().unwrap_or_default());
        }
        self.until("what a test has made goes", || {
            let (_, left) = self.ask(Method::GET, &ours, &Value::Null);
            left["items"].as_array().is_some_and(Vec::is_empty).then_some(())
        });
    }

    fn remove_namespace(&self, name: &str) {
        // Nobody is there who would take finalizers away.
        let connections = Resource::namespaced(
            "workflows.tekton.dev",
            "v1alpha1",
            "ScmConnection",
            "scmconnections",
        );
        let (_, list) = self.ask(Method::GET, &connections.path(name, None), &Value::Null);
        for one in list["items"].as_array().into_iter().flatten() {
            let path = connections.path(name, one["metadata"]["name"].as_str());
            let none = json!({"metadata": {"finalizers": null}});
            // It may have gone meanwhile.
            wait(self.send(Method::PATCH, &path, "application/merge-patch+json", &none));
        }
        self.ask(Method::DELETE, &format!("/api/v1/namespaces/{name}"), &Value::Null);
    }

    /// Makes a role and binds it.
    pub(crate) fn bind(&self, subject: &Subject, namespace: Option<&str>, rules: &[Value]) {
        const GROUP: &str = "rbac.authorization.k8s.io";
        let (kind, subject) = match subject {
            Subject::User(name) => ("User", name),
            Subject::Group(name) => ("Group", name),
        };
        let mut made = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("workflows-{SUITE}-{}", made.len());
        let role = match namespace {
            None => "ClusterRole",
            Some(_) => "Role",
        };
        let metadata = json!({"name": name, "labels": {LABEL: SUITE}});
        let rules = json!({"kind": role, "metadata": metadata, "rules": rules});
        let binding = json!({
            "kind": format!("{role}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": role, "name": name},
            "subjects": [{"apiGroup": GROUP, "kind": kind, "name": subject}],
        });
        for (plural, mut object) in [("", rules), ("binding", binding)] {
            object["apiVersion"] = format!("{GROUP}/v1").into();
            let plural = format!("{}{plural}s", role.to_lowercase());
            let all = Resource::namespaced(GROUP, "v1", "", &plural);
            let (all, one) = match namespace {
                None => (all.path("", None), all.path("", Some(&name))),
                Some(namespace) => (all.path(namespace, None), all.path(namespace, Some(&name))),
            };
            // One may be left of a test that was ended in its midst.
            self.ask(Method::DELETE, &one, &Value::Null);
            let (code, answer) = self.ask(Method::POST, &all, &object);
            assert_eq!(code, 201, "{answer}");
            made.push(one);
        }
    }

    /// Hands a request on, in the name of a token's owner.
    pub(crate) async fn forward(
        &self,
        parts: &Parts,
        body: Bytes,
        owner: Option<Owner>,
    ) -> Response {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Body::from(body.to_vec()));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = path.parse().expect("it was one");
        for name in [header::ACCEPT, header::CONTENT_TYPE] {
            if let Some(value) = parts.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        if let Some(owner) = owner {
            let text = |text: &str| HeaderValue::from_str(text).expect("a name of visible letters");
            request.headers_mut().insert("impersonate-user", text(&owner.user));
            for group in &owner.groups {
                request.headers_mut().append("impersonate-group", text(group));
            }
        }
        match self.onward.send(request).await {
            Ok(response) => response.map(axum::body::Body::new),
            Err(error) => panic!("the real API server does not answer: {error}"),
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for path in self.roles.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.ask(Method::DELETE, path, &Value::Null);
        }
        self.clean_up();
    }
}
