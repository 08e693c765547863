//! What happens in repositories, and who is told of it. The API and people act through this alike.

use git2::Oid;
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    deliveries::Told,
    git::Git,
    script::Role,
    world::{AccountKind, Check, Comment, Issue, On, Pull, Reaction, Repo, Review, Suite, World},
};

/// What is pushed where nothing was, or is.
const NOTHING: &str = "0000000000000000000000000000000000000000";
/// A push tells so many commits.
const MOST_COMMITS: usize = 2_048;
/// Of more tags in one push nothing is told
/// (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>).
const MOST_TAGS: usize = 3;
/// Of more branches in one push nothing is told.
const MOST_BRANCHES: usize = 5_000;

impl World {
    /// Puts a branch or tag somewhere, or nowhere, and tells so.
    pub(crate) fn move_ref(
        &mut self,
        repo_id: u64,
        name: &str,
        to: Option<Oid>,
        actor: &str,
    ) -> Git<()> {
        self.move_refs(repo_id, &[(name, to)], actor)
    }

    /// The same of several in one push.
    pub(crate) fn move_refs(
        &mut self,
        repo_id: u64,
        moves: &[(&str, Option<Oid>)],
        actor: &str,
    ) -> Git<()> {
        let tags = moves.iter().filter(|(name, _)| name.starts_with("refs/tags/")).count();
        let is_told = tags <= MOST_TAGS && moves.len() - tags <= MOST_BRANCHES;
        for (name, to) in moves {
            let Some(before) = self.put_ref(repo_id, name, *to)? else { continue };
            if is_told {
                self.tell_push(repo_id, name, before, *to, actor)?;
            }
            self.follow_ref(repo_id, name, before, *to, actor)?;
        }
        Ok(())
    }

    /// Returns where it was, unless it is there already.
    fn put_ref(&mut self, repo_id: u64, name: &str, to: Option<Oid>) -> Git<Option<Option<Oid>>> {
        let now = self.now();
        let Some(repo) = self.repos.get_mut(&repo_id) else { return Ok(None) };
        let before = repo.git.position(name);
        if before == to {
            return Ok(None);
        }
        match to {
            Some(to) => repo.git.set_ref(name, to)?,
            None => repo.git.delete_ref(name)?,
        }
        repo.pushed_at = now;
        Ok(Some(before))
    }

    /// What hangs on a branch goes with it.
    fn follow_ref(
        &mut self,
        repo_id: u64,
        name: &str,
        before: Option<Oid>,
        to: Option<Oid>,
        actor: &str,
    ) -> Git<()> {
        if let Some(branch) = name.strip_prefix("refs/heads/") {
            if let Some(head) = to {
                self.open_suites(repo_id, branch, head, before, actor);
            }
            self.move_pulls(repo_id, branch, to, actor)?;
        }
        Ok(())
    }

