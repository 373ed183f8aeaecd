//! `gotgan quota ledger NODE`: the account of a node, line by line, with its balance after each.

use gotgan_core::amount::{Ngh, UnixMicros};
use gotgan_core::quota::show_moment;
use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    client::Client,
    context::Context,
    error::Error,
    listing::PAGE_MAX,
    output::table::{Table, column},
    view::statement::{SectionView, StatementLineView},
};

/// From when until when; without them, the period in force.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range {
    pub from: Option<UnixMicros>,
    pub to: Option<UnixMicros>,
}

#[derive(Serialize)]
struct Listing {
    path: String,
    periods: Vec<SectionView>,
}

/// Prints the account of a node over a range, period by period.
pub async fn run(path: String, range: Range, context: &Context) -> Result<(), Error> {
    let client = context.client()?;
    let until = range.to.unwrap_or(UnixMicros(crate::output::time::now_us()));
    let mut at = range.from.or(range.to).map_or(0, |at| at.0);
    let mut periods = Vec::new();
    loop {
        let (period, lines) = fetch(&client, &path, at).await?;
        at = period.until_us;
        periods.push(SectionView::of(&period, &lines, range.from, range.to)?);
        if range.from.is_none() || at >= until.0 {
            break;
        }
    }
    if context.output.json {
        return context.output.document("gotgan.statement/1", &Listing { path, periods });
    }
    for (place, period) in periods.iter().enumerate() {
        if place > 0 {
            context.output.line("")?;
        }
        context.output.line(&format!("{path}, {}", period.period))?;
        context.output.table(&table(period))?;
    }
    Ok(())
}

/// All lines of the period that `at` lies in; 0: now.
async fn fetch(
    client: &Client,
    path: &str,
    at_us: i64,
) -> Result<(v1::StatementResponse, Vec<v1::StatementLine>), Error> {
    let (mut lines, mut token) = (Vec::new(), String::new());
    loop {
        let page = Some(v1::PageRequest { size: PAGE_MAX, token });
        let request = v1::StatementRequest { path: path.to_owned(), at_us, page };
        let mut answer =
            client.call(async |api| api.quota().statement(request.clone()).await).await?;
        lines.append(&mut answer.lines);
        if answer.next_token.is_empty() {
            return Ok((answer, lines));
        }
        token = answer.next_token;
    }
}

fn table(period: &SectionView) -> Table {
    let mut table = Table::new(&[
        column("TIME (KST)"),
        column("KIND"),
        column("PROJECT").shrink(10).keep_end(),
        column("JOB").right().drop(1),
        column("AGAINST").shrink(8).keep_end().drop(2),
        column("NGH").right(),
        column("BALANCE").right(),
    ]);
    let edge = |word: &str, balance: Ngh| {
        let empty = String::new;
        [empty(), word.to_owned(), empty(), empty(), empty(), empty(), balance.to_string()]
    };
    table.row(edge("opening", period.opening));
    for line in &period.lines {
        table.row(row(line));
    }
    table.row(edge("closing", period.closing));
    table
}

fn row(line: &StatementLineView) -> [String; 7] {
    let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
    let kind = match line.movement {
        0 => line.kind.clone(),
        number => format!("{} #{number}", line.kind),
    };
    [
        site_time(line.at_us),
        kind,
        line.project.clone(),
        number(line.job_id),
        line.counter_account.clone(),
        line.ngh.to_string(),
        line.balance.to_string(),
    ]
}

/// As in `2026-08-14 22:40:00`, in Korea, whatever the zone of the terminal; what always held has no time.
fn site_time(us: i64) -> String {
    if us == i64::MIN {
        return String::new();
    }
    let moment = show_moment(UnixMicros(us));
    match moment.split_once('T') {
        Some((date, time)) => format!("{date} {}", time.get(..8).unwrap_or(time)),
        None => format!("{moment} 00:00:00"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: i128 = 3_600_000_000;

    fn line(at: &str, kind: &str, ngh: i128, counter: &str) -> v1::StatementLine {
        v1::StatementLine {
            at_us: gotgan_core::quota::read_moment(at).unwrap().0,
            kind: kind.to_owned(),
            units: (ngh * HOUR).to_string(),
            counter_account: counter.to_owned(),
            ..Default::default()
        }
    }

    fn of_job(line: v1::StatementLine) -> v1::StatementLine {
        let project = "public/nup/startup-042".to_owned();
        v1::StatementLine { project, job_id: 1042, attempt: 1, ..line }
    }

    fn lines() -> Vec<v1::StatementLine> {
        let transfer = line("2026-08-05T09:30", "transfer", -250, "public/nup/startup-001");
        vec![
            line("2026-07-01", "grant", 4000, "office"),
            line("2026-07-01", "carry", 120, "2026-Q2"),
            of_job(line("2026-08-04T12:40", "hold", -384, "holds")),
            of_job(line("2026-08-05T09:00", "release", 384, "holds")),
            of_job(line("2026-08-05T09:00", "charge", -325, "pool")),
            v1::StatementLine { movement: 3, ..transfer },
        ]
    }

    #[test]
    fn a_statement_opens_runs_and_closes_within_eighty_columns() {
        let period = v1::StatementResponse { period: "2026-Q3".to_owned(), ..Default::default() };
        let section = SectionView::of(&period, &lines(), None, None).unwrap();
        insta::assert_snapshot!(table(&section).render(Some(80), false), @"
        TIME (KST)           KIND         PROJECT       JOB  AGAINST        NGH  BALANCE
                             opening                                                   0
        2026-07-01 00:00:00  grant                           office       4,000    4,000
        2026-07-01 00:00:00  carry                           2026-Q2        120    4,120
        2026-08-04 12:40:00  hold         …tartup-042  1042  holds         -384    3,736
        2026-08-05 09:00:00  release      …tartup-042  1042  holds          384    4,120
        2026-08-05 09:00:00  charge       …tartup-042  1042  pool          -325    3,795
        2026-08-05 09:30:00  transfer #3                     …tartup-001   -250    3,545
                             closing                                               3,545
        ");
    }

    #[test]
    fn what_lies_before_a_range_is_in_its_opening_balance_and_what_comes_after_is_left_out() {
        let period = v1::StatementResponse { period: "2026-Q3".to_owned(), ..Default::default() };
        let at = |text| Some(gotgan_core::quota::read_moment(text).unwrap());
        let (from, to) = (at("2026-08-05"), at("2026-08-05T09:15"));
        let section = SectionView::of(&period, &lines(), from, to).unwrap();
        let balances = (section.opening, section.lines.len(), section.closing);
        assert_eq!(balances, (Ngh(3736 * HOUR), 2, Ngh(3795 * HOUR)));
    }
}
