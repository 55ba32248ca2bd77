//! Load as a shop has it: what a profile says, in calls of all kinds, measured as it goes on and
//! compared with the cluster in the end.

mod assortment;
mod attendance;
mod bounds;
mod comparison;
mod day;
mod disk;
mod finding;
mod findings;
mod holds;
mod html;
mod opening;
mod profile;
mod report;
mod shop;
mod shopper;

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use comfy_table::Table;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use stock_client::Client;
use uuid::Uuid;

use self::assortment::Assortment;
use self::attendance::Attendance;
use self::day::DayPlan;
use self::holds::Holds;
use self::profile::{Day, Mix, Pace, Profile, Step, Stock, Work};
use self::report::Report;
use self::shop::Shop;
use self::shopper::Shopper;
use crate::Verdict;
use crate::lab::machine::Machine;
use crate::lab::stolen::{CpuTime, stolen_percent};
use crate::lab::{self, Load, Processes, Window, WindowTimes};
use crate::nodes::{NodeOptions, Nodes};
use crate::replay::dataset;

const FOUNDERS: u64 = 3;

/// Longer than it takes to start a killed node again.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The closed loop that finds the best rate.
const BEST_IN_FLIGHT: u32 = 256;

/// A point stands for a second, or for longer where there would be more of them than this.
const POINTS_MAX: f64 = 360.0;

const ABOUT: &str = "Puts load on a cluster as a profile says, and checks every position";

const ABOUT_LONG: &str = "\
Puts load on a cluster as a profile says, and checks every position.

A profile is a TOML file: stock, a mix of actions by weight, and loads one after the other (calls \
in flight, calls a second, or a part of the best rate, which is found before); leaders may be \
killed meanwhile. Some come with this program; loadtests/profiles has their files to begin with. \
Three nodes are started for it.

Calls go through the Rust client, which routes and retries. Those on a schedule are timed from \
when they were due. In the end what was acknowledged is compared with linearizable reads of every \
position.

Exit code 1 if a call failed, a position differs, or what the profile asks for does not hold.";

/// What `loadtests run` is asked to do.
#[derive(clap::Args)]
#[command(about = ABOUT, long_about = ABOUT_LONG)]
pub(crate) struct Arguments {
    /// One of those that --list names, or a file
    #[arg(value_name = "PROFILE", required_unless_present = "list")]
    profile: Option<String>,

    /// Names the profiles that come with this program
    #[arg(long)]
    list: bool,

    /// How long all steps take together; they stay in proportion [default: as the profile says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=604_800))]
    seconds: Option<u32>,

    /// Write everything here as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a page with plots here, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// For a day of real baskets: where fetch-dunnhumby.sh wrote them
    #[arg(long, value_name = "DIR", default_value = "data/dunnhumby")]
    dataset: PathBuf,

    /// Decides what is drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    nodes: NodeOptions,
}

/// Runs a profile and prints what it came to.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Verdict> {
    if arguments.list {
        say!("{}", list()?);
        return Ok(Verdict::Passed);
    }
    let name = arguments
        .profile
        .as_deref()
        .context("no profile is named")?;
    let mut profile = Profile::find(name)?;
    if let Some(seconds) = arguments.seconds {
        profile = profile.lasting(seconds);
    }
    let report = measure(arguments, profile).await?;
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    if let Some(path) = &arguments.html {
        html::write(&report, path)?;
        say!("drawn in {}", path.display());
    }
    Ok(match report.is_good() {
        true => Verdict::Passed,
        false => Verdict::Failed,
    })
}

fn list() -> anyhow::Result<Table> {
    let mut table = lab::table(2, ["profile", "about", "seconds"]);
    for profile in Profile::all()? {
        let seconds = format!("{:.0}", profile.seconds());
        table.add_row([profile.name, profile.about, seconds]);
    }
    Ok(table)
}

