//! Every door takes its seeds, what was once found, and thousands of other inputs made of them.

#![allow(clippy::unwrap_used)]

mod first;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use gotgan_fuzzed::mutate::{Chance, mutated};
use gotgan_fuzzed::{Heap, TARGETS, play};
use gotgan_proto::v1;
use prost::Message as _;

#[global_allocator]
static HEAP: Heap = Heap;

/// Inputs made for each target, unless these variables say how many, and of which seed.
const MADE: u64 = 1_000;
const MADE_VARIABLE: &str = "GOTGAN_FUZZ_INPUTS";
const SEED_VARIABLE: &str = "GOTGAN_FUZZ_SEED";

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn seeds_of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

thread_local! {
    static LAST: Cell<(String, Vec<u8>)> = const { Cell::new((String::new(), Vec::new())) };
}

/// Tells of a panic which input it was.
fn tell_inputs() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let (which, input) = LAST.take();
        eprintln!("input {which}: {}", input.escape_ascii());
        before(info);
    }));
}

#[test]
fn seeds_and_what_is_made_of_them_come_through_every_door() {
    tell_inputs();
    for target in TARGETS {
        let seeds = seeds_of(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (path, seed) in &seeds {
            LAST.set((path.display().to_string(), seed.clone()));
            play(target.name, seed);
        }
        let seed = number(SEED_VARIABLE, 1);
        let mut chance = Chance::of(seed);
        for made in 0..number(MADE_VARIABLE, MADE) {
            let (path, one) = &seeds[chance.below(seeds.len())];
            let input = mutated(one, &mut chance);
            // So that whoever sees it fail has the input.
            LAST.set((format!("{made} by seed {seed}, of {}", path.display()), input.clone()));
            play(target.name, &input);
        }
    }
}

/// They are made anew with GOTGAN_WRITE_SEEDS=1.
#[test]
fn what_is_as_it_should_be_comes_through_every_door() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (target, name, seed) in first::seeds() {
        println!("{target}/{name}");
        if std::env::var_os("GOTGAN_WRITE_SEEDS").is_some() {
            fs::create_dir_all(folder.join(target)).unwrap();
            fs::write(folder.join(target).join(name), &seed).unwrap();
        }
        play(target, &seed);
    }
}

/// Calls whose good request is refused all the same, as what it names is not there.
const REFUSED: [&str; 9] = [
    "jobs-explainorder",
    "jobs-startstep",
    "nodes-cancelmaintenance",
    "nodes-extendreservation",
    "quota-approve",
    "quota-acceptbatch",
    "quota-void",
    "workers-join",
    "workers-renew",
];

#[test]
fn good_requests_are_carried_out() {
    let requests = first::seeds().into_iter().filter(|(target, ..)| *target == "request");
    let refused =
        requests.filter_map(|(_, name, seed)| Some((name, gotgan_fuzzed::refusal(&seed)?)));
    let refused: Vec<(String, String)> = refused.collect();
    let names: Vec<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, REFUSED, "{refused:#?}");
}

#[test]
fn a_key_that_stands_twice_in_a_request_is_told_as_that() {
    let place = gotgan_fuzzed::CALLS.iter().position(|call| *call == "Jobs/SubmitMany").unwrap();
    let (_, _, one) =
        first::seeds().into_iter().find(|(_, name, _)| name == "jobs-submit").unwrap();
    let job = v1::SubmitRequest::decode(&one[2..]).unwrap();
    let both = v1::SubmitManyRequest { jobs: vec![job.clone(), job] }.encode_to_vec();
    let bytes = [&[u8::try_from(place).unwrap(), 0][..], &both].concat();
    let refusal = gotgan_fuzzed::refusal(&bytes).unwrap();
    assert!(
        refusal.starts_with("jobs[1].idempotency_key: the idempotency key stands twice"),
        "{refusal}"
    );
}

#[test]
fn every_call_of_the_protocol_has_a_door() {
    let set = prost_types::FileDescriptorSet::decode(gotgan_proto::FILE_DESCRIPTOR_SET).unwrap();
    let services =
        set.file.iter().filter(|file| file.package() == "gotgan.v1").flat_map(|file| &file.service);
    let calls = services.flat_map(|service| {
        service.method.iter().map(|call| format!("{}/{}", service.name(), call.name()))
    });
    for call in calls {
        let known = gotgan_fuzzed::CALLS.contains(&call.as_str()) || call == "Workers/Session";
        assert!(known, "{call} is in no door: add it to the end of CALLS");
    }
}

#[test]
fn every_target_has_a_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let path = format!("fuzz_targets/{}.rs", target.name);
        assert!(manifest.contains(&path) && folder.join(&path).exists(), "{path}");
    }
}
