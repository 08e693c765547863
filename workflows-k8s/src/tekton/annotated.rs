//! Runs that Workflows did not create, told of because their annotations ask for it.

use std::{fmt, future::ready, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, ResourceExt,
    core::{NotUsed, Object},
    runtime::{
        controller::{Action, Config, Controller},
        watcher,
    },
};
use moka::future::Cache;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    CommitId, DeliveryKey, Error, ErrorKind, NotificationView, Notifier, Result, RunPhase,
    RunState, RunView, Tenant, Transition, hash_of,
};

use super::{
    TektonSink,
    identity::{Handle, RUN_KEY},
    resource,
    status::{PipelineRun, PipelineRunStatus},
};

/// Asks for a status; `"true"`.
const ASKED: &str = "tekton.dev/git-status";
const REPOSITORY: &str = "tekton.dev/git-repo";
const REVISION: &str = "tekton.dev/git-revision";
const CONTEXT: &str = "tekton.dev/status-context";
const DESCRIPTION: &str = "tekton.dev/status-description";
const TARGET: &str = "tekton.dev/status-target-url";

/// A run that had ended so long before is not told of when the watch begins.
const OLD: SignedDuration = SignedDuration::from_hours(1);
/// A delivery takes no longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of so many runs it is kept what was told.
const MOST: u64 = 100_000;
/// So many deliveries are under way at once.
const AT_ONCE: u16 = 8;

/// Tells a notifier of PipelineRuns that Workflows did not create.
///
/// It takes the annotations of the
/// [commit status tracker](https://github.com/tektoncd/experimental/tree/main/commit-status-tracker), so that
/// its users change nothing in their PipelineRuns:
///
/// | annotation | |
/// | --- | --- |
/// | `tekton.dev/git-status` | `"true"`; others are left alone |
/// | `tekton.dev/git-repo` | the repository's address, of which the path is its name |
/// | `tekton.dev/git-revision` | the commit, in full |
/// | `tekton.dev/status-context` | the status' name ([`RunView::workflow`]); `default` |
/// | `tekton.dev/status-description` | what is said as long as Tekton says nothing itself |
/// | `tekton.dev/status-target-url` | the link, with `{{.Namespace}}`, `{{.Name}}`, `{{.Group}}`, `{{.Version}}`, `{{.Kind}}`; the sink's dashboard |
///
/// Whoever may create PipelineRuns in these namespaces names the repository and the commit, and so shows
/// a status, under the notifier's prefix, on any repository that its driver reaches. Give it a driver
/// that allows the repositories of these namespaces' team alone, and one of these for each team.
///
/// A notifier is told when a run waits, starts and ends. What failed in a way that passes is tried
/// again, after a second and then twice as long each time up to five minutes, or when a receiver
/// says; of everything else there is a line in the log, and no more until the run changes. Nothing is
/// kept over a restart: how each run stands is told again then, as something that may have been
/// told, but for those that ended more than an hour before.
///
/// ```no_run
/// # async fn example(
/// #     client: kube::Client,
/// #     notifier: std::sync::Arc<dyn workflows_core::Notifier>,
/// # ) {
/// use tokio_util::sync::CancellationToken;
/// use workflows_k8s::{AnnotatedRuns, Namespaces, TektonSink};
///
/// let sink = TektonSink::new(client, Namespaces::one("builds"));
/// AnnotatedRuns::of(sink).tell(notifier, CancellationToken::new()).await;
/// # }
/// ```
///
/// It needs, of `tekton.dev`, `pipelineruns` (get, list, watch) and `taskruns` (list).
#[derive(Debug, Clone)]
pub struct AnnotatedRuns {
    sink: TektonSink,
}

/// What of a PipelineRun is kept in memory.
type Watched = Object<NotUsed, PipelineRunStatus>;

impl AnnotatedRuns {
    /// Those in the namespaces that the sink watches.
    pub fn of(sink: TektonSink) -> Self {
        Self { sink }
    }

