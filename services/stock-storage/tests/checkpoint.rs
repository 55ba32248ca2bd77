//! Checkpoint files: whole or not there, checked to the last byte, and received in pieces.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stock_storage::{
    CONTEXT_BYTES_MAX, CheckpointError, CheckpointInfo, CheckpointMeta, CheckpointStore, Incoming,
    SECTION_BYTES_MAX,
};
use tempfile::TempDir;

mod faulty;

use faulty::Faulty;

const CHUNK_BYTES: usize = 100_000;

fn tempdir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(dir: &Path) -> CheckpointStore {
    CheckpointStore::open(Arc::new(Faulty::default()), dir).unwrap()
}

fn meta(group: u64, index: u64) -> CheckpointMeta {
    CheckpointMeta {
        group,
        index,
        term: 3,
        incarnation: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        context: b"configuration".to_vec(),
    }
}

/// Sections of all kinds of sizes: empty, small, and over several blocks.
fn sections() -> Vec<Vec<u8>> {
    let noise = |len: usize| {
        let mut state = len as u64 | 1;
        let next = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        };
        (0..len).map(next).collect()
    };
    [40, 0, 1, 300_000, 0, 700_000, 5].map(noise).to_vec()
}

fn write(
    store: &CheckpointStore,
    meta: CheckpointMeta,
    sections: &[Vec<u8>],
) -> Result<CheckpointInfo, CheckpointError> {
    let mut writer = store.create(meta)?;
    for section in sections {
        writer.section(section)?;
    }
    writer.finish()
}

