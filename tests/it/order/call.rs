//! Calls in small numbers, so that addresses, request ids, cases and identifiers meet.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// The organization of each of the three people that there are before the calls.
pub const OWNERS: [usize; 3] = [0, 0, 1];

/// What a call sets: what is none is not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    pub city: Option<u8>,
    pub email: Option<u8>,
    pub phone: Option<u8>,
    pub name: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Create {
        organization: usize,
        fields: Fields,
        request: Option<u8>,
    },
    Patch {
        organization: usize,
        person: usize,
        fields: Fields,
        etag: Option<u8>,
        /// By CorrectProfile.
        support: bool,
        request: Option<u8>,
        validate_only: bool,
    },
    Update {
        organization: usize,
        email: u8,
        city: u8,
        request: Option<u8>,
    },
    Identify {
        person: usize,
        add: bool,
        value: u8,
        request: Option<u8>,
    },
    Report {
        person: usize,
        case: u8,
        locks: bool,
        time: u8,
    },
    Erase {
        person: usize,
        even_if_locked: bool,
        request: Option<u8>,
    },
    /// A change by SQL, as a second writer makes it: the row is locked for so many milliseconds before it is written.
    Write {
        person: usize,
        city: u8,
        email: Option<u8>,
        millis: u8,
    },
}

impl Call {
    /// The RPC, by its name in the history.
    pub const fn rpc(&self) -> &'static str {
        match self {
            Self::Create { .. } => "ProfileService/CreateProfile",
            Self::Patch { support: false, .. } => "ProfileService/PatchProfile",
            Self::Patch { support: true, .. } => "SupportService/CorrectProfile",
            Self::Update { .. } => "ProfileService/UpdateProfile",
            Self::Identify { add: true, .. } => "ProfileIdentifierService/AddIdentifier",
            Self::Identify { add: false, .. } => "ProfileIdentifierService/RemoveIdentifier",
            Self::Report { .. } => "CaseService/ReportCaseStatus",
            Self::Erase { .. } => "SupportService/EraseProfile",
            Self::Write { .. } => "SQL",
        }
    }

    /// Who calls.
    pub const fn organization(&self) -> usize {
        match self {
            Self::Create { organization, .. }
            | Self::Patch { organization, .. }
            | Self::Update { organization, .. } => *organization,
            Self::Identify { person, .. }
            | Self::Report { person, .. }
            | Self::Erase { person, .. }
            | Self::Write { person, .. } => OWNERS[*person],
        }
    }

    /// The request id that the call has.
    pub const fn request(&self) -> Option<u8> {
        match self {
            Self::Create { request, .. }
            | Self::Patch { request, .. }
            | Self::Update { request, .. }
            | Self::Identify { request, .. }
            | Self::Erase { request, .. } => *request,
            Self::Report { .. } | Self::Write { .. } => None,
        }
    }

    /// The request id that is remembered where the call succeeds.
    pub const fn claim(&self) -> Option<u8> {
        match self {
            Self::Patch { validate_only: true, .. } => None,
            _ => self.request(),
        }
    }

    /// The message of the request, about people with these ids.
    pub fn message(&self, mark: u32, ids: &[Json]) -> Json {
        let mut message = match self {
            Self::Create { fields, .. } => {
                let mut profile = json!({ "firstName": "Ada", "lastName": last_name(mark) });
                fields.put_into(&mut profile, mark);
                json!({ "profile": profile })
            }
            Self::Patch { person, fields, etag, support, validate_only, .. } => {
                let mut profile = json!({ "id": ids[*person] });
                fields.put_into(&mut profile, mark);
                if let Some(etag) = etag {
                    profile["etag"] = json!(format!("\"{etag}\""));
                }
                let mut message = json!({ "profile": profile, "validateOnly": validate_only });
                if *support {
                    message["reason"] = json!("as they say");
                }
                message
            }
            Self::Update { email, city, .. } => {
                json!({ "data": { "email": self::email(mark, *email), "city": self::city(*city) } })
            }
            Self::Identify { person, value, .. } => {
                let identifier = json!({ "system": "s", "value": format!("{mark}.{value}") });
                json!({ "profileId": ids[*person], "identifier": identifier })
            }
            Self::Report { person, case, locks, time } => json!({
                "caseId": format!("{mark}.{case}"),
                "profileId": ids[*person],
                "status": if *locks { "ASSIGNED" } else { "OPEN" },
                "statusTime": format!("2026-01-05T10:00:0{time}Z"),
            }),
            Self::Erase { person, even_if_locked, .. } => {
                json!({ "id": ids[*person], "reasonCode": "REASON_CODE_RETENTION", "evenIfLocked": even_if_locked })
            }
            Self::Write { .. } => unreachable!("it is no call of the program"),
        };
        if let Some(request) = self.request() {
            message["requestId"] = json!(request_id(mark, request));
        }
        message
    }
}

impl Fields {
    fn put_into(&self, profile: &mut Json, mark: u32) {
        let Self { city, email, phone, name } = self;
        for (field, value) in [
            ("city", city.map(self::city)),
            ("email", email.map(|email| self::email(mark, email))),
            ("phoneNumber", phone.map(|phone| format!("+1555{mark}{phone}"))),
            ("firstName", name.map(|name| format!("Name {name}"))),
        ] {
            if let Some(value) = value {
                profile[field] = json!(value);
            }
        }
    }
}