    /// Tells `notifier` until `shutdown`; deliveries that are under way are ended first.
    pub async fn tell(&self, notifier: Arc<dyn Notifier>, shutdown: CancellationToken) {
        let kind = resource("PipelineRun");
        let telling = Arc::new(Telling {
            sink: self.sink.clone(),
            notifier,
            since: self.sink.now(),
            told: Cache::new(MOST),
        });
        let watches = self.sink.namespaces.watched().into_iter().map(|namespace| {
            let api: Api<Watched> = match namespace {
                Some(name) => Api::namespaced_with(self.sink.client.clone(), &name, &kind),
                None => Api::all_with(self.sink.client.clone(), &kind),
            };
            Controller::new_with(api, watcher::Config::default(), kind.clone())
                .with_config(Config::default().concurrency(AT_ONCE))
                .graceful_shutdown_on(shutdown.clone().cancelled_owned())
                .run(
                    |run, telling| async move { telling.look_at(&run).await }.boxed(),
                    |_, error, _| Action::requeue(error.after),
                    Arc::clone(&telling),
                )
                .boxed()
        });
        stream::select_all(watches).for_each(|_| ready(())).await;
    }
}

struct Telling {
    sink: TektonSink,
    notifier: Arc<dyn Notifier>,
    since: Timestamp,
    /// By the run's uid.
    told: Cache<String, Told>,
}

/// What a run's notifier was told.
#[derive(Debug, Clone, Default)]
struct Told {
    state: Option<RunState>,
    reference: Option<String>,
    /// How often in a row that failed.
    failures: u32,
    /// Whether more may have reached it than is known here.
    unsure: bool,
}

/// It is tried again.
#[derive(Debug)]
struct TryAgain {
    after: Duration,
    why: Error,
}

impl fmt::Display for TryAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl std::error::Error for TryAgain {}

impl Telling {
    async fn look_at(&self, run: &Watched) -> Result<Action, TryAgain> {
        let Some(uid) = run.uid() else { return Ok(Action::await_change()) };
        let annotation = |name: &str| run.annotations().get(name).map(String::as_str);
        if annotation(ASKED) != Some("true") || annotation(RUN_KEY).is_some() {
            return Ok(Action::await_change());
        }
        let unknown = Told { unsure: true, ..Told::default() };
        let before = self.told.get(&uid).await.unwrap_or(unknown);
        match self.tell(run, &uid, &before).await {
            Ok(after) => {
                self.told.insert(uid, after).await;
                Ok(Action::await_change())
            }
            Err(why) => {
                let failures = before.failures + 1;
                let after = delay(why.kind(), failures, self.sink.now());
                tracing::warn!(error = %why, run = %run.name_any(), "a run is not told of");
                let state = before.state;
                let told = Told { failures, unsure: true, state, ..before };
                match after {
                    Some(after) => {
                        self.told.insert(uid, told).await;
                        Err(TryAgain { after, why })
                    }
                    None => {
                        let state = Some(state_of(run));
                        self.told.insert(uid, Told { state, ..told }).await;
                        Ok(Action::await_change())
                    }
                }
            }
        }
    }

    /// Tells how a run stands, when that was not told.
    async fn tell(&self, run: &Watched, uid: &str, before: &Told) -> Result<Told> {
        let state = state_of(run);
        let ended = run.status.as_ref().and_then(PipelineRunStatus::ended_at);
        let is_old = ended.is_some_and(|at| at < self.since - OLD);
        if before.state == Some(state) || (before.state.is_none() && is_old) {
            return Ok(before.clone());
        }
        let view = self.view(run, uid, state).await?;
        let transition = transition(state);
        let key = DeliveryKey::new(hash_of(&[uid, transition.as_str()]));
        let mut notification = NotificationView::new(key, transition, self.sink.now(), view);
        notification.earlier.clone_from(&before.reference);
        notification.may_have_reached = before.unsure;
        let delivery = tokio::time::timeout(PATIENCE, self.notifier.deliver(&notification)).await;
        let delivered = delivery.unwrap_or_else(|_| {
            let message = "the notifier does not come to an end; it is asked again";
            Err(Error::transient("tell of a run", message))
        })?;
        let reference = delivered.reference.or_else(|| before.reference.clone());
        Ok(Told { state: Some(state), reference, ..Told::default() })
    }

