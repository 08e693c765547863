//! Ten thousand polled repositories behind one credential, one in fifty of them active: how soon what
//! happens is seen, what GitHub's limits say to it, and how much memory it takes.
//!
//! ```text
//! cargo bench -p workflows-benches --bench polling
//! cargo bench -p workflows-benches --bench polling -- app
//! ```
//!
//! Time is virtual, HTTP is not: a second process plays GitHub, as far as polling asks it, with
//! GitHub's limits on calls, which refuse whoever goes beyond them. Its pull requests are as large as
//! GitHub's; most repositories have an old one that was commented on and then pushed to. The ledger is a
//! file.
//!
//! The credential is a token with 5,000 calls an hour, or an App's installation with the 12,500 that
//! GitHub gives one of so many repositories: its tokens last an hour, and each has tags of its own, so
//! that what was read with one is read anew with the next.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use workflows_benches::memory;
use workflows_core::{
    Clock, ConnectionName, Error, EventKind, EventSource, ManualClock, Publisher, RepoConnection,
    Result, ScmDriver, SourceName, StaticSecrets, Store, SystemClock, Tenant,
    source::{Connections, Interests, ProgressSink, RepoInterest, SourceContext},
    store::{EventQuery, PageRequest, SqliteOptions, SqliteStore},
};
use workflows_github_standin::Hub;
use workflows_scm::{
    github::{GitHubCredentials, GitHubDriver},
    poll::PullRequestPoller,
};

const REPOSITORIES: u64 = 10_000;
/// One in so many is active.
const ACTIVE: u64 = 50;
/// The pull requests that GitHub tells of a repository.
const PULL_REQUESTS: u64 = 5;
/// Bytes that GitHub tells of a pull request, most of which are addresses.
const LARGE: usize = 20_000;
const BEGIN: i64 = 1_800_000_000;
/// How long it goes on, and from when on it is measured: by then everything was looked at. The first
/// look at a repository is two calls that count, of those that GitHub allows in an hour.
const MINUTES: i64 = 600;
const SETTLED: i64 = 480;
const TOKEN: &str = "a token";
/// What an argument says for the App.
const APP: &str = "app";
/// One in so many repositories has no comment.
const SILENT: u64 = 5;

/// How often something happens in a repository, ten to thirteen minutes; in the others nothing does.
/// Each time it is one call that counts, for the pull requests; the comments, which are asked for at
/// two looks, are the same as before.
fn every(number: u64) -> Option<i64> {
    number.is_multiple_of(ACTIVE).then(|| 600 + i64::try_from(number / ACTIVE).unwrap_or(0))
}

/// When something last happened in a repository.
fn changed(number: u64, now: i64) -> i64 {
    match every(number) {
        Some(every) => BEGIN + (now - BEGIN) / every * every,
        None => BEGIN - 30 * 24 * 3_600,
    }
}

// --- the other side ------------------------------------------------------------------------------

/// GitHub, as far as polling asks it.
#[derive(Debug)]
struct GitHub {
    now: AtomicI64,
    /// Calls an hour.
    limit: u64,
    /// When each token that was minted ends.
    minted: Mutex<Vec<i64>>,
    calls: AtomicU64,
    not_modified: AtomicU64,
    refused: AtomicU64,
    /// Points by minute.
    minutes: Mutex<BTreeMap<i64, u64>>,
    /// When the hour began, and what was used of it.
    hour: Mutex<(i64, u64)>,
    most_of_an_hour: AtomicU64,
}

fn serve(limit: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let github = Arc::new(GitHub {
            now: BEGIN.into(),
            limit,
            minted: Mutex::default(),
            calls: 0.into(),
            not_modified: 0.into(),
            refused: 0.into(),
            minutes: Mutex::default(),
            hour: Mutex::new((BEGIN, 0)),
            most_of_an_hour: 0.into(),
        });
        let router = Router::new()
            .route("/repos/{owner}/{repo}", get(repository))
            .route("/repos/{owner}/{repo}/pulls", get(pull_requests))
            .route("/repos/{owner}/{repo}/pulls/comments", get(on_lines))
            .route("/repos/{owner}/{repo}/issues/comments", get(comments))
            .route("/repos/{owner}/{repo}/installation", get(installation))
            .route("/app/installations/1/access_tokens", post(mint))
            .route("/clock/{now}", post(set_clock))
            .route("/told", get(told))
            .with_state(github);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        axum::serve(listener, router).await.expect("it serves");
    });
}

async fn set_clock(State(github): State<Arc<GitHub>>, Path(now): Path<i64>) {
    github.now.store(now, Ordering::SeqCst);
}

