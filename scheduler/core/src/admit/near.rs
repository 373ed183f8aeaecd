//! The name that was probably meant.

/// Longest text a name is looked for; past that it is no typing mistake.
const TEXT_MAX: usize = 255;

/// The nearest of `known` to `text`, if one is near enough to have been meant: a third of its letters may differ,
/// upper and lower case do not count. A path is also found by its last part.
pub(super) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.is_empty() || text.len() > TEXT_MAX {
        return None;
    }
    let text = text.to_ascii_lowercase();
    known
        .map(|name| (distance_to(&text, name), name))
        .filter(|(distance, name)| *distance <= allowed(name.len().min(text.len())))
        .min()
        .map(|(_, name)| name)
}

/// The same as an ending of a message: `; did you mean "b200"?`, or what there is.
pub(super) fn suggestion<'a>(
    text: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    what: &str,
) -> String {
    const LISTED_MAX: usize = 5;
    if let Some(name) = nearest(text, known.clone()) {
        return format!("; did you mean \"{name}\"?");
    }
    let mut listed: Vec<&str> = known.take(LISTED_MAX + 1).collect();
    if listed.is_empty() {
        return format!("; there are no {what} yet");
    }
    if listed.len() > LISTED_MAX {
        listed[LISTED_MAX] = "...";
    }
    format!("; {what}: {}", listed.join(", "))
}

fn allowed(letters: usize) -> usize {
    (letters / 3).max(1)
}

fn distance_to(text: &str, name: &str) -> usize {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last == text {
        return 0;
    }
    distance(text.as_bytes(), name.to_ascii_lowercase().as_bytes())
}

/// Letters to add, drop or change to get from one to the other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_name_and_nonsense_does_not() {
        let classes = ["a100", "b200", "h200"];
        assert_eq!(nearest("B200", classes.into_iter()), Some("b200"));
        assert_eq!(nearest("b20", classes.into_iter()), Some("b200"));
        assert_eq!(nearest("quantum", classes.into_iter()), None);
    }

    #[test]
    fn a_path_is_found_by_its_last_part() {
        let paths = ["public", "public/nup", "public/nup/startup-042"];
        assert_eq!(nearest("startup-042", paths.into_iter()), Some("public/nup/startup-042"));
        assert_eq!(nearest("public/nub", paths.into_iter()), Some("public/nup"));
    }
}
