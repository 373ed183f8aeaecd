//! What `#SBATCH` options mean here: the same, another option, nothing, a warning, or a refusal.

use crate::directives::RawOption;

/// What becomes of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Read as our own option of that name; there may be none.
    Same,
    /// Read as this one.
    Instead(RawOption),
    /// Already so; not worth a word.
    Nothing,
    /// A warning, with advice to add to it.
    Unsupported(&'static str),
    /// Another job would run than the author meant.
    Refused(&'static str),
}

/// Options that Slurm has and this program has not, long and short, with advice.
const UNSUPPORTED: &[(&str, &str, &str)] = &[
    ("--partition", "-p", "; name the class of GPUs: --gpu-class"),
    ("--qos", "-q", ""),
    ("--licenses", "-L", ""),
    ("--clusters", "-M", ""),
    ("--mail-type", "", ""),
    ("--mail-user", "", ""),
    ("--exclusive", "", "; ask for all GPUs of the node: --gpus-per-node"),
    ("--oversubscribe", "-s", ""),
    ("--overcommit", "-O", ""),
    ("--export", "", "; the job gets no variables of your shell, name them: --env KEY"),
    ("--export-file", "", ""),
    ("--get-user-env", "", ""),
    ("--propagate", "", ""),
    ("--distribution", "-m", ""),
    ("--mem-per-cpu", "", "; say the memory of a node: --mem"),
    ("--mem-per-gpu", "", "; say the memory of a node: --mem"),
    ("--cpus-per-gpu", "", "; say the CPUs of a node: --cpus-per-node"),
    ("--ntasks-per-gpu", "", "; start tasks with gotgan run"),
    ("--ntasks-per-core", "", ""),
    ("--ntasks-per-socket", "", ""),
    ("--gpus-per-socket", "", ""),
    ("--sockets-per-node", "", ""),
    ("--cores-per-socket", "", ""),
    ("--threads-per-core", "", ""),
    ("--hint", "", ""),
    ("--gpu-bind", "", ""),
    ("--gpu-freq", "", ""),
    ("--cpu-freq", "", ""),
    ("--gres-flags", "", ""),
    ("--mem-bind", "", ""),
    ("--tmp", "", ""),
    ("--switches", "", "; ask for nodes below one leaf switch: --one leaf, or --prefer leaf"),
    ("--contiguous", "", "; see --prefer"),
    ("--core-spec", "-S", ""),
    ("--thread-spec", "", ""),
    ("--mincpus", "", ""),
    ("--extra-node-info", "-B", ""),
    ("--nice", "", "; see --priority"),
    ("--open-mode", "", ""),
    ("--profile", "", ""),
    ("--acctg-freq", "", ""),
    ("--power", "", ""),
    ("--wckey", "", ""),
    ("--uid", "", ""),
    ("--gid", "", ""),
    ("--immediate", "-I", ""),
    ("--no-kill", "-k", ""),
    ("--kill-on-invalid-dep", "", "; a job whose dependency cannot be met is always cancelled"),
    ("--spread-job", "", ""),
    ("--use-min-nodes", "", ""),
    ("--wait-all-nodes", "", "; all nodes always start together"),
    ("--wait", "-W", "; use gotgan submit --wait"),
    ("--time-min", "", ""),
    ("--delay-boot", "", ""),
    ("--reboot", "", ""),
    ("--container", "", ""),
    ("--bb", "", ""),
    ("--bbf", "", ""),
    ("--mcs-label", "", ""),
    ("--priority-tier", "", ""),
    ("--resv-ports", "", ""),
    ("--network", "", ""),
    ("--nodefile", "-F", "; write the names: --nodelist"),
    ("--stepmgr", "", ""),
    ("--tres-bind", "", ""),
    ("--tres-per-task", "", ""),
    ("--tres-per-job", "", ""),
];

/// Options that say how the submission itself behaves, which a job does not see.
const NOTHING: &[(&str, &str)] =
    &[("--parsable", ""), ("--quiet", "-Q"), ("--verbose", "-v"), ("--ignore-pbs", "")];

/// What an `#SBATCH` option means; `known` says whether the command line has an option of that name.
#[must_use]
pub fn meaning(option: &RawOption, known: bool) -> Meaning {
    let value = option.value.as_deref().unwrap_or_default();
    match option.name.as_str() {
        "--gres" => generic_resources(value),
        "--output" | "-o" | "--error" | "-e" if value.contains("%a") => {
            Meaning::Instead(RawOption { value: Some(value.replace("%a", "%i")), ..option.clone() })
        }
        "--begin" | "-b" => Meaning::Refused(
            "a time to begin is not supported; use --hold and release the job then",
        ),
        "--input" | "-i" => Meaning::Refused(
            "input from a file is not supported; redirect it in the script: < FILE",
        ),
        "--wrap" => Meaning::Refused("a script cannot wrap a command; write the command into it"),
        "--constraint" | "-C" if !value.contains('=') => {
            Meaning::Unsupported("; labels are written key=value: --constraint hall=a")
        }
        // A wish for features there, the level of blocks here.
        "--prefer" => Meaning::Unsupported(""),
        "--workdir" => instead("--chdir", option),
        "--gpus-per-node" | "--gpus" | "-G" if value == "0" => Meaning::Nothing,
        "--signal" if value.contains("R:") => Meaning::Refused("write [B:]SIGNAL[@SECONDS]"),
        name => by_table(name, known),
    }
}

fn by_table(name: &str, known: bool) -> Meaning {
    if known {
        return Meaning::Same;
    }
    if NOTHING.iter().any(|(long, short)| name == *long || name == *short) {
        return Meaning::Nothing;
    }
    match UNSUPPORTED.iter().find(|(long, short, _)| name == *long || name == *short) {
        Some((_, _, advice)) => Meaning::Unsupported(advice),
        None => Meaning::Same,
    }
}

fn instead(name: &str, option: &RawOption) -> Meaning {
    Meaning::Instead(RawOption { name: name.to_owned(), value: option.value.clone() })
}

/// `gpu`, `gpu:8`, `gpu:b200:8` ask for GPUs on each node; nothing else is a generic resource here.
fn generic_resources(value: &str) -> Meaning {
    if value == "none" || value == "gpu:0" {
        return Meaning::Nothing;
    }
    let amount = match value.strip_prefix("gpu") {
        Some("") => Some("1".to_owned()),
        Some(rest) => rest.strip_prefix(':').map(|rest| {
            let counted = rest.rsplit(':').next().is_some_and(|last| last.parse::<u32>().is_ok());
            if counted { rest.to_owned() } else { format!("{rest}:1") }
        }),
        None => None,
    };
    match amount {
        Some(amount) if !amount.contains(',') => {
            Meaning::Instead(RawOption { name: "--gpus-per-node".to_owned(), value: Some(amount) })
        }
        _ => Meaning::Refused("only GPUs can be asked for, as in --gres=gpu:b200:8"),
    }
}
