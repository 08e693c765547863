//! Apps, their installations and tokens.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use jiff::SignedDuration;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Route, get, hooks, route};
use crate::{
    access::{Caller, Level, inaccessible},
    answer::{Answer, Reply, Request},
    deliveries::{self, Owner, config_view},
    world::{Holder, Installation, Token, World},
};

pub(super) const ROUTES: &[Route] = &[
    get("/app", app),
    get("/app/installations", installations),
    get("/app/installations/{installation_id}", installation),
    route("POST", "/app/installations/{installation_id}/access_tokens", create_token),
    get("/repos/{owner}/{repo}/installation", of_repo),
    get("/orgs/{org}/installation", of_organization),
    get("/users/{username}/installation", of_user),
    get("/installation/repositories", repositories),
    route("DELETE", "/installation/token", revoke),
    get("/app/hook/config", hook_config),
    route("PATCH", "/app/hook/config", update_hook_config),
    get("/app/hook/deliveries", log),
    get("/app/hook/deliveries/{delivery_id}", delivery),
    route("POST", "/app/hook/deliveries/{delivery_id}/attempts", attempt),
];

/// A token of an installation lasts so long.
const LASTS: SignedDuration = SignedDuration::from_hours(1);
/// A token can be narrowed to so many repositories.
const MOST_REPOSITORIES: usize = 500;

fn as_app(request: &Request) -> Result<u64, Answer> {
    match request.caller {
        Caller::App(id) => Ok(id),
        Caller::Anonymous => Err(Answer::error(401, "A JSON web token could not be decoded")),
        _ => Err(Answer::error(401, "A JSON web token could not be decoded")),
    }
}

fn app(world: &mut World, request: &Request) -> Reply {
    let app = world.apps.get(&as_app(request)?).ok_or_else(Answer::not_found)?;
    let mut view = world.app_view(app);
    let count = world.installations.values().filter(|one| one.app == app.id).count();
    view["installations_count"] = count.into();
    Answer::ok(view)
}

fn installations(world: &mut World, request: &Request) -> Reply {
    let app = as_app(request)?;
    let of = world.installations.values().filter(|one| one.app == app);
    let all = of.map(|one| world.installation_view(one)).collect();
    Answer::listed(request.paged(&world.root, all))
}

fn own<'a>(world: &'a World, request: &Request) -> Result<&'a Installation, Answer> {
    let app = as_app(request)?;
    let found = world.installations.get(&request.number("installation_id")?);
    found.filter(|one| one.app == app).ok_or_else(Answer::not_found)
}

fn installation(world: &mut World, request: &Request) -> Reply {
    Answer::ok(world.installation_view(own(world, request)?))
}

fn of_account(world: &World, request: &Request, login: &str) -> Reply {
    let app = as_app(request)?;
    let found = world
        .installations
        .values()
        .find(|one| one.app == app && one.account.eq_ignore_ascii_case(login));
    Answer::ok(world.installation_view(found.ok_or_else(Answer::not_found)?))
}

fn of_organization(world: &mut World, request: &Request) -> Reply {
    let login = request.param("org");
    let is_one =
        world.account(login).is_some_and(|one| one.kind == crate::world::AccountKind::Organization);
    if is_one { of_account(world, request, login) } else { Err(Answer::not_found()) }
}

fn of_user(world: &mut World, request: &Request) -> Reply {
    of_account(world, request, request.param("username"))
}

fn of_repo(world: &mut World, request: &Request) -> Reply {
    let app = as_app(request)?;
    let name = format!("{}/{}", request.param("owner"), request.param("repo"));
    let id = world.names.get(&name.to_ascii_lowercase()).ok_or_else(Answer::not_found)?;
    let repo = world.repo(*id)?;
    if !repo.full_name().eq_ignore_ascii_case(&name) {
        let location = world.api(&format!("/repositories/{id}/installation"));
        return Err(Answer::error(301, "Moved Permanently").header("location", location));
    }
    let found = world.installations.values().find(|one| one.app == app && world.covers(one, repo));
    Answer::ok(world.installation_view(found.ok_or_else(Answer::not_found)?))
}