    async fn view(&self, run: &Watched, uid: &str, state: RunState) -> Result<RunView> {
        const OPERATION: &str = "read a run's annotations";
        let namespace = run.namespace().unwrap_or_default();
        let annotation = |name: &str| run.annotations().get(name).map(String::as_str);
        let needed = |name: &str| {
            annotation(name).filter(|text| !text.is_empty()).ok_or_else(|| {
                Error::invalid(OPERATION, "the annotation is missing").with("annotation", name)
            })
        };
        let address = needed(REPOSITORY)?;
        let repository = repository_of(address).ok_or_else(|| {
            let message = "it must be the address of a repository, such as \
                           https://git.example.com/acme/api";
            Error::invalid(OPERATION, message).with("annotation", REPOSITORY)
        })?;
        let commit: CommitId =
            needed(REVISION)?.parse().map_err(|error: Error| error.with("annotation", REVISION))?;

        let context = annotation(CONTEXT).filter(|text| !text.is_empty()).unwrap_or("default");
        let created = run.metadata.creation_timestamp.as_ref();
        let created = created.map_or(self.sink.now(), |time| time.0);
        let mut view = RunView::new(uid, repository, context, state, created);
        let pipeline_run = PipelineRun::from(run.status.clone().unwrap_or_default());
        let tasks = match pipeline_run.has_children() {
            true => self.sink.task_runs_of(&namespace, uid).await?,
            false => Vec::new(),
        };
        let status = pipeline_run.run_status(&tasks);
        let handle = Handle::of_pipeline_run(namespace, run.name_any(), uid.to_owned());
        view.link = match annotation(TARGET) {
            Some(template) => Some(target(template, &handle)?),
            None => self.sink.link(&handle),
        };
        view.name = Some(handle.name.into());
        view.tenant = Tenant::new(handle.namespace.as_str()).unwrap_or_default();
        view.commit = Some(commit);
        view.message = match status.message.is_empty() {
            true => annotation(DESCRIPTION).unwrap_or_default().to_owned(),
            false => status.message,
        };
        view.tasks = status.tasks;
        view.started_at = status.started_at;
        view.finished_at = status.finished_at;
        Ok(view)
    }
}

fn state_of(run: &Watched) -> RunState {
    match PipelineRun::from(run.status.clone().unwrap_or_default()).run_status(&[]).phase {
        RunPhase::Running => RunState::Running,
        RunPhase::Succeeded => RunState::Succeeded,
        RunPhase::Failed => RunState::Failed,
        RunPhase::Cancelled => RunState::Cancelled,
        RunPhase::TimedOut => RunState::TimedOut,
        _ => RunState::Created,
    }
}

fn transition(state: RunState) -> Transition {
    match state {
        RunState::Running => Transition::Started,
        RunState::Succeeded => Transition::Succeeded,
        RunState::Failed => Transition::Failed,
        RunState::Cancelled => Transition::Cancelled,
        RunState::TimedOut => Transition::TimedOut,
        _ => Transition::Queued,
    }
}

/// When to try again; `None` when that would not help.
fn delay(kind: ErrorKind, failures: u32, now: Timestamp) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_secs(300);
    if let ErrorKind::RateLimited { until: Some(until) } = kind {
        let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        return Some(wait.clamp(Duration::from_secs(1), Duration::from_secs(3600)));
    }
    let wait = Duration::from_secs(1 << (failures.max(1) - 1).min(9)).min(LONGEST);
    (kind.is_retryable() || kind == ErrorKind::Denied).then_some(wait)
}

