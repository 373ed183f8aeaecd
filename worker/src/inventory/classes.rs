//! From the name of a GPU to Gotgan's class of it.

use std::collections::BTreeMap;

/// Parts of names and the class they mean; the first that fits counts.
const RULES: [(&str, &str); 14] = [
    ("gb300", "gb300"),
    ("gb200", "gb200"),
    ("gh200", "gh200"),
    ("b300", "b300"),
    ("b200", "b200"),
    ("h200", "h200"),
    ("h100", "h100"),
    ("h800", "h800"),
    ("a100", "a100"),
    ("a800", "a800"),
    ("rtx pro 6000", "rtx"),
    ("l40s", "l40s"),
    ("l40", "l40"),
    ("v100", "v100"),
];

/// The class of a GPU: as configured for its exact name, by rule, or its name in lower case and dashes.
pub fn gpu_class(name: &str, configured: &BTreeMap<String, String>) -> String {
    if let Some(class) = configured.get(name) {
        return class.clone();
    }
    let lower = name.to_lowercase();
    let rule = RULES.iter().find(|(part, _)| lower.contains(part));
    rule.map_or_else(|| slug(&lower), |(_, class)| (*class).to_owned())
}

fn slug(lower: &str) -> String {
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty() && *word != "nvidia").collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_drivers_give_them_have_their_class() {
        let none = BTreeMap::new();
        for (name, class) in [
            ("NVIDIA B200", "b200"),
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA GH200 480GB", "gh200"),
            ("NVIDIA GB200", "gb200"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx"),
            ("NVIDIA Quadro P400", "quadro-p400"),
        ] {
            assert_eq!(gpu_class(name, &none), class);
        }
    }

    #[test]
    fn the_configuration_wins() {
        let configured = [("NVIDIA B200".to_owned(), "big".to_owned())].into();
        assert_eq!(gpu_class("NVIDIA B200", &configured), "big");
    }
}
