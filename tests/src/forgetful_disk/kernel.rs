//! What the kernel asks of a file system, answered by a [`State`].

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::faults::{Faults, Op};
use super::tree::{Body, ROOT, Tree, errno};

/// Nothing is remembered by the kernel: each question comes here.
const REMEMBERED_FOR: Duration = Duration::ZERO;

/// A block, for `statfs` only.
const BLOCK_BYTES: u32 = 4_096;

/// Blocks of a disk without a bound.
const BLOCKS: u64 = 1 << 30;

const NAME_BYTES_MAX: u32 = 255;

/// Everything about a disk, behind one lock: a power cut falls between two calls, never into one.
#[derive(Debug)]
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) faults: Faults,
    /// Bytes that files can have in all.
    pub(super) bytes_max: Option<u64>,
    /// Whether `fallocate` is known here.
    pub(super) can_allocate: bool,
    pub(super) has_power: bool,
    /// Counts power cuts. What was opened before one stays dead after it.
    pub(super) boot: u64,
    pub(super) random: StdRng,
}

impl State {
    pub(super) fn new(tree: Tree, seed: u64) -> Self {
        Self {
            tree,
            faults: Faults::default(),
            bytes_max: None,
            can_allocate: true,
            has_power: true,
            boot: 1,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Bytes that files can still be given.
    fn bytes_left(&self) -> u64 {
        let max = self.bytes_max.unwrap_or(u64::MAX);
        max.saturating_sub(self.tree.reserved_bytes())
    }

    fn check_power(&self) -> Result<(), Errno> {
        self.has_power.then_some(()).ok_or(Errno::IO)
    }

    /// Power, and a file that was opened since it came back.
    fn check_open(&self, handle: FileHandle) -> Result<(), Errno> {
        self.check_power()?;
        (handle.0 == self.boot).then_some(()).ok_or(Errno::IO)
    }

    fn check_fault(&mut self, op: Op, number: u64, name: Option<&OsStr>) -> Result<(), Errno> {
        let path = self.tree.path(number);
        let path = name.map_or(path.clone(), |name| path.join(name));
        self.faults.take(op, &path).map_or(Ok(()), Err)
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        let node = self.tree.node(number)?;
        let (kind, size) = match &node.body {
            Body::File(contents) => (FileType::RegularFile, contents.len()),
            Body::Dir { .. } => (FileType::Directory, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: node.changed_at,
            mtime: node.changed_at,
            ctime: node.changed_at,
            crtime: node.changed_at,
            kind,
            perm: node.permissions,
            nlink: self.tree.has_name(number).into(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    /// As [`State::attributes`], for an answer that makes the kernel know the file.
    fn introduced(&mut self, number: u64) -> Result<FileAttr, Errno> {
        self.tree.node_mut(number)?.lookups += 1;
        self.attributes(number)
    }

    fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let left = self.bytes_left();
        let file = self.tree.file_mut(number)?;
        let room = file.reserved.saturating_add(left).saturating_sub(offset);
        let count = room.min(data.len() as u64);
        if count == 0 && !data.is_empty() {
            self.faults.met += 1;
            return Err(Errno::NOSPC);
        }
        let data = &data[..count as usize];
        file.write(offset, data).map_err(|e| errno(&e))?;
        self.touch(number);
        Ok(count as u32)
    }

    fn resize(&mut self, number: u64, len: u64) -> Result<(), Errno> {
        self.take_room(number, len)?;
        let resized = self.tree.file_mut(number)?.resize(len);
        self.touch(number);
        resized.map_err(|e| errno(&e))
    }

    fn allocate(&mut self, number: u64, end: u64, keeps_len: bool) -> Result<(), Errno> {
        if !keeps_len && end > self.tree.file(number)?.len() {
            return self.resize(number, end);
        }
        self.take_room(number, end)?;
        let file = self.tree.file_mut(number)?;
        file.reserved = file.reserved.max(end);
        Ok(())
    }

    /// Whether a file may have so many bytes.
    fn take_room(&mut self, number: u64, bytes: u64) -> Result<(), Errno> {
        let more = bytes.saturating_sub(self.tree.file(number)?.reserved);
        if more > self.bytes_left() {
            self.faults.met += 1;
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    fn sync(&mut self, number: u64) -> Result<(), Errno> {
        if let Err(failed) = self.check_fault(Op::Sync, number, None) {
            let file = self.tree.file_mut(number)?;
            file.fail_sync(&mut self.random).map_err(|e| errno(&e))?;
            return Err(failed);
        }
        self.tree.file_mut(number)?.sync().map_err(|e| errno(&e))
    }

    fn touch(&mut self, number: u64) {
        if let Ok(node) = self.tree.node_mut(number) {
            node.changed_at = SystemTime::now();
        }
    }
}

/// The disk, as the kernel talks to it.
#[derive(Debug)]
pub(super) struct Kernel(pub(super) Arc<Mutex<State>>);

impl Kernel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work on names, which needs power only.
    fn named<T>(
        &self,
        op: Option<(Op, INodeNo, Option<&OsStr>)>,
        work: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, fuser::Errno> {
        let mut state = self.state();
        let done = state.check_power().and_then(|()| {
            if let Some((op, number, name)) = op {
                state.check_fault(op, number.0, name)?;
            }
            work(&mut state)
        });
        done.map_err(to_fuse)
    }

    /// Work on what is open.
    fn opened<T>(
        &self,
        op: Op,
        number: INodeNo,
        handle: FileHandle,
        work: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, fuser::Errno> {
        let mut state = self.state();
        let done = state.check_open(handle).and_then(|()| {
            state.check_fault(op, number.0, None)?;
            work(&mut state)
        });
        done.map_err(to_fuse)
    }

    /// A slow disk: other calls go on meanwhile.
    fn wait_for_sync(&self) {
        let delay = self.state().faults.sync_delay;
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
    }
}

fn to_fuse(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

fn answer(reply: ReplyEmpty, done: Result<(), fuser::Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

fn answer_entry(reply: ReplyEntry, done: Result<FileAttr, fuser::Errno>) {
    match done {
        Ok(attributes) => reply.entry(&REMEMBERED_FOR, &attributes, Generation(0)),
        Err(e) => reply.error(e),
    }
}

impl Filesystem for Kernel {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.named(None, |state| {
            let number = state.tree.find(parent.0, name)?;
            state.introduced(number)
        });
        answer_entry(reply, found);
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        if number.0 != ROOT {
            self.state().tree.forget(number.0, times);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.named(None, |state| state.attributes(number.0)) {
            Ok(attributes) => reply.attr(&REMEMBERED_FOR, &attributes),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let op = size.map(|_| (Op::Resize, number, None));
        let done = self.named(op, |state| {
            if let Some(mode) = mode {
                state.tree.node_mut(number.0)?.permissions = (mode & 0o7777) as u16;
            }
            if let Some(len) = size {
                state.resize(number.0, len)?;
            }
            state.attributes(number.0)
        });
        match done {
            Ok(attributes) => reply.attr(&REMEMBERED_FOR, &attributes),
            Err(e) => reply.error(e),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let op = Some((Op::MakeDir, parent, Some(name)));
        let made = self.named(op, |state| {
            let permissions = (mode & 0o7777) as u16;
            let number = state.tree.create_dir(parent.0, name, permissions)?;
            state.introduced(number)
        });
        answer_entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let op = Some((Op::Unlink, parent, Some(name)));
        let done = self.named(op, |state| state.tree.unlink(parent.0, name));
        answer(reply, done);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let op = Some((Op::Unlink, parent, Some(name)));
        let done = self.named(op, |state| state.tree.remove_dir(parent.0, name));
        answer(reply, done);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let op = Some((Op::Rename, parent, Some(name)));
        let done = self.named(op, |state| {
            let may_replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
            if !flags.difference(RenameFlags::RENAME_NOREPLACE).is_empty() {
                return Err(Errno::INVAL);
            }
            let (from, to) = ((parent.0, name), (new_parent.0, new_name));
            state.tree.rename(from, to, may_replace)
        });
        answer(reply, done);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let op = Some((Op::Create, parent, Some(name)));
        let made = self.named(op, |state| {
            let permissions = (mode & 0o7777) as u16;
            let number = state.tree.create_file(parent.0, name, permissions)?;
            Ok((state.introduced(number)?, FileHandle(state.boot)))
        });
        match made {
            Ok((attributes, handle)) => reply.created(
                &REMEMBERED_FOR,
                &attributes,
                Generation(0),
                handle,
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(e) => reply.error(e),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let op = Some((Op::Open, number, None));
        // Past the kernel's cache, so that each write comes here when it is made.
        match self.named(op, |state| Ok(FileHandle(state.boot))) {
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO),
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.opened(Op::Read, number, handle, |state| {
            let read = state.tree.file(number.0)?.read(offset, size as usize);
            read.map_err(|e| errno(&e))
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(e),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.opened(Op::Write, number, handle, |state| {
            let appends = OFlags::from_bits_retain(flags.0 as u32).contains(OFlags::APPEND);
            let end = state.tree.file(number.0)?.len();
            state.write(number.0, if appends { end } else { offset }, data)
        });
        match written {
            Ok(count) => reply.written(count),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.wait_for_sync();
        let mut state = self.state();
        let done = state.check_open(handle).and_then(|()| state.sync(number.0));
        drop(state);
        answer(reply, done.map_err(to_fuse));
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.opened(Op::Allocate, number, handle, |state| {
            let mode = FallocateFlags::from_bits_retain(mode as u32);
            let is_known = mode.difference(FallocateFlags::KEEP_SIZE).is_empty();
            if !is_known || !state.can_allocate {
                return Err(Errno::OPNOTSUPP);
            }
            let keeps_len = mode.contains(FallocateFlags::KEEP_SIZE);
            let end = offset.checked_add(length).ok_or(Errno::FBIG)?;
            state.allocate(number.0, end, keeps_len)
        });
        answer(reply, done);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let op = Some((Op::Open, number, None));
        match self.named(op, |state| Ok(FileHandle(state.boot))) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(e) => reply.error(e),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.state();
        let listed = state.check_open(handle).and_then(|()| {
            let names = state.tree.names(number.0)?;
            let mut entries = vec![(number.0, FileType::Directory, OsStr::new("."))];
            entries.push((number.0, FileType::Directory, OsStr::new("..")));
            for (name, number) in names {
                entries.push((*number, state.attributes(*number)?.kind, name));
            }
            Ok(entries)
        });
        match listed {
            Ok(entries) => {
                for (at, (number, kind, name)) in (1..).zip(entries).skip(offset as usize) {
                    if reply.add(INodeNo(number), at, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(to_fuse(e)),
        }
    }

    fn fsyncdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.wait_for_sync();
        let done = self.opened(Op::SyncDir, number, handle, |state| {
            state.tree.sync_dir(number.0)
        });
        answer(reply, done);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let left = self.state().bytes_left() / u64::from(BLOCK_BYTES);
        let free = left.min(BLOCKS);
        let block = BLOCK_BYTES;
        reply.statfs(
            BLOCKS,
            free,
            free,
            BLOCKS,
            free,
            block,
            NAME_BYTES_MAX,
            block,
        );
    }
}
