//! Plots as SVG: curves over a number, bars over names. No more than the bench needs.

use crate::report::short;
use crate::stats::Spread;
use serde::Serialize;
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Room for the labels: left, top, right, bottom.
const MARGIN: [f64; 4] = [70.0, 34.0, 20.0, 64.0];
const COLOURS: [&str; 6] = ["#1b6ca8", "#d1495b", "#3a7d44", "#8d6a9f", "#b8860b", "#444444"];

/// One plot.
#[derive(Debug, Serialize)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) shape: Shape,
}

/// What is drawn.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    /// Points of each series, in the order of x.
    Curves(Vec<(String, Vec<[f64; 2]>)>),
    /// Medians, with the quartiles as whiskers.
    Bars(Vec<(String, Spread)>),
}

/// All plots, one below the other.
pub(crate) fn picture(plots: &[Plot]) -> String {
    let height = HEIGHT * plots.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (nth, plot) in plots.iter().enumerate() {
        // Writing into a string does not fail, here and below.
        let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", HEIGHT * nth as f64);
        plot.draw(&mut svg);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// From values to places on the page.
struct Scale {
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// From zero on, so that lengths can be compared.
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        Self { most: round_up(most), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let part = if value.is_finite() { (value / self.most).clamp(0.0, 1.0) } else { 0.0 };
        self.from + (self.to - self.from) * part
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        (0..=5).map(|mark| self.most * f64::from(mark) / 5.0)
    }
}

/// The next of 1, 2, 2.5, 5, 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value * 0.999_999).unwrap_or(value)
}

impl Plot {
    fn draw(&self, svg: &mut String) {
        let [left, top, right, bottom] = MARGIN;
        let (x_end, y_end) = (WIDTH - right, HEIGHT - bottom);
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"20\" font-size=\"14\">{}</text>", escaped(&self.title));
        let values: Vec<f64> = match &self.shape {
            Shape::Curves(series) => series.iter().flat_map(|(_, points)| points.iter().map(|[_, y]| *y)).collect(),
            Shape::Bars(bars) => bars.iter().map(|(_, spread)| spread.high).collect(),
        };
        let y = Scale::new(values.into_iter(), y_end, top);
        for mark in y.marks() {
            let at = y.at(mark);
            let _ =
                writeln!(svg, "<line x1=\"{left}\" y1=\"{at:.1}\" x2=\"{x_end}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                at + 4.0,
                short(mark)
            );
        }
        let middle = f64::midpoint(top, y_end);
        let _ = writeln!(
            svg,
            "<text transform=\"translate(14 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(self.y)
        );
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(left, x_end),
            y_end + 32.0,
            escaped(self.x)
        );
        match &self.shape {
            Shape::Curves(series) => {
                let x = Scale::new(series.iter().flat_map(|(_, points)| points.iter().map(|[x, _]| *x)), left, x_end);
                for mark in x.marks() {
                    let at = x.at(mark);
                    let _ = writeln!(
                        svg,
                        "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                        y_end + 16.0,
                        short(mark)
                    );
                }
                curves(svg, series, &x, &y);
            }
            Shape::Bars(bars) => draw_bars(svg, bars, &y, [left, x_end]),
        }
    }
}

fn curves(svg: &mut String, series: &[(String, Vec<[f64; 2]>)], x: &Scale, y: &Scale) {
    let width = (x.to - x.from) / series.len().max(1) as f64;
    for (nth, ((name, points), colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let places: Vec<_> = points.iter().map(|[px, py]| format!("{:.1},{:.1}", x.at(*px), y.at(*py))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            places.join(" ")
        );
        for [px, py] in points {
            let _ =
                writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>", x.at(*px), y.at(*py));
        }
        let at = x.from + width * nth as f64;
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" fill=\"{colour}\">{}</text>", y.from + 50.0, escaped(name));
    }
}

fn draw_bars(svg: &mut String, bars: &[(String, Spread)], y: &Scale, [left, right]: [f64; 2]) {
    let width = (right - left) / bars.len().max(1) as f64;
    for (nth, ((name, spread), colour)) in bars.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let (from, top) = (left + width * (nth as f64 + 0.15), y.at(spread.median));
        let middle = from + width * 0.35;
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\" fill-opacity=\"0.75\"/>",
            width * 0.7,
            y.from - top
        );
        let (low, high) = (y.at(spread.low), y.at(spread.high));
        let _ = writeln!(
            svg,
            "<line x1=\"{middle:.1}\" y1=\"{low:.1}\" x2=\"{middle:.1}\" y2=\"{high:.1}\" stroke=\"black\"/>"
        );
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            top - 4.0,
            short(spread.median)
        );
        // Long names stand in turn on two lines.
        let line = if nth % 2 == 0 { 16.0 } else { 30.0 };
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"9\">{}</text>",
            y.from + line,
            escaped(name)
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.0, 0.7, 1.0, 1.1, 23.0, 70_000.0].map(round_up), [1.0, 1.0, 1.0, 2.0, 25.0, 100_000.0]);
    }

    #[test]
    fn a_picture_has_every_point_and_every_bar() {
        let curves = Shape::Curves(vec![("a<b".to_owned(), vec![[0.0, 0.0], [10.0, 5.0]])]);
        let bars = Shape::Bars(vec![("x".to_owned(), Spread::one(2.0)), ("y".to_owned(), Spread::one(f64::NAN))]);
        let plots = [curves, bars].map(|shape| Plot { title: "t".to_owned(), x: "x", y: "y", shape });
        let svg = picture(&plots);
        assert_eq!(svg.matches("<circle").count(), 2);
        // The background is one too.
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
        // Full scale of both axes: the right end, and the top.
        assert!(svg.contains("cx=\"620.0\" cy=\"34.0\""), "{svg}");
    }
}
