//! The server as a test holds it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use data_encoding::{BASE64, HEXLOWER};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};
use workflows_core::SharedClock;

use crate::{
    Call, Problem,
    access::Level,
    deliveries::{Hook, Told},
    faults::{Fault, Left, Pattern, Planned},
    limits::Limits,
    openapi::{self, Description},
    script::{RepoHandle, Role},
    server::{self, Shared},
    world::{AccountKind, App, Holder, Installation, Team, Token, World},
};

/// A GitHub that runs until it is dropped.
#[derive(Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    root: String,
    unsent: watch::Receiver<usize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

/// The permissions that an App has when nothing else is said: what an engine needs.
const PERMISSIONS: &[(&str, Level)] = &[
    ("checks", Level::Write),
    ("contents", Level::Read),
    ("issues", Level::Write),
    ("members", Level::Read),
    ("metadata", Level::Read),
    ("pull_requests", Level::Write),
    ("repository_hooks", Level::Write),
    ("statuses", Level::Write),
];

const EVENTS: &[&str] = &[
    "check_run",
    "check_suite",
    "commit_comment",
    "create",
    "delete",
    "issue_comment",
    "merge_group",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "push",
    "release",
    "repository_dispatch",
];

impl Hub {
    /// Starts an empty one on a free port of this machine, with a thread of its own.
    ///
    /// # Panics
    ///
    /// When there is no port or no place for files.
    pub fn start(clock: SharedClock) -> Self {
        Self::start_checked(clock, openapi::description())
    }

    /// Starts one that checks nothing against GitHub's description of its API, for a demonstration,
    /// which needs no such file and tells of none that is not there.
    ///
    /// # Panics
    ///
    /// When there is no port or no place for files.
    pub fn start_unchecked(clock: SharedClock) -> Self {
        Self::start_checked(clock, None)
    }

