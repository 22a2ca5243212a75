"""A client of profile-service. It tells the story of ../README.md and prints ../expected.txt."""

import os
import random
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from profiles.v1.case_service_pb2 import Case, ReportCaseStatusRequest
from profiles.v1.case_service_pb2_grpc import CaseServiceStub
from profiles.v1.key_service_pb2 import GetCurrentKeyRequest
from profiles.v1.key_service_pb2_grpc import KeyServiceStub
from profiles.v1.profile_pb2 import Profile
from profiles.v1.profile_query_service_pb2 import ListProfilesRequest, WatchProfilesRequest
from profiles.v1.profile_query_service_pb2_grpc import ProfileQueryServiceStub
from profiles.v1.profile_service_pb2 import CreateProfileRequest, GetProfileRequest, PatchProfileRequest
from profiles.v1.profile_service_pb2_grpc import ProfileServiceStub

ADDRESS = os.environ.get("ADDRESS", "127.0.0.1:50051")
KEY = [("cv-api-key", os.environ["KEY"])]

# Balances, avoids replicas that are not well, and repeats reads. Writes are repeated by `write`, never by both.
SERVICE_CONFIG = Path(__file__).resolve().parent.parent / "service_config.json"

DEADLINE = 5  # seconds, for each call
ATTEMPTS = 5

# What the service says where a call may have been made, or a stream can go on.
REPEATABLE = {"OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED", "STREAM_ENDED"}
# What the library says where the connection ended: the call may have been made.
LOST = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"}


def details(error):
    """The details of an error by their names; none where the connection failed and the service did not answer."""
    status = rpc_status.from_call(error)
    found = {}
    for detail in status.details if status else []:
        name = detail.TypeName().removeprefix("google.rpc.")
        if kind := getattr(error_details_pb2, name, None):
            found[name] = kind.FromString(detail.value)
    return found


def reason(error):
    info = details(error).get("ErrorInfo")
    return info.reason if info else None


def delay(error, failures):
    """After how many seconds the same request may be sent again, None for never. `failures`: how many were before."""
    retry = details(error).get("RetryInfo")
    if retry:
        seconds = retry.retry_delay.ToTimedelta().total_seconds()
    elif reason(error) in REPEATABLE or (reason(error) is None and error.code().name in LOST):
        seconds = min(2**failures, 30)
    else:
        return None
    return seconds * random.uniform(1, 1.5)  # at random, so that clients do not come back all at once


def write(method, request):
    """Calls a method whose request has a request id, or that ends alike when it is repeated."""
    for failures in range(ATTEMPTS):
        try:
            return method(request, metadata=KEY, timeout=DEADLINE)
        except grpc.RpcError as error:
            seconds = delay(error, failures)
            if seconds is None or failures == ATTEMPTS - 1:
                raise
            time.sleep(seconds)


def new_id():
    return str(uuid.uuid4())


def describe(profile):
    state = profile.state if profile.HasField("state") else "none"
    return f"{profile.first_name}, city {profile.city}, state {state}, country {profile.country}"


