use std::sync::Arc;

use futures_util::FutureExt;
use stock_cluster::identity::{Acquaintances, Addresses, Founder, Listed, founded_life};
use stock_cluster::{Change, Directory, Registry, RegistryCommand, Speaks, founding_placement};
use stock_core::{At, Principal, Stamp};
use stock_node::standing::ClusterState;

use super::*;
use crate::peers::PeerError;

const LIFE: u128 = 77;

fn identity(node: u64, directory: u128, since: u64) -> Identity {
    let founder = |node: u64| Founder {
        node,
        directory: u128::from(node),
    };
    Identity {
        cluster_id: "shop".to_owned(),
        node,
        shards: 8,
        directory,
        since,
        boot: 1_000 + node,
        founders: [1, 2, 3].map(founder).to_vec(),
        listed: Listed::default(),
        has_joined: false,
        incarnation: Some(LIFE),
        earlier_lives: Vec::new(),
        addresses: Addresses::default(),
        speaks: Speaks::THIS,
    }
}

/// Founded by three; node 3 has come back with directory 30, let in by entry 50.
fn registry() -> Registry {
    let mut registry = Registry::new();
    let mut apply = |index: u64, change: Change| {
        let at = At {
            index,
            ordinal: 0,
            moment: Stamp(1).into(),
        };
        let command = RegistryCommand {
            principal: Principal::new("test").unwrap(),
            request: None,
            change,
        };
        registry.apply(at, command);
    };
    let founder = |node: u64| stock_cluster::Founder {
        node,
        directory: Directory(u128::from(node)),
        grpc: format!("http://n{node}:1"),
        peers: format!("n{node}:2"),
    };
    apply(
        2,
        Change::Found {
            incarnation: LIFE,
            replication: 3,
            nodes: [1, 2, 3].map(founder).to_vec(),
            groups: founding_placement(2, &[1, 2, 3], 3),
            version: 1,
        },
    );
    apply(
        50,
        Change::Join {
            node: 3,
            directory: Directory(30),
            replaces: Some(Directory(3)),
            grpc: "http://n3:1".to_owned(),
            peers: "n3:2".to_owned(),
        },
    );
    registry
}

/// What node 1 says to node 3, of this directory, admission and pulse.
#[expect(clippy::needless_pass_by_value, reason = "the calls read better")]
fn judged(
    registry: &Registry,
    (directory, since, pulse): (u128, u64, u64),
    known: Option<Known>,
    heard: Option<u64>,
) -> Result<u64, Refusal> {
    let mut hello = hello(&identity(3, directory, since));
    hello.beats = beats(&[(7, 100), (1_003, pulse)]);
    let theirs = identity(1, 1, 0).judge(&hello, registry, known.as_ref(), heard)?;
    Ok(theirs.beats.latest().unwrap().pulse)
}

fn hello(identity: &Identity) -> cluster::Hello {
    identity.hello(cluster::Purpose::Frames, &Acquaintances::default())
}

fn beats(beats: &[(u64, u64)]) -> Vec<cluster::Beat> {
    let beats = beats.iter();
    let beats = beats.map(|(boot, pulse)| cluster::Beat {
        boot: *boot,
        pulse: *pulse,
    });
    beats.collect()
}

fn known(directory: u128, since: u64, pulse: u64, boot: u64) -> Option<Known> {
    Some(Known {
        directory,
        since,
        beats: wire::decode_beats(&beats(&[(boot, pulse)])),
    })
}

#[test]
fn of_two_directories_the_one_that_was_let_in_last_is_the_node() {
    let replaced = |since| Err(Refusal::Replaced { node: 3, since });
    let (behind, current) = (Registry::new(), registry());
    // A registry that is behind knows the founders only, and learns of the other by its coming.
    assert_eq!(judged(&behind, (3, 0, 9), None, None), Ok(9));
    assert_eq!(judged(&behind, (30, 50, 1), None, None), Ok(1));
    let met = || known(30, 50, 1, 7);
    assert_eq!(judged(&behind, (3, 0, 9), met(), None), replaced(50));
    assert_eq!(judged(&current, (3, 0, 9), None, None), replaced(50));
    assert_eq!(judged(&current, (30, 50, 1), None, None), Ok(1));
    // It has come again, and the registry has not heard of it.
    assert_eq!(judged(&current, (31, 60, 1), met(), None), Ok(1));
    // Nobody is let in twice by one entry.
    let other = judged(&current, (31, 50, 1), None, None);
    assert!(matches!(other, Err(Refusal::Stranger { .. })), "{other:?}");
}

