//! Runs a text transcript against a shard. One line is one command and, after `->`, its answer:
//!
//! ```text
//! receive MUG@A=10                        -> recorded
//! reserve r1 MUG@A=4 ttl 1m               -> r1 held 1m: MUG@A 4 open
//! & confirm r1                            -> r1 confirmed: MUG@A 4 open
//! +15m
//! show MUG@A                              -> on_hand 10 reserved 4 available 6
//! ```
//!
//! Each command is a log entry of its own; `&` puts it into the entry of the command before. `+15m`
//! is an empty entry that much later; from `lag 3h` on the nodes' wall clocks show so much more
//! than cluster time. What may stand after a command, in any order, is listed at [`Options`].
//! `reserve a1..a20 MUG@A=1` stands for twenty commands, `each` for their names in the answer.
//! After every command the shard is audited.

use std::collections::{BTreeSet, HashMap};

use stock_core::limits::TTL_MS_DEFAULT;
use stock_core::{
    Action, Amend, At, Command, Confirm, Discrepancy, Document, Extend, Fulfill, LedgerEntry, Line,
    LineVerdict, Location, Moment, MovementKind, MovementLine, Movements, Operation, Outcome,
    PartialLine, Principal, Quantity, Reason, Refusal, Release, Reporter, Request, RequestId,
    Reservation, ReservationId, Reserve, Secret, SetPolicy, Shard, Sku, Source, Stamp, State,
};

use crate::audit::Audit;

/// When every transcript begins: September 2026.
const START: Stamp = Stamp(1_790_000_000_000);

/// Runs a transcript and compares every answer. On a difference it shows the transcript as it would
/// have been right.
#[track_caller]
pub(crate) fn check(transcript: &str) {
    let mut interpreter = Interpreter::new();
    let mut actual = Vec::new();
    let mut same = true;
    for line in transcript.lines().map(str::trim) {
        if line.is_empty() || line.starts_with("//") {
            actual.push(line.to_string());
            continue;
        }
        let (command, expected) = match line.split_once("->") {
            Some((command, expected)) => (command.trim(), Some(expected.trim())),
            None => (line, None),
        };
        let answer = interpreter.run(command);
        // A line without an expectation sets the scene: it may be answered by anything but a no.
        let fits = match expected {
            Some(expected) => expected == answer,
            None => !answer.contains("refused") && !answer.starts_with("short"),
        };
        same &= fits;
        let mark = if fits { "" } else { "   <- differs" };
        actual.push(match (expected, fits) {
            (None, true) => command.to_string(),
            _ => format!("{command:<39} -> {answer}{mark}"),
        });
    }
    assert!(same, "the answers are:\n\n{}\n", actual.join("\n"));
}

struct Interpreter {
    shard: Shard,
    now: Stamp,
    /// How far cluster time lags behind the nodes' wall clocks, in milliseconds.
    lag_ms: u64,
    index: u64,
    ordinal: u32,
    /// Ids of all kinds are numbered, so that later ones are greater.
    made: u64,
    ids: HashMap<String, ReservationId>,
    names: HashMap<ReservationId, String>,
    requests: HashMap<String, RequestId>,
    /// What the last entry or command left behind.
    ledger: Vec<LedgerEntry>,
    audit: Audit,
    /// Reservations whose lines were replaced since the last audit.
    amended: Vec<ReservationId>,
    in_series: bool,
}

impl Interpreter {
    fn new() -> Self {
        Self {
            shard: Shard::new(Secret(7)),
            now: START,
            lag_ms: 0,
            index: 0,
            ordinal: 0,
            made: 0,
            ids: HashMap::new(),
            names: HashMap::new(),
            requests: HashMap::new(),
            ledger: Vec::new(),
            audit: Audit::default(),
            amended: Vec::new(),
            in_series: false,
        }
    }

