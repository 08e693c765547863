//! Reads that a host answers with "not modified", which is short and may cost nothing of a limit, and
//! reads of the same thing at the same time, of which one is made.

use std::{
    any::TypeId,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use metrics::counter;
use moka::future::Cache;
use reqwest::{
    StatusCode,
    header::{ETAG, HeaderValue, LINK},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;
use workflows_core::{Error, Result};

use super::{
    budget::Priority,
    host::Host,
    route::Route,
    transport::{Answer, Call, Grant, Transport},
};
use crate::repeated::repeated;

/// What was read, and under whose eyes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key<P> {
    principal: P,
    route: Route,
    accept: &'static str,
    /// As what it is read, when it is kept.
    shape: Option<TypeId>,
}

/// What is kept of an answer. Of a body only what its reader looks at is: hosts tell some twenty
/// kilobytes of a pull request, of which a few hundred bytes are read.
#[derive(Debug)]
struct Kept {
    /// Of the token that it was read with. GitHub's tags are the token's own, also where the next token
    /// is one of the same installation (<https://github.com/github/docs/issues/34689>), so that what
    /// was read with another is read anew, and takes its place.
    generation: u64,
    etag: HeaderValue,
    link: Option<HeaderValue>,
    body: Bytes,
}

/// As what an answer is read that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    id: TypeId,
    /// Writes again what is read of a body; `None` when it is not understood.
    shortened: fn(&[u8]) -> Option<Bytes>,
}

impl Shape {
    pub(super) fn of<T: Serialize + DeserializeOwned + 'static>() -> Self {
        let shortened = |body: &[u8]| {
            let read: T = serde_json::from_slice(body).ok()?;
            Some(serde_json::to_vec(&read).ok()?.into_boxed_slice().into())
        };
        Self { id: TypeId::of::<T>(), shortened }
    }
}

type Shared = OnceCell<Result<Arc<Answer>, Arc<Error>>>;

/// What is asked, with which token, and how much it matters.
type Asked<H> = (Key<<H as Host>::Principal>, u64, Priority);

#[derive(Debug)]
pub(crate) struct ConditionalCache<H: Host> {
    known: Cache<Key<H::Principal>, Arc<Kept>>,
    /// A call that is held back for its priority says nothing to one of another.
    under_way: Mutex<HashMap<Asked<H>, Weak<Shared>>>,
}

impl<H: Host> ConditionalCache<H> {
    /// A cache of about so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        const OVERHEAD: usize = 500;
        let known = Cache::builder()
            .max_capacity(bytes)
            .weigher(|key: &Key<H::Principal>, kept: &Arc<Kept>| {
                let link = kept.link.as_ref().map_or(0, HeaderValue::len);
                let size = OVERHEAD + key.route.path().len() + link + kept.body.len();
                u32::try_from(size).unwrap_or(u32::MAX)
            })
            .build();
        Self { known, under_way: Mutex::default() }
    }

    /// Reads once, for all who ask for the same at the same time. With a shape, what comes is kept,
    /// and the host is asked whether it changed; when it did not, the answer has the body that was kept
    /// and the status 304.
    pub(super) async fn read(
        &self,
        transport: &Transport<H>,
        call: &Call,
        grant: &Grant<H>,
        shape: Option<Shape>,
    ) -> Result<Arc<Answer>> {
        let key = Key {
            principal: grant.principal.clone(),
            route: call.route.clone(),
            accept: call.accept,
            shape: shape.map(|shape| shape.id),
        };
        let (shared, joined) = self.join((key.clone(), grant.generation, call.priority));
        if joined {
            counter!(H::METRICS.joined).increment(1);
        }
        // When the one who reads gives up, the next of those who wait takes over.
        let read = shared
            .get_or_init(async || {
                let read = match shape {
                    Some(shape) => self.reread(transport, call, grant, key, shape).await,
                    None => transport.exchange(call, grant, None).await.map(Arc::new),
                };
                read.map_err(Arc::new)
            })
            .await;
        read.clone().map_err(repeated)
    }

    fn join(&self, key: Asked<H>) -> (Arc<Shared>, bool) {
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

    async fn reread(
        &self,
        transport: &Transport<H>,
        call: &Call,
        grant: &Grant<H>,
        key: Key<H::Principal>,
        shape: Shape,
    ) -> Result<Arc<Answer>> {
        let known = self.known.get(&key).await;
        let known = known.filter(|known| known.generation == grant.generation);
        let etag = known.as_ref().map(|known| &known.etag);
        let mut answer = transport.exchange(call, grant, etag).await?;
        if answer.status == StatusCode::NOT_MODIFIED
            && let Some(known) = known
        {
            answer.body = known.body.clone();
            answer.headers.remove(LINK);
            if let Some(link) = &known.link {
                answer.headers.insert(LINK, link.clone());
            }
            return Ok(Arc::new(answer));
        }
        if answer.status == StatusCode::OK
            && let Some(etag) = answer.headers.get(ETAG).filter(|etag| is_usable(etag))
            && let Some(body) = (shape.shortened)(&answer.body)
        {
            let link = answer.headers.get(LINK).map(own);
            let kept = Kept { generation: grant.generation, etag: own(etag), link, body };
            self.known.insert(key, Arc::new(kept)).await;
        }
        Ok(Arc::new(answer))
    }
}

/// A value by itself. As it came it is a part of all that was read from the connection with it.
fn own(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

fn is_usable(etag: &HeaderValue) -> bool {
    (1..=200).contains(&etag.len())
}
