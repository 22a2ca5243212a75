//! A client of profile-service. It tells the story of README.md and prints expected.txt.

#![allow(clippy::disallowed_methods, reason = "it reads the clock and makes ids")]

use std::{
    env,
    error::Error,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt as _;
use profile_service::{
    client::{self, Client, Reason},
    pb::{
        CreateProfileRequest, GetCurrentKeyRequest, GetProfileRequest, ListProfilesRequest, PatchProfileRequest,
        Profile, ReportCaseStatusRequest, WatchProfilesRequest, WatchProfilesResponse, case::Status,
    },
};
use prost_types::FieldMask;
use uuid::Uuid;

/// For each call.
const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:50051".to_owned());
    let builder = Client::builder(format!("http://{address}")).key(env::var("KEY")?).deadline(DEADLINE);
    let story =
        Story { client: builder.build()?, last_name: format!("Example {}", rand::random_range(0..1_000_000_000)) };
    story.tell().await
}

struct Story {
    client: Client,
    last_name: String,
}

impl Story {
    async fn tell(&self) -> Result<(), Box<dyn Error>> {
        self.key().await?;
        let id = self.create().await?;
        self.read(&id).await?;
        self.patch(&id).await?;
        self.read_modify_write(&id).await?;
        self.locked(&id).await?;
        self.deadline().await?;
        self.pages().await?;
        self.watch(&id).await
    }

    async fn get(&self, id: &str) -> Result<Profile, client::Error> {
        self.client.call(GetProfileRequest { id: id.to_owned() }).await
    }

    /// Changes the named fields and no other; one that is named and absent is cleared. The client makes the request id, and
    /// sends it with each attempt.
    async fn change(&self, profile: Profile, paths: &[&str]) -> Result<Profile, client::Error> {
        let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
        let request = PatchProfileRequest { profile: Some(profile), update_mask: Some(mask), ..Default::default() };
        self.client.call(request).await
    }

    async fn key(&self) -> Result<(), client::Error> {
        let key = self.client.call(GetCurrentKeyRequest {}).await?;
        println!("key: {}", key.scopes.join(", "));
        Ok(())
    }

    async fn create(&self) -> Result<String, client::Error> {
        let ada = Profile {
            first_name: Some("Ada".to_owned()),
            last_name: Some(self.last_name.clone()),
            dob: Some("1995-10-01".to_owned()),
            address: Some("1 Main Street".to_owned()),
            city: Some("New York".to_owned()),
            state: Some("NY".to_owned()),
            country: Some("US".to_owned()),
            ..Default::default()
        };
        let request_id = Uuid::now_v7().to_string();
        let request = CreateProfileRequest { profile: Some(ada), request_id, ..Default::default() };
        let created = self.client.call(request.clone()).await?;
        let repeated = self.client.call(request).await?; // as if the first answer had been lost
        let same = if created.id == repeated.id { "the same profile" } else { "another profile" };
        println!("create: {}, {same} twice", created.first_name());
        Ok(created.id)
    }

    async fn read(&self, id: &str) -> Result<(), client::Error> {
        println!("read: {}", describe(&self.get(id).await?));
        Ok(())
    }

    async fn patch(&self, id: &str) -> Result<(), client::Error> {
        let patch = Profile { id: id.to_owned(), city: Some("Washington".to_owned()), ..Default::default() };
        println!("patch: {}", describe(&self.change(patch, &["city", "state"]).await?));
        Ok(())
    }

    /// Patches what it has read, until nobody came between. A replace would clear fields that prost does not know.
    async fn read_modify_write(&self, id: &str) -> Result<(), client::Error> {
        let mut others = vec!["2 Main Street"]; // another writer comes between, once
        loop {
            let read = self.get(id).await?;
            if let Some(address) = others.pop() {
                let patch = Profile { id: id.to_owned(), address: Some(address.to_owned()), ..Default::default() };
                self.change(patch, &["address"]).await?;
            }
            let address = format!("{}, Floor 2", read.address());
            let patch = Profile { id: read.id, etag: read.etag, address: Some(address), ..Default::default() };
            match self.change(patch, &["address"]).await {
                Ok(changed) => {
                    println!("etag: address {}", changed.address());
                    return Ok(());
                }
                Err(error) if error.is(&Reason::EtagMismatch) => println!("etag: ETAG_MISMATCH, read again"),
                Err(error) => return Err(error),
            }
        }
    }

