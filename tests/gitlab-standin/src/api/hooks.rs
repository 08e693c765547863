//! Hooks of projects and groups, and the logs of what was sent
//! (<https://docs.gitlab.com/api/project_webhooks/>, <https://docs.gitlab.com/api/group_webhooks/>).

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{Route, get, route};
use crate::{
    answer::{Answer, Reply, Request},
    deliveries::{Hook, Owner, logged_view},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    get("/projects/{id}/hooks", |world, request| {
        list(world, request, &of_project(world, request)?)
    }),
    route("POST", "/projects/{id}/hooks", |world, request| {
        create(world, request, &of_project(world, request)?)
    }),
    get("/projects/{id}/hooks/{hook_id}", |world, request| {
        one(world, request, &of_project(world, request)?)
    }),
    route("PUT", "/projects/{id}/hooks/{hook_id}", |world, request| {
        update(world, request, &of_project(world, request)?)
    }),
    route("DELETE", "/projects/{id}/hooks/{hook_id}", |world, request| {
        delete(world, request, &of_project(world, request)?)
    }),
    get("/projects/{id}/hooks/{hook_id}/events", |world, request| {
        events(world, request, &of_project(world, request)?)
    }),
    route(
        "POST",
        "/projects/{id}/hooks/{hook_id}/events/{hook_event_id}/resend",
        |world, request| resend(world, request, &of_project(world, request)?),
    ),
    get("/groups/{id}/hooks", |world, request| list(world, request, &of_group(world, request)?)),
    route("POST", "/groups/{id}/hooks", |world, request| {
        create(world, request, &of_group(world, request)?)
    }),
    get("/groups/{id}/hooks/{hook_id}", |world, request| {
        one(world, request, &of_group(world, request)?)
    }),
    route("PUT", "/groups/{id}/hooks/{hook_id}", |world, request| {
        update(world, request, &of_group(world, request)?)
    }),
    route("DELETE", "/groups/{id}/hooks/{hook_id}", |world, request| {
        delete(world, request, &of_group(world, request)?)
    }),
    get("/groups/{id}/hooks/{hook_id}/events", |world, request| {
        events(world, request, &of_group(world, request)?)
    }),
    route(
        "POST",
        "/groups/{id}/hooks/{hook_id}/events/{hook_event_id}/resend",
        |world, request| resend(world, request, &of_group(world, request)?),
    ),
];

/// The events that a hook can want; pushes are wanted unless something else is said.
const EVENTS: [&str; 9] = [
    "push_events",
    "tag_push_events",
    "merge_requests_events",
    "note_events",
    "releases_events",
    "pipeline_events",
    "job_events",
    "repository_update_events",
    "issues_events",
];

fn of_project(world: &World, request: &Request) -> Result<Owner, Answer> {
    let project = world.project_for(request.param("id"), &request.caller, 40)?;
    Ok(Owner::Project(project.id))
}

fn of_group(world: &World, request: &Request) -> Result<Owner, Answer> {
    let (path, user) = (request.param("id"), request.caller.user()?);
    if !world.groups.contains_key(path) {
        return Err(Answer::not_found("Group"));
    }
    match world.access_in_group(path, user) {
        Some(50..) => Ok(Owner::Group(path.to_owned())),
        _ => Err(Answer::error(403, "403 Forbidden")),
    }
}

fn all<'a>(world: &'a World, owner: &Owner) -> Result<&'a BTreeMap<u64, Hook>, Answer> {
    world.hooks(owner).ok_or_else(|| Answer::not_found("Hook"))
}

fn found<'a>(world: &'a World, request: &Request, owner: &Owner) -> Result<&'a Hook, Answer> {
    let hook = all(world, owner)?.get(&request.number("hook_id")?);
    hook.ok_or_else(|| Answer::error(404, "404 Not found"))
}

fn list(world: &World, request: &Request, owner: &Owner) -> Reply {
    let hooks = all(world, owner)?.values().map(|hook| world.hook_view(hook)).collect();
    request.paged(&world.root, world.limits.offset, hooks)
}

