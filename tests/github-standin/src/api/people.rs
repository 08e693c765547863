//! Accounts, and what they may do.

use serde_json::{Value, json};

use super::{Route, get};
use crate::{
    access::{Caller, Level},
    answer::{Answer, Reply, Request},
    script::Role,
    world::{AccountKind, World},
};

pub(super) const ROUTES: &[Route] = &[
    get("/user", myself),
    get("/users/{username}", account),
    get("/repos/{owner}/{repo}/collaborators/{username}/permission", permission),
    get("/repos/{owner}/{repo}/collaborators/{username}", is_collaborator),
    get("/orgs/{org}/members/{username}", is_member),
    get("/orgs/{org}/memberships/{username}", membership),
    get("/orgs/{org}/teams", teams),
    get("/orgs/{org}/teams/{team_slug}/memberships/{username}", team_membership),
];

/// What a role allows, as GitHub writes it with a repository.
pub(super) fn permissions(role: Option<Role>) -> Value {
    let at_least = |least: Role| role.is_some_and(|role| role >= least);
    json!({
        "admin": at_least(Role::Admin), "maintain": at_least(Role::Maintain),
        "push": at_least(Role::Write), "triage": at_least(Role::Triage),
        "pull": at_least(Role::Read),
    })
}

fn profile(world: &World, login: &str) -> Result<Value, Answer> {
    let account = world.account(login).ok_or_else(Answer::not_found)?;
    let mut view = world.user_view(&account.login);
    let more = json!({
        "name": account.login, "company": null, "blog": "", "location": null, "email": null,
        "hireable": null, "bio": null, "twitter_username": null, "public_repos": 0,
        "public_gists": 0, "followers": 0, "following": 0, "created_at": account.created_at,
        "updated_at": account.created_at,
    });
    crate::views::merge(&mut view, more);
    Ok(view)
}

fn myself(world: &mut World, request: &Request) -> Reply {
    match &request.caller {
        Caller::User(login, _) => Answer::ok(profile(world, login)?),
        Caller::Anonymous => Err(Answer::error(401, "Requires authentication")),
        _ => Err(crate::access::inaccessible()),
    }
}

fn account(world: &mut World, request: &Request) -> Reply {
    Answer::ok(profile(world, request.param("username"))?)
}

fn permission(world: &mut World, request: &Request) -> Reply {
    if matches!(request.caller, Caller::Anonymous) {
        return Err(Answer::error(401, "Requires authentication"));
    }
    let id = world.repo_for(request, "metadata", Level::Read)?;
    let repo = world.repo(id)?;
    if let Caller::User(login, _) = &request.caller
        && world.role(repo, login).is_none_or(|role| role < Role::Write)
    {
        let message = "Must have push access to view collaborator permission.";
        return Err(Answer::error(403, message));
    }
    let login = request.param("username");
    let account = world
        .account(login)
        .ok_or_else(|| Answer::error(404, &format!("{login} is not a user")))?;
    let role = world.role(repo, login);
    let custom = repo.collaborators.get(&login.to_ascii_lowercase());
    let custom = custom.and_then(|one| one.custom.clone());
    let mut user = world.user_view(&account.login);
    user["permissions"] = permissions(role);
    let name = custom.unwrap_or_else(|| role.map_or("none", Role::name).to_owned());
    user["role_name"] = name.as_str().into();
    Answer::ok(json!({
        "permission": role.map_or("none", Role::permission), "role_name": name, "user": user,
    }))
}

fn is_collaborator(world: &mut World, request: &Request) -> Reply {
    if matches!(request.caller, Caller::Anonymous) {
        return Err(Answer::error(401, "Requires authentication"));
    }
    let id = world.repo_for(request, "metadata", Level::Read)?;
    let repo = world.repo(id)?;
    let login = request.param("username").to_ascii_lowercase();
    let is_one = repo.collaborators.contains_key(&login)
        || repo.owner.eq_ignore_ascii_case(&login)
        || world.account(&repo.owner).is_some_and(|one| one.members.contains_key(&login));
    if is_one { Answer::no_content() } else { Err(Answer::not_found()) }
}

fn is_member(world: &mut World, request: &Request) -> Reply {
    let organization = request.param("org");
    world.may_in(&request.caller, organization, "members", Level::Read)?;
    let login = request.param("username").to_ascii_lowercase();
    let is_one = world.account(organization).is_some_and(|one| one.members.contains_key(&login));
    if is_one { Answer::no_content() } else { Err(Answer::not_found()) }
}

fn membership(world: &mut World, request: &Request) -> Reply {
    let organization = request.param("org");
    world.may_in(&request.caller, organization, "members", Level::Read)?;
    let login = request.param("username");
    let account = world.account(organization).ok_or_else(Answer::not_found)?;
    let is_owner = account.members.get(&login.to_ascii_lowercase());
    let is_owner = is_owner.ok_or_else(Answer::not_found)?;
    Answer::ok(json!({
        "url": world.api(&format!("/orgs/{organization}/memberships/{login}")), "state": "active",
        "role": if *is_owner { "admin" } else { "member" }, "user": world.user_view(login),
        "organization_url": world.api(&format!("/orgs/{organization}")),
        "organization": world.organization_view(&account.login),
    }))
}

fn teams(world: &mut World, request: &Request) -> Reply {
    let organization = request.param("org");
    world.may_in(&request.caller, organization, "members", Level::Read)?;
    let account = world.account(organization).ok_or_else(Answer::not_found)?;
    if account.kind != AccountKind::Organization {
        return Err(Answer::not_found());
    }
    let all = account
        .teams
        .iter()
        .map(|(slug, team)| world.team_view(&account.login, slug, team))
        .collect();
    Answer::listed(request.paged(&world.root, all))
}

fn team_membership(world: &mut World, request: &Request) -> Reply {
    let organization = request.param("org");
    world.may_in(&request.caller, organization, "members", Level::Read)?;
    let account = world.account(organization).ok_or_else(Answer::not_found)?;
    let (slug, login) = (request.param("team_slug"), request.param("username"));
    let team = account.teams.get(slug).ok_or_else(Answer::not_found)?;
    let is_active = team.members.get(&login.to_ascii_lowercase()).ok_or_else(Answer::not_found)?;
    let path = format!("/orgs/{organization}/teams/{slug}/memberships/{login}");
    Answer::ok(json!({
        "url": world.api(&path), "role": "member",
        "state": if *is_active { "active" } else { "pending" },
    }))
}
