//! Pull requests.

use serde_json::{Value, json};

use super::{Route, content, get, route};
use crate::{
    access::Level,
    answer::{Answer, Reply, Request},
    world::{Issue, Pull, World},
};

pub(super) const ROUTES: &[Route] = &[
    get("/repos/{owner}/{repo}/pulls", list),
    content("POST", "/repos/{owner}/{repo}/pulls", create),
    get("/repos/{owner}/{repo}/pulls/{pull_number}", one),
    route("PATCH", "/repos/{owner}/{repo}/pulls/{pull_number}", update),
    get("/repos/{owner}/{repo}/pulls/{pull_number}/files", files),
    get("/repos/{owner}/{repo}/pulls/{pull_number}/commits", commits),
    get("/repos/{owner}/{repo}/pulls/{pull_number}/reviews", reviews),
    route("PUT", "/repos/{owner}/{repo}/pulls/{pull_number}/merge", merge),
];

fn list(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    let repo = world.repo(id)?;
    let state = request.query("state").unwrap_or("open");
    let mut found: Vec<(&Issue, &Pull)> = repo
        .issues
        .values()
        .filter_map(|issue| Some((issue, issue.pull.as_ref()?)))
        .filter(|(issue, _)| match state {
            "all" => true,
            "closed" => !issue.open,
            _ => issue.open,
        })
        .filter(|(_, pull)| request.query("base").is_none_or(|base| pull.base_ref == base))
        .filter(|(_, pull)| {
            let label = format!("{}:{}", pull.head_owner, pull.head_ref);
            request.query("head").is_none_or(|head| head.eq_ignore_ascii_case(&label))
        })
        .collect();
    let sort = request.query("sort").unwrap_or("created");
    match sort {
        "updated" => found.sort_by_key(|(issue, _)| (issue.updated_at, issue.number)),
        _ => found.sort_by_key(|(issue, _)| (issue.created_at, issue.number)),
    }
    let default = if sort == "created" && request.query("sort").is_none() { "desc" } else { "asc" };
    if request.query("direction").unwrap_or(default) == "desc" {
        found.reverse();
    }
    let (page, links) = request.paged(&world.root, found);
    let page = page.into_iter().map(|(issue, pull)| world.pull_view(repo, issue, pull)).collect();
    Answer::listed((page, links))
}

fn one(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    view(world, id, request.number("pull_number")?)
}

fn view(world: &World, id: u64, number: u64) -> Reply {
    let repo = world.repo(id)?;
    let issue = repo.issues.get(&number).ok_or_else(Answer::not_found)?;
    let pull = issue.pull.as_ref().ok_or_else(Answer::not_found)?;
    Answer::ok(world.whole_pull_view(repo, issue, pull))
}

fn create(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Write)?;
    let actor = world.actor(&request.caller);
    let text = |name: &str| request.text(name).unwrap_or_default();
    let draft = request.body["draft"] == true;
    let (title, body) = (text("title").to_owned(), request.text("body").map(ToOwned::to_owned));
    let (head, base) = (text("head").to_owned(), text("base").to_owned());
    let number =
        open_pull_request(world, id, &actor, &head, &base, &title, body.as_deref(), draft)?;
    let mut answer = view(world, id, number)?;
    answer.status = 201;
    Ok(answer)
}

