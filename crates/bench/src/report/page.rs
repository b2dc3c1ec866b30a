//! A report as a page with plots that needs nothing else.

use std::ops::Range;

use plotters::{
    coord::{CoordTranslate, Shift, ranged1d::ValueFormatter},
    prelude::{
        ChartBuilder, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, RGBColor, Ranged,
        SVGBackend,
    },
};

use super::{Report, table};
use crate::Error;

const SIZE: (u32, u32) = (860, 260);
const COLOURS: [RGBColor; 3] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(214, 39, 40),
];

/// A named line of a plot.
struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

pub(super) fn html(report: &Report) -> Result<String, Error> {
    let mut body = String::new();
    for (title, plot) in plots(report)? {
        body += &format!("<h2>{}</h2>\n{plot}\n", escape(&title));
    }
    let mut facts = String::new();
    for (name, value) in table::rows(report) {
        facts += &row(name, &value);
    }
    let settings = serde_json::to_string_pretty(&report.settings);
    let settings = settings.map_err(|error| Error::Report(error.to_string()))?;
    let machine = &report.machine;
    let broker = report.broker.as_ref();
    let broker = broker.map_or("not known".to_owned(), |broker| {
        format!("{} (process {})", broker.name, broker.pid)
    });
    for (name, value) in [
        ("ended", report.ended.clone()),
        ("version", format!("sapwood {}", report.version)),
        ("broker", broker),
        (
            "machine",
            format!(
                "{} x {}, {:.1} GB, Linux {}",
                machine.cpus,
                machine.cpu_model,
                machine.memory_bytes as f64 / 1e9,
                machine.kernel
            ),
        ),
    ] {
        facts += &row(name, &value);
    }
    let title = format!(
        "sapwood bench {}: {}",
        report.command, report.settings.topic.name
    );
    let title = escape(&title);
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}\
         td{{padding:0 1.5em 0 0;vertical-align:top}}td:first-child{{color:#666}}\
         svg{{max-width:100%;height:auto}}pre{{background:#f4f4f4;padding:1em;overflow:auto}}\
         h2{{font-size:1.05em;margin:1.5em 0 0}}</style></head><body>\n\
         <h1>{title}</h1>\n<table>{facts}</table>\n{body}\
         <h2>Settings</h2>\n<pre>{}</pre>\n</body></html>\n",
        escape(&settings)
    ))
}

fn row(name: &str, value: &str) -> String {
    format!(
        "<tr><td>{}</td><td>{}</td></tr>\n",
        escape(name),
        escape(value)
    )
}

fn plots(report: &Report) -> Result<Vec<(String, String)>, Error> {
    let first = report.timeline.first().map_or(0, |point| point.second);
    let line = |name, value: &dyn Fn(&crate::watch::Point) -> Option<f64>| Line {
        name,
        points: (report.timeline.iter())
            .filter_map(|point| Some(((point.second - first) as f64, value(point)?)))
            .collect(),
    };
    let throughput = [line("records/s", &|point| Some(point.records as f64))];
    let measured = |us: f64| (us > 0.0).then_some(us);
    let latency = [
        line("p50", &|point| measured(point.p50_us)),
        line("p99", &|point| measured(point.p99_us)),
        line("max", &|point| measured(point.max_us)),
    ];
    let cpu = [line("processors", &|point| point.broker_cpu_seconds)];
    let memory = [line("MB", &|point| {
        Some(point.broker_memory_bytes? as f64 / 1e6)
    })];
    // The share on a scale on which 90, 99 and 99.9 % are equally far from each other.
    let percentiles = [Line {
        name: "latency",
        points: (report.latency_percentiles.iter())
            .filter(|(share, _)| *share < 100.0)
            .map(|(share, us)| (-(1.0 - share / 100.0).log10(), *us))
            .collect(),
    }];
    let over_time = "seconds";
    let mut plots = Vec::new();
    for (title, lines, across, is_log) in [
        (
            "Throughput: records a second",
            &throughput[..],
            over_time,
            false,
        ),
        (
            "Latency over time: microseconds (p50 blue, p99 orange, longest red)",
            &latency[..],
            over_time,
            true,
        ),
        (
            "Latency by share: microseconds; 1 is 90 %, 2 is 99 %, 3 is 99.9 %",
            &percentiles[..],
            "number of nines",
            true,
        ),
        ("Broker: processors in use", &cpu[..], over_time, false),
        (
            "Broker: resident memory in MB",
            &memory[..],
            over_time,
            false,
        ),
    ] {
        if lines.iter().any(|line| line.points.len() > 1) {
            plots.push((title.to_owned(), plot(lines, across, is_log)?));
        }
    }
    Ok(plots)
}

/// One plot as SVG.
fn plot(lines: &[Line], across: &str, is_log: bool) -> Result<String, Error> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let end = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(0.0, f64::max);
    let bottom = points().map(|point| point.1).fold(f64::MAX, f64::min);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        if is_log {
            let range = (bottom.max(1.0) / 1.5..top.max(2.0) * 1.5).log_scale();
            draw(&area, lines, 0.0..end, range, across)?;
        } else {
            draw(&area, lines, 0.0..end, 0.0..(top * 1.1).max(1e-9), across)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn draw<Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    lines: &[Line],
    x: Range<f64>,
    y: Y,
    across: &str,
) -> Result<(), Error>
where
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    plotters::prelude::Cartesian2d<plotters::coord::types::RangedCoordf64, Y::CoordDescType>:
        CoordTranslate<From = (f64, f64)>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(x, y)
        .map_err(failed)?;
    let drawn = chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc(across)
        .draw();
    drawn.map_err(failed)?;
    for (line, colour) in lines.iter().zip(COLOURS) {
        let series = LineSeries::new(line.points.iter().copied(), colour);
        chart.draw_series(series).map_err(failed)?;
        debug_assert!(!line.name.is_empty(), "a line has a name");
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Report(format!("a plot cannot be drawn: {error}"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
