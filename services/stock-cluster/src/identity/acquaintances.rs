//! How long a directory has been written in, and what it remembers of others in that respect.
//!
//! A pulse is a second in which something was written. It lies in the log beside what was written,
//! with the boot that wrote it, and is told to every node once it is durable; each keeps the latest
//! of each boot that it has heard of each directory, in its own log, and passes on what it has
//! heard. So a directory that was put back to an older copy is known by the pulse that it lacks, by
//! everybody who is in reach of anybody who has heard it. A number alone would not do: two copies
//! that were written in equally often have the same (`tests/model`).

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::limits::NODES_MAX;

/// Nodes that are remembered: as many as a cluster can have, and as many again that have left.
const REMEMBERED_MAX: usize = 2 * NODES_MAX;

/// Boots of a directory that it tells, and that are remembered of it: the latest.
pub const BOOTS_MAX: usize = 32;

/// What a process tells of itself may have waited for so many pulses while later ones of it were
/// heard: more than an introduction waits at most.
const PULSES_BEHIND_MAX: u64 = 8;

/// The last pulse of one boot of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Drawn when the process began.
    pub boot: u64,
    /// The pulse.
    pub pulse: u64,
}

/// The last pulses of a directory's boots, in the order of the boots. Pulses never go back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beats(Vec<Beat>);

impl Beats {
    /// As they were told: the latest of them, if there are too many.
    pub fn of(mut beats: Vec<Beat>) -> Self {
        beats.drain(..beats.len().saturating_sub(BOOTS_MAX));
        Self(beats)
    }

    /// All of them.
    pub fn all(&self) -> &[Beat] {
        &self.0
    }

    /// The latest pulse, and whose it is.
    pub fn latest(&self) -> Option<Beat> {
        self.0.last().copied()
    }

    /// Whether a directory with these has been written in at this pulse, as far as that can be
    /// told: what is older than all that it tells may have been.
    fn has(&self, beat: Beat) -> bool {
        let is_before = self.0.len() >= BOOTS_MAX
            && self.0.first().is_some_and(|first| beat.pulse < first.pulse);
        let mut own = self.0.iter();
        is_before || own.any(|own| own.boot == beat.boot && own.pulse >= beat.pulse)
    }

    /// Takes note of a pulse. `true` if it is news.
    fn raise(&mut self, beat: Beat) -> bool {
        if let Some(own) = self.0.iter_mut().find(|own| own.boot == beat.boot) {
            let is_news = own.pulse < beat.pulse;
            own.pulse = own.pulse.max(beat.pulse);
            return is_news;
        }
        self.0.push(beat);
        self.0.sort_by_key(|beat| beat.pulse);
        let too_many = self.0.len().saturating_sub(BOOTS_MAX);
        self.0.drain(..too_many).all(|dropped| dropped != beat)
    }
}

/// What is remembered of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The latest of its directories.
    pub directory: u128,
    /// The index of group 0's entry that let it in; 0: a founder's.
    pub since: u64,
    /// What was heard of it, by whomever.
    pub beats: Beats,
}

impl Known {
    /// Whether a directory with `theirs`, in which nobody runs, lacks a pulse that was heard of it.
    /// Each was durable there before anybody was told.
    pub fn is_lacked_at_rest(&self, theirs: &Beats) -> bool {
        self.beats.all().iter().any(|beat| !theirs.has(*beat))
    }

    /// A pulse that was heard of this directory and that one with `theirs` lacks. Of the very
    /// process that speaks a few may be lacking: its words may have waited while later ones were
    /// heard. One that lacks many was put back, with its memory.
    pub fn lacked_by(&self, theirs: &Beats) -> Option<Beat> {
        let speaker = theirs.latest().unwrap_or(Beat { boot: 0, pulse: 0 });
        let mut heard = self.beats.all().iter().rev();
        let lacked = heard.find(|beat| match beat.boot == speaker.boot {
            true => beat.pulse > speaker.pulse + PULSES_BEHIND_MAX,
            false => !theirs.has(**beat),
        });
        lacked.copied()
    }
}

/// What a disk remembers of nodes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("what it remembers of nodes cannot be read")]
pub struct Unreadable;