async fn told(State(github): State<Arc<GitHub>>) -> String {
    let minutes = github.minutes.lock().expect("the minutes");
    let busiest = minutes.values().max().copied().unwrap_or(0);
    format!(
        "{} calls, {} of them not modified, {} refused for a limit; busiest minute {busiest} of 900 \
         points, busiest hour {} of {} calls that count; {} tokens",
        github.calls.load(Ordering::SeqCst),
        github.not_modified.load(Ordering::SeqCst),
        github.refused.load(Ordering::SeqCst),
        github.most_of_an_hour.load(Ordering::SeqCst),
        github.limit,
        github.minted.lock().expect("the tokens").len(),
    )
}

/// An App's installation, which is asked for with its assertion.
async fn installation() -> String {
    "{\"id\": 1, \"suspended_at\": null}".to_owned()
}

async fn mint(State(github): State<Arc<GitHub>>) -> (StatusCode, String) {
    let ends = github.now.load(Ordering::SeqCst) + 3_600;
    let mut minted = github.minted.lock().expect("the tokens");
    minted.push(ends);
    let ends = Timestamp::from_second(ends).expect("an instant");
    let token = format!("{{\"token\": \"ghs_{}\", \"expires_at\": \"{ends}\"}}", minted.len());
    (StatusCode::CREATED, token)
}

impl GitHub {
    /// The number of a token that was minted, while it lasts; 0 of one that stays.
    fn token(&self, headers: &HeaderMap) -> Option<usize> {
        let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        let Some(number) = shown.strip_prefix("ghs_") else { return (shown == TOKEN).then_some(0) };
        let number: usize = number.parse().ok()?;
        let minted = self.minted.lock().expect("the tokens");
        let ends = minted.get(number.checked_sub(1)?)?;
        (*ends > self.now.load(Ordering::SeqCst)).then_some(number)
    }

    /// An answer with a tag, counted as GitHub does: what was not modified costs nothing of the hour.
    fn answer(&self, headers: &HeaderMap, tag: &str, body: impl FnOnce() -> String) -> Response {
        let now = self.now.load(Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
        let Some(token) = self.token(headers) else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        let tag = format!("W/\"{token}/{tag}\"");
        let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
        let mut hour = self.hour.lock().expect("the hour");
        if now - hour.0 >= 3_600 {
            *hour = (now, 0);
        }
        let mut minutes = self.minutes.lock().expect("the minutes");
        let points = minutes.entry(now / 60).or_default();
        if *points >= 900 || (!known && hour.1 >= self.limit) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return (StatusCode::FORBIDDEN, [("retry-after", "60")]).into_response();
        }
        *points += 1;
        hour.1 += u64::from(!known);
        self.most_of_an_hour.fetch_max(hour.1, Ordering::SeqCst);
        let told = [
            ("etag", tag),
            ("x-ratelimit-limit", self.limit.to_string()),
            ("x-ratelimit-remaining", (self.limit - hour.1).to_string()),
            ("x-ratelimit-reset", (hour.0 + 3_600).to_string()),
            ("x-ratelimit-resource", "core".to_owned()),
        ];
        if known {
            self.not_modified.fetch_add(1, Ordering::SeqCst);
            return (StatusCode::NOT_MODIFIED, told).into_response();
        }
        (told, body()).into_response()
    }
}

fn number(repo: &str) -> u64 {
    repo.trim_start_matches('r').parse().expect("a repository's number")
}

