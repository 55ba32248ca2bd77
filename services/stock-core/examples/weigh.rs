//! What a shard weighs and how fast it is: a million positions, half a million holds.
//!
//! `cargo run --release -p stock-core --example weigh`. It asserts nothing: times are the
//! machine's, and what its other processes do to the caches shows in them, although only the time
//! on the processor is counted.
#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use std::hint::black_box;

use stock_core::{
    Action, At, Command, Document, Fingerprint, Line, Location, MovementKind, MovementLine,
    Movements, Operation, Outcome, Principal, Quantity, Release, Reporter, Request, RequestId,
    ReservationId, Reserve, Secret, Shard, ShardRestorer, Sku, Stamp, StateRestorer,
};

const SKUS: usize = 200_000;
const LOCATIONS: usize = 5;
const HOLDS: usize = 500_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

fn main() {
    let before = resident_bytes();
    let mut driver = Driver::new();
    let skus: Vec<Sku> = (0..SKUS)
        .map(|n| Sku::new(&format!("SKU-{n:08}")).unwrap())
        .collect();
    let locations: Vec<Location> = (0..LOCATIONS)
        .map(|n| Location::new(&format!("STORE-{n:04}")).unwrap())
        .collect();
    let inputs = resident_bytes();
    for chunk in skus.chunks(200) {
        driver.receive(chunk, &locations);
    }
    let positions = driver.shard.counts().positions;
    let filled = resident_bytes();
    println!("{positions} positions");
    println!(
        "{:>8.1} bytes a position (names held by the caller: {:.1})",
        (filled - inputs) as f64 / positions as f64,
        (inputs - before) as f64 / positions as f64,
    );

    for round in 0..3 {
        let reserves: Vec<Command> = (0..HOLDS)
            .map(|n| driver.reserve(n, &skus[(n * 7_919) % SKUS], &locations[n % LOCATIONS]))
            .collect();
        let releases: Vec<Command> = (0..HOLDS).map(|n| driver.release(n)).collect();
        driver.timed(&format!("reserve, round {round}"), reserves);
        if round == 0 {
            let held = resident_bytes();
            println!(
                "{:>8.1} MB after {HOLDS} holds",
                (held - before) as f64 / 1e6
            );
        }
        driver.timed(&format!("release, round {round}"), releases);
        driver.pass(DAY_MS + 1);
    }

    // With a quarter of the holds open, and what is remembered of them.
    let reserves: Vec<Command> = (0..HOLDS / 4)
        .map(|n| driver.reserve(n, &skus[(n * 7_919) % SKUS], &locations[n % LOCATIONS]))
        .collect();
    driver.timed("reserve", reserves);
    let start = processor_ns();
    let mut frozen = driver.shard.freeze();
    println!(
        "{:>8.1} us to freeze",
        (processor_ns() - start) as f64 / 1e3
    );
    let reserves: Vec<Command> = (0..HOLDS / 4)
        .map(|n| {
            let n = n + HOLDS;
            driver.reserve(n, &skus[(n * 7_919) % SKUS], &locations[n % LOCATIONS])
        })
        .collect();
    driver.timed("reserve while all is frozen", reserves);

    let start = processor_ns();
    let head = frozen.head_bytes().to_vec();
    let buckets: Vec<Vec<u8>> = (0..frozen.buckets())
        .map(|bucket| frozen.take_bucket(bucket).unwrap_or_default())
        .collect();
    let bytes: usize = buckets.iter().map(Vec::len).sum();
    println!(
        "{:>8.1} ms to write {:.1} MB, {:.1} bytes a position",
        (processor_ns() - start) as f64 / 1e6,
        bytes as f64 / 1e6,
        bytes as f64 / positions as f64,
    );
    let before = resident_bytes();
    let start = processor_ns();
    let mut restorer = ShardRestorer::new(&head).unwrap();
    for (number, bytes) in buckets.iter().enumerate() {
        restorer.bucket(number, bytes).unwrap();
    }
    let restored = restorer.finish().unwrap();
    println!(
        "{:>8.1} ms to restore {:?}, {:.1} MB",
        (processor_ns() - start) as f64 / 1e6,
        restored.counts(),
        (resident_bytes() - before) as f64 / 1e6,
    );
}