#[test]
fn a_directory_that_lacks_a_pulse_has_forgotten() {
    let registry = registry();
    let forgotten = |known| {
        let (node, told) = (3, 101);
        Err(Refusal::Forgotten { node, told, known })
    };
    // The one that introduces itself is boot 1,003 of a directory that boot 7 left at 100.
    let told = |boot, pulse| judged(&registry, (30, 50, 101), known(30, 50, pulse, boot), None);
    assert_eq!(told(7, 99), Ok(101));
    assert_eq!(told(7, 100), Ok(101), "it was restarted");
    assert_eq!(told(7, 101), forgotten(101), "that boot went on elsewhere");
    assert_eq!(told(8, 50), forgotten(50), "another boot wrote there");
    assert_eq!(told(1_003, 105), Ok(101), "a hello that waited for long");
    // What was known of the directory before it says nothing of this one.
    let before = known(3, 0, 9_999, 7);
    assert_eq!(judged(&registry, (30, 50, 1), before, None), Ok(1));
}

#[test]
fn while_a_directory_is_heard_from_nobody_else_uses_it() {
    let registry = registry();
    let twin = Err(Refusal::Twin { node: 3 });
    let met = || known(30, 50, 100, 7);
    assert_eq!(judged(&registry, (30, 50, 101), met(), Some(7)), twin);
    assert_eq!(
        judged(&registry, (30, 50, 101), met(), Some(1_003)),
        Ok(101)
    );
    // Its successor need not wait.
    assert_eq!(judged(&registry, (31, 60, 1), met(), Some(7)), Ok(1));
    // Somebody who says to be this node itself.
    let hello = hello(&identity(1, 1, 0));
    let same = identity(1, 1, 0).judge(&hello, &registry, None, None);
    assert_eq!(same, Err(Refusal::Twin { node: 1 }));
}

#[test]
fn who_is_of_another_life_is_a_stranger() {
    let mut stranger = identity(3, 30, 50);
    stranger.incarnation = Some(LIFE + 1);
    let first = hello(&stranger);
    let refused = identity(1, 1, 0).judge(&first, &registry(), None, None);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains(&format!("{:032x}", LIFE + 1)), "{text}");
    stranger.incarnation = None;
    let second = hello(&stranger);
    let refused = identity(1, 1, 0).judge(&second, &registry(), None, None);
    assert_eq!(refused, Err(Refusal::Unknown { node: 3 }));
}

#[test]
fn founders_who_differ_in_anything_begin_different_lives() {
    let founders = [1, 2, 3].map(|node| Founder {
        node,
        directory: u128::from(node) << 90,
    });
    let life = founded_life("shop", 8, 3, &founders);
    let mut turned = founders;
    turned.reverse();
    assert_eq!(founded_life("shop", 8, 3, &turned), life);
    let mut other = founders;
    other[1].directory += 1;
    for different in [
        founded_life("shop2", 8, 3, &founders),
        founded_life("shop", 9, 3, &founders),
        founded_life("shop", 8, 5, &founders),
        founded_life("shop", 8, 3, &founders[..2]),
        founded_life("shop", 8, 3, &other),
    ] {
        assert_ne!(different, life);
    }
}

/// Node 1 as it introduces itself and judges others, after node 3 was met with boot 7.
fn introductions() -> Introductions {
    let mut acquaintances = Acquaintances::default();
    acquaintances.met(3, &known(3, 0, 100, 7).unwrap());
    let cluster = Arc::new(ClusterState::new(1, 2, acquaintances));
    Introductions::new(identity(1, 1, 0), cluster)
}

/// How node 3 introduces itself with a process of its own.
fn third(beats_told: &[(u64, u64)], was_believed: bool) -> cluster::Hello {
    let mut hello = hello(&identity(3, 3, 0));
    hello.beats = beats(beats_told);
    hello.was_believed = was_believed;
    hello
}

#[test]
fn who_only_asks_leaves_nothing_behind() {
    let introductions = introductions();
    let before = introductions.hello(cluster::Purpose::Frames).memory;
    let later = third(&[(7, 100), (8, 200)], true);
    assert_eq!(introductions.look_at(&later, None), Ok(()));
    assert_eq!(introductions.hello(cluster::Purpose::Frames).memory, before);
    assert!(introductions.judge(&later, None).is_ok());
    assert_ne!(introductions.hello(cluster::Purpose::Frames).memory, before);
}

