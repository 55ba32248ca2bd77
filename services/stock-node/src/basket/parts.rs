//! What shards are told of a basket, and what they say of their parts of it.

use std::sync::{Arc, LazyLock};

use stock_core::{
    Action, BasketCommand, BasketOutcome, Command, Decision, InTheWay, Location, NotHeld, Outcome,
    Prepared, Principal, Refusal, ShortLine, Shortage, Sku,
};

use crate::answer::Failure;

/// Who tells and asks shards where nobody else does.
pub(super) static ITSELF: LazyLock<Principal> =
    LazyLock::new(|| Principal::new("stockd").unwrap_or_else(|_| unreachable!("a good name")));

/// A command for a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToShard {
    /// Its number.
    pub shard: u32,
    /// What it is told.
    pub command: Command,
}

impl ToShard {
    pub(super) fn new(shard: u32, principal: &Principal, command: BasketCommand) -> Self {
        let command = Command {
            principal: principal.clone(),
            action: Action::Basket(command),
        };
        Self { shard, command }
    }
}

/// What a shard said, or why it said nothing.
pub type Said = Result<Outcome, Failure>;

/// What the participants of something that is prepared have said of their parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) said: Vec<(u32, Option<Part>)>,
}

/// What a participant has said of its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Held,
    /// It will never be held.
    NotHeld(NotHeld),
    /// Home has decided.
    Over,
    /// Others are in its way that may come to nothing: it is asked for once more.
    NotYet(Arc<Shortage>),
    /// It was not held now, and may be later.
    Refused(Refusal),
    Failed(Failure),
}

impl Parts {
    pub(super) fn of(shards: &[u32]) -> Self {
        Self {
            said: shards.iter().map(|shard| (*shard, None)).collect(),
        }
    }

    pub(super) fn take(&mut self, shard: u32, said: Said) {
        let part = match said {
            Ok(Outcome::Basket(BasketOutcome::Held)) => Part::Held,
            Ok(Outcome::Basket(BasketOutcome::NotHeld(why))) => Part::NotHeld(why),
            Ok(Outcome::Basket(BasketOutcome::Over)) => Part::Over,
            Ok(Outcome::Shortage(shortage)) => Part::NotYet(shortage),
            Ok(Outcome::Refused(refusal)) => Part::Refused(refusal),
            Ok(_) => Part::Failed(Failure::OutcomeUnknown),
            Err(failure) => Part::Failed(failure),
        };
        if let Some((_, slot)) = self.said.iter_mut().find(|(of, _)| *of == shard) {
            *slot = Some(part);
        }
    }

    pub(super) fn are_complete(&self) -> bool {
        self.said.iter().all(|(_, part)| part.is_some())
    }

    /// Everybody has said what he will say at any time.
    pub(super) fn are_certain(&self) -> bool {
        let is_open = |part: &Part| matches!(part, Part::Failed(_) | Part::Refused(_));
        self.are_complete() && !self.parts().any(|(_, part)| is_open(part))
    }

