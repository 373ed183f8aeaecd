//! Too little power is left below a limit, in words.

use crate::plan::Blocker;

/// Stands in the note of a blocker where the power is there now and is planned for others.
pub(crate) const PLANNED: &str = "planned";

/// Stands in what a job asks of a node behind GPUs that must be capped, before the watts.
pub(crate) const CAPPED: &str = " that take a cap of";

/// How much power it needs of what, and how much of it is left.
pub(super) fn sentence(blocker: &Blocker) -> String {
    let Blocker { subject, needed, available, limit, note, .. } = blocker;
    let [needed_text, left, all] = [*needed, *available, *limit].map(watts);
    if note == PLANNED {
        return format!(
            "needs {needed_text} more in {subject}, of whose {all} others are planned to have all but {left} before it would be over"
        );
    }
    if needed > limit {
        return format!("needs {needed_text} more in {subject}, which may draw no more than {all}");
    }
    format!("needs {needed_text} more in {subject}; {left} of {all} are left")
}

/// What would help.
pub(super) fn hint(blocker: &Blocker) -> String {
    if blocker.needed > blocker.limit {
        "ask for fewer GPUs, or for a lower --gpu-power".to_owned()
    } else {
        "wait, or ask for a lower --gpu-power".to_owned()
    }
}

/// As in "12,400 W".
fn watts(watts: u64) -> String {
    let digits = watts.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} W")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watts_are_grouped_by_thousands() {
        assert_eq!(watts(950), "950 W");
        assert_eq!(watts(12_400), "12,400 W");
        assert_eq!(watts(1_000_000), "1,000,000 W");
    }
}
