//! Pulses that nodes tell each other of, their own and those that they have heard. See
//! `docs/identity.md`.

use stock_cluster::identity::Known;

use super::Worker;
use crate::event::Effect;
use crate::notice::{Notice, PulseNotice};

impl<R> Worker<R> {
    /// Tells everybody of this directory's pulse and of those that were heard, where they have gone
    /// on.
    pub(super) fn tell_pulses(&self, effects: &mut Vec<Effect<R>>) {
        let untold = self.cluster.acquaintances(|known| known.take_untold());
        let Some((beats, memory)) = untold else {
            return;
        };
        let own = Known {
            directory: self.parts.directory,
            since: self.parts.since,
            beats,
        };
        effects.push(Effect::Notify {
            to: None,
            notice: Notice::Pulse(Box::new(PulseNotice { own, memory })),
        });
    }

    /// Another node tells of pulses. Whoever is connected and turns out not to be the one has to
    /// introduce itself anew.
    pub(super) fn hear_pulses(&self, from: u64, told: PulseNotice, effects: &mut Vec<Effect<R>>) {
        let overtaken = self.cluster.acquaintances(|known| {
            if let Some(latest) = told.own.beats.latest() {
                known.heard(from, told.own.directory, told.own.since, latest);
            }
            known.passed_on(self.parts.node, told.memory.into_iter());
            known.overtaken()
        });
        let overtaken = overtaken.into_iter();
        effects.extend(overtaken.map(|node| Effect::Disconnect { node }));
    }
}
