//! draft
use std::time::Instant;
use identity_model::*;
use stateright::*;

#[test]
fn explore() {
    let env = |n: &str, d: u8| std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
    let bounds = Bounds { terms: env("T",3), values: env("V",2), crashes: env("C",2), copies: env("CP",1), joins: env("J",0), cuts: env("K",0), writes: env("W",0), checkpoints: env("F",0) };
    let mut rules = Rules::ALL;
    for off in std::env::var("OFF").unwrap_or_default().split(',') {
        match off { "" => {}, "order" => rules.begun_by_order=false, "admission" => rules.admission_checked=false, "pulse"=>rules.pulse_checked=false, "names" => rules.pulse_names_its_write=false, "boot" => rules.boot_checked=false, "later"=>rules.later_pulse_ends_who_is_heard=false, "end"=>rules.lost_end_fails=false, "contra"=>rules.contradiction_stops=false,"ack"=>rules.ack_beyond_log_refused=false,"join"=>rules.join_refused_while_heard=false, x => panic!("{x}") }
    }
    let forgetting = match env("FG",0) { 0 => Forgetting::IsKnownInReach, 1 => Forgetting::IsKnownToOneWhoIsUp, _ => Forgetting::MayBeUnknown };
    let model = IdentityModel::new(rules, forgetting, bounds);
    let counts = model.counts.clone();
    let started = Instant::now();
    let mut c = model.checker().threads(2).timeout(std::time::Duration::from_secs(env("TO",120).into()));
    if let Ok(w) = std::env::var("WANT") {
        let all = [property::ONE_HISTORY, property::NOTHING_LOST, property::NO_FORGETFUL_PROMISE, property::COMMITTED_STAYS, property::NOTHING_COUNTED_UNSENT, property::ONE_PLACE, property::MAJORITY_STAYS, property::COMMITS_AFTER_REPLACEMENT];
        c = c.finish_when(HasDiscoveries::AllOf([all[w.parse::<usize>().unwrap()]].into()));
    }
    let c = c.spawn_bfs().join();
    eprintln!("{bounds:?}\n{} unique, {} total, depth {}, {:?}, done {}\n{counts}", c.unique_state_count(), c.state_count(), c.max_depth(), started.elapsed(), c.is_done());
    for (name, path) in c.discoveries() {
        let actions = path.into_actions();
        eprintln!("== {name}: {} steps", actions.len());
        for a in actions { eprintln!("   {a:?}"); }
    }
}
