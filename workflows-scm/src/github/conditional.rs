//! Reads that GitHub answers with "not modified", which costs nothing of the hourly limit, and
//! reads of the same thing at the same time, of which one is made.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use metrics::counter;
use moka::future::Cache;
use reqwest::{
    StatusCode,
    header::{ETAG, HeaderValue, LINK},
};
use tokio::sync::OnceCell;
use workflows_core::{Error, Result};

use super::{
    budget::{Principal, Priority},
    route::Route,
    transport::{Answer, Call, Grant, Transport},
};
use crate::repeated::repeated;

/// What was read, and under whose eyes. Another token of the same principal may see other things,
/// and GitHub's tags differ by token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    principal: Principal,
    generation: u64,
    route: Route,
    accept: &'static str,
}

type Shared = OnceCell<Result<Arc<Answer>, Arc<Error>>>;

#[derive(Debug)]
pub(super) struct ConditionalCache {
    known: Cache<Key, Arc<Answer>>,
    /// A call that is held back for its priority says nothing to one of another.
    under_way: Mutex<HashMap<(Key, Priority), Weak<Shared>>>,
}

impl ConditionalCache {
    /// A cache of at most so many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        const OVERHEAD: usize = 1_000;
        let known = Cache::builder()
            .max_capacity(bytes)
            .weigher(|key: &Key, answer: &Arc<Answer>| {
                let size = OVERHEAD + key.route.path().len() + answer.body.len();
                u32::try_from(size).unwrap_or(u32::MAX)
            })
            .build();
        Self { known, under_way: Mutex::default() }
    }

    /// Reads. An answer that did not change has the body that was kept, and the status 304.
    pub(super) async fn read(
        &self,
        transport: &Transport,
        call: &Call,
        grant: &Grant,
    ) -> Result<Arc<Answer>> {
        let key = Key {
            principal: grant.principal.clone(),
            generation: grant.generation,
            route: call.route.clone(),
            accept: call.accept,
        };
        let (shared, joined) = self.join((key.clone(), call.priority));
        if joined {
            counter!("workflows_github_reads_joined_total").increment(1);
        }
        // When the one who reads gives up, the next of those who wait takes over.
        let read = shared
            .get_or_init(async || {
                self.read_once(transport, call, grant, &key).await.map_err(Arc::new)
            })
            .await;
        read.clone().map_err(repeated)
    }

    fn join(&self, key: (Key, Priority)) -> (Arc<Shared>, bool) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = under_way.get(&key).and_then(Weak::upgrade)
            && !shared.initialized()
        {
            return (shared, true);
        }
        under_way.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared::new());
        under_way.insert(key, Arc::downgrade(&shared));
        (shared, false)
    }

    async fn read_once(
        &self,
        transport: &Transport,
        call: &Call,
        grant: &Grant,
        key: &Key,
    ) -> Result<Arc<Answer>> {
        let known = self.known.get(key).await;
        let etag = known.as_ref().and_then(|known| known.headers.get(ETAG)).cloned();
        let answer = transport.exchange(call, grant, etag.as_ref()).await?;
        if answer.status == StatusCode::NOT_MODIFIED
            && let Some(known) = known
        {
            return Ok(Arc::new(Answer { status: StatusCode::NOT_MODIFIED, ..(*known).clone() }));
        }
        let answer = Arc::new(answer);
        if answer.status == StatusCode::OK && answer.headers.get(ETAG).is_some_and(is_usable) {
            self.known.insert(key.clone(), Arc::new(kept(&answer))).await;
        }
        Ok(answer)
    }
}

/// What is kept of an answer: what a later reader looks at.
fn kept(answer: &Answer) -> Answer {
    let mut kept = answer.clone();
    kept.headers.clear();
    for name in [ETAG, LINK] {
        if let Some(value) = answer.headers.get(&name) {
            kept.headers.insert(name, value.clone());
        }
    }
    kept
}

fn is_usable(etag: &HeaderValue) -> bool {
    (1..=200).contains(&etag.len())
}
