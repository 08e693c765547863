//! Hooks of repositories and organisations, and the logs of what was sent.

use serde_json::{Value, json};

use super::{Route, get, route};
use crate::{
    access::Level,
    answer::{Answer, Reply, Request},
    deliveries::{self, Hook, Owner, config_view},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    get("/repos/{owner}/{repo}/hooks", |world, request| {
        list(world, request, &of_repo(world, request, Level::Read)?)
    }),
    route("POST", "/repos/{owner}/{repo}/hooks", |world, request| {
        create(world, request, of_repo(world, request, Level::Write)?)
    }),
    get("/repos/{owner}/{repo}/hooks/{hook_id}", |world, request| {
        one(world, request, &of_repo(world, request, Level::Read)?)
    }),
    route("PATCH", "/repos/{owner}/{repo}/hooks/{hook_id}", |world, request| {
        update(world, request, &of_repo(world, request, Level::Write)?)
    }),
    route("DELETE", "/repos/{owner}/{repo}/hooks/{hook_id}", |world, request| {
        delete(world, request, &of_repo(world, request, Level::Write)?)
    }),
    route("POST", "/repos/{owner}/{repo}/hooks/{hook_id}/pings", |world, request| {
        ping(world, request, &of_repo(world, request, Level::Read)?)
    }),
    get("/repos/{owner}/{repo}/hooks/{hook_id}/deliveries", |world, request| {
        log(world, request, &of_repo(world, request, Level::Read)?)
    }),
    get("/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id}", |world, request| {
        delivery(world, request, &of_repo(world, request, Level::Read)?)
    }),
    route(
        "POST",
        "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id}/attempts",
        |world, request| attempt(world, request, &of_repo(world, request, Level::Write)?),
    ),
    get("/orgs/{org}/hooks", |world, request| {
        list(world, request, &of_organization(world, request, Level::Read)?)
    }),
    route("POST", "/orgs/{org}/hooks", |world, request| {
        create(world, request, of_organization(world, request, Level::Write)?)
    }),
    get("/orgs/{org}/hooks/{hook_id}", |world, request| {
        one(world, request, &of_organization(world, request, Level::Read)?)
    }),
    route("PATCH", "/orgs/{org}/hooks/{hook_id}", |world, request| {
        update(world, request, &of_organization(world, request, Level::Write)?)
    }),
    route("DELETE", "/orgs/{org}/hooks/{hook_id}", |world, request| {
        delete(world, request, &of_organization(world, request, Level::Write)?)
    }),
    route("POST", "/orgs/{org}/hooks/{hook_id}/pings", |world, request| {
        ping(world, request, &of_organization(world, request, Level::Read)?)
    }),
    get("/orgs/{org}/hooks/{hook_id}/deliveries", |world, request| {
        log(world, request, &of_organization(world, request, Level::Read)?)
    }),
    get("/orgs/{org}/hooks/{hook_id}/deliveries/{delivery_id}", |world, request| {
        delivery(world, request, &of_organization(world, request, Level::Read)?)
    }),
    route(
        "POST",
        "/orgs/{org}/hooks/{hook_id}/deliveries/{delivery_id}/attempts",
        |world, request| attempt(world, request, &of_organization(world, request, Level::Write)?),
    ),
];

/// A repository or organisation can have so many hooks of one event.
const MOST: usize = 20;

fn of_repo(world: &World, request: &Request, level: Level) -> Result<Owner, Answer> {
    world.repo_for(request, "repository_hooks", level).map(Owner::Repo)
}

fn of_organization(world: &World, request: &Request, level: Level) -> Result<Owner, Answer> {
    let organization = request.param("org");
    world.may_in(&request.caller, organization, "organization_hooks", level)?;
    let login = world.account(organization).map(|one| one.login.clone());
    login.map(Owner::Organization).ok_or_else(Answer::not_found)
}

fn hooks<'a>(
    world: &'a World,
    owner: &Owner,
) -> Result<&'a std::collections::BTreeMap<u64, Hook>, Answer> {
    match owner {
        Owner::Repo(id) => Ok(&world.repo(*id)?.hooks),
        Owner::Organization(login) => {
            Ok(&world.account(login).ok_or_else(Answer::not_found)?.hooks)
        }
        Owner::App(_) => Err(Answer::not_found()),
    }
}

fn hooks_mut<'a>(
    world: &'a mut World,
    owner: &Owner,
) -> Result<&'a mut std::collections::BTreeMap<u64, Hook>, Answer> {
    match owner {
        Owner::Repo(id) => Ok(&mut world.repo_mut(*id)?.hooks),
        Owner::Organization(login) => {
            let account = world.accounts.get_mut(&login.to_ascii_lowercase());
            Ok(&mut account.ok_or_else(Answer::not_found)?.hooks)
        }
        Owner::App(_) => Err(Answer::not_found()),
    }
}

