//! The registry by transcripts: a line that begins with `>` is a command, the next what comes of
//! it. `#7 ` before a command gives it a request id. Groups are numbers, replicas
//! `node.generation`, and the directory `d` of a node is also its address.

use stock_cluster::registry::codec;
use stock_cluster::{
    BeginMove, Change, Directory, EndMove, Founder, GroupId, NodeState, Recover, Registry,
    RegistryCommand, RegistryOutcome, ReplicaId, Survivor, Why, founding_placement,
};
use stock_core::{At, Fingerprint, Principal, Request, RequestId, Stamp};

const NOW: u64 = 1_790_000_000_000;

struct Scene {
    registry: Registry,
    now_ms: u64,
    index: u64,
}

/// Runs a transcript and compares.
fn check(transcript: &str) {
    let mut scene = Scene {
        registry: Registry::new(),
        now_ms: NOW,
        index: 0,
    };
    let mut actual = String::new();
    let lines = transcript
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let expected: Vec<&str> = lines.collect();
    for line in &expected {
        if let Some(command) = line.strip_prefix("> ") {
            actual.push_str(&format!("> {command}\n{}\n", scene.run(command)));
        }
    }
    assert_eq!(actual.trim_end(), expected.join("\n"));
}

impl Scene {
    fn run(&mut self, line: &str) -> String {
        let (request, command) = match line.strip_prefix('#') {
            Some(rest) => {
                let (number, command) = rest.split_once(' ').unwrap();
                (
                    Some(self.request(number.parse().unwrap(), command)),
                    command,
                )
            }
            None => (None, line),
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["wait", ms] => {
                self.now_ms += ms.parse::<u64>().unwrap();
                "time passes".into()
            }
            ["nodes"] => self.nodes(),
            ["voters", group] => {
                let placement = self.registry.placement(of_group(group)).unwrap();
                names(placement.voters.iter())
            }
            ["observers"] => {
                let observers: Vec<ReplicaId> = self.registry.observers().collect();
                // The transcript has no empty lines.
                match observers[..] {
                    [] => "none".into(),
                    _ => names(observers.iter()),
                }
            }
            ["since", node] => {
                let record = self.registry.node(node.parse().unwrap()).unwrap();
                format!("{} replaceable={}", record.since, record.may_be_replaced)
            }
            ["incarnation"] => self.registry.incarnation().to_string(),
            _ => {
                let mut change = parse(&words);
                // Unless the transcript says otherwise, it was asked for just now, and the node
                // runs.
                let mut runs_on = None;
                if let Change::Join {
                    node,
                    replaces,
                    directory,
                    ..
                } = &mut change
                {
                    let known = self.registry.node(*node).and_then(|known| known.directory);
                    *replaces = replaces.or(known);
                    runs_on = (words[0] == "join").then_some(*directory);
                }
                let outcome = self.apply(request, change);
                let joined = runs_on.and_then(|directory| {
                    let mut nodes = self.registry.nodes();
                    let owner = nodes.find(|(_, node)| node.directory == Some(directory))?;
                    let node = owner.0;
                    Some(Change::Heard {
                        node,
                        directory,
                        newest_version: 1,
                    })
                });
                if let Some(heard) = joined.filter(|_| outcome.starts_with("joined")) {
                    self.apply(None, heard);
                }
                outcome
            }
        }
    }

    fn request(&self, number: u64, command: &str) -> Request {
        let bits = u128::from(self.now_ms) << 80 | 0x7 << 76 | u128::from(number);
        // The id is of the first minute, whenever it is sent: that is what a retry is.
        let bits = bits & !(u128::MAX << 80) | u128::from(NOW) << 80;
        Request {
            id: RequestId::new(bits.to_be_bytes()).unwrap(),
            fingerprint: Fingerprint::of(command.as_bytes()),
        }
    }