fn read(store: &CheckpointStore, info: &CheckpointInfo) -> Result<Vec<Vec<u8>>, CheckpointError> {
    let mut reader = store.reader(info)?;
    assert_eq!(*reader.meta(), info.meta);
    let mut sections = Vec::new();
    let mut section = Vec::new();
    while reader.next_section(&mut section)? {
        sections.push(section.clone());
    }
    assert_eq!(reader.sections(), sections.len() as u64);
    Ok(sections)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Sends a whole file from one store to another, or the first `chunks` of it.
fn send(from: &CheckpointStore, info: &CheckpointInfo, to: &mut Incoming, chunks: usize) {
    let raw = from.open_raw(info).unwrap();
    let mut buf = vec![0; CHUNK_BYTES];
    for _ in 0..chunks {
        let len = raw.read_at(&mut buf, to.have()).unwrap();
        if len == 0 {
            break;
        }
        to.chunk(to.have(), &buf[..len]).unwrap();
    }
}

#[test]
fn what_was_written_is_read_back_also_after_a_restart() {
    let dir = tempdir();
    let store = open(dir.path());
    let mut wanted = Vec::new();
    // One byte around the edge of a block, with the section's length before it.
    let edges = [262_139, 262_140, 262_141, 524_284].map(|len| vec![vec![7; len]]);
    let cases = [vec![], vec![vec![]], sections()];
    for (sections, index) in cases.into_iter().chain(edges).zip(1..) {
        wanted.push((write(&store, meta(1, index), &sections).unwrap(), sections));
    }
    write(&store, meta(2, 9), &sections()).unwrap();
    for store in [store, open(dir.path())] {
        // Newest first.
        let listed = store.list(1);
        assert!(listed.iter().eq(wanted.iter().rev().map(|(info, _)| info)));
        for (info, sections) in &wanted {
            assert_eq!(read(&store, info).unwrap(), *sections);
            assert_eq!(fs::metadata(&info.path).unwrap().len(), info.bytes);
        }
        assert_eq!((store.groups(), store.list(3)), (vec![1, 2], vec![]));
        assert!(store.damaged().is_empty() && store.incoming(1).is_empty());
    }
    assert_eq!(
        names(&dir.path().join("checkpoints"))[0],
        "g1-i00000000000000000001-t3.checkpoint"
    );
}

#[test]
fn a_checkpoint_is_durable_before_it_has_its_name() {
    let dir = tempdir();
    let volume = Faulty::default();
    let store = CheckpointStore::open(Arc::new(volume.clone()), dir.path()).unwrap();
    volume.state().events.clear();
    write(&store, meta(1, 5), &sections()[..5]).unwrap();
    let mut events = std::mem::take(&mut volume.state().events);
    events.dedup();
    let name = |end| format!("g1-i00000000000000000005-t3.{end}");
    let wanted = [
        ("create", name("partial")),
        ("write", name("partial")),
        ("sync", name("partial")),
        ("rename", name("checkpoint")),
        ("sync_dir", "checkpoints".to_owned()),
    ];
    assert_eq!(events, wanted);
}

#[test]
fn a_checkpoint_goes_to_the_disk_bit_by_bit() {
    let dir = tempdir();
    let volume = Faulty::default();
    let store = CheckpointStore::open(Arc::new(volume.clone()), dir.path()).unwrap();
    volume.state().events.clear();
    let section = [vec![7; 5_000_000]];
    write(&store, meta(1, 5), &section).unwrap();
    let events = std::mem::take(&mut volume.state().events);
    let writes = events
        .split(|(verb, _)| *verb == "sync")
        .map(|events| events.iter().filter(|(verb, _)| *verb == "write").count());
    // A block is 256 KiB.
    assert!(writes.clone().all(|writes| writes <= 5), "{events:?}");
    assert!(writes.count() > 4, "{events:?}");
    // One that could not be synced is given up, though later ones could.
    volume.state().syncs_fail = Some(".partial");
    let mut writer = store.create(meta(1, 6)).unwrap();
    writer.section(&section[0]).unwrap_err();
    volume.state().syncs_fail = None;
    writer.section(&[1]).unwrap();
    writer.finish().unwrap_err();
    assert_eq!(store.list(1).len(), 1);
}

#[test]
fn an_unfinished_checkpoint_is_none() {
    let dir = tempdir();
    let checkpoints = dir.path().join("checkpoints");
    let store = open(dir.path());
    write(&store, meta(1, 5), &sections()).unwrap();
    let mut writer = store.create(meta(1, 6)).unwrap();
    writer.section(&[1; 300_000]).unwrap();
    assert!(matches!(
        store.create(meta(1, 7)).unwrap_err(),
        CheckpointError::Busy { group: 1 }
    ));
    drop(store.create(meta(2, 7)).unwrap());
    // As after a kill: the partial file is there, and is not taken for a checkpoint but deleted.
    let copy = tempdir();
    fs::create_dir(copy.path().join("checkpoints")).unwrap();
    for name in names(&checkpoints) {
        fs::copy(
            checkpoints.join(&name),
            copy.path().join("checkpoints").join(&name),
        )
        .unwrap();
    }
    assert_eq!(names(&checkpoints).len(), 2);
    let copied = open(copy.path());
    assert_eq!(copied.list(1).len(), 1);
    assert_eq!(names(&copy.path().join("checkpoints")).len(), 1);
    // Given up in the same process, it is gone too, and the next may begin.
    drop(writer);
    assert_eq!(names(&checkpoints).len(), 1);
    write(&store, meta(1, 6), &sections()).unwrap();
}

#[test]
fn what_cannot_be_written_or_synced_leaves_no_checkpoint_and_does_no_harm() {
    let dir = tempdir();
    let volume = Faulty::default();
    let store = CheckpointStore::open(Arc::new(volume.clone()), dir.path()).unwrap();
    let old = write(&store, meta(1, 5), &sections()).unwrap();
    // At the header, within blocks, at the manifest and at the very last byte.
    for free in [
        0,
        10,
        24,
        100_000,
        262_180,
        700_000,
        old.bytes - 100,
        old.bytes - 1,
    ] {
        volume.state().free = Some(free);
        let error = write(&store, meta(1, 6), &sections()).unwrap_err();
        assert!(error.is_full(), "{free}: {error}");
        // Nor does a writer that goes on regardless make one.
        if let Ok(mut writer) = store.create(meta(1, 6)) {
            let failed = sections()
                .iter()
                .any(|section| writer.section(section).is_err());
            volume.state().free = None;
            assert!(!failed || writer.finish().is_err(), "{free}");
        }
        volume.state().free = None;
        assert_eq!(names(&dir.path().join("checkpoints")).len(), 1, "{free}");
    }
    for end in [".partial", "checkpoints"] {
        volume.state().syncs_fail = Some(end);
        let error = write(&store, meta(1, 6), &sections()).unwrap_err();
        volume.state().syncs_fail = None;
        assert!(
            !error.is_full() && error.to_string().contains("sync"),
            "{error}"
        );
        assert_eq!(names(&dir.path().join("checkpoints")).len(), 1, "{end}");
    }
    assert_eq!(store.list(1), [old]);
    write(&store, meta(1, 6), &sections()).unwrap();
    assert_eq!(store.list(1).len(), 2);
}

#[test]
fn no_byte_of_a_checkpoint_can_change_unnoticed() {
    let dir = tempdir();
    let store = open(dir.path());
    let sections = vec![b"head".to_vec(), vec![], vec![9; 600], b"last".to_vec()];
    let info = write(&store, meta(1, 5), &sections).unwrap();
    let bytes = fs::read(&info.path).unwrap();
    let mut reasons = std::collections::BTreeSet::new();
    let mut check = |changed: &[u8], what: &str| {
        fs::write(&info.path, changed).unwrap();
        match read(&store, &info).unwrap_err() {
            CheckpointError::Damaged { file, reason, .. } => {
                assert_eq!(file, info.path);
                reasons.insert(reason);
            }
            error => panic!("{what}: {error}"),
        }
    };
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            check(&changed, &format!("byte {at} with {flip}"));
        }
        check(&bytes[..at], &format!("cut at {at}"));
    }
    check(&[&bytes[..], b"x"].concat(), "one byte more");
    assert!(reasons.len() >= 6, "{reasons:?}");
}