/// The name of the repository at an address: its path.
fn repository_of(address: &str) -> Option<&str> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        // As ssh takes it: git@host:acme/api.git
        None => address.split_once(':')?.1,
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let is_plain = !path.contains(['?', '#', '@', ' ']);
    (is_plain && path.contains('/')).then_some(path)
}

/// The link that an annotation asks for.
fn target(template: &str, of: &Handle) -> Result<String> {
    let values = [
        ("Namespace", of.namespace.as_str()),
        ("Name", of.name.as_str()),
        ("Group", "tekton.dev"),
        ("Version", "v1"),
        ("Kind", "PipelineRun"),
    ];
    let refused = |message: &str| {
        Err(Error::invalid("read a run's annotations", message).with("annotation", TARGET))
    };
    let mut link = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            return refused("{{ has no }}");
        };
        let name = name.trim().strip_prefix('.').unwrap_or_default();
        let Some((_, value)) = values.iter().find(|(known, _)| *known == name) else {
            let message = "only {{.Namespace}}, {{.Name}}, {{.Group}}, {{.Version}} and \
                           {{.Kind}} can be filled in";
            return refused(message);
        };
        link.push_str(before);
        link.push_str(value);
        rest = after;
    }
    link.push_str(rest);
    match link.starts_with("https://") || link.starts_with("http://") {
        true => Ok(link),
        false => refused("a link must begin with https:// or http://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_by_the_path_of_its_address() {
        let table = [
            ("https://git.example.com/acme/api.git", Some("acme/api")),
            ("https://git.example.com/acme/group/api/", Some("acme/group/api")),
            ("git@git.example.com:acme/api.git", Some("acme/api")),
            ("ssh://git@git.example.com:22/acme/api", Some("acme/api")),
            ("https://git.example.com/api", None),
            ("https://git.example.com", None),
            ("acme/api", None),
            ("https://git.example.com/acme/api?x=1", None),
        ];
        for (address, name) in table {
            assert_eq!(repository_of(address), name, "{address}");
        }
    }

    #[test]
    fn a_link_is_filled_in_or_refused() {
        let of = Handle::of_pipeline_run("ci".into(), "run-1".into(), "u".into());
        let template = "https://t.example.com/{{.Namespace}}/{{ .Kind }}/{{.Name}}?v={{.Version}}";
        assert_eq!(
            target(template, &of).unwrap(),
            "https://t.example.com/ci/PipelineRun/run-1?v=v1"
        );
        assert_eq!(
            target("https://t.example.com/{{.Secret}}", &of).unwrap_err().to_string(),
            "read a run's annotations: only {{.Namespace}}, {{.Name}}, {{.Group}}, {{.Version}} and \
             {{.Kind}} can be filled in (annotation: tekton.dev/status-target-url)"
        );
        assert!(target("https://t.example.com/{{.Name", &of).is_err());
        assert!(target("javascript:{{.Name}}", &of).is_err());
    }

    #[test]
    fn what_passes_is_tried_again_later_and_later() {
        let now = Timestamp::UNIX_EPOCH;
        let seconds = |kind, failures| delay(kind, failures, now).map(|wait| wait.as_secs());
        assert_eq!(seconds(ErrorKind::Transient, 1), Some(1));
        assert_eq!(seconds(ErrorKind::Transient, 4), Some(8));
        assert_eq!(seconds(ErrorKind::Denied, 1_000), Some(300));
        let until = Some(now + SignedDuration::from_secs(90));
        assert_eq!(seconds(ErrorKind::RateLimited { until }, 1), Some(90));
        assert_eq!(seconds(ErrorKind::Invalid, 1), None);
        assert_eq!(seconds(ErrorKind::NotFound, 1), None);
    }
}