    fn run(&mut self, line: &str) -> String {
        if let Some(span) = line.strip_prefix('+') {
            self.now = self.now.plus_ms(millis(span));
            self.begin_entry();
            return String::new();
        }
        if let Some(span) = line.strip_prefix("lag ") {
            self.lag_ms = millis(span);
            return String::new();
        }
        if let Some((before, names, after)) = series(line) {
            let mut answers = BTreeSet::new();
            self.in_series = true;
            for name in names {
                let answer = self.run(&format!("{before}{name}{after}"));
                answers.insert(answer.replacen(&name, "each", 1));
            }
            self.in_series = false;
            self.audit();
            return answers.into_iter().collect::<Vec<_>>().join(" | ");
        }
        let (same_entry, line) = match line.strip_prefix('&') {
            Some(line) => (true, line.trim()),
            None => (false, line),
        };
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let verb = words.remove(0);
        match verb {
            "show" => return self.show(words[0]),
            "get" => return self.get(words[0]),
            "ledger" => return self.show_ledger(),
            "due" => return self.due(),
            "counts" => return self.counts(),
            _ => {}
        }
        if same_entry {
            self.ordinal += 1;
            self.ledger.clear();
        } else {
            self.begin_entry();
        }
        let options = Options::take(&mut words, self.now);
        let command = self.command(verb, &words, &options);
        let at = At {
            index: self.index,
            ordinal: self.ordinal,
            moment: self.moment(),
        };
        let mut ledger = Vec::new();
        let outcome = self.shard.apply(at, command, &mut ledger);
        if let Outcome::Reservation(reservation) = &outcome
            && !self.names.contains_key(&reservation.id)
        {
            self.ids.insert(words[0].to_string(), reservation.id);
            self.names.insert(reservation.id, words[0].to_string());
        }
        if verb == "amend" {
            let id = self.id(words[0]);
            self.amended.push(id);
        }
        self.audit.take(&ledger);
        self.audit();
        self.ledger.extend(ledger);
        self.outcome(&outcome)
    }

    fn moment(&self) -> Moment {
        Moment {
            stamp: self.now,
            wall: self.now.plus_ms(self.lag_ms),
        }
    }

    fn begin_entry(&mut self) {
        self.index += 1;
        self.ordinal = 0;
        let mut ledger = Vec::new();
        self.shard.advance(self.moment(), &mut ledger);
        self.audit.take(&ledger);
        self.audit();
        self.ledger = ledger;
    }

    /// Not inside a series, whose audit is at its end.
    fn audit(&mut self) {
        if self.in_series {
            return;
        }
        let amended = std::mem::take(&mut self.amended);
        let ids: Vec<_> = self.names.keys().copied().collect();
        if let Err(wrong) = self.audit.check(&self.shard, &ids, &amended) {
            panic!("the audit found: {wrong}");
        }
    }

    fn command(&mut self, verb: &str, words: &[&str], options: &Options) -> Command {
        let principal = Principal::new(options.principal.unwrap_or("web")).unwrap();
        let action = match verb {
            "receive" | "sale" | "adjust" => {
                Action::Movements(self.movements(verb, words, options))
            }
            _ => {
                let operation = self.operation(verb, words, options);
                let fingerprint = operation.fingerprint();
                let id = self.request_id(options);
                Action::Request(Request { id, fingerprint }, operation)
            }
        };
        Command { principal, action }
    }

    fn operation(&mut self, verb: &str, words: &[&str], options: &Options) -> Operation {
        if verb == "policy" {
            let (sku, location) = place(words[0]);
            return Operation::SetPolicy(SetPolicy {
                sku,
                location: location.unwrap(),
                safety_stock: options.safety,
                backorder_limit: options.backorder,
            });
        }
        let lines = &words[1..];
        match verb {
            "reserve" => Operation::Reserve(Reserve {
                id: match options.id {
                    Some(name) => self.id(name),
                    None => self.new_id(),
                },
                lines: lines.iter().map(|word| basket_line(word)).collect(),
                ttl_ms: options.ttl_ms.unwrap_or(TTL_MS_DEFAULT),
                labels: None,
                over: None,
            }),
            "confirm" => Operation::Confirm(Confirm {
                id: self.id(words[0]),
                pickup_within_ms: options.pickup_ms,
            }),
            "release" => Operation::Release(Release {
                id: self.id(words[0]),
                lines: lines.iter().map(|word| partial_line(word)).collect(),
                forced: None,
            }),
            "fulfill" => Operation::Fulfill(Fulfill {
                id: self.id(words[0]),
                lines: lines.iter().map(|word| partial_line(word)).collect(),
            }),
            "extend" => Operation::Extend(Extend {
                id: self.id(words[0]),
                ttl_ms: options.ttl_ms.unwrap(),
            }),
            "amend" => Operation::Amend(Amend {
                id: self.id(words[0]),
                lines: lines.iter().map(|word| basket_line(word)).collect(),
                ttl_ms: options.ttl_ms,
                over: None,
            }),
            _ => panic!("no command {verb:?}"),
        }
    }

