// A client of profile-service. It tells the story of ../README.md and prints ../expected.txt.

import { randomInt, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema, PreconditionFailureSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.ts";
import { Case_Status, CaseService } from "./gen/profiles/v1/case_service_pb.ts";
import { KeyService } from "./gen/profiles/v1/key_service_pb.ts";
import { type Profile, ProfileSchema } from "./gen/profiles/v1/profile_pb.ts";
import { ProfileQueryService, type WatchProfilesResponse } from "./gen/profiles/v1/profile_query_service_pb.ts";
import { ProfileService } from "./gen/profiles/v1/profile_service_pb.ts";

const ADDRESS = process.env.ADDRESS ?? "127.0.0.1:50051";
const KEY = process.env.KEY ?? "";
const DEADLINE_MS = 5000; // for each call
const ATTEMPTS = 5;

// What the service says where a call may have been made, or a stream can go on.
const REPEATABLE = ["OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED", "STREAM_ENDED"];
// What the library says where the connection ended: the call may have been made.
const LOST = [Code.Unavailable, Code.DeadlineExceeded, Code.Canceled, Code.Unknown, Code.Internal];

const authenticate: Interceptor = (next) => (request) => {
  request.header.set("cv-api-key", KEY);
  return next(request);
};
const transport = createGrpcTransport({
  baseUrl: `http://${ADDRESS}`,
  defaultTimeoutMs: DEADLINE_MS,
  interceptors: [authenticate],
});
const profiles = createClient(ProfileService, transport);
const query = createClient(ProfileQueryService, transport);
const cases = createClient(CaseService, transport);
const keys = createClient(KeyService, transport);

/** Undefined where the connection failed and the service did not answer. */
function reason(error: ConnectError): string | undefined {
  return error.findDetails(ErrorInfoSchema)[0]?.reason;
}

/** After how many milliseconds the same request may be sent again, undefined for never. `failures`: how many before. */
function delay(error: ConnectError, failures: number): number | undefined {
  const retry = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const why = reason(error);
  let ms: number;
  if (retry) {
    ms = Number(retry.seconds) * 1000 + retry.nanos / 1e6;
  } else if (why ? REPEATABLE.includes(why) : LOST.includes(error.code)) {
    ms = Math.min(2 ** failures, 30) * 1000;
  } else {
    return undefined;
  }
  return ms * (1 + Math.random() / 2); // at random, so that clients do not come back all at once
}

/** Makes a call that reads, has a request id, or ends alike when it is repeated. This library repeats none by itself. */
async function repeat<T>(call: () => Promise<T>): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await call();
    } catch (error) {
      const ms = delay(ConnectError.from(error), failures);
      if (ms === undefined || failures === ATTEMPTS - 1) throw error;
      await sleep(ms);
    }
  }
}

function createProfile(profile: MessageInitShape<typeof ProfileSchema>, requestId: string = randomUUID()): Promise<Profile> {
  return repeat(() => profiles.createProfile({ profile, requestId }));
}

function getProfile(id: string): Promise<Profile> {
  return repeat(() => profiles.getProfile({ id }));
}

/** Changes the named fields and no other; one that is named and absent is cleared. */
function change(profile: MessageInitShape<typeof ProfileSchema>, ...paths: string[]): Promise<Profile> {
  const requestId = randomUUID();
  return repeat(() => profiles.patchProfile({ profile, updateMask: { paths }, requestId }));
}

function describe(profile: Profile): string {
  return `${profile.firstName}, city ${profile.city}, state ${profile.state ?? "none"}, country ${profile.country}`;
}

async function showKey(): Promise<void> {
  const key = await repeat(() => keys.getCurrentKey({}));
  console.log(`key: ${key.scopes.join(", ")}`);
}

async function showCreate(lastName: string): Promise<string> {
  const ada = {
    firstName: "Ada",
    lastName,
    dob: "1995-10-01",
    address: "1 Main Street",
    city: "New York",
    state: "NY",
    country: "US",
  };
  const requestId = randomUUID();
  const created = await createProfile(ada, requestId);
  const repeated = await createProfile(ada, requestId); // as if the first answer had been lost
  const same = created.id === repeated.id ? "the same profile" : "another profile";
  console.log(`create: ${created.firstName}, ${same} twice`);
  return created.id;
}