    fn start_checked(clock: SharedClock, description: Option<&'static Description>) -> Self {
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
            accounts: BTreeMap::new(),
            repos: BTreeMap::new(),
            names: Default::default(),
            apps: BTreeMap::new(),
            installations: BTreeMap::new(),
            tokens: Default::default(),
            deliveries: Vec::new(),
            outbox,
            unsent,
            last_id: 1_000,
            description,
            problems: Vec::new(),
        };
        world.ensure_account("octocat", AccountKind::User);
        let shared = Arc::new(Shared {
            world: world.into(),
            calls: Default::default(),
            faults: Default::default(),
            latency: Default::default(),
            is_unreachable: AtomicBool::new(false),
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

    /// The address of its API, for a driver: `http://127.0.0.1:PORT/api/v3`.
    pub fn api(&self) -> String {
        format!("{}/api/v3", self.root)
    }

    /// The address of its pages and of git: `http://127.0.0.1:PORT`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Makes a public repository. Its owner becomes an organisation unless it is there as a user.
    ///
    /// # Panics
    ///
    /// When git cannot make it.
    pub fn create_repo(&self, full_name: &str) -> RepoHandle {
        let id = self.shared.world().add_repo(full_name, false).expect("a repository");
        RepoHandle::new(Arc::clone(&self.shared), id)
    }

    /// Makes a private repository.
    ///
    /// # Panics
    ///
    /// When git cannot make it.
    pub fn create_private_repo(&self, full_name: &str) -> RepoHandle {
        let id = self.shared.world().add_repo(full_name, true).expect("a repository");
        RepoHandle::new(Arc::clone(&self.shared), id)
    }

    /// A repository that is there.
    ///
    /// # Panics
    ///
    /// When there is none of that name.
    pub fn repo(&self, full_name: &str) -> RepoHandle {
        let id = self.shared.world().names.get(&full_name.to_ascii_lowercase()).copied();
        let id = id.unwrap_or_else(|| panic!("there is no repository {full_name}"));
        RepoHandle::new(Arc::clone(&self.shared), id)
    }

    /// Makes a user, if there is none of that login.
    pub fn user(&self, login: &str) {
        self.shared.world().ensure_account(login, AccountKind::User);
    }

    /// Makes somebody a member of an organisation, or one of its owners.
    pub fn add_member(&self, organisation: &str, login: &str, is_owner: bool) {
        let mut world = self.shared.world();
        world.ensure_account(organisation, AccountKind::Organization);
        world.ensure_account(login, AccountKind::User);
        if let Some(account) = world.accounts.get_mut(&organisation.to_ascii_lowercase()) {
            account.members.insert(login.to_ascii_lowercase(), is_owner);
        }
    }

    /// Makes a team of an organisation, whose slug is its name, with these members. They become
    /// members of the organisation, too.
    pub fn add_team(&self, organisation: &str, slug: &str, members: &[&str]) {
        for member in members {
            self.add_member(organisation, member, false);
        }
        let mut world = self.shared.world();
        world.ensure_account(organisation, AccountKind::Organization);
        let id = world.new_id();
        let team = Team {
            id,
            name: slug.to_owned(),
            members: members.iter().map(|one| (one.to_ascii_lowercase(), true)).collect(),
            repos: BTreeMap::new(),
        };
        if let Some(account) = world.accounts.get_mut(&organisation.to_ascii_lowercase()) {
            account.teams.insert(slug.to_owned(), team);
        }
    }

    /// Invites somebody to a team; who has not accepted is no member yet.
    pub fn invite_to_team(&self, organisation: &str, slug: &str, login: &str) {
        let mut world = self.shared.world();
        world.ensure_account(login, AccountKind::User);
        let account = world.accounts.get_mut(&organisation.to_ascii_lowercase());
        if let Some(team) = account.and_then(|account| account.teams.get_mut(slug)) {
            team.members.insert(login.to_ascii_lowercase(), false);
        }
    }

    /// Gives a team a role in a repository.
    pub fn give_team(&self, organisation: &str, slug: &str, repo: &str, role: Role) {
        let mut world = self.shared.world();
        let Some(id) = world.names.get(&repo.to_ascii_lowercase()).copied() else { return };
        let account = world.accounts.get_mut(&organisation.to_ascii_lowercase());
        if let Some(team) = account.and_then(|account| account.teams.get_mut(slug)) {
            team.repos.insert(id, role);
        }
    }

    fn add_token(&self, token: Token) -> String {
        let mut world = self.shared.world();
        let id = world.new_id();
        let digest = HEXLOWER.encode(&Sha256::digest(format!("{}/token/{id}", self.root)));
        let prefix = if token.permissions.is_some() { "github_pat_" } else { "ghp_" };
        let text = format!("{prefix}{}", digest.get(..36).unwrap_or(&digest));
        world.tokens.insert(text.clone(), token);
        text
    }

    /// A classic token of a user that can do all that the user can.
    pub fn token_of(&self, login: &str) -> String {
        self.user(login);
        self.add_token(Token {
            holder: Holder::User(login.to_owned()),
            expires_at: None,
            repos: None,
            permissions: None,
        })
    }

    /// A fine-grained token of a user, for these repositories and permissions, for so long.
    pub fn fine_grained_token_of(
        &self,
        login: &str,
        repos: &[&str],
        permissions: &[(&str, Level)],
        lasts: SignedDuration,
    ) -> String {
        self.user(login);
        let (repos, now) = {
            let world = self.shared.world();
            let id = |name: &&str| world.names.get(&name.to_ascii_lowercase()).copied();
            (repos.iter().filter_map(id).collect(), world.clock.now())
        };
        self.add_token(Token {
            holder: Holder::User(login.to_owned()),
            expires_at: now.checked_add(lasts).ok(),
            repos: Some(repos),
            permissions: Some(
                permissions.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect(),
            ),
        })
    }

    /// Takes a token away.
    pub fn revoke(&self, token: &str) {
        self.shared.world().tokens.remove(token);
    }

    /// Takes all tokens of installations away, as when GitHub has to.
    pub fn revoke_installation_tokens(&self) {
        let mut world = self.shared.world();
        world.tokens.retain(|_, token| !matches!(token.holder, Holder::Installation(_)));
    }

    /// Makes an App with the permissions and events that an engine needs.
    ///
    /// # Panics
    ///
    /// When no key can be made.
    pub fn create_app(&self, slug: &str) -> AppHandle {
        self.create_app_with(slug, PERMISSIONS, EVENTS)
    }

    /// Makes an App with these permissions and events.
    ///
    /// # Panics
    ///
    /// When no key can be made.
    pub fn create_app_with(
        &self,
        slug: &str,
        permissions: &[(&str, Level)],
        events: &[&str],
    ) -> AppHandle {
        let (pem, public) = new_key();
        let mut world = self.shared.world();
        let (id, now) = (world.new_id(), world.now());
        world.ensure_account(&format!("{slug}[bot]"), AccountKind::Bot);
        world.apps.insert(
            id,
            App {
                id,
                slug: slug.to_owned(),
                owner: "octocat".to_owned(),
                permissions: permissions
                    .iter()
                    .map(|(name, level)| ((*name).to_owned(), *level))
                    .collect(),
                events: events.iter().map(|event| (*event).to_owned()).collect(),
                keys: vec![public],
                hook: None,
                created_at: now,
            },
        );
        AppHandle { shared: Arc::clone(&self.shared), id, pem }
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls fit a pattern: `METHOD /path`, where either may have `*` for anything and the
    /// path may be a route as GitHub writes it: `GET /repos/{owner}/{repo}/pulls`.
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

    /// Lets all calls that fit a pattern fail until an instant of the hub's clock.
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

    /// Makes each call take so long, by the machine's clock.
    pub fn latency(&self, latency: Duration) {
        *self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner) = latency;
    }

    /// Changes the limits.
    pub fn limits(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.shared.world().limits);
    }

    /// Uses up what a caller (`user:alice`, `installation:1`, see [`Call::caller`]) has left of this
    /// hour.
    pub fn exhaust(&self, caller: &str) {
        let mut world = self.shared.world();
        let (limits, now) = (world.limits.clone(), world.clock.now());
        world.spent.exhaust(&limits, caller, now);
    }

    /// Whether deliveries reach nobody. They are recorded as failed then.
    pub fn hooks_unreachable(&self, unreachable: bool) {
        self.shared.is_unreachable.store(unreachable, Ordering::Relaxed);
    }

    /// Waits until all deliveries were sent.
    pub async fn settle(&self) {
        let mut unsent = self.unsent.clone();
        // The sender lives as long as the hub.
        let _ = unsent.wait_for(|unsent| *unsent == 0).await;
    }

    /// All deliveries so far, oldest first; redeliveries are deliveries of their own.
    pub fn deliveries(&self) -> Vec<SentDelivery> {
        let world = self.shared.world();
        world
            .deliveries
            .iter()
            .map(|one| SentDelivery {
                id: one.id,
                guid: one.guid.clone(),
                event: one.event.clone(),
                action: one.action.clone(),
                url: one.url.clone(),
                status: one.answer.as_ref().map(|answer| answer.code),
                is_redelivery: one.redelivery,
                headers: one.headers.clone(),
                body: one.payload.to_string(),
            })
            .collect()
    }

    /// Sends a delivery again, as when somebody presses the button.
    ///
    /// # Panics
    ///
    /// When the log has it no longer.
    pub fn redeliver(&self, id: u64) {
        let mut world = self.shared.world();
        let owner = world.deliveries.iter().find(|one| one.id == id).map(|one| one.owner.clone());
        let owner = owner.unwrap_or_else(|| panic!("there is no delivery {id}"));
        if world.redeliver(&owner, id).is_err() {
            panic!("the log has delivery {id} no longer");
        }
    }

    /// What should not have been, and is forgotten by this.
    pub fn take_problems(&self) -> Vec<Problem> {
        std::mem::take(&mut self.shared.world().problems)
    }

    /// The git object of an event's payload, as a look at what was sent.
    pub fn payload(&self, delivery: u64) -> Option<Value> {
        let world = self.shared.world();
        let found = world.deliveries.iter().find(|one| one.id == delivery)?;
        serde_json::from_str(&found.payload).ok()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let problems = self.take_problems();
        if !problems.is_empty() && !std::thread::panicking() {
            let lines: Vec<String> = problems
                .iter()
                .map(|one| format!("{:?} {}: {}", one.kind, one.place, one.text))
                .collect();
            panic!("the stand-in for GitHub saw what should not be:\n{}", lines.join("\n"));
        }
    }
}

/// A delivery that was sent, or is about to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SentDelivery {
    /// Of this sending.
    pub id: u64,
    /// Of the event at this hook; a redelivery has the same.
    pub guid: String,
    /// `push` and so on.
    pub event: String,
    /// Of events that have one.
    pub action: Option<String>,
    /// Where to.
    pub url: String,
    /// What was answered; `None` while it is being sent.
    pub status: Option<u16>,
    /// Whether it was sent again on request.
    pub is_redelivery: bool,
    /// All that were sent.
    pub headers: BTreeMap<String, String>,
    /// The very bytes.
    pub body: String,
}