    fn movements(&mut self, verb: &str, words: &[&str], options: &Options) -> Movements {
        let kind = match verb {
            "receive" => MovementKind::Receipt,
            "sale" => MovementKind::Sale,
            _ => MovementKind::Adjustment,
        };
        self.made += 1;
        let document = match options.document {
            Some(name) => name.to_string(),
            None => format!("unnamed-{}", self.made),
        };
        let line = |(number, word): (u32, &&str)| {
            let (at, quantity) = word.split_once('=').unwrap();
            let (sku, location) = place(at);
            let quantity: i64 = quantity.parse().unwrap();
            MovementLine {
                line: Document::new(&number.to_string()).unwrap(),
                sku,
                location: location.unwrap(),
                on_hand_delta: match kind {
                    MovementKind::Sale => -quantity,
                    _ => quantity,
                },
                occurred_at: options.occurred_at.unwrap_or(self.now),
            }
        };
        let source = options.source.or(options.principal).unwrap_or("web");
        Movements {
            kind,
            source: Reporter::new(source).unwrap(),
            document: Document::new(&document).unwrap(),
            reason: options.reason.map(|text| Reason::new(text).unwrap()),
            lines: (1..).zip(words).map(line).collect(),
        }
    }

    /// Of a reservation that was made, or one that nobody ever heard of.
    fn id(&mut self, name: &str) -> ReservationId {
        match self.ids.get(name) {
            Some(id) => *id,
            None => self.new_id(),
        }
    }

    fn new_id(&mut self) -> ReservationId {
        self.made += 1;
        ReservationId::compose(self.now, 0, self.made)
    }

    /// The one that was given this name, or a new one.
    fn request_id(&mut self, options: &Options) -> RequestId {
        if let Some(id) = options.request.and_then(|name| self.requests.get(name)) {
            return *id;
        }
        self.made += 1;
        let made_at = options.made_at.unwrap_or(self.now);
        let bits = u128::from(made_at.0) << 80 | 0x7 << 76 | u128::from(self.made);
        let id = RequestId::new(bits.to_be_bytes()).unwrap();
        if let Some(name) = options.request {
            self.requests.insert(name.to_string(), id);
        }
        id
    }

    fn show(&self, at: &str) -> String {
        let (sku, location) = place(at);
        let stock = self.shard.stock(&sku);
        match stock.and_then(|stock| stock.position(&location.unwrap())) {
            Some(position) => format!(
                "on_hand {} reserved {} available {}",
                position.on_hand,
                position.reserved,
                position.available()
            ),
            None => "nothing".to_string(),
        }
    }

    fn get(&mut self, name: &str) -> String {
        let id = self.id(name);
        match self.shard.reservation(&id) {
            Some(reservation) => self.reservation(reservation),
            None => "nothing".to_string(),
        }
    }

    fn due(&self) -> String {
        match self.shard.next_expiry() {
            Some(at) if at <= self.now => "now".to_string(),
            Some(at) => format!("in {}", span(at.0 - self.now.0)),
            None => "never".to_string(),
        }
    }

    fn counts(&self) -> String {
        let counts = self.shard.counts();
        format!(
            "skus {} positions {} open {} ended {} requests {}",
            counts.skus,
            counts.positions,
            counts.open_reservations,
            counts.ended_reservations,
            counts.requests_remembered
        )
    }