    fn apply(&mut self, request: Option<Request>, change: Change) -> String {
        self.index += 1;
        let at = At {
            index: self.index,
            ordinal: 0,
            moment: Stamp(self.now_ms).into(),
        };
        let command = RegistryCommand {
            principal: Principal::new("ops").unwrap(),
            request,
            change,
        };
        // The way of every command leads through the log.
        let encoded = codec::encode_command(&command);
        let decoded = codec::decode_command(&encoded).unwrap();
        assert_eq!(decoded, command);
        self.registry.advance(at.moment);
        let before = self.registry.freeze();
        let outcome = self.registry.apply(at, decoded);
        // And of every state through a checkpoint.
        let after = self.registry.freeze();
        let restored = Registry::restore(&after).unwrap();
        assert_eq!(restored, self.registry);
        match outcome {
            RegistryOutcome::Done => "done".into(),
            RegistryOutcome::Joined {
                node,
                generation_floor,
                ..
            } => format!("joined as {node}, floor {generation_floor}"),
            RegistryOutcome::Begun { number, add } => match add {
                Some(add) => format!("begun {number}, adds {add}"),
                None => format!("begun {number}"),
            },
            RegistryOutcome::Refused(refusal) => {
                assert_eq!(before, after, "a refusal changed something: {refusal}");
                match refusal {
                    stock_cluster::RegistryRefusal::Request(why) => {
                        let name = format!("{why:?}");
                        format!("no: {}", name.split(' ').next().unwrap())
                    }
                    other => format!("no: {other}"),
                }
            }
        }
    }

    fn nodes(&self) -> String {
        let nodes = self.registry.nodes().map(|(id, node)| {
            let state = match (node.state, node.directory) {
                (NodeState::Active, None) => "expected",
                (NodeState::Active, Some(_)) if !node.was_heard => "unheard",
                (NodeState::Active, Some(_)) => "active",
                (NodeState::Draining, _) => "draining",
                (NodeState::Removed, _) => "removed",
            };
            format!("{id} {state} {}", node.grpc)
        });
        nodes.collect::<Vec<_>>().join(", ")
    }
}

fn parse(words: &[&str]) -> Change {
    let number = |text: &str| text.parse::<u64>().unwrap();
    let grpc = |host: &str| format!("http://{host}:1");
    let peers = |host: &str| format!("{host}:2");
    let directory = |text: &str| Directory(text.trim_start_matches('d').parse().unwrap());
    match *words {
        ["found", replication, nodes, groups] => {
            let nodes: Vec<u64> = nodes.split(',').map(number).collect();
            let founders = nodes.iter().map(|node| Founder {
                node: *node,
                directory: Directory(u128::from(*node)),
                grpc: grpc(&format!("d{node}")),
                peers: peers(&format!("d{node}")),
            });
            let replication = replication.parse().unwrap();
            Change::Found {
                incarnation: 1,
                replication,
                nodes: founders.collect(),
                groups: founding_placement(groups.parse().unwrap(), &nodes, replication),
                version: 1,
            }
        }
        ["announce", node, host] => Change::Announce {
            node: number(node),
            grpc: grpc(host),
            peers: peers(host),
        },
        ["heard", node, dir] => Change::Heard {
            node: number(node),
            directory: directory(dir),
            newest_version: 1,
        },
        ["heard", node, dir, version] => Change::Heard {
            node: number(node),
            directory: directory(dir),
            newest_version: version.parse().unwrap(),
        },
        ["raise", version] => Change::RaiseVersion {
            version: version.parse().unwrap(),
        },
        ["replaceable", node] => Change::AllowReplacement { node: number(node) },
        ["reached", node, grpc, peers] => Change::UpdateAddresses {
            node: number(node),
            grpc: grpc.to_owned(),
            peers: peers.to_owned(),
        },
        ["join" | "ask", node, dir] => Change::Join {
            node: number(node),
            directory: directory(dir),
            replaces: None,
            grpc: grpc(dir),
            peers: peers(dir),
        },
        ["join", node, dir, "replaces", old] => Change::Join {
            node: number(node),
            directory: directory(dir),
            replaces: Some(directory(old)),
            grpc: grpc(dir),
            peers: peers(dir),
        },
        ["join", node, dir, host] => Change::Join {
            node: number(node),
            directory: directory(dir),
            replaces: None,
            grpc: grpc(host),
            peers: peers(host),
        },
        ["address", node, host] => Change::UpdateAddresses {
            node: number(node),
            grpc: grpc(host),
            peers: peers(host),
        },
        ["drain", node] => Change::Drain { node: number(node) },
        ["undrain", node] => Change::Undrain { node: number(node) },
        ["remove", node] => Change::Remove { node: number(node) },
        ["replication", replicas] => Change::SetReplication {
            replicas: replicas.parse().unwrap(),
        },
        ["move", group, from, to] => Change::MoveReplica {
            group: of_group(group),
            from: number(from),
            to: number(to),
        },
        ["rebuild", group, node] => Change::RebuildReplica {
            group: of_group(group),
            node: number(node),
        },
        ["failed", group, replica] => Change::ReportFailedReplica {
            group: of_group(group),
            replica: of_replica(replica),
            reason: "it differs".into(),
        },
        ["prefer", group, node] => Change::PreferLeader {
            group: of_group(group),
            node: Some(number(node)).filter(|node| *node != 0),
        },
        ["begin", group, add, remove] => Change::Begin(BeginMove {
            group: of_group(group),
            add: add.strip_prefix('+').map(number),
            remove: remove
                .strip_prefix('-')
                .filter(|r| !r.is_empty())
                .map(of_replica),
            why: Why::Asked,
        }),
        ["end", group, move_number, term, voters] => Change::End(EndMove {
            group: of_group(group),
            number: number(move_number),
            term: number(term),
            voters: voters.split(',').map(of_replica).collect(),
        }),
        ["correct", group, term, voters] => Change::Correct {
            group: of_group(group),
            term: number(term),
            voters: voters.split(',').map(of_replica).collect(),
        },
        ["park", group, move_number] => Change::Park {
            group: of_group(group),
            number: number(move_number),
            parked: true,
        },
        ["resume", group, move_number] => Change::Park {
            group: of_group(group),
            number: number(move_number),
            parked: false,
        },
        ["recover", nodes, groups, next_generation] => Change::Recover(Recover {
            incarnation: 77,
            nodes: nodes.split(',').map(number).collect(),
            groups: groups
                .split(',')
                .map(|survivor| {
                    let (group, rest) = survivor.split_once('=').unwrap();
                    let (replica, term) = rest.split_once('@').unwrap();
                    Survivor {
                        group: of_group(group),
                        replica: of_replica(replica),
                        term: number(term),
                    }
                })
                .collect(),
            next_generation: next_generation.parse().unwrap(),
        }),
        _ => panic!("{words:?}"),
    }
}