/// An App.
#[derive(Debug)]
pub struct AppHandle {
    shared: Arc<Shared>,
    id: u64,
    pem: String,
}

impl AppHandle {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its private key, in PEM.
    pub fn private_key(&self) -> &str {
        &self.pem
    }

    /// Gives it another key. The old one stays good until [`forget_old_keys`](Self::forget_old_keys).
    pub fn rotate_key(&mut self) {
        let (pem, public) = new_key();
        self.pem = pem;
        if let Some(app) = self.shared.world().apps.get_mut(&self.id) {
            app.keys.push(public);
        }
    }

    /// Takes all keys away but the newest.
    pub fn forget_old_keys(&self) {
        if let Some(app) = self.shared.world().apps.get_mut(&self.id) {
            let old = app.keys.len().saturating_sub(1);
            app.keys.drain(..old);
        }
    }

    /// Where its events go, and the secret that they are signed with.
    pub fn hook(&self, url: &str, secret: &str) {
        let mut world = self.shared.world();
        let (id, now) = (world.new_id(), world.now());
        let Some(app) = world.apps.get_mut(&self.id) else { return };
        app.hook = Some(Hook {
            id,
            url: url.to_owned(),
            secret: Some(secret.to_owned()),
            content_type: "json".to_owned(),
            events: app.events.clone(),
            active: true,
            created_at: now,
            updated_at: now,
            last: None,
        });
    }

