//! People and what they may (<https://docs.gitlab.com/api/users/>,
//! <https://docs.gitlab.com/api/members/>).

use serde_json::{Value, json};

use super::{Route, get};
use crate::{
    answer::{Answer, Reply, Request},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    get("/user", me),
    get("/users", users),
    get("/projects/{id}/members/all/{user_id}", of_project),
    get("/groups/{id}/members/all/{user_id}", of_group),
];

fn me(world: &mut World, request: &Request) -> Reply {
    let name = request.caller.user()?;
    Answer::ok(world.user_view(name))
}

fn users(world: &mut World, request: &Request) -> Reply {
    request.caller.user()?;
    let Some(wanted) = request.text("username") else {
        return Err(Answer::error(400, "the stand-in finds people by their names alone"));
    };
    let found = world.users.keys().filter(|name| name.eq_ignore_ascii_case(wanted));
    let all = found.map(|name| world.user_view(name)).collect();
    request.paged(&world.root, world.limits.offset, all)
}

/// The name of the person that a route names by number.
fn person(world: &World, request: &Request) -> Result<String, Answer> {
    let wanted = request.number("user_id")?;
    let found = world.users.iter().find(|(_, id)| **id == wanted).map(|(name, _)| name.clone());
    found.ok_or_else(|| Answer::error(404, "404 Not found"))
}

fn view(world: &World, name: &str, level: Option<u32>) -> Reply {
    let level = level.ok_or_else(|| Answer::error(404, "404 Not found"))?;
    let mut view: Value = world.user_view(name);
    crate::views::merge(
        &mut view,
        json!({ "access_level": level, "expires_at": null, "membership_state": "active" }),
    );
    Answer::ok(view)
}

fn of_project(world: &mut World, request: &Request) -> Reply {
    request.caller.user()?;
    let project = world.project_for(request.param("id"), &request.caller, 10)?;
    let name = person(world, request)?;
    view(world, &name, world.access(project, &name))
}

fn of_group(world: &mut World, request: &Request) -> Reply {
    request.caller.user()?;
    let path = request.param("id");
    if !world.groups.contains_key(path) {
        return Err(Answer::not_found("Group"));
    }
    let name = person(world, request)?;
    view(world, &name, world.access_in_group(path, &name))
}
