//! Comments of all kinds, and reactions to them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Route, content, get, route};
use crate::{
    access::{Caller, Level, inaccessible},
    answer::{Answer, Reply, Request},
    script::Role,
    world::{Comment, On, Repo, World},
};

pub(super) const ROUTES: &[Route] = &[
    get("/repos/{owner}/{repo}/issues/comments", of_issues),
    get("/repos/{owner}/{repo}/issues/{issue_number}/comments", of_issue),
    content("POST", "/repos/{owner}/{repo}/issues/{issue_number}/comments", create),
    get("/repos/{owner}/{repo}/issues/comments/{comment_id}", one),
    route("PATCH", "/repos/{owner}/{repo}/issues/comments/{comment_id}", update),
    route("DELETE", "/repos/{owner}/{repo}/issues/comments/{comment_id}", delete),
    get("/repos/{owner}/{repo}/pulls/comments", of_lines),
    get("/repos/{owner}/{repo}/pulls/{pull_number}/comments", of_pull),
    get("/repos/{owner}/{repo}/pulls/comments/{comment_id}", one_line),
    get("/repos/{owner}/{repo}/comments", of_commits),
    get("/repos/{owner}/{repo}/commits/{commit_sha}/comments", of_commit),
    content("POST", "/repos/{owner}/{repo}/commits/{commit_sha}/comments", create_on_commit),
    get("/repos/{owner}/{repo}/comments/{comment_id}", one_on_commit),
    get("/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions", reactions),
    route("POST", "/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions", react),
    get("/repos/{owner}/{repo}/pulls/comments/{comment_id}/reactions", reactions_to_line),
    route("POST", "/repos/{owner}/{repo}/pulls/comments/{comment_id}/reactions", react_to_line),
    get("/repos/{owner}/{repo}/comments/{comment_id}/reactions", reactions_on_commit),
    route("POST", "/repos/{owner}/{repo}/comments/{comment_id}/reactions", react_on_commit),
];

/// Comments are limited to so many characters.
const LONGEST: usize = 65_536;

fn is_on_issue(comment: &Comment) -> bool {
    matches!(comment.on, On::Issue(_))
}

fn is_on_line(comment: &Comment) -> bool {
    matches!(comment.on, On::Line { .. })
}

fn is_on_commit(comment: &Comment) -> bool {
    matches!(comment.on, On::Commit { .. })
}

/// What a listing of a repository's comments asks for.
fn listed(
    world: &World,
    request: &Request,
    repo: &Repo,
    fits: impl Fn(&Comment) -> bool,
    default_direction: &str,
) -> Reply {
    let since = request.query("since").and_then(|at| at.parse::<Timestamp>().ok());
    let mut found: Vec<&Comment> = repo
        .comments
        .values()
        .filter(|one| fits(one) && since.is_none_or(|since| one.updated_at >= since))
        .collect();
    match request.query("sort") {
        Some("updated") => found.sort_by_key(|one| (one.updated_at, one.id)),
        _ => found.sort_by_key(|one| (one.created_at, one.id)),
    }
    // Without `sort`, GitHub does not look at the direction.
    let direction = match request.query("sort") {
        None => default_direction,
        Some(_) => request.query("direction").unwrap_or("desc"),
    };
    if direction == "desc" {
        found.reverse();
    }
    let (page, links) = request.paged(&world.root, found);
    Answer::listed((page.into_iter().map(|one| world.comment_view(repo, one)).collect(), links))
}

fn of_issues(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "issues", Level::Read)?;
    listed(world, request, world.repo(id)?, is_on_issue, "asc")
}

fn of_lines(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    listed(world, request, world.repo(id)?, is_on_line, "asc")
}

fn of_commits(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    listed(world, request, world.repo(id)?, is_on_commit, "asc")
}

fn of_issue(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "issues", Level::Read)?;
    let repo = world.repo(id)?;
    let number = request.number("issue_number")?;
    repo.issues.get(&number).ok_or_else(Answer::not_found)?;
    let fits = |one: &Comment| matches!(one.on, On::Issue(on) if on == number);
    listed(world, request, repo, fits, "asc")
}

