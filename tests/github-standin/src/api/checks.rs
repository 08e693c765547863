//! Check runs and suites (<https://docs.github.com/en/rest/checks>).

use git2::Oid;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Route, get, route};
use crate::{
    access::{Caller, Level, inaccessible},
    answer::{Answer, Reply, Request},
    git::full_id,
    world::{Check, Repo, World},
};

pub(super) const ROUTES: &[Route] = &[
    route("POST", "/repos/{owner}/{repo}/check-runs", create),
    get("/repos/{owner}/{repo}/check-runs/{check_run_id}", one),
    route("PATCH", "/repos/{owner}/{repo}/check-runs/{check_run_id}", update),
    get("/repos/{owner}/{repo}/check-runs/{check_run_id}/annotations", annotations),
    route("POST", "/repos/{owner}/{repo}/check-runs/{check_run_id}/rerequest", rerequest),
    get("/repos/{owner}/{repo}/commits/{+ref}/check-runs", of_commit),
    get("/repos/{owner}/{repo}/commits/{+ref}/check-suites", suites_of_commit),
    get("/repos/{owner}/{repo}/check-suites/{check_suite_id}", suite),
    get("/repos/{owner}/{repo}/check-suites/{check_suite_id}/check-runs", of_suite),
    route("POST", "/repos/{owner}/{repo}/check-suites/{check_suite_id}/rerequest", rerequest_suite),
];

/// A request can have so many annotations.
const ANNOTATIONS: usize = 50;
/// Of a summary and of a text, in bytes.
const TEXT: usize = 65_535;
/// A message of an annotation, in bytes.
const MESSAGE: usize = 64 << 10;
const ACTIONS: usize = 3;
/// Of one name in one suite, so many are kept.
const OF_ONE_NAME: usize = 1_000;
const STATUSES: &[&str] =
    &["queued", "in_progress", "completed", "waiting", "requested", "pending"];
const CONCLUSIONS: &[&str] = &[
    "action_required",
    "cancelled",
    "failure",
    "neutral",
    "success",
    "skipped",
    "stale",
    "timed_out",
];

fn invalid(message: &str) -> Answer {
    Answer::unprocessable(&format!("Invalid request.\n\n{message}"))
}

/// What GitHub refuses although its description allows it.
fn checked(body: &Value) -> Result<(), Answer> {
    let status = body["status"].as_str();
    let conclusion = body["conclusion"].as_str();
    if status.is_some_and(|status| !STATUSES.contains(&status)) {
        return Err(invalid("No subschema in \"anyOf\" matched: status."));
    }
    if status.is_some_and(|status| matches!(status, "waiting" | "requested" | "pending")) {
        return Err(invalid("Only GitHub Actions can set this status."));
    }
    if conclusion.is_some_and(|one| !CONCLUSIONS.contains(&one) || one == "stale") {
        return Err(invalid("No subschema in \"anyOf\" matched: conclusion."));
    }
    if status == Some("completed") && conclusion.is_none() {
        return Err(invalid("No subschema in \"anyOf\" matched. \"conclusion\" wasn't supplied."));
    }
    if status.is_some_and(|status| status != "completed") && conclusion.is_some() {
        return Err(invalid("\"conclusion\" is only for a status of \"completed\"."));
    }
    let output = &body["output"];
    if output.is_object() {
        for field in ["summary", "text"] {
            if output[field].as_str().is_some_and(|text| text.len() > TEXT) {
                return Err(invalid(&format!(
                    "Only {TEXT} characters are allowed in `output.{field}`."
                )));
            }
        }
        let annotations = output["annotations"].as_array().map_or(&[][..], Vec::as_slice);
        if annotations.len() > ANNOTATIONS {
            return Err(invalid(&format!(
                "No more than {ANNOTATIONS} annotations are allowed in a request."
            )));
        }
        for one in annotations {
            if one["message"].as_str().is_some_and(|message| message.len() > MESSAGE) {
                return Err(invalid("The message of an annotation is at most 64 KB."));
            }
            let line = |name: &str| one[name].as_u64();
            if line("start_line").is_none_or(|line| line == 0)
                || line("end_line") < line("start_line")
            {
                return Err(invalid("The lines of an annotation are in the wrong order."));
            }
            let has_column = !one["start_column"].is_null() || !one["end_column"].is_null();
            if has_column && line("start_line") != line("end_line") {
                return Err(invalid("Columns are only for annotations of one line."));
            }
        }
    }
    let actions = body["actions"].as_array().map_or(&[][..], Vec::as_slice);
    if actions.len() > ACTIONS {
        return Err(invalid(&format!("No more than {ACTIONS} actions are allowed.")));
    }
    for action in actions {
        for (field, most) in [("label", 20), ("description", 40), ("identifier", 20)] {
            if action[field].as_str().is_none_or(|text| text.chars().count() > most) {
                return Err(invalid(&format!("`actions.{field}` has at most {most} characters.")));
            }
        }
    }
    Ok(())
}

