//! The server as a test holds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use tokio::sync::{mpsc, oneshot, watch};
use workflows_core::SharedClock;
use workflows_standin_kit::faults::{Fault, Left, Pattern, Planned};

use crate::{
    Call,
    access::Access,
    limits::Limits,
    script::ProjectHandle,
    server::{self, Shared},
    world::{Token, World},
};

/// A GitLab that runs until it is dropped.
#[derive(Debug)]
pub struct Instance {
    shared: Arc<Shared>,
    root: String,
    unsent: watch::Receiver<usize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Instance {
    /// Starts an empty one on a free port of this machine, with a thread of its own.
    ///
    /// # Panics
    ///
    /// When there is no port or no place for files.
    pub fn start(clock: SharedClock) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the repositories");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a port that does not block");
        let root = format!("http://{}", listener.local_addr().expect("an address"));
        let (outbox, to_send) = mpsc::unbounded_channel();
        let (unsent, unsent_now) = watch::channel(0);
        let mut world = World {
            clock,
            root: root.clone(),
            directory: directory.path().to_owned(),
            limits: Limits::default(),
            spent: Default::default(),
            users: BTreeMap::new(),
            blocked: BTreeSet::new(),
            groups: BTreeMap::new(),
            projects: BTreeMap::new(),
            paths: Default::default(),
            tokens: Default::default(),
            deliveries: Vec::new(),
            outbox,
            unsent,
            last_id: 100,
            unknown: Vec::new(),
        };
        world.ensure_user("root");
        let shared = Arc::new(Shared {
            world: world.into(),
            calls: Default::default(),
            faults: Default::default(),
            is_unreachable: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime for the stand-in");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let client = reqwest::Client::builder()
                    .redirect(reqwest::redirect::Policy::none())
                    .no_proxy()
                    .build()
                    .expect("a client for deliveries");
                let router =
                    axum::Router::new().fallback(server::handle).with_state(Arc::clone(&served));
                tokio::spawn(server::post_deliveries(served, client, to_send));
                tokio::select! {
                    served = async { axum::serve(listener, router).await } => drop(served),
                    _ = stopped => {}
                }
            });
        });
        Self {
            shared,
            root,
            unsent: unsent_now,
            stop: Some(stop),
            thread: Some(thread),
            _directory: directory,
        }
    }

    /// Its address, for a driver: `http://127.0.0.1:PORT`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Makes a public project, with the groups of its path.
    ///
    /// # Panics
    ///
    /// When git cannot make it.
    pub fn create_project(&self, path: &str) -> ProjectHandle {
        let id = self.shared.world().add_project(path, true).expect("a project");
        ProjectHandle::new(Arc::clone(&self.shared), id)
    }

    /// A project that is there.
    ///
    /// # Panics
    ///
    /// When there is none at that path.
    pub fn project(&self, path: &str) -> ProjectHandle {
        let id = self.shared.world().paths.get(&path.to_lowercase()).copied();
        let id = id.unwrap_or_else(|| panic!("there is no project {path}"));
        ProjectHandle::new(Arc::clone(&self.shared), id)
    }

    /// Makes a person, if there is none of that name.
    pub fn user(&self, name: &str) {
        self.shared.world().ensure_user(name);
    }

    /// Blocks a person.
    pub fn block(&self, name: &str) {
        self.shared.world().blocked.insert(name.to_owned());
    }

    /// Gives somebody a role in a group, which is made when it is not there, or takes it away.
    pub fn set_group_access(&self, group: &str, name: &str, access: Option<Access>) {
        let mut world = self.shared.world();
        world.ensure_user(name);
        world.ensure_group(group);
        let Some(group) = world.groups.get_mut(group) else { return };
        match access {
            Some(access) => group.members.insert(name.to_owned(), access.level()),
            None => group.members.remove(name),
        };
    }

    /// A token of somebody with the scope `api` that does not expire.
    pub fn token_of(&self, name: &str) -> String {
        self.token(name, &["api"], None)
    }

    /// A token with these scopes that expires at the beginning of a day (`2026-03-01`).
    ///
    /// # Panics
    ///
    /// When it is no day.
    pub fn token(&self, name: &str, scopes: &[&str], expires_at: Option<&str>) -> String {
        let mut world = self.shared.world();
        world.ensure_user(name);
        let id = world.new_id();
        let text = format!("glpat-{id:020}");
        let day = |text: &str| -> Timestamp {
            let day: Date = text.parse().expect("a day");
            day.to_zoned(TimeZone::UTC).expect("a day in UTC").timestamp()
        };
        let token = Token {
            id,
            holder: name.to_owned(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            expires_at: expires_at.map(day),
            is_revoked: false,
        };
        world.tokens.insert(text.clone(), token);
        text
    }

    /// Takes a token away.
    pub fn revoke(&self, token: &str) {
        if let Some(token) = self.shared.world().tokens.get_mut(token) {
            token.is_revoked = true;
        }
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls fit a pattern: `METHOD /path`, where either may have `*` for anything and the
    /// path may be a route: `GET /projects/{id}/merge_requests`.
    pub fn count(&self, pattern: &str) -> usize {
        let pattern = Pattern::parse(pattern);
        let fits = |call: &&Call| pattern.fits(&call.method, &call.route, &call.path);
        self.calls().iter().filter(fits).count()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Lets the next calls that fit a pattern (see [`count`](Self::count)) fail.
    pub fn fail(&self, pattern: &str, calls: u32, fault: Fault) {
        self.plan(Planned::new(pattern, fault, Left::Calls(calls)));
    }

    /// Lets all calls that fit a pattern fail until an instant of the instance's clock.
    pub fn fail_until(&self, pattern: &str, until: Timestamp, fault: Fault) {
        self.plan(Planned::new(pattern, fault, Left::Until(until)));
    }

    fn plan(&self, planned: Planned) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).push(planned);
    }

    /// Lets nothing fail any more.
    pub fn mend(&self) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Changes the limits.
    pub fn limits(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.shared.world().limits);
    }

    /// Whether deliveries reach nobody. They are recorded as failed then, and disable their hooks.
    pub fn hooks_unreachable(&self, unreachable: bool) {
        self.shared.is_unreachable.store(unreachable, Ordering::Relaxed);
    }

    /// Whether somebody on the way answers deliveries with 200 and hands none on.
    pub fn hooks_lost(&self, lost: bool) {
        self.shared.is_lost.store(lost, Ordering::Relaxed);
    }

    /// Waits until all deliveries were sent.
    pub async fn settle(&self) {
        let mut unsent = self.unsent.clone();
        // The sender lives as long as the instance.
        let _ = unsent.wait_for(|unsent| *unsent == 0).await;
    }

    /// All deliveries so far, oldest first; those that were sent again are deliveries of their own.
    pub fn deliveries(&self) -> Vec<SentDelivery> {
        let world = self.shared.world();
        let sent = world.deliveries.iter().map(|one| SentDelivery {
            id: one.id,
            key: one.headers.get("Idempotency-Key").cloned().unwrap_or_default(),
            event: one.event.to_owned(),
            url: one.url.clone(),
            status: one.answer.as_ref().and_then(|answer| answer.as_ref().ok().copied()),
            is_again: one.is_again,
            headers: one.headers.clone(),
            body: one.payload.to_string(),
        });
        sent.collect()
    }

    /// Sends a delivery again, as when somebody presses the button.
    ///
    /// # Panics
    ///
    /// When the log has it no longer.
    pub fn resend(&self, id: u64) {
        let mut world = self.shared.world();
        let found = world.deliveries.iter().find(|one| one.id == id);
        let (owner, hook) = found
            .map(|one| (one.owner.clone(), one.hook))
            .unwrap_or_else(|| panic!("there is no delivery {id}"));
        assert!(world.resend(&owner, hook, id).is_ok(), "the log has delivery {id} no longer");
    }

    /// Routes that were asked for and are not there; they are forgotten by this.
    pub fn take_unknown(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.world().unknown)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let unknown = self.take_unknown();
        if !unknown.is_empty() && !std::thread::panicking() {
            panic!("the stand-in for GitLab has no such routes:\n{}", unknown.join("\n"));
        }
    }
}

/// A delivery that was sent, or is about to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SentDelivery {
    /// Of this sending.
    pub id: u64,
    /// Of the event at this hook; when it is sent again it is the same.
    pub key: String,
    /// `Push Hook` and so on.
    pub event: String,
    /// Where to.
    pub url: String,
    /// What was answered; `None` while it is being sent, and when nobody answered.
    pub status: Option<u16>,
    /// Whether it was sent again on request.
    pub is_again: bool,
    /// All that were sent.
    pub headers: BTreeMap<String, String>,
    /// The very bytes.
    pub body: String,
}
