//! What a shard has set aside for a reservation, whether it is its home or not.

use crate::apply::holds::Hold;
use crate::home::own_lines;
use crate::ids::{Location, ReservationId};
use crate::shard::Shard;
use crate::sku::Sku;

impl Shard {
    /// What is set aside here for a reservation: of what is at home here the lines of this shard,
    /// with what is held for an amendment meanwhile; of others the part.
    pub fn set_aside(
        &self,
        id: &ReservationId,
    ) -> impl Iterator<Item = (&Sku, &Location, i64)> + use<'_> {
        let hold = self.holds.hold(id);
        let is_own = own_lines(id, self.holds.shards_of(id));
        let lines = hold.into_iter().flat_map(|hold| &hold.reservation.lines);
        let own = lines.filter(move |line| is_own(&line.sku));
        let undecided = hold.and_then(|hold| hold.spread()?.undecided.as_ref());
        let amendment = undecided.and_then(|undecided| undecided.amendment.as_ref());
        let extras = amendment.into_iter().flat_map(|it| &it.extras);
        let part = self.parts.part(id);
        let part = part.into_iter().flat_map(|part| &part.lines);
        let all = own.chain(extras).chain(part).filter(|line| line.open > 0);
        all.map(|line| (&line.sku, &line.location, line.open))
    }

    /// Whether a reservation that is at home here has ended, and nobody has to be told of it.
    pub fn is_over(&self, id: &ReservationId) -> bool {
        self.holds.hold(id).is_some_and(Hold::is_over)
    }
}
