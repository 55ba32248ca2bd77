//! Has a basket over several shards held, or amended: one round where nothing is in its way.
//!
//! It has no state that anybody needs after a crash. Whoever repeats the request, at any node, is
//! told by home what is prepared already, and goes on from there.

use std::sync::Arc;

use stock_core::limits::VERSIONS_PER_RECOVERY;
use stock_core::{
    Action, BasketCommand, Command, Decide, Decision, Follow, HoldPart, InTheWay, Line, NotHeld,
    NumberedLine, Operation, Outcome, Over, Prepared, Principal, ReservationId, Shortage, Sku,
    Stamp,
};

use super::parts::{Part, Parts, Said, ToShard, in_order};
use crate::answer::Failure;

/// Undecided baskets that are in the way are waited for: as a rule they are settled by then...
const SETTLED_WITHIN_MS: u64 = 20;
/// ...and some were left behind, and have to be found out first. The whole is shorter than this one
/// may itself be undecided before home's leader finds it out.
const WAITS_MS: [u64; 3] = [SETTLED_WITHIN_MS, 200, 500];

/// One reserve, or one amendment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    /// As home is asked.
    command: Command,
    /// Of the reservation that is to be, or to be amended.
    id: ReservationId,
    over: Over,
    phase: Phase,
    /// To be said when whoever asked has his answer.
    afterwards: Vec<ToShard>,
    has_asked_again: bool,
    /// How often others were waited for.
    waits: usize,
    has_let_others_go_first: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Home is asked, and with a reserve the participants at once.
    Asking { home: Option<Said>, parts: Parts },
    /// Home has prepared it before, and the parts of this attempt are given back first: they must
    /// not stand in the way of those that count.
    Clearing {
        prepared: Arc<Prepared>,
        left: Vec<u32>,
    },
    /// Home has prepared it; participants are asked.
    Prepared {
        prepared: Arc<Prepared>,
        parts: Parts,
    },
    /// Home is told what is known of the parts: that one came too late, or what was short while
    /// somebody else was silent. It may have decided otherwise before.
    Deciding,
    /// Home has decided it by now, and is asked once more.
    AskingAgain,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Others have yet to answer.
    Wait,
    /// These are to be told something, all at once.
    Tell(Vec<ToShard>),
    /// Likewise, in so many milliseconds: what is in the way now may be settled by then.
    TellLater(u64, Vec<ToShard>),
    /// This is what came of it.
    End(Ended),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What whoever asked is told. A reservation that another request prepares
    /// ([`Outcome::Undecided`]) has to be settled, and this one repeated.
    pub said: Said,
    /// What is said to shards afterwards. Nobody waits for it: what of it is lost is found out.
    pub afterwards: Vec<ToShard>,
}

impl Coordinator {
    /// For a reserve or an amendment that reaches over shards, and what is to be told at first.
    ///
    /// # Errors
    ///
    /// Any other command, as it came: its shard alone carries it out.
    pub fn new(command: Command) -> Result<(Self, Vec<ToShard>), Command> {
        let reaches_over = match &command.action {
            Action::Request(_, Operation::Reserve(reserve)) => {
                let over = reserve.over.as_deref();
                over.map(|over| (reserve.id, *over, true))
            }
            Action::Request(_, Operation::Amend(amend)) => {
                let over = amend.over.as_deref();
                over.map(|over| (amend.id, *over, false))
            }
            _ => None,
        };
        let Some((id, over, is_reserve)) = reaches_over else {
            return Err(command);
        };
        let lines = lines(&command);
        let mut others: Vec<u32> = lines
            .iter()
            .map(|line| line.sku.shard(over.shards))
            .collect();
        others.sort_unstable();
        others.dedup();
        // Which version an amendment is, home alone knows.
        others.retain(|shard| is_reserve && *shard != id.shard());
        let mut coordinator = Self {
            id,
            over,
            phase: Phase::Asking {
                home: None,
                parts: Parts::of(&others),
            },
            afterwards: Vec::new(),
            has_asked_again: false,
            waits: 0,
            has_let_others_go_first: false,
            command,
        };
        let mut first = coordinator.hold_parts(&others, id, 1, over.asked_at);
        first.insert(0, coordinator.to_home(coordinator.command.action.clone()));
        coordinator.afterwards.clear();
        Ok((coordinator, first))
    }