    /// Installs it for all repositories of an account. Returns the installation's number.
    pub fn install(&self, account: &str) -> u64 {
        self.add_installation(account, None)
    }

    /// Installs it for some repositories of an account, by their full names.
    pub fn install_on(&self, account: &str, repos: &[&str]) -> u64 {
        let world = self.shared.world();
        let id = |name: &&str| world.names.get(&name.to_ascii_lowercase()).copied();
        let chosen = repos.iter().filter_map(id).collect();
        drop(world);
        self.add_installation(account, Some(chosen))
    }

    fn add_installation(
        &self,
        account: &str,
        repos: Option<std::collections::BTreeSet<u64>>,
    ) -> u64 {
        let mut world = self.shared.world();
        world.ensure_account(account, AccountKind::Organization);
        let (id, now) = (world.new_id(), world.now());
        let permissions = world.apps.get(&self.id).map(|app| app.permissions.clone());
        world.installations.insert(
            id,
            Installation {
                id,
                app: self.id,
                account: account.to_owned(),
                repos,
                permissions: permissions.unwrap_or_default(),
                suspended_at: None,
                created_at: now,
            },
        );
        self.tell(&mut world, id, "created");
        id
    }

    fn tell(&self, world: &mut World, installation: u64, action: &str) {
        let Some(installation) = world.installations.get(&installation) else { return };
        let repos: Vec<Value> = world
            .repos
            .values()
            .filter(|repo| world.covers(installation, repo))
            .map(|repo| {
                json!({
                    "id": repo.id, "node_id": crate::views::node_id("Repository", repo.id),
                    "name": repo.name, "full_name": repo.full_name(), "private": repo.private,
                })
            })
            .collect();
        let sender = "octocat".to_owned();
        let payload = json!({
            "installation": world.installation_view(installation), "repositories": repos,
            "requester": null,
        });
        world.tell(Told {
            event: "installation",
            action: Some(action.to_owned()),
            payload,
            sender,
            repo: None,
            app: Some(self.id),
        });
    }

    /// Takes it away from an account.
    pub fn uninstall(&self, account: &str) {
        let mut world = self.shared.world();
        let Some(id) = self.installation(&world, account) else { return };
        self.tell(&mut world, id, "deleted");
        world.installations.remove(&id);
        world.tokens.retain(|_, token| token.holder != Holder::Installation(id));
    }

    /// Suspends it for an account, or takes that back.
    pub fn suspend(&self, account: &str, suspended: bool) {
        let mut world = self.shared.world();
        let Some(id) = self.installation(&world, account) else { return };
        let now = world.now();
        if suspended {
            self.tell(&mut world, id, "suspend");
        }
        if let Some(installation) = world.installations.get_mut(&id) {
            installation.suspended_at = suspended.then_some(now);
        }
        if !suspended {
            self.tell(&mut world, id, "unsuspend");
        }
    }

    /// Changes what an installation may do.
    pub fn set_permission(&self, account: &str, name: &str, level: Option<Level>) {
        let mut world = self.shared.world();
        let Some(id) = self.installation(&world, account) else { return };
        let Some(installation) = world.installations.get_mut(&id) else { return };
        match level {
            Some(level) => {
                installation.permissions.insert(name.to_owned(), level);
            }
            None => {
                installation.permissions.remove(name);
            }
        }
    }

    fn installation(&self, world: &World, account: &str) -> Option<u64> {
        let of =
            |one: &&Installation| one.app == self.id && one.account.eq_ignore_ascii_case(account);
        world.installations.values().find(of).map(|one| one.id)
    }
}

/// A private key in PEM, and the public one that belongs to it.
fn new_key() -> (String, Vec<u8>) {
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
    let private = pair.as_der().expect("an RSA key in DER");
    let private: &aws_lc_rs::encoding::Pkcs8V1Der<'_> = &private;
    let text = BASE64.encode(private.as_ref());
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .filter_map(|at| text.get(at..text.len().min(at + 64)))
        .collect();
    let pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    (pem, pair.public_key().as_ref().to_vec())
}
