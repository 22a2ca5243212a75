//! ExportProfile: all that is stored about a person, read as it is taken.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{Stream, stream};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::pb::{self, export_profile_response::Record};
use crate::{
    error::{Error, Result},
    read::{self, Profiles},
    store::Store,
};

/// How many records are read at once: an export that is not read keeps so many.
const PAGE: u64 = 16;

/// The export of a person.
pub struct Export {
    store: Store,
    profiles: Profiles,
    /// One query of all exports at once, so that other reads always find a connection.
    turn: Arc<Semaphore>,
    organization: Uuid,
    id: Uuid,
    /// Of the profile that was sent: later changes are of another one.
    revision: i64,
    /// What was read and not sent.
    page: VecDeque<Record>,
    next: Next,
}

/// What is read next.
#[derive(Clone)]
enum Next {
    /// Cases with ids above this one.
    Cases(String),
    /// Changes below this revision.
    Changes(i64),
    Nothing,
}

impl Export {
    /// Begins with the profile as it is now.
    pub async fn begin(
        store: Store,
        profiles: Profiles,
        turn: Arc<Semaphore>,
        organization: Uuid,
        id: Uuid,
    ) -> Result<Self> {
        let profile = read::profile(&profiles, organization, id).await?;
        let (revision, page) = (profile.revision, VecDeque::from([Record::Profile(profile.into())]));
        Ok(Self { store, profiles, turn, organization, id, revision, page, next: Next::Cases(String::new()) })
    }

    /// The profile, its cases, and its changes, the newest first.
    pub fn messages(self) -> impl Stream<Item = Result<pb::ExportProfileResponse>> + Send {
        stream::try_unfold(self, |mut export| async {
            let record = export.record().await?;
            Ok(record.map(|record| (pb::ExportProfileResponse { record: Some(record) }, export)))
        })
    }

    async fn record(&mut self) -> Result<Option<Record>> {
        while self.page.is_empty() {
            let _turn = self.turn.acquire().await.map_err(|_| Error::Internal("exports have ended".to_owned()))?;
            match self.next.clone() {
                Next::Cases(after) => {
                    let cases =
                        read::cases(&self.store, &self.profiles, self.organization, self.id, after, PAGE).await?;
                    let last = cases.last().map(|case| case.case_id.clone());
                    self.next = last.map_or(Next::Changes(self.revision + 1), Next::Cases);
                    self.page.extend(cases.into_iter().map(|case| Record::Case(case.into())));
                }
                Next::Changes(below) => {
                    let changes =
                        read::changes(&self.store, &self.profiles, self.organization, self.id, below, PAGE).await?;
                    // Whoever was erased meanwhile was not exported whole.
                    read::profile(&self.profiles, self.organization, self.id).await?;
                    self.next = changes.last().map_or(Next::Nothing, |change| Next::Changes(change.revision));
                    for change in changes {
                        self.page.push_back(Record::Change(change.try_into()?));
                    }
                }
                Next::Nothing => return Ok(None),
            }
        }
        Ok(self.page.pop_front())
    }
}
