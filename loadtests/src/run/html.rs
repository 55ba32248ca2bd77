//! A run as one page that needs nothing else: figures, plots, and the machine.

use std::path::Path;

use anyhow::Context;
use indicatif::HumanBytes;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::attendance::NodeSample;
use super::report::{KIND_COLUMNS, Report, STEP_COLUMNS, calls_per_second, kind_row};
use crate::lab::machine::Machine;
use crate::lab::{Load, Point, Window};
use crate::plot::{Axis, Mark, Plot, Series};

const STYLE: &str = "\
body { font: 15px/1.45 sans-serif; color: #222; background: #fff; max-width: 1000px; margin: 2em \
auto; padding: 0 1em }
h1 { font-size: 1.6em; margin-bottom: 0 } h2 { font-size: 1.15em; margin: 1.8em 0 .5em }
p { margin: .3em 0 } .about { color: #555 }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 8px; border-bottom: 1px solid #ddd; text-align: right; vertical-align: \
bottom }
th { border-bottom: 2px solid #888; font-weight: 600 }
td:first-child, th:first-child, .text { text-align: left } td.text { white-space: nowrap }
.scroll { overflow-x: auto }
li.good::marker { content: '\\2713  '; color: #2b8a3e } li.bad::marker { content: '\\2717  '; \
color: #c91a1a }
li.bad { font-weight: 600; color: #c91a1a }
svg { max-width: 100%; height: auto; display: block; margin: .8em 0 }";

/// Of all plots over time.
const TIME: &str = "time, s";

pub(crate) fn write(report: &Report, path: &Path) -> anyhow::Result<()> {
    let page = page(report)?.into_string();
    std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn page(report: &Report) -> anyhow::Result<Markup> {
    let plots = plots(report);
    let plots = plots.iter().map(Plot::svg).collect::<Result<Vec<_>, _>>()?;
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "stockd: " (report.profile.name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (report.profile.name) }
                p.about { (report.profile.about) }
                (findings(report))
                h2 { "Figures" }
                (steps(report))
                @for svg in &plots { (PreEscaped(svg)) }
                h2 { "By kind of call" }
                (kinds(report))
                (kills(report))
                h2 { "Where it ran" }
                (machine(report, &report.machine))
            }
        }
    })
}

fn findings(report: &Report) -> Markup {
    html! {
        ul {
            @for finding in &report.findings {
                li.good[finding.holds].bad[!finding.holds] { (finding.what) }
            }
        }
    }
}

fn steps(report: &Report) -> Markup {
    html! {
        div.scroll {
            table {
                tr {
                    @for (at, column) in STEP_COLUMNS.iter().enumerate() {
                        th.text[at < 2] { (column) }
                    }
                }
                @for window in report.windows() {
                    tr {
                        @for (at, cell) in report.step_row(window).iter().enumerate() {
                            td.text[at < 2] { (cell) }
                        }
                    }
                }
            }
        }
        p.about {
            "Calls on a schedule are timed from when they were due. Late: how long after that \
             they were sent."
        }
    }
}

fn kinds(report: &Report) -> Markup {
    html! {
        div.scroll {
            table {
                tr {
                    th { "step" }
                    @for (at, column) in KIND_COLUMNS.iter().enumerate() {
                        th.text[at == 0] { (column) }
                    }
                }
                @for window in report.windows() {
                    @for (number, (kind, summary)) in window.kinds.iter().enumerate() {
                        tr {
                            td.text { @if number == 0 { (window.what) } }
                            @let cells = kind_row(kind, summary, window.seconds);
                            @for (at, cell) in cells.iter().enumerate() {
                                td.text[at == 0] { (cell) }
                            }
                        }
                    }
                }
            }
        }
        p.about {
            "Answers that all was sold out: " (report.sold_out) ". Holds that were left to \
             expire: " (report.left_to_expire) "."
        }
    }
}

fn kills(report: &Report) -> Markup {
    html! {
        @if !report.kills.is_empty() {
            h2 { "Kills" }
            table {
                tr { th { "at, s" } th { "node" } th { "led shard" } th { "back and led, s \
                    later" } }
                @for kill in &report.kills {
                    tr {
                        td { (format!("{:.1}", kill.at_seconds)) }
                        td { (kill.node) }
                        td { (kill.shard) }
                        td { (format!("{:.1}", kill.led_at_seconds - kill.at_seconds)) }
                    }
                }
            }
        }
    }
}

fn machine(report: &Report, machine: &Machine) -> Markup {
    let fsync = match &machine.fsync {
        Some(cost) => format!("p50 {:.0} us, p99 {:.0} us", cost.p50_us, cost.p99_us),
        None => "not measured".to_owned(),
    };
    let memory = HumanBytes(machine.memory_bytes).to_string();
    let stolen = format!("{:.1} % of the CPU", report.stolen_percent);
    let cluster = format!(
        "{} nodes, {} shards, and the load, all on this machine",
        report.nodes, report.shards
    );
    let rows = [
        ("Processor", machine.processor.clone()),
        ("Cores", machine.cores.to_string()),
        ("Memory", memory),
        ("Kernel", machine.kernel.clone()),
        ("fdatasync of 120 bytes", fsync),
        ("Stolen by the host", stolen),
        ("Cluster", cluster),
    ];
    html! {
        table {
            @for (what, value) in rows {
                tr { td { (what) } td.text { (value) } }
            }
        }
    }
}

