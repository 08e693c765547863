//! Repositories, their branches and tags.

use serde_json::{Value, json};

use super::{Route, get};
use crate::{
    access::{Caller, Level},
    answer::{Answer, Reply, Request},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    get("/repos/{owner}/{repo}", repo),
    get("/orgs/{org}/repos", of_organization),
    get("/user/repos", of_user),
    get("/repos/{owner}/{repo}/branches", branches),
    get("/repos/{owner}/{repo}/branches/{+branch}", branch),
    get("/repos/{owner}/{repo}/tags", tags),
    get("/rate_limit", rate_limit),
];

fn repo(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "metadata", Level::Read)?;
    let repo = world.repo(id)?;
    let mut view = world.repo_view(repo);
    if let Caller::User(login, _) = &request.caller {
        view["permissions"] = crate::api::people::permissions(world.role(repo, login));
    }
    if let Some(source) = repo.fork_of.and_then(|id| world.repos.get(&id)) {
        view["parent"] = world.repo_view(source);
        view["source"] = world.repo_view(source);
    }
    Answer::ok(view)
}

fn of_organization(world: &mut World, request: &Request) -> Reply {
    let organization = request.param("org");
    world.account(organization).ok_or_else(Answer::not_found)?;
    let shown = world
        .repos
        .values()
        .filter(|repo| repo.owner.eq_ignore_ascii_case(organization))
        .filter(|repo| world.may(&request.caller, repo, "metadata", Level::Read).is_ok())
        .map(|repo| world.repo_view(repo))
        .collect();
    Answer::listed(request.paged(&world.root, shown))
}

fn of_user(world: &mut World, request: &Request) -> Reply {
    let Caller::User(login, _) = &request.caller else {
        return Err(Answer::error(401, "Requires authentication"));
    };
    let login = login.to_ascii_lowercase();
    let shown = world
        .repos
        .values()
        .filter(|repo| {
            let is_known = repo.owner.eq_ignore_ascii_case(&login)
                || repo.collaborators.contains_key(&login)
                || world.account(&repo.owner).is_some_and(|one| one.members.contains_key(&login));
            is_known && world.may(&request.caller, repo, "metadata", Level::Read).is_ok()
        })
        .map(|repo| world.repo_view(repo))
        .collect();
    Answer::listed(request.paged(&world.root, shown))
}

fn branches(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    let all = repo
        .git
        .refs("refs/heads/")
        .into_iter()
        .map(|(name, at)| {
            json!({
                "name": name.trim_start_matches("refs/heads/"), "protected": false,
                "commit": {
                    "sha": at.to_string(),
                    "url": world.repo_api(repo, &format!("/commits/{at}")),
                },
            })
        })
        .collect();
    Answer::listed(request.paged(&world.root, all))
}

fn branch(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    let name = request.param("branch");
    let at = repo.git.position(&format!("refs/heads/{name}"));
    let at = at.ok_or_else(|| Answer::error(404, "Branch not found"))?;
    let url = world.repo_api(repo, &format!("/branches/{name}"));
    Answer::ok(json!({
        "name": name, "commit": world.commit_view(repo, at), "protected": false,
        "_links": { "self": url, "html": world.html(repo, &format!("/tree/{name}")) },
        "protection": {
            "enabled": false,
            "required_status_checks": {
                "enforcement_level": "off", "contexts": [], "checks": [],
            },
        },
        "protection_url": format!("{url}/protection"),
    }))
}

fn tags(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    let all = repo
        .git
        .refs("refs/tags/")
        .into_iter()
        .rev()
        .filter_map(|(name, _)| {
            let short = name.trim_start_matches("refs/tags/");
            let at = repo.git.resolve(&name)?;
            Some(json!({
                "name": short, "node_id": crate::views::node_id("Ref", &name),
                "commit": {
                    "sha": at.to_string(),
                    "url": world.repo_api(repo, &format!("/commits/{at}")),
                },
                "zipball_url": world.repo_api(repo, &format!("/zipball/{name}")),
                "tarball_url": world.repo_api(repo, &format!("/tarball/{name}")),
            }))
        })
        .collect();
    Answer::listed(request.paged(&world.root, all))
}

fn rate_limit(world: &mut World, request: &Request) -> Reply {
    if !world.limits.are_told {
        return Err(Answer::error(404, "Rate limiting is not enabled."));
    }
    let (now, limits) = (world.now(), world.limits.clone());
    let principal = request.caller.principal();
    let mut view = |resource: &'static str| -> Value {
        let window = *world.spent.window(&limits, &principal, resource, now);
        json!({
            "limit": window.limit, "used": window.used, "remaining": window.remaining(),
            "reset": window.resets_at.as_second(),
        })
    };
    let (core, graphql) = (view("core"), view("graphql"));
    let search = json!({ "limit": 30, "used": 0, "remaining": 30, "reset": now.as_second() + 60 });
    Answer::ok(json!({
        "resources": { "core": core, "graphql": graphql, "search": search }, "rate": core,
    }))
}