fn of_group(text: &str) -> GroupId {
    GroupId(text.parse().unwrap())
}

fn of_replica(text: &str) -> ReplicaId {
    let (node, generation) = text.split_once('.').unwrap_or((text, "0"));
    ReplicaId::new(generation.parse().unwrap(), node.parse().unwrap())
}

fn names<'a>(replicas: impl Iterator<Item = &'a ReplicaId>) -> String {
    let names: Vec<String> = replicas.map(ToString::to_string).collect();
    names.join(" ")
}

#[test]
fn a_cluster_is_founded_once() {
    check(
        "
        > drain 1
        no: the cluster is not founded yet
        > found 2 1,2 1
        no: a group has 1, 3, 5 or 7 replicas, not 2
        > found 3 1,1 1
        no: the founding list names a node twice
        > found 3 1,2,3 2
        done
        > found 3 1,2,3 2
        no: the cluster was founded before
        > nodes
        1 active http://d1:1, 2 active http://d2:1, 3 active http://d3:1
        > voters 1
        1 2 3
        ",
    );
}

#[test]
fn a_join_may_be_said_twice_and_an_emptied_disk_is_another_replica() {
    check(
        "
        > found 3 1,2,3 2
        done
        > join 0 d9
        joined as 4, floor 1
        > join 0 d9
        joined as 4, floor 1
        > join 4 d9 moved
        joined as 4, floor 1
        > join 7 d70
        joined as 7, floor 2
        > begin 1 +4 -3
        begun 1, adds 4.3
        > join 2 d20
        joined as 2, floor 4
        > join 2 d20
        joined as 2, floor 4
        > join 5 d1
        no: data directory 00000000000000000000000000000001 belongs to node 1
        > join 5 d50 d3
        no: http://d3:1 is the address of node 3
        > nodes
        1 active http://d1:1, 2 active http://d20:1, 3 active http://d3:1, 4 active \
        http://moved:1, \
         7 active http://d70:1
        > join 4294967296 d51
        no: 4294967296 is no node id: they go from 1 to 4294967295
        ",
    );
}

