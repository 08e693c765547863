//! Watching a repository of the user's own until interrupted.

use std::{error::Error, path::PathBuf};

use jiff::SignedDuration;
use workflows::{
    Tenant,
    core::{
        hash_of,
        store::RunQuery,
        workflow::{
            LoadContext, LoadedWorkflow, Problem, RepoSelector, Workflow, load, load_object,
        },
    },
};

use crate::{
    composition::{CONNECTION, Parts, Running},
    settings::Settings,
    show,
};

/// Watches until Ctrl-C.
pub(crate) async fn run(settings: &Settings, repo: &str) -> Result<(), Box<dyn Error>> {
    let repo = absolute(repo);
    let state = match &settings.state {
        Some(state) => state.clone(),
        None => state_directory()?.join(&hash_of(&[&repo])[..16]),
    };
    let workflows = workflows(settings, &repo)?;
    println!("Workflows: watching {repo}.");
    show::note("Code from there is executed on this machine, as you and outside of any container:");
    show::note("the images that its steps name are not used.");
    let running = Running::start(Parts {
        state: &state,
        repo: &repo,
        workflows,
        branches: settings.branch.as_deref(),
        poll_every: SignedDuration::from_secs(2),
        steps: settings.steps,
    })
    .await?;
    show::note(&format!("state: {}", state.display()));
    show::note("A push runs what its workflows say. Ctrl-C stops; started again, it goes on.");
    let mut told = Vec::new();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            interrupted = &mut interrupted => { interrupted?; break }
            () = tokio::time::sleep(std::time::Duration::from_secs(2)) => {
                let problems = running.handle.health().await?.problems();
                for problem in problems.iter().filter(|problem| !told.contains(*problem)) {
                    eprintln!("{problem}");
                }
                told = problems;
            }
        }
    }
    println!();
    show::heading("The archive of the repository:");
    let runs = running.handle.runs(RunQuery::of(Tenant::default())).await?.items;
    show::archive(&runs);
    running.stop().await
}

/// A path that stays right when the program is started elsewhere; a URL as it is.
fn absolute(repo: &str) -> String {
    match std::fs::canonicalize(repo) {
        Ok(path) => path.display().to_string(),
        Err(_) => repo.to_owned(),
    }
}

fn state_directory() -> Result<PathBuf, Box<dyn Error>> {
    let from = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(state) = from("XDG_STATE_HOME") {
        return Ok(PathBuf::from(state).join("workflows"));
    }
    let home = from("HOME").ok_or("HOME is not set; say where to keep the state with --state")?;
    Ok(PathBuf::from(home).join(".local/state/workflows"))
}

/// The workflows of `--workflows`, or none. They are written as they would stand in the repository,
/// which is the one that they are about.
fn workflows(settings: &Settings, repo: &str) -> Result<Vec<LoadedWorkflow>, Box<dyn Error>> {
    let Some(path) = &settings.workflows else { return Ok(Vec::new()) };
    let source = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{source} cannot be read: {error}"))?;
    let loaded = load(&source, &text, &LoadContext::in_repository());
    let told = |problems: Vec<Problem>| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        format!("{source} does not load\n\n{}", lines.join("\n\n"))
    };
    if !loaded.problems.is_empty() {
        return Err(told(loaded.problems).into());
    }
    if loaded.workflows.is_empty() {
        return Err(format!("{source} holds no workflow").into());
    }
    let mut workflows = Vec::new();
    for workflow in loaded.workflows {
        let mut document = Workflow::clone(workflow.workflow());
        let selector = RepoSelector {
            name: "self".into(),
            connection: CONNECTION.into(),
            repo: repo.into(),
            reference: None,
        };
        document.spec.repos.insert(0, selector);
        let object = serde_json::to_value(&document)?;
        workflows.push(load_object(&source, &object, &LoadContext::registered()).map_err(told)?);
    }
    Ok(workflows)
}
