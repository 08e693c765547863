//! Commit statuses (<https://docs.gitlab.com/api/commits/#commit-status>), with GitLab's machine of states:
//! one is found by its name, its pipeline and who made it while it has not ended; it goes from `pending`
//! to `running` to an end.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Route, get, route};
use crate::{
    answer::{Answer, Reply, Request},
    world::{Pipeline, Status, World},
};

pub(super) const ROUTES: &[Route] = &[
    route("POST", "/projects/{id}/statuses/{sha}", create),
    get("/projects/{id}/repository/commits/{sha}/statuses", list),
];

/// A description and an address have at most so many characters.
const LONGEST: usize = 255;

impl Pipeline {
    /// The newest status of each name.
    pub(crate) fn latest(&self) -> impl Iterator<Item = &Status> {
        let by_name: BTreeMap<&str, &Status> =
            self.statuses.iter().map(|status| (status.name.as_str(), status)).collect();
        by_name.into_values()
    }
}

/// What leads to a state, and from where.
fn transition(state: &str) -> Option<(&'static str, &'static str, &'static [&'static str])> {
    Some(match state {
        "pending" => ("pending", "enqueue", &["created"]),
        "running" => ("running", "run", &["created", "pending"]),
        "success" => ("success", "success", &["created", "pending", "running"]),
        "failed" => ("failed", "drop", &["created", "pending", "running"]),
        "canceled" => ("canceled", "cancel", &["created", "pending", "running"]),
        "skipped" => ("skipped", "skip", &["created", "pending"]),
        _ => return None,
    })
}

fn create(world: &mut World, request: &Request) -> Reply {
    let user = request.caller.user()?.to_owned();
    let project = world.project_for(request.param("id"), &request.caller, 30)?;
    let id = project.id;
    let sha = workflows_standin_kit::git::full_id(request.param("sha"));
    let sha = sha.filter(|sha| project.git.commit(*sha).is_some());
    let sha = sha.ok_or_else(|| Answer::not_found("Commit"))?;
    let wanted = request.text("state").unwrap_or_default();
    let (state, event, from) = transition(wanted)
        .ok_or_else(|| Answer::oauth(400, "state does not have a valid value", ""))?;
    for name in ["description", "target_url"] {
        if request.text(name).is_some_and(|text| text.chars().count() > LONGEST) {
            return Err(Answer::invalid(name, "is too long (maximum is 255 characters)"));
        }
    }
    let reference = match request.text("ref") {
        Some(reference) => reference.to_owned(),
        None => {
            let mut branches = project.git.refs("refs/heads/").into_iter();
            let has_it = branches.find(|(_, at)| project.git.is_ancestor(sha, *at));
            let (name, _) = has_it.ok_or_else(|| Answer::not_found("References for commit"))?;
            name.trim_start_matches("refs/heads/").to_owned()
        }
    };
    let asked: Option<u64> = match &request.body["pipeline_id"] {
        Value::Number(number) => number.as_u64(),
        _ => request.text("pipeline_id").and_then(|text| text.parse().ok()),
    };
    let fits = |one: &&Pipeline| match asked {
        Some(asked) => one.id == asked && one.sha == sha,
        None => one.sha == sha && one.reference == reference,
    };
    let pipeline = match (project.pipelines.values().rfind(fits).map(|one| one.id), asked) {
        (Some(known), _) => known,
        (None, Some(_)) => return Err(Answer::not_found("Pipeline")),
        (None, None) => {
            let new = world.new_id();
            let pipeline = Pipeline { id: new, sha, reference, statuses: Vec::new() };
            if let Some(project) = world.projects.get_mut(&id) {
                project.pipelines.insert(new, pipeline);
            }
            new
        }
    };
    let name = request.text("name").or_else(|| request.text("context")).unwrap_or("default");
    let (new, now) = (world.new_id(), world.now());
    let missing = || Answer::not_found("Pipeline");
    let project = world.projects.get_mut(&id).ok_or_else(missing)?;
    let pipeline = project.pipelines.get_mut(&pipeline).ok_or_else(missing)?;
    let goes_on = |one: &Status| matches!(one.state, "created" | "pending" | "running");
    let known = pipeline
        .statuses
        .iter()
        .rposition(|one| one.name == name && one.author == user && goes_on(one));
    let at = known.unwrap_or_else(|| {
        pipeline.statuses.push(Status {
            id: new,
            name: name.to_owned(),
            state: "created",
            description: None,
            target_url: None,
            author: user.clone(),
            created_at: now,
        });
        pipeline.statuses.len() - 1
    });
    let Some(status) = pipeline.statuses.get_mut(at) else { return Err(missing()) };
    if !from.contains(&status.state) {
        let text = format!(
            "Cannot transition status via :{event} from :{} (Reason(s): Status cannot transition via \
             \"{event}\")",
            status.state
        );
        return Err(Answer::error(400, &text));
    }
    status.state = state;
    for (field, name) in
        [(&mut status.description, "description"), (&mut status.target_url, "target_url")]
    {
        if let Some(text) = request.text(name) {
            *field = Some(text.to_owned());
        }
    }
    let status = status.clone();
    let pipeline = pipeline.clone();
    Answer::created(world.status_view(&pipeline, &status))
}

fn list(world: &mut World, request: &Request) -> Reply {
    let project = world.project_for(request.param("id"), &request.caller, 10)?;
    let sha = workflows_standin_kit::git::full_id(request.param("sha"));
    let sha = sha.filter(|sha| project.git.commit(*sha).is_some());
    let sha = sha.ok_or_else(|| Answer::not_found("Commit"))?;
    let pipeline: Option<u64> = request.text("pipeline_id").and_then(|text| text.parse().ok());
    let pipelines = project.pipelines.values().filter(|one| {
        one.sha == sha
            && pipeline.is_none_or(|id| one.id == id)
            && request.text("ref").is_none_or(|reference| one.reference == reference)
    });
    let mut found: Vec<(&Pipeline, &Status)> = pipelines
        .flat_map(|pipeline| pipeline.latest().map(move |status| (pipeline, status)))
        .filter(|(_, status)| request.text("name").is_none_or(|name| status.name == name))
        .collect();
    found.sort_by_key(|(_, status)| status.id);
    if request.text("sort") == Some("desc") {
        found.reverse();
    }
    let all = found.into_iter().map(|(pipeline, status)| world.status_view(pipeline, status));
    request.paged(&world.root, world.limits.offset, all.collect())
}
