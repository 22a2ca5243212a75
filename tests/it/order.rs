//! Any list of changes that are made at once, through two programs on one database, ends as some order of them one by one:
//! whatever callers leave, answers are lost, a second writer is in the way, or a program is killed meanwhile. A call whose
//! outcome its caller does not know was made or not made; where it has a request id, it is made again and tells.

mod call;
mod model;
mod programs;
mod stored;

use std::{
    cell::{Cell, RefCell},
    env, fs,
};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use uuid::Uuid;

use self::{
    call::{Call, Fault, Scenario, scenarios},
    model::{Answer, Made, Told, has_an_order},
    programs::{Heard, Programs},
};
use crate::harness::rounds;

/// For each bug the seeds of the scenarios that catch it, on SQLite and on PostgreSQL: `scripts/prove groups`.
const BUGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/prove/bugs/seeds.txt");

/// The seeds of `PROFILE_TEST_SEEDS`; else those that catch bugs, and as many others as there are rounds.
fn seeds(is_postgres: bool) -> Vec<u64> {
    if let Ok(seeds) = env::var("PROFILE_TEST_SEEDS") {
        return seeds.split(',').map(|seed| seed.parse().expect("a number")).collect();
    }
    let of_bug = |line: &str| line.split_whitespace().nth(if is_postgres { 2 } else { 1 })?.parse().ok();
    let others = (0..rounds(12)).map(|_| u64::from(rand::random::<u32>()));
    fs::read_to_string(BUGS).expect("the table").lines().filter_map(of_bug).chain(others).collect()
}

#[test]
fn any_list_of_changes_ends_as_some_order_of_them_one_by_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let programs = RefCell::new(runtime.block_on(Programs::start()));
    let (mark, counts) = (Cell::new(100), Cell::new(Counts::default()));
    let seeds = seeds(programs.borrow().is_postgres());
    for seed in seeds {
        let config =
            Config { cases: 1, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Config::default() };
        let ended = TestRunner::new(config).run(&scenarios(), |scenario| {
            mark.set(mark.get() + 1);
            let ended = runtime.block_on(play(&mut programs.borrow_mut(), mark.get(), &scenario));
            let ended = ended.map_err(|error| TestCaseError::fail(format!("a violation: {error}")));
            counts.set(counts.get().and(&ended?));
            Ok(())
        });
        if let Err(error) = ended {
            panic!("seed {seed}: {error}");
        }
    }
    println!("{:?}", counts.get());
}

/// What scenarios had.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    scenarios: usize,
    calls: usize,
    refused: usize,
    not_made: usize,
    unknown: usize,
    kills: usize,
    lost_answers: usize,
}

impl Counts {
    fn of(scenario: &Scenario, calls: &[Made]) -> Self {
        let told = |is: fn(&Told) -> bool| calls.iter().filter(|made| is(&made.told)).count();
        Self {
            scenarios: 1,
            calls: calls.len(),
            refused: told(|told| matches!(told, Told::Refused(_))),
            not_made: told(|told| matches!(told, Told::NotMade(_))),
            unknown: told(|told| *told == Told::Unknown),
            kills: usize::from(matches!(scenario.fault, Fault::Kill { .. })),
            lost_answers: usize::from(matches!(
                scenario.fault,
                Fault::LostToCallers { .. } | Fault::LostToProgram { .. }
            )),
        }
    }

    fn and(self, other: &Self) -> Self {
        let Self { scenarios, calls, refused, not_made, unknown, kills, lost_answers } = self;
        Self {
            scenarios: scenarios + other.scenarios,
            calls: calls + other.calls,
            refused: refused + other.refused,
            not_made: not_made + other.not_made,
            unknown: unknown + other.unknown,
            kills: kills + other.kills,
            lost_answers: lost_answers + other.lost_answers,
        }
    }
}

/// Plays a scenario, and judges what the callers heard and what is stored.
async fn play(programs: &mut Programs, mark: u32, scenario: &Scenario) -> Result<Counts, String> {
    let ids = programs.people(mark).await;
    let mut heard = programs.at_once(scenario, mark, &ids).await;
    let mut calls: Vec<_> = scenario.calls.iter().map(|planned| planned.call.clone()).collect();
    let planned = calls.len();
    let is_hurt = matches!(scenario.fault, Fault::Kill { .. } | Fault::LostToCallers { .. });
    let cut_off = calls.iter().zip(&heard).find(|(_, heard)| matches!(heard, Heard::Lost));
    if let Some((call, _)) = cut_off.filter(|_| !is_hurt) {
        return Err(format!("{call:?} was cut off"));
    }
    if is_hurt || heard.iter().any(Heard::is_unknown) {
        programs.restart().await;
        let unknown = calls.iter().zip(&heard).filter(|(call, heard)| heard.is_unknown() && call.request().is_some());
        let again: Vec<_> = unknown.map(|(call, _)| call.clone()).collect();
        heard.extend(programs.again(&again, planned, mark, &ids).await);
        calls.extend(again);
        if let Some(call) = calls.iter().zip(&heard).skip(planned).find(|(_, heard)| heard.is_unknown()) {
            return Err(format!("a repeat does not tell: {call:?}"));
        }
    }
    let ids: Vec<Uuid> = ids.iter().map(|id| id.as_str().and_then(|id| id.parse().ok()).expect("an id")).collect();
    let stored = stored::read(&programs.sql, programs.organizations, mark, &ids, &calls).await;
    let describe = |calls: &[Call], heard: &[Heard]| {
        let lines: Vec<_> = calls
            .iter()
            .zip(heard)
            .enumerate()
            .map(|(n, (call, heard))| format!("{n} {call:?}\n   {heard:?}"))
            .collect();
        lines.join("\n")
    };
    let stored = stored.map_err(|error| format!("{error}\n{}", describe(&calls, &heard)))?;
    let made = calls.iter().zip(&heard).enumerate().map(|(number, (call, heard))| {
        let told = match heard.clone() {
            Heard::Profile(id, person) => match stored.keys.get(&id) {
                Some(key) => Told::Answered(Answer::Profile(*key, person)),
                None => return Err(format!("{call:?} was answered {id}, which nobody has")),
            },
            Heard::Done => Told::Answered(Answer::Done),
            Heard::Refused(reason) => Told::Refused(reason),
            Heard::NotMade(reason) => Told::NotMade(reason),
            Heard::OutcomeUnknown | Heard::Lost | Heard::Left => Told::Unknown,
        };
        Ok(Made { call: call.clone(), told, afterwards: number >= planned })
    });
    let made = made.collect::<Result<Vec<_>, _>>()?;
    if has_an_order(stored::before(), &made, &stored.state) {
        Ok(Counts::of(scenario, &made))
    } else {
        Err(format!("no order of these calls leaves {:#?}:\n{}", stored.state, describe(&calls, &heard)))
    }
}
