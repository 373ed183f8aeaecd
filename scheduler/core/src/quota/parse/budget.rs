//! Reads budgets: `budget = { period = "quarter", ngh = 4000, carry = "none" }` and `overuse = { cap = 1.25 }`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::FileReader;
use super::value;
use crate::quota::budget::{BudgetTerms, Carry, Period};

/// The one thing that can be said of promises.
const BEYOND: &str = "beyond";

impl FileReader<'_> {
    /// A budget; `None` after a fault.
    pub(super) fn read_budget(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<BudgetTerms> {
        let DeValue::Table(table) = value.get_ref() else {
            let form = "must be a table, as in budget = { period = \"quarter\", ngh = 4000 }";
            self.fault(value, field, form);
            return None;
        };
        let (mut period, mut ngh) = (None, None);
        let (mut carry, mut promises_beyond) = (Carry::default(), false);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let field = format!("{field}.{name}");
            self.note(key, &field);
            match name {
                "period" => period = Some(self.value(&field, value, value::period)?),
                "ngh" => ngh = Some(self.read_dated(&field, value, value::ngh)),
                "carry" => carry = self.read_carry(&field, value)?,
                "promise" => promises_beyond = self.value(&field, value, promise)?,
                _ => self.unknown(key, &field, "only period, ngh, carry and promise are"),
            }
        }
        let (Some(period), Some(ngh)) = (period, ngh) else {
            self.fault(value, field, "needs period and ngh");
            return None;
        };
        self.refuse_carry_of_grant(field, value, period, carry);
        Some(BudgetTerms { period, ngh, carry, promises_beyond })
    }

    fn refuse_carry_of_grant<T>(
        &mut self,
        field: &str,
        at: &Spanned<T>,
        period: Period,
        carry: Carry,
    ) {
        if period == Period::Grant && carry != Carry::default() {
            let message = "a grant has no next period that anything could go on to: remove it";
            self.fault(at, &format!("{field}.carry"), message);
        }
    }

    /// `"none"`, or `{ percent = 50, cap_ngh = 1000 }`.
    fn read_carry(&mut self, field: &str, value: &Spanned<DeValue<'_>>) -> Option<Carry> {
        let table = match value.get_ref() {
            DeValue::String(word) if word.as_ref() == "none" => return Some(Carry::default()),
            DeValue::Table(table) => table,
            _ => {
                let form = "must be \"none\", or a part as in { percent = 50, cap_ngh = 1000 }";
                self.fault(value, field, form);
                return None;
            }
        };
        let mut carry = Carry::default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let field = format!("{field}.{name}");
            match name {
                "percent" => carry.percent = self.value(&field, value, value::percent)?,
                "cap_ngh" => carry.most = Some(self.value(&field, value, value::ngh)?),
                _ => self.unknown(key, &field, "only percent and cap_ngh are"),
            }
        }
        if carry.percent == 0 {
            self.fault(value, &format!("{field}.percent"), "is missing: which part goes on?");
            return None;
        }
        Some(carry)
    }

    /// The cap of `overuse = { cap = 1.25 }`, thousandths.
    pub(super) fn read_overuse(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<u32> {
        let DeValue::Table(table) = value.get_ref() else {
            self.fault(value, field, "must be a table, as in overuse = { cap = 1.25 }");
            return None;
        };
        let mut cap = None;
        for (key, value) in table {
            let field = format!("{field}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "cap" => cap = Some(self.value(&field, value, value::cap)?),
                _ => self.unknown(key, &field, "only cap is"),
            }
        }
        if cap.is_none() {
            self.fault(value, &format!("{field}.cap"), "is missing: how much in all, as in 1.25?");
        }
        cap
    }

    /// Overuse and alerts are of a budget, so there must be one.
    pub(super) fn require_budget(&mut self, field: &str, table: &DeTable<'_>) {
        if table.contains_key("budget") {
            return;
        }
        let of_budgets = [
            ("overuse", "there is no budget here to use more than: add one or remove it"),
            ("alert", "there is no budget here to tell about: add one or remove it"),
        ];
        for (name, message) in of_budgets {
            if let Some((key, _)) = table.get_key_value(name) {
                self.fault(key, &format!("{field}.{name}"), message);
            }
        }
    }
}

/// `"beyond"`.
fn promise(value: &DeValue<'_>) -> Result<bool, String> {
    match value.as_str() {
        Some(BEYOND) => Ok(true),
        _ => Err(format!("can only be \"{BEYOND}\": the nodes below may have more together")),
    }
}