    fn tell_push(
        &mut self,
        repo_id: u64,
        name: &str,
        before: Option<Oid>,
        after: Option<Oid>,
        actor: &str,
    ) -> Git<()> {
        let Some(repo) = self.repos.get(&repo_id) else { return Ok(()) };
        let commit = |id: Oid| {
            let is_tag = repo.git.kind(id) == Some(git2::ObjectType::Tag);
            if is_tag { repo.git.tag(id).map(|tag| tag.target_id()) } else { Some(id) }
        };
        let (old, new) = (before.and_then(commit), after.and_then(commit));
        let forced = match (old, new) {
            (Some(old), Some(new)) => !repo.git.is_ancestor(old, new),
            _ => false,
        };
        let commits = match (new, name.starts_with("refs/heads/")) {
            (Some(new), true) => {
                // Of a new branch, what the default branch has not.
                let main = format!("refs/heads/{}", repo.default_branch);
                let main = (name != main).then(|| repo.git.position(&main)).flatten();
                let from = old.or(main);
                let mut found = repo.git.between(from, new)?;
                found.reverse();
                found
            }
            _ => Vec::new(),
        };
        let told: Vec<Value> = commits
            .iter()
            .rev()
            .take(MOST_COMMITS)
            .rev()
            .map(|id| self.pushed_commit_view(repo, *id))
            .collect();
        let text = |id: Option<Oid>| id.map_or_else(|| NOTHING.to_owned(), |id| id.to_string());
        let (before_text, after_text) = (text(before), text(after));
        let payload = json!({
            "ref": name, "before": before_text, "after": after_text, "created": before.is_none(),
            "deleted": after.is_none(), "forced": forced, "base_ref": null, "commits": told,
            "compare": self.html(repo, &format!("/compare/{before_text}...{after_text}")),
            "head_commit": new.map(|new| self.pushed_commit_view(repo, new)),
            "pusher": { "name": actor, "email": self.person(actor).email },
        });
        let kind = if name.starts_with("refs/tags/") { "tag" } else { "branch" };
        let short = name.splitn(3, '/').nth(2).unwrap_or(name).to_owned();
        let mut view = json!({ "ref": short, "ref_type": kind, "pusher_type": "user" });
        if after.is_some() {
            view["master_branch"] = repo.default_branch.as_str().into();
            view["description"] = Value::Null;
        }
        let about = |event: &'static str, payload: Value| Told {
            event,
            action: None,
            payload,
            sender: actor.to_owned(),
            repo: Some(repo_id),
            app: None,
        };
        if before.is_none() {
            self.tell(about("create", view.clone()));
        }
        if after.is_none() {
            self.tell(about("delete", view));
        }
        self.tell(about("push", payload));
        Ok(())
    }

    /// Each App that can write checks gets a suite for what was pushed.
    fn open_suites(
        &mut self,
        repo_id: u64,
        branch: &str,
        head: Oid,
        before: Option<Oid>,
        actor: &str,
    ) {
        let Some(repo) = self.repos.get(&repo_id) else { return };
        let apps: Vec<u64> = self
            .installations
            .values()
            .filter(|one| one.suspended_at.is_none() && self.covers(one, repo))
            .filter(|one| {
                one.permissions.get("checks").is_some_and(|level| *level >= crate::Level::Write)
            })
            .map(|one| one.app)
            .collect();
        for app in apps {
            let known = self.repos.get(&repo_id).is_some_and(|repo| {
                repo.suites.values().any(|suite| suite.app == app && suite.head == head)
            });
            if known {
                continue;
            }
            let suite = self.suite_for(repo_id, app, head, Some(branch.to_owned()));
            self.tell_suite(repo_id, suite, "requested", actor, before);
        }
    }

    /// The suite of an App at a commit.
    pub(crate) fn suite_for(
        &mut self,
        repo_id: u64,
        app: u64,
        head: Oid,
        head_branch: Option<String>,
    ) -> u64 {
        let (id, now) = (self.new_id(), self.now());
        let Some(repo) = self.repos.get_mut(&repo_id) else { return 0 };
        let known = repo.suites.values().find(|suite| suite.app == app && suite.head == head);
        if let Some(known) = known {
            return known.id;
        }
        let branch = head_branch.or_else(|| {
            let stands = |(name, at): (String, Oid)| {
                (at == head).then(|| name.trim_start_matches("refs/heads/").to_owned())
            };
            repo.git.refs("refs/heads/").into_iter().find_map(stands)
        });
        repo.suites.insert(
            id,
            Suite { id, app, head, head_branch: branch, created_at: now, updated_at: now },
        );
        id
    }

    pub(crate) fn tell_suite(
        &mut self,
        repo_id: u64,
        suite: u64,
        action: &str,
        actor: &str,
        before: Option<Oid>,
    ) {
        let Some(repo) = self.repos.get(&repo_id) else { return };
        let Some(suite) = repo.suites.get(&suite) else { return };
        let mut view = self.suite_view(repo, suite);
        view["before"] = before.map(|id| id.to_string()).into();
        if let Some(view) = view.as_object_mut() {
            view.remove("repository");
        }
        let app = suite.app;
        self.tell(Told {
            event: "check_suite",
            action: Some(action.to_owned()),
            payload: json!({ "check_suite": view }),
            sender: actor.to_owned(),
            repo: Some(repo_id),
            app: (action != "completed").then_some(app),
        });
    }

    /// What a moved branch does to the pull requests that hang on it.
    fn move_pulls(&mut self, repo_id: u64, branch: &str, to: Option<Oid>, actor: &str) -> Git<()> {
        let hanging: Vec<(u64, u64, bool)> = self
            .repos
            .values()
            .flat_map(|repo| {
                repo.issues.values().filter(|issue| issue.open).filter_map(move |issue| {
                    let pull = issue.pull.as_ref()?;
                    let is_head = pull.head_repo == Some(repo_id) && pull.head_ref == branch;
                    let is_base = repo.id == repo_id && pull.base_ref == branch;
                    (is_head || is_base).then_some((repo.id, issue.number, is_head))
                })
            })
            .collect();
        for (of, number, is_head) in hanging {
            match to {
                None => self.close(of, number, actor),
                Some(to) if is_head => self.synchronize(of, number, to, actor)?,
                Some(to) => self.base_moved(of, number, to, actor)?,
            }
        }
        Ok(())
    }

    fn synchronize(&mut self, repo_id: u64, number: u64, to: Oid, actor: &str) -> Git<()> {
        let before = self.pull(repo_id, number).map(|pull| pull.head);
        let Some(before) = before.filter(|before| *before != to) else { return Ok(()) };
        self.set_head(repo_id, number, to)?;
        self.touch(repo_id, number);
        self.tell_pull(
            repo_id,
            number,
            "synchronize",
            json!({ "before": before.to_string(), "after": to.to_string() }),
            actor,
        );
        Ok(())
    }

    /// A base that moved is not told, unless it has all that the pull request has.
    fn base_moved(&mut self, repo_id: u64, number: u64, to: Oid, actor: &str) -> Git<()> {
        let now = self.now();
        let Some(repo) = self.repos.get_mut(&repo_id) else { return Ok(()) };
        let Some(issue) = repo.issues.get_mut(&number) else { return Ok(()) };
        let Some(pull) = &mut issue.pull else { return Ok(()) };
        if repo.git.is_ancestor(pull.head, to) {
            pull.merged = Some((now, actor.to_owned()));
            pull.merge_commit = Some(to);
            issue.open = false;
            issue.closed_at = Some(now);
            issue.updated_at = now;
            self.tell_pull(repo_id, number, "closed", json!({}), actor);
            return Ok(());
        }
        self.find_merge(repo_id, number)
    }

    /// Brings the head of a pull request into the repository, with `refs/pull/N/head` and, where it
    /// can be merged, `refs/pull/N/merge`.
    pub(crate) fn set_head(&mut self, repo_id: u64, number: u64, to: Oid) -> Git<()> {
        let (Some(repo), Some(pull)) = (self.repos.get(&repo_id), self.pull(repo_id, number))
        else {
            return Ok(());
        };
        if let Some(head_repo) = pull.head_repo.filter(|id| *id != repo_id)
            && let Some(head_repo) = self.repos.get(&head_repo)
        {
            let from = format!("+refs/heads/{}:refs/pull/{number}/head", pull.head_ref);
            repo.git.fetch(head_repo.git.path(), &[from])?;
        }
        repo.git.set_ref(&format!("refs/pull/{number}/head"), to)?;
        let base = repo.git.position(&format!("refs/heads/{}", pull.base_ref));
        let issue = self.repos.get_mut(&repo_id).and_then(|repo| repo.issues.get_mut(&number));
        if let Some(pull) = issue.and_then(|issue| issue.pull.as_mut()) {
            pull.head = to;
            pull.base = base.unwrap_or(pull.base);
        }
        self.find_merge(repo_id, number)
    }

    fn find_merge(&mut self, repo_id: u64, number: u64) -> Git<()> {
        let (now, person) = (self.now(), self.person("web-flow"));
        let Some(repo) = self.repos.get_mut(&repo_id) else { return Ok(()) };
        let Some(pull) = repo.issues.get_mut(&number).and_then(|issue| issue.pull.as_mut()) else {
            return Ok(());
        };
        let name = format!("refs/pull/{number}/merge");
        let base = repo.git.position(&format!("refs/heads/{}", pull.base_ref)).unwrap_or(pull.base);
        pull.merge_commit = match repo.git.merged_tree(base, pull.head) {
            Some(tree) => {
                let message = format!("Merge {} into {base}", pull.head);
                let parents = [base, pull.head];
                let merge = repo.git.write_commit_of(tree, &parents, &message, &person, now)?;
                repo.git.set_ref(&name, merge)?;
                Some(merge)
            }
            None => {
                repo.git.delete_ref(&name)?;
                None
            }
        };
        Ok(())
    }

    pub(crate) fn pull(&self, repo_id: u64, number: u64) -> Option<&Pull> {
        self.repos.get(&repo_id)?.issues.get(&number)?.pull.as_ref()
    }

    /// Notes that something about an issue or pull request changed.
    pub(crate) fn touch(&mut self, repo_id: u64, number: u64) {
        let now = self.now();
        if let Some(issue) = self.issue_mut(repo_id, number) {
            issue.updated_at = now;
        }
    }

    pub(crate) fn issue_mut(&mut self, repo_id: u64, number: u64) -> Option<&mut Issue> {
        self.repos.get_mut(&repo_id)?.issues.get_mut(&number)
    }

    pub(crate) fn tell_pull(
        &mut self,
        repo_id: u64,
        number: u64,
        action: &str,
        more: Value,
        actor: &str,
    ) {
        let Some(repo) = self.repos.get(&repo_id) else { return };
        let Some(issue) = repo.issues.get(&number) else { return };
        let Some(pull) = &issue.pull else { return };
        let mut payload =
            json!({ "number": number, "pull_request": self.whole_pull_view(repo, issue, pull) });
        crate::views::merge(&mut payload, more);
        self.tell(Told {
            event: "pull_request",
            action: Some(action.to_owned()),
            payload,
            sender: actor.to_owned(),
            repo: Some(repo_id),
            app: None,
        });
    }

    /// Opens an issue, or a pull request.
    pub(crate) fn open_issue(
        &mut self,
        repo_id: u64,
        title: &str,
        body: Option<&str>,
        pull: Option<Pull>,
        actor: &str,
    ) -> Result<u64, Answer> {
        let (id, now) = (self.new_id(), self.now());
        let repo = self.repo_mut(repo_id)?;
        repo.last_number += 1;
        let number = repo.last_number;
        let head = pull.as_ref().map(|pull| pull.head);
        repo.issues.insert(
            number,
            Issue {
                id,
                number,
                title: title.to_owned(),
                body: body.map(ToOwned::to_owned),
                author: actor.to_owned(),
                open: true,
                labels: Default::default(),
                created_at: now,
                updated_at: now,
                closed_at: None,
                pull,
            },
        );
        if let Some(head) = head {
            self.set_head(repo_id, number, head)?;
            self.tell_pull(repo_id, number, "opened", json!({}), actor);
        }
        Ok(number)
    }

    pub(crate) fn close(&mut self, repo_id: u64, number: u64, actor: &str) {
        let now = self.now();
        let Some(issue) = self.issue_mut(repo_id, number).filter(|issue| issue.open) else {
            return;
        };
        issue.open = false;
        issue.closed_at = Some(now);
        issue.updated_at = now;
        self.tell_pull(repo_id, number, "closed", json!({}), actor);
    }

    /// Opens a closed pull request again, at where its branch is by now.
    pub(crate) fn reopen(&mut self, repo_id: u64, number: u64, actor: &str) -> Result<(), Answer> {
        let refused = |why: &str| Answer::invalid("PullRequest", "state", "invalid", why);
        let pull = self.pull(repo_id, number).cloned().ok_or_else(Answer::not_found)?;
        if pull.merged.is_some() {
            return Err(refused("state cannot be changed. The pull request is merged."));
        }
        let head = pull
            .head_repo
            .and_then(|id| self.repos.get(&id))
            .and_then(|repo| repo.git.position(&format!("refs/heads/{}", pull.head_ref)))
            .ok_or_else(|| {
                refused(&format!(
                    "state cannot be changed. The {} branch has been deleted.",
                    pull.head_ref
                ))
            })?;
        // A branch that was forced elsewhere meanwhile is not the pull request's any more.
        if let Some(head_repo) = pull.head_repo.and_then(|id| self.repos.get(&id))
            && !head_repo.git.is_ancestor(pull.head, head)
        {
            return Err(refused(&format!(
                "state cannot be changed. The {} branch was force-pushed or recreated.",
                pull.head_ref
            )));
        }
        if let Some(issue) = self.issue_mut(repo_id, number) {
            issue.open = true;
            issue.closed_at = None;
        }
        self.set_head(repo_id, number, head)?;
        self.touch(repo_id, number);
        self.tell_pull(repo_id, number, "reopened", json!({}), actor);
        Ok(())
    }

    pub(crate) fn retarget(
        &mut self,
        repo_id: u64,
        number: u64,
        base: &str,
        actor: &str,
    ) -> Result<(), Answer> {
        let invalid =
            || Answer::invalid("PullRequest", "base", "invalid", "base branch is no branch");
        let position = self.repo(repo_id)?.git.position(&format!("refs/heads/{base}"));
        let to = position.ok_or_else(invalid)?;
        let issue = self.issue_mut(repo_id, number).ok_or_else(Answer::not_found)?;
        let pull = issue.pull.as_mut().ok_or_else(Answer::not_found)?;
        let (old_ref, old) = (pull.base_ref.clone(), pull.base);
        if old_ref == base {
            return Ok(());
        }
        pull.base_ref = base.to_owned();
        pull.base = to;
        self.touch(repo_id, number);
        self.find_merge(repo_id, number)?;
        let changes =
            json!({ "base": { "ref": { "from": old_ref }, "sha": { "from": old.to_string() } } });
        self.tell_pull(repo_id, number, "edited", json!({ "changes": changes }), actor);
        Ok(())
    }

    pub(crate) fn rename_issue(&mut self, repo_id: u64, number: u64, title: &str, actor: &str) {
        let Some(issue) = self.issue_mut(repo_id, number) else { return };
        let from = std::mem::replace(&mut issue.title, title.to_owned());
        self.touch(repo_id, number);
        let changes = json!({ "changes": { "title": { "from": from } } });
        self.tell_pull(repo_id, number, "edited", changes, actor);
    }

    pub(crate) fn set_draft(&mut self, repo_id: u64, number: u64, draft: bool, actor: &str) {
        let Some(pull) = self.issue_mut(repo_id, number).and_then(|one| one.pull.as_mut()) else {
            return;
        };
        if std::mem::replace(&mut pull.draft, draft) == draft {
            return;
        }
        self.touch(repo_id, number);
        let action = if draft { "converted_to_draft" } else { "ready_for_review" };
        self.tell_pull(repo_id, number, action, json!({}), actor);
    }

    pub(crate) fn set_label(
        &mut self,
        repo_id: u64,
        number: u64,
        label: &str,
        on: bool,
        actor: &str,
    ) {
        let Some(issue) = self.issue_mut(repo_id, number) else { return };
        let changed =
            if on { issue.labels.insert(label.to_owned()) } else { issue.labels.remove(label) };
        if !changed {
            return;
        }
        self.touch(repo_id, number);
        let Some(repo) = self.repos.get(&repo_id) else { return };
        let more = json!({ "label": self.label_view(repo, label) });
        self.tell_pull(repo_id, number, if on { "labeled" } else { "unlabeled" }, more, actor);
    }

    /// Merges a pull request with a merge commit.
    pub(crate) fn merge(&mut self, repo_id: u64, number: u64, actor: &str) -> Result<Oid, Answer> {
        let not_mergeable = || Answer::error(405, "Pull Request is not mergeable");
        let repo = self.repo(repo_id)?;
        let issue = repo.issues.get(&number).ok_or_else(Answer::not_found)?;
        let pull = issue.pull.clone().ok_or_else(Answer::not_found)?;
        if !issue.open || pull.draft {
            return Err(not_mergeable());
        }
        let base = format!("refs/heads/{}", pull.base_ref);
        let at = repo.git.position(&base).ok_or_else(not_mergeable)?;
        let tree = repo.git.merged_tree(at, pull.head).ok_or_else(not_mergeable)?;
        let message =
            format!("Merge pull request #{number} from {}/{}", pull.head_owner, pull.head_ref);
        let person = self.person(actor);
        let parents = [at, pull.head];
        let merged = repo.git.write_commit_of(tree, &parents, &message, &person, self.now())?;
        self.move_ref(repo_id, &base, Some(merged), actor)?;
        Ok(merged)
    }

    pub(crate) fn comment(
        &mut self,
        repo_id: u64,
        on: On,
        body: &str,
        actor: &str,
        app: Option<u64>,
    ) -> Result<u64, Answer> {
        let (id, now) = (self.new_id(), self.now());
        let comment = Comment {
            id,
            on: on.clone(),
            author: actor.to_owned(),
            app,
            body: body.to_owned(),
            created_at: now,
            updated_at: now,
            reactions: Vec::new(),
        };
        self.repo_mut(repo_id)?.comments.insert(id, comment);
        if let On::Issue(number) | On::Line { number, .. } = on {
            self.touch(repo_id, number);
        }
        self.tell_comment(repo_id, id, "created", json!({}), actor);
        Ok(id)
    }

    pub(crate) fn tell_comment(
        &mut self,
        repo_id: u64,
        id: u64,
        action: &str,
        more: Value,
        actor: &str,
    ) {
        let Some(repo) = self.repos.get(&repo_id) else { return };
        let Some(comment) = repo.comments.get(&id) else { return };
        let mut payload = json!({ "comment": self.comment_view(repo, comment) });
        crate::views::merge(&mut payload, more);
        let event = match &comment.on {
            On::Issue(number) => {
                let issue = repo.issues.get(number).map(|issue| self.issue_view(repo, issue));
                payload["issue"] = issue.unwrap_or_default();
                "issue_comment"
            }
            On::Line { number, .. } => {
                let issue = repo.issues.get(number);
                let pull =
                    issue.and_then(|issue| Some(self.pull_view(repo, issue, issue.pull.as_ref()?)));
                payload["pull_request"] = pull.unwrap_or_default();
                "pull_request_review_comment"
            }
            On::Commit { .. } => "commit_comment",
        };
        self.tell(Told {
            event,
            action: Some(action.to_owned()),
            payload,
            sender: actor.to_owned(),
            repo: Some(repo_id),
            app: None,
        });
    }

    pub(crate) fn review(
        &mut self,
        repo_id: u64,
        number: u64,
        state: &str,
        body: &str,
        actor: &str,
    ) -> Result<u64, Answer> {
        let (id, now) = (self.new_id(), self.now());
        let commit = self.pull(repo_id, number).ok_or_else(Answer::not_found)?.head;
        let review = Review {
            id,
            number,
            author: actor.to_owned(),
            body: body.to_owned(),
            state: state.to_owned(),
            commit,
            submitted_at: now,
        };
        self.repo_mut(repo_id)?.reviews.insert(id, review.clone());
        self.touch(repo_id, number);
        let repo = self.repo(repo_id)?;
        let mut view = self.review_view(repo, &review);
        view["state"] = state.to_ascii_lowercase().into();
        view["updated_at"] = json!(now);
        let issue = repo.issues.get(&number).ok_or_else(Answer::not_found)?;
        let pull = issue.pull.as_ref().map(|pull| self.pull_view(repo, issue, pull));
        let payload = json!({ "review": view, "pull_request": pull });
        self.tell(Told {
            event: "pull_request_review",
            action: Some("submitted".to_owned()),
            payload,
            sender: actor.to_owned(),
            repo: Some(repo_id),
            app: None,
        });
        Ok(id)
    }

    /// Adds a reaction, or finds the same one that is there.
    pub(crate) fn react(
        &mut self,
        repo_id: u64,
        comment: u64,
        content: &str,
        actor: &str,
    ) -> Result<(Reaction, bool), Answer> {
        let (id, now) = (self.new_id(), self.now());
        let repo = self.repo_mut(repo_id)?;
        let comment = repo.comments.get_mut(&comment).ok_or_else(Answer::not_found)?;
        let known = comment.reactions.iter().find(|one| one.by == actor && one.content == content);
        if let Some(known) = known {
            return Ok((known.clone(), false));
        }
        let reaction =
            Reaction { id, by: actor.to_owned(), content: content.to_owned(), created_at: now };
        comment.reactions.push(reaction.clone());
        Ok((reaction, true))
    }

    /// Tells of a check run; re-runs and buttons only to the App that made it.
    pub(crate) fn tell_check(
        &mut self,
        repo_id: u64,
        check: &Check,
        action: &str,
        more: Value,
        actor: &str,
    ) {
        let Some(repo) = self.repos.get(&repo_id) else { return };
        let mut view = self.check_view(repo, check);
        if let Some(suite) = repo.suites.get(&check.suite) {
            let mut suite = self.suite_view(repo, suite);
            if let Some(suite) = suite.as_object_mut() {
                for left_out in ["latest_check_runs_count", "check_runs_url", "head_commit"] {
                    suite.remove(left_out);
                }
            }
            view["check_suite"] = suite;
        }
        let mut payload = json!({ "check_run": view });
        crate::views::merge(&mut payload, more);
        let app = matches!(action, "rerequested" | "requested_action").then_some(check.app);
        self.tell(Told {
            event: "check_run",
            action: Some(action.to_owned()),
            payload,
            sender: actor.to_owned(),
            repo: Some(repo_id),
            app,
        });
    }

    pub(crate) fn add_repo(&mut self, full_name: &str, private: bool) -> Git<u64> {
        let (owner, name) = full_name.split_once('/').unwrap_or((full_name, full_name));
        self.ensure_account(owner, AccountKind::Organization);
        let (id, now) = (self.new_id(), self.now());
        let git = crate::git::Objects::create(&self.directory.join(format!("{id}.git")), "main")?;
        let repo = Repo {
            id,
            owner: owner.to_owned(),
            name: name.to_owned(),
            private,
            default_branch: "main".to_owned(),
            fork_of: None,
            created_at: now,
            pushed_at: now,
            git,
            collaborators: Default::default(),
            last_number: 0,
            issues: Default::default(),
            comments: Default::default(),
            reviews: Default::default(),
            suites: Default::default(),
            checks: Default::default(),
            statuses: Default::default(),
            hooks: Default::default(),
        };
        self.names.insert(full_name.to_ascii_lowercase(), id);
        self.repos.insert(id, repo);
        Ok(id)
    }

    pub(crate) fn fork(&mut self, repo_id: u64, owner: &str) -> Git<u64> {
        self.ensure_account(owner, AccountKind::User);
        let Some(source) = self.repos.get(&repo_id) else {
            return Err(git2::Error::from_str("there is no such repository"));
        };
        let name = format!("{owner}/{}", source.name);
        if let Some(known) = self.names.get(&name.to_ascii_lowercase()) {
            return Ok(*known);
        }
        let (private, default_branch) = (source.private, source.default_branch.clone());
        let path = source.git.path().to_owned();
        let id = self.add_repo(&name, private)?;
        if let Some(fork) = self.repos.get_mut(&id) {
            fork.fork_of = Some(repo_id);
            fork.default_branch = default_branch;
            let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            fork.git.fetch(&path, &all.map(ToOwned::to_owned))?;
        }
        Ok(id)
    }

    pub(crate) fn set_role(&mut self, repo_id: u64, login: &str, role: Option<Role>) {
        self.ensure_account(login, AccountKind::User);
        let Some(repo) = self.repos.get_mut(&repo_id) else { return };
        let key = login.to_ascii_lowercase();
        match role {
            Some(role) => {
                repo.collaborators.insert(key, crate::world::Collaborator { role, custom: None });
            }
            None => {
                repo.collaborators.remove(&key);
            }
        }
    }
}
