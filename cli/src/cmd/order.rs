//! `gotgan why JOB --before JOB`: what decided between two jobs, and whether it follows from the numbers.

use gotgan_proto::v1;

use crate::{
    client::Client,
    context::Context,
    error::{Error, Exit, printable},
    output::{
        table::{Table, Tone, column},
        time,
    },
    view::order::{OrderView, RankView, RungView, check},
};

/// Asks, and prints the answer.
pub(super) async fn run(
    context: &Context,
    client: &Client,
    (job_id, before_job_id): (u64, u64),
    checks: bool,
) -> Result<u8, Error> {
    let request = v1::ExplainOrderRequest { job_id, before_job_id };
    let answer = client.call(async |api| api.jobs().explain_order(request).await).await?;
    let mut view = OrderView::of(&answer);
    view.check = checks.then(|| check(&answer));
    let output = &context.output;
    if output.json {
        output.document("gotgan.order/1", &view)?;
    } else {
        output.text(&text(&view))?;
        if has_rungs(&view) {
            output.table(&table(&view))?;
        }
        if let Some(check) = &view.check {
            output.line(&format!("check: {}", check.text))?;
        }
    }
    let fails = view.check.is_some_and(|check| check.holds == Some(false));
    Ok(if fails { Exit::Failed.code() } else { Exit::Ok.code() })
}

fn text(view: &OrderView) -> String {
    let mut lines = vec![
        format!("Job {} started before job {}:", view.job_id, view.before_job_id),
        format!("  {}.", view.text),
        format!(
            "  pass {} {}, leadership {}, quota revision {}",
            view.pass,
            time::local(view.at_us.unwrap_or_default()),
            view.epoch,
            view.quota_revision
        ),
    ];
    lines.extend(view.first.iter().chain(&view.other).map(rank_line));
    lines.iter().map(|line| format!("{}\n", printable(line))).collect()
}

fn rank_line(rank: &RankView) -> String {
    let stage = stage_words(&rank.stage);
    let promised = if rank.promised { ", others had stopped for it" } else { "" };
    let own = match (rank.priority, rank.queued_us, rank.gpu_milli) {
        (Some(priority), Some(queued), Some(gpus)) => format!(
            "; priority {priority}, {} GPUs, waiting since {}",
            gpus_text(gpus),
            time::local(queued)
        ),
        (_, _, _) => String::new(),
    };
    format!("  job {}: {stage}{promised}{own}", rank.job_id)
}

fn stage_words(stage: &str) -> &str {
    match stage {
        "reserved" => "on nodes reserved for its project",
        "planned" => "its planned start had come",
        "guaranteed" => "within a guarantee",
        "borrowed" => "not within a guarantee",
        "overuse" => "beyond a budget",
        other => other,
    }
}

fn gpus_text(milli: u64) -> String {
    match milli % 1000 {
        0 => (milli / 1000).to_string(),
        part => format!("{}.{part:03}", milli / 1000),
    }
}

fn has_rungs(view: &OrderView) -> bool {
    view.first.iter().chain(&view.other).any(|rank| !rank.rungs.is_empty())
}

/// Level by level, what the two were compared by; the level that decided is marked.
fn table(view: &OrderView) -> Table {
    let mut table = Table::new(&[
        column("LEVEL"),
        column("JOB").right(),
        column("NODE").shrink(12).keep_end(),
        column("CLASS").drop(2),
        column("SHARE").right(),
        column("USED GPU-H").right().drop(1),
        column("OF SHARE").right(),
    ]);
    let ranks: Vec<&RankView> = view.first.iter().chain(&view.other).collect();
    let levels = ranks.iter().map(|rank| rank.rungs.len()).max().unwrap_or(0);
    for level in 0..levels {
        let decides = view.deciding_level.is_some_and(|deciding| deciding as usize == level);
        for rank in &ranks {
            if let Some(rung) = rank.rungs.get(level) {
                row(&mut table, level, rank.job_id, rung, decides);
            }
        }
    }
    table
}

fn row(table: &mut Table, level: usize, job_id: u64, rung: &RungView, decides: bool) {
    let tone = if decides { Tone::Good } else { Tone::Plain };
    let mark = if decides { " decides" } else { "" };
    let of_share = rung.per_mille.map(|part| format!("{}.{} %", part / 10, part % 10));
    table.toned_row([
        (format!("{}{mark}", level + 1), tone),
        (job_id.to_string(), Tone::Plain),
        (rung.node.clone().unwrap_or_else(|| "-".to_owned()), Tone::Plain),
        (rung.gpu_class.clone().unwrap_or_else(|| "all".to_owned()), Tone::Plain),
        (gpus_text(rung.share_milli.into()), Tone::Plain),
        ((rung.used_gpu_milli_seconds / 3_600_000).to_string(), Tone::Plain),
        (of_share.unwrap_or_else(|| "no share".to_owned()), tone),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> OrderView {
        let rung = |node: &str, used| v1::OrderRung {
            node: node.to_owned(),
            gpu_class: "b200".to_owned(),
            share_milli: 8_000,
            used_gpu_milli_seconds: used,
            asked: 1 << 32,
            level_used: "0".to_owned(),
            level_shares: "0".to_owned(),
            per_mille: Some(312),
        };
        let own = v1::OrderOwn { priority: 0, queued_us: 1_000_000, gpu_milli: 500 };
        let first = v1::OrderRank {
            job_id: 5,
            stage: v1::OrderStage::Borrowed.into(),
            rungs: vec![rung("public/startups/a-company-with-a-long-name", 7_200_000)],
            own: Some(own),
            ..Default::default()
        };
        let other =
            v1::OrderRank { job_id: 7, rungs: vec![rung("", 1)], own: None, ..first.clone() };
        OrderView::of(&v1::OrderExplanation {
            job_id: 5,
            before_job_id: 7,
            verdict: v1::OrderVerdict::First.into(),
            rule: v1::OrderRule::Share.into(),
            text: "by fair share".to_owned(),
            first: Some(first),
            other: Some(other),
            pass: 12,
            epoch: 3,
            ..Default::default()
        })
    }

    #[test]
    fn both_sides_are_told_and_the_level_that_decided_is_marked() {
        let text = text(&view());
        assert!(
            text.starts_with("Job 5 started before job 7:\n  by fair share.\n  pass 12 "),
            "{text}"
        );
        assert!(text.contains("job 5: not within a guarantee; priority 0, 0.500 GPUs"), "{text}");
        assert!(text.ends_with("  job 7: not within a guarantee\n"), "{text}");
        let table = table(&view()).render(Some(80), false);
        assert!(table.contains("1 decides") && table.contains("31.2 %"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    }
}