    /// What home is asked.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// A shard has said this.
    pub fn answered(&mut self, shard: u32, said: Said) -> Then {
        let is_home = shard == self.id.shard();
        match &mut self.phase {
            Phase::Asking { home, .. } if is_home => *home = Some(said),
            Phase::Asking { parts, .. } | Phase::Prepared { parts, .. } => parts.take(shard, said),
            Phase::Clearing { left, .. } => left.retain(|waits| *waits != shard),
            Phase::Deciding => return self.ask_again(),
            Phase::AskingAgain => return self.asked_again(said),
        }
        match &self.phase {
            Phase::Asking {
                home: Some(home),
                parts,
            } if parts.are_complete() => {
                let (home, parts) = (home.clone(), parts.clone());
                self.asked(home, parts)
            }
            Phase::Clearing { prepared, left } if left.is_empty() => {
                let prepared = Arc::clone(prepared);
                self.hold(prepared)
            }
            Phase::Prepared { prepared, parts } if parts.are_complete() => {
                let (prepared, parts) = (Arc::clone(prepared), parts.clone());
                self.held(prepared, parts)
            }
            _ => Then::Wait,
        }
    }

    /// Home and everybody who was asked together with it have answered.
    fn asked(&mut self, home: Said, parts: Parts) -> Then {
        if let Ok(Outcome::Prepared(prepared)) = &home {
            if prepared.reservation.id == self.id && self.is_reserve() {
                return self.held(Arc::clone(prepared), parts);
            }
            // Of an earlier attempt under the same request, or an amendment.
            let left: Vec<u32> = parts.maybe_held().collect();
            let prepared = Arc::clone(prepared);
            if left.is_empty() {
                return self.hold(prepared);
            }
            self.phase = Phase::Clearing { prepared, left };
            self.give_up(&parts);
            return Then::Tell(std::mem::take(&mut self.afterwards));
        }
        if let Ok(Outcome::Shortage(shortage)) = &home
            && shortage.in_the_way > InTheWay::Stock
            && !self.over.is_last_try
        {
            let in_the_way = shortage.in_the_way;
            return self.try_home_again(parts, in_the_way);
        }
        // Where nobody knows what home has done, its participants ask it.
        if home != Err(Failure::OutcomeUnknown) {
            self.give_up(&parts);
        }
        match home {
            Ok(Outcome::Shortage(at_home)) => {
                let shortage = self.with_others(&at_home, &parts);
                self.end(Ok(Outcome::Shortage(Arc::new(shortage))))
            }
            other => self.end(other),
        }
    }

    /// Home is asked once more. What others hold already stays held meanwhile; if one of them never
    /// will, nothing is waited for.
    fn try_home_again(&mut self, parts: Parts, in_the_way: InTheWay) -> Then {
        let wait_ms = match parts.is_any_refused() {
            true => 0,
            false => self.wait(in_the_way),
        };
        self.over.is_last_try |= parts.is_any_refused();
        if let Some(over) = self.command.action.over_mut() {
            over.is_last_try = self.over.is_last_try;
        }
        self.phase = Phase::Asking { home: None, parts };
        let to_home = self.to_home(self.command.action.clone());
        Then::TellLater(wait_ms, vec![to_home])
    }

