//! How long rounds of submissions take. Not run by default:
//! `cargo nextest run --release -p gotgan-store --run-ignored only bench --no-capture`.

use std::sync::Arc;
use std::time::Instant;

use crate::harness::{Place, on_postgres, on_sqlite};
use crate::things::{Leader, job_event, plain_job, submitted};

/// Submissions of one measurement.
const SUBMISSIONS: u64 = 4000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rounds_of_submissions_on_sqlite() {
    on_sqlite(measure).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rounds_of_submissions_on_postgres() {
    on_postgres(measure).await;
}

async fn measure(place: Arc<Place>) {
    let mut leader = Leader::at(&place).await;
    for size in [1, 8, 100] {
        let rounds = SUBMISSIONS / size;
        let began = Instant::now();
        for _ in 0..rounds {
            let (job, event) = (leader.world.sequences.next_job, leader.world.sequences.next_event);
            let changes = (0..size).flat_map(|place| {
                [submitted(plain_job(job + place)), job_event(event + place, job + place)]
            });
            leader.commit(changes.collect()).await;
        }
        let took = began.elapsed();
        let per_second = (rounds * size) as f64 / took.as_secs_f64();
        let per_round = took.as_micros() / u128::from(rounds);
        eprintln!(
            "{}: rounds of {size}: {per_round} us a round, {per_second:.0} submissions/s",
            place.kind.word()
        );
    }
}