/// The last name of everybody whom the calls with this mark are about.
pub fn last_name(mark: u32) -> String {
    format!("Byron {mark}")
}

pub fn email(mark: u32, email: u8) -> String {
    format!("{mark}.{email}@example.com")
}

pub fn city(city: u8) -> String {
    format!("City {city}")
}

pub fn request_id(mark: u32, request: u8) -> String {
    format!("{mark}-{request}")
}

/// A call, by which of the programs it is made, and when.
#[derive(Clone, Debug)]
pub struct Planned {
    pub call: Call,
    pub program: usize,
    /// How many milliseconds after the first one.
    pub after: u8,
    /// After how many microseconds the caller goes away.
    pub leaves: Option<u16>,
}

/// What happens meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// A program is killed after so many milliseconds.
    Kill {
        program: usize,
        after: u8,
    },
    /// One thing that a program says to its callers is lost, and their connection with it.
    LostToCallers {
        program: usize,
        nth: u8,
    },
    /// One thing that PostgreSQL says to a program is lost, and their connection with it.
    LostToProgram {
        program: usize,
        nth: u8,
    },
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub calls: Vec<Planned>,
    /// For how many milliseconds the database takes nothing, so that calls gather.
    pub gathers: Option<u8>,
    pub fault: Fault,
}

/// Lists of calls with what happens meanwhile.
pub fn scenarios() -> impl Strategy<Value = Scenario> {
    let again = proptest::option::weighted(0.2, 0..14usize);
    let calls = proptest::collection::vec((planned(), again), 2..14);
    let program = || prop::bool::weighted(0.25).prop_map(usize::from);
    let fault = prop_oneof![
        6 => Just(Fault::Nothing),
        1 => (program(), 0..40u8).prop_map(|(program, after)| Fault::Kill { program, after }),
        1 => (program(), 1..12u8).prop_map(|(program, nth)| Fault::LostToCallers { program, nth }),
        2 => (program(), 1..12u8).prop_map(|(program, nth)| Fault::LostToProgram { program, nth }),
    ];
    (calls, proptest::option::of(5..25u8), fault).prop_map(|(drawn, gathers, fault)| {
        let mut calls = Vec::<Planned>::new();
        for (mut planned, again) in drawn {
            // A repeat of an earlier call, wherever it is made.
            if let Some(earlier) =
                again.and_then(|again| calls.get(again)).filter(|earlier| earlier.call.rpc() != "SQL")
            {
                planned.call = earlier.call.clone();
            }
            calls.push(planned);
        }
        Scenario { calls, gathers, fault }
    })
}

fn planned() -> impl Strategy<Value = Planned> {
    let after = prop_oneof![3 => Just(0), 1 => 0..8u8];
    let leaves = proptest::option::weighted(0.05, 0..20_000u16);
    let program = prop::bool::weighted(0.25).prop_map(usize::from);
    (call(), program, after, leaves).prop_map(|(call, program, after, leaves)| Planned { call, program, after, leaves })
}

fn call() -> impl Strategy<Value = Call> {
    let request = || proptest::option::weighted(0.4, 0..3u8);
    let address = || proptest::option::weighted(0.4, 0..4u8);
    let name = || proptest::option::weighted(0.2, 0..2u8);
    let fields = move || {
        (proptest::option::of(0..3u8), address(), address(), name()).prop_map(|(city, email, phone, name)| Fields {
            city,
            email,
            phone,
            name,
        })
    };
    let patch = (
        (0..2usize, 0..3usize, fields()),
        (proptest::option::weighted(0.2, 1..4u8), prop::bool::weighted(0.2), request(), prop::bool::weighted(0.1)),
    );
    prop_oneof![
        3 => (0..2usize, fields(), request())
            .prop_map(|(organization, fields, request)| Call::Create { organization, fields: Fields { name: None, ..fields }, request }),
        8 => patch.prop_map(|((organization, person, fields), (etag, support, request, validate_only))| {
            // Mostly of one's own people.
            let organization = if organization == 1 || person == 2 { OWNERS[person] } else { organization };
            Call::Patch { organization, person, fields, etag, support, request, validate_only }
        }),
        3 => (0..2usize, 0..4u8, 0..3u8, request())
            .prop_map(|(organization, email, city, request)| Call::Update { organization, email, city, request }),
        3 => (0..3usize, any::<bool>(), 0..3u8, request())
            .prop_map(|(person, add, value, request)| Call::Identify { person, add, value, request }),
        2 => (0..3usize, 0..2u8, any::<bool>(), 0..3u8)
            .prop_map(|(person, case, locks, time)| Call::Report { person, case, locks, time }),
        1 => (0..3usize, any::<bool>(), request())
            .prop_map(|(person, even_if_locked, request)| Call::Erase { person, even_if_locked, request }),
        1 => (0..3usize, 100..110u8, address(), 0..20u8)
            .prop_map(|(person, city, email, millis)| Call::Write { person, city, email, millis }),
    ]
}
