//! The layout of the workspace: which of our crates may know which.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};
use gotgan_tests::programs;

/// A crate, and those of ours that it may depend on; the only place that allows a new arrow.
const ALLOWED: [(&str, &[&str]); 13] = [
    ("gotgan-core", &[]),
    ("gotgan-proto", &[]),
    ("gotgan-store", &["gotgan-core"]),
    ("gotgan-sim", &["gotgan-core"]),
    ("gotgan-scheduler", &["gotgan-core", "gotgan-store", "gotgan-proto"]),
    ("gotgan-rehearsal", &["gotgan-core", "gotgan-store", "gotgan-scheduler", "gotgan-proto"]),
    ("gotgan-worker", &["gotgan-core", "gotgan-proto"]),
    ("gotgan", &["gotgan-core", "gotgan-proto"]),
    ("gotgan-libc-faults", &[]),
    ("gotgan-nvml-double", &[]),
    (
        "gotgan-tests",
        &[
            "gotgan-core",
            "gotgan-store",
            "gotgan-scheduler",
            "gotgan-worker",
            "gotgan",
            "gotgan-proto",
        ],
    ),
    (
        "gotgan-fuzzed",
        &[
            "gotgan-core",
            "gotgan-store",
            "gotgan-scheduler",
            "gotgan-sim",
            "gotgan-worker",
            "gotgan",
            "gotgan-proto",
        ],
    ),
    ("xtask", &[]),
];

/// What has no place among the core's dependencies: it decides, and does nothing else.
const KEPT_OUT_OF_THE_CORE: [&str; 5] = ["tokio", "tonic", "sqlx", "rand", "nix"];

#[test]
fn crates_know_only_those_they_may() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, others)| (*name, others.iter().copied().collect())).collect();
    let metadata = metadata();
    let ours: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let may =
            allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the list of this test"));
        // Itself with more features, for its own tests, is no arrow.
        let of_ours = package.dependencies.iter().filter(|dependency| {
            ours.contains(&dependency.name) && dependency.name != package.name.as_str()
        });
        for dependency in of_ours {
            assert!(
                may.contains(dependency.name.as_str()),
                "{name} may not depend on {}",
                dependency.name
            );
        }
    }
}

#[test]
fn the_core_does_no_io() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let core = packages.iter().find(|package| package.name.as_str() == "gotgan-core").unwrap();
    for dependency in core.dependencies.iter().filter(|one| one.kind == DependencyKind::Normal) {
        let name = dependency.name.as_str();
        assert!(!KEPT_OUT_OF_THE_CORE.contains(&name), "the core depends on {name}");
    }
}

#[test]
fn every_file_of_scenarios_is_run() {
    let directory = programs::checkout().join("tests/tests");
    let main = std::fs::read_to_string(directory.join("main.rs")).unwrap();
    for file in std::fs::read_dir(directory).unwrap().flatten() {
        let path = file.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap();
        assert!(
            name == "main" || main.contains(&format!("mod {name};")),
            "{name} is not in main.rs"
        );
    }
}

fn metadata() -> cargo_metadata::Metadata {
    let manifest = programs::checkout().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata")
}
