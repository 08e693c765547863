//! The suite for [`Store`].

mod commits;
mod groups;
mod intake;
pub(crate) mod ledger;
mod outbox;
mod pages;
mod prune;
mod queue;
mod restart;
mod statuses;
mod tenants;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use self::{
    commits::{
        a_commit_writes_all_or_nothing,
        a_run_is_created_once_and_changed_from_the_version_that_was_read,
        an_event_is_completed_with_what_its_transport_did_not_tell,
        approvals_hold_for_the_very_head, decisions_and_their_trigger_sets_are_kept,
    },
    groups::a_group_changes_its_version_with_its_members,
    intake::{
        a_baseline_makes_no_event_and_counts_as_an_arrival,
        a_branch_that_moves_there_and_back_makes_an_event_each_time,
        a_correction_sets_a_subject_right_without_an_event,
        a_delivery_that_was_seen_is_a_duplicate_whatever_it_claims,
        a_payload_over_the_limit_is_refused_by_the_limits_name,
        a_pull_request_that_closes_and_reopens_makes_an_event_each_time,
        a_push_that_was_overtaken_is_a_duplicate, admission_moves_the_cursor_or_takes_nothing_in,
        an_occurrence_happens_once, many_senders_of_one_fact_make_one_event,
        news_makes_an_event_and_work_for_it, one_fact_is_one_event_in_whatever_order_it_is_told,
        sequences_grow_and_the_position_is_the_highest,
        the_oldest_payloads_of_a_tenant_go_when_it_has_too_many_bytes,
        what_is_of_no_interest_is_recorded_and_makes_no_event,
        what_the_host_said_before_what_is_recorded_is_a_duplicate,
        what_was_read_before_the_ledger_moved_on_is_dropped,
    },
    outbox::a_notification_is_made_once_and_told_in_order,
    pages::{
        counting_runs_stops_where_it_is_told,
        events_are_found_by_everything_that_a_query_narrows_by,
        pages_are_stable_while_more_comes_in, runs_are_found_by_everything_that_a_query_narrows_by,
        runs_are_listed_in_the_order_in_which_they_were_planned,
    },
    prune::{
        a_workflow_keeps_so_many_runs, pruning_keeps_what_is_under_way_and_every_key,
        what_was_told_of_no_run_goes_with_its_event,
    },
    queue::{
        a_clock_that_goes_back_neither_keeps_leases_alive_nor_holds_work_up,
        a_commit_that_claims_next_gets_what_it_made_due,
        a_lease_that_ended_commits_as_long_as_nobody_claimed_again,
        a_lease_that_was_lost_commits_nothing, a_released_claim_waits_and_tells_why,
        a_single_event_does_not_wait_behind_the_backlog_of_another_tenant,
        an_extended_lease_lasts_from_now_on,
        leased_work_is_given_to_nobody_else_until_the_lease_ends,
        one_piece_of_work_can_be_claimed_before_its_time, the_backlog_counts_what_waits,
        work_is_due_again_when_its_commit_says_so, work_of_a_tenant_is_claimed_oldest_first,
        work_that_joins_a_lease_is_due_after_it,
        work_that_joins_keeps_the_earlier_time_and_the_newer_detail,
        workers_are_woken_when_work_comes,
    },
    restart::everything_but_leases_outlives_the_process,
    statuses::the_highest_order_owns_a_status,
    tenants::tenants_do_not_meet,
};
use super::case::suite;
use crate::{
    ManualClock,
    store::{Store, StoreLimits},
};

/// What a store's author writes, so that the suite can make ledgers.
#[async_trait]
pub trait StoreFixture: Debug + Send + Sync + 'static {
    /// A ledger with nothing in it that goes by this clock, with these limits.
    async fn open(&self, clock: ManualClock, limits: StoreLimits) -> Arc<dyn Store>;

    /// The ledger that was opened last, as it is after its process died: everything that was
    /// answered is there, leases that were given are not. `None` when it does not outlive its
    /// process.
    async fn reopen(&self, died: Arc<dyn Store>, clock: ManualClock) -> Option<Arc<dyn Store>>;
}

suite! {
    ($)
    /// Makes a `#[tokio::test]` of each case of the store suite. Takes an expression that makes a
    /// future of an `Arc<dyn StoreFixture>`, or of an option of one: `None` skips the case.
    store_suite(std::sync::Arc<dyn StoreFixture>) in store {
        news_makes_an_event_and_work_for_it,
        a_delivery_that_was_seen_is_a_duplicate_whatever_it_claims,
        one_fact_is_one_event_in_whatever_order_it_is_told,
        a_branch_that_moves_there_and_back_makes_an_event_each_time,
        a_push_that_was_overtaken_is_a_duplicate,
        a_baseline_makes_no_event_and_counts_as_an_arrival,
        what_was_read_before_the_ledger_moved_on_is_dropped,
        a_pull_request_that_closes_and_reopens_makes_an_event_each_time,
        what_the_host_said_before_what_is_recorded_is_a_duplicate,
        an_occurrence_happens_once,
        what_is_of_no_interest_is_recorded_and_makes_no_event,
        admission_moves_the_cursor_or_takes_nothing_in,
        a_payload_over_the_limit_is_refused_by_the_limits_name,
        the_oldest_payloads_of_a_tenant_go_when_it_has_too_many_bytes,
        sequences_grow_and_the_position_is_the_highest,
        tenants_do_not_meet,
        many_senders_of_one_fact_make_one_event,
        a_single_event_does_not_wait_behind_the_backlog_of_another_tenant,
        work_of_a_tenant_is_claimed_oldest_first,
        leased_work_is_given_to_nobody_else_until_the_lease_ends,
        a_lease_that_was_lost_commits_nothing,
        a_lease_that_ended_commits_as_long_as_nobody_claimed_again,
        an_extended_lease_lasts_from_now_on,
        a_released_claim_waits_and_tells_why,
        a_clock_that_goes_back_neither_keeps_leases_alive_nor_holds_work_up,
        work_that_joins_keeps_the_earlier_time_and_the_newer_detail,
        work_that_joins_a_lease_is_due_after_it,
        work_is_due_again_when_its_commit_says_so,
        one_piece_of_work_can_be_claimed_before_its_time,
        a_commit_that_claims_next_gets_what_it_made_due,
        workers_are_woken_when_work_comes,
        a_commit_writes_all_or_nothing,
        a_run_is_created_once_and_changed_from_the_version_that_was_read,
        a_group_changes_its_version_with_its_members,
        the_highest_order_owns_a_status,
        a_notification_is_made_once_and_told_in_order,
        approvals_hold_for_the_very_head,
        a_correction_sets_a_subject_right_without_an_event,
        decisions_and_their_trigger_sets_are_kept,
        an_event_is_completed_with_what_its_transport_did_not_tell,
        pages_are_stable_while_more_comes_in,
        runs_are_found_by_everything_that_a_query_narrows_by,
        runs_are_listed_in_the_order_in_which_they_were_planned,
        counting_runs_stops_where_it_is_told,
        events_are_found_by_everything_that_a_query_narrows_by,
        pruning_keeps_what_is_under_way_and_every_key,
        a_workflow_keeps_so_many_runs,
        what_was_told_of_no_run_goes_with_its_event,
        the_backlog_counts_what_waits,
        everything_but_leases_outlives_the_process,
    }
}
