//! Plots as SVG: lines over two axes, each of which may be logarithmic, with marks for what
//! happened.

use std::fmt::Debug;
use std::ops::Range;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

const WIDTH: u32 = 960;
const HEIGHT: u32 = 340;

/// Told apart by most people, on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x1f, 0x5f, 0xa8),
    RGBColor(0xd9, 0x6a, 0x0b),
    RGBColor(0x2b, 0x8a, 0x3e),
    RGBColor(0xb0, 0x2a, 0x5b),
    RGBColor(0x6b, 0x4b, 0xb3),
    RGBColor(0x00, 0x80, 0x8a),
    RGBColor(0x7a, 0x5c, 0x3c),
];
const MARK_COLOUR: RGBColor = RGBColor(0xc9, 0x1a, 0x1a);
const GRID_COLOUR: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const TEXT_COLOUR: RGBColor = RGBColor(0x33, 0x33, 0x33);

/// Above the plot.
const BAND_HEIGHT: u32 = 50;
const BAND_LEFT: i32 = 78;
const DASH_LENGTH: i32 = 18;
/// About, at the size of the legend.
const CHARACTER_WIDTH: i32 = 7;

/// Room above the highest value.
const HEAD_ROOM: f64 = 1.08;

/// Most points have a dot each; more would be a thick line.
const DOTS_MAX: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0.
    Linear,
    Logarithmic,
}

impl Scale {
    /// Whether there is a place for a value.
    fn has(self, value: f64) -> bool {
        value.is_finite() && (self == Scale::Linear || value > 0.0)
    }

    /// What stands at a tick. Those of a logarithm come closer and closer up to the next power of
    /// ten: only 1, 2 and 5 of each are named.
    fn tick(self, value: f64) -> String {
        let leading = value / 10_f64.powf(value.log10().floor());
        match self {
            Scale::Logarithmic if ![1, 2, 5, 10].contains(&(leading.round() as u32)) => {
                String::new()
            }
            Scale::Linear | Scale::Logarithmic => short(value),
        }
    }
}

pub(crate) struct Axis {
    /// With its unit.
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

pub(crate) struct Series {
    pub(crate) name: String,
    /// Lines that are not joined to each other.
    pub(crate) lines: Vec<Vec<(f64, f64)>>,
}

/// Something that happened.
pub(crate) struct Mark {
    pub(crate) x: f64,
}

pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
    pub(crate) marks: Vec<Mark>,
    /// What marks stand for.
    pub(crate) marks_are: &'static str,
}

impl Axis {
    pub(crate) fn linear(label: &str) -> Axis {
        Axis {
            label: label.to_owned(),
            scale: Scale::Linear,
        }
    }

    pub(crate) fn logarithmic(label: &str) -> Axis {
        Axis {
            label: label.to_owned(),
            scale: Scale::Logarithmic,
        }
    }
}

impl Plot {
    pub(crate) fn new(title: &str, x: Axis, y: Axis, series: Vec<Series>) -> Plot {
        Plot {
            title: title.to_owned(),
            x,
            y,
            series,
            marks: Vec::new(),
            marks_are: "",
        }
    }

