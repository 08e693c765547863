//! Files and directories.

use serde_json::{Value, json};

use super::{Route, get, git};
use crate::{
    access::Level,
    answer::{Answer, Reply, Request},
    git::Entry,
    world::{Repo, World},
};

pub(super) const ROUTES: &[Route] = &[
    get("/repos/{owner}/{repo}/contents/{+path}", contents),
    get("/repos/{owner}/{repo}/contents", root),
];

/// Up to here the content is in the answer.
const IN_ANSWER: usize = 1 << 20;
/// Up to here it can be had raw; beyond, not at all.
const LARGEST: usize = 100 << 20;
/// A directory shows so many entries.
const MOST_ENTRIES: usize = 1_000;

fn root(world: &mut World, request: &Request) -> Reply {
    contents(world, request)
}

fn contents(world: &mut World, request: &Request) -> Reply {
    let id = world.repo_for(request, "contents", Level::Read)?;
    let repo = world.repo(id)?;
    if repo.git.refs("refs/heads/").is_empty() {
        return Err(Answer::error(404, "This repository is empty."));
    }
    let at = request.query("ref").unwrap_or(&repo.default_branch);
    let commit = repo.git.resolve(at);
    let commit =
        commit.ok_or_else(|| Answer::error(404, &format!("No commit found for the ref {at}")))?;
    let path = request.param("path").trim_matches('/');
    let entry = repo.git.at(commit, path).ok_or_else(Answer::not_found)?;
    match entry.kind() {
        "tree" => {
            let entries = repo.git.entries(entry.id, false)?;
            let views = entries.into_iter().take(MOST_ENTRIES).map(|mut one| {
                if !path.is_empty() {
                    one.path = format!("{path}/{}", one.path);
                }
                item(world, repo, &one, at)
            });
            Answer::ok(views.collect())
        }
        "commit" => {
            let mut view = item(world, repo, &entry, at);
            view["type"] = "submodule".into();
            view["submodule_git_url"] = Value::Null;
            Answer::ok(view)
        }
        _ => {
            let bytes = repo.git.blob(entry.id).ok_or_else(Answer::not_found)?;
            if entry.mode & 0o170_000 == 0o120_000 {
                return link(world, request, repo, &entry, &bytes, at);
            }
            if bytes.len() > LARGEST {
                return Err(Answer::error(403, "This API returns blobs up to 100 MB in size."));
            }
            if git::wants_raw(request) {
                return Ok(git::raw(bytes));
            }
            Answer::ok(file(world, repo, &entry, &bytes, at))
        }
    }
}

fn file(world: &World, repo: &Repo, entry: &Entry, bytes: &[u8], at: &str) -> Value {
    let mut view = item(world, repo, entry, at);
    let (content, encoding) = if bytes.len() > IN_ANSWER {
        (String::new(), "none")
    } else {
        (git::wrapped(bytes), "base64")
    };
    view["content"] = content.into();
    view["encoding"] = encoding.into();
    view
}

/// A link to a file of the same repository is answered with that file; any other as itself.
fn link(
    world: &World,
    request: &Request,
    repo: &Repo,
    entry: &Entry,
    target: &[u8],
    at: &str,
) -> Reply {
    let target = String::from_utf8_lossy(target).into_owned();
    let directory = entry.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    let mut is_inside = !target.starts_with('/');
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => is_inside &= parts.pop().is_some(),
            part => parts.push(part),
        }
    }
    let commit = repo.git.resolve(at);
    let to = commit.filter(|_| is_inside).and_then(|id| repo.git.at(id, &parts.join("/")));
    if let Some(to) = to.filter(|to| to.kind() == "blob" && to.mode & 0o170_000 != 0o120_000)
        && let Some(bytes) = repo.git.blob(to.id)
    {
        if git::wants_raw(request) {
            return Ok(git::raw(bytes));
        }
        // The name stays that of the link.
        let shown = Entry { path: entry.path.clone(), ..to };
        return Answer::ok(file(world, repo, &shown, &bytes, at));
    }
    let mut view = item(world, repo, entry, at);
    view["type"] = "symlink".into();
    view["target"] = target.into();
    Answer::ok(view)
}

fn item(world: &World, repo: &Repo, entry: &Entry, at: &str) -> Value {
    let path = &entry.path;
    let kind = match entry.kind() {
        "tree" => "dir",
        _ if entry.mode & 0o170_000 == 0o120_000 => "symlink",
        _ => "file",
    };
    let url = world.repo_api(repo, &format!("/contents/{path}?ref={at}"));
    let kinds = if kind == "dir" { "tree" } else { "blob" };
    let git = world.repo_api(repo, &format!("/git/{kinds}s/{}", entry.id));
    let html = world.html(repo, &format!("/{kinds}/{at}/{path}"));
    json!({
        "type": kind, "name": path.rsplit('/').next().unwrap_or(path), "path": path,
        "sha": entry.id.to_string(), "size": entry.size.unwrap_or(0), "url": url,
        "git_url": git, "html_url": html,
        "download_url": (kind != "dir").then(|| world.html(repo, &format!("/raw/{at}/{path}"))),
        "_links": { "self": url, "git": git, "html": html },
    })
}
