//! Profiles: what load is put on a cluster, as a file says it. A file that says anything that is
//! not understood is refused whole.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize};

use super::bounds;
use crate::lab;
use crate::replay::dataset::Weeks;

/// The profiles that come with this program.
const OWN: [(&str, &str); 8] = [
    ("checkout", include_str!("../../profiles/checkout.toml")),
    ("flash-sale", include_str!("../../profiles/flash-sale.toml")),
    ("kiosk", include_str!("../../profiles/kiosk.toml")),
    ("receiving", include_str!("../../profiles/receiving.toml")),
    ("mixed-day", include_str!("../../profiles/mixed-day.toml")),
    ("failover", include_str!("../../profiles/failover.toml")),
    ("soak", include_str!("../../profiles/soak.toml")),
    ("disk", include_str!("../../profiles/disk.toml")),
];

/// A hold's time to live where a profile names none.
const HOLD_TTL_SECONDS: u32 = 600;

/// How long the best rate is looked for, where a profile names nothing.
const BEST_SECONDS: u32 = 5;

/// Before each step, where a profile names none: queues fill, caches warm.
const LEAD_IN_SECONDS: f64 = 1.0;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) hold_ttl_seconds: u32,
    pub(crate) lead_in_seconds: f64,
    /// How long the best rate is looked for, before the first step that is a part of it.
    pub(crate) best_seconds: u32,
    pub(crate) at_end: AtEnd,
    /// A schedule that is not kept is a figure, and no failure.
    pub(crate) may_fall_behind: bool,
    /// It is not kept once calls are sent so late; see [`Profile::behind_max`].
    pub(crate) behind_max_seconds: Option<u32>,
    /// Every unit that was there at the beginning must be sold in the end.
    pub(crate) must_sell_out: bool,
    /// Memory, disk and latency must not grow from the second to the last third of the last step.
    pub(crate) must_stay_flat: bool,
    /// How often memory and disk are looked at.
    pub(crate) sample_seconds: Option<u32>,
    /// What the disks of the nodes must stay within.
    pub(crate) bounds: Option<bounds::Pace>,
    pub(crate) nodes: NodeSettings,
    pub(crate) kill_leader_every_seconds: Option<u32>,
    pub(crate) lines: Lines,
    pub(crate) work: Work,
}

/// What is done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Actions drawn by their weights, under one load after the other.
    Mix {
        stock: Stock,
        mix: Mix,
        steps: Vec<Step>,
    },
    /// The real baskets of some weeks, laid over one day.
    Day(Day),
}

/// How the nodes are started: as `stockd` has it, where something is absent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NodeSettings {
    /// History that nodes keep.
    pub(crate) ledger_keep_seconds: Option<u64>,
    /// A state is written down after so many bytes of log, at least.
    pub(crate) checkpoint_after_bytes: Option<u64>,
    /// Of one file of the log.
    pub(crate) log_file_bytes: Option<u64>,
}

/// What becomes of the holds that are open when everything is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AtEnd {
    #[default]
    Release,
    /// Confirmed and fulfilled.
    Sell,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stock {
    pub(crate) skus: u32,
    pub(crate) units_per_sku: i64,
    /// The exponent of a Zipf distribution; 0: all are wanted alike.
    pub(crate) popularity: f64,
}

/// Weights.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Mix {
    pub(crate) reserve: u32,
    pub(crate) confirm: u32,
    pub(crate) fulfill: u32,
    pub(crate) release: u32,
    pub(crate) read: u32,
    pub(crate) receive: u32,
}