fn of_pull(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    let wanted = request.number("pull_number")?;
    let fits = |one: &Comment| matches!(one.on, On::Line { number, .. } if number == wanted);
    listed(world, request, world.repo(id)?, fits, "asc")
}

fn of_commit(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    let at = repo.git.resolve(request.param("commit_sha")).ok_or_else(Answer::not_found)?;
    let fits = |one: &Comment| matches!(one.on, On::Commit { commit, .. } if commit == at);
    listed(world, request, repo, fits, "asc")
}

fn body(request: &Request) -> Result<String, Answer> {
    let body = request.text("body").unwrap_or_default();
    if body.trim().is_empty() {
        return Err(Answer::invalid(
            "IssueComment",
            "body",
            "missing_field",
            "Body can't be blank",
        ));
    }
    if body.chars().count() > LONGEST {
        let message = "Body is too long (maximum is 65536 characters)";
        return Err(Answer::invalid("IssueComment", "body", "custom", message));
    }
    Ok(body.to_owned())
}

/// On a pull request either of two permissions will do.
fn repo_to_comment(world: &World, request: &Request, number: u64) -> Result<u64, Answer> {
    let as_issue = world.repo_for(request, "issues", Level::Write);
    let on_pull = as_issue.is_err()
        && world
            .repo_for(request, "pull_requests", Level::Write)
            .is_ok_and(|id| world.pull(id, number).is_some());
    if on_pull { world.repo_for(request, "pull_requests", Level::Write) } else { as_issue }
}

fn create(world: &mut World, request: &Request) -> Reply {
    let number = request.number("issue_number")?;
    let id = repo_to_comment(world, request, number)?;
    world.repo(id)?.issues.get(&number).ok_or_else(Answer::not_found)?;
    let (actor, app) = (world.actor(&request.caller), world.app_behind(&request.caller));
    let made = world.comment(id, On::Issue(number), &body(request)?, &actor, app)?;
    let repo = world.repo(id)?;
    Answer::created(repo.comments.get(&made).map(|one| world.comment_view(repo, one)).into())
}

fn create_on_commit(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    if matches!(request.caller, Caller::Anonymous) {
        return Err(Answer::error(401, "Requires authentication"));
    }
    let commit = world.repo(id)?.git.resolve(request.param("commit_sha"));
    let commit = commit.ok_or_else(Answer::not_found)?;
    let on = On::Commit {
        commit,
        path: request.text("path").map(ToOwned::to_owned),
        line: request.body["line"].as_u64(),
    };
    let (actor, app) = (world.actor(&request.caller), world.app_behind(&request.caller));
    let made = world.comment(id, on, &body(request)?, &actor, app)?;
    let repo = world.repo(id)?;
    Answer::created(repo.comments.get(&made).map(|one| world.comment_view(repo, one)).into())
}

fn found<'a>(
    repo: &'a Repo,
    request: &Request,
    fits: impl Fn(&Comment) -> bool,
) -> Result<&'a Comment, Answer> {
    let comment = repo.comments.get(&request.number("comment_id")?);
    comment.filter(|one| fits(one)).ok_or_else(Answer::not_found)
}

fn one(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "issues", Level::Read)?;
    let repo = world.repo(id)?;
    Answer::ok(world.comment_view(repo, found(repo, request, is_on_issue)?))
}

fn one_line(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    let repo = world.repo(id)?;
    Answer::ok(world.comment_view(repo, found(repo, request, is_on_line)?))
}

fn one_on_commit(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    Answer::ok(world.comment_view(repo, found(repo, request, is_on_commit)?))
}

