//! What a store promises, one test a promise, each on SQLite and on PostgreSQL.
//!
//! PostgreSQL: set `GOTGAN_TEST_POSTGRES` to the URL of a server where databases may be made; every test makes and
//! drops its own. Without it that half says loudly that it was skipped; with `GOTGAN_TEST_REQUIRE_POSTGRES=1` it
//! fails instead.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "conformance/access.rs"]
mod access;
#[path = "conformance/arrays.rs"]
mod arrays;
#[path = "conformance/audit.rs"]
mod audit;
#[path = "conformance/backup.rs"]
mod backup;
#[path = "conformance/bench.rs"]
mod bench;
#[path = "conformance/books.rs"]
mod books;
#[path = "conformance/crashes.rs"]
mod crashes;
#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/health.rs"]
mod health;
#[path = "conformance/leadership.rs"]
mod leadership;
#[path = "conformance/ledger.rs"]
mod ledger;
#[path = "conformance/listings.rs"]
mod listings;
#[path = "conformance/passes.rs"]
mod passes;
#[path = "conformance/reload.rs"]
mod reload;
#[path = "conformance/rounds.rs"]
mod rounds;
#[path = "conformance/schema.rs"]
mod schema;
#[path = "conformance/things.rs"]
mod things;
#[path = "conformance/windows.rs"]
mod windows;

/// Every promise as a test: some on each database and on the store in memory, others where there is a database alone.
macro_rules! promises {
    (
        everywhere { $($module:ident::$name:ident,)* }
        on_databases { $($database_module:ident::$database_name:ident,)* }
    ) => {
        promises!(@on on_sqlite { $($module::$name,)* $($database_module::$database_name,)* });
        promises!(@on on_postgres { $($module::$name,)* $($database_module::$database_name,)* });
        promises!(@on in_memory { $($module::$name,)* });
    };
    (@on $place:ident { $($module:ident::$name:ident,)* }) => {
        mod $place {
            $(#[tokio::test] async fn $name() {
                crate::harness::$place(crate::$module::$name).await;
            })*
        }
    };
}

promises! {
    everywhere {
        leadership::the_first_to_ask_leads_and_another_must_wait,
        leadership::a_lease_that_ran_out_is_taken_with_a_higher_epoch,
        leadership::whoever_led_before_takes_over_from_itself_at_once,
        leadership::of_many_who_ask_at_once_one_leads,
        leadership::a_renewed_lease_runs_longer,
        leadership::a_lease_that_was_seen_not_to_be_renewed_is_taken_whatever_clocks_show,
        leadership::who_resigned_need_not_be_waited_for,
        leadership::an_overtaken_leader_writes_nothing,
        leadership::nobody_writes_before_there_is_a_leader,
        rounds::a_key_is_used_once_for_each_owner,
        rounds::a_refused_round_leaves_nothing,
        rounds::the_last_change_of_a_round_counts,
        rounds::a_terminal_job_never_changes_again,
        rounds::an_ended_attempt_never_changes_again,
        rounds::a_gpu_is_not_given_twice,
        rounds::shares_fill_a_gpu_to_the_brim_and_no_further,
        rounds::a_gpu_passes_from_one_attempt_to_the_next_within_a_round,
        rounds::what_is_not_stored_is_no_reason_to_fail,
        rounds::what_is_unknown_cannot_move,
        health::how_hardware_stands_is_loaded_as_it_was,
        health::the_last_events_of_a_node_come_newest_first,
        reload::an_empty_store_loads_an_empty_world,
        reload::every_kind_of_change_survives_a_reload,
        reload::what_was_used_is_known_to_the_last_number_after_a_restart,
        reload::a_long_random_story_survives_a_reload_at_every_turn,
        reload::terminal_jobs_and_ended_attempts_are_not_loaded,
        listings::pages_neither_repeat_nor_skip_while_jobs_arrive,
        listings::every_filter_finds_what_a_plain_search_finds,
        listings::a_path_is_not_a_prefix_of_its_neighbours,
        listings::a_listing_shows_the_latest_attempt_and_what_was_paid,
        listings::a_job_comes_with_all_that_happened_to_it,
        listings::submissions_are_found_by_owner_and_key,
        listings::states_and_counts_agree_with_the_jobs,
        listings::events_come_in_order_and_by_job,
        listings::wildcards_quotes_and_foreign_letters_are_only_letters,
        arrays::an_array_is_one_row_with_the_numbers_behind_it,
        arrays::a_task_that_starts_is_a_row_of_its_own_and_both_survive_a_reload,
        arrays::a_task_without_a_row_is_answered_as_the_job_it_would_be,
        arrays::an_array_stands_for_its_tasks_in_listings,
        ledger::entries_come_in_order_and_by_filter,
        ledger::balances_sum_what_lies_below_a_path,
        ledger::what_was_settled_in_slices_is_loaded_as_it_was,
        ledger::a_true_ledger_passes_the_audit,
        books::alerts_are_listed_by_node_and_the_last_of_each_part_is_loaded,
        books::a_statement_has_the_entries_of_a_node_in_its_accounts,
        audit::the_chain_and_what_stands_for_its_next_entry_survive_a_reload,
        audit::the_chain_that_is_read_back_rebuilds_the_book,
        audit::entries_of_one_subject_are_found_alone,
        audit::the_book_of_a_past_moment_is_the_one_that_was_in_force,
        access::tokens_are_made_changed_and_read_back,
        access::a_join_token_is_used_once,
        access::an_answer_is_remembered_under_its_key,
        access::the_first_value_of_a_setting_stays,
        windows::windows_are_loaded_while_they_count,
        windows::reservations_are_loaded_as_they_stand_and_once_over_for_those_who_ask,
        passes::a_start_is_read_back_with_what_its_pass_knew,
        passes::a_record_without_its_start_is_refused,
        access::a_setting_that_is_kept_replaces_the_one_before_and_is_there_after_a_restart,
    }
    on_databases {
        leadership::a_leader_that_ended_is_missed_by_who_saw_it_and_by_nobody_else,
        leadership::who_loads_again_can_wait_for_a_commit_that_is_still_on_its_way,
        ledger::the_audit_finds_what_was_planted,
        crashes::reopening_keeps_everything,
        crashes::a_commit_that_is_dropped_half_way_leaves_all_or_nothing,
        crashes::many_writers_at_once_all_get_through,
        crashes::a_transaction_killed_before_its_commit_leaves_nothing,
        schema::an_empty_database_has_its_tables_after_opening,
        backup::a_backup_restores_on_sqlite,
        backup::a_backup_of_sqlite_restores_here,
        backup::nothing_is_restored_over_what_is_there,
        backup::a_backup_that_was_cut_off_leaves_nothing_and_the_whole_one_goes_in_after,
        backup::a_database_that_no_scheduler_has_used_is_not_backed_up,
        backup::every_row_that_was_tampered_with_is_found,
    }
}