/** Patches what it has read, until nobody came between. A replace would clear fields that it does not know. */
async function readModifyWrite(id: string): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { address, etag } = await getProfile(id);
    if (attempt === 0) await change({ id, address: "2 Main Street" }, "address"); // another writer comes between
    try {
      const changed = await change({ id, etag, address: `${address}, Floor 2` }, "address");
      console.log(`etag: address ${changed.address}`);
      return;
    } catch (error) {
      if (reason(ConnectError.from(error)) !== "ETAG_MISMATCH") throw error;
      console.log("etag: ETAG_MISMATCH, read again");
    }
  }
  throw new Error("others change this profile all the time");
}

async function showLock(profileId: string): Promise<void> {
  const report = { caseId: randomUUID(), profileId, status: Case_Status.ASSIGNED, statusTime: timestampNow() };
  await repeat(() => cases.reportCaseStatus(report));
  try {
    await change({ id: profileId, dob: "1995-01-10" }, "dob");
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    console.log(`locked: ${reason(error)}`);
    for (const { subject, description } of error.findDetails(PreconditionFailureSchema)[0]?.violations ?? []) {
      console.log(`locked: ${subject}: ${description}`);
    }
  }
}

async function showDeadline(): Promise<void> {
  try {
    for await (const _ of query.watchProfiles({ skipExisting: true }, { timeoutMs: 200 }));
  } catch (error) {
    if (ConnectError.from(error).code !== Code.DeadlineExceeded) throw error;
    console.log("deadline: over after 200 ms");
  }
}

async function showPages(lastName: string): Promise<void> {
  for (const firstName of ["Blaise", "Charles"]) await createProfile({ firstName, lastName });
  let pageToken = "";
  let number = 1;
  do {
    const page = await repeat(() => query.listProfiles({ namePrefix: lastName, pageSize: 2, pageToken }));
    console.log(`list: page ${number++}: ${page.profiles.map((profile) => profile.firstName).join(", ")}`);
    pageToken = page.nextPageToken;
  } while (pageToken);
}

/** All changes from now on, or after a token, over as many streams as it takes. */
async function* follow(resumeToken = ""): AsyncGenerator<WatchProfilesResponse, never> {
  let request = { resumeToken, skipExisting: resumeToken === "" };
  for (let failures = 0; ; failures++) {
    const stop = new AbortController();
    try {
      for await (const message of query.watchProfiles(request, { timeoutMs: 0, signal: stop.signal })) {
        yield message;
        failures = 0;
        request = { resumeToken: message.resumeToken, skipExisting: false };
      }
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      if (reason(error) === "RESUME_TOKEN_EXPIRED") {
        request = { resumeToken: "", skipExisting: false }; // from the beginning
        continue;
      }
      const ms = delay(error, failures);
      if (ms === undefined) throw error;
      // The first time at once: streams end with their connection.
      if (failures > 0 || error.findDetails(RetryInfoSchema).length > 0) await sleep(ms);
    } finally {
      stop.abort(); // leaving the loop alone does not end the stream
    }
  }
}

/** Waits for a change of a profile that is newer than a revision. */
async function seeChange(
  stream: AsyncGenerator<WatchProfilesResponse, never>,
  profileId: string,
  revision: bigint,
): Promise<WatchProfilesResponse> {
  for await (const message of stream) {
    if (message.profileId === profileId && message.revision > revision) {
      console.log(`watch: revision ${message.revision} changed ${message.fields.join(", ")}`);
      return message;
    }
  }
  throw new Error("a watch has no end");
}

async function showWatch(id: string): Promise<void> {
  const stream = follow();
  await stream.next(); // comes at once: what changes from now on is seen
  await change({ id, city: "Boston" }, "city");
  const seen = await seeChange(stream, id, 0n); // leaves, as if the connection were lost; the token is what to keep
  await change({ id, state: "MA" }, "state");
  await seeChange(follow(seen.resumeToken), id, seen.revision);
}

const lastName = `Example ${randomInt(1e9)}`;
await showKey();
const id = await showCreate(lastName);
console.log(`read: ${describe(await getProfile(id))}`);
console.log(`patch: ${describe(await change({ id, city: "Washington" }, "city", "state"))}`);
await readModifyWrite(id);
await showLock(id);
await showDeadline();
await showPages(lastName);
await showWatch(id);
