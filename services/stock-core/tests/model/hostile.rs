//! Bytes that no shard wrote: whatever they are, they do no harm.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_core::{Flaw, Part, RestoreError, Shard, ShardRestorer, StateRestorer};

use crate::naive_baskets::Losses;
use crate::restart::Written;
use crate::world::{Step, World};
use crate::{Place, SECRET, Trial, apply};

const WORLDS: u64 = 4;
const STEPS: usize = 300;
const CHANGES_A_WORLD: usize = 300;

/// A shard with a past, its bytes, and what happens to it next.
fn lived(seed: u64) -> (Written, Vec<Step>) {
    let (written, later, _) = lived_with(seed);
    (written, later)
}

/// As [`lived`], with where in its head that stands which is written only after a recovery.
fn lived_with(seed: u64) -> (Written, Vec<Step>, usize) {
    let mut world = World::new(seed);
    let mut trial = Trial::new();
    let mut shard = Shard::new(SECRET);
    let mut place = Place::default();
    let mut next = |trial: &mut Trial| {
        let step = world.next(&trial.naive, trial.shard.next_expiry());
        trial.step(&step).unwrap();
        step
    };
    for _ in 0..STEPS {
        let step = next(&mut trial);
        apply(&mut shard, place.next(&step), &step);
    }
    let written = Written::of(&shard.freeze());
    let recoveries = written.head.len() - recoveries_bytes(&trial.naive.losses);
    let later = (0..20).map(|_| next(&mut trial)).collect();
    (written, later, recoveries)
}

/// How many bytes of the head they take: in these worlds each number and each count takes one.
fn recoveries_bytes(losses: &Losses) -> usize {
    match losses {
        Losses { own: 0, others, .. } if others.is_empty() => 0,
        Losses {
            awaited, others, ..
        } => 3 + awaited.len() + 2 * others.len(),
    }
}

/// Either an error, or a state that writes just these bytes and can go on.
fn try_out(written: &Written, later: &[Step]) -> Result<(), RestoreError> {
    let mut shard = written.restore()?;
    assert_eq!(Written::of(&shard.freeze()), *written);
    let mut place = Place::default();
    for step in later {
        apply(&mut shard, place.next(step), step);
    }
    Ok(())
}

/// As [`try_out`], for a change in one bucket: most are found without a look at the others.
fn try_bucket(written: &Written, bucket: usize, later: &[Step]) -> Result<(), RestoreError> {
    let mut restorer = ShardRestorer::new(&written.head)?;
    restorer.bucket(bucket, &written.buckets[bucket])?;
    try_out(written, later)
}

#[test]
fn changed_bytes_are_an_error_or_another_state_but_never_a_panic() {
    let (mut refused, mut taken) = (0, 0);
    for seed in 0..WORLDS {
        let (written, later) = lived(seed);
        assert_eq!(try_out(&written, &later), Ok(()));
        // An empty bucket has five counts, all of nothing.
        let full = (0..written.buckets.len()).filter(|bucket| written.buckets[*bucket].len() > 5);
        let full: Vec<usize> = full.collect();
        let mut dice = StdRng::seed_from_u64(seed);
        for _ in 0..CHANGES_A_WORLD {
            let mut changed = written.clone();
            let bucket = match dice.random_range(0..100) < 5 {
                true => None,
                false => Some(full[dice.random_range(0..full.len())]),
            };
            let bytes = match bucket {
                None => &mut changed.head,
                Some(bucket) => &mut changed.buckets[bucket],
            };
            let at = dice.random_range(0..bytes.len());
            let is_cut = dice.random_range(0..100) < 10;
            match is_cut {
                true => bytes.truncate(at),
                false => bytes[at] ^= 1 << dice.random_range(0..8),
            }
            let result = match bucket {
                None => try_out(&changed, &later),
                Some(bucket) => try_bucket(&changed, bucket, &later),
            };
            // Every cut of a head is tried below.
            let may_be_taken = !is_cut || bucket.is_none();
            assert!(result.is_err() || may_be_taken, "cut at {at} of {bucket:?}");
            match result {
                Err(_) => refused += 1,
                Ok(()) => taken += 1,
            }
        }
    }
    // Names, fingerprints and times can be others; most of the rest cannot.
    assert!(
        refused > 100 && taken > 100,
        "{refused} refused, {taken} taken"
    );
}

