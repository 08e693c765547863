//! A Kubernetes API server with Tekton's rules, for tests: [`Cluster`].
//!
//! It talks HTTP on loopback and does what matters to whoever keeps objects there:
//!
//! - create (with `generateName`), get, list with selectors and pages, replace, JSON merge patch, JSON
//!   patch, delete with preconditions and finalizers, the status on a path of its own;
//! - resource versions, and conflicts over them and over uids;
//! - watches with bookmarks and time limits, and 410 for one that begins too early;
//! - CustomResourceDefinitions: pruning, defaults, structural schemas and their CEL rules;
//! - namespaces that have to be there, names, labels and annotations within their limits, admission
//!   (see [`Cluster::admit`]), garbage collection by owner, logs of pods, also as they are written;
//! - TokenReview, SubjectAccessReview, and the rules of roles (see [`Cluster::bind`]);
//! - Tekton's admission of PipelineRuns, and a controller that is played: [`Tekton`].
//!
//! What it does not know it refuses, with the status code of the original. [`Cluster::fail`] makes it
//! fail in the ways in which servers do, and [`Cluster::go_down`] ends it until it is started again.
//!
//! When `WORKFLOWS_TEST_KUBECONFIG` names a kubeconfig, [`Cluster::start`] gives that cluster instead,
//! behind the same port: for one test at a time, in namespaces that are removed afterwards. Tekton's
//! admission and controller are the real ones then, and the nodes are played. What only a stand-in can
//! be made to do is asked of [`Cluster::stand_in`].

mod access;
mod api;
mod definition;
mod fault;
mod logs;
mod nodes;
mod port;
mod real;
mod refusal;
mod resource;
mod schema;
mod selector;
mod store;
mod tekton;
mod watch;

use std::{
    collections::BTreeMap,
    fmt,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{Method, Request};
use jiff::Timestamp;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::watch as signal;

use self::{
    access::Owners,
    fault::Faults,
    port::Port,
    real::Real,
    store::{Name, Store},
};
pub use self::{
    access::Subject, fault::Fault, refusal::Refusal, resource::Resource, tekton::Tekton,
};

/// What an admission webhook sees.
#[derive(Debug)]
pub struct Admission<'a> {
    /// What kind of object it is.
    pub resource: &'a Resource,
    /// `CREATE`, `UPDATE` or `DELETE`.
    pub operation: &'static str,
    /// The object before, when it was there.
    pub before: Option<&'a Value>,
    /// The object as it is to be.
    pub after: &'a Value,
}

type Hook = Box<dyn Fn(&Admission<'_>) -> Result<(), Refusal> + Send>;

/// A cluster, for as long as it is kept.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) shared: Arc<Shared>,
    port: Arc<Port>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("port", &self.port).finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The cluster that is behind the port instead.
    pub(crate) real: Option<Real>,
    /// The newest version, for watches.
    pub(crate) version: signal::Sender<u64>,
}

pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) schemas: BTreeMap<Resource, Value>,
    pub(crate) owners: Owners,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) faults: Faults,
    pub(crate) logs: BTreeMap<(String, String, String), String>,
    pub(crate) requests: Vec<(String, String)>,
    pub(crate) clock: Box<dyn Fn() -> Timestamp + Send>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes objects, and tells watches.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (outcome, version) = {
            let mut state = self.lock();
            let outcome = change(&mut state);
            (outcome, state.store.version)
        };
        self.version.send_replace(version);
        outcome
    }
}

impl Cluster {
    /// A cluster without Tekton, on a free port of loopback; or the real one that
    /// `WORKFLOWS_TEST_KUBECONFIG` names.
    ///
    /// # Panics
    ///
    /// When no port can be had, or the real one not be reached.
    pub async fn start() -> Self {
        let real = match std::env::var_os("WORKFLOWS_TEST_KUBECONFIG") {
            Some(kubeconfig) => Some(Real::connect(kubeconfig.as_ref()).await),
            None => None,
        };
        Self::behind(real).await
    }

