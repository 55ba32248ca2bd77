//! Who is in: a bound on all connections of a listener, and on those of one address.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// One address may take so much of a listener's room: one part in four. Three others always find a
/// place.
const PARTS: usize = 4;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Room {
    places: usize,
    places_of_address: usize,
    state: Mutex<State>,
    /// A place was given back.
    pub(super) freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    next: u64,
    by_address: HashMap<IpAddr, OfAddress>,
    /// Who has not introduced himself yet, oldest first.
    strangers: BTreeMap<u64, IpAddr>,
}

#[derive(Debug, Default)]
struct OfAddress {
    taken: usize,
    strangers: BTreeMap<u64, Arc<Seat>>,
}

/// What a connection and the room both know of it.
#[derive(Debug, Default)]
struct Seat {
    leave: Notify,
    is_introduced: AtomicBool,
    /// Whoever he is.
    must_leave: AtomicBool,
}

/// There is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// Whether somebody was asked to leave for it, so that there is one soon.
    pub(super) has_asked: bool,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub struct Guest {
    room: Arc<Room>,
    address: IpAddr,
    number: u64,
    seat: Arc<Seat>,
}

impl Room {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            places,
            places_of_address: places.div_ceil(PARTS),
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Takes a place. Where there is none, whoever has been there for longest without introducing
    /// himself is asked to leave: where the address has no more places, one of that address.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Result<Guest, Full> {
        let address = network(from);
        let mut state = self.state();
        let is_full = state.taken >= self.places;
        let of_address = state.by_address.get(&address);
        let is_address_full = of_address.is_some_and(|of| of.taken >= self.places_of_address);
        if is_full || is_address_full {
            let whose = match is_address_full {
                true => Some(address),
                false => state.strangers.values().next().copied(),
            };
            let asked = whose.and_then(|address| {
                let of_address = state.by_address.get_mut(&address)?;
                of_address.strangers.pop_first()
            });
            let has_asked = asked.is_some();
            if let Some((number, seat)) = asked {
                state.strangers.remove(&number);
                seat.leave.notify_one();
            }
            return Err(Full { has_asked });
        }
        let seat = Arc::new(Seat::default());
        let number = state.next;
        state.next += 1;
        state.taken += 1;
        state.strangers.insert(number, address);
        let of_address = state.by_address.entry(address).or_default();
        of_address.taken += 1;
        of_address.strangers.insert(number, Arc::clone(&seat));
        Ok(Guest {
            room: Arc::clone(self),
            address,
            number,
            seat,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_no_stranger(&mut self, number: u64, address: IpAddr) {
        self.strangers.remove(&number);
        if let Some(of_address) = self.by_address.get_mut(&address) {
            of_address.strangers.remove(&number);
        }
    }
}

impl Guest {
    /// It has said what it is: from now on nobody else gets its place.
    pub fn introduced(&self) {
        if !self.seat.is_introduced.swap(true, Ordering::Relaxed) {
            let mut state = self.room.state();
            state.is_no_stranger(self.number, self.address);
        }
    }

    /// Whether it has.
    pub fn is_introduced(&self) -> bool {
        self.seat.is_introduced.load(Ordering::Relaxed)
    }

    /// Has whoever serves the connection end it.
    pub fn ask_to_leave(&self) {
        self.seat.must_leave.store(true, Ordering::Relaxed);
        self.seat.leave.notify_one();
    }

    /// Returns once the connection is to be ended. Who was asked as a stranger, and has introduced
    /// himself before he could go, stays: somebody else is asked.
    pub async fn asked_to_leave(&self) {
        loop {
            self.seat.leave.notified().await;
            if self.seat.must_leave.load(Ordering::Relaxed) || !self.is_introduced() {
                return;
            }
            self.room.freed.notify_one();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.room.state();
        state.is_no_stranger(self.number, self.address);
        state.taken -= 1;
        if let Some(of_address) = state.by_address.get_mut(&self.address) {
            of_address.taken -= 1;
            if of_address.taken == 0 {
                state.by_address.remove(&self.address);
            }
        }
        drop(state);
        self.room.freed.notify_one();
    }
}

/// Whose connections count together: of IPv6 a whole network of 64 bits, which is what one host may
/// have.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn an_address_has_a_part_and_all_have_the_whole() {
        let room = Room::new(8);
        let enter = |last| {
            let guest = room.enter(address(last))?;
            guest.introduced();
            Ok::<_, Full>(guest)
        };
        let full = Full { has_asked: false };
        let of_one = [enter(1).unwrap(), enter(1).unwrap()];
        assert_eq!(enter(1).unwrap_err(), full);
        let others: Vec<Guest> = [2, 2, 3, 3, 4, 4].map(|of| enter(of).unwrap()).into();
        assert_eq!(enter(5).unwrap_err(), full);
        drop(of_one);
        assert_eq!(others.len(), 6);
        assert!(enter(5).is_ok());
    }

    #[tokio::test]
    async fn a_stranger_leaves_for_who_comes_after_him() {
        let room = Room::new(4);
        let known = room.enter(address(1)).unwrap();
        known.introduced();
        assert_eq!(
            room.enter(address(1)).unwrap_err(),
            Full { has_asked: false }
        );
        let first = room.enter(address(2)).unwrap();
        let others = [
            room.enter(address(3)).unwrap(),
            room.enter(address(4)).unwrap(),
        ];
        assert_eq!(
            room.enter(address(5)).unwrap_err(),
            Full { has_asked: true }
        );
        first.asked_to_leave().await;
        drop(first);
        assert!(room.enter(address(5)).is_ok());
        drop(others);
    }

    #[tokio::test]
    async fn a_stranger_who_says_what_he_is_before_he_could_go_stays() {
        let room = Room::new(4);
        let strangers = [1, 2, 3, 4].map(|of| room.enter(address(of)).unwrap());
        let asked = Full { has_asked: true };
        assert_eq!(room.enter(address(5)).unwrap_err(), asked);
        let [first, second, ..] = &strangers;
        first.introduced();
        tokio::select! {
            biased;
            () = first.asked_to_leave() => panic!("it is no stranger any more"),
            // And so another one is asked.
            () = room.freed.notified() => {}
        }
        assert_eq!(room.enter(address(5)).unwrap_err(), asked);
        second.asked_to_leave().await;
        first.ask_to_leave();
        first.asked_to_leave().await;
    }

    #[test]
    fn what_one_host_may_have_counts_as_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