#[test]
fn blocks_that_changed_places_are_noticed() {
    let dir = tempdir();
    let store = open(dir.path());
    let info = write(
        &store,
        meta(1, 5),
        &[vec![1; 262_140], vec![2; 262_140], vec![3; 9]],
    )
    .unwrap();
    let other = write(
        &store,
        meta(1, 6),
        &[vec![1; 262_140], vec![4; 262_140], vec![3; 9]],
    )
    .unwrap();
    let block = |number: usize| 24 + number * 262_156..24 + (number + 1) * 262_156;
    let bytes = fs::read(&info.path).unwrap();
    let mut swapped = bytes.clone();
    swapped[block(0)].copy_from_slice(&bytes[block(1)]);
    swapped[block(1)].copy_from_slice(&bytes[block(0)]);
    // The right block of another checkpoint has a right checksum.
    let mut mixed = bytes;
    mixed[block(1)].copy_from_slice(&fs::read(&other.path).unwrap()[block(1)]);
    // The first is noticed before a byte of it is handed out, the second at the latest at the end.
    for (changed, sections_read) in [(swapped, 0), (mixed, 2)] {
        fs::write(&info.path, changed).unwrap();
        let mut reader = store.reader(&info).unwrap();
        let mut section = Vec::new();
        for _ in 0..sections_read {
            assert!(reader.next_section(&mut section).unwrap());
        }
        let error = reader.next_section(&mut section).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
        assert!(section.is_empty());
    }
}

#[test]
fn damaged_files_are_reported_and_not_used() {
    let dir = tempdir();
    let store = open(dir.path());
    let good = write(&store, meta(1, 5), &sections()).unwrap();
    let bad = write(&store, meta(1, 6), &sections()).unwrap();
    let short = write(&store, meta(2, 6), &sections()).unwrap();
    let renamed = write(&store, meta(3, 6), &sections()).unwrap();
    drop(store);
    let len = bad.bytes;
    let mut bytes = fs::read(&bad.path).unwrap();
    bytes[len as usize - 60] ^= 1;
    fs::write(&bad.path, bytes).unwrap();
    fs::write(&short.path, b"").unwrap();
    let other_name = dir
        .path()
        .join("checkpoints/g3-i00000000000000000007-t3.checkpoint");
    fs::rename(&renamed.path, &other_name).unwrap();

    let store = open(dir.path());
    assert_eq!((store.list(1), store.groups()), (vec![good], vec![1]));
    let damaged: Vec<&PathBuf> = store.damaged().iter().map(|file| &file.path).collect();
    assert_eq!(damaged, [&bad.path, &short.path, &other_name]);
    assert!(
        store.damaged()[0].reason.contains("manifest"),
        "{:?}",
        store.damaged()
    );
    assert!(
        damaged.iter().all(|path| path.exists()),
        "left for whoever looks into it"
    );
}

