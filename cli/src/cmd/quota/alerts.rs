//! `gotgan quota alerts`: which parts of which budgets were used, and when.

use clap::Args;
use gotgan_core::amount::Ngh;
use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    context::Context,
    error::Error,
    listing::PAGE_MAX,
    output::{
        table::{Table, column},
        time,
    },
    view::alert::AlertView,
};

/// Print which parts of budgets were used up, oldest first
#[derive(Args, Debug)]
#[command(
    after_help = "passed: so much of the budget was used; under: a larger budget took the use under it again; still: \
                  a larger\nbudget did not.\n\nExample:\n  gotgan quota alerts public/nup"
)]
pub struct Alerts {
    /// This node and what is below [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    path: String,
}

#[derive(Serialize)]
struct Listing {
    alerts: Vec<AlertView>,
}

impl Alerts {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Error> {
        let client = context.client()?;
        let (mut alerts, mut token) = (Vec::new(), String::new());
        loop {
            let page = Some(v1::PageRequest { size: PAGE_MAX, token });
            let request = v1::QuotaAlertsRequest { path: self.path.clone(), page };
            let answer = client.call(async |api| api.quota().alerts(request.clone()).await).await?;
            alerts.extend(answer.alerts.iter().map(AlertView::of));
            token = answer.next_token;
            if token.is_empty() {
                break;
            }
        }
        if context.output.json {
            return context.output.document("gotgan.quota_alerts/1", &Listing { alerts });
        }
        if alerts.is_empty() {
            context.output.aside("no alerts");
            return Ok(());
        }
        context.output.table(&table(&alerts, time::local))
    }
}

fn table(alerts: &[AlertView], when: impl Fn(i64) -> String) -> Table {
    let mut table = Table::new(&[
        column("TIME").drop(2),
        column("NODE").shrink(12).keep_end(),
        column("PERIOD").drop(1),
        column("%").right(),
        column("WHAT"),
        column("USED NGH").right(),
        column("OF").right(),
    ]);
    for alert in alerts {
        let all = alert.ngh_milli.saturating_add(alert.carried_ngh_milli);
        table.row([
            when(alert.at_us.unwrap_or_default()),
            alert.path.clone(),
            alert.period.clone(),
            alert.percent.to_string(),
            alert.kind.clone(),
            Ngh::thousandths(alert.used_ngh_milli).to_string(),
            Ngh::thousandths(all).to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_fit_a_narrow_terminal() {
        let alert = |percent, kind: &str, used_ngh_milli| {
            AlertView::of(&v1::QuotaAlert {
                seq: 7,
                at_us: 1_786_542_000_000_000,
                path: "public/nup/startup-042".to_owned(),
                percent,
                kind: kind.to_owned(),
                period: "2026-Q3".to_owned(),
                ngh_milli: 4_000_000,
                carried_ngh_milli: 0,
                used_ngh_milli,
            })
        };
        let alerts = [alert(75, "passed", 3_000_000), alert(100, "passed", 4_000_045)];
        let shown = table(&alerts, |_| "2026-08-14 22:40:00 KST".to_owned());
        insta::assert_snapshot!(shown.render(Some(80), false), @"
        TIME                     NODE             PERIOD     %  WHAT     USED NGH     OF
        2026-08-14 22:40:00 KST  …up/startup-042  2026-Q3   75  passed      3,000  4,000
        2026-08-14 22:40:00 KST  …up/startup-042  2026-Q3  100  passed  4,000.045  4,000
        ");
    }
}
