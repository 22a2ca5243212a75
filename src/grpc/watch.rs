//! WatchProfiles: from the feed to its messages.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::{Stream, stream};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    convert,
    pb::{self, watch_profiles_response::Kind},
};
use crate::{
    clock,
    error::{Error, Result},
    metrics::METRICS,
    profile::{fields::Input, history},
    read::{
        feed::{Ask, Entry, Feed, Page, Place},
        followers::Follower,
    },
    telemetry::SentProfiles,
    value::{self, Rule},
};

/// How long nothing is sent before a heartbeat is.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A follower of an organization's profiles.
pub struct Watch {
    feed: Feed,
    organization: Uuid,
    cursor: Cursor,
    /// What is on its way to the follower, and how much of it was sent.
    page: (Page, usize),
    head: watch::Receiver<i64>,
    follower: Arc<Follower>,
    /// Cancelled when the stream is to end, after a last heartbeat.
    end: CancellationToken,
    state: State,
    /// When the next heartbeat is due.
    heartbeat: Instant,
    sent: SentProfiles,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent yet.
    Begun,
    /// A message was sent.
    Open,
    /// The last heartbeat was sent.
    Ending,
    /// The error was sent.
    Ended,
}

/// Where a follower begins.
pub enum Beginning {
    Everything,
    Now,
    Token(Cursor),
}

impl Beginning {
    /// Where the request says.
    pub fn parse(mut input: Input, organization: Uuid, request: pb::WatchProfilesRequest) -> Result<Self> {
        let pb::WatchProfilesRequest { resume_token, skip_existing } = request;
        let token = value::clean(&resume_token);
        if skip_existing && !token.is_empty() {
            input.judge::<()>("skip_existing", Err(Rule::NotWithToken));
        }
        input.finish(())?;
        match &*token {
            "" if skip_existing => Ok(Self::Now),
            "" => Ok(Self::Everything),
            token => cursor(organization, token).map(Self::Token).ok_or(Error::InvalidResumeToken),
        }
    }
}

/// How far a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// In the snapshot that was begun at this mark: it has the profiles up to this id.
    Snapshot { begun: Mark, up_to: Uuid },
    /// It has the changes up to this mark.
    Live(Mark),
}

/// A position in the feed with a digest of the change that is there: after a restore it may be another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    position: i64,
    digest: [u8; 8],
}

impl Mark {
    fn of(place: &Place) -> Self {
        let Place { position, profile_id, revision, changed_at } = place;
        let digest = Sha256::new()
            .chain_update(profile_id)
            .chain_update(revision.to_be_bytes())
            .chain_update(changed_at.timestamp_micros().to_be_bytes())
            .finalize();
        let mut mark = Self { position: *position, digest: [0; 8] };
        mark.digest.copy_from_slice(&digest[..8]);
        mark
    }
}

impl Cursor {
    /// Up to where it has the changes, once it has the whole snapshot.
    const fn mark(&self) -> Mark {
        match self {
            Self::Snapshot { begun: mark, up_to: _ } | Self::Live(mark) => *mark,
        }
    }
}

impl Watch {
    /// Begins where the request says.
    pub async fn begin(
        feed: Feed,
        organization: Uuid,
        input: Input,
        request: pb::WatchProfilesRequest,
        end: CancellationToken,
    ) -> Result<Self> {
        let beginning = Beginning::parse(input, organization, request)?;
        let head = feed.heads().follow(organization);
        let cursor = match beginning {
            Beginning::Everything => Cursor::Snapshot { begun: last(&feed, organization).await?, up_to: Uuid::nil() },
            Beginning::Now => Cursor::Live(last(&feed, organization).await?),
            Beginning::Token(cursor) => resumed(&feed, organization, cursor).await?,
        };
        let (page, heartbeat) = ((Page::default(), 0), Instant::now() + HEARTBEAT);
        let (sent, follower) = (SentProfiles::of_this_call(), feed.followers().enter(head.clone()));
        follower.reach(cursor.mark().position);
        Ok(Self { feed, organization, cursor, page, head, follower, end, state: State::Begun, heartbeat, sent })
    }

