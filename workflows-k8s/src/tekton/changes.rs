//! Runs that changed, as the API server tells.

use std::collections::HashMap;

use futures::{StreamExt, stream, stream::BoxStream};
use kube::{
    Api,
    core::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use workflows_core::sink::ChangedRun;

use super::{
    identity::{RUN, run_of},
    kinds::RunKind,
};

/// What a watch is of.
#[derive(Debug)]
pub(super) enum Told {
    /// Runs of a kind.
    Runs(RunKind),
    /// TaskRuns, of which each tells of its run.
    Tasks,
}

/// Watches runs and TaskRuns of the sink's own, in each of these places.
///
/// The watch begins with a list, goes on from bookmarks, and lists again when the server has
/// forgotten where it was (410). Each list tells of every run that has not ended, and of those that
/// have once for each stream, so that whatever was missed is looked at.
pub(super) fn changes(places: Vec<(Told, Api<DynamicObject>)>) -> BoxStream<'static, ChangedRun> {
    stream::select_all(places.into_iter().map(|(told, api)| watched(api, told))).boxed()
}

fn watched(api: Api<DynamicObject>, told: Told) -> BoxStream<'static, ChangedRun> {
    let config = watcher::Config::default().labels(RUN);
    let mut ended = Ended::default();
    watcher(api, config)
        .default_backoff()
        .filter_map(move |event| {
            let changed = match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => {
                    run_of(&object)
                }
                Ok(watcher::Event::InitApply(object)) if ended.is_news(&told, &object) => {
                    run_of(&object)
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "the watch of runs was broken; it is taken up again");
                    None
                }
            };
            std::future::ready(changed.map(|(tenant, key)| ChangedRun { tenant, key }))
        })
        .boxed()
}

/// Which runs a list has told to have ended, so that the next list need not.
#[derive(Debug, Default)]
struct Ended(HashMap<String, ()>);

impl Ended {
    /// More than this, and all are told once more.
    const MOST: usize = 100_000;

    fn is_news(&mut self, told: &Told, object: &DynamicObject) -> bool {
        let Told::Runs(kind) = told else { return true };
        if !kind.status(object).is_ok_and(|status| status.phase.is_terminal()) {
            return true;
        }
        let Some(uid) = object.metadata.uid.clone() else { return true };
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(uid, ()).is_none()
    }
}