#[test]
fn a_join_that_another_one_overtook_does_not_bring_a_lost_disk_back() {
    check(
        "
        > found 3 1,2,3 1
        done
        > join 2 d21 replaces d2
        joined as 2, floor 1
        > join 2 d20 replaces d2
        no: node 2 has joined with another data directory meanwhile: ask again
        > join 2 d21 replaces d2
        joined as 2, floor 1
        > join 2 d22 replaces d21
        joined as 2, floor 1
        ",
    );
}

#[test]
fn of_two_directories_of_a_node_the_one_that_was_let_in_last_is_known_by_its_entry() {
    check(
        "
        > found 3 1,2,3 1
        done
        > since 3
        0 replaceable=false
        > replaceable 3
        done
        > since 3
        0 replaceable=true
        > ask 3 d30
        joined as 3, floor 1
        > since 3
        3 replaceable=false
        > ask 3 d30
        joined as 3, floor 1
        > since 3
        3 replaceable=false
        > heard 3 d3
        no: node 3 does not run on data directory 00000000000000000000000000000003 any more
        > heard 3 d30
        done
        > replaceable 9
        no: there is no node 9
        ",
    );
}

#[test]
fn a_node_that_never_reported_counts_for_nothing() {
    check(
        "
        > found 3 1,2,3 1
        done
        > ask 0 d40
        joined as 4, floor 1
        > nodes
        1 active http://d1:1, 2 active http://d2:1, 3 active http://d3:1, 4 unheard http://d40:1
        > drain 3
        no: without node 3 there would be 2 active nodes, and every group should have 3 replicas: \
        add a node first
        > observers
        none
        > begin 0 +4 -3
        no: node 4 is not active: it takes no replicas and leads nothing
        > heard 4 d40
        done
        > observers
        4.1
        > drain 3
        done
        > ask 0 d50
        joined as 5, floor 2
        > drain 5
        done
        > remove 5
        done
        ",
    );
}

#[test]
fn no_address_leads_nowhere_or_to_another_node() {
    check(
        "
        > found 3 1,2,3 1
        done
        > reached 2 http://127.0.0.1:7402 127.0.0.1:7422
        done
        > reached 3 http://localhost:7402 n3:7423
        no: http://localhost:7402 is the address of node 2
        > reached 3 http://n3:7403 [::1]:7422
        no: [::1]:7422 is the address of node 2
        > reached 3 http://0.0.0.0:7403 n3:7423
        no: http://0.0.0.0:7403 is an address to listen on, and leads nowhere: say where others \
        reach the node
        > reached 3 http://n3:7403 [::]:7423
        no: [::]:7423 is an address to listen on, and leads nowhere: say where others reach the node
        > reached 3 http://N2:7402 n3:7423
        done
        ",
    );
}

#[test]
fn an_announced_node_holds_nothing_before_it_joins() {
    check(
        "
        > found 3 1,2,3 1
        done
        > announce 0 d4
        joined as 4, floor 1
        > announce 4 d5
        no: node 4 is in the cluster already
        > begin 0 +4 -1
        no: node 4 is not active: it takes no replicas and leads nothing
        > drain 1
        no: without node 1 there would be 2 active nodes, and every group should have 3 replicas: \
         add a node first
        > join 4 d4
        joined as 4, floor 1
        > drain 1
        done
        > announce 0 d6
        joined as 5, floor 2
        > drain 5
        done
        > remove 5
        done
        ",
    );
}