/// Lines of one call.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lines {
    /// From 1 to so many, all in one shard.
    pub(crate) basket: u32,
    pub(crate) read: u32,
    pub(crate) receipt: u32,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines {
            basket: 1,
            read: 1,
            receipt: 1_000,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Step {
    pub(crate) seconds: f64,
    pub(crate) pace: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// So many callers, each waiting for its answer.
    InFlight(u32),
    /// On a schedule.
    PerSecond(u32),
    /// On a schedule, of the best rate that a closed loop found before the first step of this kind.
    OfBest(f64),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Day {
    #[serde(deserialize_with = "from_text", serialize_with = "to_text")]
    pub(crate) weeks: Weeks,
    /// How long the day takes.
    pub(crate) seconds: f64,
    /// Baskets that are ordered online and fetched later; the others are bought at a till.
    pub(crate) online_percent: u32,
    pub(crate) kiosk_reads_per_basket: u32,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    about: String,
    hold_ttl_seconds: Option<u32>,
    lead_in_seconds: Option<f64>,
    best_seconds: Option<u32>,
    #[serde(default)]
    may_fall_behind: bool,
    behind_max_seconds: Option<u32>,
    #[serde(default)]
    at_end: AtEnd,
    #[serde(default)]
    must_sell_out: bool,
    #[serde(default)]
    must_stay_flat: bool,
    sample_seconds: Option<u32>,
    #[serde(default)]
    must_bound_disks: bool,
    #[serde(default)]
    nodes: NodeSettings,
    faults: Option<Faults>,
    stock: Option<Stock>,
    mix: Option<Mix>,
    #[serde(default)]
    lines: Lines,
    #[serde(default)]
    steps: Vec<WrittenStep>,
    day: Option<Day>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    kill_leader_every_seconds: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    seconds: f64,
    in_flight: Option<u32>,
    per_second: Option<u32>,
    of_best: Option<f64>,
}

impl Profile {
    /// One of this program's own by its name, or a file's.
    pub(crate) fn find(name: &str) -> anyhow::Result<Profile> {
        if let Some((name, text)) = OWN.iter().find(|(own, _)| *own == name) {
            return Profile::parse(name, text);
        }
        let path = Path::new(name);
        ensure!(
            path.exists(),
            "there is no profile and no file `{name}`; `loadtests run --list` names the profiles"
        );
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        Profile::parse(name, &text)
    }

    /// Those that come with this program.
    pub(crate) fn all() -> anyhow::Result<Vec<Profile>> {
        let parse = |(name, text): &(&str, &str)| Profile::parse(name, text);
        OWN.iter().map(parse).collect()
    }

    fn parse(name: &str, text: &str) -> anyhow::Result<Profile> {
        let written: Written =
            toml::from_str(text).with_context(|| format!("profile {name} is not understood"))?;
        let profile = written.check(name);
        profile.with_context(|| format!("profile {name} is refused"))
    }

    /// How long everything takes that is measured.
    pub(crate) fn seconds(&self) -> f64 {
        match &self.work {
            Work::Mix { steps, .. } => steps.iter().map(|step| step.seconds).sum(),
            Work::Day(day) => day.seconds,
        }
    }

    /// The same in another time; steps stay in proportion.
    pub(crate) fn lasting(mut self, seconds: u32) -> Profile {
        let times = f64::from(seconds) / self.seconds();
        match &mut self.work {
            Work::Mix { steps, .. } => steps.iter_mut().for_each(|step| step.seconds *= times),
            Work::Day(day) => day.seconds *= times,
        }
        self
    }

    pub(crate) fn lead_in(&self) -> Duration {
        Duration::from_secs_f64(self.lead_in_seconds)
    }

    /// In a run made shorter, no more than a tenth of it.
    pub(crate) fn behind_max(&self) -> Duration {
        let tenth = Duration::from_secs_f64(self.seconds() / 10.0);
        let said = self
            .behind_max_seconds
            .map(|s| Duration::from_secs(s.into()));
        said.map_or(lab::BEHIND_MAX, |said| said.min(tenth).max(lab::BEHIND_MAX))
    }

    pub(crate) fn hold_ttl(&self) -> Duration {
        Duration::from_secs(self.hold_ttl_seconds.into())
    }
}

impl Written {
    fn check(self, name: &str) -> anyhow::Result<Profile> {
        let hold_ttl_seconds = self.hold_ttl_seconds.unwrap_or(HOLD_TTL_SECONDS);
        within("hold_ttl_seconds", hold_ttl_seconds, 2..=604_800)?;
        let lead_in_seconds = self.lead_in_seconds.unwrap_or(LEAD_IN_SECONDS);
        within("lead_in_seconds", lead_in_seconds, 0.0..=60.0)?;
        let best_seconds = self.best_seconds.unwrap_or(BEST_SECONDS);
        within("best_seconds", best_seconds, 1..=600)?;
        within("lines.basket", self.lines.basket, 1..=100)?;
        within("lines.read", self.lines.read, 1..=2_000)?;
        within("lines.receipt", self.lines.receipt, 1..=10_000)?;
        if let Some(seconds) = self.behind_max_seconds {
            within("behind_max_seconds", seconds, 1..=600)?;
        }
        if let Some(seconds) = self.sample_seconds {
            within("sample_seconds", seconds, 1..=3_600)?;
        }
        self.nodes.check()?;
        let bounds = self
            .must_bound_disks
            .then(|| self.nodes.pace())
            .transpose()?;
        let kill_leader_every_seconds = self.faults.map(|faults| faults.kill_leader_every_seconds);
        if let Some(seconds) = kill_leader_every_seconds {
            within("faults.kill_leader_every_seconds", seconds, 5..=3_600)?;
        }
        ensure!(
            !self.must_stay_flat || self.sample_seconds.is_some(),
            "must_stay_flat: without sample_seconds nothing is known of memory and disk"
        );
        ensure!(
            bounds.is_none() || self.sample_seconds.is_some(),
            "must_bound_disks: without sample_seconds nothing is known of the disks"
        );
        let sells = self.at_end == AtEnd::Sell;
        ensure!(
            !self.must_sell_out || sells,
            "must_sell_out: at_end must be \"sell\", or holds are given back"
        );
        let work = match (self.stock, self.mix, self.day) {
            (Some(stock), Some(mix), None) => mixed(stock, mix, &self.steps)?,
            (None, None, Some(day)) => {
                ensure!(self.steps.is_empty(), "steps: a day has none");
                ensure!(
                    !self.must_sell_out,
                    "must_sell_out: a day sells what it sold"
                );
                day.check()?;
                Work::Day(day)
            }
            _ => bail!("stock, mix, day: a profile has stock and mix, or a day"),
        };
        Ok(Profile {
            name: name.to_owned(),
            about: self.about,
            hold_ttl_seconds,
            lead_in_seconds,
            best_seconds,
            may_fall_behind: self.may_fall_behind,
            behind_max_seconds: self.behind_max_seconds,
            at_end: self.at_end,
            must_sell_out: self.must_sell_out,
            must_stay_flat: self.must_stay_flat,
            sample_seconds: self.sample_seconds,
            bounds,
            nodes: self.nodes,
            kill_leader_every_seconds,
            lines: self.lines,
            work,
        })
    }
}

impl NodeSettings {
    /// As `stockd serve` is told.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let argument =
            |flag: &str, value: Option<u64>| value.map(|value| format!("--{flag}={value}"));
        [
            argument("ledger-keep-seconds", self.ledger_keep_seconds),
            argument("checkpoint-after-bytes", self.checkpoint_after_bytes),
            argument("log-file-bytes", self.log_file_bytes),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Some(seconds) = self.ledger_keep_seconds {
            within("nodes.ledger_keep_seconds", seconds, 10..=31_536_000)?;
        }
        let sizes = [
            ("nodes.checkpoint_after_bytes", self.checkpoint_after_bytes),
            ("nodes.log_file_bytes", self.log_file_bytes),
        ];
        for (field, bytes) in sizes {
            within(field, bytes.unwrap_or(1 << 20), 1 << 16..=1 << 34)?;
        }
        Ok(())
    }

    fn pace(&self) -> anyhow::Result<bounds::Pace> {
        let needed = |field: &str, value: Option<u64>| {
            value.with_context(|| format!("must_bound_disks: nodes.{field} must be given"))
        };
        Ok(bounds::Pace {
            checkpoint_after_bytes: needed("checkpoint_after_bytes", self.checkpoint_after_bytes)?,
            log_file_bytes: needed("log_file_bytes", self.log_file_bytes)?,
            ledger_keep_seconds: needed("ledger_keep_seconds", self.ledger_keep_seconds)?,
        })
    }
}

fn mixed(stock: Stock, mix: Mix, steps: &[WrittenStep]) -> anyhow::Result<Work> {
    within("stock.skus", stock.skus, 1..=5_000_000)?;
    within(
        "stock.units_per_sku",
        stock.units_per_sku,
        1..=1_000_000_000,
    )?;
    within("stock.popularity", stock.popularity, 0.0..=5.0)?;
    for (action, weight) in mix.weights() {
        within(&format!("mix.{action}"), weight, 0..=1_000_000)?;
    }
    let all = mix.weights().iter().map(|(_, weight)| weight).sum::<u32>();
    ensure!(all > 0, "mix: every weight is 0");
    ensure!(!steps.is_empty(), "steps: there is none");
    let steps = steps.iter().enumerate();
    Ok(Work::Mix {
        stock,
        mix,
        steps: steps
            .map(|(number, step)| step.check(&format!("steps[{number}]")))
            .collect::<anyhow::Result<_>>()?,
    })
}

impl WrittenStep {
    fn check(&self, field: &str) -> anyhow::Result<Step> {
        within(&format!("{field}.seconds"), self.seconds, 1.0..=86_400.0)?;
        let pace = match (self.in_flight, self.per_second, self.of_best) {
            (Some(in_flight), None, None) => {
                within(&format!("{field}.in_flight"), in_flight, 1..=4_096)?;
                Pace::InFlight(in_flight)
            }
            (None, Some(per_second), None) => {
                within(&format!("{field}.per_second"), per_second, 1..=100_000)?;
                Pace::PerSecond(per_second)
            }
            (None, None, Some(part)) => {
                within(&format!("{field}.of_best"), part, 0.01..=2.0)?;
                Pace::OfBest(part)
            }
            _ => bail!("{field}: name one of in_flight, per_second and of_best"),
        };
        Ok(Step {
            seconds: self.seconds,
            pace,
        })
    }
}

impl Mix {
    pub(crate) fn weights(&self) -> [(&'static str, u32); 6] {
        [
            ("reserve", self.reserve),
            ("confirm", self.confirm),
            ("fulfill", self.fulfill),
            ("release", self.release),
            ("read", self.read),
            ("receive", self.receive),
        ]
    }
}

impl Day {
    fn check(&self) -> anyhow::Result<()> {
        within("day.seconds", self.seconds, 1.0..=86_400.0)?;
        within("day.online_percent", self.online_percent, 0..=100)?;
        within(
            "day.kiosk_reads_per_basket",
            self.kiosk_reads_per_basket,
            0..=100,
        )
    }
}

fn within<T: Copy + PartialOrd + Display>(
    field: &str,
    value: T,
    range: RangeInclusive<T>,
) -> anyhow::Result<()> {
    ensure!(
        range.contains(&value),
        "{field}: {value} is not between {} and {}",
        range.start(),
        range.end()
    );
    Ok(())
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Weeks, D::Error> {
    let text = String::deserialize(deserializer)?;
    Weeks::from_str(&text).map_err(serde::de::Error::custom)
}

fn to_text<S: serde::Serializer>(weeks: &Weeks, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(weeks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
about = "small"
[stock]
skus = 10
units_per_sku = 5
popularity = 0.9
[mix]
reserve = 1
[[steps]]
seconds = 2
per_second = 100
"#;

    fn refusal(text: &str) -> String {
        let error = Profile::parse("some.toml", text).expect_err("must be refused");
        format!("{error:#}")
    }

    #[test]
    fn all_that_come_with_the_program_are_good() {
        let profiles = Profile::all().expect("good");
        assert_eq!(profiles.len(), OWN.len());
        for profile in profiles {
            assert!(!profile.about.is_empty(), "{}", profile.name);
        }
    }

    #[test]
    fn a_profile_without_a_word_too_many() {
        let profile = Profile::parse("small", SMALL).expect("good");
        assert_eq!(profile.seconds(), 2.0);
        assert_eq!(profile.hold_ttl(), Duration::from_secs(600));
        let Work::Mix { steps, .. } = profile.lasting(10).work else {
            panic!("is no day");
        };
        assert_eq!(
            steps,
            [Step {
                seconds: 10.0,
                pace: Pace::PerSecond(100)
            }]
        );
    }

    #[test]
    fn bad_values_and_unknown_keys_are_refused_with_file_field_and_reason() {
        let cases = [
            ("skus = 10", "skus = 0", "stock.skus: 0 is not between 1"),
            ("skus = 10", "skus = -3", "skus"),
            ("skus = 10", "sku = 10", "unknown field `sku`"),
            (
                "about = \"small\"",
                "about = \"small\"\ncolour = 3",
                "unknown field `colour`",
            ),
            (
                "popularity = 0.9",
                "popularity = 9.0",
                "stock.popularity: 9 is not between 0 and 5",
            ),
            ("popularity = 0.9", "", "missing field `popularity`"),
            ("reserve = 1", "reserve = 0", "mix: every weight is 0"),
            ("reserve = 1", "buy = 1", "unknown field `buy`"),
            ("per_second = 100", "", "steps[0]: name one of"),
            (
                "per_second = 100",
                "per_second = 1\nin_flight = 1",
                "steps[0]: name one of",
            ),
            (
                "per_second = 100",
                "of_best = 2.5",
                "steps[0].of_best: 2.5 is not between",
            ),
            (
                "seconds = 2",
                "seconds = 0",
                "steps[0].seconds: 0 is not between",
            ),
            (
                "seconds = 2",
                "seconds = nan",
                "steps[0].seconds: NaN is not between",
            ),
            ("[mix]", "[lines]\nbasket = 101\n[mix]", "lines.basket: 101"),
            (
                "[mix]",
                "[faults]\nkill_leader_every_seconds = 1\n[mix]",
                "faults.kill_leader",
            ),
            (
                "[stock]",
                "must_stay_flat = true\n[stock]",
                "must_stay_flat: without",
            ),
            (
                "[stock]",
                "must_bound_disks = true\n[stock]",
                "must_bound_disks: nodes.checkpoint_after_bytes must be given",
            ),
            (
                "[stock]",
                "[nodes]\nledger_keep_seconds = 1\n[stock]",
                "nodes.ledger_keep_seconds: 1 is not between",
            ),
            (
                "[stock]",
                "must_sell_out = true\n[stock]",
                "must_sell_out: at_end",
            ),
            (
                "[stock]",
                "at_end = \"burn\"\n[stock]",
                "unknown variant `burn`",
            ),
            (
                "[mix]",
                "[day]\nweeks = \"1\"\nseconds = 9\nonline_percent = 1\nkiosk_reads_per_basket = \
                 1\n[mix]",
                "a profile has stock and mix, or a day",
            ),
        ];
        for (good, bad, wanted) in cases {
            let message = refusal(&SMALL.replace(good, bad));
            assert!(
                message.contains(wanted),
                "{bad:?}: {message:?} does not say {wanted:?}"
            );
            assert!(
                message.contains("some.toml"),
                "{message:?} does not name the file"
            );
        }
    }

    #[test]
    fn a_day_has_weeks_of_the_data() {
        let day = |weeks: &str| {
            format!(
                "about = \"a day\"\n[day]\nweeks = \"{weeks}\"\nseconds = 60\nonline_percent = 20\n\
                 kiosk_reads_per_basket = 1\n"
            )
        };
        Profile::parse("day", &day("1-4")).expect("good");
        assert!(
            refusal(&day("4-1")).contains("weeks"),
            "{}",
            refusal(&day("4-1"))
        );
    }

    #[test]
    fn what_is_neither_a_profile_nor_a_file_says_where_the_profiles_are() {
        let error = Profile::find("no-such-profile").expect_err("is not there");
        assert!(error.to_string().contains("--list"), "{error}");
    }
}