/// Opens a pull request. The head is a branch, or `owner:branch` of a fork.
#[allow(clippy::too_many_arguments, reason = "each is a field of GitHub's request")]
pub(crate) fn open_pull_request(
    world: &mut World,
    repo_id: u64,
    actor: &str,
    head: &str,
    base: &str,
    title: &str,
    body: Option<&str>,
    draft: bool,
) -> Result<u64, Answer> {
    let invalid = |field: &str| Answer::invalid("PullRequest", field, "invalid", field);
    let repo = world.repo(repo_id)?;
    let (owner, head_ref) = head.split_once(':').unwrap_or((&repo.owner, head));
    let head_repo = if owner.eq_ignore_ascii_case(&repo.owner) {
        repo
    } else {
        let name = format!("{owner}/{}", repo.name).to_ascii_lowercase();
        let fork = world.names.get(&name).and_then(|id| world.repos.get(id));
        fork.filter(|fork| fork.fork_of == Some(repo_id)).ok_or_else(|| invalid("head"))?
    };
    let at = head_repo.git.position(&format!("refs/heads/{head_ref}"));
    let at = at.ok_or_else(|| invalid("head"))?;
    let base_at = repo.git.position(&format!("refs/heads/{base}"));
    let base_at = base_at.ok_or_else(|| invalid("base"))?;
    let is_known = repo.issues.values().filter(|issue| issue.open).any(|issue| {
        issue.pull.as_ref().is_some_and(|pull| {
            pull.head_repo == Some(head_repo.id)
                && pull.head_ref == head_ref
                && pull.base_ref == base
        })
    });
    if is_known {
        let message = format!("A pull request already exists for {owner}:{head_ref}.");
        return Err(Answer::invalid("PullRequest", "", "custom", &message));
    }
    if head_repo.id == repo_id && repo.git.is_ancestor(at, base_at) {
        let message = format!("No commits between {base} and {head_ref}");
        return Err(Answer::invalid("PullRequest", "", "custom", &message));
    }
    let pull = Pull {
        head_repo: Some(head_repo.id),
        head_owner: head_repo.owner.clone(),
        head_ref: head_ref.to_owned(),
        head: at,
        base_ref: base.to_owned(),
        base: base_at,
        draft,
        merged: None,
        merge_commit: None,
    };
    world.open_issue(repo_id, title, body, Some(pull), actor)
}

fn update(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Write)?;
    let number = request.number("pull_number")?;
    world.pull(id, number).ok_or_else(Answer::not_found)?;
    let actor = world.actor(&request.caller);
    if let Some(title) = request.text("title").map(ToOwned::to_owned) {
        world.rename_issue(id, number, &title, &actor);
    }
    if let Some(base) = request.text("base").map(ToOwned::to_owned) {
        world.retarget(id, number, &base, &actor)?;
    }
    match request.text("state") {
        Some("closed") => world.close(id, number, &actor),
        Some("open") if !world.repo(id)?.issues.get(&number).is_some_and(|one| one.open) => {
            world.reopen(id, number, &actor)?;
        }
        _ => {}
    }
    view(world, id, number)
}

fn files(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    let repo = world.repo(id)?;
    let pull = world.pull(id, request.number("pull_number")?).ok_or_else(Answer::not_found)?;
    let base = repo.git.merge_base(pull.base, pull.head);
    let mut files = repo.git.diff(base, pull.head)?;
    files.truncate(world.limits.pull_request_files);
    let (page, links) = request.paged(&world.root, files);
    let page = page.iter().map(|file| world.file_diff_view(repo, pull.head, file)).collect();
    Answer::listed((page, links))
}

/// GitHub lists so many commits of a pull request.
const MOST_COMMITS: usize = 250;

fn commits(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    let repo = world.repo(id)?;
    let pull = world.pull(id, request.number("pull_number")?).ok_or_else(Answer::not_found)?;
    let mut found = repo.git.between(repo.git.merge_base(pull.base, pull.head), pull.head)?;
    found.reverse();
    found.truncate(MOST_COMMITS);
    let (page, links) = request.paged(&world.root, found);
    let page = page.into_iter().map(|id| world.commit_view(repo, id)).collect();
    Answer::listed((page, links))
}

fn reviews(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    let repo = world.repo(id)?;
    let number = request.number("pull_number")?;
    let of = repo.reviews.values().filter(|review| review.number == number);
    let all = of.map(|review| world.review_view(repo, review)).collect();
    Answer::listed(request.paged(&world.root, all))
}

fn merge(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Write)?;
    let number = request.number("pull_number")?;
    let pull = world.pull(id, number).ok_or_else(Answer::not_found)?;
    if request.text("sha").is_some_and(|sha| sha != pull.head.to_string()) {
        let message = "Head branch was modified. Review and try the merge again.";
        return Err(Answer::error(409, message));
    }
    if !matches!(request.body["merge_method"], Value::Null)
        && request.text("merge_method") != Some("merge")
    {
        return Err(Answer::error(405, "Merge method is not allowed on this repository"));
    }
    let actor = world.actor(&request.caller);
    let merged = world.merge(id, number, &actor)?;
    Answer::ok(json!({
        "sha": merged.to_string(), "merged": true, "message": "Pull Request successfully merged",
    }))
}
