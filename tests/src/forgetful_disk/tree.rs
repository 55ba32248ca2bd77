//! Which name leads to which file: as processes see it now, and as it would be after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rand::RngExt;
use rand::rngs::StdRng;
use rustix::io::Errno;

use super::contents::{Contents, Survival};

/// The directory that is mounted.
pub(super) const ROOT: u64 = 1;

/// Every file and directory, by number. A number is never given out twice.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<u64, Node>,
    /// Changes of names that no sync of a directory has made durable, in their order.
    unsynced: Vec<NameChange>,
    next: u64,
    /// Where the bytes of files are kept.
    kept: PathBuf,
}

/// A file or a directory. Its permissions and times survive every power cut as they are: nothing
/// that is tested here depends on them.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    pub(super) permissions: u16,
    pub(super) changed_at: SystemTime,
    /// How often the kernel has been told of it and has not forgotten.
    pub(super) lookups: u64,
    /// A directory that it is in, and its name there; for messages.
    place: (u64, OsString),
}

#[derive(Debug)]
pub(super) enum Body {
    File(Contents),
    Dir { now: Names, durable: Names },
}

pub(super) type Names = BTreeMap<OsString, u64>;

/// Names that change together: one when a file is made or deleted, two when it is renamed.
#[derive(Debug)]
struct NameChange(Vec<SetName>);

#[derive(Debug, Clone)]
struct SetName {
    dir: u64,
    name: OsString,
    /// What it leads to from now on; none if it is gone.
    to: Option<u64>,
}

impl Tree {
    /// An empty directory.
    pub(super) fn new(kept: &Path) -> Self {
        let mut tree = Self {
            nodes: BTreeMap::new(),
            unsynced: Vec::new(),
            next: ROOT + 1,
            kept: kept.to_owned(),
        };
        let root = Node::new(Body::empty_dir(), 0o755, (ROOT, OsString::new()));
        tree.nodes.insert(ROOT, root);
        tree
    }

    pub(super) fn node(&self, number: u64) -> Result<&Node, Errno> {
        self.nodes.get(&number).ok_or(Errno::STALE)
    }

