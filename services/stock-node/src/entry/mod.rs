//! What stands in the log. The edge writes a command once; leaders and followers pass its bytes on;
//! every replica reads them when the entry is applied.
//!
//! Of a stock shard they are written by hand (`stock_core::codec`), since they are most of what is
//! sent, kept and read: little more than half as long as protobuf, and read without a copy of
//! anything but new names.
//!
//! ```text
//! entry      version 1, flags, stamp, [wall clocks: how far ahead of it],
//!            [finding: index, how many, as many replica ids], then items to the end
//! item       principal    0, text: of the commands from here on
//!            command      1 to 9, as in `stock_core::codec`
//!            of group 0   64, length, a log.v1.Command
//! ```
//!
//! A node of version N must be able to read what one of version N+1 writes while a cluster is being
//! upgraded. So no number ever changes its meaning or is used again, and a command with more in it
//! gets another number, which is asked for only once the cluster speaks the version that it came
//! with (`stock_cluster::Speaks`).

mod meta;

use bytes::Bytes;
use prost::Message;
use stock_cluster::{RegistryCommand, ReplicaId};
use stock_core::codec::{Reader, Writer};
use stock_core::{
    Action, BasketCommand, CatalogCommand, Command, Flaw, Moment, MovementKind, Naming, NewNames,
    Operation, Principal, Stamp,
};
use stock_wire::log::v1 as log;
use thiserror::Error;

pub use self::meta::decode_catalog;

/// Why something cannot be read, in words.
struct Misread(String);

type Read<T> = Result<T, Misread>;

impl From<Flaw> for Misread {
    fn from(flaw: Flaw) -> Self {
        Self(flaw.to_string())
    }
}

impl From<String> for Misread {
    fn from(what: String) -> Self {
        Self(what)
    }
}

impl From<&str> for Misread {
    fn from(what: &str) -> Self {
        Self(what.to_owned())
    }
}

const VERSION: u8 = 1;

/// Every replica hashes its state as it is after the entry.
const AUDIT: u8 = 1;
/// Which replicas had another state than most when they did. (2 was a finding without names.)
const FINDING: u8 = 4;
/// The nodes' wall clocks show something else than the stamp.
const WALL: u8 = 8;

/// Replicas that one finding names: more than a group ever has.
const DIFFERING_MAX: u64 = 256;

const PRINCIPAL: u8 = 0;
const META: u8 = 64;

/// Encoded commands for one group, as they will stand in the entry.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// How many.
    pub count: u32,
    /// Items, of which the first is a principal.
    pub bytes: Bytes,
    /// Whether they only end or keep what is there already. Such commands are taken even while the
    /// disk is nearly full.
    pub is_relief: bool,
    /// Whether there is another principal behind the first.
    pub several_principals: bool,
}

impl Commands {
    /// One after the other.
    pub fn read(&self) -> EncodedCommands<'_> {
        EncodedCommands::of(Reader::new(&self.bytes))
    }
}

/// Collects commands for one group.
#[derive(Debug, Default)]
pub struct CommandsBuilder {
    count: u32,
    items: Writer,
    principal: Option<Principal>,
    several_principals: bool,
    adds: bool,
}

impl CommandsBuilder {
    /// Adds a command of a stock shard.
    pub fn push(&mut self, command: &Command) {
        self.adds |= !is_relief(&command.action);
        self.principal(&command.principal);
        self.items.command(command);
        self.count += 1;
    }

    /// Adds a command of group 0.
    pub fn push_catalog(&mut self, command: &CatalogCommand) {
        self.adds = true;
        self.push_meta(&command.principal, &meta::encode_catalog(command));
    }

    /// Adds a command of group 0's registry.
    pub fn push_registry(&mut self, command: &RegistryCommand) {
        let encoded = stock_cluster::registry::codec::encode_command(command);
        self.push_meta(&command.principal, &encoded);
    }

    fn push_meta(&mut self, principal: &Principal, command: &log::Command) {
        self.principal(principal);
        self.items.tag(META);
        self.items.blob(&command.encode_to_vec());
        self.count += 1;
    }

    fn principal(&mut self, principal: &Principal) {
        if self.principal.as_ref() == Some(principal) {
            return;
        }
        self.several_principals |= self.principal.is_some();
        self.principal = Some(principal.clone());
        self.items.tag(PRINCIPAL);
        self.items.text(principal.as_str());
    }

    /// How many were added.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.items.len()
    }

    /// What was collected; the builder is empty again.
    pub fn take(&mut self) -> Commands {
        self.principal = None;
        Commands {
            count: std::mem::take(&mut self.count),
            bytes: self.items.take().into(),
            is_relief: !std::mem::take(&mut self.adds),
            several_principals: std::mem::take(&mut self.several_principals),
        }
    }
}