#[test]
fn a_node_leaves_when_it_is_empty_and_never_comes_back() {
    check(
        "
        > found 3 1,2,3 1
        done
        > join 0 d4
        joined as 4, floor 1
        > remove 3
        no: node 3 is not draining: drain it first, and wait until it is empty
        > drain 3
        done
        > drain 3
        done
        > remove 3
        no: node 3 holds 1 replicas still: wait until it is empty
        > drain 2
        no: without node 2 there would be 2 active nodes, and every group should have 3 replicas: \
         add a node first
        > begin 0 +4 -3
        begun 1, adds 4.2
        > end 0 1 5 1,2,4.2
        done
        > voters 0
        1 2 4.2
        > remove 3
        done
        > remove 3
        done
        > undrain 3
        no: node 3 was removed from the cluster, and its id and data are never used again: empty \
        the \
         data directory and join under another id
        > join 3 d30
        no: node 3 was removed from the cluster, and its id and data are never used again: empty \
        the \
         data directory and join under another id
        > join 0 d3
        no: node 3 was removed from the cluster, and its id and data are never used again: empty \
        the \
         data directory and join under another id
        > join 0 d31 d3
        joined as 5, floor 4
        ",
    );
}

#[test]
fn what_is_left_of_a_cluster_is_a_smaller_one_that_may_grow_again() {
    check(
        "
        > recover 1 0=1@9 1
        no: the cluster is not founded yet
        > found 3 1,2,3,4,5 3
        done
        > begin 1 +5 -2
        begun 1, adds 5.3
        > incarnation
        1
        > recover 1,9 0=1@9 1
        no: there is no node 9
        > recover 1,4 0=1@9,7=4@3 1
        no: there is no shard 6
        > recover 1,4 0=1@9,2=4@3 40
        done
        > incarnation
        77
        > nodes
        1 active http://d1:1, 2 expected http://d2:1, 3 expected http://d3:1, 4 active \
        http://d4:1, \
         5 expected http://d5:1
        > voters 0
        1
        > voters 1
        2 3 4
        > voters 2
        4
        > observers
        4.40
        > join 2 d2
        joined as 2, floor 40
        > join 0 d60
        joined as 6, floor 42
        > begin 2 +6 -
        no: as many replicas are being moved as may be at once, 1
        > park 1 1
        done
        > begin 2 +6 -
        begun 2, adds 6.43
        ",
    );
}

#[test]
fn a_joined_node_without_a_voter_of_group_0_observes_it() {
    check(
        "
        > found 3 1,2,3 2
        done
        > observers
        none
        > announce 4 d4
        joined as 4, floor 1
        > observers
        none
        > join 4 d4
        joined as 4, floor 1
        > join 4 d4
        joined as 4, floor 1
        > observers
        4.1
        > join 0 d5
        joined as 5, floor 2
        > observers
        4.1 5.2
        > begin 1 +5 -3
        begun 1, adds 5.3
        > end 1 1 5 1,2,5.3
        done
        > observers
        4.1 5.2
        ",
    );
}

#[test]
fn voters_that_differ_are_put_right_as_the_group_says() {
    check(
        "
        > found 3 1,2,3,4 1
        done
        > begin 0 +4 -3
        begun 1, adds 4.2
        > correct 0 5 1,2,4.2
        no: a replica of the meta group is being moved: wait until it is done
        > end 0 1 5 1,2,3
        done
        > voters 0
        1 2 3
        > correct 0 4 1,2,4.2
        no: the voters of the meta group cannot be what was said
        > correct 0 5 1,2,9.2
        no: the voters of the meta group cannot be what was said
        > correct 0 5 1,2,4.9
        no: the voters of the meta group cannot be what was said
        > correct 0 5 1,2,4.2
        done
        > voters 0
        1 2 4.2
        > observers
        3.4
        ",
    );
}

#[test]
fn a_node_stops_observing_when_a_voter_comes_to_it() {
    check(
        "
        > found 3 1,2,3,4 1
        done
        > observers
        4.1
        > begin 0 +4 -3
        begun 1, adds 4.2
        > observers
        none
        > end 0 1 5 1,2,3
        done
        > observers
        4.3
        > begin 0 +4 -3
        begun 2, adds 4.4
        > end 0 2 5 1,2,4.4
        done
        > observers
        3.5
        ",
    );
}

#[test]
fn an_observer_goes_with_its_node_its_disk_or_its_failure() {
    check(
        "
        > found 3 1,2,3,4,5 1
        done
        > observers
        4.1 5.2
        > join 4 d40
        joined as 4, floor 3
        > observers
        4.3 5.2
        > failed 0 4.1
        no: the meta group has no replica 4.1
        > failed 0 4.3
        done
        > observers
        4.4 5.2
        > failed 1 5.2
        no: there is no shard 0
        > drain 5
        done
        > observers
        4.4 5.2
        > remove 5
        done
        > observers
        4.4
        ",
    );
}

