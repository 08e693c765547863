//! Commits, and what differs between them.

use jiff::Timestamp;
use serde_json::json;

use super::{Route, get, git};
use crate::{
    access::Level,
    answer::{Answer, Reply, Request},
    world::World,
};

pub(super) const ROUTES: &[Route] = &[
    get("/repos/{owner}/{repo}/commits", list),
    get("/repos/{owner}/{repo}/commits/{+ref}", one),
    get("/repos/{owner}/{repo}/commits/{commit_sha}/pulls", pulls),
    get("/repos/{owner}/{repo}/compare/{+basehead}", compare),
];

fn list(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    git::not_empty(repo)?;
    let from = request.query("sha").unwrap_or(&repo.default_branch);
    let head = repo.git.resolve(from).ok_or_else(Answer::not_found)?;
    let bound = |name: &str| request.query(name).and_then(|at| at.parse::<Timestamp>().ok());
    let (since, until) = (bound("since"), bound("until"));
    let mut found = repo.git.between(None, head)?;
    found.retain(|id| {
        let Some(commit) = repo.git.commit(*id) else { return false };
        let at = Timestamp::from_second(commit.time().seconds()).unwrap_or_default();
        since.is_none_or(|since| at >= since) && until.is_none_or(|until| at <= until)
    });
    if let Some(path) = request.query("path") {
        found.retain(|id| {
            let parent = repo.git.commit(*id).and_then(|commit| commit.parent_ids().next());
            let at = |id| repo.git.at(id, path).map(|entry| entry.id);
            at(*id) != parent.and_then(at)
        });
    }
    let (page, links) = request.paged(&world.root, found);
    let page = page.into_iter().map(|id| world.commit_view(repo, id)).collect();
    Answer::listed((page, links))
}

fn one(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    git::not_empty(repo)?;
    let name = request.param("ref");
    let at = repo
        .git
        .resolve(name)
        .ok_or_else(|| Answer::unprocessable(&format!("No commit found for SHA: {name}")))?;
    let parent = repo.git.commit(at).and_then(|commit| commit.parent_ids().next());
    let files = repo.git.diff(parent, at)?;
    let additions: usize = files.iter().map(|file| file.additions).sum();
    let deletions: usize = files.iter().map(|file| file.deletions).sum();
    let (page, links) = request.paged_by(&world.root, files.into_iter().take(3_000).collect(), 300);
    let files: Vec<_> = page.iter().map(|file| world.file_diff_view(repo, at, file)).collect();
    let mut view = world.commit_view(repo, at);
    view["stats"] = json!({
        "additions": additions, "deletions": deletions, "total": additions + deletions,
    });
    view["files"] = files.into();
    let mut answer = Answer::json(200, view);
    answer.headers.extend(links.map(|links| ("link", links)));
    Ok(answer)
}

fn pulls(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "pull_requests", Level::Read)?;
    let repo = world.repo(id)?;
    let at = repo.git.resolve(request.param("commit_sha"));
    let at = at.ok_or_else(|| Answer::unprocessable("No commit found for SHA"))?;
    let found = repo
        .issues
        .values()
        .rev()
        .filter_map(|issue| Some((issue, issue.pull.as_ref()?)))
        .filter(|(_, pull)| {
            repo.git.is_ancestor(at, pull.head) && !repo.git.is_ancestor(at, pull.base)
        })
        .map(|(issue, pull)| world.pull_view(repo, issue, pull))
        .collect();
    Answer::listed(request.paged(&world.root, found))
}

/// What a comparison tells of commits on one page when no page is asked for.
const COMMITS: usize = 250;

fn compare(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    let basehead = request.param("basehead");
    let (base, head) = basehead.split_once("...").ok_or_else(Answer::not_found)?;
    let resolve = |name: &str| {
        // `owner:branch` is a branch of a fork.
        match name.split_once(':') {
            None => repo.git.resolve(name),
            Some((owner, branch)) => {
                let fork = world.names.get(&format!("{owner}/{}", repo.name).to_ascii_lowercase());
                let fork = fork.and_then(|id| world.repos.get(id))?;
                repo.git.resolve(&fork.git.resolve(branch)?.to_string())
            }
        }
    };
    let (base, head) = (
        resolve(base).ok_or_else(Answer::not_found)?,
        resolve(head).ok_or_else(Answer::not_found)?,
    );
    let merge_base = repo.git.merge_base(base, head).ok_or_else(|| {
        Answer::error(404, &format!("No common ancestor between {base} and {head}."))
    })?;
    let mut ahead = repo.git.between(Some(base), head)?;
    let behind = repo.git.between(Some(head), base)?;
    ahead.reverse();
    let status = match (ahead.len(), behind.len()) {
        (0, 0) => "identical",
        (0, _) => "behind",
        (_, 0) => "ahead",
        _ => "diverged",
    };
    let total = ahead.len();
    let is_paged = request.query("page").is_some() || request.query("per_page").is_some();
    let (commits, links) = if is_paged {
        request.paged(&world.root, ahead)
    } else {
        request.paged_by(&world.root, ahead, COMMITS)
    };
    // Files are told on the first page alone.
    let files = match request.page() {
        1 => repo.git.diff(Some(merge_base), head)?,
        _ => Vec::new(),
    };
    let shown = files.iter().take(world.limits.compared_files);
    let files: Vec<_> = shown.map(|file| world.file_diff_view(repo, head, file)).collect();
    let commits: Vec<_> = commits.into_iter().map(|id| world.commit_view(repo, id)).collect();
    let html = world.html(repo, &format!("/compare/{basehead}"));
    let mut answer = Answer::json(
        200,
        json!({
            "url": world.repo_api(repo, &format!("/compare/{basehead}")), "html_url": html,
            "permalink_url": html, "diff_url": format!("{html}.diff"),
            "patch_url": format!("{html}.patch"), "base_commit": world.commit_view(repo, base),
            "merge_base_commit": world.commit_view(repo, merge_base), "status": status,
            "ahead_by": total, "behind_by": behind.len(), "total_commits": total,
            "commits": commits, "files": files,
        }),
    );
    answer.headers.extend(links.map(|links| ("link", links)));
    Ok(answer)
}
