//! Tables without borders that fit the terminal: first long texts are shortened, then columns are left out, the
//! least important first. In a pipe nothing is shortened, so that other programs see all of it.

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, Width,
};

use crate::error::printable;

/// Blanks between two columns.
const GAP: u16 = 2;

/// What a cell says beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Warning,
    Dim,
}

/// How a column behaves.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    right: bool,
    /// Left out when there is no room, greater ones first; 0 stays.
    drop_order: u8,
    /// Shortened down to this width when there is no room.
    shrinks_to: Option<u16>,
    /// Shortened at its start, since its end says more.
    keeps_end: bool,
}

/// A column of texts that always stays whole.
#[must_use]
pub const fn column(title: &'static str) -> Column {
    Column { title, right: false, drop_order: 0, shrinks_to: None, keeps_end: false }
}

impl Column {
    /// For numbers.
    #[must_use]
    pub const fn right(self) -> Self {
        Self { right: true, ..self }
    }

    /// May be left out; greater orders first.
    #[must_use]
    pub const fn drop(self, drop_order: u8) -> Self {
        Self { drop_order, ..self }
    }

    /// Shortened at its start, as suits a path.
    #[must_use]
    pub const fn keep_end(self) -> Self {
        Self { keeps_end: true, ..self }
    }

    /// May be shortened down to this width.
    #[must_use]
    pub const fn shrink(self, to: u16) -> Self {
        Self { shrinks_to: Some(to), ..self }
    }
}

/// Rows under columns.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    /// A table with these columns and no rows.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of plain cells.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.toned_row(cells.map(|cell| (cell, Tone::Plain)));
    }

    /// Adds a row of cells with their tones.
    pub fn toned_row<const N: usize>(&mut self, cells: [(String, Tone); N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into_iter().map(|(text, tone)| (printable(&text), tone)).collect());
    }

    /// The table as text, each line with its end.
    #[must_use]
    pub fn render(&self, width: Option<u16>, color: bool) -> String {
        let natural = self.natural_widths();
        let kept = self.kept_columns(width, &natural);
        let widths = self.fitted_widths(width, &natural, &kept);
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        if color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_truncation_indicator("…");
        table.set_header(self.header(&kept));
        for row in &self.rows {
            let cells: Vec<Cell> = kept
                .iter()
                .zip(&widths)
                .map(|(index, width)| self.cell(*index, &row[*index], *width))
                .collect();
            let mut cells = Row::from(cells);
            cells.max_height(1);
            table.add_row(cells);
        }
        if width.is_some() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(u16::MAX);
        }
        self.set_columns(&mut table, &kept, &widths, width.is_some());
        let lines: Vec<String> =
            table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        lines.concat()
    }

    /// The cell, its text cut at the start where the column keeps the end.
    fn cell(&self, index: usize, (text, tone): &(String, Tone), width: u16) -> Cell {
        let (length, room) = (text.chars().count(), usize::from(width));
        if !self.columns[index].keeps_end || length <= room {
            return styled(text, *tone);
        }
        let tail: String = text.chars().skip(length - room.saturating_sub(1)).collect();
        styled(&format!("…{tail}"), *tone)
    }

    fn header(&self, kept: &[usize]) -> Vec<Cell> {
        let title =
            |index: &usize| Cell::new(self.columns[*index].title).add_attribute(Attribute::Bold);
        kept.iter().map(title).collect()
    }

    fn set_columns(
        &self,
        table: &mut comfy_table::Table,
        kept: &[usize],
        widths: &[u16],
        fit: bool,
    ) {
        let last = kept.len().saturating_sub(1);
        for (position, (index, width)) in kept.iter().zip(widths).enumerate() {
            let Some(column) = table.column_mut(position) else {
                continue;
            };
            let gap = if position == last { 0 } else { GAP };
            column.set_padding((0, gap));
            if fit {
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + gap)));
            }
            if self.columns[*index].right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }

    /// Width of each column's longest text; 0 for a column that may be left out and says nothing.
    fn natural_widths(&self) -> Vec<u16> {
        let mut table = comfy_table::Table::new();
        table.set_header(self.columns.iter().map(|column| column.title).collect::<Vec<_>>());
        for row in &self.rows {
            table.add_row(row.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>());
        }
        let mut widths = table.column_max_content_widths();
        for (index, column) in self.columns.iter().enumerate() {
            let silent = self.rows.iter().all(|row| row[index].0.is_empty());
            if column.drop_order > 0 && silent {
                widths[index] = 0;
            }
        }
        widths
    }

    fn kept_columns(&self, width: Option<u16>, natural: &[u16]) -> Vec<usize> {
        let mut kept: Vec<usize> =
            (0..self.columns.len()).filter(|index| natural[*index] > 0).collect();
        let Some(width) = width else { return kept };
        let least = |index: &usize| {
            self.columns[*index].shrinks_to.unwrap_or(u16::MAX).min(natural[*index])
        };
        while total(kept.iter().map(least)) > width {
            let next = kept.iter().copied().filter(|index| self.columns[*index].drop_order > 0);
            let Some(next) = next.max_by_key(|index| self.columns[*index].drop_order) else {
                break;
            };
            kept.retain(|index| *index != next);
        }
        kept
    }

    /// Shortens the widest of the columns that may be, until the table fits.
    fn fitted_widths(&self, width: Option<u16>, natural: &[u16], kept: &[usize]) -> Vec<u16> {
        let mut widths: Vec<u16> = kept.iter().map(|index| natural[*index]).collect();
        let Some(width) = width else { return widths };
        while total(widths.iter().copied()) > width {
            let shrinkable = kept.iter().enumerate().filter(|(position, index)| {
                self.columns[**index].shrinks_to.is_some_and(|least| widths[*position] > least)
            });
            let Some((widest, _)) = shrinkable.max_by_key(|(position, _)| widths[*position]) else {
                break;
            };
            widths[widest] -= 1;
        }
        widths
    }
}