#[test]
fn an_observer_is_kept_until_another_takes_its_place() {
    let mut scene = Scene {
        registry: Registry::new(),
        now_ms: NOW,
        index: 0,
    };
    let (first, second) = (ReplicaId::new(1, 4), ReplicaId::new(2, 4));
    scene.run("found 3 1,2,3,4 2");
    assert!(!scene.registry.is_retired(GroupId::META, first));
    assert!(scene.registry.is_retired(GroupId(1), first));
    scene.run("join 4 d40");
    assert!(scene.registry.is_retired(GroupId::META, first));
    assert!(!scene.registry.is_retired(GroupId::META, second));
}

#[test]
fn one_move_at_a_time_and_no_replica_id_twice() {
    check(
        "
        > found 3 1,2,3,4,5 2
        done
        > voters 0
        1 2 3
        > voters 1
        2 3 4
        > begin 0 +2 -1
        no: node 2 holds a replica of the meta group already
        > begin 0 +4 -5
        no: the meta group has no replica 5
        > begin 0 . .
        no: a move of the meta group would change nothing, or leave no voter
        > begin 0 +4 -1
        begun 1, adds 4.3
        > begin 0 +5 -2
        no: a replica of the meta group is being moved: wait until it is done
        > begin 1 +1 -2
        no: as many replicas are being moved as may be at once, 1
        > end 0 2 5 2,3,4.3
        no: there is no move 2 of the meta group
        > end 0 1 5 2,3,4.1
        no: the voters of the meta group cannot be what was said
        > end 0 1 5 2,3,5.3
        no: the voters of the meta group cannot be what was said
        > end 0 1 5 3,4.3
        no: the voters of the meta group cannot be what was said
        > end 0 1 5 1,2,3
        done
        > begin 0 +4 -1
        begun 2, adds 4.5
        > end 0 2 4 2,3,4.5
        no: the voters of the meta group cannot be what was said
        > end 0 2 6 2,3,4.5
        done
        > begin 1 +2 -2
        begun 3, adds 2.7
        ",
    );
}

#[test]
fn a_parked_move_makes_room_for_another() {
    check(
        "
        > found 3 1,2,3,4,5 2
        done
        > begin 0 +4 -1
        begun 1, adds 4.3
        > park 0 1
        done
        > begin 1 +1 -2
        begun 2, adds 1.4
        > resume 0 1
        no: as many replicas are being moved as may be at once, 1
        > end 1 2 3 1.4,3,4
        done
        > resume 0 1
        done
        > begin 1 +2 -3
        no: as many replicas are being moved as may be at once, 1
        ",
    );
}

#[test]
fn what_operators_wish_is_checked_and_forgotten_when_it_cannot_be() {
    check(
        "
        > found 3 1,2,3,4,5 2
        done
        > move 0 4 5
        no: node 4 holds no replica of the meta group
        > move 0 1 3
        no: node 3 holds a replica of the meta group already
        > move 9 1 4
        no: there is no shard 8
        > move 0 1 4
        done
        > prefer 0 5
        no: node 5 holds no replica of the meta group
        > prefer 0 3
        done
        > rebuild 1 1
        no: node 1 holds no replica of shard 0
        > rebuild 1 2
        done
        > failed 1 2.8
        no: shard 0 has no replica 2.8
        > failed 0 1
        done
        > replication 4
        no: a group has 1, 3, 5 or 7 replicas, not 4
        > replication 5
        done
        > drain 4
        no: without node 4 there would be 4 active nodes, and every group should have 5 replicas: \
         add a node first
        ",
    );
    let mut scene = Scene {
        registry: Registry::new(),
        now_ms: NOW,
        index: 0,
    };
    let run = |scene: &mut Scene, lines: &[&str]| {
        for line in lines {
            let outcome = scene.run(line);
            assert!(!outcome.starts_with("no"), "{line}: {outcome}");
        }
    };
    let meta = GroupId::META;
    run(
        &mut scene,
        &[
            "found 3 1,2,3,4,5 2",
            "move 0 1 4",
            "prefer 0 1",
            "failed 0 1",
        ],
    );
    assert!(scene.registry.wish(meta).is_some());
    assert_eq!(scene.registry.preferred_leader(meta), Some(1));
    assert_eq!(
        scene.registry.failure(meta, ReplicaId::founding(1)),
        Some("it differs")
    );
    // Its replica went elsewhere: nothing of this can be any more.
    run(&mut scene, &["begin 0 +5 -1", "end 0 1 2 2,3,5.3"]);
    assert_eq!(scene.registry.wish(meta), None);
    assert_eq!(scene.registry.preferred_leader(meta), None);
    assert_eq!(scene.registry.failure(meta, ReplicaId::founding(1)), None);
    assert!(scene.registry.is_retired(meta, ReplicaId::founding(1)));
    assert!(!scene.registry.is_retired(meta, ReplicaId::new(3, 5)));
    run(&mut scene, &["move 0 2 4", "drain 4"]);
    assert_eq!(
        scene.registry.wish(meta),
        None,
        "a draining node takes nothing"
    );
}

