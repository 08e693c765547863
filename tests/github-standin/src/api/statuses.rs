//! Commit statuses.

use serde_json::json;

use super::{Route, get, route};
use crate::{
    access::Level,
    answer::{Answer, Reply, Request},
    deliveries::Told,
    git::full_id,
    world::{Repo, Status, World},
};

pub(super) const ROUTES: &[Route] = &[
    route("POST", "/repos/{owner}/{repo}/statuses/{sha}", create),
    get("/repos/{owner}/{repo}/commits/{+ref}/statuses", list),
    get("/repos/{owner}/{repo}/commits/{+ref}/status", combined),
];

/// A description has at most so many characters.
const DESCRIPTION: usize = 140;
/// Of one context at one commit there can be so many.
const OF_ONE_CONTEXT: usize = 1_000;

fn create(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "statuses", Level::Write)?;
    let repo = world.repo(id)?;
    let sha = full_id(request.param("sha")).filter(|sha| repo.git.commit(*sha).is_some());
    let missing =
        || Answer::unprocessable(&format!("No commit found for SHA: {}", request.param("sha")));
    let sha = sha.ok_or_else(missing)?;
    let refused = |field: &str, message: &str| Answer::invalid("Status", field, "custom", message);
    let description = request.text("description").map(ToOwned::to_owned);
    if description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION) {
        return Err(refused("description", "description is too long (maximum is 140 characters)"));
    }
    let target_url = request.text("target_url").filter(|url| !url.is_empty());
    if target_url.is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        return Err(refused("target_url", "target_url must use http(s) scheme"));
    }
    let context = request.text("context").unwrap_or("default").to_owned();
    let same = repo.statuses.values().filter(|one| one.sha == sha && one.context == context);
    if same.count() >= OF_ONE_CONTEXT {
        let message = "This SHA and context has reached the maximum number of statuses.";
        return Err(refused("base", message));
    }
    let target_url = target_url.map(ToOwned::to_owned);
    let (status_id, now, creator) = (world.new_id(), world.now(), world.actor(&request.caller));
    let status = Status {
        id: status_id,
        sha,
        state: request.text("state").unwrap_or_default().to_owned(),
        context,
        description,
        target_url,
        creator: creator.clone(),
        created_at: now,
    };
    world.repo_mut(id)?.statuses.insert(status_id, status.clone());
    let repo = world.repo(id)?;
    let branches: Vec<_> = repo
        .git
        .refs("refs/heads/")
        .into_iter()
        .filter(|(_, at)| *at == sha)
        .map(|(name, at)| {
            json!({
                "name": name.trim_start_matches("refs/heads/"), "protected": false,
                "commit": {
                    "sha": at.to_string(), "url": world.repo_api(repo, &format!("/commits/{at}")),
                },
            })
        })
        .collect();
    let mut commit = world.commit_view(repo, sha);
    if let Some(verification) = commit["commit"].get_mut("verification") {
        *verification = json!({
            "verified": false, "reason": "unsigned", "signature": null, "payload": null,
            "verified_at": null,
        });
    }
    let payload = json!({
        "id": status.id, "sha": sha.to_string(), "name": repo.full_name(),
        "target_url": status.target_url, "context": status.context,
        "description": status.description, "state": status.state, "commit": commit,
        "branches": branches, "created_at": now, "updated_at": now, "avatar_url": null,
    });
    let view = world.status_view(repo, &status);
    world.tell(Told {
        event: "status",
        action: None,
        payload,
        sender: creator,
        repo: Some(id),
        app: None,
    });
    Answer::created(view)
}

fn at<'a>(repo: &'a Repo, request: &Request) -> Result<(git2::Oid, Vec<&'a Status>), Answer> {
    let sha = repo.git.resolve(request.param("ref")).ok_or_else(Answer::not_found)?;
    let mut found: Vec<&Status> = repo.statuses.values().filter(|one| one.sha == sha).collect();
    found.reverse();
    Ok((sha, found))
}

fn list(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "statuses", Level::Read)?;
    let repo = world.repo(id)?;
    let (_, found) = at(repo, request)?;
    let all = found.into_iter().map(|one| world.status_view(repo, one)).collect();
    Answer::listed(request.paged(&world.root, all))
}

fn combined(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "statuses", Level::Read)?;
    let repo = world.repo(id)?;
    let (sha, mut found) = at(repo, request)?;
    let mut seen = std::collections::HashSet::new();
    found.retain(|one| seen.insert(one.context.clone()));
    let is = |state: &str| found.iter().any(|one| one.state == state);
    let state = if is("error") || is("failure") {
        "failure"
    } else if is("pending") || found.is_empty() {
        "pending"
    } else {
        "success"
    };
    let total = found.len();
    let all: Vec<_> = found.into_iter().map(|one| world.status_view(repo, one)).collect();
    let (page, links) = request.paged(&world.root, all);
    let mut answer = Answer::json(
        200,
        json!({
            "state": state, "sha": sha.to_string(), "total_count": total, "statuses": page,
            "repository": world.repo_view(repo),
            "commit_url": world.repo_api(repo, &format!("/commits/{sha}")),
            "url": world.repo_api(repo, &format!("/commits/{sha}/status")),
        }),
    );
    answer.headers.extend(links.map(|links| ("link", links)));
    Ok(answer)
}