    /// What the follower is sent, one message after the other as it takes them.
    pub fn messages(self) -> impl Stream<Item = Result<pb::WatchProfilesResponse>> + Send {
        stream::unfold(self, |mut watch| async {
            if watch.state == State::Ended {
                return None;
            }
            let message = watch.next().await;
            watch.follower.reach(watch.cursor.mark().position);
            watch.heartbeat = Instant::now() + HEARTBEAT;
            watch.state = match (&message, watch.state) {
                (Err(_), _) => State::Ended,
                (Ok(_), State::Begun) => State::Open,
                (Ok(_), state) => state,
            };
            Some((message, watch))
        })
    }

    async fn next(&mut self) -> Result<pb::WatchProfilesResponse> {
        if self.state == State::Ending {
            return Err(Error::StreamEnded);
        }
        let end = self.end.clone();
        tokio::select! {
            biased; // what is ready of a page comes after the end
            () = end.cancelled() => {}
            message = self.message() => return message,
        }
        self.state = State::Ending;
        Ok(self.bare(Kind::Heartbeat))
    }

    async fn message(&mut self) -> Result<pb::WatchProfilesResponse> {
        loop {
            while let Some(entry) = self.page.0.get(self.page.1) {
                self.page.1 += 1;
                self.cursor = match self.cursor {
                    Cursor::Snapshot { begun, up_to: _ } => Cursor::Snapshot { begun, up_to: entry.place.profile_id },
                    Cursor::Live(_) => Cursor::Live(Mark::of(&entry.place)),
                };
                if matches!(self.cursor, Cursor::Live(_)) {
                    METRICS.feed.delay.observe(delay(entry.place.changed_at, clock::now()).as_secs_f64());
                }
                if let Some(message) = changed(entry, self.cursor, self.token()) {
                    self.sent.note(&message.profile_id);
                    return Ok(message);
                }
            }
            let head = *self.head.borrow_and_update();
            match self.cursor {
                Cursor::Snapshot { begun, up_to } => {
                    self.page = (self.feed.page(self.organization, Ask::Profiles(up_to)).await?, 0);
                    if self.page.0.is_empty() {
                        self.cursor = Cursor::Live(begun);
                        return Ok(self.bare(Kind::SnapshotEnd));
                    }
                }
                Cursor::Live(mark) => {
                    // The first look is made at once: the head is not known yet.
                    if head != mark.position || self.state == State::Begun {
                        self.page = (self.feed.page(self.organization, Ask::Changes(mark.position)).await?, 0);
                        if mark.position > 0 {
                            // After a failover that lost it, there may be another change.
                            let there = self.page.0.first().map(|entry| Mark::of(&entry.place));
                            if there != Some(mark) {
                                return Err(Error::ResumeTokenExpired);
                            }
                            self.page.1 = 1;
                        }
                    }
                    if self.page.0.get(self.page.1).is_none() && !self.has_moved().await {
                        return Ok(self.bare(Kind::Heartbeat));
                    }
                }
            }
        }
    }

    /// Waits until the head has moved, or a heartbeat is due.
    async fn has_moved(&mut self) -> bool {
        self.page = <_>::default(); // while nothing is due, nothing is kept
        self.state != State::Begun && timeout_at(self.heartbeat, self.head.changed()).await.is_ok()
    }

    /// A message with nothing but its token.
    fn bare(&self, kind: Kind) -> pb::WatchProfilesResponse {
        pb::WatchProfilesResponse {
            resume_token: self.token(),
            kind: kind.into(),
            profile_id: String::new(),
            revision: 0,
            change_time: None,
            fields: Vec::new(),
            profile: None,
        }
    }

    fn token(&self) -> String {
        token(self.organization, &self.cursor)
    }
}

/// How long after a change its followers are told of it. By a clock that was ahead it has not been made yet, and
/// the sum of a histogram must not go down.
fn delay(changed_at: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - changed_at).to_std().unwrap_or_default()
}

