//! Plots, as SVG to be put into a page.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

const WIDTH: u32 = 720;
const HEIGHT: u32 = 300;
const INK: RGBColor = RGBColor(70, 78, 92);
const GRID: RGBColor = RGBColor(228, 231, 236);
/// Told apart by people who don't see red or green, too.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// A line of a plot.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// What is plotted.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) lines: Vec<Line>,
}

/// Values over seconds; `None` if there is nothing to see.
pub(super) fn over_time(plot: &Plot<'_>) -> Option<String> {
    let (end, top) = (plot.end()?, plot.top()?);
    draw(|area| {
        let mut chart = margins(&area, plot)?.build_cartesian_2d(0.0..end, 0.0..top * 1.08)?;
        mesh(chart.configure_mesh(), plot).y_label_formatter(&|value| short(*value)).draw()?;
        for (line, colour) in plot.lines.iter().zip(COLOURS) {
            let style = colour.stroke_width(2);
            let series = chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            series.label(line.name.as_str()).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        if plot.lines.len() > 1 {
            let labels = chart.configure_series_labels();
            legend(labels).position(SeriesLabelPosition::LowerRight).draw()?;
        }
        Ok(())
    })
}

/// Latency in microseconds over quantiles, whose axis is stretched so that each further nine is as wide as the one before.
pub(super) fn quantiles(plot: &Plot<'_>) -> Option<String> {
    let (end, top) = (plot.end()?, plot.top()?);
    let bottom = plot.points().map(|(_, y)| y).filter(|y| *y > 0.0).fold(f64::INFINITY, f64::min);
    let low = 10_f64.powf(bottom.max(0.1).log10().floor());
    draw(|area| {
        let mut chart =
            margins(&area, plot)?.build_cartesian_2d(0.0..end, (low..top.max(low * 10.0) * 1.2).log_scale())?;
        mesh(chart.configure_mesh(), plot)
            .x_labels(end.ceil() as usize + 1)
            .x_label_formatter(&|nines| quantile_name(*nines))
            .y_label_formatter(&|us| super::text::time(*us))
            .draw()?;
        for (line, colour) in plot.lines.iter().zip(COLOURS) {
            let style = colour.stroke_width(2);
            let series = chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            series.label(line.name.as_str()).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        if plot.lines.len() > 1 {
            let labels = chart.configure_series_labels();
            legend(labels).position(SeriesLabelPosition::UpperLeft).draw()?;
        }
        Ok(())
    })
}

impl Plot<'_> {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.lines.iter().flat_map(|line| line.points.iter().copied())
    }

    fn end(&self) -> Option<f64> {
        Some(self.points().map(|(x, _)| x).fold(0.0, f64::max)).filter(|end| *end > 0.0)
    }

    fn top(&self) -> Option<f64> {
        Some(self.points().map(|(_, y)| y).fold(0.0, f64::max)).filter(|top| *top > 0.0)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

fn draw(paint: impl FnOnce(Area<'_>) -> Drawn) -> Option<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
    // The backend writes to memory: what can fail is a range that is none, and then there is nothing to see.
    paint(area).ok()?;
    Some(text)
}

fn margins<'a, 'b, 'c>(
    area: &'a Area<'b>,
    plot: &Plot<'_>,
) -> Result<ChartBuilder<'a, 'c, SVGBackend<'b>>, Box<dyn Error>>
where
    'a: 'c,
{
    area.fill(&WHITE)?;
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(plot.title, ("sans-serif", 16, &INK))
        .margin(10)
        .margin_right(24)
        .x_label_area_size(38)
        .y_label_area_size(72);
    Ok(builder)
}

fn mesh<'a, 'b, X, Y>(
    mut mesh: plotters::chart::MeshStyle<'a, 'b, X, Y, SVGBackend<'a>>,
    plot: &Plot<'_>,
) -> plotters::chart::MeshStyle<'a, 'b, X, Y, SVGBackend<'a>>
where
    X: Ranged,
    Y: Ranged,
{
    mesh.x_desc(plot.x)
        .y_desc(plot.y)
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 12, &INK));
    mesh
}

fn legend<'a, 'b, C: CoordTranslate>(
    mut labels: plotters::chart::SeriesLabelStyle<'a, 'b, SVGBackend<'a>, C>,
) -> plotters::chart::SeriesLabelStyle<'a, 'b, SVGBackend<'a>, C> {
    labels.background_style(WHITE.mix(0.85)).border_style(GRID).label_font(("sans-serif", 12, &INK));
    labels
}

/// 12,500 as 12.5k.
fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => {
            format!("{:.4}M", value / 1e6).trim_end_matches(['0', 'M']).trim_end_matches('.').to_owned() + "M"
        }
        _ if value >= 1e3 => {
            format!("{:.3}k", value / 1e3).trim_end_matches(['0', 'k']).trim_end_matches('.').to_owned() + "k"
        }
        _ => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// 0 is p0, 1 is p90, 2 is p99, 3 is p99.9.
fn quantile_name(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    let digits = (nines - 2.0).max(0.0).ceil() as usize;
    format!("p{percent:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> Plot<'static> {
        Plot { title: "a title", x: "s", y: "/s", lines: vec![Line { name: "a line".to_owned(), points }] }
    }

    #[test]
    fn a_plot_has_its_title_and_line() {
        let text = over_time(&plot(vec![(0.0, 1.0), (1.0, 2000.0)])).expect("a plot");
        assert!(text.starts_with("<svg") && text.contains("a title") && text.contains("<polyline"), "{text}");
        let text = quantiles(&plot(vec![(0.0, 12.0), (4.0, 20_000.0)])).expect("a plot");
        assert!(text.contains("p99.9") && text.contains("ms"), "{text}");
    }

    #[test]
    fn nothing_is_no_plot() {
        assert_eq!(over_time(&plot(vec![])), None);
        assert_eq!(over_time(&plot(vec![(0.0, 0.0), (1.0, 0.0)])), None);
        assert_eq!(quantiles(&plot(vec![(0.0, 0.0)])), None);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 12.5, 1000.0, 12_500.0, 2e6].map(short), ["0", "12.5", "1k", "12.5k", "2M"]);
        assert_eq!([0.0, 1.0, 2.0, 3.0, 4.0].map(quantile_name), ["p0", "p90", "p99", "p99.9", "p99.99"]);
    }
}