    async fn locked(&self, id: &str) -> Result<(), client::Error> {
        let report = ReportCaseStatusRequest {
            case_id: Uuid::now_v7().to_string(),
            profile_id: id.to_owned(),
            status: Status::Assigned.into(),
            status_time: Some(SystemTime::now().into()),
        };
        self.client.call(report).await?;
        let patch = Profile { id: id.to_owned(), dob: Some("1995-01-10".to_owned()), ..Default::default() };
        match self.change(patch, &["dob"]).await {
            Err(error) if error.is(&Reason::DemographicsLocked) => {
                println!("locked: {}", Reason::DemographicsLocked);
                for violation in error.violations() {
                    println!("locked: {}: {}", violation.field, violation.description);
                }
                Ok(())
            }
            answer => answer.map(|_| println!("locked: not at all")),
        }
    }

    async fn deadline(&self) -> Result<(), client::Error> {
        let hurried = self.client.with_deadline(Duration::from_millis(200));
        let mut messages = hurried.watch(WatchProfilesRequest { skip_existing: true, ..Default::default() });
        loop {
            match messages.try_next().await {
                Ok(_) => {}
                Err(error) if error.is(&Reason::DeadlineExceeded) => {
                    println!("deadline: over after 200 ms");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn pages(&self) -> Result<(), client::Error> {
        for first_name in ["Blaise", "Charles"] {
            let (first_name, last_name) = (Some(first_name.to_owned()), Some(self.last_name.clone()));
            let profile = Profile { first_name, last_name, ..Default::default() };
            self.client.call(CreateProfileRequest { profile: Some(profile), ..Default::default() }).await?;
        }
        let list = ListProfilesRequest { name_prefix: self.last_name.clone(), page_size: 2, ..Default::default() };
        let (mut pages, mut number) = (self.client.pages(list), 0);
        while let Some(page) = pages.try_next().await? {
            number += 1;
            let names: Vec<_> = page.profiles.iter().map(Profile::first_name).collect();
            println!("list: page {number}: {}", names.join(", "));
        }
        Ok(())
    }

    async fn watch(&self, id: &str) -> Result<(), Box<dyn Error>> {
        let mut messages = self.client.watch(WatchProfilesRequest { skip_existing: true, ..Default::default() });
        messages.try_next().await?; // comes at once: what changes from now on is seen
        let patch = Profile { id: id.to_owned(), city: Some("Boston".to_owned()), ..Default::default() };
        self.change(patch, &["city"]).await?;
        let seen = see_change(&mut messages, id, 0).await?;
        drop(messages); // as if the program had ended; a lost connection is made up for by the stream itself
        let patch = Profile { id: id.to_owned(), state: Some("MA".to_owned()), ..Default::default() };
        self.change(patch, &["state"]).await?;
        let mut resume = WatchProfilesRequest { resume_token: seen.resume_token, ..Default::default() };
        loop {
            match see_change(&mut self.client.watch(resume), id, seen.revision).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is(&Reason::ResumeTokenExpired) => resume = WatchProfilesRequest::default(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Waits for a change of a profile that is newer than a revision.
async fn see_change(
    messages: &mut client::Messages<WatchProfilesResponse>,
    id: &str,
    revision: i64,
) -> Result<WatchProfilesResponse, client::Error> {
    loop {
        let message = messages.try_next().await?.expect("a watch ends with an error alone");
        if message.profile_id == id && message.revision > revision {
            println!("watch: revision {} changed {}", message.revision, message.fields.join(", "));
            return Ok(message);
        }
    }
}

fn describe(profile: &Profile) -> String {
    let state = profile.state.as_deref().unwrap_or("none");
    format!("{}, city {}, state {state}, country {}", profile.first_name(), profile.city(), profile.country())
}
