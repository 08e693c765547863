//! What every ledger in SQL is made of: the statements, and what is decided between them. A database
//! brings how it is asked ([`Sql`]) and what a transaction of it needs besides ([`Ledger`]).

mod admit;
#[cfg(test)]
pub(super) mod archive;
mod batch;
mod commit;
mod failure;
mod locks;
pub(super) mod pages;
mod prune;
mod query;
pub(super) mod queue;
pub(super) mod read;
mod rows;
mod store;

use std::collections::BTreeSet;

#[cfg(feature = "postgres")]
pub(super) use self::admit::delivery_hash;
pub(super) use self::{
    batch::{Answer, Ask, Batch, unexpected},
    failure::{Done, Failure},
    query::{Query, Row, Value, query},
    rows::{Rows, instant, nanos, tenant_of},
    store::{SqlStore, sql_store},
};
use crate::Tenant;

/// A database that can be asked. Places for values are `$1`, `$2`, ...; a value may stand in many.
pub(super) trait Sql: Send {
    /// What makes a `SELECT` keep the rows that it finds for this transaction.
    const FOR_UPDATE: &'static str;
    /// The same, leaving out those that another transaction keeps.
    const SKIP_LOCKED: &'static str;

    /// Asks, and returns all rows.
    fn fetch(&mut self, query: Query) -> impl Future<Output = Done<Vec<Row>>> + Send;

    /// The condition that a column is among the numbers ([`Value::Ints`]) of a place.
    fn among(column: &str, place: usize) -> String;

    /// Statements of the form `{head} <rows> {tail}`, where the rows are the relation `w` with the
    /// columns `column1`, `column2`, ... The first column of a row that is not one is NULL.
    fn statements(rows: Rows, head: &'static str, tail: &'static str) -> Vec<Query>;
}

/// A transaction that writes.
pub(super) trait Ledger: Sql {
    /// Whether there are other writers; if not, nothing needs to be kept from them.
    const SHARED: bool;
    /// What an `UPDATE` that gives a lease sets besides.
    const LEASED: &'static str;

    /// Makes the order of intake, and what is counted with it, this transaction's until it ends.
    fn begin_intake(&mut self) -> impl Future<Output = Done<()>> + Send;

    /// The last sequence that was given.
    fn sequence(&self) -> i64;

    /// The next place in the order of intake, once it has begun.
    fn next_sequence(&mut self) -> i64;

    /// Says how many serials will be asked for.
    fn reserve(&mut self, serials: usize) -> impl Future<Output = Done<()>> + Send;

    /// A number that nothing else has.
    fn next_serial(&mut self) -> impl Future<Output = Done<i64>> + Send;

    /// Keeps other transactions away from things, by name, until this one ends.
    fn lock(&mut self, things: BTreeSet<String>) -> impl Future<Output = Done<()>> + Send;

    /// Keeps commits from naming sets of triggers until this one ends.
    fn keep_trigger_sets(&mut self) -> impl Future<Output = Done<()>> + Send;

    /// Bytes of payloads that are kept of a tenant. The order of intake is this transaction's.
    fn stored_bytes(&mut self, tenant: &Tenant) -> impl Future<Output = Done<u64>> + Send;

    /// Sets them.
    fn set_stored_bytes(
        &mut self,
        tenant: &Tenant,
        bytes: u64,
    ) -> impl Future<Output = Done<()>> + Send;
}