    pub(super) fn node_mut(&mut self, number: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&number).ok_or(Errno::STALE)
    }

    pub(super) fn file(&self, number: u64) -> Result<&Contents, Errno> {
        match &self.node(number)?.body {
            Body::File(contents) => Ok(contents),
            Body::Dir { .. } => Err(Errno::ISDIR),
        }
    }

    pub(super) fn file_mut(&mut self, number: u64) -> Result<&mut Contents, Errno> {
        match &mut self.node_mut(number)?.body {
            Body::File(contents) => Ok(contents),
            Body::Dir { .. } => Err(Errno::ISDIR),
        }
    }

    /// What a directory holds, as processes see it.
    pub(super) fn names(&self, dir: u64) -> Result<&Names, Errno> {
        match &self.node(dir)?.body {
            Body::Dir { now, .. } => Ok(now),
            Body::File(_) => Err(Errno::NOTDIR),
        }
    }

    /// What a name leads to.
    pub(super) fn find(&self, dir: u64, name: &OsStr) -> Result<u64, Errno> {
        self.names(dir)?.get(name).copied().ok_or(Errno::NOENT)
    }

    /// Whether a name leads to it, as processes see it.
    pub(super) fn has_name(&self, number: u64) -> bool {
        let place = self.nodes.get(&number).map(|node| &node.place);
        number == ROOT || place.is_some_and(|(dir, name)| self.find(*dir, name) == Ok(number))
    }

    /// From the root, as it was last known.
    pub(super) fn path(&self, number: u64) -> PathBuf {
        let mut parts = Vec::new();
        let mut at = number;
        while let Some(node) = self.nodes.get(&at).filter(|_| at != ROOT) {
            parts.push(&node.place.1);
            at = node.place.0;
        }
        parts.iter().rev().collect()
    }

    /// Makes an empty file.
    pub(super) fn create_file(
        &mut self,
        dir: u64,
        name: &OsStr,
        permissions: u16,
    ) -> Result<u64, Errno> {
        self.check_free(dir, name)?;
        let contents = Contents::create(&self.kept, self.next).map_err(|e| errno(&e))?;
        self.add(dir, name, permissions, Body::File(contents))
    }

    /// Makes an empty directory.
    pub(super) fn create_dir(
        &mut self,
        dir: u64,
        name: &OsStr,
        permissions: u16,
    ) -> Result<u64, Errno> {
        self.check_free(dir, name)?;
        self.add(dir, name, permissions, Body::empty_dir())
    }

    /// Takes a file's name away.
    pub(super) fn unlink(&mut self, dir: u64, name: &OsStr) -> Result<(), Errno> {
        let number = self.find(dir, name)?;
        self.file(number)?;
        self.change(vec![SetName::new(dir, name, None)])
    }

    /// Takes an empty directory's name away.
    pub(super) fn remove_dir(&mut self, dir: u64, name: &OsStr) -> Result<(), Errno> {
        let number = self.find(dir, name)?;
        if !self.names(number)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.change(vec![SetName::new(dir, name, None)])
    }

    /// Gives a file or directory another name, and takes that from whatever had it, at one moment.
    pub(super) fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        may_replace: bool,
    ) -> Result<(), Errno> {
        let number = self.find(from.0, from.1)?;
        match self.find(to.0, to.1) {
            Ok(same) if same == number => return Ok(()),
            Ok(_) if !may_replace => return Err(Errno::EXIST),
            Ok(other) => {
                if self.names(other).is_ok_and(|names| !names.is_empty()) {
                    return Err(Errno::NOTEMPTY);
                }
            }
            Err(Errno::NOENT) => (),
            Err(other) => return Err(other),
        }
        self.change(vec![
            SetName::new(from.0, from.1, None),
            SetName::new(to.0, to.1, Some(number)),
        ])?;
        self.node_mut(number)?.place = (to.0, to.1.to_owned());
        Ok(())
    }

    /// Makes the names in a directory durable, and those they depend on.
    pub(super) fn sync_dir(&mut self, dir: u64) -> Result<(), Errno> {
        self.names(dir)?;
        let is_here = |change: &NameChange| change.0.iter().any(|set| set.dir == dir);
        let chosen = self.unsynced.iter().map(is_here).collect();
        self.persist(chosen);
        self.sweep();
        Ok(())
    }

    /// What is durable, and whatever else the power cut leaves behind, is all there is.
    pub(super) fn cut_power(&mut self, random: &mut StdRng) -> io::Result<()> {
        let count = self.unsynced.len();
        let chosen = match Survival::draw(random) {
            Survival::Nothing => vec![false; count],
            Survival::Everything => vec![true; count],
            Survival::Prefix => {
                let kept = random.random_range(0..=count);
                (0..count).map(|at| at < kept).collect()
            }
            Survival::Sectors => (0..count).map(|_| random.random_bool(0.5)).collect(),
        };
        self.persist(chosen);
        self.unsynced.clear();
        let survival = Survival::draw(random);
        for node in self.nodes.values_mut() {
            match &mut node.body {
                Body::File(contents) => contents.cut_power(survival, random)?,
                Body::Dir { now, durable } => now.clone_from(durable),
            }
        }
        self.replace_all();
        let lost: Vec<u64> = self.nodes.keys().copied().collect();
        for number in lost {
            if number != ROOT && !self.is_reachable(number) {
                self.drop_node(number);
            }
        }
        Ok(())
    }

    /// The kernel has forgotten a file so many times.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(times);
            self.sweep();
        }
    }

    /// Bytes that all files have been given.
    pub(super) fn reserved_bytes(&self) -> u64 {
        let files = self.nodes.values().map(|node| match &node.body {
            Body::File(contents) => contents.reserved,
            Body::Dir { .. } => 0,
        });
        files.sum()
    }

    fn check_free(&self, dir: u64, name: &OsStr) -> Result<(), Errno> {
        match self.find(dir, name) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok(()),
            Err(other) => Err(other),
        }
    }

    fn add(&mut self, dir: u64, name: &OsStr, permissions: u16, body: Body) -> Result<u64, Errno> {
        let number = self.next;
        self.next += 1;
        let node = Node::new(body, permissions, (dir, name.to_owned()));
        self.nodes.insert(number, node);
        self.change(vec![SetName::new(dir, name, Some(number))])?;
        Ok(number)
    }

    fn change(&mut self, sets: Vec<SetName>) -> Result<(), Errno> {
        for set in &sets {
            match &mut self.node_mut(set.dir)?.body {
                Body::Dir { now, .. } => set.apply(now),
                Body::File(_) => return Err(Errno::NOTDIR),
            }
        }
        self.unsynced.push(NameChange(sets));
        Ok(())
    }

    /// Makes the chosen changes durable, and the earlier ones that concern the same names: a file
    /// cannot be renamed on the disk before it is there.
    fn persist(&mut self, mut chosen: Vec<bool>) {
        let mut needed: BTreeSet<(u64, OsString)> = BTreeSet::new();
        for (at, change) in self.unsynced.iter().enumerate().rev() {
            let places = || change.0.iter().map(|set| (set.dir, set.name.clone()));
            chosen[at] |= places().any(|place| needed.contains(&place));
            if chosen[at] {
                needed.extend(places());
            }
        }
        let mut chosen = chosen.into_iter();
        let unsynced = std::mem::take(&mut self.unsynced);
        for change in unsynced {
            if !chosen.next().unwrap_or_default() {
                self.unsynced.push(change);
                continue;
            }
            for set in &change.0 {
                let dir = self.nodes.get_mut(&set.dir);
                if let Some(Body::Dir { durable, .. }) = dir.map(|node| &mut node.body) {
                    set.apply(durable);
                }
            }
        }
    }

    /// After a power cut a file may be where it was before it was renamed.
    fn replace_all(&mut self) {
        let mut places = Vec::new();
        for (dir, node) in &self.nodes {
            if let Body::Dir { now, .. } = &node.body {
                let here = now.iter().map(|(name, to)| (*to, (*dir, name.clone())));
                places.extend(here);
            }
        }
        for (number, place) in places {
            if let Some(node) = self.nodes.get_mut(&number) {
                node.place = place;
            }
        }
    }

    fn is_reachable(&self, number: u64) -> bool {
        let mut at = number;
        while at != ROOT {
            let Some(node) = self.nodes.get(&at) else {
                return false;
            };
            let (dir, name) = &node.place;
            if !self.find(*dir, name).is_ok_and(|found| found == at) {
                return false;
            }
            at = *dir;
        }
        true
    }

    /// Drops what no name leads to, now or after a power cut, and nobody has open.
    fn sweep(&mut self) {
        let mut named: BTreeSet<u64> = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Body::Dir { now, durable } = &node.body {
                named.extend(now.values().chain(durable.values()));
            }
        }
        let waiting = self.unsynced.iter().flat_map(|change| &change.0);
        named.extend(waiting.filter_map(|set| set.to));
        let unused = self
            .nodes
            .iter()
            .filter(|(number, node)| node.lookups == 0 && !named.contains(number));
        let unused: Vec<u64> = unused.map(|(number, _)| *number).collect();
        for number in unused {
            self.drop_node(number);
        }
    }

    fn drop_node(&mut self, number: u64) {
        let node = self.nodes.remove(&number);
        if let Some(Body::File(contents)) = node.map(|node| node.body) {
            // What cannot be deleted goes with the directory of the test.
            let _ = contents.delete();
        }
    }
}

impl Node {
    fn new(body: Body, permissions: u16, place: (u64, OsString)) -> Self {
        Self {
            body,
            permissions,
            changed_at: SystemTime::now(),
            lookups: 0,
            place,
        }
    }
}

impl Body {
    fn empty_dir() -> Self {
        Self::Dir {
            now: Names::new(),
            durable: Names::new(),
        }
    }
}

impl SetName {
    fn new(dir: u64, name: &OsStr, to: Option<u64>) -> Self {
        Self {
            dir,
            name: name.to_owned(),
            to,
        }
    }

    fn apply(&self, names: &mut Names) {
        match self.to {
            Some(to) => names.insert(self.name.clone(), to),
            None => names.remove(&self.name),
        };
    }
}

/// The error as a process sees it.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