async fn measure(arguments: &Arguments, profile: Profile) -> anyhow::Result<Report> {
    let machine = Machine::look(&arguments.nodes.scratch()?);
    let mut options = arguments.nodes.clone();
    options.serve_arguments.extend(profile.nodes.arguments());
    // Before nodes are started that nobody needs.
    let baskets = match &profile.work {
        Work::Day(day) => Some(dataset::read(&arguments.dataset, day.weeks)?),
        Work::Mix { .. } => None,
    };
    let nodes = Nodes::found(&options, FOUNDERS, 0).await?;
    let client = nodes.client(CALL_TIMEOUT).await?;
    say!(
        "{}: {}\nthree nodes, {} shards, data in {}",
        profile.name,
        profile.about,
        client.topology().shard_count(),
        nodes.dir().display()
    );
    let processes = nodes.processes();
    let attendance = Attendance::new(nodes, &client, &profile);
    let ground = Ground {
        profile: &profile,
        client: &client,
        processes: &processes,
        seed: arguments.seed,
        point_every: Duration::from_secs_f64((profile.seconds() / POINTS_MAX).max(1.0)),
    };
    let cpu = CpuTime::now();
    let outcome = match (&profile.work, baskets) {
        (Work::Mix { stock, mix, steps }, _) => ground.mix(stock, mix, steps, attendance).await?,
        (Work::Day(day), Some(baskets)) => ground.day(day, &baskets, attendance).await?,
        (Work::Day(_), None) => bail!("a day without baskets"),
    };
    let stolen_percent = stolen_percent(cpu, CpuTime::now());
    let Outcome {
        shop,
        best,
        steps,
        attendance,
        left_to_expire,
        last_ends_in,
    } = outcome;
    // What became of a call that failed is not known, so that any difference would say nothing.
    let comparison = match shop.unknown.get() {
        0 => Some(comparison::compare(&shop, last_ends_in).await?),
        _ => None,
    };
    let findings = findings::judge(&findings::Run {
        profile: &profile,
        best: best.as_ref(),
        steps: &steps,
        samples: &attendance.samples,
        comparison: comparison.as_ref(),
        units_at_first: shop.positions.iter().map(|p| p.opening).sum(),
    });
    Ok(Report {
        machine,
        stolen_percent,
        nodes: attendance.nodes.running().len(),
        shards: client.topology().shard_count(),
        best,
        steps,
        kills: attendance.kills,
        samples: attendance.samples,
        sold_out: shop.sold_out.get(),
        left_to_expire,
        comparison,
        findings,
        profile,
    })
}

/// What there is to measure with.
struct Ground<'a> {
    profile: &'a Profile,
    client: &'a Client,
    processes: &'a Processes,
    seed: u64,
    point_every: Duration,
}

/// What was measured.
struct Outcome {
    shop: Rc<Shop>,
    best: Option<Window>,
    steps: Vec<Window>,
    attendance: Attendance,
    left_to_expire: u64,
    last_ends_in: Option<Duration>,
}

