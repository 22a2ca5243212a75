//! The contract for these calls, as one would write it for a single caller, and the search for an order of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::call::{Call, OWNERS};

/// A person, by what the calls may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    pub organization: usize,
    pub revision: u64,
    pub city: Option<u8>,
    pub email: Option<u8>,
    pub phone: Option<u8>,
    pub name: Option<u8>,
    pub identifiers: BTreeSet<u8>,
    pub locked: bool,
}

/// A revision, as the history tells it: neither where it tells nothing any more, of a person who was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The number of the call that made it; none for those that were there before all calls.
    pub by: Option<usize>,
    pub left: Option<Person>,
}

/// What is stored. People are known by a key: the first three by their numbers, and those who were created by the number of
/// their call, `CREATED` further on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub people: BTreeMap<usize, Person>,
    pub history: BTreeMap<usize, Vec<Revision>>,
    /// The person that a request id stands for, by organization and RPC.
    pub claims: BTreeMap<(usize, String, u8), usize>,
    /// Whom a case is about, its time, and whether it locks.
    pub cases: BTreeMap<(usize, u8), (usize, (u8, bool))>,
}

/// The key of the person that the call with the number 0 creates.
pub const CREATED: usize = OWNERS.len();

/// What a call is answered, if it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Profile(usize, Person),
    /// What is not compared: a case, or an erasure.
    Done,
}

/// What the caller knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Answered(Answer),
    Refused(String),
    /// That it was not made.
    NotMade(String),
    /// Nothing: it was made or it was not.
    Unknown,
}

/// A call and what became of it.
#[derive(Clone, Debug)]
pub struct Made {
    pub call: Call,
    pub told: Told,
    /// It began after all that were told before.
    pub afterwards: bool,
}

#[derive(Clone, PartialEq)]
struct Model {
    state: State,
    /// What was asked under a request id.
    asked: BTreeMap<(usize, String, u8), Call>,
}

impl Model {
    /// Carries out the call with this number.
    fn carry_out(&mut self, number: usize, call: &Call) -> Result<Answer, &'static str> {
        let claim = call.claim().map(|request| (call.organization(), call.rpc().to_owned(), request));
        if let Some(claim) = &claim
            && let Some(key) = self.state.claims.get(claim)
        {
            return match (self.asked.get(claim) == Some(call), call, self.state.people.get(key)) {
                (false, ..) => Err("REQUEST_ID_REUSED"),
                (true, Call::Erase { .. }, _) => Ok(Answer::Done),
                (true, _, Some(person)) => Ok(Answer::Profile(*key, person.clone())),
                (true, _, None) => Err("PROFILE_NOT_FOUND"),
            };
        }
        let (key, answer) = self.change(number, call)?;
        if let Some(claim) = claim {
            self.asked.insert(claim.clone(), call.clone());
            self.state.claims.insert(claim, key);
        }
        Ok(answer)
    }

    fn change(&mut self, number: usize, call: &Call) -> Result<(usize, Answer), &'static str> {
        match call {
            Call::Create { organization, fields, request: _ } => {
                let (email, phone) = (fields.email, fields.phone);
                let after =
                    Person { organization: *organization, city: fields.city, email, phone, ..Person::default() };
                self.keep(number, CREATED + number, after)
            }
            Call::Patch { organization, person, fields, etag, support, request: _, validate_only } => {
                let before = self.person(*person, *organization)?;
                if etag.is_some_and(|etag| u64::from(etag) != before.revision) {
                    return Err("ETAG_MISMATCH");
                }
                let after = Person {
                    city: fields.city.or(before.city),
                    email: fields.email.or(before.email),
                    phone: fields.phone.or(before.phone),
                    name: fields.name.or(before.name),
                    ..before.clone()
                };
                if before.locked && after.name != before.name && !support {
                    return Err("DEMOGRAPHICS_LOCKED");
                }
                if *validate_only {
                    self.is_free(*person, &after)?;
                    return Ok((*person, Answer::Profile(*person, after)));
                }
                self.keep(number, *person, after)
            }
            Call::Update { organization, email, city, request: _ } => {
                let found = self.state.people.iter().find(|(_, person)| person.email == Some(*email));
                let (key, person) = found.ok_or("USER_NOT_FOUND")?;
                if person.organization != *organization {
                    return Err("USER_NOT_IN_ORGANIZATION");
                }
                let (key, after) = (*key, Person { city: Some(*city), ..person.clone() });
                self.keep(number, key, after)
            }
            Call::Identify { person, add, value, request: _ } => {
                let mut after = self.person(*person, OWNERS[*person])?.clone();
                if *add {
                    after.identifiers.insert(*value)
                } else {
                    after.identifiers.remove(value)
                };
                self.keep(number, *person, after)
            }
            Call::Report { person, case, locks, time } => {
                let mut after = self.person(*person, OWNERS[*person])?.clone();
                let stored = self.state.cases.entry((OWNERS[*person], *case)).or_insert((*person, (*time, *locks)));
                if stored.0 != *person {
                    return Err("CASE_OF_ANOTHER_PROFILE");
                }
                stored.1 = stored.1.max((*time, *locks));
                after.locked = self.state.cases.values().any(|(about, (_, locks))| about == person && *locks);
                self.keep(number, *person, after)?;
                Ok((*person, Answer::Done))
            }
            Call::Erase { person, even_if_locked, request: _ } => {
                if self.person(*person, OWNERS[*person])?.locked && !even_if_locked {
                    return Err("DEMOGRAPHICS_LOCKED");
                }
                self.state.people.remove(person);
                self.state.cases.retain(|_, (about, _)| about != person);
                let history = self.state.history.entry(*person).or_default();
                history.fill(Revision { by: None, left: None });
                history.push(Revision { by: Some(number), left: None });
                Ok((*person, Answer::Done))
            }
            Call::Write { person, city, email, millis: _ } => {
                let before = self.person(*person, OWNERS[*person])?;
                let after = Person { city: Some(*city), email: email.or(before.email), ..before.clone() };
                // By SQL, a write is a revision also where it changes nothing.
                self.is_free(*person, &after)?;
                Ok((*person, Answer::Profile(*person, self.revise(number, *person, after))))
            }
        }
    }

    fn person(&self, key: usize, organization: usize) -> Result<&Person, &'static str> {
        self.state.people.get(&key).filter(|person| person.organization == organization).ok_or("PROFILE_NOT_FOUND")
    }

    /// Whether nobody else has what a change sets.
    fn is_free(&self, key: usize, after: &Person) -> Result<(), &'static str> {
        let before = self.state.people.get(&key).cloned().unwrap_or_default();
        let others = || self.state.people.iter().filter(|(other, _)| **other != key).map(|(_, other)| other);
        let neighbours = || others().filter(|other| other.organization == after.organization);
        if after.email.is_some() && after.email != before.email && others().any(|other| other.email == after.email) {
            Err("EMAIL_IN_USE")
        } else if after.phone.is_some()
            && after.phone != before.phone
            && others().any(|other| other.phone == after.phone)
        {
            Err("PHONE_NUMBER_IN_USE")
        } else if neighbours().any(|other| !after.identifiers.is_disjoint(&other.identifiers)) {
            Err("IDENTIFIER_IN_USE")
        } else {
            Ok(())
        }
    }

    /// Keeps what a change leaves, which is a new revision if it changes anything.
    fn keep(&mut self, number: usize, key: usize, after: Person) -> Result<(usize, Answer), &'static str> {
        self.is_free(key, &after)?;
        let unchanged = self.state.people.get(&key) == Some(&after);
        let left = if unchanged { after } else { self.revise(number, key, after) };
        Ok((key, Answer::Profile(key, left)))
    }

    fn revise(&mut self, number: usize, key: usize, after: Person) -> Person {
        let after = Person { revision: after.revision + 1, ..after };
        self.state.people.insert(key, after.clone());
        let revision = Revision { by: Some(number), left: Some(after.clone()) };
        self.state.history.entry(key).or_default().push(revision);
        after
    }
}