    /// For how long those in the way are waited for now; whether what is asked after that is asked
    /// for good. Those that go first are asked about once more at once: another shard may have
    /// taken so long to answer that by now they were left behind.
    fn wait(&mut self, in_the_way: InTheWay) -> u64 {
        if in_the_way < InTheWay::Later {
            self.over.is_last_try |= std::mem::replace(&mut self.has_let_others_go_first, true);
            return 0;
        }
        let wait_ms = WAITS_MS.get(self.waits).copied();
        self.waits += 1;
        self.over.is_last_try |= self.waits >= WAITS_MS.len();
        wait_ms.unwrap_or(0)
    }

    /// Has the participants of what home has prepared hold their parts.
    fn hold(&mut self, prepared: Arc<Prepared>) -> Then {
        let (id, asked) = (prepared.reservation.id, prepared.asked.clone());
        let tell = self.hold_parts(&asked, id, prepared.version, prepared.asked_at);
        let parts = Parts::of(&asked);
        self.phase = Phase::Prepared { prepared, parts };
        Then::Tell(tell)
    }

    /// Home has prepared it, and every participant has answered.
    fn held(&mut self, prepared: Arc<Prepared>, parts: Parts) -> Then {
        if parts.is_over() {
            return self.ask_again();
        }
        let later = parts.not_yet();
        if !later.is_empty() {
            return self.try_again(prepared, parts, &later);
        }
        match parts.decision(&prepared) {
            Some(Decision::Held) => {
                self.decide(&prepared, Decision::Held);
                let reservation = Arc::clone(&prepared.reservation);
                self.end(Ok(Outcome::Reservation(reservation)))
            }
            Some(Decision::NotHeld(why)) => self.not_held(&prepared, &parts, why),
            // Whoever repeats the request goes on from here; if nobody does, home's leader ends it.
            None => match passing(&parts) {
                Some(said) => self.end(said),
                None => self.end(Err(Failure::OutcomeUnknown)),
            },
        }
    }

    /// Those who could not hold their part because of others are asked once more.
    fn try_again(&mut self, prepared: Arc<Prepared>, mut parts: Parts, shards: &[u32]) -> Then {
        let wait_ms = self.wait(parts.not_yet_for());
        let (id, version, asked_at) =
            (prepared.reservation.id, prepared.version, prepared.asked_at);
        let tell = self.hold_parts(shards, id, version, asked_at);
        parts.forget(shards);
        self.phase = Phase::Prepared { prepared, parts };
        Then::TellLater(wait_ms, tell)
    }

    fn ask_again(&mut self) -> Then {
        if std::mem::replace(&mut self.has_asked_again, true) {
            return self.end(Err(Failure::OutcomeUnknown));
        }
        self.phase = Phase::AskingAgain;
        Then::Tell(vec![self.to_home(self.command.action.clone())])
    }

    fn not_held(&mut self, prepared: &Arc<Prepared>, parts: &Parts, why: NotHeld) -> Then {
        // An amendment's participants are told by home.
        if self.is_reserve() {
            self.give_up_of(prepared.reservation.id, prepared.asked_at, parts);
        }
        self.decide(prepared, Decision::NotHeld(why.clone()));
        let outcome = match why {
            NotHeld::Short(shortage) => Outcome::Shortage(shortage),
            NotHeld::Refused(refusal) => Outcome::Refused(refusal),
            NotHeld::Gone => return self.have_home_say_so(),
        };
        match parts.are_certain() {
            true => self.end(Ok(outcome)),
            false => self.have_home_say_so(),
        }
    }

    /// Only home knows what it has come to. Who says that a part is gone may have held it long ago,
    /// and forgotten that it has ended since; and where somebody is silent for long, others may
    /// have had home decide meanwhile.
    fn have_home_say_so(&mut self) -> Then {
        self.phase = Phase::Deciding;
        Then::Tell(self.afterwards.pop().into_iter().collect())
    }

    fn asked_again(&mut self, said: Said) -> Then {
        match said {
            // Not decided after all.
            Ok(Outcome::Prepared(prepared)) => self.hold(prepared),
            said => self.end(said),
        }
    }