/// This directory's pulses, and those of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acquaintances {
    /// Durable, the present boot's last.
    own: Beats,
    nodes: BTreeMap<u64, Known>,
    /// What nodes that are connected have said of themselves.
    connected: BTreeMap<u64, Known>,
    /// Something was heard that the disk does not know.
    has_news: bool,
    /// Nodes of which something was heard that has not been passed on yet.
    fresh: BTreeSet<u64>,
    /// The own pulse that others were told last.
    told: u64,
}

impl Acquaintances {
    /// As the disk remembers them, and with a pulse of this boot: [`Self::to_bytes`] must be
    /// durable before anybody is told.
    ///
    /// # Errors
    ///
    /// Where what the disk remembers cannot be read: to begin anew would be to have forgotten.
    pub fn begin(remembered: Option<&[u8]>, boot: u64) -> Result<Self, Unreadable> {
        let mut begun = match remembered {
            Some(bytes) if !bytes.is_empty() => Self::from_bytes(bytes).ok_or(Unreadable)?,
            _ => Self::default(),
        };
        let pulse = begun.pulse() + 1;
        begun.own.raise(Beat { boot, pulse });
        Ok(begun)
    }

    /// The pulses that others are told: they are durable.
    pub fn own(&self) -> &Beats {
        &self.own
    }

    /// The latest of them.
    pub fn pulse(&self) -> u64 {
        self.own.latest().map_or(0, |beat| beat.pulse)
    }

    /// What is remembered of a node.
    pub fn known(&self, node: u64) -> Option<&Known> {
        self.nodes.get(&node)
    }

    /// Everything that is remembered of others, to be passed on.
    pub fn memory(&self) -> impl Iterator<Item = (u64, &Known)> {
        self.nodes.iter().map(|(node, known)| (*node, known))
    }

    /// What others have yet to be told: the own pulses, and what was heard of others since. Who
    /// connects is told everything.
    pub fn take_untold(&mut self) -> Option<(Beats, Vec<(u64, Known)>)> {
        let is_news = self.told != self.pulse() || !self.fresh.is_empty();
        if !is_news {
            return None;
        }
        self.told = self.pulse();
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        let memory = fresh.filter_map(|node| Some((node, self.nodes.get(&node)?.clone())));
        Some((self.own.clone(), memory.collect()))
    }

    /// Whether something was heard that the disk does not know.
    pub fn has_news(&self) -> bool {
        self.has_news
    }

    /// A node is connected, as this. Whoever connects is told everything that is told from now on
    /// once more.
    pub fn connected(&mut self, node: u64, theirs: Known) {
        self.connected.insert(node, theirs);
        self.told = 0;
        self.fresh = self.nodes.keys().copied().collect();
    }

    /// A node has introduced itself, and was believed.
    pub fn met(&mut self, node: u64, theirs: &Known) {
        if let Some(latest) = theirs.beats.latest() {
            self.heard(node, theirs.directory, theirs.since, latest);
        }
    }

    /// Its connection has ended.
    pub fn parted(&mut self, node: u64) {
        self.connected.remove(&node);
    }

    /// A pulse of a directory was heard, from itself or from another.
    pub fn heard(&mut self, node: u64, directory: u128, since: u64, beat: Beat) {
        if self.nodes.len() >= REMEMBERED_MAX && !self.nodes.contains_key(&node) {
            return;
        }
        let known = self.nodes.entry(node).or_insert_with(|| Known {
            directory,
            since,
            beats: Beats::default(),
        });
        if known.directory != directory {
            // Of two directories the one that was let in later is the node.
            if known.since >= since {
                return;
            }
            *known = Known {
                directory,
                since,
                beats: Beats::default(),
            };
            self.has_news = true;
        }
        if known.beats.raise(beat) {
            self.has_news = true;
            self.fresh.insert(node);
        }
        if let Some(connected) = self.connected.get_mut(&node)
            && let Some(latest) = connected.beats.latest()
            && latest.boot == beat.boot
        {
            connected.beats.raise(beat);
        }
    }

    /// What another node has heard of others; `own` is this node.
    pub fn passed_on(&mut self, own: u64, memory: impl Iterator<Item = (u64, Known)>) {
        for (node, known) in memory.filter(|(node, _)| *node != own) {
            for beat in known.beats.all() {
                self.heard(node, known.directory, known.since, *beat);
            }
        }
    }