    fn show_ledger(&self) -> String {
        let entry = |entry: &LedgerEntry| {
            let mut text = format!("{:?} {}@{}", entry.kind, entry.sku, entry.location);
            if entry.on_hand_delta != 0 {
                text += &format!(" on_hand {:+}", entry.on_hand_delta);
            }
            if entry.reserved_delta != 0 {
                text += &format!(" reserved {:+}", entry.reserved_delta);
            }
            text += &match &entry.source {
                Source::Reservation(id) => format!(" of {}", self.name(id)),
                Source::Document {
                    reporter,
                    document,
                    line,
                } => match reporter.as_str() == entry.principal.as_str() {
                    true => format!(" of {document}/{line}"),
                    false => format!(" of {document}/{line} from {reporter}"),
                },
                Source::Policy => String::new(),
            };
            text += &format!(" by {}", entry.principal);
            if entry.occurred_at != entry.stamp {
                text += &match entry.stamp.0.checked_sub(entry.occurred_at.0) {
                    Some(ago) => format!(" {} ago", span(ago)),
                    None => format!(" {} ahead", span(entry.occurred_at.0 - entry.stamp.0)),
                };
            }
            if let Some(reason) = &entry.reason {
                text += &format!(" since {}", reason.as_str());
            }
            if let Some(discrepancy) = &entry.discrepancy {
                text += &format!(", {}", self.discrepancy(discrepancy));
            }
            assert_eq!(entry.stamp, self.now);
            text
        };
        let entries: Vec<_> = self.ledger.iter().map(entry).collect();
        match entries.is_empty() {
            true => "nothing".to_string(),
            false => entries.join("; "),
        }
    }

    fn name(&self, id: &ReservationId) -> String {
        self.names
            .get(id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }

    fn outcome(&self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Reservation(reservation) => self.reservation(reservation),
            Outcome::Shortage(shortage) => {
                let lines = shortage.lines.iter().map(|line| {
                    format!(
                        "{}@{} requested {} available {} reservable {}",
                        line.sku, line.location, line.requested, line.available, line.reservable
                    )
                });
                format!("short {}", lines.collect::<Vec<_>>().join(", "))
            }
            Outcome::Prepared(_) | Outcome::Undecided(_) | Outcome::Basket(_) => {
                panic!("baskets here are of one shard")
            }
            Outcome::Policy(policy) => {
                let mut text = format!(
                    "safety {} backorder {} available {}",
                    policy.safety_stock, policy.backorder_limit, policy.available
                );
                if let Some(discrepancy) = &policy.discrepancy {
                    text += &format!(", {}", self.discrepancy(discrepancy));
                }
                text
            }
            Outcome::Movements(verdicts) => {
                let verdicts = verdicts.iter().map(|verdict| match verdict {
                    LineVerdict::Recorded {
                        discrepancy,
                        ahead_ms,
                    } => {
                        let mut text = "recorded".to_string();
                        if *ahead_ms > 0 {
                            text += &format!(" {} ahead", span(*ahead_ms));
                        }
                        text + &self.and(discrepancy.as_deref())
                    }
                    LineVerdict::AlreadyRecorded { discrepancy } => {
                        "already recorded".to_string() + &self.and(discrepancy.as_deref())
                    }
                    LineVerdict::Refused(refusal) => refused(refusal),
                });
                verdicts.collect::<Vec<_>>().join("; ")
            }
            Outcome::Refused(refusal) => refused(refusal),
        }
    }

    fn and(&self, discrepancy: Option<&Discrepancy>) -> String {
        discrepancy.map_or_else(String::new, |found| {
            format!(", {}", self.discrepancy(found))
        })
    }