/// Whether a command only ends or keeps what is there already, or states a fact.
pub fn is_relief(action: &Action) -> bool {
    match action {
        Action::Request(_, operation) => match operation {
            Operation::Confirm(_)
            | Operation::Release(_)
            | Operation::Fulfill(_)
            | Operation::Extend(_)
            | Operation::SetPolicy(_) => true,
            Operation::Reserve(_) | Operation::Amend(_) => false,
        },
        // What was sold, or found, is a fact, whatever the disk says.
        Action::Movements(movements) => match movements.kind {
            MovementKind::Sale | MovementKind::Adjustment => true,
            MovementKind::Receipt => false,
        },
        // What brings a basket over several shards to its end.
        Action::Basket(command) => !matches!(command, BasketCommand::HoldPart(_)),
    }
}

/// The payload of an entry: the time and the commands of everybody who waited.
pub fn encode_entry<'a>(
    moment: Moment,
    commands: impl Iterator<Item = &'a Commands> + Clone,
) -> Vec<u8> {
    let bytes: usize = commands.clone().map(|commands| commands.bytes.len()).sum();
    let mut entry = Writer::with_capacity(HEAD_BYTES_MAX + bytes);
    head(&mut entry, 0, moment);
    let mut principal: &[u8] = &[];
    for commands in commands {
        let items = &commands.bytes[..];
        // Who was named before need not be named again.
        match items.strip_prefix(principal) {
            Some(rest) if !principal.is_empty() => entry.raw(rest),
            _ => entry.raw(items),
        }
        principal = match commands.several_principals {
            false => first_principal(items),
            true => &[],
        };
    }
    entry.into_bytes()
}

/// The item that commands begin with.
fn first_principal(items: &[u8]) -> &[u8] {
    match items {
        // A name's length takes one byte.
        [PRINCIPAL, length, ..] => items.get(..2 + usize::from(*length)).unwrap_or_default(),
        _ => &[],
    }
}

/// The payload of an entry that has every replica hash its state.
pub fn encode_audit(moment: Moment) -> Vec<u8> {
    let mut entry = Writer::with_capacity(HEAD_BYTES_MAX);
    head(&mut entry, AUDIT, moment);
    entry.into_bytes()
}

/// The payload of an entry that says which replicas differ from most.
pub fn encode_finding(moment: Moment, finding: &Finding) -> Vec<u8> {
    let mut entry = Writer::with_capacity(HEAD_BYTES_MAX + 20 + 10 * finding.differing.len());
    head(&mut entry, FINDING, moment);
    entry.number(finding.index);
    entry.number(finding.differing.len() as u64);
    for replica in &finding.differing {
        entry.number(replica.0);
    }
    entry.into_bytes()
}

/// Two bytes and two numbers.
const HEAD_BYTES_MAX: usize = 22;

fn head(entry: &mut Writer, flags: u8, moment: Moment) {
    let ahead_ms = moment.wall.0.wrapping_sub(moment.stamp.0) as i64;
    entry.tag(VERSION);
    entry.tag(flags | if ahead_ms == 0 { 0 } else { WALL });
    entry.number(moment.stamp.0);
    if ahead_ms != 0 {
        entry.signed(ahead_ms);
    }
}

/// An entry, its commands still encoded.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Cluster time, and what the wall clocks showed.
    pub moment: Moment,
    /// In order.
    pub commands: EncodedCommands<'a>,
    /// Whether the state is to be hashed after it.
    pub audit: bool,
    /// What an audit found.
    pub finding: Option<Finding>,
}

/// What an audit found. It names the replicas, so that each knows though it was restarted since,
/// and has forgotten what it found itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The states were compared as they were after the entry of this index.
    pub index: u64,
    /// Those whose state was another than that of most.
    pub differing: Vec<ReplicaId>,
}

/// An entry that this version cannot read. The replica must stop: to skip it would be to differ.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// It does not begin as an entry does.
    #[error("the entry is not understood: {what}")]
    Entry {
        /// What is wrong.
        what: String,
    },
    /// A command of the registry holds what no edge of this version would have written.
    #[error(transparent)]
    Registry(#[from] stock_cluster::RegistryDecodeError),
    /// A field holds what no edge of this version would have written.
    #[error("the entry's command {ordinal} is not understood: {what}")]
    Command {
        /// Its place in the entry.
        ordinal: usize,
        /// What is wrong.
        what: String,
    },
}