fn total(widths: impl Iterator<Item = u16>) -> u16 {
    widths
        .fold(0_u16, |sum, width| sum.saturating_add(width).saturating_add(GAP))
        .saturating_sub(GAP)
}

fn styled(text: &str, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Warning => cell.fg(Color::Yellow),
        Tone::Dim => cell.fg(Color::DarkGrey),
    }
}

/// Names and values, one a line, the values aligned; empty values are left out.
#[must_use]
pub fn fields(pairs: &[(&str, String)]) -> String {
    let shown = pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 1;
    shown
        .map(|(name, value)| {
            let label = format!("{name}:");
            format!("{label:<width$}  {}\n", printable(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&[
            column("ID").right(),
            column("NAME").shrink(8),
            column("OWNER").drop(2),
            column("STATE"),
            column("NOTE").drop(1),
        ]);
        table.row([
            "1".into(),
            "a job with quite a long name".into(),
            "kim".into(),
            "running".into(),
            String::new(),
        ]);
        table.row(["4096".into(), "곳간".into(), "lee".into(), "pending".into(), String::new()]);
        table
    }

    #[test]
    fn everything_is_there_in_a_pipe() {
        insta::assert_snapshot!(sample().render(None, false), @"
          ID  NAME                          OWNER  STATE
           1  a job with quite a long name  kim    running
        4096  곳간                          lee    pending
        ");
    }

    #[test]
    fn long_texts_are_shortened_before_columns_go() {
        insta::assert_snapshot!(sample().render(Some(40), false), @"
          ID  NAME                OWNER  STATE
           1  a job with quite …  kim    running
        4096  곳간                lee    pending
        ");
        insta::assert_snapshot!(sample().render(Some(24), false), @"
          ID  NAME       STATE
           1  a job…     running
        4096  곳간       pending
        ");
    }

    #[test]
    fn a_path_keeps_its_end() {
        let mut table = Table::new(&[column("PROJECT").shrink(10).keep_end(), column("STATE")]);
        table.row(["public/nup/startup-042".into(), "running".into()]);
        insta::assert_snapshot!(table.render(Some(22), false), @r"
        PROJECT        STATE
        …/startup-042  running
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 23..60 {
            for line in sample().render(Some(width), false).lines() {
                // Korean letters are two columns wide.
                let columns: usize =
                    line.chars().map(|letter| if letter >= '가' { 2 } else { 1 }).sum();
                assert!(columns <= usize::from(width), "{width}: {line}");
            }
        }
    }

    #[test]
    fn without_colour_there_is_no_escape() {
        let mut table = Table::new(&[column("A")]);
        table.toned_row([("x\u{1b}[31m".into(), Tone::Bad)]);
        assert!(!table.render(None, false).contains('\u{1b}'));
        assert!(table.render(None, true).contains('\u{1b}'));
    }

    #[test]
    fn empty_fields_are_left_out() {
        let text =
            fields(&[("Job", "1".into()), ("Comment", String::new()), ("State", "running".into())]);
        insta::assert_snapshot!(text, @"
        Job:      1
        State:    running
        ");
    }
}
