//! The dose of every run of the tests: ten million steps from fixed seeds, and each bug that can be seen from here.

use gotgan_rehearsal::judge::Counts;
use gotgan_rehearsal::play::{Script, play};

/// Steps of the dose, over all threads.
const STEPS: u64 = 10_000_000;
/// Threads that play, each from seeds of its own.
const THREADS: u64 = 2;

/// Plays every seed that is this one's until its part of the steps is done.
fn play_part(first: u64) -> Counts {
    let (mut steps, mut seed, mut counts) = (0, first, Counts::default());
    while steps < STEPS / THREADS {
        let outcome = play(&Script { seed, ..Script::default() });
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
        steps += outcome.steps;
        counts.add(&outcome.counts);
        seed += THREADS;
    }
    counts
}

#[test]
fn the_flow_keeps_its_promises_whatever_befalls_it() {
    let threads: Vec<_> =
        (1..=THREADS).map(|first| std::thread::spawn(move || play_part(first))).collect();
    let mut counts = Counts::default();
    threads.into_iter().for_each(|thread| counts.add(&thread.join().unwrap()));
    // Else nothing would have been tried.
    assert!(counts.kills > 0 && counts.faults > 0 && counts.fenced > 0, "{counts:?}");
    assert!(counts.starts > 1_000 && counts.audits > 500, "{counts:?}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let script = Script { seed: 4_711, tells_story: true, ..Script::default() };
    let (one, other) = (play(&script), play(&script));
    assert!(one.steps > 1_000 && !one.story.is_empty(), "{one:?}");
    assert_eq!(one, other);
    let another = play(&Script { seed: 4_712, tells_story: true, ..Script::default() });
    assert_ne!(one.digest, another.digest);
}

/// Seeds in which something was wrong once (docs/simulation.md).
const FOUND: [u64; 3] = [114, 125, 2_453];

#[test]
fn plays_that_found_something_find_it_no_more() {
    for seed in FOUND {
        let outcome = play(&Script { seed, ..Script::default() });
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
    }
}

/// Bugs that show within some plays; `cargo xtask simulate --planted all` tries all.
const PLANTED: [&str; 5] =
    ["gpu-twice", "acknowledged-unstored", "started-elsewhere", "revived", "charge-lost"];

#[test]
fn planted_bugs_are_found() {
    for name in PLANTED {
        let plays = (1..40).map(|seed| {
            play(&Script { seed, planted: Some(name.to_owned()), ..Script::default() })
        });
        let found = plays.into_iter().any(|outcome| !outcome.violations.is_empty());
        assert!(found, "{name}");
    }
}
