//! Sentences for people.

/// Words in lines of 80 columns, all but the first with two blanks more.
pub fn filled(head: &str, text: &str) -> Vec<String> {
    let indent = " ".repeat(head.len() - head.trim_start().len() + 3);
    let mut lines = vec![head.to_owned()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().map(|line| (line.chars().count(), line));
        match line {
            Some((width, line)) if width + 1 + word.chars().count() <= 80 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
}
