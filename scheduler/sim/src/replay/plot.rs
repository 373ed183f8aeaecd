//! Plots as SVG: axes, lines and areas, nothing that moves. Colours come from the style sheet of the page.

use std::fmt::Write as _;

/// Size of a plot and of the room around it for what is written, in units of the drawing.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// Colours that there are for lines; after the last they begin anew.
pub const COLOURS: usize = 8;

/// Ticks that an axis has at most.
const TICKS_MAX: f64 = 7.0;

/// An axis from its least to its most value.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows, with its unit.
    pub title: String,
    /// Value at its beginning.
    pub least: f64,
    /// Value at its end.
    pub most: f64,
    /// What is written where.
    pub ticks: Vec<(f64, String)>,
}

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// What it is called in the legend, if there is one.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether what is below it is filled.
    pub filled: bool,
}

impl Axis {
    /// From nothing to a round number that is no less than `most`, with ticks at round numbers.
    #[must_use]
    pub fn from_zero(title: &str, most: f64) -> Self {
        let step = round_step(most.max(1.0) / TICKS_MAX);
        let count = (most.max(1.0) / step).ceil();
        let tick = |number: u32| (f64::from(number) * step, amount(f64::from(number) * step));
        // There are no more than a few.
        let ticks = (0..=count as u32).map(tick).collect();
        Axis { title: title.to_owned(), least: 0.0, most: count * step, ticks }
    }

    /// The same, but ending at `most` itself.
    #[must_use]
    pub fn up_to(title: &str, most: f64) -> Self {
        let mut axis = Axis::from_zero(title, most);
        axis.most = most.max(f64::MIN_POSITIVE);
        axis.ticks.retain(|(value, _)| *value <= most);
        axis
    }

    /// Part of the way along it.
    fn part(&self, value: f64) -> f64 {
        ((value - self.least) / (self.most - self.least)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, no less than `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let of = |times: &f64| times * power >= least * 0.999_999;
    [1.0, 2.0, 5.0].into_iter().find(of).unwrap_or(10.0) * power
}

fn amount(value: f64) -> String {
    let whole = value.round();
    if (value - whole).abs() < 1e-9 {
        return super::text::thousands(whole.abs() as u64);
    }
    format!("{value:.1}")
}

/// A plot of lines.
#[must_use]
pub fn plot(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(title)
    );
    grid(&mut svg, x, y);
    for (number, line) in lines.iter().enumerate() {
        draw(&mut svg, x, y, line, number % COLOURS);
    }
    svg.push_str("</svg>\n");
    if lines.len() > 1 {
        legend(&mut svg, lines);
    }
    svg
}

fn across(x: &Axis, value: f64) -> f64 {
    LEFT + x.part(value) * (WIDTH - LEFT - RIGHT)
}

fn down(y: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - y.part(value) * (HEIGHT - TOP - BOTTOM)
}

fn grid(svg: &mut String, x: &Axis, y: &Axis) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    // Writing to a text cannot fail.
    for (value, text) in &y.ticks {
        let at = down(y, *value);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
        let (left, at) = (LEFT - 8.0, at + 4.0);
        let _ = writeln!(
            svg,
            "<text class=\"end\" x=\"{left}\" y=\"{at:.1}\">{}</text>",
            escaped(text)
        );
    }
    for (value, text) in &x.ticks {
        let at = across(x, *value);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>");
        let below = bottom + 17.0;
        let _ = writeln!(
            svg,
            "<text class=\"mid\" x=\"{at:.1}\" y=\"{below}\">{}</text>",
            escaped(text)
        );
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>");
    let (middle, lowest) = (f64::midpoint(LEFT, right), HEIGHT - 8.0);
    let _ = writeln!(
        svg,
        "<text class=\"mid title\" x=\"{middle}\" y=\"{lowest}\">{}</text>",
        escaped(&x.title)
    );
    let centre = f64::midpoint(TOP, bottom);
    let _ = writeln!(
        svg,
        "<text class=\"mid title\" transform=\"translate(14 {centre}) rotate(-90)\">{}</text>",
        escaped(&y.title)
    );
}

fn draw(svg: &mut String, x: &Axis, y: &Axis, line: &Line, colour: usize) {
    let points: Vec<(f64, f64)> =
        line.points.iter().map(|(value, height)| (across(x, *value), down(y, *height))).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    let mut path = String::new();
    for (number, (right, down)) in points.iter().enumerate() {
        let _ = write!(path, "{}{right:.1} {down:.1}", if number == 0 { 'M' } else { 'L' });
    }
    if line.filled {
        let bottom = HEIGHT - BOTTOM;
        let area = format!("{path}L{:.1} {bottom}L{:.1} {bottom}Z", last.0, first.0);
        let _ = writeln!(svg, "<path class=\"area c{colour}\" d=\"{area}\"/>");
    }
    let _ = writeln!(svg, "<path class=\"line c{colour}\" d=\"{path}\"/>");
}

fn legend(html: &mut String, lines: &[Line]) {
    html.push_str("<p class=\"legend\">");
    for (number, line) in lines.iter().enumerate() {
        let colour = number % COLOURS;
        let _ = write!(html, "<span><i class=\"c{colour}\"></i>{}</span>", escaped(&line.name));
    }
    html.push_str("</p>\n");
}

/// Text that may stand in HTML and in attributes.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        let ends = |most| (Axis::from_zero("", most).most, Axis::from_zero("", most).ticks.len());
        assert_eq!(ends(512.0), (600.0, 7));
        assert_eq!(ends(7.0), (7.0, 8));
        assert_eq!(ends(0.0), (1.0, 6));
        assert_eq!(Axis::up_to("", 512.0).most, 512.0);
        assert_eq!(Axis::up_to("", 512.0).ticks.last().unwrap().1, "500");
    }

    #[test]
    fn names_from_a_trace_cannot_become_tags() {
        let line = Line { name: "<b>\"&".to_owned(), points: vec![(0.0, 1.0)], filled: true };
        let axis = Axis::from_zero("<i>", 1.0);
        let html = plot("<u>", &axis, &axis, &[line.clone(), line]);
        assert!(!html.contains("<b>") && !html.contains("<i>") && !html.contains("<u>"));
    }
}