#[test]
fn only_what_is_kept_stays() {
    let dir = tempdir();
    let store = open(dir.path());
    for index in 1..=4 {
        write(&store, meta(1, index), &sections()).unwrap();
    }
    write(&store, meta(2, 1), &sections()).unwrap();
    let raw = store.open_raw(&store.list(1)[3]).unwrap();
    let newest: Vec<CheckpointInfo> = store.list(1).into_iter().take(2).collect();
    store.retain(1, |info| newest.contains(info)).unwrap();
    for store in [store, open(dir.path())] {
        assert_eq!(store.list(1), newest);
        assert_eq!(store.list(2).len(), 1);
    }
    // What was being sent can be sent to its end.
    let mut buf = vec![0; raw.bytes() as usize];
    assert_eq!(raw.read_at(&mut buf, 0).unwrap() as u64, raw.bytes());
    assert_eq!(raw.read_at(&mut buf, raw.bytes()).unwrap(), 0);
}

#[test]
fn too_large_parts_are_refused() {
    let dir = tempdir();
    let store = open(dir.path());
    let large = CheckpointMeta {
        context: vec![0; CONTEXT_BYTES_MAX as usize + 1],
        ..meta(1, 1)
    };
    let refused = |error| assert!(matches!(error, CheckpointError::TooLarge { .. }), "{error}");
    refused(store.create(large.clone()).unwrap_err());
    refused(store.receive(large, 1, 1).unwrap_err());
    let largest = CheckpointMeta {
        context: vec![0; CONTEXT_BYTES_MAX as usize],
        ..meta(1, 1)
    };
    let mut writer = store.create(largest).unwrap();
    refused(
        writer
            .section(&vec![0; SECTION_BYTES_MAX as usize + 1])
            .unwrap_err(),
    );
    // A refused section leaves no trace.
    writer.section(b"small").unwrap();
    let info = writer.finish().unwrap();
    assert_eq!(read(&store, &info).unwrap(), [b"small"]);
    assert_eq!(open(dir.path()).list(1), [info]);
}

#[test]
fn a_checkpoint_is_received_in_pieces_over_restarts_and_used_when_adopted() {
    let (here, there) = (tempdir(), tempdir());
    let sender = open(there.path());
    let info = write(&sender, meta(1, 5), &sections()).unwrap();
    let receive = |store: &CheckpointStore| {
        store
            .receive(info.meta.clone(), info.bytes, info.hash)
            .unwrap()
    };
    let store = open(here.path());
    let mut incoming = receive(&store);
    assert_eq!(incoming.have(), 0);
    send(&sender, &info, &mut incoming, 6);
    assert_eq!(incoming.have(), 600_000);
    assert!(matches!(
        store
            .receive(info.meta.clone(), info.bytes, info.hash)
            .unwrap_err(),
        CheckpointError::Busy { group: 1 }
    ));
    let error = incoming.chunk(600_001, b"x").unwrap_err();
    assert!(
        matches!(error, CheckpointError::Gap { have: 600_000, .. }),
        "{error}"
    );
    let error = incoming
        .chunk(600_000, &vec![0; info.bytes as usize])
        .unwrap_err();
    assert!(matches!(error, CheckpointError::Length { .. }), "{error}");
    // What is there already is passed over, even if it is other bytes.
    incoming.chunk(0, b"stale").unwrap();
    assert!(matches!(
        incoming.finish().unwrap_err(),
        CheckpointError::Length { .. }
    ));

    // After a restart the whole blocks count, and a crash may have left a length without bytes.
    drop(store);
    let partial = here
        .path()
        .join("incoming")
        .join(&names(&here.path().join("incoming"))[0]);
    let mut bytes = fs::read(&partial).unwrap();
    bytes[400_000..].fill(0);
    bytes.resize(900_000, 0);
    fs::write(&partial, bytes).unwrap();
    let store = open(here.path());
    let mut incoming = receive(&store);
    assert_eq!(incoming.have(), 24 + 262_156);
    send(&sender, &info, &mut incoming, usize::MAX);
    let received = incoming.finish().unwrap();
    assert_eq!((&received.meta, received.hash), (&info.meta, info.hash));
    assert_eq!(
        fs::read(&received.path).unwrap(),
        fs::read(&info.path).unwrap()
    );

    // Received is not yet owned, also after a restart.
    drop(store);
    let store = open(here.path());
    assert_eq!(
        (store.list(1), store.incoming(1)),
        (vec![], vec![received.clone()])
    );
    assert_eq!(read(&store, &received).unwrap(), sections());
    let adopted = store.adopt(&received).unwrap();
    for store in [store, open(here.path())] {
        assert_eq!(
            (store.list(1), store.incoming(1)),
            (vec![adopted.clone()], vec![])
        );
        assert_eq!(read(&store, &adopted).unwrap(), sections());
    }
}

