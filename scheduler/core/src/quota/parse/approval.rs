//! Reads how many must approve a change.

use toml::Spanned;
use toml::de::DeValue;

use super::file::FileReader;
use super::value;
use crate::quota::approval::ApprovalRule;

/// Most people that a rule may ask for.
const APPROVERS_MAX: i64 = 10;

impl FileReader<'_> {
    /// `[[approval]]`, in one file only.
    pub(super) fn read_approval(
        &mut self,
        key: &Spanned<impl AsRef<str>>,
        rules: &[Spanned<DeValue<'_>>],
    ) {
        if !self.is_new(key, "approval") {
            return;
        }
        let mut read: Vec<ApprovalRule> =
            rules.iter().filter_map(|rule| self.read_rule(rule)).collect();
        read.sort();
        for pair in read.windows(2) {
            if pair[0].above_gpus == pair[1].above_gpus {
                let message = format!(
                    "two rules are for changes above {} GPUs: keep one",
                    pair[0].above_gpus
                );
                self.fault(key, "approval.above_gpus", message);
            } else if pair[0].approvers > pair[1].approvers {
                let message = format!(
                    "above {} GPUs {} must approve, and above {} only {}: a larger change never needs fewer",
                    pair[0].above_gpus, pair[0].approvers, pair[1].above_gpus, pair[1].approvers
                );
                self.fault(key, "approval.approvers", message);
            }
        }
        self.reading.book.approval = read;
    }

    fn read_rule(&mut self, rule: &Spanned<DeValue<'_>>) -> Option<ApprovalRule> {
        let DeValue::Table(table) = rule.get_ref() else {
            self.fault(rule, "approval", "must be { above_gpus = 64, approvers = 1 }");
            return None;
        };
        let (mut above_gpus, mut approvers) = (None, None);
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let field = format!("approval.{name}");
            let people = |value: &DeValue<'_>| value::number(value, 1, APPROVERS_MAX, "people");
            match name {
                "above_gpus" => above_gpus = Some(self.value(&field, value, value::gpus)?),
                "approvers" => approvers = Some(self.value(&field, value, people)?),
                _ => self.unknown(key, &field, "only above_gpus and approvers are"),
            }
        }
        let approvers = approvers.and_then(|people| u32::try_from(people).ok());
        let Some((above_gpus, approvers)) = above_gpus.zip(approvers) else {
            self.fault(rule, "approval", "needs above_gpus and approvers");
            return None;
        };
        Some(ApprovalRule { above_gpus, approvers })
    }
}
