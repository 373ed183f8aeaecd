//! Reads reservations and loans.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::FileReader;
use super::value;
use crate::amount::{GpuMilli, UnixMicros};
use crate::ids::{BadName, ClusterName, GpuClass, LoanName, ProjectPath, ReservationName};
use crate::quota::dated::Interval;
use crate::quota::loan::LoanTerms;
use crate::quota::moment;
use crate::quota::reserve::{Fabric, RESERVATIONS_MAX, ReservationTerms};

/// Word for whichever cluster could hold it.
const ANY: &str = "any";
/// Loans that all files together may have; a limit on what one request can make the scheduler hold.
const LOANS_MAX: usize = 10_000;

/// What loans and reservations have in common, as far as it was said.
#[derive(Debug, Default)]
struct Grant {
    class: Option<GpuClass>,
    gpus: Option<GpuMilli>,
    from: Option<UnixMicros>,
    until: Option<UnixMicros>,
}

impl Grant {
    /// All of it, if all was said.
    fn whole(self) -> Option<(GpuClass, GpuMilli, Interval)> {
        let during = Interval { from: self.from?, until: self.until? };
        Some((self.class?, self.gpus?, during))
    }
}

impl FileReader<'_> {
    /// `[[reservation]]`.
    pub(super) fn read_reservations(&mut self, list: &[Spanned<DeValue<'_>>]) {
        for one in list {
            let Some((name, field, table)) = self.identified("reservation", one) else { continue };
            let (mut grant, mut node, mut fabric) = (Grant::default(), None, None);
            let mut decision = None;
            for (key, value) in table {
                let field = format!("{field}.{}", key.get_ref());
                self.note(key, &field);
                match key.get_ref().as_ref() {
                    "id" => {}
                    "node" => node = self.named_as(&field, value, ProjectPath::new),
                    "cluster" => fabric = self.named_as(&field, value, fabric_of),
                    "decision" => decision = self.document(&field, value),
                    other if self.read_grant(&mut grant, other, &field, value) => {}
                    _ => self.unknown(
                        key,
                        &field,
                        "only id, node, class, gpus, cluster, from, until and decision are",
                    ),
                }
            }
            let rest = grant.whole().zip(node.zip(fabric)).zip(decision);
            let Some((((class, gpus, during), (holder, fabric)), decision)) = rest else {
                self.incomplete(
                    one,
                    &field,
                    "node, class, gpus, cluster, from, until and decision",
                );
                continue;
            };
            let terms = ReservationTerms { holder, class, gpus, fabric, during, decision };
            self.check_grant(one, &field, gpus, during);
            self.enter_reservation(one, &field, &name, terms);
        }
    }

    fn enter_reservation<T>(
        &mut self,
        at: &Spanned<T>,
        field: &str,
        name: &str,
        terms: ReservationTerms,
    ) {
        let known = &mut self.reading.book.reservations;
        match ReservationName::new(name) {
            Ok(name) if known.len() < RESERVATIONS_MAX => {
                known.insert(name, terms);
            }
            Ok(_) => {
                let message = format!(
                    "is one reservation too many: at most {RESERVATIONS_MAX}, remove those that are over"
                );
                self.fault(at, field, message);
            }
            Err(bad) => self.fault(at, field, bad.to_string()),
        }
    }

    /// `[[loan]]`.
    pub(super) fn read_loans(&mut self, list: &[Spanned<DeValue<'_>>]) {
        for one in list {
            let Some((name, field, table)) = self.identified("loan", one) else { continue };
            let (mut grant, mut lender, mut borrower) = (Grant::default(), None, None);
            let mut consent = None;
            for (key, value) in table {
                let field = format!("{field}.{}", key.get_ref());
                self.note(key, &field);
                match key.get_ref().as_ref() {
                    "id" => {}
                    "lender" => lender = self.named_as(&field, value, ProjectPath::new),
                    "borrower" => borrower = self.named_as(&field, value, ProjectPath::new),
                    "consent" => consent = self.document(&field, value),
                    other if self.read_grant(&mut grant, other, &field, value) => {}
                    _ => self.unknown(
                        key,
                        &field,
                        "only id, lender, borrower, class, gpus, from, until and consent are",
                    ),
                }
            }
            let rest = grant.whole().zip(lender.zip(borrower));
            let Some(((class, gpus, during), (lender, borrower))) = rest else {
                self.incomplete(one, &field, "lender, borrower, class, gpus, from and until");
                continue;
            };
            let terms = LoanTerms { lender, borrower, class, gpus, during, consent };
            self.check_grant(one, &field, gpus, during);
            self.enter_loan(one, &field, &name, terms);
        }
    }

    fn enter_loan<T>(&mut self, at: &Spanned<T>, field: &str, name: &str, terms: LoanTerms) {
        let related = |one: &ProjectPath, other: &ProjectPath| one.is_within(other.as_str());
        if related(&terms.lender, &terms.borrower) || related(&terms.borrower, &terms.lender) {
            let message =
                "goes from a node to itself, or to one above or below it: name another borrower";
            self.fault(at, &format!("{field}.borrower"), message);
        }
        let known = &mut self.reading.book.loans;
        match LoanName::new(name) {
            Ok(name) if known.len() < LOANS_MAX => {
                known.insert(name, terms);
            }
            Ok(_) => {
                let message = format!("is one loan too many: at most {LOANS_MAX} in all");
                self.fault(at, field, message);
            }
            Err(bad) => self.fault(at, field, bad.to_string()),
        }
    }

    /// The id of an entry of a list, the name of its field, and its table; `None` after a fault.
    fn identified<'t, 'i>(
        &mut self,
        kind: &str,
        one: &'t Spanned<DeValue<'i>>,
    ) -> Option<(String, String, &'t DeTable<'i>)> {
        let DeValue::Table(table) = one.get_ref() else {
            self.fault(one, kind, format!("must be a table: write [[{kind}]]"));
            return None;
        };
        let Some((key, id)) = table.get_key_value("id") else {
            self.fault(one, kind, "needs an id of its own, as in id = \"six-weeks\"");
            return None;
        };
        let name = self.text(&format!("{kind}.id"), id);
        let field = format!("{kind}.{name}");
        self.is_new(key, &field).then_some((name, field, table))
    }

    /// Reads what loans and reservations have in common; whether the key is one of those.
    fn read_grant(
        &mut self,
        grant: &mut Grant,
        key: &str,
        field: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> bool {
        match key {
            "class" => grant.class = self.named_as(field, value, GpuClass::new),
            "gpus" => grant.gpus = self.value(field, value, value::gpus),
            "from" => grant.from = self.value(field, value, value::moment),
            "until" => grant.until = self.value(field, value, value::moment),
            _ => return false,
        }
        true
    }

    fn check_grant<T>(&mut self, at: &Spanned<T>, field: &str, gpus: GpuMilli, during: Interval) {
        if gpus.is_zero() {
            self.fault(at, &format!("{field}.gpus"), "must be at least one GPU");
        }
        if during.from >= during.until {
            let message =
                format!("ends at {} and begins later or then", moment::show(during.until));
            self.fault(at, &format!("{field}.until"), message);
        }
    }

    fn named_as<N>(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&str) -> Result<N, BadName>,
    ) -> Option<N> {
        let text = self.text(field, value);
        read(&text).map_err(|bad| self.fault(value, field, bad.to_string())).ok()
    }

    fn document(&mut self, field: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let document = self.text(field, value);
        if document.trim().is_empty() {
            self.fault(value, field, "must name the document, as in \"GPU-2027-021\"");
            return None;
        }
        Some(document)
    }

    fn incomplete<T>(&mut self, at: &Spanned<T>, field: &str, needed: &str) {
        self.fault(at, field, format!("needs {needed}"));
    }
}

fn fabric_of(text: &str) -> Result<Fabric, BadName> {
    if text == ANY { Ok(Fabric::Any) } else { ClusterName::new(text).map(Fabric::Cluster) }
}
