//! Plots: bars of GB/s on a logarithmic axis for each rule set, and the time per event by number of rules.

use super::{Report, Row};
use crate::error::BenchError;
use plotters::prelude::*;
use std::fmt::Display;
use std::fs;
use std::path::Path;

/// Workloads of the bars, from the largest to the smallest, with their colours.
const BARS: [(&str, RGBColor); 3] =
    [("stream", RGBColor(31, 78, 121)), ("hot", RGBColor(196, 98, 16)), ("small", RGBColor(92, 140, 70))];
/// Rule sets in order of their size.
const SETS: [&str; 4] = ["builtin", "ten", "sigma", "sigma10"];
/// Contestants of the plot by number of rules.
const LINES: [(&str, RGBColor); 4] = [
    ("etwsieve", RGBColor(31, 78, 121)),
    ("vectorscan-best", RGBColor(196, 98, 16)),
    ("aho-corasick-narrowed", RGBColor(92, 140, 70)),
    ("rsigma-eval", RGBColor(120, 60, 130)),
];
const WIDTH: u32 = 860;
/// Height of a contestant's bars in pixels.
const ROW_HEIGHT: u32 = 34;
/// Height of the title and the axis in pixels.
const FRAME_HEIGHT: u32 = 110;

/// Writes all plots into the folder and returns their file names and titles.
///
/// # Errors
///
/// [`BenchError::Plot`], and errors of writing.
pub fn draw(report: &Report, folder: &Path) -> Result<Vec<(String, String)>, BenchError> {
    let mut files = Vec::new();
    for rules in SETS {
        let rows = |workload: &str| -> Vec<&Row> {
            let of_plot =
                |row: &&Row| row.part == "payloads" && row.workload == workload && row.rules == rules;
            report.rows.iter().filter(of_plot).collect()
        };
        let bars = BARS.map(|(workload, _)| rows(workload));
        let mut names: Vec<&str> = Vec::new();
        for row in bars.iter().flatten() {
            if !names.contains(&row.contestant.as_str()) {
                names.push(&row.contestant);
            }
        }
        if names.is_empty() {
            continue;
        }
        let (file, title) =
            (format!("throughput-{rules}.svg"), format!("GB/s of raw payload, rules: {rules}"));
        let mut text = String::new();
        throughput(&mut text, &title, &names, &bars).map_err(failed)?;
        save(folder, &file, &text)?;
        files.push((file, title));
    }
    let series = LINES.map(|(name, color)| {
        let point = |(at, rules): (usize, &str)| {
            Some((at as f64, report.row("payloads", "stream", rules, name)?.ns_per_event / 1e3))
        };
        (name, color, SETS.into_iter().enumerate().filter_map(point).collect::<Vec<_>>())
    });
    if series.iter().any(|(_, _, points)| points.len() > 1) {
        let (file, title) =
            ("scaling.svg".to_owned(), "Microseconds an event of the stream, by rules".to_owned());
        let mut text = String::new();
        scaling(&mut text, &title, &series).map_err(failed)?;
        save(folder, &file, &text)?;
        files.push((file, title));
    }
    Ok(files)
}

fn failed(error: impl Display) -> BenchError {
    BenchError::Plot(error.to_string())
}

fn save(folder: &Path, file: &str, text: &str) -> Result<(), BenchError> {
    let path = folder.join(file);
    // The backend leaves blanks at the ends of some lines.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    fs::write(&path, lines.join("\n") + "\n").map_err(|source| BenchError::Io { path, source })
}

/// A name, its colour and its points.
type Series = (&'static str, RGBColor, Vec<(f64, f64)>);
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn throughput<'a>(out: &'a mut String, title: &str, names: &[&str], bars: &[Vec<&Row>; 3]) -> Drawn<'a> {
    let height = FRAME_HEIGHT + ROW_HEIGHT * names.len() as u32;
    let area = SVGBackend::with_string(out, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let all = bars.iter().flatten().map(|row| row.gb_per_s);
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = (10f64.powf((low * 0.8).log10().floor()), high * 2.0);
    let rows = names.len() as f64;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(210)
        .build_cartesian_2d((low..high).log_scale(), 0.0..rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|value| format!("{value}"))
        .draw()?;
    for (place, (workload, color)) in BARS.iter().enumerate() {
        let bar = |row: &&Row| {
            let name = names.iter().position(|name| *name == row.contestant).unwrap_or(0);
            // The first name is at the top; a row has one bar for each workload and a gap.
            let top = rows - name as f64 - 0.1 - 0.27 * place as f64;
            Rectangle::new([(low, top), (row.gb_per_s, top - 0.25)], color.filled())
        };
        chart
            .draw_series(bars[place].iter().map(bar))?
            .label(*workload)
            .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
        let number = |row: &&Row| {
            let name = names.iter().position(|name| *name == row.contestant).unwrap_or(0);
            let top = rows - name as f64 - 0.1 - 0.27 * place as f64;
            Text::new(super::short(row.gb_per_s), (row.gb_per_s * 1.03, top), ("sans-serif", 9))
        };
        chart.draw_series(bars[place].iter().map(number))?;
    }
    // Names are drawn beside their bars, which a numeric axis cannot do.
    let plotting = chart.plotting_area();
    for (at, name) in names.iter().enumerate() {
        let (_, y) = plotting.map_coordinate(&(low, rows - at as f64 - 0.35));
        area.draw(&Text::new((*name).to_owned(), (14, y - 6), ("sans-serif", 13)))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()
}

fn scaling<'a>(out: &'a mut String, title: &str, series: &[Series]) -> Drawn<'a> {
    let area = SVGBackend::with_string(out, (WIDTH, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let all = series.iter().flat_map(|(_, _, points)| points.iter().map(|point| point.1));
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(-0.2..SETS.len() as f64 - 0.8, (low * 0.7..high * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(SETS.len())
        .x_label_formatter(&|at| {
            let set = SETS.get(at.round().max(0.0) as usize);
            if (at - at.round()).abs() < 0.05 {
                set.copied().unwrap_or_default().to_owned()
            } else {
                String::new()
            }
        })
        .y_label_formatter(&|value| format!("{value}"))
        .draw()?;
    for (name, color, points) in series {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()
}

#[cfg(test)]
mod tests {
    use super::draw;
    use crate::report::tests::report;
    use std::fs;

    #[test]
    fn pictures_name_their_contestants() {
        let folder = tempfile::tempdir().unwrap();
        let files = draw(&report(), folder.path()).unwrap();
        let names: Vec<&str> = files.iter().map(|(file, _)| file.as_str()).collect();
        assert_eq!(names, ["throughput-builtin.svg", "throughput-sigma.svg", "scaling.svg"]);
        for (file, title) in &files {
            let text = fs::read_to_string(folder.path().join(file)).unwrap();
            assert!(text.contains("<svg") && text.trim_end().ends_with("</svg>"), "{file}");
            assert!(text.contains(title) && text.contains("vectorscan-best"), "{file}");
        }
        assert!(draw(&crate::report::Report::default(), folder.path()).unwrap().is_empty());
    }
}