/// The message of an entry; none where the profile is gone, whose erasure has a message of its own, with nothing of it.
fn changed(entry: &Entry, cursor: Cursor, resume_token: String) -> Option<pb::WatchProfilesResponse> {
    let Entry { place: Place { position: _, profile_id, revision, changed_at }, rpc, fields, profile } = entry;
    let erased = history::is_erasure(rpc);
    if profile.is_none() && !erased {
        return None;
    }
    let kind = match cursor {
        _ if erased => Kind::Erased,
        Cursor::Live(_) if *revision > 1 => Kind::Changed,
        Cursor::Live(_) | Cursor::Snapshot { .. } => Kind::Created,
    };
    Some(pb::WatchProfilesResponse {
        resume_token,
        kind: kind.into(),
        profile_id: profile_id.to_string(),
        revision: *revision,
        change_time: Some(convert::timestamp(*changed_at)),
        fields: history::field_names(fields).map(str::to_owned).collect(),
        profile: profile.clone().map(pb::Profile::from),
    })
}

/// Whose token it is: the first bytes of the hash of the organization.
fn owner(organization: Uuid) -> [u8; 4] {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(organization));
    [a, b, c, d]
}

/// A token: whose it is, the mark, and in a snapshot the last profile.
pub fn token(organization: Uuid, cursor: &Cursor) -> String {
    let (mark, up_to) = match cursor {
        Cursor::Snapshot { begun, up_to } => (begun, up_to.as_bytes().as_slice()),
        Cursor::Live(mark) => (mark, &[][..]),
    };
    hex::encode([&owner(organization), mark.position.to_be_bytes().as_slice(), &mark.digest, up_to].concat())
}

/// The cursor in a token of this organization.
pub fn cursor(organization: Uuid, token: &str) -> Option<Cursor> {
    let bytes = hex::decode(token).ok()?;
    let (owned, rest) = bytes.split_first_chunk()?;
    let (position, rest) = rest.split_first_chunk()?;
    let (digest, up_to) = rest.split_first_chunk()?;
    let mark = Mark { position: i64::from_be_bytes(*position), digest: *digest };
    let cursor = match up_to {
        [] => Cursor::Live(mark),
        up_to => Cursor::Snapshot { begun: mark, up_to: Uuid::from_slice(up_to).ok()? },
    };
    (*owned == owner(organization) && mark.position >= 0).then_some(cursor)
}

/// The mark of the organization's last change.
async fn last(feed: &Feed, organization: Uuid) -> Result<Mark> {
    Ok(feed.last(organization).await?.as_ref().map(Mark::of).unwrap_or_default())
}

/// Where a token goes on, if the change is there that it was made at.
async fn resumed(feed: &Feed, organization: Uuid, cursor: Cursor) -> Result<Cursor> {
    let mark = cursor.mark();
    let there = match mark.position {
        0 => Some(Mark::default()),
        position => feed.place(organization, position).await?.as_ref().map(Mark::of),
    };
    if there == Some(mark) { Ok(cursor) } else { Err(Error::ResumeTokenExpired) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_by_a_clock_that_is_ahead_is_told_at_once() {
        let at = |millis| DateTime::from_timestamp_millis(millis).expect("a time");
        let delays = [(1000, 2500), (1000, 1000), (2500, 1000)].map(|(changed, now)| delay(at(changed), at(now)));
        assert_eq!(delays, [1500, 0, 0].map(Duration::from_millis));
    }

    proptest! {
        #[test]
        fn a_token_says_where_to_go_on_in_its_own_organization_alone(
            organization: u128,
            other: u128,
            position in 0..i64::MAX,
            digest: [u8; 8],
            up_to: Option<u128>,
        ) {
            let mark = Mark { position, digest };
            let here = up_to.map_or(Cursor::Live(mark), |up_to| {
                Cursor::Snapshot { begun: mark, up_to: Uuid::from_u128(up_to) }
            });
            let token = token(Uuid::from_u128(organization), &here);
            prop_assert_eq!(cursor(Uuid::from_u128(organization), &token), Some(here));
            prop_assume!(organization != other);
            prop_assert_eq!(cursor(Uuid::from_u128(other), &token), None);
        }

        #[test]
        fn what_is_no_token_is_none(text in "[0-9a-z]{0,80}") {
            prop_assert_eq!(cursor(Uuid::nil(), &text), None);
        }
    }
}
