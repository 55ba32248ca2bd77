//! The baskets as the shop's tills recorded them: what `fetch-dunnhumby.sh` wrote, read and
//! checked.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// The file inside the data set's directory.
const FILE: &str = "transactions.csv";

/// Calendar weeks of the data, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weeks {
    first: u32,
    last: u32,
}

/// The chosen weeks, in the order of time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dataset {
    pub(crate) baskets: Vec<Basket>,
    /// Lines whose quantity was 0 or less, which no shop can reserve.
    pub(crate) lines_skipped: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Basket {
    pub(crate) store: u32,
    /// When it was paid, by the shop's clock.
    pub(crate) second_of_day: u32,
    pub(crate) lines: Vec<BasketLine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BasketLine {
    pub(crate) product: u64,
    pub(crate) quantity: i64,
}

/// Reads the weeks asked for; an error says how to fetch the data where it is absent.
pub(crate) fn read(directory: &Path, weeks: Weeks) -> anyhow::Result<Dataset> {
    let path = directory.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "there is no data set in {directory}; fetch it with: loadtests/fetch-dunnhumby.sh \
             {directory}",
            directory = directory.display()
        ),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let dataset = parse(file, weeks).with_context(|| format!("cannot use {}", path.display()))?;
    ensure!(
        !dataset.baskets.is_empty(),
        "{} has no baskets in weeks {weeks}",
        path.display()
    );
    Ok(dataset)
}

/// A line of the file, borrowed from the record it was read into.
#[derive(Deserialize)]
struct Row<'a> {
    /// Its order is used, as ISO 8601 sorts as text, and its time of day.
    timestamp: &'a str,
    week: u32,
    basket: u64,
    store: u32,
    product: u64,
    quantity: i64,
}

fn parse(source: impl Read, weeks: Weeks) -> anyhow::Result<Dataset> {
    let mut reader = csv::Reader::from_reader(source);
    let headers = reader.headers()?.clone();
    let mut record = csv::StringRecord::new();
    let mut dataset = Dataset {
        baskets: Vec::new(),
        lines_skipped: 0,
    };
    let mut basket_open = None;
    let mut timestamp_before = String::new();

    while reader.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        let row: Row<'_> = record
            .deserialize(Some(&headers))
            .with_context(|| format!("line {line} is malformed"))?;
        ensure!(
            row.timestamp >= timestamp_before.as_str(),
            "line {line} is earlier than the one before it; fetch the data set again"
        );
        row.timestamp.clone_into(&mut timestamp_before);
        if !weeks.contains(row.week) {
            continue;
        }
        if row.quantity <= 0 {
            dataset.lines_skipped += 1;
            continue;
        }
        if basket_open != Some(row.basket) {
            basket_open = Some(row.basket);
            let second_of_day = second_of_day(row.timestamp)
                .with_context(|| format!("line {line} has no time of day"))?;
            dataset.baskets.push(Basket {
                store: row.store,
                second_of_day,
                lines: Vec::new(),
            });
        }
        if let Some(basket) = dataset.baskets.last_mut() {
            ensure!(
                basket.store == row.store,
                "line {line} takes basket {} to another store",
                row.basket
            );
            basket.lines.push(BasketLine {
                product: row.product,
                quantity: row.quantity,
            });
        }
    }
    Ok(dataset)
}

/// Of a timestamp like 2017-01-01T11:53:26.
fn second_of_day(timestamp: &str) -> Option<u32> {
    let (_, time) = timestamp.split_once('T')?;
    let mut parts = time.split(':').map(|part| part.parse::<u32>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    (hour < 24 && minute < 60 && second < 60).then_some((hour * 60 + minute) * 60 + second)
}

impl Weeks {
    fn contains(self, week: u32) -> bool {
        (self.first..=self.last).contains(&week)
    }
}

impl std::fmt::Display for Weeks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for Weeks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 1 <= first && first <= last => Ok(Weeks { first, last }),
            _ => Err("expected a week like 7, or a range like 1-4; the data has weeks 1-53".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two stores, one basket with a line that nothing was sold of, one basket a week later.
    const SMALL: &str = "\
\"timestamp\",\"week\",\"basket\",\"store\",\"product\",\"quantity\"
2017-01-01T11:53:26,1,31198570044,330,1095275,2
2017-01-01T11:53:26,1,31198570044,330,1096036,0
2017-01-01T11:53:26,1,31198570044,330,1097350,13
2017-01-01T12:10:28,1,31198570047,406,1095275,1
2017-01-09T09:00:00,2,31198570050,330,1095275,5
";

    fn weeks(text: &str) -> Weeks {
        text.parse().expect("weeks")
    }

    fn line(product: u64, quantity: i64) -> BasketLine {
        BasketLine { product, quantity }
    }

    #[test]
    fn baskets_keep_their_lines_and_order() {
        let dataset = parse(SMALL.as_bytes(), weeks("1-2")).expect("parses");
        let expected = Dataset {
            baskets: vec![
                Basket {
                    store: 330,
                    second_of_day: 11 * 3_600 + 53 * 60 + 26,
                    lines: vec![line(1095275, 2), line(1097350, 13)],
                },
                Basket {
                    store: 406,
                    second_of_day: 12 * 3_600 + 10 * 60 + 28,
                    lines: vec![line(1095275, 1)],
                },
                Basket {
                    store: 330,
                    second_of_day: 9 * 3_600,
                    lines: vec![line(1095275, 5)],
                },
            ],
            lines_skipped: 1,
        };
        assert_eq!(dataset, expected);
    }

    #[test]
    fn other_weeks_are_left_out() {
        let dataset = parse(SMALL.as_bytes(), weeks("2")).expect("parses");
        assert_eq!(dataset.baskets.len(), 1);
        assert_eq!(dataset.lines_skipped, 0);
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        let check = |rows: &str, wanted: &str| {
            let text = format!("timestamp,week,basket,store,product,quantity\n{rows}");
            let error = parse(text.as_bytes(), weeks("1-53")).expect_err("must be refused");
            let message = format!("{error:#}");
            assert!(
                message.contains(wanted),
                "{message:?} does not say {wanted:?}"
            );
        };
        check(
            "2017-01-02T09:00:00,1,1,1,1,1\n2017-01-01T09:00:00,1,2,1,1,1\n",
            "line 3 is earlier",
        );
        check(
            "2017-01-01T09:00:00,1,1,1,1,1\n2017-01-01T09:00:00,1,1,2,1,1\n",
            "line 3 takes basket 1",
        );
        check("2017-01-01,1,1,1,1,many\n", "line 2 is malformed");
        check("2017-01-01,1,1,1,1\n", "line: 2");
        check(
            "2017-01-01T25:00:00,1,1,1,1,1\n",
            "line 2 has no time of day",
        );
    }

    #[test]
    fn an_absent_data_set_says_how_to_fetch_it() {
        let error = read(Path::new("/nonexistent/baskets"), weeks("1")).expect_err("is absent");
        assert_eq!(
            error.to_string(),
            "there is no data set in /nonexistent/baskets; fetch it with: \
             loadtests/fetch-dunnhumby.sh /nonexistent/baskets"
        );
    }

    #[test]
    fn weeks_are_a_number_or_a_range() {
        assert_eq!(weeks("1-4"), Weeks { first: 1, last: 4 });
        assert_eq!(weeks("7"), Weeks { first: 7, last: 7 });
        for bad in ["", "0", "4-1", "1-", "-4", "one", "1-2-3"] {
            assert!(bad.parse::<Weeks>().is_err(), "{bad:?} was taken");
        }
    }
}