struct Driver {
    shard: Shard,
    at: At,
    requests: u64,
}

impl Driver {
    fn new() -> Self {
        let at = At {
            index: 0,
            ordinal: 0,
            moment: Stamp(1_790_000_000_000).into(),
        };
        Self {
            shard: Shard::new(Secret(1)),
            at,
            requests: 0,
        }
    }

    /// Documents are forgotten at once, so that they are not weighed.
    fn receive(&mut self, skus: &[Sku], locations: &[Location]) {
        let mut lines = Vec::new();
        for sku in skus {
            for location in locations {
                lines.push(MovementLine {
                    line: Document::new(&lines.len().to_string()).unwrap(),
                    sku: sku.clone(),
                    location: location.clone(),
                    on_hand_delta: 1_000,
                    occurred_at: self.at.stamp(),
                });
            }
        }
        self.at.index += 1;
        let movements = Movements {
            kind: MovementKind::Receipt,
            source: Reporter::new("warehouse").unwrap(),
            document: Document::new(&self.at.index.to_string()).unwrap(),
            reason: None,
            lines,
        };
        let action = Action::Movements(movements);
        self.apply(Command {
            principal: Principal::new("warehouse").unwrap(),
            action,
        });
        self.pass(31 * DAY_MS);
    }

    fn reserve(&mut self, number: usize, sku: &Sku, location: &Location) -> Command {
        let line = Line {
            sku: Sku::new(sku.as_str()).unwrap(),
            location: Location::new(location.as_str()).unwrap(),
            quantity: Quantity::new(1).unwrap(),
        };
        let reserve = Reserve {
            id: self.id(number),
            lines: vec![line],
            ttl_ms: 900_000,
            labels: None,
            over: None,
        };
        self.request(Operation::Reserve(reserve))
    }

    fn release(&mut self, number: usize) -> Command {
        let release = Release {
            id: self.id(number),
            lines: Vec::new(),
            forced: None,
        };
        self.request(Operation::Release(release))
    }

    fn id(&self, number: usize) -> ReservationId {
        ReservationId::compose(self.at.stamp(), 0, scattered(number as u64))
    }

    fn request(&mut self, operation: Operation) -> Command {
        self.requests += 1;
        let low = scattered(self.requests) >> 4;
        let bits = u128::from(self.at.stamp().0) << 80 | 0x7 << 76 | u128::from(low);
        let request = Request {
            id: RequestId::new(bits.to_be_bytes()).unwrap(),
            fingerprint: Fingerprint([1; 8]),
        };
        Command {
            principal: Principal::new("web").unwrap(),
            action: Action::Request(request, operation),
        }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.at.ordinal += 1;
        let mut ledger = Vec::new();
        self.shard.apply(self.at, command, &mut ledger)
    }

    fn timed(&mut self, what: &str, commands: Vec<Command>) {
        let count = commands.len();
        let start = processor_ns();
        let mut ledger = Vec::new();
        for command in commands {
            self.at.ordinal += 1;
            let outcome = self.shard.apply(self.at, command, &mut ledger);
            assert!(matches!(black_box(outcome), Outcome::Reservation(_)));
            ledger.clear();
        }
        let ns = (processor_ns() - start) as f64 / count as f64;
        println!("{ns:>8.1} ns a {what}");
    }

    /// Time passes, and everything that is due is forgotten.
    fn pass(&mut self, ms: u64) {
        self.at.moment = self.at.stamp().plus_ms(ms).into();
        for _ in 0..1 + (self.shard.counts().requests_remembered / 2_048) {
            self.shard.advance(self.at.moment, &mut Vec::new());
        }
    }
}

/// Spreads numbers over the buckets as random ids would be.
fn scattered(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Time on the processor so far.
fn processor_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|n| n.parse().ok());
    pages.unwrap_or(0) * 4_096
}
