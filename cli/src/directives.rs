//! What the directives of a script mean: each option is read exactly as the same option of the command line.
//!
//! `#SBATCH` options pass through `slurm.rs` first. An option that does not exist is an error; one that only
//! Slurm has is a warning, or an error where leaving it out would run another job than the author meant.

use clap::{Arg, Args, Command, FromArgMatches};

use crate::{
    options::JobOptions,
    script::{Dialect, Directive, Header, Note},
    slurm::{self, Meaning},
};

/// An option of a directive before it is known what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOption {
    /// With its dashes, as in `--nodes` or `-N`.
    pub name: String,
    pub value: Option<String>,
}

/// The options of a script's header, `#GOTGAN` over `#SBATCH`, and what deserves a warning.
///
/// # Errors
/// Every option that is malformed or not supported, with its line.
pub fn options_of(header: Header) -> Result<(JobOptions, Vec<Note>), Vec<Note>> {
    let reader = Reader::new();
    let (mut problems, mut warnings) = (Vec::new(), header.warnings);
    let mut options = JobOptions::default();
    for dialect in [Dialect::Sbatch, Dialect::Gotgan] {
        for directive in header.directives.iter().filter(|found| found.dialect == dialect) {
            let at_line = |message| Note { line: directive.line, message };
            match reader.read(directive) {
                Ok((found, notes)) => {
                    options = options.overridden_by(found);
                    warnings.extend(notes.into_iter().map(at_line));
                }
                Err(messages) => problems.extend(messages.into_iter().map(at_line)),
            }
        }
    }
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.line);
        return Err(problems);
    }
    warnings.sort_by_key(|warning| warning.line);
    Ok((options, warnings))
}

/// Reads options by the definition of the command line's own.
struct Reader {
    command: Command,
}

impl Reader {
    fn new() -> Self {
        let command = Command::new("directive").no_binary_name(true).disable_help_flag(true);
        Self { command: JobOptions::augment_args(command) }
    }

    /// The options of one line with their warnings, or everything that is wrong with it.
    fn read(&self, directive: &Directive) -> Result<(JobOptions, Vec<String>), Vec<String>> {
        let (mut options, mut warnings, mut problems) =
            (JobOptions::default(), Vec::new(), Vec::new());
        let mut words = directive.words.iter().map(String::as_str).peekable();
        if directive.words.is_empty() {
            return Err(vec![format!("{} without an option", directive.dialect.marker())]);
        }
        while let Some(word) = words.next() {
            let mut option = match split_option(word) {
                Ok(option) => option,
                Err(message) => {
                    problems.push(message);
                    continue;
                }
            };
            if option.value.is_none() && self.wants_value(&option.name) {
                option.value =
                    words.next_if(|next| is_value(next, &option.name)).map(str::to_owned);
            }
            match self.understand(&option, directive.dialect) {
                Ok(Understood::Options(found)) => options = options.overridden_by(*found),
                Ok(Understood::Warning(message)) => warnings.push(message),
                Err(message) => problems.push(message),
            }
        }
        if problems.is_empty() { Ok((options, warnings)) } else { Err(problems) }
    }

    fn argument(&self, name: &str) -> Option<&Arg> {
        self.command.get_arguments().find(|argument| match name.strip_prefix("--") {
            Some(long) => {
                argument.get_long() == Some(long)
                    || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
            }
            None => argument.get_short().is_some_and(|short| name == format!("-{short}")),
        })
    }

    /// Whether the word after this option is its value; what is not known may have one.
    fn wants_value(&self, name: &str) -> bool {
        match self.argument(name) {
            Some(argument) => argument.get_action().takes_values(),
            None => true,
        }
    }

    fn understand(&self, option: &RawOption, dialect: Dialect) -> Result<Understood, String> {
        let meaning = match dialect {
            Dialect::Gotgan => Meaning::Same,
            Dialect::Sbatch => slurm::meaning(option, self.argument(&option.name).is_some()),
        };
        match meaning {
            Meaning::Same => self.parse(option),
            Meaning::Instead(other) => self.parse(&other),
            Meaning::Nothing => Ok(Understood::Options(Box::default())),
            Meaning::Unsupported(advice) => Ok(Understood::Warning(format!(
                "{} is not supported and has no effect{advice}",
                option.name
            ))),
            Meaning::Refused(message) => Err(format!("{}: {message}", option.name)),
        }
    }

    fn parse(&self, option: &RawOption) -> Result<Understood, String> {
        let Some(argument) = self.argument(&option.name) else {
            return Err(format!("there is no option {}", option.name));
        };
        let long = format!("--{}", argument.get_long().unwrap_or_default());
        let word = match (&option.value, argument.get_action().takes_values()) {
            (Some(value), true) => format!("{long}={value}"),
            (None, false) => long,
            (None, true) => return Err(format!("{} needs a value", option.name)),
            (Some(_), false) => return Err(format!("{} takes no value", option.name)),
        };
        let matches = self
            .command
            .clone()
            .try_get_matches_from([&word])
            .map_err(|problem| format!("{}: {}", option.name, reason_of(&problem)))?;
        let options =
            JobOptions::from_arg_matches(&matches).map_err(|problem| problem.to_string())?;
        Ok(Understood::Options(Box::new(options)))
    }
}

