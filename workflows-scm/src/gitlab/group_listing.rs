//! Merge requests of the projects of one group, read together.
//!
//! Projects that are polled cost a call each, time and again. Where several of one group are, what
//! changed in the group is read with one call for all of them, and each is answered from it
//! (<https://docs.gitlab.com/api/merge_requests/#list-group-merge-requests>). It takes up where a
//! project was read by itself, and GitLab's clock alone says what is covered: what GitLab has not shown
//! yet changed later than everything that it has shown.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use workflows_core::{ErrorKind, Result};

use super::{
    connection::GitLabProject, merge_request::MergeRequestBody, merge_requests::newest_first,
};
use crate::rest::{Priority, Route};

/// From so many projects on that are asked for.
const SEVERAL: usize = 3;
/// How long what was read answers whoever asks.
const FRESH: SignedDuration = SignedDuration::from_secs(15);
/// A change may be listed so much later than it was made.
const OVERLAP: SignedDuration = SignedDuration::from_mins(2);
/// How far back changes of the group are kept, for projects that are looked at seldom.
const REACH: SignedDuration = SignedDuration::from_hours(1);
/// How long a group whose list cannot be had, or is too long, is left alone.
const LEFT_ALONE: SignedDuration = SignedDuration::from_hours(1);
/// More changes than these in a group are not read for the sake of a few projects.
const MOST: usize = 300;
/// So many merge requests are kept of a project.
const MOST_OF_A_PROJECT: usize = 50;

/// What is known of the groups of a driver's projects.
#[derive(Debug, Default)]
pub(super) struct GroupListings {
    groups: Mutex<HashMap<Box<str>, Arc<tokio::sync::Mutex<Group>>>>,
}

#[derive(Debug, Default)]
struct Group {
    projects: HashMap<u64, Known>,
    /// The latest change that GitLab has shown.
    latest: Timestamp,
    listing: Option<Listing>,
    left_alone_until: Timestamp,
}

/// The merge requests of a project that changed since some instant, as they were last shown.
#[derive(Debug)]
struct Known {
    since: Timestamp,
    /// What changed before is known.
    until: Timestamp,
    found: BTreeMap<u64, MergeRequestBody>,
}

/// All changes of a group since some instant.
#[derive(Debug)]
struct Listing {
    since: Timestamp,
    read_at: Timestamp,
    found: HashMap<(u64, u64), MergeRequestBody>,
}

impl GroupListings {
    fn group_of(
        &self,
        project: &GitLabProject,
    ) -> Option<(String, Arc<tokio::sync::Mutex<Group>>)> {
        let (path, _) = project.path.rsplit_once('/')?;
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        Some((path.to_owned(), Arc::clone(groups.entry(path.into()).or_default())))
    }

    /// What changed in a project since an instant; `None` when it has to be asked for by itself.
    ///
    /// # Errors
    ///
    /// As the call for the group's list, when GitLab does not answer.
    pub(super) async fn changed_since(
        &self,
        project: &GitLabProject,
        since: Timestamp,
    ) -> Result<Option<Vec<MergeRequestBody>>> {
        let Some((path, group)) = self.group_of(project) else { return Ok(None) };
        let mut group = group.lock().await;
        let now = project.client(Priority::Poll).now();
        let is_known = group.projects.get(&project.number).is_some_and(|one| one.since <= since);
        if !is_known || group.projects.len() < SEVERAL || now < group.left_alone_until {
            return Ok(None);
        }
        let is_fresh = |listing: &Listing| now.duration_since(listing.read_at).abs() < FRESH;
        if !group.listing.as_ref().is_some_and(is_fresh) {
            match group.read(project, &path, now).await {
                Ok(true) => {}
                Ok(false) => {
                    group.leave_alone(now);
                    return Ok(None);
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => {
                    tracing::debug!(%error, group = path, "its projects are asked one by one");
                    group.leave_alone(now);
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(group.answer(project.number, since))
    }

    /// The latest change of a project's group that GitLab has shown.
    pub(super) async fn latest(&self, project: &GitLabProject) -> Timestamp {
        match self.group_of(project) {
            Some((_, group)) => group.lock().await.latest,
            None => Timestamp::MIN,
        }
    }

    /// Takes in what a project told by itself: all that changed since an instant, and maybe more.
    /// `before` is the [latest](Self::latest) from before it was asked.
    pub(super) async fn told(
        &self,
        project: &GitLabProject,
        since: Timestamp,
        before: Timestamp,
        found: &[MergeRequestBody],
    ) {
        let Some((_, group)) = self.group_of(project) else { return };
        let mut group = group.lock().await;
        let until = found.iter().map(|one| one.updated_at.0).fold(before, Timestamp::max);
        group.latest = group.latest.max(until);
        let found = found.iter().map(|one| (one.iid, one.clone())).collect();
        group.projects.insert(project.number, Known { since, until, found });
    }
}

impl Group {
    fn leave_alone(&mut self, now: Timestamp) {
        self.left_alone_until = now.checked_add(LEFT_ALONE).unwrap_or(now);
        self.listing = None;
    }

    /// Reads what changed since the last time. Whether all of it could be read.
    async fn read(&mut self, project: &GitLabProject, path: &str, now: Timestamp) -> Result<bool> {
        let since = earlier(self.latest, if self.listing.is_some() { OVERLAP } else { REACH });
        let route = Route::new(["groups", path, "merge_requests"]);
        let route = newest_first(route, 100).query("updated_after", since);
        let changed = project
            .client(Priority::Poll)
            .pages::<MergeRequestBody>("list merge requests of the group", route);
        let changed: Vec<MergeRequestBody> =
            futures::StreamExt::take(changed, MOST).try_collect().await?;
        if changed.len() >= MOST {
            return Ok(false);
        }
        let fresh = || Listing { since, read_at: now, found: HashMap::new() };
        let listing = self.listing.get_or_insert_with(fresh);
        listing.read_at = now;
        for one in changed {
            self.latest = self.latest.max(one.updated_at.0);
            // Pages shift while they are read; of one that comes twice the later is right.
            let kept = listing.found.entry((one.target_project_id, one.iid));
            let kept = kept.or_insert_with(|| one.clone());
            if kept.updated_at <= one.updated_at {
                *kept = one;
            }
        }
        listing.since = listing.since.max(earlier(self.latest, REACH));
        let since = listing.since;
        listing.found.retain(|_, one| one.updated_at.0 >= since);
        Ok(true)
    }

    /// What changed in a project, when the listing takes up where it was last read.
    fn answer(&mut self, project: u64, since: Timestamp) -> Option<Vec<MergeRequestBody>> {
        let listing = self.listing.as_ref()?;
        let known = self.projects.get_mut(&project)?;
        let from = earlier(known.until, OVERLAP);
        if from < listing.since {
            self.projects.remove(&project);
            return None;
        }
        let changed = listing
            .found
            .iter()
            .filter(|((of, _), one)| *of == project && one.updated_at.0 >= from);
        known.found.extend(changed.map(|((_, iid), one)| (*iid, one.clone())));
        known.until = self.latest;
        let mut found: Vec<MergeRequestBody> =
            known.found.values().filter(|one| one.updated_at.0 >= since).cloned().collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.updated_at));
        if known.found.len() > MOST_OF_A_PROJECT {
            self.projects.remove(&project);
        }
        Some(found)
    }
}

fn earlier(than: Timestamp, by: SignedDuration) -> Timestamp {
    than.checked_sub(by).unwrap_or(Timestamp::MIN)
}
