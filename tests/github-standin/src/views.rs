//! Things as GitHub writes them in JSON.

use data_encoding::BASE64;
use git2::Oid;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    git::{Entry, FileDiff},
    world::{
        AccountKind, App, Check, Comment, Installation, Issue, On, Pull, Repo, Review, Status,
        Suite, Team, World,
    },
};

pub(crate) fn node_id(kind: &str, id: impl std::fmt::Display) -> String {
    BASE64.encode(format!("{kind}{id}").as_bytes())
}

/// The routes of a repository that it tells, with what stands for their parts.
const REPO_ROUTES: &[(&str, &str)] = &[
    ("archive_url", "/{archive_format}{/ref}"),
    ("assignees_url", "/assignees{/user}"),
    ("blobs_url", "/git/blobs{/sha}"),
    ("branches_url", "/branches{/branch}"),
    ("collaborators_url", "/collaborators{/collaborator}"),
    ("comments_url", "/comments{/number}"),
    ("commits_url", "/commits{/sha}"),
    ("compare_url", "/compare/{base}...{head}"),
    ("contents_url", "/contents/{+path}"),
    ("contributors_url", "/contributors"),
    ("deployments_url", "/deployments"),
    ("downloads_url", "/downloads"),
    ("events_url", "/events"),
    ("forks_url", "/forks"),
    ("git_commits_url", "/git/commits{/sha}"),
    ("git_refs_url", "/git/refs{/sha}"),
    ("git_tags_url", "/git/tags{/sha}"),
    ("hooks_url", "/hooks"),
    ("issue_comment_url", "/issues/comments{/number}"),
    ("issue_events_url", "/issues/events{/number}"),
    ("issues_url", "/issues{/number}"),
    ("keys_url", "/keys{/key_id}"),
    ("labels_url", "/labels{/name}"),
    ("languages_url", "/languages"),
    ("merges_url", "/merges"),
    ("milestones_url", "/milestones{/number}"),
    ("notifications_url", "/notifications{?since,all,participating}"),
    ("pulls_url", "/pulls{/number}"),
    ("releases_url", "/releases{/id}"),
    ("stargazers_url", "/stargazers"),
    ("statuses_url", "/statuses/{sha}"),
    ("subscribers_url", "/subscribers"),
    ("subscription_url", "/subscription"),
    ("tags_url", "/tags"),
    ("teams_url", "/teams"),
    ("trees_url", "/git/trees{/sha}"),
];

impl World {
    pub(crate) fn repo_api(&self, repo: &Repo, path: &str) -> String {
        self.api(&format!("/repos/{}{path}", repo.full_name()))
    }

    pub(crate) fn html(&self, repo: &Repo, path: &str) -> String {
        format!("{}/{}{path}", self.root, repo.full_name())
    }

    pub(crate) fn user_view(&self, login: &str) -> Value {
        let account = self.account(login);
        let id = account.map_or(0, |account| account.id);
        let login = account.map_or(login, |account| account.login.as_str());
        let kind = match account.map(|account| account.kind) {
            Some(AccountKind::Organization) => "Organization",
            Some(AccountKind::Bot) => "Bot",
            _ => "User",
        };
        let at = |path: &str| self.api(&format!("/users/{login}{path}"));
        json!({
            "login": login, "id": id, "node_id": node_id("User", id), "type": kind,
            "site_admin": false, "gravatar_id": "", "user_view_type": "public",
            "avatar_url": format!("{}/avatars/u/{id}", self.root),
            "html_url": format!("{}/{login}", self.root),
            "url": at(""), "events_url": at("/events{/privacy}"),
            "followers_url": at("/followers"), "following_url": at("/following{/other_user}"),
            "gists_url": at("/gists{/gist_id}"), "organizations_url": at("/orgs"),
            "received_events_url": at("/received_events"), "repos_url": at("/repos"),
            "starred_url": at("/starred{/owner}{/repo}"), "subscriptions_url": at("/subscriptions"),
        })
    }

