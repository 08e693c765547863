//! Merge requests, notes on them and reactions (<https://docs.gitlab.com/api/merge_requests/>,
//! <https://docs.gitlab.com/api/notes/>, <https://docs.gitlab.com/api/emoji_reactions/>).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Route, get, route};
use crate::{
    answer::{Answer, Reply, Request},
    world::{MergeRequest, Note, Project, World},
};

pub(super) const ROUTES: &[Route] = &[
    get("/projects/{id}/merge_requests", of_project),
    get("/groups/{id}/merge_requests", of_group),
    get("/projects/{id}/merge_requests/{merge_request_iid}", one),
    get("/projects/{id}/merge_requests/{merge_request_iid}/notes", notes),
    route("POST", "/projects/{id}/merge_requests/{merge_request_iid}/notes", create_note),
    route("PUT", "/projects/{id}/merge_requests/{merge_request_iid}/notes/{note_id}", edit_note),
    route(
        "POST",
        "/projects/{id}/merge_requests/{merge_request_iid}/notes/{note_id}/award_emoji",
        award,
    ),
];

/// A note has at most so many characters.
const LONGEST: usize = 1_000_000;

fn listed(world: &World, request: &Request, projects: &[&Project]) -> Reply {
    let instant = |name: &str| request.text(name).and_then(|text| text.parse::<Timestamp>().ok());
    let (after, before) = (instant("updated_after"), instant("updated_before"));
    let state = request.text("state").unwrap_or("all");
    // Without a scope only what the caller made is told, unless it is of a project.
    let is_mine =
        request.text("scope").unwrap_or("created_by_me") == "created_by_me" && projects.len() != 1;
    let all = projects
        .iter()
        .flat_map(|project| project.merge_requests.values().map(move |one| (*project, one)));
    let mut found: Vec<(&Project, &MergeRequest)> = all
        .filter(|(_, one)| state == "all" || one.state == state)
        .filter(|(_, one)| !is_mine || one.author == request.caller.name())
        .filter(|(_, one)| after.is_none_or(|after| one.updated_at >= after))
        .filter(|(_, one)| before.is_none_or(|before| one.updated_at <= before))
        .collect();
    match request.text("order_by") {
        Some("updated_at") => found.sort_by_key(|(_, one)| (one.updated_at, one.id)),
        _ => found.sort_by_key(|(_, one)| (one.created_at, one.id)),
    }
    if request.text("sort") != Some("asc") {
        found.reverse();
    }
    let all = found.into_iter().map(|(project, one)| world.merge_request_view(project, one));
    request.paged(&world.root, world.limits.offset, all.collect())
}

fn of_project(world: &mut World, request: &Request) -> Reply {
    let project = world.project_for(request.param("id"), &request.caller, 10)?;
    listed(world, request, &[project])
}

fn of_group(world: &mut World, request: &Request) -> Reply {
    let path = request.param("id");
    let is_there = world.groups.contains_key(path);
    if !is_there {
        return Err(Answer::not_found("Group"));
    }
    let is_in = |project: &&Project| {
        let below = project.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        below && (project.is_public || world.access(project, request.caller.name()).is_some())
    };
    let projects: Vec<&Project> = world.projects.values().filter(is_in).collect();
    listed(world, request, &projects)
}

/// The project and the number of the merge request that a route names.
fn named(world: &World, request: &Request) -> Result<(u64, u64), Answer> {
    let project = world.project_for(request.param("id"), &request.caller, 10)?.id;
    let iid = request.number("merge_request_iid")?;
    world.merge_request(project, iid)?;
    Ok((project, iid))
}

fn one(world: &mut World, request: &Request) -> Reply {
    let (id, iid) = named(world, request)?;
    let project = world.project_for(&id.to_string(), &request.caller, 10)?;
    Answer::ok(world.whole_merge_request_view(project, world.merge_request(id, iid)?))
}

fn notes(world: &mut World, request: &Request) -> Reply {
    let (id, iid) = named(world, request)?;
    let mut all: Vec<&Note> = world.merge_request(id, iid)?.notes.values().collect();
    match request.text("order_by") {
        Some("updated_at") => all.sort_by_key(|one| (one.updated_at, one.id)),
        _ => all.sort_by_key(|one| (one.created_at, one.id)),
    }
    if request.text("sort") != Some("asc") {
        all.reverse();
    }
    let all = all.into_iter().map(|one| world.note_view(one)).collect();
    request.paged(&world.root, world.limits.offset, all)
}

fn body(request: &Request) -> Result<String, Answer> {
    let body = request.text("body").unwrap_or_default();
    if body.trim().is_empty() {
        return Err(Answer::error(400, "400 Bad request - Note {:note=>[\"can't be blank\"]}"));
    }
    if body.chars().count() > LONGEST {
        let text =
            "400 Bad request - Note {:note=>[\"is too long (maximum is 1000000 characters)\"]}";
        return Err(Answer::error(400, text));
    }
    Ok(body.to_owned())
}

fn create_note(world: &mut World, request: &Request) -> Reply {
    let user = request.caller.user()?.to_owned();
    let (id, iid) = named(world, request)?;
    let (limit, now) = (world.limits.notes_a_minute, world.now());
    if world.spent.count(&user, "notes_create", limit, now).observed > limit {
        let text = "This endpoint has been requested too many times. Try again later.";
        return Err(Answer::json(429, json!({ "message": { "error": text } })));
    }
    let note = world.note(id, iid, &body(request)?, None, &user)?;
    let found = world.merge_request(id, iid)?.notes.get(&note);
    Answer::created(found.map(|note| world.note_view(note)).into())
}

fn edit_note(world: &mut World, request: &Request) -> Reply {
    let user = request.caller.user()?.to_owned();
    let (id, iid) = named(world, request)?;
    let missing = || Answer::not_found("Note");
    let number = request.number("note_id")?;
    let (text, now) = (body(request)?, world.now());
    let one = world.merge_request_mut(id, iid).ok_or_else(missing)?;
    let note = one.notes.get_mut(&number).ok_or_else(missing)?;
    if note.author != user {
        return Err(Answer::error(403, "403 Forbidden"));
    }
    (note.body, note.updated_at) = (text, now);
    world.touch(id, iid);
    world.tell_note(id, Some(iid), number, "update", &user);
    let found = world.merge_request(id, iid)?.notes.get(&number);
    Answer::ok(found.map(|note| world.note_view(note)).into())
}

fn award(world: &mut World, request: &Request) -> Reply {
    const KNOWN: [&str; 4] = ["rocket", "confused", "thumbsup", "eyes"];
    let user = request.caller.user()?.to_owned();
    let (id, iid) = named(world, request)?;
    let missing = || Answer::not_found("Note");
    let number = request.number("note_id")?;
    let name = request.text("name").unwrap_or_default().to_owned();
    if !KNOWN.contains(&name.as_str()) {
        return Err(Answer::error(404, "404 Award Emoji Name is not a valid emoji name Not Found"));
    }
    let new = world.new_id();
    let one = world.merge_request_mut(id, iid).ok_or_else(missing)?;
    let note = one.notes.get_mut(&number).ok_or_else(missing)?;
    if note.emoji.contains(&(user.clone(), name.clone())) {
        let text = "404 Award Emoji Name has already been taken Not Found";
        return Err(Answer::error(404, text));
    }
    note.emoji.push((user.clone(), name.clone()));
    let view: Value = json!({
        "id": new, "name": name, "user": world.user_view(&user), "awardable_id": number,
        "awardable_type": "Note",
    });
    Answer::created(view)
}
