//! A small repository, a few pushes, and what comes of each.

use std::{error::Error, time::Duration};

use jiff::SignedDuration;
use workflows::{
    Event, Run, RunState, Tenant,
    core::store::{EventQuery, RunQuery, StatusQuery},
};

use crate::{
    composition::{Parts, Running},
    repository::Repository,
    settings::Settings,
    show,
};

/// How long to wait for anything before saying that it does not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// A test that takes longer than anybody waits for.
const SLOW_TEST: &str = "echo 'this takes a while'\nsleep 30\n";
/// A test that is right.
const GOOD_TEST: &str = "echo \"2 + 2 is $((2 + 2))\"\n";
/// A test that is not.
const BAD_TEST: &str = "echo \"2 + 2 is $((2 + 2))\"\necho 'expected 5, got 4' >&2\nexit 1\n";

/// Shows everything once.
pub(crate) async fn run(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::Builder::new().prefix("workflows-quickstart-").tempdir()?;
    let state = settings.state.clone().unwrap_or_else(|| temporary.path().join("state"));
    println!(
        "Workflows: a real git repository, a ledger in SQLite, runs as processes of this machine."
    );
    let repository = Repository::create(temporary.path())?;
    let repo = repository.url();
    show::note(&format!("repository: {repo}"));
    show::note(&format!("state:      {}", state.display()));
    let running = Running::start(Parts {
        state: &state,
        repo: &repo,
        workflows: Vec::new(),
        branches: None,
        poll_every: SignedDuration::from_secs(1),
        steps: settings.steps,
    })
    .await?;
    let told = tell(&running, &repository).await;
    running.stop().await?;
    told
}

async fn tell(running: &Running, repository: &Repository) -> Result<(), Box<dyn Error>> {
    first_poll(running).await?;

    show::heading("A push runs a pipeline of three tasks: clone, then lint and test together.");
    repository.write("main.c", "int main(void) { return 0; }\n")?;
    let pushed = push(repository, "Add the program")?;
    ended(running, &run_of(running, &pushed).await?, RunState::Succeeded).await?;

    show::heading("A run is going on; the next push takes its place.");
    repository.write("test.sh", SLOW_TEST)?;
    let slow = run_of(running, &push(repository, "Test at length")?).await?;
    reached(running, &slow, |run| run.tasks.len() > 1).await?;
    repository.write("test.sh", GOOD_TEST)?;
    let newer = run_of(running, &push(repository, "Test in short")?).await?;
    ended(running, &slow, RunState::Superseded).await?;
    ended(running, &newer, RunState::Succeeded).await?;

    show::heading("A push that only touches documentation runs nothing. This is why:");
    repository.write("README.md", "# A small project\n\nNow with words.\n")?;
    let docs_commit = push(repository, "Write about it")?;
    let docs = event_of(running, &docs_commit).await?;
    decided(running, &docs).await?;
    if !running.handle.runs(of_commit(&docs_commit)?).await?.items.is_empty() {
        return Err("a push of documentation should have run nothing".into());
    }
    show::block(&running.handle.explain_event(&Tenant::default(), &docs.key).await?.to_string());

    show::heading("A push that breaks the test fails, and the last lines say how.");
    repository.write("test.sh", BAD_TEST)?;
    let broken = push(repository, "Break it")?;
    ended(running, &run_of(running, &broken).await?, RunState::Failed).await?;

    show::heading("Mended.");
    repository.write("test.sh", GOOD_TEST)?;
    let mended = push(repository, "Mend it")?;
    ended(running, &run_of(running, &mended).await?, RunState::Succeeded).await?;

    show::heading("The archive of the repository:");
    let tenant = Tenant::default();
    let runs = running.handle.runs(RunQuery::of(tenant.clone())).await?.items;
    show::archive(&runs);
    show::heading("What its commits show (plain git has no place for it, so the ledger keeps it):");
    show::statuses(&running.handle.statuses(StatusQuery::of(tenant.clone())).await?.items, &runs);
    show::heading("One event explained:");
    let event = event_of(running, &broken).await?;
    show::block(&running.handle.explain_event(&tenant, &event.key).await?.to_string());
    println!();
    Ok(())
}

fn push(repository: &Repository, message: &str) -> Result<String, Box<dyn Error>> {
    let commit = repository.push(message)?;
    show::note(&format!("$ git commit -m '{message}' && git push    # {}", &commit[..7]));
    Ok(commit)
}

/// Asks until there is an answer.
async fn until<T, Asking>(what: &str, mut ask: impl FnMut() -> Asking) -> Result<T, Box<dyn Error>>
where
    Asking: Future<Output = Result<Option<T>, Box<dyn Error>>>,
{
    let asking = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{what} did not come within {} s", PATIENCE.as_secs()).into()),
    }
}

/// Waits for the repository's first state to be on record: what was there before runs nothing.
async fn first_poll(running: &Running) -> Result<(), Box<dyn Error>> {
    until("the first look at the repository", || async {
        let sources = running.handle.health().await?.sources;
        Ok(sources.iter().any(|source| source.progress.successes > 0).then_some(()))
    })
    .await
}

async fn event_of(running: &Running, commit: &str) -> Result<Event, Box<dyn Error>> {
    let commit: workflows::CommitId = commit.parse()?;
    until("the event", || async {
        let query = EventQuery::of(Tenant::default()).commit(Some(commit.clone()));
        Ok(running.handle.events(query).await?.items.pop())
    })
    .await
}

async fn decided(running: &Running, event: &Event) -> Result<(), Box<dyn Error>> {
    until("the decision", || async {
        let query = workflows::core::store::DecisionQuery::of(Tenant::default())
            .event(Some(event.key.clone()));
        let decided = !running.handle.decisions(query).await?.items.is_empty();
        Ok(decided.then_some(()))
    })
    .await
}

fn of_commit(commit: &str) -> Result<RunQuery, Box<dyn Error>> {
    Ok(RunQuery::of(Tenant::default()).commit(Some(commit.parse()?)))
}

async fn run_of(running: &Running, commit: &str) -> Result<Run, Box<dyn Error>> {
    let query = of_commit(commit)?;
    until("the run", || async { Ok(running.handle.runs(query.clone()).await?.items.pop()) }).await
}

async fn reached(
    running: &Running,
    run: &Run,
    is_there: impl Fn(&Run) -> bool,
) -> Result<Run, Box<dyn Error>> {
    until("the run's progress", || async {
        let run = running.handle.run(&run.tenant, &run.key).await?;
        Ok(run.filter(|run| is_there(run) || run.state.is_terminal()))
    })
    .await
}

/// Waits for the end of a run and for everybody to be told. An end that is not the one to be shown is
/// an error.
async fn ended(running: &Running, run: &Run, shown: RunState) -> Result<(), Box<dyn Error>> {
    let run = reached(running, run, |run| run.state.is_terminal()).await?;
    if run.state != shown {
        let Run { workflow, state, message, .. } = &run;
        return Err(
            format!("{} should be {shown}, and is {state}: {message}", workflow.name).into()
        );
    }
    until("the notification", || async {
        let query = workflows::core::store::DeliveryQuery::of(Tenant::default())
            .run(Some(run.key.clone()))
            .state(Some(workflows::core::store::NotificationState::Pending));
        let waiting = running.handle.notifications(query).await?.items;
        Ok(waiting.is_empty().then_some(()))
    })
    .await
}