enum Understood {
    Options(Box<JobOptions>),
    Warning(String),
}

/// The part of a command line error that fits a directive.
fn reason_of(problem: &clap::Error) -> String {
    use std::error::Error as _;
    if let Some(source) = problem.source() {
        return source.to_string();
    }
    let text = problem.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Takes `--name=value`, `--name`, `-Nvalue` and `-N` apart.
fn split_option(word: &str) -> Result<RawOption, String> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        if name.is_empty() {
            return Err(format!("`{word}` is not an option"));
        }
        return Ok(RawOption { name: format!("--{name}"), value });
    }
    let mut letters = word.strip_prefix('-').unwrap_or_default().chars();
    let Some(short) = letters.next() else {
        return Err(format!("`{word}` is not an option; options begin with - or --"));
    };
    let rest = letters.as_str();
    let value = rest.strip_prefix('=').unwrap_or(rest);
    Ok(RawOption { name: format!("-{short}"), value: (!rest.is_empty()).then(|| value.to_owned()) })
}

/// Whether a word can be the value of the option before it; only numbers may begin with a dash.
fn is_value(word: &str, name: &str) -> bool {
    !word.starts_with('-')
        || (name == "--priority" && word[1..].bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::options::NodeCount;
    use crate::script;
    use proptest::prelude::*;

    fn read(lines: &str) -> Result<(JobOptions, Vec<Note>), Vec<Note>> {
        options_of(script::read_header(&format!("#!/bin/bash\n{lines}\necho\n")).unwrap())
    }

    fn problems(lines: &str) -> Vec<String> {
        read(lines)
            .unwrap_err()
            .into_iter()
            .map(|note| format!("{}: {}", note.line, note.message))
            .collect()
    }

    fn warnings(lines: &str) -> Vec<String> {
        read(lines)
            .unwrap()
            .1
            .into_iter()
            .map(|note| format!("{}: {}", note.line, note.message))
            .collect()
    }

    #[test]
    fn every_way_to_write_an_option_is_understood() {
        let (options, warnings) =
            read("#SBATCH -N2 -t 10 -J=name --mem 8G\n#SBATCH --account=public/nup --hold")
                .unwrap();
        assert_eq!(warnings, []);
        let nodes = Some(NodeCount { least: 2, most: None });
        assert_eq!((options.nodes, options.time, options.mem), (nodes, Some(600), Some(8192)));
        assert_eq!(
            (options.name.as_deref(), options.project.as_deref()),
            (Some("name"), Some("public/nup"))
        );
        assert!(options.hold);
    }

    #[test]
    fn gotgan_lines_win_wherever_they_stand() {
        let (options, _) = read("#GOTGAN --nodes 3-8\n#SBATCH --nodes 2 --time 5").unwrap();
        let nodes = Some(NodeCount { least: 3, most: Some(8) });
        assert_eq!((options.nodes, options.time), (nodes, Some(300)));
    }

    #[test]
    fn generic_resources_are_gpus() {
        let (options, _) = read("#SBATCH --gres=gpu:b200:8").unwrap();
        let gpus = options.gpus_per_node.unwrap();
        assert_eq!((gpus.gpu_class.as_deref(), gpus.count), (Some("b200"), 8));
        assert_eq!(read("#SBATCH --gres=gpu").unwrap().0.gpus_per_node.unwrap().count, 1);
    }

    #[test]
    fn what_only_slurm_has_is_warned_of_with_its_line() {
        let found =
            warnings("#SBATCH --partition=gpu\n#SBATCH -p gpu --mail-type ALL --exclusive\n");
        insta::assert_snapshot!(found.join("\n"), @"
        2: --partition is not supported and has no effect; name the class of GPUs: --gpu-class
        3: -p is not supported and has no effect; name the class of GPUs: --gpu-class
        3: --mail-type is not supported and has no effect
        3: --exclusive is not supported and has no effect; ask for all GPUs of the node: --gpus-per-node
        ");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let found = problems(
            "#SBATCH --nodes=two\n#GOTGAN --partition gpu\n#SBATCH --noeds 2\n#SBATCH --begin=now\n#GOTGAN --time\n#SBATCH\n#GOTGAN x\n#SBATCH --hold=1 --time 0",
        );
        insta::assert_snapshot!(found.join("\n"), @"
        2: --nodes: not a number; write one number from 1
        3: there is no option --partition
        4: there is no option --noeds
        5: --begin: a time to begin is not supported; use --hold and release the job then
        6: --time needs a value
        7: #SBATCH without an option
        8: `x` is not an option; options begin with - or --
        9: --hold takes no value
        9: --time: a time of zero; ask for at least one second
        ");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_script_makes_the_reader_panic(text in "((#GOTGAN|#SBATCH) ?(-{0,2}(nodes|time|gres|env|array|[a-zA-Z])[= ]?[a-z0-9:=é-]{0,6} ?){0,3}\n){0,5}") {
            if let Ok(header) = script::read_header(&text) {
                let _ = options_of(header);
            }
        }
    }
}