impl Ground<'_> {
    async fn mix(
        &self,
        stock: &Stock,
        mix: &Mix,
        steps: &[Step],
        mut attendance: Attendance,
    ) -> anyhow::Result<Outcome> {
        let run_name = run_name();
        let positions = assortment::positions(stock, &run_name);
        let shards = self.client.topology().shard_count();
        let shard_of = |sku: &str| self.client.shard_of(sku);
        let assortment = Assortment::new(&positions, stock.popularity, shards, shard_of);
        let shop = self.open(&run_name, positions).await?;
        let holds = Holds::new(self.profile.hold_ttl());
        let lines = self.profile.lines;
        let shopper = Shopper::new(&shop, assortment, mix, lines, holds, self.seed)?;

        let mut best = None;
        let began = Instant::now();
        let is_over = Cell::new(false);
        let measured = async {
            let mut windows = Vec::new();
            for (number, step) in steps.iter().enumerate() {
                // Of what the cluster is by then: steps before may have filled it.
                if matches!(step.pace, Pace::OfBest(_)) && best.is_none() {
                    best = Some(self.best(&shopper, began).await?);
                }
                let best_rate = best.as_ref().map_or(0.0, report::calls_per_second);
                let what = step_name(number, steps);
                let load = load_of(step.pace, best_rate);
                windows.push(
                    self.step(&what, &shopper, load, step.seconds, began)
                        .await?,
                );
            }
            anyhow::Ok(windows)
        };
        let measured = async {
            let windows = measured.await;
            is_over.set(true);
            windows
        };
        let (windows, attended) = tokio::join!(measured, attendance.attend(began, &is_over));
        attended?;
        let steps = windows?;
        if shop.unknown.get() == 0 {
            let (held, paid) = shopper.with_holds(|holds| (holds.held(), holds.confirmed()));
            say!(
                "still open: {} holds, {} paid; {}",
                HumanCount(held as u64),
                HumanCount(paid as u64),
                match self.profile.at_end {
                    profile::AtEnd::Release => "the holds are given back",
                    profile::AtEnd::Sell => "all are sold",
                }
            );
            shopper.end(self.profile.at_end).await?;
        }
        let (left_to_expire, last_ends_in) =
            shopper.with_holds(|holds| (holds.left_to_expire, holds.last_ends_in()));
        Ok(Outcome {
            shop,
            best,
            steps,
            attendance,
            left_to_expire,
            last_ends_in,
        })
    }

    async fn day(
        &self,
        day: &Day,
        baskets: &dataset::Dataset,
        mut attendance: Attendance,
    ) -> anyhow::Result<Outcome> {
        let run_name = run_name();
        let lines = self.profile.lines;
        let plan = DayPlan::new(baskets, day, lines, &run_name, self.seed);
        say!(
            "weeks {}: {} baskets, {} positions, {} calls in {:.0} s",
            day.weeks,
            HumanCount(baskets.baskets.len() as u64),
            HumanCount(plan.positions.len() as u64),
            HumanCount(plan.calls().into()),
            day.seconds
        );
        let load = Load::Planned {
            calls: plan.calls(),
        };
        let shop = self.open(&run_name, plan.positions).await?;
        let began = Instant::now();
        let is_over = Cell::new(false);
        let progress = bar("a day", day.seconds);
        let measured = async {
            let times = self.times(day.seconds);
            let errands = plan.errands;
            let run = async |recorder: &Rc<_>| day::run(errands, &shop, recorder).await;
            let window = Window::measure("a day", load, self.processes, times, run).await;
            is_over.set(true);
            window
        };
        let (window, attended) = tokio::join!(measured, attendance.attend(began, &is_over));
        progress.finish_and_clear();
        attended?;
        Ok(Outcome {
            shop,
            best: None,
            steps: vec![later(window?, self.profile.lead_in())],
            attendance,
            left_to_expire: 0,
            last_ends_in: None,
        })
    }

    /// A shop with full shelves.
    async fn open(
        &self,
        run_name: &str,
        positions: Vec<stock_tally::Position>,
    ) -> anyhow::Result<Rc<Shop>> {
        let ttl_seconds = self.profile.hold_ttl_seconds;
        let shop = Shop::new(self.client, run_name, positions, ttl_seconds);
        opening::open(&shop).await?;
        Ok(Rc::new(shop))
    }

    async fn best(&self, shopper: &Shopper, began: Instant) -> anyhow::Result<Window> {
        let load = Load::ClosedLoop {
            in_flight: BEST_IN_FLIGHT,
        };
        let seconds = self.profile.best_seconds.into();
        self.step("the best rate", shopper, load, seconds, began)
            .await
    }

    async fn step(
        &self,
        what: &str,
        shopper: &Shopper,
        load: Load,
        seconds: f64,
        began: Instant,
    ) -> anyhow::Result<Window> {
        say!("{what}: {load}, {seconds:.0} s");
        let progress = bar(what, seconds);
        let starts = began.elapsed() + self.profile.lead_in();
        let (callers, times) = ([shopper.clone()], self.times(seconds));
        let window = Window::once(what, &callers, self.processes, load, times).await;
        progress.finish_and_clear();
        Ok(later(window?, starts))
    }

    fn times(&self, seconds: f64) -> WindowTimes {
        WindowTimes {
            lead_in: self.profile.lead_in(),
            measured: Duration::from_secs_f64(seconds),
            point_every: Some(self.point_every),
            behind_max: self.profile.behind_max(),
        }
    }
}

/// Points of a window that started so long after everything began.
fn later(mut window: Window, starts: Duration) -> Window {
    for point in &mut window.points {
        point.at_seconds += starts.as_secs_f64();
    }
    window
}

fn step_name(number: usize, steps: &[Step]) -> String {
    let of = format!("{} of {}", number + 1, steps.len());
    match steps[number].pace {
        Pace::OfBest(part) => format!("{of}: {part} of the best"),
        Pace::InFlight(_) | Pace::PerSecond(_) => of,
    }
}

fn load_of(pace: Pace, best_rate: f64) -> Load {
    match pace {
        Pace::InFlight(in_flight) => Load::ClosedLoop { in_flight },
        Pace::PerSecond(per_second) => Load::OpenLoop { per_second },
        Pace::OfBest(part) => Load::OpenLoop {
            per_second: ((best_rate * part) as u32).max(1),
        },
    }
}

/// Time that passes; nothing where nobody looks.
fn bar(what: &str, seconds: f64) -> ProgressBar {
    let bar = ProgressBar::new(seconds as u64).with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {elapsed} of {len} s") {
        bar.set_style(style);
    }
    let ticking = bar.clone();
    tokio::task::spawn_local(async move {
        while !ticking.is_finished() {
            ticking.set_position(ticking.elapsed().as_secs());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    bar
}

/// Short, and another one each time.
fn run_name() -> String {
    // The first digits of such an id are the time; the last are drawn at random.
    let id = Uuid::now_v7().simple().to_string();
    format!("t{}", &id[id.len() - 8..])
}
