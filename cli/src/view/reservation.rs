//! Reservations by command.

use gotgan_proto::v1;
use serde::Serialize;

use crate::{
    output::time,
    view::{maintenance::StayingView, word},
};

/// A reservation as listings have it.
#[derive(Clone, Debug, Serialize)]
pub struct ReservationView {
    pub name: String,
    pub state: String,
    /// Projects that it is for, each with all below it.
    pub holders: Vec<String>,
    pub nodes: Vec<String>,
    pub from_us: Option<i64>,
    pub from: Option<String>,
    pub until_us: Option<i64>,
    pub until: Option<String>,
    pub reason: String,
    pub by: String,
    pub created_us: Option<i64>,
    pub created: Option<String>,
    /// Attempts that may still be there at its beginning; of one that holds, of others.
    pub staying: u32,
    /// Who cancelled it; empty: nobody.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cancelled_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct CreatedView {
    #[serde(flatten)]
    pub reservation: ReservationView,
    pub dry_run: bool,
    /// Who runs past the beginning.
    #[serde(rename = "staying_attempts")]
    pub staying: Vec<StayingView>,
}

/// All there are.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    pub reservations: Vec<ReservationView>,
}

impl ReservationView {
    /// As the API has it.
    #[must_use]
    pub fn of(it: v1::Reservation) -> Self {
        Self {
            name: it.name,
            state: word::reservation_state(it.state),
            holders: it.holders,
            nodes: it.nodes,
            from_us: time::set(it.from_us),
            from: time::rfc3339(it.from_us),
            until_us: time::set(it.until_us),
            until: time::rfc3339(it.until_us),
            reason: it.reason,
            by: it.by,
            created_us: time::set(it.created_us),
            created: time::rfc3339(it.created_us),
            staying: it.staying,
            cancelled_by: it.cancelled_by,
            cancelled_us: time::set(it.cancelled_us),
            cancelled: time::rfc3339(it.cancelled_us),
        }
    }

    /// For whom and until when, in few words; from when, where it does not hold yet.
    #[must_use]
    pub fn note(&self, now_us: i64) -> String {
        let moments = [self.from_us, self.until_us].map(Option::unwrap_or_default);
        let (from, until) = time::between(moments[0], moments[1], now_us);
        let when = match self.state.as_str() {
            "holds" => format!("until {until}"),
            _ => format!("from {from}"),
        };
        format!("reserved for {} {when}", self.holders.join(","))
    }
}

impl CreatedView {
    /// As the API has it.
    #[must_use]
    pub fn of(answer: v1::CreateReservationResponse, dry_run: bool) -> Self {
        let reservation = ReservationView::of(answer.reservation.unwrap_or_default());
        let staying = answer.staying.into_iter().map(StayingView::of).collect();
        Self { reservation, dry_run, staying }
    }
}