    /// An organisation, as events tell it.
    pub(crate) fn organization_view(&self, login: &str) -> Value {
        let id = self.account(login).map_or(0, |account| account.id);
        let at = |path: &str| self.api(&format!("/orgs/{login}{path}"));
        json!({
            "login": login, "id": id, "node_id": node_id("Organization", id),
            "url": at(""), "repos_url": at("/repos"), "events_url": at("/events"),
            "hooks_url": at("/hooks"), "issues_url": at("/issues"),
            "members_url": at("/members{/member}"),
            "public_members_url": at("/public_members{/member}"),
            "avatar_url": format!("{}/avatars/u/{id}", self.root), "description": "",
        })
    }

    pub(crate) fn repo_view(&self, repo: &Repo) -> Value {
        let open = repo.issues.values().filter(|issue| issue.open).count();
        let mut view = json!({
            "id": repo.id, "node_id": node_id("Repository", repo.id), "name": repo.name,
            "full_name": repo.full_name(), "private": repo.private,
            "visibility": if repo.private { "private" } else { "public" },
            "owner": self.user_view(&repo.owner), "html_url": self.html(repo, ""),
            "description": null, "fork": repo.fork_of.is_some(), "url": self.repo_api(repo, ""),
            "git_url": format!("git://{}/{}.git", self.root.trim_start_matches("http://"), repo.full_name()),
            "ssh_url": format!("git@127.0.0.1:{}.git", repo.full_name()),
            "clone_url": format!("{}/{}.git", self.root, repo.full_name()),
            "svn_url": self.html(repo, ""), "homepage": null, "language": null, "mirror_url": null,
            "created_at": repo.created_at, "updated_at": repo.pushed_at, "pushed_at": repo.pushed_at,
            "size": 1, "stargazers_count": 0, "watchers_count": 0, "watchers": 0,
            "forks_count": 0, "forks": 0, "network_count": 0, "subscribers_count": 0,
            "open_issues_count": open, "open_issues": open, "has_issues": true,
            "has_projects": true, "has_downloads": true, "has_wiki": true, "has_pages": false,
            "has_discussions": false, "archived": false, "disabled": false, "license": null,
            "allow_forking": true, "is_template": false, "web_commit_signoff_required": false,
            "topics": [], "default_branch": repo.default_branch,
        });
        for (name, path) in REPO_ROUTES {
            view[*name] = self.repo_api(repo, path).into();
        }
        view
    }