#[test]
fn what_is_received_is_what_was_announced_or_nothing() {
    let (here, there) = (tempdir(), tempdir());
    let sender = open(there.path());
    let info = write(&sender, meta(1, 5), &sections()).unwrap();
    let other = write(&sender, meta(1, 6), &sections()).unwrap();
    let volume = Faulty::default();
    let store = CheckpointStore::open(Arc::new(volume.clone()), here.path()).unwrap();
    let nothing = || {
        assert!(names(&here.path().join("incoming")).is_empty());
        assert!(store.incoming(1).is_empty());
    };
    // One byte was changed on the way: in a block, and in the manifest.
    for at in [500_000, info.bytes as usize - 60] {
        let mut incoming = store
            .receive(info.meta.clone(), info.bytes, info.hash)
            .unwrap();
        assert_eq!(
            incoming.have(),
            0,
            "what was found wanting is received anew"
        );
        let mut bytes = fs::read(&info.path).unwrap();
        bytes[at] ^= 1;
        incoming.chunk(0, &bytes).unwrap();
        let error = incoming.finish().unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
        nothing();
    }
    // A whole one, but another one.
    let mut incoming = store
        .receive(info.meta.clone(), other.bytes, info.hash)
        .unwrap();
    send(&sender, &other, &mut incoming, usize::MAX);
    let error = incoming.finish().unwrap_err();
    assert!(matches!(error, CheckpointError::Other { .. }), "{error}");
    nothing();
    // It could not be made durable.
    let mut incoming = store
        .receive(info.meta.clone(), info.bytes, info.hash)
        .unwrap();
    send(&sender, &info, &mut incoming, usize::MAX);
    volume.state().syncs_fail = Some(".partial");
    incoming.finish().unwrap_err();
    volume.state().syncs_fail = None;
    nothing();
    // There was no space: what came is kept for when there is.
    let mut incoming = store
        .receive(info.meta.clone(), info.bytes, info.hash)
        .unwrap();
    send(&sender, &info, &mut incoming, 6);
    volume.state().free = Some(50_000);
    let error = incoming.chunk(600_000, &[0; CHUNK_BYTES]).unwrap_err();
    assert!(error.is_full(), "{error}");
    volume.state().free = None;
    send(&sender, &info, &mut incoming, usize::MAX);
    volume.state().events.clear();
    incoming.finish().unwrap();
    let verbs: Vec<_> = volume
        .state()
        .events
        .iter()
        .map(|(verb, _)| *verb)
        .collect();
    assert_eq!(verbs, ["sync", "rename", "sync_dir"]);
}

#[test]
fn of_each_group_at_most_one_is_being_received_and_one_received() {
    let (here, there) = (tempdir(), tempdir());
    let sender = open(there.path());
    let old = write(&sender, meta(1, 5), &sections()).unwrap();
    let new = write(&sender, meta(1, 6), &sections()).unwrap();
    let of_10 = write(&sender, meta(10, 6), &sections()).unwrap();
    let store = open(here.path());
    let incoming_dir = here.path().join("incoming");
    let receive = |info: &CheckpointInfo, chunks| {
        let mut incoming = store
            .receive(info.meta.clone(), info.bytes, info.hash)
            .unwrap();
        send(&sender, info, &mut incoming, chunks);
        incoming
    };
    drop(receive(&of_10, 3));
    drop(receive(&old, 3));
    assert_eq!(names(&incoming_dir).len(), 2);
    drop(receive(&new, 3));
    assert_eq!(names(&incoming_dir).len(), 2, "the older one is gone");
    let received = receive(&old, usize::MAX).finish().unwrap();
    assert_eq!(store.incoming(1), [received]);
    let received = receive(&new, usize::MAX).finish().unwrap();
    assert_eq!(store.incoming(1), [received]);
    assert_eq!(
        names(&incoming_dir).len(),
        2,
        "one whole, and the other group's part"
    );

    // A crash may leave two; opening keeps the later one, which can be resumed.
    fs::copy(
        incoming_dir.join(&names(&incoming_dir)[1]),
        incoming_dir.join("g10-i00000000000000000004-t1-7-00.partial"),
    )
    .unwrap();
    drop(store.clone());
    let reopened = open(here.path());
    assert_eq!(names(&incoming_dir).len(), 2);
    let incoming = reopened
        .receive(of_10.meta.clone(), of_10.bytes, of_10.hash)
        .unwrap();
    assert_eq!(incoming.have(), 24 + 262_156);
    assert!(matches!(
        reopened.discard_incoming(10).unwrap_err(),
        CheckpointError::Busy { group: 10 }
    ));
    drop(incoming);
    for group in [1, 10] {
        reopened.discard_incoming(group).unwrap();
    }
    assert!(names(&incoming_dir).is_empty() && reopened.incoming(1).is_empty());
}