class Story:
    def __init__(self, channel):
        self.profiles = ProfileServiceStub(channel)
        self.query = ProfileQueryServiceStub(channel)
        self.cases = CaseServiceStub(channel)
        self.keys = KeyServiceStub(channel)
        self.last_name = f"Example {random.randrange(10**9)}"

    def tell(self):
        self.key()
        profile_id = self.create()
        self.read(profile_id)
        self.patch(profile_id)
        self.read_modify_write(profile_id)
        self.locked(profile_id)
        self.deadline()
        self.pages()
        self.watch(profile_id)

    def get(self, profile_id):
        return self.profiles.GetProfile(GetProfileRequest(id=profile_id), metadata=KEY, timeout=DEADLINE)

    def change(self, profile, *paths):
        """Changes the named fields and no other; one that is named and absent is cleared."""
        request = PatchProfileRequest(profile=profile, update_mask=FieldMask(paths=paths), request_id=new_id())
        return write(self.profiles.PatchProfile, request)

    def key(self):
        key = self.keys.GetCurrentKey(GetCurrentKeyRequest(), metadata=KEY, timeout=DEADLINE)
        print("key:", ", ".join(key.scopes))

    def create(self):
        ada = Profile(
            first_name="Ada",
            last_name=self.last_name,
            dob="1995-10-01",
            address="1 Main Street",
            city="New York",
            state="NY",
            country="US",
        )
        request = CreateProfileRequest(profile=ada, request_id=new_id())
        created = write(self.profiles.CreateProfile, request)
        repeated = write(self.profiles.CreateProfile, request)  # as if the first answer had been lost
        same = "the same profile" if created.id == repeated.id else "another profile"
        print(f"create: {created.first_name}, {same} twice")
        return created.id

    def read(self, profile_id):
        print("read:", describe(self.get(profile_id)))

    def patch(self, profile_id):
        print("patch:", describe(self.change(Profile(id=profile_id, city="Washington"), "city", "state")))

    def read_modify_write(self, profile_id):
        """Patches what it has read, until nobody came between. A replace would clear fields that it does not know."""
        for attempt in range(ATTEMPTS):
            read = self.get(profile_id)
            if attempt == 0:  # another writer comes between
                self.change(Profile(id=profile_id, address="2 Main Street"), "address")
            changed = Profile(id=profile_id, etag=read.etag, address=f"{read.address}, Floor 2")
            try:
                print("etag: address", self.change(changed, "address").address)
                return
            except grpc.RpcError as error:
                if reason(error) != "ETAG_MISMATCH":
                    raise
                print("etag: ETAG_MISMATCH, read again")
        raise RuntimeError("others change this profile all the time")

    def locked(self, profile_id):
        report = ReportCaseStatusRequest(case_id=new_id(), profile_id=profile_id, status=Case.ASSIGNED)
        report.status_time.FromDatetime(datetime.now(timezone.utc))
        write(self.cases.ReportCaseStatus, report)
        try:
            self.change(Profile(id=profile_id, dob="1995-01-10"), "dob")
        except grpc.RpcError as error:
            print("locked:", reason(error))
            for violation in details(error)["PreconditionFailure"].violations:
                print(f"locked: {violation.subject}: {violation.description}")

    def deadline(self):
        try:
            for _ in self.query.WatchProfiles(WatchProfilesRequest(skip_existing=True), metadata=KEY, timeout=0.2):
                pass
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            print("deadline: over after 200 ms")

    def pages(self):
        for first_name in ("Blaise", "Charles"):
            profile = Profile(first_name=first_name, last_name=self.last_name)
            write(self.profiles.CreateProfile, CreateProfileRequest(profile=profile, request_id=new_id()))
        request = ListProfilesRequest(name_prefix=self.last_name, page_size=2)
        number = 0
        while number == 0 or request.page_token:
            page = self.query.ListProfiles(request, metadata=KEY, timeout=DEADLINE)
            number += 1
            print(f"list: page {number}:", ", ".join(profile.first_name for profile in page.profiles))
            request.page_token = page.next_page_token

    def watch(self, profile_id):
        stream = self.follow()
        next(stream)  # comes at once: what changes from now on is seen
        self.change(Profile(id=profile_id, city="Boston"), "city")
        token, revision = self.see_change(stream, profile_id, 0)
        stream.close()  # as if the connection were lost, or the program had ended; the token is what it keeps
        self.change(Profile(id=profile_id, state="MA"), "state")
        self.see_change(self.follow(token), profile_id, revision)

    def see_change(self, stream, profile_id, revision):
        """Waits for a change of a profile that is newer than a revision; the token goes on after it."""
        for message in stream:
            if message.profile_id == profile_id and message.revision > revision:
                print(f"watch: revision {message.revision} changed {', '.join(message.fields)}")
                return message.resume_token, message.revision

    def follow(self, token=""):
        """All changes from now on, or after a token, over as many streams as it takes."""
        request = WatchProfilesRequest(resume_token=token, skip_existing=not token)
        failures = 0
        while True:
            stream = self.query.WatchProfiles(request, metadata=KEY)
            try:
                for message in stream:
                    failures = 0
                    yield message
                    request = WatchProfilesRequest(resume_token=message.resume_token)
            except grpc.RpcError as error:
                if reason(error) == "RESUME_TOKEN_EXPIRED":
                    request = WatchProfilesRequest()  # from the beginning
                    continue
                seconds = delay(error, failures)
                if seconds is None:
                    raise
                if failures or "RetryInfo" in details(error):  # the first time at once: streams end with their connection
                    time.sleep(seconds)
                failures += 1
            finally:
                stream.cancel()


def main():
    options = [("grpc.service_config", SERVICE_CONFIG.read_text())]
    with grpc.insecure_channel(ADDRESS, options) as channel:
        Story(channel).tell()


main()