/// What is in an entry.
///
/// # Errors
///
/// [`DecodeError::Entry`]. What is wrong with a command is found when it is asked for.
pub fn decode_entry(entry: &[u8]) -> Result<Entry<'_>, DecodeError> {
    let mut reader = Reader::new(entry);
    let read = |reader: &mut Reader<'_>| -> Read<_> {
        match reader.tag()? {
            VERSION => {}
            other => return Err(format!("it is of version {other}").into()),
        }
        let flags = reader.tag()?;
        if flags & !(AUDIT | FINDING | WALL) != 0 {
            return Err(format!("it has flags that this version does not know: {flags}").into());
        }
        let stamp = Stamp(reader.number()?);
        let ahead_ms = match flags & WALL != 0 {
            true => reader.signed()?,
            false => 0,
        };
        let moment = Moment {
            stamp,
            wall: Stamp(stamp.0.wrapping_add_signed(ahead_ms)),
        };
        let finding = match flags & FINDING != 0 {
            true => Some(read_finding(reader)?),
            false => None,
        };
        Ok((moment, flags & AUDIT != 0, finding))
    };
    let read = read(&mut reader);
    let (moment, audit, finding) = read.map_err(|Misread(what)| DecodeError::Entry { what })?;
    let commands = EncodedCommands::of(reader);
    Ok(Entry {
        moment,
        commands,
        audit,
        finding,
    })
}

fn read_finding(reader: &mut Reader<'_>) -> Read<Finding> {
    let (index, count) = (reader.number()?, reader.number()?);
    if count > DIFFERING_MAX {
        return Err(format!("it names {count} replicas that differ").into());
    }
    let differing = (0..count).map(|_| Ok(ReplicaId(reader.number()?)));
    Ok(Finding {
        index,
        differing: differing.collect::<Read<_>>()?,
    })
}

/// The commands of an entry, one after the other.
#[derive(Debug, Clone)]
pub struct EncodedCommands<'a> {
    items: Reader<'a>,
    principal: Option<Principal>,
    next: usize,
}

impl<'a> EncodedCommands<'a> {
    fn of(items: Reader<'a>) -> Self {
        Self {
            items,
            principal: None,
            next: 0,
        }
    }
}

impl EncodedCommands<'_> {
    /// The next one, of a stock shard; none at the end. `names` makes names of texts.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Command`].
    pub fn next_stock(&mut self, names: &impl Naming) -> Result<Option<Command>, DecodeError> {
        let ordinal = self.next;
        self.read_stock(names)
            .map_err(|Misread(what)| DecodeError::Command { ordinal, what })
    }

    /// The next one, of group 0; none at the end.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Command`].
    pub fn next_meta(&mut self) -> Result<Option<log::Command>, DecodeError> {
        let ordinal = self.next;
        self.read_meta()
            .map_err(|Misread(what)| DecodeError::Command { ordinal, what })
    }

    fn read_stock(&mut self, names: &impl Naming) -> Read<Option<Command>> {
        let Some(kind) = self.next_kind(names)? else {
            return Ok(None);
        };
        let principal = self.principal.clone().ok_or("a command of nobody")?;
        let action = self.items.command(kind, &principal, names);
        let action = action?;
        Ok(Some(Command { principal, action }))
    }

    fn read_meta(&mut self) -> Read<Option<log::Command>> {
        match self.next_kind(&NewNames)? {
            Some(META) => {
                let command = log::Command::decode(self.items.blob()?);
                Ok(Some(command.map_err(|error| error.to_string())?))
            }
            Some(kind) => Err(format!("a command of kind {kind} in group 0").into()),
            None => Ok(None),
        }
    }

    fn next_kind(&mut self, names: &impl Naming) -> Read<Option<u8>> {
        while !self.items.is_empty() {
            match self.items.tag()? {
                PRINCIPAL => {
                    let name = names.principal(self.items.text()?);
                    self.principal = Some(name.map_err(at("principal"))?);
                }
                kind => {
                    self.next += 1;
                    return Ok(Some(kind));
                }
            }
        }
        Ok(None)
    }
}

fn at<E: std::fmt::Display>(field: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{field} {error}")
}

#[cfg(test)]
mod tests {
    use stock_core::{
        Fingerprint, Line, Location, Quantity, Release, Request, RequestId, ReservationId, Reserve,
        Sku,
    };

    use super::*;

    fn release(principal: &str, number: u64) -> Command {
        let mut id = [9; 16];
        id[6] = 0x71;
        let request = Request {
            id: RequestId::new(id).unwrap(),
            fingerprint: Fingerprint([3; 8]),
        };
        let release = Release {
            id: ReservationId::compose(Stamp(77), 3, number),
            lines: Vec::new(),
            forced: None,
        };
        Command {
            principal: Principal::new(principal).unwrap(),
            action: Action::Request(request, Operation::Release(release)),
        }
    }

