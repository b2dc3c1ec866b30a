//! A report for people.

use std::fmt::Write;

use super::Report;
use crate::latency::LatencyUs;

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for (name, value) in rows(report) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12}  {value}");
    }
    text
}

/// The lines of the table, which the page shows as well.
pub(super) fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![(
        "throughput",
        format!(
            "{:.1} MB/s, {} records/s ({} records in {:.2} s)",
            report.megabytes_per_second,
            grouped(report.records_per_second),
            grouped(report.records as f64),
            report.seconds
        ),
    )];
    if let Some(share) = report.share_of_rate().filter(|share| *share < 0.98) {
        let rate = report.settings.load.rate;
        rows.push((
            "",
            format!(
                "{:.0} % of the {rate} that were due: broker or generator did not keep up",
                share * 100.0
            ),
        ));
    }
    let latencies = [
        ("latency", report.latency_us),
        ("to the ack", report.produce_latency_us),
        (
            "sent late",
            report
                .send_delay_us
                .filter(|_| report.share_of_rate().is_some()),
        ),
    ];
    for (name, latency) in latencies {
        if let Some(latency) = latency {
            rows.push((name, latency_text(&latency)));
        }
    }
    if let Some(cpu) = report.server_cpu_seconds_per_million_records {
        let memory = |bytes: Option<u64>| bytes.unwrap_or(0) as f64 / 1e6;
        rows.push((
            "broker",
            format!(
                "{cpu:.3} CPU s per million records ({:.2} s in all), memory at most {:.0} MB, {:.0} MB of it not files",
                report.server_cpu_seconds.unwrap_or(0.0),
                memory(report.server_memory_bytes_max),
                memory(report.server_anonymous_bytes_max),
            ),
        ));
    }
    rows.push((
        "generator",
        format!(
            "{:.3} CPU s per million records",
            report.client_cpu_seconds_per_million_records
        ),
    ));
    let count = |count: Option<u64>| count.map_or("not checked".to_owned(), |n| n.to_string());
    rows.push(match report.lost {
        None => ("records", format!("not checked, {} errors", report.errors)),
        Some(_) => (
            "records",
            format!(
                "{} lost, {} duplicated, {} out of order, {} corrupt, {} errors",
                count(report.lost),
                count(report.duplicated),
                count(report.disordered),
                count(report.corrupt),
                report.errors
            ),
        ),
    });
    if report.records > 0 && report.corrupt == Some(report.records) {
        rows.push((
            "",
            "all corrupt: made with --no-check, or not by `sapwood bench`? consume with --no-check"
                .to_owned(),
        ));
    }
    for (error, records) in &report.error_kinds {
        rows.push(("", format!("{records} x {error}")));
    }
    rows
}

fn latency_text(latency: &LatencyUs) -> String {
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
        time(latency.p50),
        time(latency.p90),
        time(latency.p99),
        time(latency.p999),
        time(latency.max)
    )
}

/// Microseconds with the unit that reads best.
pub(super) fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A whole number in groups of three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(time(150.4), "150 us");
        assert_eq!(time(5_000.0), "5.00 ms");
        assert_eq!(time(1_500_000.0), "1.50 s");
    }
}
