//! Reads at which parts of a budget people are told: `alert = [75, 90, 100]`.

use toml::Spanned;
use toml::de::DeValue;

use super::file::FileReader;
use super::value;
use crate::quota::Thresholds;

impl FileReader<'_> {
    /// Percentages; `None` after a fault.
    pub(super) fn read_alert(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Thresholds> {
        let DeValue::Array(entries) = value.get_ref() else {
            self.fault(value, field, "must be a list of percentages, as in [75, 90, 100]");
            return None;
        };
        let mut percents = Vec::new();
        for entry in entries {
            percents.push(self.value(field, entry, value::threshold)?);
        }
        Thresholds::new(percents).map_err(|bad| self.fault(value, field, bad.to_string())).ok()
    }
}
