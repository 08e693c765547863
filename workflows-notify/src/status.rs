//! Check runs and commit statuses of runs that the engine did not create.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use moka::future::Cache;
use tokio::sync::Mutex;
use workflows_core::{
    CommitId, ConnectionName, Delivered, Error, ErrorKind, NotificationView, Notifier, Result,
    ScmDriver,
    repo::{EarlierReport, Status},
};

/// Shows runs on their commits, through any driver whose connections show statuses.
///
/// The engine shows its own runs by itself. This is for the others: a program that watches runs
/// which somebody else created hands in a [`RunView`](workflows_core::RunView) of each, whenever it
/// sees a change, and the commit shows the same words as for any other. What is told is how the run
/// stands, not what happened, so that a call may be repeated, and one that was missed is made good
/// by the next. Within a run a status never goes back, and of several runs of one name at a commit the
/// one that was created last shows. What was told before is remembered, for a day; a notifier that is
/// new relies on the host, or on its driver, to keep a run's end, and on being told of every run there
/// is to come to the newest.
///
/// A run without a commit shows nothing.
///
/// ```
/// # use std::sync::Arc;
/// # use workflows_core::{DeliveryKey, NotificationView, Notifier, RunState, RunView, Transition};
/// # use workflows_core::conformance::ScriptedScm;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let scm = ScriptedScm::new();
/// # let repo = scm.create("acme/api");
/// # repo.push("alice", "main", &[("a", "1")]);
/// # let commit = repo.head("main");
/// # let now = jiff::Timestamp::UNIX_EPOCH;
/// use workflows_notify::StatusNotifier;
///
/// let notifier = StatusNotifier::new(Arc::new(scm.clone()), scm.connection(), "watched");
/// let mut run = RunView::new("uid-of-a-pipelinerun", "acme/api", "release", RunState::Running, now);
/// run.commit = Some(commit.clone());
/// let seen = NotificationView::new(DeliveryKey::new("1"), Transition::Progress, now, run);
/// notifier.deliver(&seen).await.unwrap();
/// assert_eq!(repo.status(&commit, "watched/release").unwrap().title, "Running");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StatusNotifier {
    driver: Arc<dyn ScmDriver>,
    connection: ConnectionName,
    prefix: Arc<str>,
    told: Cache<Place, Arc<Mutex<Option<Told>>>>,
}

/// A status: repository, commit and context.
type Place = (Arc<str>, CommitId, String);

/// The latest that was told of a status. The run that was created last is later than another, and
/// within a run the state that is further along.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    created_at: Timestamp,
    run: Arc<str>,
    rank: u8,
}

/// How many statuses are remembered, and for how long.
const REMEMBERED: u64 = 10_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3_600);

impl StatusNotifier {
    /// Shows statuses by the names `<prefix>/<workflow>`. Use another prefix than the engine's.
    pub fn new(
        driver: Arc<dyn ScmDriver>,
        connection: impl Into<ConnectionName>,
        prefix: impl Into<Arc<str>>,
    ) -> Self {
        let told = Cache::builder().max_capacity(REMEMBERED).time_to_idle(REMEMBERED_FOR).build();
        Self { driver, connection: connection.into(), prefix: prefix.into(), told }
    }
}

#[async_trait]
impl Notifier for StatusNotifier {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let run = &notification.run;
        let Some(commit) = &run.commit else { return Ok(Delivered::default()) };
        let context = format!("{}/{}", self.prefix, run.workflow);
        let status = Status::of_run(commit.clone(), context.clone(), run);
        let place = (Arc::clone(&run.repo), commit.clone(), context);
        let told = self.told.get_with(place, async { Arc::default() }).await;
        let mut told = told.lock().await;
        let (created_at, rank) = (run.created_at, status.state.rank());
        let this = Told { created_at, run: Arc::clone(&run.key), rank };
        if told.as_ref().is_some_and(|latest| *latest > this) {
            return Ok(Delivered { reference: notification.earlier.clone() });
        }
        // Also when it fails: it may have reached the host, and who tells tells it again.
        *told = Some(this);
        let connection = self.driver.connect(&self.connection, &run.repo).await?;
        let reporter = connection.status_reporter().ok_or_else(|| {
            Error::unsupported(
                "show a status",
                "the repository's host has no place for statuses; the archive tells how runs stand",
            )
            .with("connection", &self.connection)
        })?;
        // Who tells may remember nothing of earlier calls; then what they made is looked for.
        let earlier = match &notification.earlier {
            Some(id) if !notification.may_have_reached => EarlierReport::recorded(id),
            Some(id) => EarlierReport::recorded(id).and_maybe_another(),
            None => EarlierReport::default().and_maybe_another(),
        };
        match reporter.report(&status, earlier).await {
            Ok(reported) => Ok(Delivered { reference: Some(reported.id) }),
            // The host shows something later, which stays.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                Ok(Delivered { reference: notification.earlier.clone() })
            }
            Err(error) => Err(error),
        }
    }
}