fn create(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Write)?;
    let app = world.app_behind(&request.caller).ok_or_else(inaccessible)?;
    checked(&request.body)?;
    let sha = request.text("head_sha").unwrap_or_default();
    let head = full_id(sha)
        .filter(|head| world.repo(id).is_ok_and(|repo| repo.git.commit(*head).is_some()));
    let head = head.ok_or_else(|| invalid(&format!("No commit found for SHA: {sha}")))?;
    let suite = world.suite_for(id, app, head, None);
    let (check_id, now) = (world.new_id(), world.now());
    let mut check = Check {
        id: check_id,
        suite,
        app,
        name: request.text("name").unwrap_or_default().to_owned(),
        head,
        details_url: Some(format!("{}/apps/{app}", world.root)),
        external_id: String::new(),
        status: "queued".to_owned(),
        conclusion: None,
        started_at: now,
        completed_at: None,
        title: None,
        summary: None,
        text: None,
        annotations: Vec::new(),
        actions: Vec::new(),
    };
    apply(&mut check, &request.body, now);
    let repo = world.repo_mut(id)?;
    repo.checks.insert(check_id, check.clone());
    let same: Vec<u64> = repo
        .checks
        .values()
        .filter(|one| one.suite == suite && one.name == check.name)
        .map(|one| one.id)
        .collect();
    for old in same.iter().take(same.len().saturating_sub(OF_ONE_NAME)) {
        repo.checks.remove(old);
    }
    let actor = world.actor(&request.caller);
    world.tell_check(id, &check, "created", json!({}), &actor);
    told_completed(world, id, &check, false, &actor);
    Answer::created(world.check_view(world.repo(id)?, &check))
}

/// Tells that a check was completed, and its suite with it when it was the last.
fn told_completed(world: &mut World, id: u64, check: &Check, was_completed: bool, actor: &str) {
    if was_completed || check.status != "completed" {
        return;
    }
    world.tell_check(id, check, "completed", json!({}), actor);
    let is_over = world.repos.get(&id).is_some_and(|repo| {
        repo.suites
            .get(&check.suite)
            .is_some_and(|suite| world.suite_state(repo, suite).0 == "completed")
    });
    if is_over {
        world.tell_suite(id, check.suite, "completed", actor, None);
    }
}

fn apply(check: &mut Check, body: &Value, now: Timestamp) {
    let text = |name: &str| body[name].as_str().map(ToOwned::to_owned);
    let time = |name: &str| body[name].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let whole = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
    if let Some(name) = text("name") {
        check.name = name;
    }
    if let Some(url) = text("details_url") {
        check.details_url = Some(url);
    }
    if let Some(id) = text("external_id") {
        check.external_id = id;
    }
    if let Some(at) = time("started_at") {
        check.started_at = whole(at);
    }
    if let Some(status) = text("status") {
        if status != "completed" {
            // What was completed is open again.
            check.conclusion = None;
            check.completed_at = None;
        }
        check.status = status;
    }
    if let Some(conclusion) = text("conclusion") {
        check.status = "completed".to_owned();
        check.conclusion = Some(conclusion);
        check.completed_at = check.completed_at.or(Some(now));
    }
    if let Some(at) = time("completed_at") {
        check.completed_at = Some(whole(at));
    }
    let output = &body["output"];
    if output.is_object() {
        let part = |name: &str| output[name].as_str().map(ToOwned::to_owned);
        check.title = part("title").or(check.title.take());
        check.summary = part("summary").or(check.summary.take());
        check.text = part("text").or(check.text.take());
        check.annotations.extend(output["annotations"].as_array().cloned().unwrap_or_default());
    }
    if let Some(actions) = body["actions"].as_array() {
        check.actions = actions.clone();
    }
}

fn known<'a>(repo: &'a Repo, request: &Request) -> Result<&'a Check, Answer> {
    repo.checks.get(&request.number("check_run_id")?).ok_or_else(Answer::not_found)
}

fn one(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Read)?;
    let repo = world.repo(id)?;
    Answer::ok(world.check_view(repo, known(repo, request)?))
}