#[test]
fn a_retry_gets_the_first_answer_and_changes_nothing() {
    check(
        "
        > found 3 1,2,3,4 1
        done
        > #1 announce 0 d5
        joined as 5, floor 2
        > #1 announce 0 d5
        joined as 5, floor 2
        > #2 drain 4
        done
        > undrain 4
        done
        > #2 drain 4
        done
        > nodes
        1 active http://d1:1, 2 active http://d2:1, 3 active http://d3:1, 4 active http://d4:1, \
         5 expected http://d5:1
        > #2 drain 3
        no: RequestReused
        > #3 remove 4
        no: node 4 is not draining: drain it first, and wait until it is empty
        > drain 4
        done
        > #3 remove 4
        done
        > wait 600001
        time passes
        > #2 drain 4
        no: RequestTooOld
        ",
    );
}

#[test]
fn damaged_bytes_do_not_restore() {
    let mut scene = Scene {
        registry: Registry::new(),
        now_ms: NOW,
        index: 0,
    };
    scene.run("found 3 1,2,3 2");
    let bytes = scene.registry.freeze();
    assert!(Registry::restore(&bytes[..bytes.len() - 3]).is_err());
    // The same field once more: protobuf takes the last, a canonical reader neither.
    let twice = [&bytes[..], &[0x08, 0x03]].concat();
    let error = Registry::restore(&twice).unwrap_err().to_string();
    assert_eq!(error, "the registry's bytes are not canonical");
}

#[test]
fn the_version_is_raised_by_one_once_every_node_speaks_the_next() {
    check(
        "
        > raise 2
        no: the cluster is not founded yet
        > found 3 1,2,3 2
        done
        > raise 1
        done
        > raise 2
        no: node 1 speaks version 1 at most: before the cluster speaks version 2, every node must: \
         upgrade it, or drain and remove it
        > heard 1 d1 2
        done
        > heard 2 d2 3
        done
        > heard 3 d30 2
        no: node 3 does not run on data directory 0000000000000000000000000000001e any more
        > raise 2
        no: node 3 speaks version 1 at most: before the cluster speaks version 2, every node must: \
         upgrade it, or drain and remove it
        > heard 3 d3 3
        done
        > raise 3
        no: the cluster speaks version 1: the next is 2, not 3
        > ask 4 d4
        joined as 4, floor 1
        > raise 2
        no: node 4 has not said which versions it speaks: before the cluster speaks version 2, \
         every node must: upgrade it, or drain and remove it
        > heard 4 d4 2
        done
        > announce 5 d5
        joined as 5, floor 2
        > #1 raise 2
        done
        > #1 raise 2
        done
        > raise 3
        no: node 1 speaks version 2 at most: before the cluster speaks version 3, every node must: \
         upgrade it, or drain and remove it
        > heard 1 d1 1
        done
        > raise 1
        no: the cluster speaks version 2: the next is 3, not 1
        > remove 5
        no: node 5 is not draining: drain it first, and wait until it is empty
        ",
    );
}
