//! Issues, which pull requests are, too, and their labels.

use serde_json::Value;

use super::{Route, get, route};
use crate::{
    access::Level,
    answer::{Answer, Reply, Request},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    get("/repos/{owner}/{repo}/issues/{issue_number}", one),
    get("/repos/{owner}/{repo}/issues/{issue_number}/labels", labels),
    route("POST", "/repos/{owner}/{repo}/issues/{issue_number}/labels", add_labels),
    route("DELETE", "/repos/{owner}/{repo}/issues/{issue_number}/labels/{name}", remove_label),
];

fn one(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "issues", Level::Read)?;
    let repo = world.repo(id)?;
    let issue = repo.issues.get(&request.number("issue_number")?).ok_or_else(Answer::not_found)?;
    Answer::ok(world.issue_view(repo, issue))
}

fn labels(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "issues", Level::Read)?;
    let repo = world.repo(id)?;
    let issue = repo.issues.get(&request.number("issue_number")?).ok_or_else(Answer::not_found)?;
    let all = issue.labels.iter().map(|name| world.label_view(repo, name)).collect();
    Answer::listed(request.paged(&world.root, all))
}

fn add_labels(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "issues", Level::Write)?;
    let number = request.number("issue_number")?;
    let actor = world.actor(&request.caller);
    let listed = request.body.get("labels").unwrap_or(&request.body);
    let names: Vec<String> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str().or_else(|| one.get("name").and_then(Value::as_str)))
        .map(ToOwned::to_owned)
        .collect();
    for name in names {
        world.set_label(id, number, &name, true, &actor);
    }
    labels(world, request)
}

fn remove_label(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "issues", Level::Write)?;
    let number = request.number("issue_number")?;
    let name = request.param("name");
    let issue = world.repo(id)?.issues.get(&number).ok_or_else(Answer::not_found)?;
    if !issue.labels.contains(name) {
        return Err(Answer::error(404, "Label does not exist"));
    }
    let actor = world.actor(&request.caller);
    world.set_label(id, number, name, false, &actor);
    labels(world, request)
}
