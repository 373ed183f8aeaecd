//! A short dose of what `cargo xtask torment` does for hours.

use std::time::Duration;

use gotgan_tests::programs;
use gotgan_tests::torment::{self, Options};

/// Enough for some deaths of everybody.
const ROUND: Duration = Duration::from_secs(20);
const FAULTS_A_MINUTE: u32 = 120;

fn options(on_postgres: bool) -> Options {
    Options {
        seed: rand::random_range(1..1_000_000_000),
        time: Duration::ZERO,
        round: ROUND,
        per_minute: FAULTS_A_MINUTE,
        planted: None,
        on_postgres,
        // Not below the directory that jobs have for their own.
        directory: "/var/tmp".into(),
        logs: programs::checkout().join("target/torment"),
        program: programs::path("gotgan-torment"),
    }
}

/// What is wrong is printed with its seed and its story.
async fn nothing_is_wrong_after(options: Options) {
    let tally = torment::run(&options).await;
    assert!(tally.violations.is_empty(), "{}\n{:#?}", tally.table(), tally.violations);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_promised_is_kept_while_everything_breaks_on_sqlite() {
    nothing_is_wrong_after(options(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_promised_is_kept_while_everything_breaks_on_two_schedulers_and_postgres() {
    nothing_is_wrong_after(options(true)).await;
}
