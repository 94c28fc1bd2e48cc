use hdrhistogram::Histogram;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;

use super::run::quantiles;
use super::table::seconds;
use super::{Quantile, Series};

/// A picture that cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// There is nothing to draw.
    #[error("no request of any run was answered, so there are no latencies to draw")]
    Empty,
    /// The drawing library failed.
    #[error("the latencies cannot be drawn: {0}")]
    Drawing(String),
    /// Latencies cannot be added up.
    #[error("the latencies cannot be drawn: {0}")]
    Histogram(#[from] hdrhistogram::AdditionError),
}

const SIZE: (u32, u32) = (960, 560);
const FONT: &str = "sans-serif";

/// Colours that stay apart for the colour-blind, by Okabe and Ito, the strongest last.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
    RGBColor(213, 94, 0),
];

/// Draws the latency distributions as an SVG: the percentile on a scale on which each further nine is as wide as the one
/// before, against seconds. The runs of a series are drawn as one. The last series has the thickest line.
///
/// # Errors
/// If no series has a latency.
pub fn latency_svg(title: &str, series: &[Series]) -> Result<String, PlotError> {
    let curves = series.iter().map(Curve::of_series);
    curves_svg(title, curves.collect::<Result<_, _>>()?)
}

/// The same of distributions that are known exactly: names, and latencies in seconds in rising order.
///
/// # Errors
/// If none has a latency.
pub fn distribution_svg(title: &str, series: &[(&str, Vec<f64>)]) -> Result<String, PlotError> {
    let curves = series
        .iter()
        .map(|(name, sorted)| Curve::of_sorted(name, sorted));
    curves_svg(title, curves.collect())
}

fn curves_svg(title: &str, mut curves: Vec<Curve<'_>>) -> Result<String, PlotError> {
    curves.retain(|curve| !curve.points.is_empty());
    let slowest = curves
        .iter()
        .flat_map(|curve| &curve.points)
        .map(|(_, y)| *y);
    let top = slowest.fold(0.0, f64::max) * 1.05;
    if curves.is_empty() {
        return Err(PlotError::Empty);
    }
    let mut svg = String::new();
    draw(&mut svg, title, &curves, top).map_err(|error| PlotError::Drawing(error.to_string()))?;
    Ok(svg)
}

/// One line: quantiles and seconds, from left to right.
struct Curve<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// The last quantile worth drawing: beyond the last few requests a curve is chance, not distribution.
fn last_known(requests: usize) -> f64 {
    (1.0 - 3.0 / requests as f64).min(NinesAxis::MAX)
}

impl<'a> Curve<'a> {
    fn of_series(series: &'a Series) -> Result<Self, PlotError> {
        let mut pooled: Option<Histogram<u64>> = None;
        for run in &series.runs {
            match &mut pooled {
                Some(pooled) => pooled.add(&run.latencies)?,
                None => pooled = Some(run.latencies.clone()),
            }
        }
        let pooled = pooled.filter(|pooled| !pooled.is_empty());
        let known = pooled
            .as_ref()
            .map_or(0.0, |pooled| last_known(pooled.len() as usize));
        let points = pooled.iter().flat_map(quantiles);
        Ok(Self {
            name: &series.name,
            points: points
                .filter(|point| point.quantile <= known)
                .map(|Quantile { quantile, seconds }| (quantile, seconds))
                .collect(),
        })
    }

    /// A hundred points for each nine.
    fn of_sorted(name: &'a str, sorted: &[f64]) -> Self {
        let known = last_known(sorted.len());
        let nines = (0..=300).map(|step| 1.0 - 10f64.powf(f64::from(step) / -100.0));
        let points = nines.take_while(|quantile| *quantile <= known);
        let at = |quantile: f64| {
            let place = (quantile * sorted.len() as f64) as usize;
            Some((quantile, *sorted.get(place)?))
        };
        Self {
            name,
            points: points.filter_map(at).collect(),
        }
    }
}

/// The horizontal axis: quantiles, at the number of their nines. 0.9 is at 1, 0.99 at 2.
struct NinesAxis {
    end: f64,
}

impl NinesAxis {
    /// The farthest right that it can end.
    const MAX: f64 = 0.999;
    const TICKS: [f64; 7] = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, Self::MAX];

    /// An axis that ends at the first tick that is beyond all curves.
    fn for_curves(curves: &[Curve<'_>]) -> Self {
        let last = curves.iter().filter_map(|curve| curve.points.last());
        let farthest = last.map(|(quantile, _)| *quantile).fold(0.0, f64::max);
        let end = Self::TICKS
            .into_iter()
            .find(|tick| *tick > 0.0 && *tick >= farthest);
        Self {
            end: end.unwrap_or(Self::MAX),
        }
    }

    fn nines(quantile: f64) -> f64 {
        -(1.0 - quantile).log10()
    }
}

impl Ranged for NinesAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, quantile: &f64, (left, right): (i32, i32)) -> i32 {
        let part = Self::nines(*quantile) / Self::nines(self.end);
        left + (f64::from(right - left) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        Self::TICKS
            .into_iter()
            .filter(|tick| *tick <= self.end)
            .collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.end
    }
}

impl ValueFormatter<f64> for NinesAxis {
    fn format_ext(&self, quantile: &f64) -> String {
        // Rounded first, so that 99.9 does not show as 99.90000000000001.
        format!("p{}", (quantile * 1e4).round() / 100.0)
    }
}

fn draw(
    svg: &mut String,
    title: &str,
    curves: &[Curve<'_>],
    top: f64,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(84)
        .build_cartesian_2d(NinesAxis::for_curves(curves), 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(NinesAxis::TICKS.len())
        .y_label_formatter(&|at| {
            if *at == 0.0 {
                "0".to_owned()
            } else {
                seconds(*at)
            }
        })
        .x_desc("percentile of the requests")
        .y_desc("latency from the time that a request was due")
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    for (index, curve) in curves.iter().enumerate() {
        let is_last = index + 1 == curves.len();
        let colour = if is_last {
            COLOURS.last()
        } else {
            COLOURS.get(index % (COLOURS.len() - 1))
        };
        let style = colour
            .unwrap_or(&BLACK)
            .stroke_width(if is_last { 4 } else { 2 });
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(16)
        .legend_area_size(32)
        .label_font((FONT, 15))
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()
}