    /// Nodes that are connected and are not the ones, or have forgotten something, after what was
    /// heard of them since.
    pub fn overtaken(&self) -> Vec<u64> {
        let connected = self.connected.iter().filter(|(node, connected)| {
            self.nodes.get(node).is_some_and(|known| {
                known.directory != connected.directory
                    || known.lacked_by(&connected.beats).is_some()
            })
        });
        connected.map(|(node, _)| *node).collect()
    }

    /// What the disk is to remember with the next write, which is another second's.
    pub fn next_beat(&mut self) -> Vec<u8> {
        self.has_news = false;
        let mut next = Self {
            own: self.own.clone(),
            nodes: std::mem::take(&mut self.nodes),
            ..Self::default()
        };
        next.beaten();
        let bytes = next.to_bytes();
        self.nodes = next.nodes;
        bytes
    }

    /// It does.
    pub fn beaten(&mut self) {
        if let Some(latest) = self.own.0.last_mut() {
            latest.pulse += 1;
        }
    }

    /// What the disk is to remember though nothing of this directory's own is written: that is no
    /// pulse, or two idle nodes would keep each other writing.
    pub fn news(&mut self) -> Vec<u8> {
        self.has_news = false;
        self.to_bytes()
    }

    /// Little-endian: the own beats, then of each node its id, directory, admission and beats.
    /// Beats are a count and as many boots and pulses. Never to change.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_beats(&mut bytes, &self.own);
        for (node, known) in &self.nodes {
            bytes.extend_from_slice(&node.to_le_bytes());
            bytes.extend_from_slice(&known.directory.to_le_bytes());
            bytes.extend_from_slice(&known.since.to_le_bytes());
            put_beats(&mut bytes, &known.beats);
        }
        bytes
    }

    /// What [`Self::to_bytes`] wrote; none where it cannot be read.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut read = Self {
            own: take_beats(&mut rest)?,
            ..Self::default()
        };
        while !rest.is_empty() {
            let node = take_number(&mut rest)?;
            let (directory, behind) = rest.split_first_chunk::<16>()?;
            rest = behind;
            let known = Known {
                directory: u128::from_le_bytes(*directory),
                since: take_number(&mut rest)?,
                beats: take_beats(&mut rest)?,
            };
            read.nodes.insert(node, known);
        }
        Some(read)
    }
}

fn put_beats(bytes: &mut Vec<u8>, beats: &Beats) {
    bytes.extend_from_slice(&(beats.0.len() as u64).to_le_bytes());
    for beat in &beats.0 {
        bytes.extend_from_slice(&beat.boot.to_le_bytes());
        bytes.extend_from_slice(&beat.pulse.to_le_bytes());
    }
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(u64::from_le_bytes(*number))
}