    pub(super) fn unanswered(&self) -> impl Iterator<Item = u32> {
        let unanswered = self.said.iter().filter(|(_, part)| part.is_none());
        unanswered.map(|(shard, _)| *shard)
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = (u32, &Part)> {
        let said = self.said.iter();
        said.filter_map(|(shard, part)| Some((*shard, part.as_ref()?)))
    }

    pub(super) fn are_held(&self) -> bool {
        let held = self.parts().filter(|(_, part)| **part == Part::Held);
        held.count() == self.said.len()
    }

    pub(super) fn is_over(&self) -> bool {
        self.parts().any(|(_, part)| *part == Part::Over)
    }

    /// The shards whose part may be held.
    pub(super) fn maybe_held(&self) -> impl Iterator<Item = u32> {
        let is_not = |part: &Part| matches!(part, Part::NotHeld(_) | Part::Over);
        let said = self.said.iter();
        let said = said.filter(move |(_, part)| !part.as_ref().is_some_and(is_not));
        said.map(|(shard, _)| *shard)
    }

    /// Why the basket is not held, if that is certain: what is short, in the order of its lines; or
    /// else what any participant says.
    pub(super) fn why_not(&self, prepared: &Prepared) -> Option<NotHeld> {
        let why = |(_, part): (u32, &Part)| match part {
            Part::NotHeld(why) => Some(why.clone()),
            _ => None,
        };
        let whys: Vec<NotHeld> = self.parts().filter_map(why).collect();
        // Where somebody is short for good, it is also said who is short for now.
        let shorts = self.parts().filter_map(|(_, part)| match part {
            Part::NotHeld(NotHeld::Short(shortage)) => Some(&**shortage),
            Part::NotYet(shortage) if !whys.is_empty() => Some(&**shortage),
            _ => None,
        });
        let refused = whys.iter().find(|why| matches!(why, NotHeld::Refused(_)));
        let lines = prepared.reservation.lines.iter();
        let order = lines.map(|line| (&line.sku, &line.location));
        match (refused, in_order(shorts, order)) {
            (Some(refused), _) => Some(refused.clone()),
            (None, Some(shortage)) => Some(NotHeld::Short(Arc::new(shortage))),
            (None, None) => whys.into_iter().next(),
        }
    }

    /// What home decides by this. What is short is certain as soon as a participant says so; that
    /// a part came too late, only when nobody can say any more that something is short: whoever
    /// asked may have been told that, and every retry is told the same.
    pub(super) fn decision(&self, prepared: &Prepared) -> Option<Decision> {
        match self.why_not(prepared) {
            Some(NotHeld::Gone) if !self.are_certain() => None,
            Some(why) => Some(Decision::NotHeld(why)),
            None => self.are_held().then_some(Decision::Held),
        }
    }

    /// Somebody will never hold his part.
    pub(super) fn is_any_refused(&self) -> bool {
        self.parts()
            .any(|(_, part)| matches!(part, Part::NotHeld(_)))
    }

    /// Those who are to be asked once more, unless somebody else says no for good.
    pub(super) fn not_yet(&self) -> Vec<u32> {
        if self.is_any_refused() {
            return Vec::new();
        }
        let not_yet = self.parts();
        let not_yet = not_yet.filter(|(_, part)| matches!(part, Part::NotYet(_)));
        not_yet.map(|(shard, _)| shard).collect()
    }

    /// What is in the way of those.
    pub(super) fn not_yet_for(&self) -> InTheWay {
        let not_yet = self.parts().filter_map(|(_, part)| match part {
            Part::NotYet(shortage) => Some(shortage.in_the_way),
            _ => None,
        });
        not_yet.min().unwrap_or(InTheWay::Later)
    }

    /// Those who hold their part are asked once more.
    pub(super) fn forget_held(&mut self) {
        for (_, said) in &mut self.said {
            said.take_if(|part| *part == Part::Held);
        }
    }

    /// What these have said does not count.
    pub(super) fn forget(&mut self, shards: &[u32]) {
        for (_, said) in self
            .said
            .iter_mut()
            .filter(|(shard, _)| shards.contains(shard))
        {
            *said = None;
        }
    }

    /// The first failure, if there is one.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.parts().find_map(|(_, part)| match part {
            Part::Failed(failure) => Some(*failure),
            _ => None,
        })
    }
}

/// Shortages of several shards as one, in the order of the basket's positions.
pub(super) fn in_order<'a>(
    shortages: impl Iterator<Item = &'a Shortage>,
    order: impl Iterator<Item = (&'a Sku, &'a Location)>,
) -> Option<Shortage> {
    let (mut lines, mut in_the_way): (Vec<&ShortLine>, InTheWay) = (Vec::new(), InTheWay::Later);
    for shortage in shortages {
        lines.extend(&shortage.lines);
        in_the_way = in_the_way.min(shortage.in_the_way);
    }
    let mut short = Vec::new();
    for (sku, location) in order {
        // A basket may name a position twice, and so may home and the shard itself.
        let here = |it: &ShortLine| it.sku == *sku && it.location == *location;
        if !short.iter().any(here)
            && let Some(line) = lines.iter().find(|it| here(it))
        {
            short.push(ShortLine::clone(line));
        }
    }
    (!short.is_empty()).then_some(Shortage {
        lines: short,
        in_the_way,
    })
}