    fn reservation(&self, reservation: &Reservation) -> String {
        let mut text = format!(
            "{} {}",
            self.name(&reservation.id),
            state(reservation.state)
        );
        if let Some(at) = reservation.expires_at
            && reservation.state.is_open()
        {
            text += &match at.0.checked_sub(self.now.0) {
                Some(left) => format!(" {}", span(left)),
                None => format!(" {} too long", span(self.now.0 - at.0)),
            };
        }
        if reservation.principal.as_str() != "web" {
            text += &format!(" by {}", reservation.principal);
        }
        let lines = reservation.lines.iter().map(|line| {
            let parts = [
                (line.open, "open"),
                (line.fulfilled, "fulfilled"),
                (line.released, "released"),
                (line.expired(), "expired"),
            ];
            let parts = parts.into_iter().filter(|(units, _)| *units != 0);
            let parts: Vec<_> = parts.map(|(units, end)| format!("{units} {end}")).collect();
            format!("{}@{} {}", line.sku, line.location, parts.join(" "))
        });
        format!("{text}: {}", lines.collect::<Vec<_>>().join(", "))
    }

    fn discrepancy(&self, discrepancy: &Discrepancy) -> String {
        let endangered = discrepancy.endangered.iter().map(|id| self.name(id));
        let endangered: Vec<_> = endangered.collect();
        format!(
            "{}@{} available {} short by {} endangers {}",
            discrepancy.sku,
            discrepancy.location,
            discrepancy.available,
            discrepancy.short_by,
            match endangered.is_empty() {
                true => "nobody".to_string(),
                false => endangered.join(" "),
            }
        )
    }
}

/// What may stand after a command.
#[derive(Default)]
struct Options<'a> {
    /// `by NAME`: who asks; else `web`.
    principal: Option<&'a str>,
    /// `from NAME`: who reports a movement; else whoever asks.
    source: Option<&'a str>,
    /// `#NAME`: the request's id, to use it again; else a new one.
    request: Option<&'a str>,
    /// `made 5m ago`: the time inside a new request id; else now.
    made_at: Option<Stamp>,
    /// `id r1`: the id that a reserve proposes; else a new one.
    id: Option<&'a str>,
    /// `occurred 5m ago`, or `at 5m` since the transcript began: of a movement.
    occurred_at: Option<Stamp>,
    /// `ttl 5m`
    ttl_ms: Option<u64>,
    /// `pickup 2h`
    pickup_ms: Option<u64>,
    /// `safety 2`
    safety: Option<i64>,
    /// `backorder 3`
    backorder: Option<i64>,
    /// `reason broken`
    reason: Option<&'a str>,
    /// `doc D1`: else a new one.
    document: Option<&'a str>,
}

impl<'a> Options<'a> {
    /// Takes them away from the words, so that the names and lines of the command are left.
    fn take(words: &mut Vec<&'a str>, now: Stamp) -> Self {
        let mut options = Self::default();
        let mut left = Vec::new();
        let mut rest = words.drain(..);
        while let Some(word) = rest.next() {
            let mut value = || rest.next().unwrap_or_else(|| panic!("{word} what?"));
            match word {
                "by" => options.principal = Some(value()),
                "from" => options.source = Some(value()),
                "made" => options.made_at = Some(moment(value(), value(), now)),
                "id" => options.id = Some(value()),
                "occurred" => options.occurred_at = Some(moment(value(), value(), now)),
                "ttl" => options.ttl_ms = Some(millis(value())),
                "pickup" => options.pickup_ms = Some(millis(value())),
                "safety" => options.safety = Some(value().parse().unwrap()),
                "backorder" => options.backorder = Some(value().parse().unwrap()),
                "reason" => options.reason = Some(value()),
                "doc" => options.document = Some(value()),
                word if word.starts_with('#') => options.request = Some(word),
                word => left.push(word),
            }
        }
        drop(rest);
        *words = left;
        options
    }
}

/// `1.5`-free times: `90s`, `15m`, `1h`, `7d`, `250ms`.
fn millis(text: &str) -> u64 {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => panic!("no time {text:?}"),
    };
    number.parse::<u64>().unwrap() * unit
}

fn span(ms: u64) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    match units
        .into_iter()
        .find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// `5m ago`, `5m ahead`, `at 5m`.