    fn read(entry: &[u8]) -> Result<Vec<Command>, DecodeError> {
        let mut commands = decode_entry(entry)?.commands;
        let mut read = Vec::new();
        while let Some(command) = commands.next_stock(&NewNames)? {
            read.push(command);
        }
        Ok(read)
    }

    #[test]
    fn every_command_has_its_principal_however_they_are_put_together() {
        let calls: [&[&str]; 7] = [
            &["web"],
            &["web", "web"],
            &["app"],
            &["app", "web"],
            &["web", "app"],
            &["app"],
            &["ap", "app", "app"],
        ];
        let mut numbers = 0..;
        let mut builder = CommandsBuilder::default();
        let mut sent = Vec::new();
        let mut encoded = Vec::new();
        for call in calls {
            for principal in call {
                let command = release(principal, numbers.next().unwrap());
                builder.push(&command);
                sent.push(command);
            }
            let commands = builder.take();
            assert_eq!(commands.count, call.len() as u32);
            assert!(commands.is_relief);
            encoded.push(commands);
        }
        let entry = encode_entry(Stamp(123).into(), encoded.iter());
        assert_eq!(decode_entry(&entry).unwrap().moment, Stamp(123).into());
        assert_eq!(read(&entry).unwrap(), sent);
        // Once for each change.
        let names = entry
            .windows(5)
            .filter(|at| *at == [PRINCIPAL, 3, b'w', b'e', b'b']);
        assert_eq!(names.count(), 3);
    }

    /// Most of what is sent between nodes, and kept.
    #[test]
    fn a_reserve_takes_few_bytes() {
        let command = |number: u64| {
            let Command { principal, action } = release("anonymous", number);
            let Action::Request(request, _) = action else {
                unreachable!("a release is a request");
            };
            let line = Line {
                sku: Sku::new("bench-42").unwrap(),
                location: Location::new("bench").unwrap(),
                quantity: Quantity::new(1).unwrap(),
            };
            let reserve = Reserve {
                id: ReservationId::compose(request.id.made_at(), 3, number),
                lines: vec![line],
                ttl_ms: 900_000,
                labels: None,
                over: None,
            };
            let action = Action::Request(request, Operation::Reserve(reserve));
            Command { principal, action }
        };
        let bytes = |commands: u64| {
            let mut builder = CommandsBuilder::default();
            for number in 0..commands {
                builder.push(&command(number));
            }
            // Clocks differ by some milliseconds.
            let moment = Moment {
                stamp: Stamp(1_790_000_000_000),
                wall: Stamp(1_790_000_000_007),
            };
            encode_entry(moment, [builder.take()].iter()).len()
        };
        // Alone with the entry's stamp and the principal; each further one: 32 of ids and
        // fingerprint, 15 of names.
        assert_eq!((bytes(1), (bytes(257) - bytes(1)) / 256), (74, 54));
    }

    #[test]
    fn what_audits_say_survives_the_log() {
        let moment = Moment {
            stamp: Stamp(7),
            wall: Stamp(3),
        };
        let audit = encode_audit(moment);
        let audit = decode_entry(&audit).unwrap();
        assert_eq!(
            (audit.moment, audit.audit, audit.finding),
            (moment, true, None)
        );
        let found = Finding {
            index: 300,
            differing: vec![ReplicaId::new(7, 3), ReplicaId::founding(1)],
        };
        let encoded = encode_finding(Stamp(8).into(), &found);
        let finding = decode_entry(&encoded).unwrap();
        assert_eq!((finding.moment, finding.audit), (Stamp(8).into(), false));
        assert_eq!(finding.finding, Some(found));
    }

    #[test]
    fn what_is_from_the_future_is_not_skipped() {
        let mut builder = CommandsBuilder::default();
        builder.push(&release("web", 1));
        builder.push(&release("web", 2));
        let commands = builder.take();
        let entry = encode_entry(Stamp(1).into(), [commands].iter());
        let damaged = |at: usize, byte: u8| {
            let mut entry = entry.clone();
            entry[at] = byte;
            read(&entry).unwrap_err().to_string()
        };
        assert!(damaged(0, 9).contains("version 9"));
        assert!(damaged(1, 16).contains("flags"));
        assert!(damaged(1, 2).contains("flags"), "never to be used again");
        let second = entry.len() - (entry.len() - 8) / 2;
        assert_eq!(entry[second], entry[8], "there the second command begins");
        let error = damaged(second, 63);
        assert!(
            error.contains("command 1") && error.contains("63"),
            "{error}"
        );
        for length in 0..entry.len() {
            let _ = read(&entry[..length]);
        }
    }
}
