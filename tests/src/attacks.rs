//! The list of attacks that wrun must hold against, and which test shows it for each. `just attacks` runs those tests and
//! prints the list.

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its place in the list.
    pub number: u32,
    /// What the guest, the client or the escaped worker does.
    pub attack: &'static str,
    /// What must come of it.
    pub expected: &'static str,
    /// What shows that.
    pub held: Held,
}

/// What shows that an attack is held.
#[derive(Clone, Copy, Debug)]
pub enum Held {
    /// Tests of the target `it`, or of the library for those that begin with `wrun::`.
    By(&'static [&'static str]),
    /// Nothing: why there is no test.
    Not(&'static str),
}

const fn by(
    number: u32,
    attack: &'static str,
    expected: &'static str,
    tests: &'static [&'static str],
) -> Case {
    let held = Held::By(tests);
    Case {
        number,
        attack,
        expected,
        held,
    }
}

const fn not(number: u32, attack: &'static str, expected: &'static str, why: &'static str) -> Case {
    let held = Held::Not(why);
    Case {
        number,
        attack,
        expected,
        held,
    }
}

/// All attacks, in order.
#[rustfmt::skip]
pub const CASES: &[Case] = &[
    by(1, "endless loop", "504 at its CPU time; others go on", &["attacks::cpu_memory::endless_loop_is_504_and_others_go_on", "limits::guest_past_its_cpu_time_is_504"]),
    by(2, "memory.fill and memory.copy of all memory", "504 soon after its CPU time", &["attacks::cpu_memory::fills_of_all_memory_end_soon_after_the_cpu_time_that_there_is"]),
    by(3, "endless recursion", "500", &["attacks::cpu_memory::endless_recursion_is_500"]),
    by(4, "recursion through a host call", "500; no overflow of the host's stack", &["attacks::cpu_memory::call_back_into_the_host_is_500", "attacks::cpu_memory::endless_recursion_or_loop_on_behalf_of_the_host_is_ended"]),
    by(5, "memory.grow without end", "refused at the limit", &["attacks::cpu_memory::memory_grows_to_its_limit_and_no_further", "limits::guest_past_its_memory_is_refused_more_and_harms_nobody"]),
    by(6, "thousands of memories or instances", "refused at the start", &["attacks::compile::component_of_many_memories_or_instances_is_refused"]),
    by(7, "table.grow without end", "refused at the limit", &["attacks::cpu_memory::table_grows_to_its_limit_and_no_further"]),
    by(8, "4 GiB of memory or data from the start", "refused at the start", &["attacks::compile::component_that_begins_with_more_memory_than_it_may_have_is_refused"]),
    by(9, "bulk instructions without a pause", "504; others go on", &["attacks::cpu_memory::endless_fill_and_copy_of_memory_is_504_and_others_go_on"]),
    by(10, "endless start function", "the start or reload fails", &["attacks::compile::component_whose_start_never_ends_or_traps_is_refused"]),
    by(11, "exceptions, GC, threads, memory64", "refused at the start", &["attacks::compile::component_that_uses_what_is_switched_off_is_refused"]),
    by(12, "allocate, then wait for an hour", "504 at its time", &["attacks::cpu_memory::memory_that_is_allocated_and_held_ends_with_its_time"]),
    by(13, "1000 memory bombs at a time", "503 past capacity; the worker lives", &["attacks::cpu_memory::thousand_bombs_at_a_time_leave_the_worker_alive"]),
    by(14, "component that is too much to compile", "refused; the old one serves", &["attacks::compile::component_that_is_too_much_to_compile_is_refused", "bad_input::compile_bomb_is_ended_by_its_limits", "bad_input::compile_bomb_in_a_reload_leaves_the_server_serving"]),
    by(15, "damaged component", "refused with one line", &["attacks::compile::damaged_component_is_refused_with_one_line_wherever_it_is_damaged", "bad_input::start_with_a_bad_component_fails_with_one_line_and_a_hint"]),
    by(16, "forged machine code", "never run", &["compile::damaged_compiled_code_is_refused", "compile::compiled_code_with_another_key_is_refused", "compile::reload_to_foreign_compiled_code_is_refused_and_the_old_one_serves_on", "compile::damaged_code_in_the_state_folder_is_made_again"]),
    by(17, "component of 1 GiB", "refused", &["attacks::compile::component_of_a_gibibyte_is_refused_without_reading_it_into_memory"]),
    by(18, "a million handles", "500 at the limit", &["attacks::calls::handles_without_end_are_a_trap"]),
    by(19, "handles that are gone or forged", "500", &["attacks::calls::handle_that_is_gone_forged_or_of_another_kind_is_a_trap"]),
    by(20, "text of a gigabyte in a call", "500", &["attacks::calls::argument_that_is_too_long_or_not_in_memory_is_a_trap"]),
    by(21, "list of a million times the same megabyte", "500", &["attacks::calls::list_whose_items_overlap_is_counted_in_full_and_a_trap"]),
    by(22, "no UTF-8, no UTF-16, unaligned pointers", "500", &["attacks::calls::text_that_is_no_text_and_pointers_that_are_not_aligned_are_a_trap", "attacks::calls::text_in_utf_16_that_is_none_is_a_trap"]),
    by(23, "cases that a variant does not have", "500", &["attacks::calls::case_that_a_variant_does_not_have_is_a_trap"]),
    by(24, "millions of cheap calls", "504: they are CPU time", &["attacks::calls::calls_without_end_are_cpu_time_and_504"]),
    by(25, "10 GiB of random bytes", "500 past 64 KiB", &["attacks::calls::random_bytes_are_given_in_small_amounts_only"]),
    by(26, "log without end, escape sequences, forged lines", "cut at the limit; escaped", &["log::log_of_one_request_is_bounded_and_says_that_it_was_cut", "log::guest_that_floods_the_log_is_still_answered", "log::line_of_a_guest_cannot_command_a_terminal_or_fake_a_line", "attacks::calls::calls_without_end_are_cpu_time_and_504"]),
    by(27, "100,000 timers", "500 at the limit", &["attacks::calls::handles_without_end_are_a_trap", "attacks::calls::wait_for_very_many_or_very_long_ends_with_its_time"]),
    by(28, "sleep for ever", "504 at its time", &["attacks::calls::wait_for_very_many_or_very_long_ends_with_its_time", "attacks::cpu_memory::memory_that_is_allocated_and_held_ends_with_its_time"]),
    by(29, "the host's environment", "only what was configured", &["requests::guest_sees_only_the_environment_that_it_was_given"]),
    by(30, "exit, abort, unreachable", "500 for this request alone", &["attacks::cpu_memory::every_sudden_end_of_a_guest_is_500_for_itself_alone", "answers::guest_that_ends_without_an_answer_is_500_and_harms_nobody"]),
    by(31, "panic of the host in a call", "500; the worker lives", &["compromised::panic_of_the_host_in_a_call_is_500_for_that_request_alone", "wrun::engine::guest::tests::panic_of_the_host_ends_the_guest_alone"]),
    by(32, "files by every kind of path", "there are none", &["attacks::files_net::no_file_can_be_opened_listed_written_linked_renamed_or_removed", "requests::guest_has_no_files_and_no_sockets"]),
    not(33, "escape from a folder that was given", "denied", "guests are given no folders"),
    by(34, "sockets and names", "there are none", &["attacks::files_net::no_socket_can_be_made_and_no_name_looked_up"]),
    by(35, "requests to private places, in every spelling", "error; nothing is dialled", &["attacks::outbound::no_spelling_of_an_address_leads_to_a_place_that_is_not_granted", "attacks::outbound::granted_name_that_leads_to_a_private_address_is_refused", "outbound::redirect_is_not_followed", "wrun::host::http::tests::addresses_that_are_not_public_are_told_in_every_disguise"]),
    by(36, "10,000 requests at a time, servers without end", "bounded; ended with the guest's time", &["attacks::outbound::very_many_requests_at_a_time_are_as_many_as_there_may_be", "attacks::outbound::requests_that_nobody_waits_for_are_given_up_with_their_guest", "attacks::outbound::server_that_never_answers_or_never_ends_costs_its_guest_the_time_that_it_has", "attacks::outbound::answer_with_fields_without_measure_is_an_error_for_the_guest", "attacks::outbound::compressed_answer_is_left_as_it_is", "attacks::outbound::request_cannot_carry_fields_of_the_connection_or_a_second_request"]),
    by(37, "line ends in names and values", "refused", &["attacks::http_out::value_or_name_that_would_end_its_line_is_refused"]),
    by(38, "lying lengths, fields of the connection, 1xx, bodies where none belong", "502 or stripped; in step", &["attacks::http_out::answer_that_lies_about_itself_never_puts_the_connection_out_of_step", "attacks::http_out::answer_of_0_3_that_lies_about_itself_never_puts_the_connection_out_of_step", "attacks::http_out::answer_without_a_body_has_none_on_the_wire", "attacks::http_out::field_of_the_connection_is_refused"]),
    by(39, "100,000 fields, a field of 1 MiB", "refused", &["attacks::http_out::fields_without_measure_are_refused"]),
    by(40, "no answer, two answers, writes after the end, slow clients", "ended; one answer at most", &["attacks::http_out::guest_that_never_answers_is_ended", "attacks::http_out::guest_that_answers_twice_is_answered_for_once", "attacks::http_out::what_is_written_after_the_end_or_not_to_the_end_is_no_answer", "attacks::http_out::answer_that_stalls_is_cut_off", "attacks::http_out::endless_answer_to_a_client_that_takes_nothing_is_cut_off_and_takes_no_memory"]),
    by(41, "answer without end", "at the client's pace, in flat memory", &["attacks::http_out::answer_in_very_many_pieces_passes_in_flat_memory", "streaming::response_body_of_2_gib_passes_in_flat_memory", "streaming::client_that_is_slow_to_read_stops_its_guest"]),
    by(42, "guards that are forged, lost or of others", "denied; tokens only grow", &["lock::lock_that_was_lost_goes_to_who_waits_with_a_greater_token", "lock::tokens_increase_over_the_ends_of_all_processes", "db::change_under_a_lock_that_was_lost_does_not_happen", "attacks::calls::handle_that_is_gone_forged_or_of_another_kind_is_a_trap"]),
    by(43, "names of others' locks, databases and queues", "denied, whatever the spelling", &["labels::what_is_not_granted_is_denied_whatever_its_name", "labels::labels_of_one_kind_grant_nothing_of_another", "lock::what_makes_no_sense_is_refused_by_its_name"]),
    by(44, "lock that is never released", "free at the end of its holder or lease", &["lock::lock_is_released_when_its_worker_is_killed", "lock::lock_that_is_not_renewed_is_lost_after_its_lease", "lock::lock_is_released_when_its_guest_traps"]),
    by(45, "a million locks", "refused at the limit", &["lock::locks_past_the_limit_of_a_worker_are_refused_and_the_rest_held"]),
    by(46, "SQL that reaches out or has no end", "refused or ended", &["statements::statement_that_guests_may_not_run_is_refused_by_its_name", "statements::what_is_over_its_limit_is_too_large", "statements::endless_statement_ends_with_its_request_and_others_go_on", "statements::endless_statements_end_with_their_clients"]),
    by(47, "transaction that is never ended", "rolled back, with an error of its own", &["db::transaction_that_stalls_holds_the_writer_for_a_second_and_no_longer", "db::transaction_that_has_ended_is_closed", "statements::endless_statement_ends_with_the_time_of_its_transaction"]),
    by(48, "database that fills the disk", "an error for this guest", &["storage::database_at_its_largest_size_takes_more_once_something_is_deleted", "storage::full_disk_is_an_error_that_loses_nothing_and_ends_with_it"]),
    by(49, "locks and transactions in opposite order", "one of them times out", &["attacks::state::lock_and_transaction_taken_in_opposite_order_end_for_one_and_go_on_for_the_other", "lock::waiting_in_a_circle_is_refused_to_the_one_who_closes_it"]),
    by(50, "message that its consumer traps on", "tried again, then a dead letter; others go on", &["consumer::call_that_fails_in_any_way_counts_as_a_retry", "consumer::message_goes_to_the_dead_letters_after_its_last_attempt_and_back_by_redrive", "consumer::message_that_nobody_can_handle_does_not_take_others_with_it"]),
    by(51, "huge and endless messages, receipts of others", "refused", &["queue::message_that_is_over_a_limit_or_makes_no_sense_is_refused", "queue::queue_takes_no_more_than_it_may_hold", "consumer::delivery_of_somebody_else_cannot_be_extended", "consumer::message_that_is_not_settled_in_time_comes_again"]),
    by(52, "end of the state process during a commit", "known, or an error that says unknown; never twice", &["db::transaction_of_a_killed_state_process_fails_and_the_next_one_works", "storage::what_was_acknowledged_survives_the_sudden_end_of_all_processes", "payments::nobody_is_charged_twice_while_workers_and_state_process_are_killed", "db::work_is_marked_as_processed_once"]),
    by(53, "escaped worker: execve, fork, ptrace, kill", "denied", &["compromised::worker_runs_no_program_and_starts_no_process", "compromised::worker_traces_and_reads_no_process", "compromised::worker_signals_neither_supervisor_nor_sibling"]),
    by(54, "escaped worker: new machine code", "denied", &["compromised::no_memory_of_a_worker_becomes_code"]),
    by(55, "escaped worker: other sockets", "denied", &["compromised::worker_without_grants_opens_no_socket", "compromised::worker_connects_to_granted_ports_only_and_in_one_way_only"]),
    by(56, "escaped worker: the listening socket", "denied", &["compromised::worker_cannot_harm_the_listening_socket"]),
    by(57, "escaped worker: files, /proc", "denied", &["compromised::worker_opens_no_file", "compromised::worker_traces_and_reads_no_process"]),
    by(58, "escaped worker: garbage, floods and descriptors to others", "it is replaced; they live", &["compromised_messages::worker_that_sends_garbage_is_replaced_and_the_supervisor_lives", "compromised_messages::flood_of_messages_costs_the_supervisor_nothing_but_time", "compromised_messages::worker_that_sends_garbage_to_the_state_process_loses_its_connection_alone", "compromised_messages::worker_passes_no_descriptor_on"]),
    by(59, "escaped worker: another worker's name", "denied", &["compromised_messages::worker_cannot_be_another_or_an_operator"]),
    by(60, "escaped worker: no heartbeats, ready twice", "it is replaced", &["compromised_messages::worker_that_falls_silent_is_replaced_within_the_sandbox"]),
    not(61, "escaped worker: nonsense in the crash slot", "ignored", "no memory is shared between processes"),
    by(62, "escaped worker: a full log", "nobody waits for it", &["compromised_messages::worker_that_floods_the_log_harms_nobody"]),
    by(63, "escaped worker: its own limits and rights", "denied", &["compromised::sandbox_cannot_be_loosened_from_within"]),
    by(64, "marks left for the next request", "it finds none of them", &["attacks::cross_request::nothing_that_a_request_leaves_in_memory_table_or_globals_is_there_in_the_next", "attacks::cross_request::check_for_what_was_left_notices_it", "requests::static_and_memory_of_a_0_2_guest_never_survive_into_the_next_request"]),
    not(65, "timing of what others do", "documented", "clocks are exact, and guests share cores and caches: docs/security.md says so"),
];