fn take_beats(rest: &mut &[u8]) -> Option<Beats> {
    let count = take_number(rest)?;
    if count > BOOTS_MAX as u64 {
        return None;
    }
    let beats = (0..count).map(|_| {
        Some(Beat {
            boot: take_number(rest)?,
            pulse: take_number(rest)?,
        })
    });
    Some(Beats(beats.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(beats: &[(u64, u64)]) -> Beats {
        let beats = beats.iter().map(|(boot, pulse)| Beat {
            boot: *boot,
            pulse: *pulse,
        });
        Beats::of(beats.collect())
    }

    fn known(of: &[(u64, u64)]) -> Known {
        Known {
            directory: 9,
            since: 0,
            beats: beats(of),
        }
    }

    #[test]
    fn what_is_remembered_survives_the_disk_with_the_next_pulse() {
        let mut own = Acquaintances {
            own: beats(&[(70, 3), (71, 4)]),
            ..Acquaintances::default()
        };
        own.met(2, &known(&[(5, 1), (6, 2)]));
        own.heard(2, 9, 0, Beat { boot: 6, pulse: 4 });
        own.heard(2, 9, 0, Beat { boot: 6, pulse: 3 });
        assert_eq!(
            own.known(2).unwrap().beats,
            beats(&[(6, 4)]),
            "none goes back"
        );
        assert!(own.has_news());
        let bytes = own.next_beat();
        assert_eq!(own.pulse(), 4, "not durable yet");
        own.beaten();
        own.parted(2);
        let (told, memory) = own.take_untold().unwrap();
        assert_eq!((told.latest().unwrap().pulse, memory.len()), (5, 1));
        assert_eq!(own.take_untold(), None);
        assert_eq!((own.pulse(), own.has_news()), (5, false));
        let read = Acquaintances::from_bytes(&bytes).unwrap();
        assert_eq!((&read.own, &read.nodes), (&own.own, &own.nodes));
        assert_eq!(Acquaintances::from_bytes(&bytes[..bytes.len() - 1]), None);
        own.heard(2, 9, 0, Beat { boot: 6, pulse: 9 });
        let news = Acquaintances::from_bytes(&own.news()).unwrap();
        assert_eq!(news.pulse(), 5, "no pulse of its own");
    }

    #[test]
    fn a_directory_that_lacks_a_pulse_has_forgotten_it() {
        let check = |heard: &[(u64, u64)], theirs: &[(u64, u64)], lacked: Option<u64>| {
            let found = known(heard).lacked_by(&beats(theirs));
            assert_eq!(found.map(|beat| beat.pulse), lacked, "{heard:?} {theirs:?}");
        };
        check(&[(5, 10)], &[(5, 10), (6, 11)], None);
        check(&[(5, 10)], &[(5, 12), (6, 13)], None);
        check(&[(5, 10)], &[(5, 8), (6, 9)], Some(10));
        // It has been written in as often, but not by the one that was heard.
        check(&[(5, 10)], &[(5, 8), (6, 12)], Some(10));
        check(&[(5, 8), (7, 10)], &[(5, 8), (6, 10)], Some(10));
        // The very process that speaks.
        check(&[(6, 12)], &[(5, 8), (6, 9)], None);
        check(&[(6, 18)], &[(5, 8), (6, 9)], Some(18));
    }

    #[test]
    fn what_is_older_than_all_that_a_directory_tells_is_not_held_against_it() {
        let many: Vec<(u64, u64)> = (100..100 + BOOTS_MAX as u64)
            .map(|boot| (boot, boot))
            .collect();
        assert_eq!(known(&[(5, 10)]).lacked_by(&beats(&many)), None);
        assert!(known(&[(5, 104)]).lacked_by(&beats(&many)).is_some());
        let mut own = beats(&many);
        assert!(own.raise(Beat {
            boot: 7,
            pulse: 500
        }));
        assert_eq!((own.all().len(), own.all()[0].boot), (BOOTS_MAX, 101));
        assert!(!own.raise(Beat { boot: 8, pulse: 1 }), "older than all");
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_taken_for_none() {
        let first = Acquaintances::begin(None, 1).unwrap();
        assert_eq!(first.pulse(), 1);
        let second = Acquaintances::begin(Some(&first.to_bytes()), 2).unwrap();
        assert_eq!(second.pulse(), 2);
        assert_eq!(Acquaintances::begin(Some(&[1, 2, 3]), 3), Err(Unreadable));
        // A directory that was let in anew, or went on alone, remembers nothing, and says so in as
        // many words.
        assert_eq!(Acquaintances::begin(Some(&[]), 4).unwrap().pulse(), 1);
    }

    #[test]
    fn who_connects_is_told_everything_once_more() {
        let mut own = Acquaintances::default();
        own.met(2, &known(&[(5, 8)]));
        assert!(own.take_untold().is_some());
        assert_eq!(own.take_untold(), None);
        own.connected(3, known(&[(6, 1)]));
        let (_, memory) = own.take_untold().unwrap();
        assert_eq!(memory, [(2, known(&[(5, 8)]))]);
    }

    #[test]
    fn who_is_connected_is_overtaken_by_what_is_heard_of_its_directory() {
        let mut own = Acquaintances::default();
        own.met(2, &known(&[(5, 8), (6, 9)]));
        own.connected(2, known(&[(5, 8), (6, 9)]));
        own.heard(2, 9, 0, Beat { boot: 6, pulse: 12 });
        assert!(own.overtaken().is_empty(), "it goes on");
        own.heard(2, 9, 0, Beat { boot: 5, pulse: 10 });
        assert_eq!(own.overtaken(), [2], "another went on from before it");
        let mut own = Acquaintances::default();
        own.met(2, &known(&[(5, 8)]));
        own.connected(2, known(&[(5, 8)]));
        own.heard(2, 10, 50, Beat { boot: 9, pulse: 1 });
        assert_eq!(own.overtaken(), [2], "another directory was let in");
        own.parted(2);
        assert!(own.overtaken().is_empty());
    }
}