fn view(world: &World, owner: &Owner, hook: &Hook) -> Value {
    let (kind, base) = match owner {
        Owner::Repo(id) => {
            let repo = world.repos.get(id);
            ("Repository", repo.map(|repo| world.repo_api(repo, "")).unwrap_or_default())
        }
        Owner::Organization(login) => ("Organization", world.api(&format!("/orgs/{login}"))),
        Owner::App(_) => ("App", world.api("/app")),
    };
    let url = format!("{base}/hooks/{}", hook.id);
    let mut view = json!({
        "type": kind, "id": hook.id, "name": "web", "active": hook.active, "events": hook.events,
        "config": config_view(hook), "created_at": hook.created_at, "updated_at": hook.updated_at,
        "url": url, "ping_url": format!("{url}/pings"), "deliveries_url": format!("{url}/deliveries"),
    });
    if let Owner::Repo(_) = owner {
        view["test_url"] = format!("{url}/test").into();
        view["last_response"] = match &hook.last {
            Some((code, status)) => json!({
                "code": code, "status": if *code < 300 { "active" } else { "misconfigured" },
                "message": status,
            }),
            None => json!({ "code": null, "status": "unused", "message": null }),
        };
    }
    view
}

fn list(world: &World, request: &Request, owner: &Owner) -> Reply {
    let all = hooks(world, owner)?.values().map(|hook| view(world, owner, hook)).collect();
    Answer::listed(request.paged(&world.root, all))
}

fn found<'a>(world: &'a World, request: &Request, owner: &Owner) -> Result<&'a Hook, Answer> {
    hooks(world, owner)?.get(&request.number("hook_id")?).ok_or_else(Answer::not_found)
}

fn one(world: &World, request: &Request, owner: &Owner) -> Reply {
    Answer::ok(view(world, owner, found(world, request, owner)?))
}

/// Takes in what a request says about a hook.
pub(super) fn apply(hook: &mut Hook, body: &Value) -> Result<(), Answer> {
    let refused = |field: &str, message: &str| Answer::invalid("Hook", field, "custom", message);
    let config = if body.get("config").is_some() { &body["config"] } else { body };
    if let Some(url) = config["url"].as_str() {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(refused("url", "url is not a valid URL"));
        }
        hook.url = url.to_owned();
    }
    if let Some(kind) = config["content_type"].as_str() {
        if !matches!(kind, "json" | "form") {
            return Err(refused("content_type", "content_type is not in the list"));
        }
        hook.content_type = kind.to_owned();
    }
    if body.get("config").is_some() && body["config"].get("secret").is_none() {
        // A whole new configuration without a secret takes the old one away.
        hook.secret = None;
    }
    if let Some(secret) = config["secret"].as_str() {
        hook.secret = Some(secret.to_owned()).filter(|secret| !secret.is_empty());
    }
    let events = |name: &str| -> Option<Vec<String>> {
        let listed = body[name].as_array()?;
        Some(listed.iter().filter_map(|one| one.as_str().map(ToOwned::to_owned)).collect())
    };
    if let Some(events) = events("events") {
        hook.events = events;
    }
    for added in events("add_events").unwrap_or_default() {
        if !hook.events.contains(&added) {
            hook.events.push(added);
        }
    }
    if let Some(removed) = events("remove_events") {
        hook.events.retain(|event| !removed.contains(event));
    }
    if let Some(active) = body["active"].as_bool() {
        hook.active = active;
    }
    Ok(())
}

fn create(world: &mut World, request: &Request, owner: Owner) -> Reply {
    let refused = |message: &str| Answer::invalid("Hook", "base", "custom", message);
    let (id, now) = (world.new_id(), world.now());
    let mut hook = Hook {
        id,
        url: String::new(),
        secret: None,
        content_type: "form".to_owned(),
        events: vec!["push".to_owned()],
        active: true,
        created_at: now,
        updated_at: now,
        last: None,
    };
    apply(&mut hook, &request.body)?;
    if hook.url.is_empty() {
        return Err(refused("config must contain URL"));
    }
    let known = hooks(world, &owner)?;
    let is_there = |one: &Hook| {
        one.url == hook.url
            && one.content_type == hook.content_type
            && one.events.iter().any(|event| hook.events.contains(event))
    };
    if known.values().any(is_there) {
        return Err(refused(match owner {
            Owner::Organization(_) => "Hook already exists on this organization",
            _ => "Hook already exists on this repository",
        }));
    }
    for event in &hook.events {
        if known.values().filter(|one| one.events.contains(event)).count() >= MOST {
            return Err(refused(&format!(
                "The \"{event}\" event cannot have more than {MOST} hooks"
            )));
        }
    }
    let shown = view(world, &owner, &hook);
    hooks_mut(world, &owner)?.insert(id, hook.clone());
    let actor = world.actor(&request.caller);
    if hook.active {
        world.ping(owner, &hook, &actor);
    }
    Answer::created(shown)
}

fn update(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    let id = found(world, request, owner)?.id;
    let now = world.now();
    let hook = hooks_mut(world, owner)?.get_mut(&id).ok_or_else(Answer::not_found)?;
    apply(hook, &request.body)?;
    hook.updated_at = now;
    one(world, request, owner)
}

fn delete(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    let id = found(world, request, owner)?.id;
    hooks_mut(world, owner)?.remove(&id);
    Answer::no_content()
}

fn ping(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    let hook = found(world, request, owner)?.clone();
    let actor = world.actor(&request.caller);
    world.ping(owner.clone(), &hook, &actor);
    Answer::no_content()
}

fn log(world: &World, request: &Request, owner: &Owner) -> Reply {
    let hook = found(world, request, owner)?.id;
    deliveries::list(world, request, owner, Some(hook))
}

fn delivery(world: &World, request: &Request, owner: &Owner) -> Reply {
    let hook = found(world, request, owner)?.id;
    deliveries::get(world, request, owner, Some(hook))
}

fn attempt(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    found(world, request, owner)?;
    deliveries::attempt(world, request, owner)
}