/// A store that has received a whole file on this volume, and the sender of it.
fn received(
    here: &TempDir,
    there: &TempDir,
    volume: &Faulty,
) -> (CheckpointStore, CheckpointStore, CheckpointInfo) {
    let sender = open(there.path());
    let info = write(&sender, meta(1, 5), &sections()).unwrap();
    let store = CheckpointStore::open(Arc::new(volume.clone()), here.path()).unwrap();
    let mut incoming = store
        .receive(info.meta.clone(), info.bytes, info.hash)
        .unwrap();
    send(&sender, &info, &mut incoming, usize::MAX);
    incoming.finish().unwrap();
    (store, sender, info)
}

#[test]
fn one_that_has_its_name_but_not_durably_is_adopted_at_the_next_try() {
    for dir in ["checkpoints", "incoming"] {
        let (here, there) = (tempdir(), tempdir());
        let volume = Faulty::default();
        let (store, ..) = received(&here, &there, &volume);
        let whole = store.incoming(1).remove(0);
        volume.state().syncs_fail = Some(dir);
        store.adopt(&whole).unwrap_err();
        assert_eq!(store.incoming(1).len(), 1, "it is not done");
        volume.state().syncs_fail = None;
        let adopted = store.adopt(&whole).unwrap();
        for store in [store, open(here.path())] {
            assert_eq!(store.list(1), std::slice::from_ref(&adopted));
            assert_eq!(store.incoming(1), []);
            assert_eq!(read(&store, &adopted).unwrap(), sections());
        }
    }
}

#[test]
fn a_file_that_is_gone_is_not_incoming_for_ever() {
    let (here, there) = (tempdir(), tempdir());
    let (store, ..) = received(&here, &there, &Faulty::default());
    let whole = store.incoming(1).remove(0);
    fs::remove_file(&whole.path).unwrap();
    store.adopt(&whole).unwrap_err();
    assert_eq!((store.list(1), store.incoming(1)), (vec![], vec![]));
}

#[test]
fn what_cannot_be_deleted_does_not_keep_the_next_from_being_received() {
    let (here, there) = (tempdir(), tempdir());
    let volume = Faulty::default();
    let (store, sender, old) = received(&here, &there, &volume);
    volume.state().deletes_fail = true;
    store.discard_incoming(1).unwrap_err();
    assert_eq!(store.incoming(1), [], "nobody waits for it any more");
    let incoming_dir = here.path().join("incoming");
    assert_eq!(names(&incoming_dir).len(), 1);
    let new = write(&sender, meta(1, 6), &sections()).unwrap();
    let receive = || store.receive(new.meta.clone(), new.bytes, new.hash);
    // Not beside it: what is in the way does not become more.
    receive().unwrap_err();
    volume.state().deletes_fail = false;
    let mut incoming = receive().unwrap();
    assert_eq!(names(&incoming_dir).len(), 1, "the part of the new one");
    send(&sender, &new, &mut incoming, usize::MAX);
    let whole = incoming.finish().unwrap();
    assert_eq!(store.incoming(1), [whole]);
    assert_ne!(old.hash, new.hash);
}

#[test]
fn a_store_is_used_on_several_threads() {
    let dir = tempdir();
    let store = open(dir.path());
    std::thread::scope(|scope| {
        for group in 1..=4 {
            let store = store.clone();
            scope.spawn(move || {
                for index in 1..=5 {
                    write(&store, meta(group, index), &sections()).unwrap();
                    store
                        .retain(group, |info| info.meta.index + 2 > index)
                        .unwrap();
                    let newest = store.list(group).remove(0);
                    assert_eq!(
                        (newest.meta.index, store.list(group).len()),
                        (index, 2.min(index as usize))
                    );
                    assert_eq!(read(&store, &newest).unwrap(), sections());
                }
            });
        }
    });
    assert_eq!(store.groups(), [1, 2, 3, 4]);
}