    /// The plot as an SVG element, which is a file, too.
    pub(crate) fn svg(&self) -> anyhow::Result<String> {
        side_by_side(&[self])
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let lines = self.series.iter().flat_map(|series| &series.lines);
        lines.flatten().copied()
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> anyhow::Result<()> {
        let marks = self.marks.iter().map(|mark| mark.x);
        let x = range(
            self.x.scale,
            self.points().map(|(x, _)| x).chain(marks),
            1.0,
        );
        let y = range(self.y.scale, self.points().map(|(_, y)| y), HEAD_ROOM);
        match (self.x.scale, self.y.scale) {
            (Scale::Linear, Scale::Linear) => self.draw_in(area, x, y),
            (Scale::Linear, Scale::Logarithmic) => self.draw_in(area, x, y.log_scale()),
            (Scale::Logarithmic, Scale::Linear) => self.draw_in(area, x.log_scale(), y),
            (Scale::Logarithmic, Scale::Logarithmic) => {
                self.draw_in(area, x.log_scale(), y.log_scale())
            }
        }
    }

    fn draw_in<X, Y>(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        x: X,
        y: Y,
    ) -> anyhow::Result<()>
    where
        X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let (band, area) = area.split_vertically(BAND_HEIGHT);
        self.draw_band(&band)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(70)
            .build_cartesian_2d(x, y)
            .map_err(failed)?;
        let range = chart.y_range();
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID_COLOUR)
            .axis_style(TEXT_COLOUR)
            .label_style(text(12))
            .axis_desc_style(text(13))
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&|value| self.x.scale.tick(*value))
            .y_label_formatter(&|value| self.y.scale.tick(*value))
            .draw()
            .map_err(failed)?;
        for mark in &self.marks {
            let line = [(mark.x, range.start), (mark.x, range.end)];
            let style = MARK_COLOUR.stroke_width(1);
            chart
                .draw_series(DashedLineSeries::new(line, 4, 4, style))
                .map_err(failed)?;
        }
        for (number, series) in self.series.iter().enumerate() {
            let colour = colour(number);
            let lines = series.lines.iter().flat_map(|line| {
                let is_gap = |(x, y): &(f64, f64)| !self.x.scale.has(*x) || !self.y.scale.has(*y);
                line.split(is_gap).filter(|part| !part.is_empty())
            });
            for line in lines {
                let points = line.iter().copied();
                chart
                    .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                    .map_err(failed)?;
                let is_sparse = line.len() <= DOTS_MAX && series.lines.len() == 1;
                // A line of one point is none.
                if is_sparse || line.len() == 1 {
                    let dots = line.iter().map(|at| Circle::new(*at, 3, colour.filled()));
                    chart.draw_series(dots).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// The title, and below it what each colour stands for: beside the lines, where it hides none
    /// of them.
    fn draw_band(&self, band: &DrawingArea<SVGBackend<'_>, Shift>) -> anyhow::Result<()> {
        band.draw(&Text::new(self.title.clone(), (BAND_LEFT, 8), text(17)))
            .map_err(failed)?;
        let series = self.series.iter().enumerate();
        let series = series.map(|(number, series)| (series.name.as_str(), colour(number)));
        let marks = (!self.marks.is_empty()).then_some((self.marks_are, MARK_COLOUR));
        let mut left = BAND_LEFT;
        for (name, colour) in series.chain(marks) {
            let dash = [(left, 38), (left + DASH_LENGTH, 38)];
            band.draw(&PathElement::new(dash, colour.stroke_width(3)))
                .map_err(failed)?;
            let at = (left + DASH_LENGTH + 6, 32);
            band.draw(&Text::new(name.to_owned(), at, text(12)))
                .map_err(failed)?;
            left += DASH_LENGTH + 24 + name.len() as i32 * CHARACTER_WIDTH;
        }
        Ok(())
    }
}

fn colour(number: usize) -> RGBColor {
    COLOURS[number % COLOURS.len()]
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT_COLOUR)
}

/// Plots beside each other in one picture.
pub(crate) fn side_by_side(plots: &[&Plot]) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let areas = root.split_evenly((1, plots.len()));
        for (plot, area) in plots.iter().zip(&areas) {
            plot.draw(area)?;
        }
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

/// From the smallest to the largest for which there is a place.
fn range(scale: Scale, values: impl Iterator<Item = f64>, head_room: f64) -> Range<f64> {
    let (mut low, mut high) = (f64::MAX, 0.0_f64);
    for value in values.filter(|value| scale.has(*value)) {
        low = low.min(value);
        high = high.max(value);
    }
    match scale {
        _ if high <= 0.0 => 0.1..1.0,
        Scale::Linear => 0.0..high * head_room,
        // A little more on both sides, so that nothing lies on the frame.
        Scale::Logarithmic => low * 0.8..high * 1.25,
    }
}

/// 1,500 as 1.5k.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // Three digits at most, without those that say nothing.
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}

/// The errors of drawings borrow what was drawn on.
fn failed(error: impl Debug) -> anyhow::Error {
    anyhow!("cannot draw: {error:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(x: Axis, y: Axis) -> Plot {
        let series = |name: &str| Series {
            name: name.to_owned(),
            lines: vec![vec![(1.0, 0.0), (10.0, 3.0), (100.0, 50.0)]],
        };
        Plot::new("A title", x, y, vec![series("p50"), series("p99")])
    }

    #[test]
    fn every_combination_of_scales_is_drawn_whole() {
        for logarithmic in [(false, false), (false, true), (true, false), (true, true)] {
            let axis = |logarithmic: bool, label| match logarithmic {
                true => Axis::logarithmic(label),
                false => Axis::linear(label),
            };
            let mut plot = plot(axis(logarithmic.0, "x, s"), axis(logarithmic.1, "y, ms"));
            plot.marks = vec![Mark { x: 20.0 }];
            plot.marks_are = "leader killed";
            let svg = plot.svg().expect("drawn");
            for text in [
                "<svg",
                "</svg>",
                "A title",
                "x, s",
                "y, ms",
                "p99",
                "leader killed",
            ] {
                assert!(svg.contains(text), "{text} is missing for {logarithmic:?}");
            }
            assert!(!svg.contains("NaN"), "{logarithmic:?}");
        }
    }

    #[test]
    fn a_plot_of_nothing_is_a_plot() {
        let empty = Plot::new(
            "Nothing",
            Axis::linear("x"),
            Axis::logarithmic("y"),
            Vec::new(),
        );
        assert!(empty.svg().expect("drawn").contains("Nothing"));
    }

    #[test]
    fn where_a_logarithm_has_no_place_the_line_has_a_gap() {
        let mut plot = plot(Axis::linear("x"), Axis::logarithmic("y"));
        plot.series.truncate(1);
        plot.series[0].lines = vec![vec![
            (1.0, 5.0),
            (2.0, 6.0),
            (3.0, 0.0),
            (4.0, 7.0),
            (5.0, 6.0),
        ]];
        let lines = |svg: &str| svg.matches("stroke-width=\"2\"").count();
        assert_eq!(lines(&plot.svg().expect("drawn")), 2);
        plot.y = Axis::linear("y");
        assert_eq!(lines(&plot.svg().expect("drawn")), 1);
    }

    #[test]
    fn a_logarithm_names_few_of_its_ticks() {
        let ticks = [10.0, 20.0, 30.0, 50.0, 90.0, 100.0].map(|at| Scale::Logarithmic.tick(at));
        assert_eq!(ticks, ["10", "20", "", "50", "", "100"]);
        assert_eq!(Scale::Linear.tick(30.0), "30");
        assert_eq!(Scale::Linear.tick(0.0), "0");
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.25"),
            (1.0, "1"),
            (12.5, "12.5"),
            (100.0, "100"),
            (1_500.0, "1.5k"),
            (120_000.0, "120k"),
            (3e6, "3M"),
        ];
        for (value, wanted) in cases {
            assert_eq!(short(value), wanted);
        }
    }
}