    fn end(&mut self, said: Said) -> Then {
        Then::End(Ended {
            said,
            afterwards: std::mem::take(&mut self.afterwards),
        })
    }

    fn decide(&mut self, prepared: &Prepared, decision: Decision) {
        let id = prepared.reservation.id;
        let decide = BasketCommand::Decide(Decide {
            id,
            version: prepared.version,
            decision,
        });
        let to_home = ToShard::new(id.shard(), &self.command.principal, decide);
        self.afterwards.push(to_home);
    }

    /// Home does not hold the reservation of this attempt, and never will.
    fn give_up(&mut self, parts: &Parts) {
        self.give_up_of(self.id, self.over.asked_at, parts);
    }

    fn give_up_of(&mut self, id: ReservationId, asked_at: Stamp, parts: &Parts) {
        for shard in parts.maybe_held() {
            let gone = Follow::gone(id, VERSIONS_PER_RECOVERY - 1, asked_at);
            let gone = BasketCommand::Follow(gone);
            let to_part = ToShard::new(shard, &self.command.principal, gone);
            self.afterwards.push(to_part);
        }
    }

    /// What is short at home, and elsewhere. Where home says itself what was short elsewhere, it
    /// has decided that before, and nothing else counts.
    fn with_others(&self, at_home: &Shortage, parts: &Parts) -> Shortage {
        let is_elsewhere = |sku: &Sku| sku.shard(self.over.shards) != self.id.shard();
        if at_home.lines.iter().any(|line| is_elsewhere(&line.sku)) {
            return at_home.clone();
        }
        let whys = parts.parts().filter_map(|(_, part)| match part {
            Part::NotHeld(NotHeld::Short(shortage)) | Part::NotYet(shortage) => Some(&**shortage),
            _ => None,
        });
        let lines = lines(&self.command).iter();
        let order = lines.map(|line| (&line.sku, &line.location));
        let all = in_order(whys.chain([at_home]), order);
        all.unwrap_or_else(|| at_home.clone())
    }

    fn is_reserve(&self) -> bool {
        let action = &self.command.action;
        matches!(action, Action::Request(_, Operation::Reserve(_)))
    }

    fn to_home(&self, action: Action) -> ToShard {
        let command = Command {
            principal: self.command.principal.clone(),
            action,
        };
        ToShard {
            shard: self.id.shard(),
            command,
        }
    }

    fn hold_parts(
        &self,
        shards: &[u32],
        id: ReservationId,
        version: u32,
        asked_at: Stamp,
    ) -> Vec<ToShard> {
        let principal: &Principal = &self.command.principal;
        let numbered = (0..).zip(lines(&self.command));
        let of_shard = |shard: u32| {
            let own = numbered.clone();
            let own = own.filter(|(_, line)| line.sku.shard(self.over.shards) == shard);
            own.map(|(number, line)| NumberedLine {
                number,
                line: line.clone(),
            })
            .collect()
        };
        let hold = |shard: &u32| {
            let hold = BasketCommand::HoldPart(HoldPart {
                id,
                version,
                asked_at,
                lines: of_shard(*shard),
                is_last_try: self.over.is_last_try,
            });
            ToShard::new(*shard, principal, hold)
        };
        shards.iter().map(hold).collect()
    }
}

/// The basket.
fn lines(command: &Command) -> &[Line] {
    match &command.action {
        Action::Request(_, Operation::Reserve(reserve)) => &reserve.lines,
        Action::Request(_, Operation::Amend(amend)) => &amend.lines,
        _ => &[],
    }
}

/// What whoever asked is told where a part was not held for now, and nothing is known against it.
fn passing(parts: &Parts) -> Option<Said> {
    parts.parts().find_map(|(_, part)| match part {
        Part::Refused(refusal) => Some(Ok(Outcome::Refused(*refusal))),
        Part::Failed(failure @ (Failure::Overloaded | Failure::DiskFull | Failure::MemoryFull)) => {
            Some(Err(*failure))
        }
        _ => None,
    })
}