/// Finds a comment that the caller may change: its own, or with write access any.
fn changeable(world: &World, request: &Request) -> Result<(u64, u64), Answer> {
    let number = |repo: &Repo| match found(repo, request, is_on_issue)?.on {
        On::Issue(number) => Ok(number),
        _ => Err(Answer::not_found()),
    };
    let shown = world.repo_for(request, "metadata", Level::Read)?;
    let id = repo_to_comment(world, request, number(world.repo(shown)?)?)?;
    let repo = world.repo(id)?;
    let comment = found(repo, request, is_on_issue)?;
    let actor = world.actor(&request.caller);
    let is_own = comment.author.eq_ignore_ascii_case(&actor);
    let may_all = match &request.caller {
        Caller::User(login, _) => world.role(repo, login).is_some_and(|role| role >= Role::Write),
        Caller::Installation(..) => true,
        _ => false,
    };
    if is_own || may_all { Ok((id, comment.id)) } else { Err(inaccessible()) }
}

fn update(world: &mut World, request: &Request) -> Reply {
    let (id, comment) = changeable(world, request)?;
    let (text, now, actor) = (body(request)?, world.now(), world.actor(&request.caller));
    let mut from = String::new();
    if let Some(one) = world.repo_mut(id)?.comments.get_mut(&comment) {
        from = std::mem::replace(&mut one.body, text);
        one.updated_at = now;
    }
    let changes = json!({ "changes": { "body": { "from": from } } });
    world.tell_comment(id, comment, "edited", changes, &actor);
    let repo = world.repo(id)?;
    Answer::ok(repo.comments.get(&comment).map(|one| world.comment_view(repo, one)).into())
}

fn delete(world: &mut World, request: &Request) -> Reply {
    let (id, comment) = changeable(world, request)?;
    let actor = world.actor(&request.caller);
    world.tell_comment(id, comment, "deleted", json!({}), &actor);
    world.repo_mut(id)?.comments.remove(&comment);
    Answer::no_content()
}

fn reactions_to(
    world: &World,
    request: &Request,
    permission: &str,
    fits: fn(&Comment) -> bool,
) -> Reply {
    let id = world.repo_for(request, permission, Level::Read)?;
    let comment = found(world.repo(id)?, request, fits)?;
    let all: Vec<Value> = comment
        .reactions
        .iter()
        .filter(|one| request.query("content").is_none_or(|content| one.content == content))
        .map(|one| world.reaction_view(one))
        .collect();
    Answer::listed(request.paged(&world.root, all))
}

fn react_to(
    world: &mut World,
    request: &Request,
    permission: &str,
    fits: fn(&Comment) -> bool,
) -> Reply {
    let level = if permission == "contents" { Level::Read } else { Level::Write };
    let id = world.repo_for(request, permission, level).or_else(|refused| match permission {
        // On a comment of a pull request, its permission will do, too.
        "issues" => world.repo_for(request, "pull_requests", Level::Write),
        _ => Err(refused),
    })?;
    if matches!(request.caller, Caller::Anonymous) {
        return Err(Answer::error(401, "Requires authentication"));
    }
    let comment = found(world.repo(id)?, request, fits)?.id;
    let actor = world.actor(&request.caller);
    let content = request.text("content").unwrap_or_default().to_owned();
    let (reaction, is_new) = world.react(id, comment, &content, &actor)?;
    Ok(Answer::json(if is_new { 201 } else { 200 }, world.reaction_view(&reaction)))
}

fn reactions(world: &mut World, request: &Request) -> Reply {
    reactions_to(world, request, "issues", is_on_issue)
}

fn react(world: &mut World, request: &Request) -> Reply {
    react_to(world, request, "issues", is_on_issue)
}

fn reactions_to_line(world: &mut World, request: &Request) -> Reply {
    reactions_to(world, request, "pull_requests", is_on_line)
}

fn react_to_line(world: &mut World, request: &Request) -> Reply {
    react_to(world, request, "pull_requests", is_on_line)
}

fn reactions_on_commit(world: &mut World, request: &Request) -> Reply {
    reactions_to(world, request, "contents", is_on_commit)
}

fn react_on_commit(world: &mut World, request: &Request) -> Reply {
    react_to(world, request, "contents", is_on_commit)
}