fn create_token(world: &mut World, request: &Request) -> Reply {
    let installation = own(world, request)?.clone();
    if installation.suspended_at.is_some() {
        return Err(Answer::error(403, "This installation has been suspended"));
    }
    let unknown = || {
        Answer::unprocessable(
            "There is at least one repository that does not exist or is not accessible to the \
             parent installation.",
        )
    };
    let listed = |name: &str| request.body[name].as_array().cloned();
    let mut repos: Option<BTreeSet<u64>> = None;
    let ids = listed("repository_ids").unwrap_or_default();
    let names = listed("repositories").unwrap_or_default();
    if ids.len() + names.len() > MOST_REPOSITORIES {
        return Err(Answer::unprocessable("Too many repositories."));
    }
    let named = names.iter().map(|name| {
        let name = format!("{}/{}", installation.account, name.as_str().unwrap_or_default());
        world.names.get(&name.to_ascii_lowercase()).copied()
    });
    for id in ids.iter().map(Value::as_u64).chain(named) {
        let repo = id.and_then(|id| world.repos.get(&id)).ok_or_else(unknown)?;
        if !world.covers(&installation, repo) {
            return Err(unknown());
        }
        repos.get_or_insert_default().insert(repo.id);
    }
    let mut permissions: Option<BTreeMap<String, Level>> = None;
    for (name, level) in request.body["permissions"].as_object().into_iter().flatten() {
        let level = level.as_str().and_then(Level::parse);
        let granted = installation.permissions.get(name);
        let level = level.filter(|level| granted.is_some_and(|granted| granted >= level));
        let level = level.ok_or_else(|| {
            Answer::unprocessable("The permissions requested are not granted to this installation.")
        })?;
        permissions.get_or_insert_default().insert(name.clone(), level);
    }
    let id = world.new_id();
    let expires_at = world.now().checked_add(LASTS).unwrap_or_else(|_| world.now());
    let digest = HEXLOWER.encode(&Sha256::digest(format!("{}/{id}", world.root)));
    let token = format!("ghs_{}", digest.get(..36).unwrap_or(&digest));
    let told: serde_json::Map<String, Value> = permissions
        .as_ref()
        .unwrap_or(&installation.permissions)
        .iter()
        .map(|(name, level)| (name.clone(), level.as_str().into()))
        .collect();
    let is_selected = repos.is_some() || installation.repos.is_some();
    let mut view = json!({
        "token": token, "expires_at": expires_at, "permissions": told,
        "repository_selection": if is_selected { "selected" } else { "all" },
    });
    if let Some(repos) = &repos {
        let shown = repos.iter().filter_map(|id| world.repos.get(id));
        view["repositories"] = shown.map(|repo| world.repo_view(repo)).collect();
    }
    world.tokens.insert(
        token,
        Token {
            holder: Holder::Installation(installation.id),
            expires_at: Some(expires_at),
            repos,
            permissions,
        },
    );
    Answer::created(view)
}

fn repositories(world: &mut World, request: &Request) -> Reply {
    let Caller::Installation(id, narrowed) = &request.caller else { return Err(inaccessible()) };
    let installation = world.installations.get(id).ok_or_else(Answer::not_found)?;
    let all: Vec<Value> = world
        .repos
        .values()
        .filter(|repo| world.covers(installation, repo))
        .filter(|repo| narrowed.repos.as_ref().is_none_or(|repos| repos.contains(&repo.id)))
        .map(|repo| world.repo_view(repo))
        .collect();
    let total = all.len();
    let mut answer = Answer::counted("repositories", total, request.paged(&world.root, all))?;
    if let crate::answer::Body::Json(body) = &mut answer.body {
        let is_all = installation.repos.is_none() && narrowed.repos.is_none();
        body["repository_selection"] = if is_all { "all" } else { "selected" }.into();
    }
    Ok(answer)
}

fn revoke(world: &mut World, request: &Request) -> Reply {
    let Caller::Installation(..) = &request.caller else { return Err(inaccessible()) };
    if let Some(token) = &request.token {
        world.tokens.remove(token);
    }
    Answer::no_content()
}

fn hook_config(world: &mut World, request: &Request) -> Reply {
    let app = world.apps.get(&as_app(request)?).ok_or_else(Answer::not_found)?;
    Answer::ok(config_view(app.hook.as_ref().ok_or_else(Answer::not_found)?))
}

fn update_hook_config(world: &mut World, request: &Request) -> Reply {
    let app = world.apps.get_mut(&as_app(request)?).ok_or_else(Answer::not_found)?;
    let hook = app.hook.as_mut().ok_or_else(Answer::not_found)?;
    hooks::apply(hook, &request.body)?;
    Answer::ok(config_view(hook))
}

fn log(world: &mut World, request: &Request) -> Reply {
    deliveries::list(world, request, &Owner::App(as_app(request)?), None)
}

fn delivery(world: &mut World, request: &Request) -> Reply {
    deliveries::get(world, request, &Owner::App(as_app(request)?), None)
}

fn attempt(world: &mut World, request: &Request) -> Reply {
    deliveries::attempt(world, request, &Owner::App(as_app(request)?))
}