fn moment(first: &str, second: &str, now: Stamp) -> Stamp {
    match (first, second) {
        ("at", since_start) => START.plus_ms(millis(since_start)),
        (ago, "ago") => now.minus_ms(millis(ago)),
        (ahead, "ahead") => now.plus_ms(millis(ahead)),
        _ => panic!("no moment {first} {second}"),
    }
}

/// `reserve a1..a3 MUG@A=1` is `reserve `, a1 a2 a3, ` MUG@A=1`.
fn series(line: &str) -> Option<(&str, Vec<String>, &str)> {
    let (head, tail) = line.split_once("..")?;
    let (before, first) = head.rsplit_once(' ')?;
    let (last, after) = tail.split_at(tail.find(' ').unwrap_or(tail.len()));
    let prefix = first.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = |name: &str| name[prefix.len()..].parse::<u32>().unwrap();
    let names = (number(first)..=number(last)).map(|n| format!("{prefix}{n}"));
    Some((&line[..before.len() + 1], names.collect(), after))
}

/// `MUG@A` or, where the location may be left out, `MUG`.
fn place(text: &str) -> (Sku, Option<Location>) {
    match text.split_once('@') {
        Some((sku, location)) => {
            let location = Location::new(location).unwrap();
            (Sku::new(sku).unwrap(), Some(location))
        }
        None => (Sku::new(text).unwrap(), None),
    }
}

fn quantity(text: &str) -> Quantity {
    Quantity::new(text.parse().unwrap()).unwrap()
}

fn basket_line(text: &str) -> Line {
    let (at, units) = text.split_once('=').unwrap();
    let (sku, location) = place(at);
    Line {
        sku,
        location: location.unwrap(),
        quantity: quantity(units),
    }
}

fn partial_line(text: &str) -> PartialLine {
    let (at, units) = text.split_once('=').unwrap();
    let (sku, location) = place(at);
    PartialLine {
        sku,
        location,
        quantity: quantity(units),
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Held => "held",
        State::Confirmed => "confirmed",
        State::Fulfilled => "fulfilled",
        State::Released => "released",
        State::Expired => "expired",
    }
}

/// The lines of commands are counted from 0, as in the log.
fn refused(refusal: &Refusal) -> String {
    let what = match refusal {
        Refusal::RequestTooOld { horizon } => {
            format!("request too old, horizon {}", span(horizon.0 - START.0))
        }
        Refusal::RequestFromFuture => "request from the future".to_string(),
        Refusal::RequestReused => "request id reused".to_string(),
        Refusal::RequestMemoryFull => "request memory full".to_string(),
        Refusal::DocumentTooOld { horizon } => {
            format!("document too old, horizon {}", span(horizon.0 - START.0))
        }
        Refusal::DocumentReused => "document reused".to_string(),
        Refusal::DocumentMemoryFull => "document memory full".to_string(),
        Refusal::OccurredInFuture => "occurred in the future".to_string(),
        Refusal::UnknownSku { line } => format!("line {line} unknown sku"),
        Refusal::UnknownReservation => "unknown reservation".to_string(),
        Refusal::WrongState { state: found } => format!("it is {}", state(*found)),
        Refusal::NothingToExtend => "nothing to extend".to_string(),
        Refusal::LineNotInReservation { line } => format!("line {line} not in reservation"),
        Refusal::LineAmbiguous { line } => format!("line {line} ambiguous"),
        Refusal::LineExceedsOpen { line, open } => format!("line {line} exceeds {open} open"),
        Refusal::CounterOutOfRange { line } => format!("line {line} counter out of range"),
        Refusal::TooManyReservations => "too many reservations".to_string(),
        Refusal::TooManyPositions => "too many positions".to_string(),
        Refusal::TooManyLocations => "too many locations".to_string(),
        Refusal::ReservationIdTaken => "reservation id taken".to_string(),
        Refusal::TooLate => "too late".to_string(),
        Refusal::NotHeldInTime => "not held in time".to_string(),
        Refusal::Reconciling => "reconciling".to_string(),
    };
    format!("refused: {what}")
}