fn update(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Write)?;
    let app = world.app_behind(&request.caller).ok_or_else(inaccessible)?;
    checked(&request.body)?;
    let now = world.now();
    let check_id = known(world.repo(id)?, request)?.id;
    let repo = world.repo_mut(id)?;
    let check = repo.checks.get_mut(&check_id).ok_or_else(Answer::not_found)?;
    if check.app != app {
        let message = format!(
            "Invalid app_id `{app}` - check run can only be modified by the GitHub App that \
             created it."
        );
        return Err(Answer::error(403, &message));
    }
    let was_completed = check.status == "completed";
    apply(check, &request.body, now);
    let check = check.clone();
    let actor = world.actor(&request.caller);
    told_completed(world, id, &check, was_completed, &actor);
    Answer::ok(world.check_view(world.repo(id)?, &check))
}

fn annotations(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Read)?;
    let repo = world.repo(id)?;
    let check = known(repo, request)?;
    let view = |one: &Value| {
        let path = one["path"].as_str().unwrap_or_default();
        json!({
            "path": path, "blob_href": world.html(repo, &format!("/blob/{}/{path}", check.head)),
            "start_line": one["start_line"], "end_line": one["end_line"],
            "start_column": one["start_column"], "end_column": one["end_column"],
            "annotation_level": one["annotation_level"], "title": one["title"],
            "message": one["message"], "raw_details": one["raw_details"],
        })
    };
    let all = check.annotations.iter().map(view).collect();
    Answer::listed(request.paged(&world.root, all))
}

/// The check runs that a listing asks for, newest first.
fn listed(world: &World, request: &Request, repo: &Repo, fits: impl Fn(&Check) -> bool) -> Reply {
    let app = request.query("app_id").and_then(|id| id.parse::<u64>().ok());
    let mut found: Vec<&Check> = repo
        .checks
        .values()
        .filter(|one| fits(one))
        .filter(|one| request.query("check_name").is_none_or(|name| one.name == name))
        .filter(|one| request.query("status").is_none_or(|status| one.status == status))
        .filter(|one| app.is_none_or(|app| one.app == app))
        .collect();
    found.sort_by_key(|one| std::cmp::Reverse(one.id));
    if request.query("filter").unwrap_or("latest") == "latest" {
        let mut seen = std::collections::HashSet::new();
        found.retain(|one| seen.insert((one.suite, one.name.clone())));
    }
    let total = found.len();
    let (page, links) = request.paged(&world.root, found);
    let page = page.into_iter().map(|one| world.check_view(repo, one)).collect();
    Answer::counted("check_runs", total, (page, links))
}

fn commit(repo: &Repo, request: &Request) -> Result<Oid, Answer> {
    let name = request.param("ref");
    let name = name.strip_prefix("heads/").or(name.strip_prefix("tags/")).unwrap_or(name);
    repo.git
        .resolve(name)
        .ok_or_else(|| Answer::unprocessable(&format!("No commit found for SHA: {name}")))
}

fn of_commit(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Read)?;
    let repo = world.repo(id)?;
    let at = commit(repo, request)?;
    listed(world, request, repo, |one| one.head == at)
}

fn of_suite(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Read)?;
    let repo = world.repo(id)?;
    let suite = request.number("check_suite_id")?;
    repo.suites.get(&suite).ok_or_else(Answer::not_found)?;
    listed(world, request, repo, |one| one.suite == suite)
}

fn suites_of_commit(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Read)?;
    let repo = world.repo(id)?;
    let at = commit(repo, request)?;
    let app = request.query("app_id").and_then(|id| id.parse::<u64>().ok());
    let all: Vec<Value> = repo
        .suites
        .values()
        .filter(|suite| suite.head == at && app.is_none_or(|app| suite.app == app))
        .map(|suite| world.suite_view(repo, suite))
        .collect();
    let total = all.len();
    Answer::counted("check_suites", total, request.paged(&world.root, all))
}

fn suite(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Read)?;
    let repo = world.repo(id)?;
    let suite = repo.suites.get(&request.number("check_suite_id")?);
    Answer::ok(world.suite_view(repo, suite.ok_or_else(Answer::not_found)?))
}

fn rerequest(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Read)?;
    if !matches!(request.caller, Caller::User(..) | Caller::Installation(..)) {
        return Err(Answer::error(401, "Requires authentication"));
    }
    let check = known(world.repo(id)?, request)?.clone();
    let actor = world.actor(&request.caller);
    world.tell_check(id, &check, "rerequested", json!({}), &actor);
    Answer::created(json!({}))
}

fn rerequest_suite(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "checks", Level::Read)?;
    let suite = request.number("check_suite_id")?;
    world.repo(id)?.suites.get(&suite).ok_or_else(Answer::not_found)?;
    let actor = world.actor(&request.caller);
    world.tell_suite(id, suite, "rerequested", &actor, None);
    Answer::created(json!({}))
}