fn one(world: &World, request: &Request, owner: &Owner) -> Reply {
    Answer::ok(world.hook_view(found(world, request, owner)?))
}

/// Takes in what a request says about a hook.
fn apply(hook: &mut Hook, request: &Request) -> Result<(), Answer> {
    if let Some(url) = request.text("url") {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Answer::error(422, "Invalid url given"));
        }
        if url != hook.url {
            // A secret is not sent to where it was not meant for.
            (hook.token, hook.signing_token) = (None, None);
        }
        hook.url = url.to_owned();
    }
    if let Some(token) = request.text("token") {
        hook.token = Some(token.to_owned()).filter(|token| !token.is_empty());
    }
    if let Some(token) = request.text("signing_token") {
        let key = token.strip_prefix("whsec_").and_then(|key| BASE64.decode(key.as_bytes()).ok());
        if key.is_none_or(|key| key.len() != 32) {
            return Err(Answer::invalid("signing_token", "must be whsec_ and 32 bytes in Base64"));
        }
        hook.signing_token = Some(token.to_owned());
    }
    for event in EVENTS {
        if let Value::Bool(wanted) = request.body[event] {
            hook.events.insert(event.to_owned(), wanted);
        }
    }
    if let Value::Bool(verifies) = request.body["enable_ssl_verification"] {
        hook.verifies = verifies;
    }
    if let Some(filter) = request.text("push_events_branch_filter") {
        hook.branch_filter = filter.to_owned();
    }
    Ok(())
}

fn create(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    let (id, now, most) = (world.new_id(), world.now(), world.limits.hooks);
    let mut hook = Hook {
        id,
        url: String::new(),
        token: None,
        signing_token: None,
        events: EVENTS.iter().map(|name| ((*name).to_owned(), *name == "push_events")).collect(),
        verifies: true,
        branch_filter: String::new(),
        created_at: now,
        failures: 0,
        disabled_until: None,
    };
    apply(&mut hook, request)?;
    if hook.url.is_empty() {
        return Err(Answer::json(400, json!({ "error": "url is missing" })));
    }
    let hooks = world.hooks_mut(owner).ok_or_else(|| Answer::not_found("Hook"))?;
    if hooks.len() >= most {
        let text = format!("Maximum number of project hooks ({most}) exceeded");
        return Err(Answer::invalid("base", &text));
    }
    hooks.insert(id, hook.clone());
    Answer::created(world.hook_view(&hook))
}

fn update(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    let id = found(world, request, owner)?.id;
    let missing = || Answer::not_found("Hook");
    let hook = world.hooks_mut(owner).and_then(|hooks| hooks.get_mut(&id)).ok_or_else(missing)?;
    apply(hook, request)?;
    one(world, request, owner)
}

fn delete(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    let id = found(world, request, owner)?.id;
    if let Some(hooks) = world.hooks_mut(owner) {
        hooks.remove(&id);
    }
    Answer::no_content()
}

fn events(world: &World, request: &Request, owner: &Owner) -> Reply {
    let hook = found(world, request, owner)?.id;
    let all = world.logged(owner, hook).into_iter().map(logged_view).collect();
    request.paged(&world.root, world.limits.offset, all)
}

fn resend(world: &mut World, request: &Request, owner: &Owner) -> Reply {
    let hook = found(world, request, owner)?.id;
    let user = request.caller.user()?.to_owned();
    let (limit, now) = (u32::try_from(world.limits.resends_a_minute).unwrap_or(5), world.now());
    if world.spent.count(&user, "web_hook_event_resend", limit, now).observed > limit {
        let text = "This endpoint has been requested too many times. Try again later.";
        return Err(Answer::json(429, json!({ "message": { "error": text } })));
    }
    world.resend(owner, hook, request.number("hook_event_id")?)?;
    Answer::created(json!({ "response_status": 200 }))
}