/// A shard that was never recovered, and knows of no other that was, writes nothing about it.
#[test]
fn a_head_that_was_cut_is_an_error_unless_it_is_that_of_a_shard_never_recovered() {
    let mut recovered = 0;
    for seed in 0..WORLDS {
        let (written, later, recoveries) = lived_with(seed);
        recovered += u32::from(recoveries < written.head.len());
        for at in 0..written.head.len() {
            let mut cut = written.clone();
            cut.head.truncate(at);
            let result = try_out(&cut, &later);
            assert_eq!(result.is_ok(), at == recoveries, "{seed}, {at}: {result:?}");
        }
    }
    assert!(recovered > 1, "{recovered}");
}

#[test]
fn bytes_of_nobody_are_an_error() {
    let (written, _) = lived(1);
    let mut dice = StdRng::seed_from_u64(1);
    for _ in 0..2_000 {
        let len = dice.random_range(5..200);
        let bytes: Vec<u8> = (0..len).map(|_| dice.random()).collect();
        assert!(ShardRestorer::new(&bytes).is_err());
        let mut restorer = ShardRestorer::new(&written.head).unwrap();
        let bucket = dice.random_range(0..restorer.buckets());
        assert!(restorer.bucket(bucket, &bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_bucket_that_is_missing_twice_there_or_elsewhere_is_an_error() {
    let (written, _) = lived(2);
    let full = |bucket: &usize| written.buckets[*bucket].len() > 5;
    let mut full = (0..written.buckets.len()).filter(full);
    let (one, other) = (full.next().unwrap(), full.next().unwrap());

    let mut restorer = ShardRestorer::new(&written.head).unwrap();
    restorer.bucket(one, &written.buckets[one]).unwrap();
    let twice = restorer.bucket(one, &written.buckets[one]);
    assert_eq!(twice, Err(RestoreError::BucketTwice { bucket: one }));
    let bucket = restorer.buckets();
    let none = restorer.bucket(bucket, &[0; 4]);
    assert_eq!(none, Err(RestoreError::NoSuchBucket { bucket }));
    let elsewhere = restorer.bucket(other, &written.buckets[one]);
    assert!(
        matches!(
            elsewhere,
            Err(RestoreError::Unreadable {
                part: Part::Bucket(bucket),
                flaw: Flaw::WrongBucket { .. },
                ..
            }) if bucket == other
        ),
        "{elsewhere:?}"
    );

    let mut restorer = ShardRestorer::new(&written.head).unwrap();
    for (number, bytes) in written.buckets.iter().enumerate() {
        if number != other {
            restorer.bucket(number, bytes).unwrap();
        }
    }
    let missing = restorer.finish().err();
    assert_eq!(missing, Some(RestoreError::BucketMissing { bucket: other }));
}

#[test]
fn a_bucket_that_was_emptied_is_an_error() {
    let (written, _) = lived(3);
    let mut found = 0;
    for bucket in 0..written.buckets.len() {
        if written.buckets[bucket].len() > 5 {
            let mut changed = written.clone();
            changed.buckets[bucket] = vec![0; 5];
            let error = changed.restore().unwrap_err();
            found += usize::from(matches!(
                error,
                RestoreError::CountDiffers { .. }
                    | RestoreError::PositionMissing { .. }
                    | RestoreError::ReservedDiffers { .. }
            ));
        }
    }
    assert!(found > 50, "{found}");
}