    pub(crate) fn label_view(&self, repo: &Repo, name: &str) -> Value {
        let id = name.bytes().fold(7_u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte)) % 1_000_000_007
        });
        json!({
            "id": id, "node_id": node_id("Label", id), "name": name, "color": "ededed",
            "default": false, "description": "",
            "url": self.repo_api(repo, &format!("/labels/{name}")),
        })
    }

    fn labels(&self, repo: &Repo, issue: &Issue) -> Value {
        issue.labels.iter().map(|name| self.label_view(repo, name)).collect()
    }

    fn association(&self, repo: &Repo, login: &str) -> &'static str {
        let key = login.to_ascii_lowercase();
        let is_member =
            || self.account(&repo.owner).is_some_and(|owner| owner.members.contains_key(&key));
        if repo.owner.eq_ignore_ascii_case(login) {
            "OWNER"
        } else if is_member() {
            "MEMBER"
        } else if repo.collaborators.contains_key(&key) {
            "COLLABORATOR"
        } else {
            "NONE"
        }
    }

    pub(crate) fn issue_view(&self, repo: &Repo, issue: &Issue) -> Value {
        let number = issue.number;
        let at = |path: &str| self.repo_api(repo, &format!("/issues/{number}{path}"));
        let kind = if issue.pull.is_some() { "pull" } else { "issues" };
        let html = self.html(repo, &format!("/{kind}/{number}"));
        let comments = repo
            .comments
            .values()
            .filter(|comment| matches!(comment.on, On::Issue(on) if on == number))
            .count();
        let mut view = json!({
            "id": issue.id, "node_id": node_id("Issue", issue.id), "number": number,
            "title": issue.title, "body": issue.body, "user": self.user_view(&issue.author),
            "state": if issue.open { "open" } else { "closed" }, "state_reason": null,
            "locked": false, "active_lock_reason": null, "assignee": null, "assignees": [],
            "milestone": null, "comments": comments, "labels": self.labels(repo, issue),
            "created_at": issue.created_at, "updated_at": issue.updated_at,
            "closed_at": issue.closed_at, "closed_by": null,
            "author_association": self.association(repo, &issue.author),
            "url": at(""), "html_url": html, "comments_url": at("/comments"),
            "events_url": at("/events"), "labels_url": at("/labels{/name}"),
            "timeline_url": at("/timeline"), "repository_url": self.repo_api(repo, ""),
            "performed_via_github_app": null, "reactions": self.rollup(&at("/reactions"), &[]),
        });
        if let Some(pull) = &issue.pull {
            view["draft"] = pull.draft.into();
            view["pull_request"] = json!({
                "url": self.repo_api(repo, &format!("/pulls/{number}")), "html_url": html,
                "diff_url": format!("{html}.diff"), "patch_url": format!("{html}.patch"),
                "merged_at": pull.merged.as_ref().map(|(at, _)| at),
            });
        }
        view
    }

    fn rollup(&self, url: &str, reactions: &[crate::world::Reaction]) -> Value {
        let mut view = json!({ "url": url, "total_count": reactions.len() });
        for kind in ["+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes"] {
            view[kind] = reactions.iter().filter(|one| one.content == kind).count().into();
        }
        view
    }

    fn side(&self, owner: &str, reference: &str, sha: Oid, repo: Option<&Repo>) -> Value {
        json!({
            "label": format!("{owner}:{reference}"), "ref": reference, "sha": sha.to_string(),
            "user": self.user_view(owner), "repo": repo.map(|repo| self.repo_view(repo)),
        })
    }

    /// A pull request as lists tell it.
    pub(crate) fn pull_view(&self, repo: &Repo, issue: &Issue, pull: &Pull) -> Value {
        let number = issue.number;
        let at = |path: &str| self.repo_api(repo, &format!("/pulls/{number}{path}"));
        let issue_at = |path: &str| self.repo_api(repo, &format!("/issues/{number}{path}"));
        let html = self.html(repo, &format!("/pull/{number}"));
        let statuses = self.repo_api(repo, &format!("/statuses/{}", pull.head));
        let head_repo = pull.head_repo.and_then(|id| self.repos.get(&id));
        json!({
            "id": issue.id, "node_id": node_id("PullRequest", issue.id), "number": number,
            "url": at(""), "html_url": html, "diff_url": format!("{html}.diff"),
            "patch_url": format!("{html}.patch"), "issue_url": issue_at(""),
            "commits_url": at("/commits"), "review_comments_url": at("/comments"),
            "review_comment_url": self.repo_api(repo, "/pulls/comments{/number}"),
            "comments_url": issue_at("/comments"), "statuses_url": statuses,
            "state": if issue.open { "open" } else { "closed" }, "locked": false,
            "active_lock_reason": null, "title": issue.title, "body": issue.body,
            "user": self.user_view(&issue.author), "labels": self.labels(repo, issue),
            "milestone": null, "assignee": null, "assignees": [], "requested_reviewers": [],
            "requested_teams": [], "draft": pull.draft, "auto_merge": null,
            "created_at": issue.created_at, "updated_at": issue.updated_at,
            "closed_at": issue.closed_at, "merged_at": pull.merged.as_ref().map(|(at, _)| at),
            "merge_commit_sha": pull.merge_commit.map(|id| id.to_string()),
            "author_association": self.association(repo, &issue.author),
            "head": self.side(&pull.head_owner, &pull.head_ref, pull.head, head_repo),
            "base": self.side(&repo.owner, &pull.base_ref, pull.base, Some(repo)),
            "_links": {
                "self": { "href": at("") }, "html": { "href": html },
                "issue": { "href": issue_at("") }, "comments": { "href": issue_at("/comments") },
                "review_comments": { "href": at("/comments") },
                "review_comment": { "href": self.repo_api(repo, "/pulls/comments{/number}") },
                "commits": { "href": at("/commits") }, "statuses": { "href": statuses },
            },
        })
    }

    /// A pull request as it is told alone, and in events.
    pub(crate) fn whole_pull_view(&self, repo: &Repo, issue: &Issue, pull: &Pull) -> Value {
        let mut view = self.pull_view(repo, issue, pull);
        let base = repo.git.merge_base(pull.base, pull.head);
        let commits = repo.git.between(base, pull.head).unwrap_or_default();
        let files = base.and_then(|base| repo.git.diff(Some(base), pull.head).ok());
        let files = files.unwrap_or_default();
        let comments = repo.comments.values();
        let of_issue =
            comments.clone().filter(|one| matches!(one.on, On::Issue(n) if n == issue.number));
        let of_lines = comments
            .filter(|one| matches!(one.on, On::Line { number, .. } if number == issue.number));
        let more = json!({
            "merged": pull.merged.is_some(),
            "merged_by": pull.merged.as_ref().map(|(_, by)| self.user_view(by)),
            "mergeable": issue.open.then(|| pull.merge_commit.is_some()),
            "rebaseable": issue.open.then(|| pull.merge_commit.is_some()),
            "mergeable_state": match (issue.open, pull.draft, pull.merge_commit) {
                (false, ..) => "unknown", (_, true, _) => "draft",
                (_, _, Some(_)) => "clean", _ => "dirty",
            },
            "comments": of_issue.count(), "review_comments": of_lines.count(),
            "maintainer_can_modify": false, "commits": commits.len(),
            "additions": files.iter().map(|file| file.additions).sum::<usize>(),
            "deletions": files.iter().map(|file| file.deletions).sum::<usize>(),
            "changed_files": files.len(),
        });
        merge(&mut view, more);
        view
    }

    fn minimal_pulls(&self, repo: &Repo, head: Oid) -> Value {
        let of = |number: &u64| {
            let issue = repo.issues.get(number)?;
            let pull = issue.pull.as_ref()?;
            let side = |reference: &str, sha: Oid| {
                json!({
                    "ref": reference, "sha": sha.to_string(),
                    "repo": { "id": repo.id, "url": self.repo_api(repo, ""), "name": repo.name },
                })
            };
            Some(json!({
                "id": issue.id, "number": number,
                "url": self.repo_api(repo, &format!("/pulls/{number}")),
                "head": side(&pull.head_ref, pull.head), "base": side(&pull.base_ref, pull.base),
            }))
        };
        self.pulls_at(repo, head).iter().filter_map(of).collect()
    }

    pub(crate) fn git_commit_view(&self, repo: &Repo, id: Oid) -> Value {
        let Some(commit) = repo.git.commit(id) else { return Value::Null };
        let parents: Vec<Value> = commit
            .parent_ids()
            .map(|parent| {
                json!({
                    "sha": parent.to_string(),
                    "url": self.repo_api(repo, &format!("/git/commits/{parent}")),
                    "html_url": self.html(repo, &format!("/commit/{parent}")),
                })
            })
            .collect();
        json!({
            "sha": id.to_string(), "node_id": node_id("Commit", id),
            "url": self.repo_api(repo, &format!("/git/commits/{id}")),
            "html_url": self.html(repo, &format!("/commit/{id}")),
            "author": signed(&commit.author()), "committer": signed(&commit.committer()),
            "message": commit.message().unwrap_or_default(), "parents": parents,
            "tree": {
                "sha": commit.tree_id().to_string(),
                "url": self.repo_api(repo, &format!("/git/trees/{}", commit.tree_id())),
            },
            "verification": unsigned(),
        })
    }

    pub(crate) fn commit_view(&self, repo: &Repo, id: Oid) -> Value {
        let git = self.git_commit_view(repo, id);
        let mut parents = git["parents"].clone();
        for parent in parents.as_array_mut().into_iter().flatten() {
            let sha = parent["sha"].as_str().unwrap_or_default().to_owned();
            parent["url"] = self.repo_api(repo, &format!("/commits/{sha}")).into();
        }
        let login = |who: &Value| {
            let name = who["name"].as_str().unwrap_or_default();
            self.account(name).map(|account| self.user_view(&account.login))
        };
        json!({
            "sha": id.to_string(), "node_id": node_id("Commit", id),
            "url": self.repo_api(repo, &format!("/commits/{id}")),
            "html_url": self.html(repo, &format!("/commit/{id}")),
            "comments_url": self.repo_api(repo, &format!("/commits/{id}/comments")),
            "author": login(&git["author"]), "committer": login(&git["committer"]),
            "parents": parents,
            "commit": {
                "author": git["author"], "committer": git["committer"],
                "message": git["message"], "tree": git["tree"], "comment_count": 0,
                "url": git["url"], "verification": unsigned(),
            },
        })
    }

    /// A commit as events tell it.
    pub(crate) fn pushed_commit_view(&self, repo: &Repo, id: Oid) -> Value {
        let Some(commit) = repo.git.commit(id) else { return Value::Null };
        let files = repo.git.diff(commit.parent_ids().next(), id).unwrap_or_default();
        let of = |status: &[&str]| -> Vec<&str> {
            let fits = |file: &&FileDiff| status.contains(&file.status);
            files.iter().filter(fits).map(|file| file.path.as_str()).collect()
        };
        let mut removed: Vec<&str> = of(&["removed"]);
        removed.extend(files.iter().filter_map(|file| file.previous.as_deref()));
        let person = |who: &git2::Signature<'_>| {
            json!({
                "name": who.name().unwrap_or_default(), "email": who.email().unwrap_or_default(),
                "username": who.name().unwrap_or_default(),
            })
        };
        let at = Timestamp::from_second(commit.time().seconds()).unwrap_or_default();
        json!({
            "id": id.to_string(), "tree_id": commit.tree_id().to_string(), "distinct": true,
            "message": commit.message().unwrap_or_default(), "timestamp": at,
            "url": self.html(repo, &format!("/commit/{id}")),
            "author": person(&commit.author()), "committer": person(&commit.committer()),
            "added": of(&["added", "renamed", "copied"]), "removed": removed,
            "modified": of(&["modified", "changed"]),
        })
    }

    /// A commit as check suites tell it.
    fn simple_commit_view(&self, repo: &Repo, id: Oid) -> Value {
        let pushed = self.pushed_commit_view(repo, id);
        let person = |who: &Value| json!({ "name": who["name"], "email": who["email"] });
        json!({
            "id": pushed["id"], "tree_id": pushed["tree_id"], "message": pushed["message"],
            "timestamp": pushed["timestamp"], "author": person(&pushed["author"]),
            "committer": person(&pushed["committer"]),
        })
    }

    pub(crate) fn ref_view(&self, repo: &Repo, name: &str, id: Oid) -> Value {
        let kind = match repo.git.kind(id) {
            Some(git2::ObjectType::Tag) => "tag",
            Some(git2::ObjectType::Tree) => "tree",
            Some(git2::ObjectType::Blob) => "blob",
            _ => "commit",
        };
        json!({
            "ref": name, "node_id": node_id("Ref", name),
            "url": self.repo_api(repo, &format!("/git/{name}")),
            "object": {
                "sha": id.to_string(), "type": kind,
                "url": self.repo_api(repo, &format!("/git/{kind}s/{id}")),
            },
        })
    }

    pub(crate) fn file_diff_view(&self, repo: &Repo, at: Oid, file: &FileDiff) -> Value {
        let path = &file.path;
        let mut view = json!({
            "sha": file.blob.to_string(), "filename": path, "status": file.status,
            "additions": file.additions, "deletions": file.deletions,
            "changes": file.additions + file.deletions,
            "blob_url": self.html(repo, &format!("/blob/{at}/{path}")),
            "raw_url": self.html(repo, &format!("/raw/{at}/{path}")),
            "contents_url": self.repo_api(repo, &format!("/contents/{path}?ref={at}")),
        });
        if let Some(previous) = &file.previous {
            view["previous_filename"] = previous.as_str().into();
        }
        view
    }

    pub(crate) fn tree_entry_view(&self, repo: &Repo, entry: &Entry) -> Value {
        let kind = entry.kind();
        let mut view = json!({
            "path": entry.path, "mode": format!("{:06o}", entry.mode), "type": kind,
            "sha": entry.id.to_string(),
        });
        if kind != "commit" {
            view["url"] = self.repo_api(repo, &format!("/git/{kind}s/{}", entry.id)).into();
        }
        if let Some(size) = entry.size {
            view["size"] = size.into();
        }
        view
    }

    pub(crate) fn comment_view(&self, repo: &Repo, comment: &Comment) -> Value {
        let id = comment.id;
        let (path, node) = match &comment.on {
            On::Issue(_) => ("issues/comments", "IssueComment"),
            On::Line { .. } => ("pulls/comments", "PullRequestReviewComment"),
            On::Commit { .. } => ("comments", "CommitComment"),
        };
        let url = self.repo_api(repo, &format!("/{path}/{id}"));
        let mut view = json!({
            "id": id, "node_id": node_id(node, id), "url": url, "body": comment.body,
            "user": self.user_view(&comment.author), "created_at": comment.created_at,
            "updated_at": comment.updated_at,
            "author_association": self.association(repo, &comment.author),
            "reactions": self.rollup(&format!("{url}/reactions"), &comment.reactions),
        });
        let more = match &comment.on {
            On::Issue(number) => {
                let kind = repo
                    .issues
                    .get(number)
                    .map_or("issues", |issue| if issue.pull.is_some() { "pull" } else { "issues" });
                let app = comment.app.and_then(|app| self.apps.get(&app));
                json!({
                    "issue_url": self.repo_api(repo, &format!("/issues/{number}")),
                    "html_url": self.html(repo, &format!("/{kind}/{number}#issuecomment-{id}")),
                    "performed_via_github_app": app.map(|app| self.app_view(app)),
                })
            }
            On::Line { number, path, line, commit, review } => {
                let pull = self.repo_api(repo, &format!("/pulls/{number}"));
                let html = self.html(repo, &format!("/pull/{number}#discussion_r{id}"));
                json!({
                    "pull_request_review_id": review, "path": path, "line": line, "position": 1,
                    "original_position": 1, "original_line": line, "side": "RIGHT",
                    "start_line": null, "original_start_line": null, "start_side": null,
                    "subject_type": "line",
                    "commit_id": commit.to_string(), "original_commit_id": commit.to_string(),
                    "diff_hunk": "@@ -1 +1 @@", "html_url": html, "pull_request_url": pull,
                    "_links": {
                        "self": { "href": url }, "html": { "href": html },
                        "pull_request": { "href": pull },
                    },
                })
            }
            On::Commit { commit, path, line } => json!({
                "commit_id": commit.to_string(), "path": path, "line": line, "position": null,
                "html_url": self.html(repo, &format!("/commit/{commit}#commitcomment-{id}")),
            }),
        };
        merge(&mut view, more);
        view
    }

    pub(crate) fn review_view(&self, repo: &Repo, review: &Review) -> Value {
        let (id, number) = (review.id, review.number);
        let pull = self.repo_api(repo, &format!("/pulls/{number}"));
        let html = self.html(repo, &format!("/pull/{number}#pullrequestreview-{id}"));
        json!({
            "id": id, "node_id": node_id("PullRequestReview", id), "body": review.body,
            "user": self.user_view(&review.author), "state": review.state,
            "commit_id": review.commit.to_string(), "submitted_at": review.submitted_at,
            "html_url": html, "pull_request_url": pull,
            "author_association": self.association(repo, &review.author),
            "_links": { "html": { "href": html }, "pull_request": { "href": pull } },
        })
    }

    pub(crate) fn reaction_view(&self, reaction: &crate::world::Reaction) -> Value {
        json!({
            "id": reaction.id, "node_id": node_id("Reaction", reaction.id),
            "user": self.user_view(&reaction.by), "content": reaction.content,
            "created_at": reaction.created_at,
        })
    }

    pub(crate) fn app_view(&self, app: &App) -> Value {
        let permissions: Value = app
            .permissions
            .iter()
            .map(|(name, level)| (name.clone(), Value::from(level.as_str())))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({
            "id": app.id, "slug": app.slug, "node_id": node_id("App", app.id),
            "client_id": format!("Iv1.{:016x}", app.id), "owner": self.user_view(&app.owner),
            "name": app.slug, "description": "", "external_url": self.root,
            "html_url": format!("{}/apps/{}", self.root, app.slug),
            "created_at": app.created_at, "updated_at": app.created_at,
            "permissions": permissions, "events": app.events,
        })
    }

    pub(crate) fn installation_view(&self, installation: &Installation) -> Value {
        let id = installation.id;
        let account = self.account(&installation.account);
        let (account_id, is_org) =
            account.map_or((0, false), |one| (one.id, one.kind == AccountKind::Organization));
        let app = self.apps.get(&installation.app);
        let permissions: serde_json::Map<String, Value> = installation
            .permissions
            .iter()
            .map(|(name, level)| (name.clone(), level.as_str().into()))
            .collect();
        json!({
            "id": id, "node_id": node_id("Installation", id),
            "account": self.user_view(&installation.account), "app_id": installation.app,
            "client_id": format!("Iv1.{:016x}", installation.app),
            "app_slug": app.map_or("", |app| app.slug.as_str()), "target_id": account_id,
            "target_type": if is_org { "Organization" } else { "User" },
            "repository_selection": if installation.repos.is_some() { "selected" } else { "all" },
            "access_tokens_url": self.api(&format!("/app/installations/{id}/access_tokens")),
            "repositories_url": self.api("/installation/repositories"),
            "html_url": format!("{}/settings/installations/{id}", self.root),
            "permissions": permissions, "events": app.map(|app| &app.events),
            "created_at": installation.created_at, "updated_at": installation.created_at,
            "single_file_name": null, "has_multiple_single_files": false, "single_file_paths": [],
            "suspended_by": installation.suspended_at.map(|_| self.user_view(&installation.account)),
            "suspended_at": installation.suspended_at,
        })
    }

    pub(crate) fn check_view(&self, repo: &Repo, check: &Check) -> Value {
        let id = check.id;
        let url = self.repo_api(repo, &format!("/check-runs/{id}"));
        json!({
            "id": id, "node_id": node_id("CheckRun", id), "name": check.name, "url": url,
            "head_sha": check.head.to_string(), "external_id": check.external_id,
            "html_url": self.html(repo, &format!("/runs/{id}")),
            "details_url": check.details_url, "status": check.status,
            "conclusion": check.conclusion, "started_at": check.started_at,
            "completed_at": check.completed_at, "check_suite": { "id": check.suite },
            "output": {
                "title": check.title, "summary": check.summary, "text": check.text,
                "annotations_count": check.annotations.len(),
                "annotations_url": format!("{url}/annotations"),
            },
            "app": self.apps.get(&check.app).map(|app| self.app_view(app)),
            "pull_requests": self.minimal_pulls(repo, check.head),
        })
    }

    pub(crate) fn suite_state(&self, repo: &Repo, suite: &Suite) -> (&'static str, Option<String>) {
        let checks: Vec<&Check> =
            repo.checks.values().filter(|check| check.suite == suite.id).collect();
        if checks.is_empty() {
            return ("queued", None);
        }
        if checks.iter().any(|check| check.status != "completed") {
            let started = checks.iter().any(|check| check.status != "queued");
            return (if started { "in_progress" } else { "queued" }, None);
        }
        // The worst of them, as GitHub orders them.
        const ORDER: &[&str] = &[
            "failure",
            "timed_out",
            "action_required",
            "cancelled",
            "success",
            "neutral",
            "skipped",
            "stale",
        ];
        let worst = ORDER.iter().find(|conclusion| {
            checks.iter().any(|check| check.conclusion.as_deref() == Some(**conclusion))
        });
        ("completed", worst.map(|worst| (*worst).to_owned()))
    }

    pub(crate) fn suite_view(&self, repo: &Repo, suite: &Suite) -> Value {
        let (status, conclusion) = self.suite_state(repo, suite);
        let url = self.repo_api(repo, &format!("/check-suites/{}", suite.id));
        let count = repo.checks.values().filter(|check| check.suite == suite.id).count();
        json!({
            "id": suite.id, "node_id": node_id("CheckSuite", suite.id),
            "head_branch": suite.head_branch, "head_sha": suite.head.to_string(),
            "status": status, "conclusion": conclusion, "url": url,
            "before": null, "after": suite.head.to_string(),
            "created_at": suite.created_at, "updated_at": suite.updated_at,
            "app": self.apps.get(&suite.app).map(|app| self.app_view(app)),
            "head_commit": self.simple_commit_view(repo, suite.head),
            "repository": self.repo_view(repo), "latest_check_runs_count": count,
            "check_runs_url": format!("{url}/check-runs"),
            "pull_requests": self.minimal_pulls(repo, suite.head),
            "rerequestable": true, "runs_rerequestable": true,
        })
    }

    pub(crate) fn status_view(&self, repo: &Repo, status: &Status) -> Value {
        json!({
            "id": status.id, "node_id": node_id("StatusContext", status.id),
            "url": self.repo_api(repo, &format!("/statuses/{}", status.sha)),
            "avatar_url": format!("{}/avatars/u/1", self.root), "state": status.state,
            "description": status.description, "target_url": status.target_url,
            "context": status.context, "created_at": status.created_at,
            "updated_at": status.created_at, "creator": self.user_view(&status.creator),
        })
    }

    pub(crate) fn team_view(&self, organisation: &str, slug: &str, team: &Team) -> Value {
        let at = |path: &str| self.api(&format!("/orgs/{organisation}/teams/{slug}{path}"));
        json!({
            "id": team.id, "node_id": node_id("Team", team.id), "name": team.name, "slug": slug,
            "description": null, "privacy": "closed", "notification_setting": "notifications_enabled",
            "permission": "pull", "url": at(""), "members_url": at("/members{/member}"),
            "repositories_url": at("/repos"), "parent": null, "type": "organization",
            "html_url": format!("{}/orgs/{organisation}/teams/{slug}", self.root),
        })
    }
}

fn signed(who: &git2::Signature<'_>) -> Value {
    let at = Timestamp::from_second(who.when().seconds()).unwrap_or_default();
    json!({
        "name": who.name().unwrap_or_default(), "email": who.email().unwrap_or_default(),
        "date": at,
    })
}

fn unsigned() -> Value {
    json!({
        "verified": false, "reason": "unsigned", "signature": null, "payload": null,
        "verified_at": null,
    })
}

/// Adds members to an object.
pub(crate) fn merge(to: &mut Value, more: Value) {
    if let (Some(to), Value::Object(more)) = (to.as_object_mut(), more) {
        to.extend(more);
    }
}
