//! `gotgan quota validate`: checks files without a scheduler, with the code that the scheduler checks them with, and
//! shows what they sum to.

use std::path::PathBuf;

use clap::Args;
use gotgan_core::amount::UnixMicros;
use gotgan_core::quota::{self, Interval, QuotaBook, Sums, show_moment};

use super::files::read_files;
use crate::{
    context::Context,
    error::{Error, Exit},
    output::table::{Table, Tone, column},
    view::{amount, validation::ValidationView},
};

/// Check files at every date at which something changes, and show what they sum to
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan quota validate quota/\n  gotgan quota validate quota/ --at 2027-01-04\n\n\
                  Ends with 0 if the files are sound, with 3 if they are not. No scheduler is asked."
)]
pub struct ValidateQuota {
    /// TOML files, or folders of them
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Show the sums of every class and programme at that date, as in 2027-01-04 (midnight, KST)
    #[arg(long, value_name = "DATE", value_parser = quota::read_moment)]
    at: Option<UnixMicros>,
}

impl ValidateQuota {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Error> {
        let files = read_files(&self.paths)?;
        let count = files.len();
        let texts: Vec<_> = files.into_iter().map(|file| (file.name, file.text)).collect();
        let parsed = quota::parse(&texts);
        let exit = if parsed.is_ok() { Exit::Ok } else { Exit::Invalid };
        let output = &context.output;
        if output.json {
            let view = ValidationView::of(&parsed.map(|book| sums(&book, self.at)));
            output.document("gotgan.quota_validation/1", &view)?;
            return Ok(exit.code());
        }
        match parsed {
            Ok(book) => {
                let sums = sums(&book, self.at);
                match (self.at, sums.as_slice()) {
                    (Some(_), [one]) => output.table(&by_programme(one))?,
                    _ => output.table(&by_date(&sums))?,
                }
                output.aside(&format!("{count} files are sound: {} nodes", book.nodes.len()));
            }
            Err(faults) => {
                for fault in &faults {
                    output.line(&fault.to_string())?;
                }
                output.aside(&format!("{} faults; nothing can be applied", faults.len()));
            }
        }
        Ok(exit.code())
    }
}

/// The sums at one moment, or at the beginning and at every moment at which something changes.
fn sums(book: &QuotaBook, at: Option<UnixMicros>) -> Vec<Sums> {
    let Some(at) = at else {
        let moments = std::iter::once(Interval::ALWAYS.from).chain(book.breakpoints());
        return moments.map(|at| book.sums(at)).collect();
    };
    vec![book.sums(at)]
}

fn by_date(sums: &[Sums]) -> Table {
    let mut table = Table::new(&[
        column("FROM"),
        column("LEAVES").right(),
        column("GUARANTEED").right(),
        column("ACCEPTED").right(),
        column("DUE").right(),
        column("SPARE").right().drop(1),
        column("WAITING").right(),
    ]);
    // Before the first date there is mostly nothing.
    let is_something = |sums: &&Sums| {
        let capacity = sums.capacity();
        !(sums.guaranteed() + capacity.accepted + capacity.promised).is_zero()
    };
    let shown = sums.iter().filter(is_something);
    for sums in shown {
        let capacity = sums.capacity();
        let plain = |gpus: gotgan_core::amount::GpuMilli| (amount::milli(gpus.0), Tone::Plain);
        let waiting = sums.waiting();
        let tone = if waiting.is_zero() { Tone::Plain } else { Tone::Warning };
        table.toned_row([
            (show_moment(sums.at), Tone::Plain),
            (sums.leaves.to_string(), Tone::Plain),
            plain(sums.guaranteed()),
            plain(capacity.accepted),
            plain(capacity.promised),
            plain(capacity.spare),
            (amount::milli(waiting.0), tone),
        ]);
    }
    table
}

/// A row for each class and programme, each class ending with its total.
fn by_programme(sums: &Sums) -> Table {
    let mut table = Table::new(&[
        column("CLASS"),
        column("PROGRAMME").shrink(16).keep_end(),
        column("GUARANTEED").right(),
        column("ACCEPTED").right(),
        column("DUE").right(),
    ]);
    for (class, sums) in &sums.classes {
        for (path, guaranteed) in &sums.programmes {
            let gpus = amount::milli(guaranteed.0);
            table.row([class.to_string(), path.to_string(), gpus, String::new(), String::new()]);
        }
        table.row([
            class.to_string(),
            "total".to_owned(),
            amount::milli(sums.guaranteed.0),
            amount::milli(sums.capacity.accepted.0),
            amount::milli(sums.capacity.promised.0),
        ]);
    }
    table
}