#[test]
fn what_somebody_else_says_at_a_nodes_address_is_not_heeded() {
    let introductions = introductions();
    let verdict = Refusal::Replaced { node: 1, since: 9 }.verdict();
    // Node 3 was meant, and another answers: node 2, this node itself, one of another cluster.
    let mut stranger = hello(&identity(3, 3, 0));
    stranger.cluster_id = "other".to_owned();
    for answers in [
        hello(&identity(2, 2, 0)),
        hello(&identity(1, 1, 0)),
        stranger,
    ] {
        let heeded = introductions.heed_node(3, "there", &answers, &verdict);
        assert!(matches!(heeded, Err(PeerError::Refused(_))), "{heeded:?}");
        assert_eq!(introductions.refused().now_or_never(), None);
    }
    let heeded = introductions.heed_node(3, "there", &hello(&identity(3, 3, 0)), &verdict);
    assert!(matches!(heeded, Err(PeerError::Told(_))), "{heeded:?}");
    let told = introductions.refused().now_or_never();
    assert_eq!(told.map(|told| told.kind), Some(ToldKind::Over));
}

#[test]
fn a_twin_that_nobody_has_believed_ends_nobody() {
    let introductions = introductions();
    let connected = third(&[(7, 100)], true);
    introductions.connected(3, wire::known(&connected).unwrap());
    let (node, told, known) = (3, 101, 100);
    let twin = Err(Refusal::Forgotten { node, told, known });
    assert_eq!(
        introductions.judge(&third(&[(7, 99), (8, 101)], false), Some(7)),
        twin
    );
    assert!(introductions.overtaken().is_empty());
    // One that somebody has believed may have promised something that the connected one lacks.
    assert_eq!(
        introductions.judge(&third(&[(7, 99), (8, 101)], true), Some(7)),
        twin
    );
    assert_eq!(introductions.overtaken(), [3]);
}

#[test]
fn who_is_of_a_life_that_another_goes_on_from_is_over_on_whichever_side_he_hears_of_it() {
    let mut later = identity(3, 30, 0);
    (later.incarnation, later.earlier_lives) = (Some(LIFE + 1), vec![LIFE]);
    let theirs = hello(&later);
    let earlier = introductions();
    let refused = earlier.judge(&theirs, None);
    let (ours, life) = (LIFE, LIFE + 1);
    assert_eq!(refused, Err(Refusal::LaterLife { theirs: life, ours }));
    let told = earlier.refused().now_or_never();
    assert_eq!(told.map(|told| told.kind), Some(ToldKind::Over));
    // The verdict of the later one says the same.
    let refusal = later.check(&hello(&identity(1, 1, 0))).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::EarlierLife {
            theirs: LIFE,
            ours: life
        }
    );
    let verdict = refusal::told("it", &refusal.verdict()).unwrap();
    assert_eq!(verdict.kind, ToldKind::Over);
    // Where neither goes on from the other, nothing follows.
    later.earlier_lives = vec![LIFE + 7];
    assert!(matches!(
        earlier.judge(&hello(&later), None),
        Err(Refusal::Stranger { .. })
    ));
    assert_eq!(earlier.refused().now_or_never(), None);
}

#[test]
fn who_does_not_speak_the_version_of_the_cluster_is_refused() {
    let speaking = |oldest, newest| Identity {
        speaks: Speaks { oldest, newest },
        ..identity(2, 2, 0)
    };
    let mut registry = registry();
    let judged = |registry: &Registry, oldest, newest| {
        let hello =
            speaking(oldest, newest).hello(cluster::Purpose::Frames, &Acquaintances::default());
        let own = Identity {
            speaks: Speaks {
                oldest: 1,
                newest: 2,
            },
            ..identity(1, 1, 0)
        };
        own.judge(&hello, registry, None, None).map(drop)
    };
    let another = |oldest, newest, version| {
        let speaks = Speaks { oldest, newest };
        Err(Refusal::AnotherVersion { speaks, version })
    };
    assert_eq!(judged(&registry, 1, 1), Ok(()));
    assert_eq!(judged(&registry, 1, 2), Ok(()));
    assert_eq!(judged(&registry, 2, 3), another(2, 3, 1));
    let stranger = judged(&registry, 3, 4);
    assert!(
        matches!(stranger, Err(Refusal::Stranger { .. })),
        "{stranger:?}"
    );
    let changes = [(1, 1), (2, 2), (3, 30)].map(|(node, directory)| Change::Heard {
        node,
        directory: Directory(directory),
        newest_version: 2,
    });
    for change in changes
        .into_iter()
        .chain([Change::RaiseVersion { version: 2 }])
    {
        let at = At {
            index: 60,
            ordinal: 0,
            moment: Stamp(1).into(),
        };
        let command = RegistryCommand {
            principal: Principal::new("test").unwrap(),
            request: None,
            change,
        };
        let outcome = registry.apply(at, command);
        assert_eq!(outcome, stock_cluster::RegistryOutcome::Done);
    }
    assert_eq!(judged(&registry, 1, 1), another(1, 1, 2));
    assert_eq!(judged(&registry, 1, 2), Ok(()));
    assert_eq!(judged(&registry, 2, 3), Ok(()));
}