async fn repository(
    State(github): State<Arc<GitHub>>,
    Path((owner, repo)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let id = number(&repo);
    github.answer(&headers, &id.to_string(), || {
        format!(
            "{{\"id\": {id}, \"full_name\": \"{owner}/{repo}\", \"default_branch\": \"main\", \
             \"clone_url\": \"https://github.example/{owner}/{repo}.git\", \
             \"html_url\": \"https://github.example/{owner}/{repo}\"}}"
        )
    })
}

async fn pull_requests(
    State(github): State<Arc<GitHub>>,
    Path((owner, repo)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let id = number(&repo);
    let changed = changed(id, github.now.load(Ordering::SeqCst));
    github.answer(&headers, &format!("{id}/{changed}"), || {
        let mut listed = String::from("[");
        for place in 0..PULL_REQUESTS {
            let number = PULL_REQUESTS - place;
            // The first is the one that changes.
            let at = if place == 0 { changed } else { changed - 7_200 };
            let at = Timestamp::from_second(at).expect("an instant");
            let comma = if place == 0 { "" } else { "," };
            let _ = write!(
                listed,
                "{comma}{{\"number\": {number}, \"title\": \"A change of some length to see\", \
                 \"user\": {{\"login\": \"somebody\"}}, \"draft\": false, \"state\": \"open\", \
                 \"merged_at\": null, \"head\": {{\"ref\": \"feature/{number}\", \
                 \"sha\": \"{:040x}\", \"repo\": {{\"id\": {id}}}}}, \"base\": {{\"ref\": \"main\", \
                 \"sha\": \"{:040x}\", \"repo\": {{\"id\": {id}}}}}, \"labels\": \
                 [{{\"name\": \"size/large\"}}], \"html_url\": \
                 \"https://github.example/{owner}/{repo}/pull/{number}\", \"updated_at\": \"{at}\", \
                 \"_links\": \"{}\"}}",
                at.as_second(),
                id + 1,
                "x".repeat(LARGE),
            );
        }
        listed.push(']');
        listed
    })
}

/// In most repositories somebody wrote one, long ago, and pushed a day later.
async fn comments(
    State(github): State<Arc<GitHub>>,
    Path((owner, repo)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let id = number(&repo);
    let at = Timestamp::from_second(BEGIN - 31 * 24 * 3_600).expect("an instant");
    github.answer(&headers, &format!("{id}/comments"), || {
        if id.is_multiple_of(SILENT) {
            return "[]".to_owned();
        }
        format!(
            "[{{\"id\": {id}, \"user\": {{\"login\": \"somebody\"}}, \"body\": \"Looks good\", \
             \"created_at\": \"{at}\", \"updated_at\": \"{at}\", \"html_url\": \
             \"https://github.example/{owner}/{repo}/pull/1#issuecomment-{id}\", \"issue_url\": \
             \"https://github.example/repos/{owner}/{repo}/issues/1\", \"_links\": \"{}\"}}]",
            "x".repeat(LARGE / 10),
        )
    })
}

/// Nobody writes one.
async fn on_lines(State(github): State<Arc<GitHub>>, headers: HeaderMap) -> Response {
    github.answer(&headers, "none", || "[]".to_owned())
}

// --- this side -----------------------------------------------------------------------------------

struct OtherSide {
    child: Child,
    address: String,
    client: reqwest::Client,
}

impl OtherSide {
    fn start(limit: u64) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["serve".to_owned(), limit.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process");
        let mut address = String::new();
        let said = child.stdout.take().expect("what it says");
        BufReader::new(said).read_line(&mut address).expect("its address");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { child, address: format!("http://{}", address.trim()), client }
    }

    async fn set_clock(&self, now: Timestamp) {
        let address = format!("{}/clock/{}", self.address, now.as_second());
        self.client.post(address).send().await.expect("it is there");
    }

    async fn told(&self) -> String {
        let answer = self.client.get(format!("{}/told", self.address)).send().await;
        answer.expect("it is there").text().await.expect("a text")
    }
}

impl Drop for OtherSide {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Made = HashMap<Arc<str>, Arc<dyn RepoConnection>>;

/// Connections, each made once, as the engine keeps them.
#[derive(Debug)]
struct Table {
    driver: GitHubDriver,
    made: tokio::sync::Mutex<Made>,
    /// How many looks began: each asks for its repository first.
    begun: AtomicU64,
}

#[async_trait]
impl Connections for Table {
    async fn repository(
        &self,
        _: &Tenant,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if let Some(known) = self.made.lock().await.get(repo) {
            return Ok(Arc::clone(known));
        }
        let new = self.driver.connect(connection, repo).await?;
        self.made.lock().await.insert(repo.into(), Arc::clone(&new));
        Ok(new)
    }
}

/// How the looks go.
#[derive(Debug, Default)]
struct Looks {
    ended: AtomicU64,
    failed: AtomicU64,
    /// When each repository was looked at last, and the longest time between two looks.
    last: Mutex<(HashMap<String, Timestamp>, SignedDuration)>,
    /// When the last one was looked at for the first time, in seconds.
    all_at: AtomicI64,
}

impl ProgressSink for Looks {
    fn succeeded(&self, _: &SourceName, what: &str, at: Timestamp) {
        let mut last = self.last.lock().expect("the looks");
        let before = last.0.insert(what.to_owned(), at);
        if before.is_none() {
            self.all_at.store(at.as_second(), Ordering::SeqCst);
        }
        if let Some(before) = before
            && at.as_second() >= BEGIN + SETTLED * 60
        {
            last.1 = last.1.max(at.duration_since(before));
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn failed(&self, _: &SourceName, what: &str, error: &Error, _: Timestamp) {
        if self.failed.fetch_add(1, Ordering::SeqCst) < 3 {
            eprintln!("{what}: {error}");
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// What the driver shows, and the calls an hour that it is allowed.
#[derive(Debug)]
enum Credential {
    Token,
    App { key: String },
}

impl Credential {
    fn app() -> Self {
        let hub = Hub::start_unchecked(Arc::new(SystemClock));
        Self::App { key: hub.create_app("ci").private_key().to_owned() }
    }

    fn limit(&self) -> u64 {
        match self {
            Self::Token => 5_000,
            Self::App { .. } => 12_500,
        }
    }

    fn shown(&self) -> GitHubCredentials {
        match self {
            Self::Token => GitHubCredentials::token(SecretString::from(TOKEN)),
            Self::App { key } => GitHubCredentials::app(7, SecretString::from(key.clone())),
        }
    }
}

async fn poll(credential: &Credential) {
    let other_side = OtherSide::start(credential.limit());
    let clock = ManualClock::at(Timestamp::from_second(BEGIN).expect("an instant"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let store = SqliteStore::open(path, SqliteOptions::default(), Arc::new(clock.clone())).await;
    let store = Arc::new(store.expect("the ledger opens"));
    let before = memory::resident();

    let driver = GitHubDriver::builder()
        .base(&other_side.address)
        .credentials(credential.shown())
        .clock(Arc::new(clock.clone()))
        .build()
        .expect("a driver");
    let repos = (0..REPOSITORIES).map(|number| RepoInterest {
        tenant: Tenant::default(),
        connection: "github".into(),
        repo: format!("org/r{number}").into(),
        kinds: [EventKind::PULL_REQUEST].into(),
        ref_prefixes: Default::default(),
    });
    let mut interests = Interests::default();
    interests.repos = repos.collect();
    let (_wanted, wanted) = watch::channel(Arc::new(interests));
    let looks = Arc::new(Looks::default());
    let poller = PullRequestPoller::every(SignedDuration::from_secs(45)).expect("an interval");
    let poller = poller.slowing_to(SignedDuration::from_mins(27)).expect("an interval");
    let table = Arc::new(Table {
        driver: driver.clone(),
        made: Default::default(),
        begun: AtomicU64::new(0),
    });
    let context = SourceContext::new(
        poller.name(),
        Publisher::new(store.clone()),
        wanted,
        table.clone(),
        Arc::new(StaticSecrets::new()),
        Arc::new(clock.clone()),
        looks.clone(),
    );
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let polling = tokio::spawn(async move { poller.run(context, stop).await });

    let mut largest = 0;
    for second in 1..=MINUTES * 60 {
        clock.advance(SignedDuration::from_secs(1));
        other_side.set_clock(clock.now()).await;
        // Looks that are due begin, and end, before time goes on.
        loop {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let begun = table.begun.load(Ordering::SeqCst);
            if begun == looks.ended.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if second % 60 == 0 {
            largest = largest.max(memory::resident() - before);
        }
    }
    shutdown.cancel();
    polling.await.expect("it ends").expect("it ends well");

    let (mut seen, mut slowest) = (0_u64, SignedDuration::ZERO);
    let mut page = PageRequest { limit: 1_000, after: None };
    loop {
        let query = EventQuery::of(Tenant::default()).page(page);
        let found = store.events(query).await.expect("the ledger answers");
        for event in &found.items {
            if event.occurred_at.as_second() >= BEGIN + SETTLED * 60 {
                seen += 1;
                slowest = slowest.max(event.received_at.duration_since(event.occurred_at));
            }
        }
        match found.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    let (begin, end) = (SETTLED * 60, MINUTES * 60);
    // What happened in the last minute need not be seen.
    let expected: i64 = (0..REPOSITORIES)
        .filter_map(every)
        .map(|every| (end - 60) / every - (begin - 1) / every)
        .sum();
    let all_after = (looks.all_at.load(Ordering::SeqCst) - BEGIN) / 60;
    let all = looks.last.lock().expect("the looks").0.len();
    println!("looked at for the first time: {all}, the last one after {all_after} minutes");
    let looks = (looks.failed.load(Ordering::SeqCst), looks.last.lock().expect("the looks").1);
    println!("{REPOSITORIES} repositories, one in {ACTIVE} active, {MINUTES} minutes");
    println!("GitHub: {}", other_side.told().await);
    println!("looks that failed: {}", looks.0);
    println!(
        "after {SETTLED} minutes: {seen} changes seen, of {expected} at least; the slowest after \
         {slowest:#}; longest time between two looks {:#}",
        looks.1
    );
    println!("resident memory that it took: {} MiB at most", largest >> 20);
    store.close().await;
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "serve") {
        let limit = arguments.get(place + 1).and_then(|limit| limit.parse().ok());
        return serve(limit.expect("a limit"));
    }
    let is_app = arguments.iter().any(|argument| argument == APP);
    let credential = if is_app { Credential::app() } else { Credential::Token };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(poll(&credential));
}
