//! Moving in from Slurm: every association has a verdict, and what is imported twice changes nothing.

use std::collections::BTreeSet;

use gotgan_core::ids::ProjectPath;
use gotgan_core::quota::import::{Imported, VerdictKind, import, read_dump};
use gotgan_core::quota::{self, audit};
use proptest::prelude::*;

const DUMP: &str = "\
Cluster - 'gpu1':Fairshare=1:QOS='normal'
Parent - 'root'
User - 'root':DefaultAccount='root':AdminLevel='Administrator':Fairshare=1
Account - 'Acad_Lab':Description='Academia':Organization='kisti':Fairshare=10:GrpTRES=gres/gpu:h200=4,gres/gpu=6
Account - 'ind':Fairshare=0:GrpTRES=cpu=64:MaxJobs=5:QOS='normal,high'
Parent - 'Acad_Lab'
Account - 'vision':Fairshare=2
User - 'kim':Partition='gpu'
Parent - 'vision'
User - 'lee':Fairshare=parent
User - 'park':MaxSubmitJobs=4
Parent - 'ind'
User - 'choi':Fairshare=1
Parent - 'nowhere'
Account - 'lost':Fairshare=1
";

fn imported(dump: &str) -> Imported {
    let (_, associations) = read_dump(dump).unwrap();
    let imported = import(&ProjectPath::new("slurm/gpu1").unwrap(), &associations);
    assert_eq!(imported.verdicts.len(), associations.len(), "one verdict an association");
    imported
}

#[test]
fn every_association_is_taken_mapped_or_refused_with_its_reasons() {
    let verdicts = imported(DUMP).verdicts.into_iter().map(|verdict| {
        let path = verdict.path.map_or_else(|| "-".to_owned(), |path| path.to_string());
        let user = verdict.user.unwrap_or_default();
        format!(
            "{} {user}: {} {path} {}",
            verdict.account,
            verdict.kind.word(),
            verdict.notes.join("; ")
        )
    });
    insta::assert_snapshot!(verdicts.collect::<Vec<_>>().join("\n"), @"
    root root: refused slurm/gpu1/direct AdminLevel=Administrator: make a token with the role that fits; is a member of slurm/gpu1/direct: jobs go to projects that have none below them
    Acad_Lab : mapped slurm/gpu1/acad-lab is called acad-lab: names have lower-case letters, digits and hyphens
    ind : refused slurm/gpu1/ind GrpTRES cpu=64: only GPUs are limited; MaxJobs=5 has no counterpart; QOS normal,high: there are no QOS; tiers follow from guarantees; Fairshare=0 became weight 1, the least there is
    vision : taken slurm/gpu1/acad-lab/vision 
    Acad_Lab kim: refused slurm/gpu1/acad-lab/direct Partition=gpu: a project is not bound to a partition; jobs name a class of GPUs; is a member of slurm/gpu1/acad-lab/direct: jobs go to projects that have none below them
    vision lee: taken slurm/gpu1/acad-lab/vision 
    vision park: refused slurm/gpu1/acad-lab/vision MaxSubmitJobs=4: a single user has no limits of their own
    ind choi: taken slurm/gpu1/ind 
    lost : refused - its parent nowhere has no place
    ");
}

#[test]
fn the_files_are_sound_and_say_what_the_accounts_said() {
    let files = imported(DUMP).files;
    let text: Vec<String> = files.iter().map(|(name, text)| format!("# {name}\n{text}")).collect();
    insta::assert_snapshot!(text.join("\n"), @r#"
    # acad-lab.toml
    [node."slurm/gpu1/acad-lab"]
    title = "Academia"
    weight = 10
    limit = { any = 6, h200 = 4 }

    [node."slurm/gpu1/acad-lab/direct"]

    [node."slurm/gpu1/acad-lab/vision"]
    weight = 2

    # direct.toml
    [node."slurm/gpu1/direct"]

    # ind.toml
    [node."slurm/gpu1/ind"]
    weight = 1

    # root.toml
    [node."slurm"]

    [node."slurm/gpu1"]
    "#);
    quota::parse(&files).unwrap();
}

#[test]
fn what_bounds_the_jobs_of_an_account_is_said_in_terms_of_its_node() {
    let imported = imported(
        "QOS - 'normal':Description='as everybody'\nCluster - 'c':Fairshare=1\nParent - 'root'\n\
         Account - 'a':MaxTRESPerJob=gres/gpu=8:MaxWallDurationPerJob=1440:GrpJobs=20\n\
         Account - 'b':MaxTRESPerJob=gres/gpu:h200=16,gres/gpu:b200=8\n\
         Account - 'c':MaxTRESPerJob=gres/gpu:h200=16,gres/gpu=8,node=2:MaxWallDurationPerJob=long\n",
    );
    let text: String = imported.files.iter().map(|(_, text)| text.as_str()).collect();
    for line in [
        "max_gang = 8\nmax_walltime = \"1440m\"\nmax_jobs = 20\n",
        "max_gang = { b200 = 8, h200 = 16 }\n",
        "[node.\"slurm/gpu1/c\"]\nmax_gang = 8\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let kinds: Vec<_> = imported.verdicts.iter().map(|verdict| verdict.kind).collect();
    assert_eq!(kinds, [VerdictKind::Mapped, VerdictKind::Mapped, VerdictKind::Refused]);
    let notes = imported.verdicts[2].notes.join("; ");
    for said in ["node=2: only GPUs", "the one for all was taken", "long: not a number of minutes"]
    {
        assert!(notes.contains(said), "{said} in {notes}");
    }
    quota::parse(&imported.files).unwrap();
}

/// A dump of `accounts` accounts with a few users each, in a tree that follows from the numbers.
fn dump(accounts: &[(u8, u8, u8)]) -> String {
    let mut text = "Cluster - 'c':Fairshare=1\n".to_owned();
    for (number, (parent, users, gpus)) in accounts.iter().enumerate() {
        let parent = match usize::from(*parent) % (number + 1) {
            0 => "root".to_owned(),
            above => format!("a{}", above - 1),
        };
        text.push_str(&format!(
            "Parent - '{parent}'\nAccount - 'a{number}':Fairshare={gpus}:GrpTRES=gres/gpu={gpus}\n"
        ));
        text.push_str(&format!("Parent - 'a{number}'\n"));
        for user in 0..users % 4 {
            text.push_str(&format!("User - 'u{number}-{user}':Fairshare=1\n"));
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300.max(ProptestConfig::default().cases)))]

    #[test]
    fn any_tree_is_imported_whole_and_the_second_time_there_is_nothing_to_change(
        accounts in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..60),
    ) {
        let (first, second) = (imported(&dump(&accounts)), imported(&dump(&accounts)));
        let (old, new) = (quota::parse(&first.files).unwrap(), quota::parse(&second.files).unwrap());
        prop_assert!(audit::edits(&old, &new).is_empty());
        let refused = first.verdicts.iter().filter(|one| one.kind == VerdictKind::Refused);
        prop_assert_eq!(refused.count(), 0);
        let paths: BTreeSet<_> = first.accounts.values().collect();
        prop_assert_eq!(paths.len(), accounts.len() + 1, "each account has a place of its own");
        let tree = old.at(gotgan_core::amount::UnixMicros(0));
        for verdict in first.verdicts.iter().filter(|one| one.user.is_some()) {
            prop_assert!(tree.is_leaf(verdict.path.as_ref().unwrap()), "members submit to leaves");
        }
    }
}