    /// A cluster that is no real one, for the reason `because`, of which it tells where it matters.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub async fn stand_in(because: &str) -> Self {
        if std::env::var_os("WORKFLOWS_TEST_KUBECONFIG").is_some() {
            // Not `eprintln`, which is shown for tests that fail alone.
            let _ = writeln!(std::io::stderr(), "SKIPPED on the cluster: {because}");
        }
        Self::behind(None).await
    }

    async fn behind(real: Option<Real>) -> Self {
        let store = Store::with(resource::built_in());
        let state = State {
            store,
            schemas: BTreeMap::new(),
            owners: Owners::default(),
            hooks: Vec::new(),
            faults: Faults::default(),
            logs: BTreeMap::new(),
            requests: Vec::new(),
            clock: Box::new(Timestamp::now),
        };
        let (version, _) = signal::channel(1);
        let shared = Arc::new(Shared { state: Mutex::new(state), real, version });
        let port = Port::open(api::router(Arc::clone(&shared))).await;
        Self { shared, port: Arc::new(port) }
    }

    fn is_stand_in(&self) {
        assert!(self.shared.real.is_none(), "only a stand-in does this: ask for Cluster::stand_in");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address)
    }

    /// A client of it, which tries nothing again by itself.
    ///
    /// # Panics
    ///
    /// Never: the address is one.
    pub fn client(&self) -> Client {
        let url = self.url().parse().expect("an address of loopback");
        let mut config = Config::new(url);
        config.default_retry = false;
        Client::try_from(config).expect("a client without TLS")
    }

    /// A client that shows a bearer token.
    ///
    /// # Panics
    ///
    /// Never: the address is one.
    pub fn client_with(&self, token: &str) -> Client {
        let url = self.url().parse().expect("an address of loopback");
        let mut config = Config::new(url);
        config.default_retry = false;
        config.auth_info.token = Some(token.to_owned().into());
        Client::try_from(config).expect("a client without TLS")
    }

    /// Makes a bearer token one of a user's, who may do what roles say.
    pub fn token(&self, token: &str, user: &str, groups: &[&str]) {
        self.shared.lock().owners.add(token, user, groups);
    }

    /// Lets somebody do what the `rules` of a Role or ClusterRole say: in one namespace, or in all.
    pub fn bind(&self, subject: Subject, namespace: Option<&str>, rules: &[Value]) {
        match &self.shared.real {
            Some(real) => real.bind(&subject, namespace, rules),
            None => self.shared.lock().owners.bind(subject, namespace, rules),
        }
    }

    /// Does what manifests of roles and their bindings say, of users and service accounts. Labels by which
    /// roles are added to others are not followed.
    ///
    /// # Panics
    ///
    /// When one is no YAML, or binds a role that none of them has.
    pub fn bind_manifests(&self, manifests: &[&str]) {
        let documents = manifests.iter().flat_map(|text| {
            serde_saphyr::from_multiple::<Value>(text).expect("the manifest is YAML")
        });
        let documents: Vec<Value> = documents.collect();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for binding in documents.iter().filter(|one| text(&one["kind"]).ends_with("Binding")) {
            let namespace = text(&binding["metadata"]["namespace"]);
            let role = &binding["roleRef"];
            let is_it = |one: &&Value| {
                one["kind"] == role["kind"] && one["metadata"]["name"] == role["name"]
            };
            let found = documents.iter().find(is_it);
            let found = found.unwrap_or_else(|| panic!("there is no {role}"));
            let rules = found["rules"].as_array().expect("a role has rules");
            for subject in binding["subjects"].as_array().into_iter().flatten() {
                let name = text(&subject["name"]);
                let subject = match text(&subject["kind"]).as_str() {
                    "ServiceAccount" => {
                        let of = text(&subject["namespace"]);
                        Subject::User(format!("system:serviceaccount:{of}:{name}"))
                    }
                    "User" => Subject::User(name),
                    "Group" => Subject::Group(name),
                    other => panic!("{other:?} is no subject"),
                };
                self.bind(subject, (!namespace.is_empty()).then_some(&*namespace), rules);
            }
        }
    }

    /// Sets where a stand-in gets the time from. Other clusters have their own.
    pub fn clock(&self, now: impl Fn() -> Timestamp + Send + 'static) {
        self.shared.lock().clock = Box::new(now);
    }

    /// Makes a kind known, as a CustomResourceDefinition does.
    pub fn install(&self, resource: Resource) {
        self.shared.lock().store.resources.insert(resource);
    }

    /// Makes the custom resources of Workflows known.
    ///
    /// # Panics
    ///
    /// When they are refused.
    pub async fn define(&self) {
        const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for definition in workflows_k8s::resources::definitions() {
            let definition = serde_json::to_value(definition).expect("a definition is JSON");
            let Some(real) = &self.shared.real else {
                self.call("POST", PATH, &definition).await.expect("the definition is accepted");
                continue;
            };
            let (code, answer) = real.ask(Method::POST, PATH, &definition);
            let one = format!("{PATH}/{}", definition["metadata"]["name"].as_str().unwrap_or(""));
            match code {
                201 => {}
                409 => real.merge(&one, &definition),
                _ => panic!("{one}: {code} {answer}"),
            }
            real.until("the definition to be established", || {
                let (_, now) = real.ask(Method::GET, &one, &Value::Null);
                let conditions = now["status"]["conditions"].as_array()?;
                let is_established =
                    |one: &Value| one["type"] == "Established" && one["status"] == "True";
                conditions.iter().any(is_established).then_some(())
            });
        }
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> kube::Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .expect("a path");
        self.client().request(request).await
    }

    /// Makes a namespace.
    pub fn namespace(&self, name: &str) {
        if let Some(real) = &self.shared.real {
            return real.namespace(name);
        }
        let resource = Resource::of_cluster("", "v1", "Namespace", "namespaces");
        self.shared.write(|state| {
            let now = (state.clock)();
            // One that is there is what was asked for.
            let _ =
                state.store.create(&resource, &(String::new(), name.to_owned()), json!({}), now);
        });
    }

    /// Adds an admission webhook.
    pub fn admit(&self, hook: impl Fn(&Admission<'_>) -> Result<(), Refusal> + Send + 'static) {
        self.shared.lock().hooks.push(Box::new(hook));
    }

    /// Makes the next `times` requests fail whose `METHOD path` contains the text.
    pub fn fail(&self, requests: &str, times: usize, fault: Fault) {
        self.shared.lock().faults.add(requests, times, fault);
    }

    /// Forgets what happened until now: watches that begin earlier are answered 410.
    ///
    /// # Panics
    ///
    /// With a real cluster.
    pub fn compact(&self) {
        self.is_stand_in();
        let mut state = self.shared.lock();
        state.store.oldest = state.store.version;
        state.store.changes.clear();
    }

    /// Ends the server: all connections break, and nobody is let in.
    ///
    /// # Panics
    ///
    /// With a real cluster.
    pub fn go_down(&self) {
        self.is_stand_in();
        self.port.close();
    }

    /// Starts the server again at the same address, with all objects. What happened before it went down
    /// it has forgotten, as [`compact`](Self::compact) does.
    ///
    /// # Panics
    ///
    /// When it is not down.
    pub fn come_back(&self) {
        self.compact();
        self.port.reopen();
    }

    /// Writes what the container of a pod says.
    pub fn log(&self, namespace: &str, pod: &str, container: &str, text: &str) {
        let key = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        self.shared.write(|state| state.logs.entry(key).or_default().push_str(text));
    }

    /// One object as it is.
    pub fn object(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        if let Some(real) = &self.shared.real {
            return real.object(resource, namespace, name);
        }
        let name: Name = (namespace.to_owned(), name.to_owned());
        self.shared.lock().store.get(resource, &name).cloned()
    }

    /// All objects of a kind, in the order of their names.
    pub fn objects(&self, resource: &Resource) -> Vec<Value> {
        if let Some(real) = &self.shared.real {
            return real.objects(resource);
        }
        self.shared.lock().store.all(resource).map(|(_, object)| object.clone()).collect()
    }

    /// Waits until something is so, looking again whenever an object changed.
    ///
    /// # Panics
    ///
    /// When it does not become so within twenty seconds, or a minute and a half with a real cluster.
    pub async fn until<T>(&self, what: &str, mut find: impl FnMut(&Self) -> Option<T>) -> T {
        const PATIENCE: Duration = Duration::from_secs(20);
        let mut version = self.shared.version.subscribe();
        let is_real = self.shared.real.is_some();
        let patience = if is_real { real::PATIENCE } else { PATIENCE };
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            version.mark_unchanged();
            if let Some(found) = find(self) {
                return found;
            }
            let is_late = match is_real {
                true => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    tokio::time::Instant::now() > deadline
                }
                false => tokio::time::timeout_at(deadline, version.changed()).await.is_err(),
            };
            assert!(!is_late, "it did not become so in time: {what}");
        }
    }

    /// Every request so far, as method and path with query.
    pub fn requests(&self) -> Vec<(String, String)> {
        self.shared.lock().requests.clone()
    }

    /// Tekton, installed now, with a controller that is played.
    pub fn tekton(&self) -> Tekton {
        Tekton::install(self.clone())
    }
}