fn plots(report: &Report) -> Vec<Plot> {
    let steps = &report.steps;
    let mut plots = Vec::new();
    let open = |step: &&Window| matches!(step.load, Load::OpenLoop { .. });
    if steps.iter().filter(open).count() > 1 {
        plots.push(latency_against_load(steps));
    }
    let rate = |point: &Point| point.all.rate;
    let mut rates = vec![over_time("all calls", steps, rate)];
    let kinds = kinds_of(steps);
    if kinds.len() > 1 {
        rates.extend(kinds.into_iter().map(|kind| {
            over_time(kind, steps, move |point| {
                point.kinds.get(kind).map_or(0.0, |summary| summary.rate)
            })
        }));
    }
    plots.push(Plot::new(
        "Throughput",
        Axis::linear(TIME),
        Axis::linear("calls a second"),
        rates,
    ));
    if has_bulk(steps) {
        let lines = |point: &Point| point.all.lines as f64 / point.seconds.max(1e-9);
        plots.push(Plot::new(
            "Lines",
            Axis::linear(TIME),
            Axis::linear("lines a second"),
            vec![over_time("all calls", steps, lines)],
        ));
    }
    plots.push(Plot::new(
        "Latency",
        Axis::linear(TIME),
        Axis::logarithmic("ms"),
        vec![
            over_time("p50", steps, |point| point.all.p50_us / 1e3),
            over_time("p99", steps, |point| point.all.p99_us / 1e3),
            over_time("slowest", steps, |point| point.all.max_us / 1e3),
        ],
    ));
    if !report.samples.is_empty() {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let by_node = |value: fn(&NodeSample) -> u64| per_node(report, |node| mib(value(node)));
        plots.push(Plot::new(
            "Memory",
            Axis::linear(TIME),
            Axis::linear("resident, MiB"),
            by_node(|node| node.resident_bytes),
        ));
        plots.push(Plot::new(
            "Disk",
            Axis::linear(TIME),
            Axis::linear("data directory, MiB"),
            by_node(|node| node.disk_bytes),
        ));
    }
    let is_over_time = |plot: &&mut Plot| plot.x.label == TIME;
    for plot in plots.iter_mut().filter(is_over_time) {
        let marks = report.kills.iter().map(|kill| Mark { x: kill.at_seconds });
        plot.marks = marks.collect();
        plot.marks_are = "leader killed";
    }
    plots
}

fn latency_against_load(steps: &[Window]) -> Plot {
    let open = || {
        let steps = steps.iter();
        steps.filter(|step| matches!(step.load, Load::OpenLoop { .. }))
    };
    let series = |name: &str, value: fn(&Window) -> f64| Series {
        name: name.to_owned(),
        lines: vec![
            open()
                .map(|step| (calls_per_second(step), value(step) / 1e3))
                .collect(),
        ],
    };
    Plot::new(
        "Latency against load",
        Axis::linear("calls a second"),
        Axis::logarithmic("ms, from when a call was due"),
        vec![
            series("p50", |step| step.p50_us),
            series("p99", |step| step.p99_us),
            series("p99.9", |step| step.p999_us),
        ],
    )
}

/// Steps are not joined: between them nothing was measured.
fn over_time(name: &str, steps: &[Window], value: impl Fn(&Point) -> f64) -> Series {
    let middle = |point: &Point| point.at_seconds + point.seconds / 2.0;
    let of_step = |step: &Window| {
        let points = step.points.iter();
        points.map(|point| (middle(point), value(point))).collect()
    };
    Series {
        name: name.to_owned(),
        lines: steps.iter().map(of_step).collect(),
    }
}

fn per_node(report: &Report, value: impl Fn(&NodeSample) -> f64) -> Vec<Series> {
    let samples = || {
        let samples = report.samples.iter();
        samples.flat_map(|sample| sample.nodes.iter().map(|node| (sample.at_seconds, node)))
    };
    let mut nodes: Vec<u64> = samples().map(|(_, node)| node.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let of_node = |number: u64| Series {
        name: format!("node {number}"),
        lines: vec![
            samples()
                .filter(|(_, node)| node.node == number)
                .map(|(at, node)| (at, value(node)))
                .collect(),
        ],
    };
    nodes.into_iter().map(of_node).collect()
}

fn kinds_of(steps: &[Window]) -> Vec<&'static str> {
    let mut kinds: Vec<&'static str> = steps
        .iter()
        .flat_map(|step| step.kinds.keys())
        .copied()
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Lines say something of their own where one call has many.
fn has_bulk(steps: &[Window]) -> bool {
    const MANY: u64 = 100;
    let mut kinds = steps.iter().flat_map(|step| step.kinds.values());
    kinds.any(|summary| summary.lines > summary.calls * MANY)
}