/// Whether some order of these calls, one by one, answers what was answered and leaves what is stored: those whose outcome
/// is unknown were made or not.
pub fn has_an_order(before: State, calls: &[Made], stored: &State) -> bool {
    let left = (0..calls.len()).filter(|number| !matches!(calls[*number].told, Told::NotMade(_))).collect();
    let model = Model { state: before, asked: BTreeMap::new() };
    Search { calls, stored, seen: HashSet::new() }.goes_on(&model, &left)
}

struct Search<'a> {
    calls: &'a [Made],
    stored: &'a State,
    seen: HashSet<String>,
}

impl Search<'_> {
    /// Whether these calls have an order from here on.
    fn goes_on(&mut self, model: &Model, left: &BTreeSet<usize>) -> bool {
        let is_known = |number: &usize| self.calls[*number].told != Told::Unknown;
        if model.state == *self.stored && !left.iter().any(is_known) {
            return true;
        }
        if !self.seen.insert(format!("{left:?} {:?} {:?}", model.state, model.asked)) {
            return false;
        }
        let earlier = left.iter().any(|number| is_known(number) && !self.calls[*number].afterwards);
        let mut branches = Vec::new();
        for number in left.iter().copied().filter(|number| !(earlier && self.calls[*number].afterwards)) {
            let Made { call, told, afterwards: _ } = &self.calls[number];
            let mut next = model.clone();
            if !is_answered_so(call, &next.carry_out(number, call), told) {
                continue;
            }
            let rest = || left.iter().copied().filter(|other| *other != number).collect();
            if next == *model {
                // What changes nothing may as well be made now; and where nobody was told, not at all.
                match told {
                    Told::Unknown => continue,
                    _ => return self.goes_on(model, &rest()),
                }
            }
            if is_stored(&next.state, self.stored) {
                branches.push((next, rest()));
            }
        }
        branches.into_iter().any(|(next, rest)| self.goes_on(&next, &rest))
    }
}

/// Whether what was told is what the model answers: where both addresses are taken, either is told.
fn is_answered_so(call: &Call, modelled: &Result<Answer, &'static str>, told: &Told) -> bool {
    match (modelled, told) {
        (_, Told::Unknown) => true,
        (Ok(answer), Told::Answered(answered)) => answer == answered,
        (Err("EMAIL_IN_USE"), Told::Refused(reason)) if reason == "PHONE_NUMBER_IN_USE" => {
            matches!(call, Call::Create { .. } | Call::Patch { .. })
        }
        (Err(reason), Told::Refused(refused)) => reason == refused,
        (_, Told::NotMade(_) | Told::Answered(_) | Told::Refused(_)) => false,
    }
}

/// Whether all that the history and the claims have by now is stored.
fn is_stored(state: &State, stored: &State) -> bool {
    let forgotten = Revision { by: None, left: None };
    let has = |key: &usize, history: &Vec<Revision>| {
        let kept = stored.history.get(key).map(Vec::as_slice).unwrap_or_default();
        history.len() <= kept.len() && history.iter().zip(kept).all(|(one, kept)| one == kept || *kept == forgotten)
    };
    state.history.iter().all(|(key, history)| has(key, history))
        && state.claims.iter().all(|(claim, key)| stored.claims.get(claim) == Some(key))
}
