package example;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import com.google.protobuf.Any;
import com.google.protobuf.FieldMask;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.Durations;
import com.google.protobuf.util.Timestamps;
import com.google.rpc.ErrorInfo;
import com.google.rpc.PreconditionFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import profiles.v1.Case;
import profiles.v1.CaseServiceGrpc;
import profiles.v1.CaseServiceGrpc.CaseServiceBlockingStub;
import profiles.v1.CreateProfileRequest;
import profiles.v1.GetCurrentKeyRequest;
import profiles.v1.GetProfileRequest;
import profiles.v1.KeyServiceGrpc;
import profiles.v1.KeyServiceGrpc.KeyServiceBlockingStub;
import profiles.v1.ListProfilesRequest;
import profiles.v1.ListProfilesResponse;
import profiles.v1.PatchProfileRequest;
import profiles.v1.Profile;
import profiles.v1.ProfileQueryServiceGrpc;
import profiles.v1.ProfileQueryServiceGrpc.ProfileQueryServiceBlockingStub;
import profiles.v1.ProfileServiceGrpc;
import profiles.v1.ProfileServiceGrpc.ProfileServiceBlockingStub;
import profiles.v1.ReportCaseStatusRequest;
import profiles.v1.WatchProfilesRequest;
import profiles.v1.WatchProfilesResponse;

/** A client of profile-service. It tells the story of ../README.md and prints ../expected.txt. */
public final class Client {
  private static final int DEADLINE_SECONDS = 5; // for each call
  private static final int ATTEMPTS = 5;

  /** What the service says where a call may have been made, or a stream can go on. */
  private static final Set<String> REPEATABLE = Set.of("OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED", "STREAM_ENDED");

  /** What the library says where the connection ended: the call may have been made. */
  private static final Set<Status.Code> LOST =
      EnumSet.of(
          Status.Code.UNAVAILABLE,
          Status.Code.DEADLINE_EXCEEDED,
          Status.Code.CANCELLED,
          Status.Code.UNKNOWN,
          Status.Code.INTERNAL);

  private final ProfileServiceBlockingStub profiles;
  private final ProfileQueryServiceBlockingStub query;
  private final CaseServiceBlockingStub cases;
  private final KeyServiceBlockingStub keys;
  private final String lastName = "Example " + ThreadLocalRandom.current().nextInt(1_000_000_000);

  private Client(ManagedChannel channel, String key) {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("cv-api-key", Metadata.ASCII_STRING_MARSHALLER), key);
    var authenticate = MetadataUtils.newAttachHeadersInterceptor(headers);
    profiles = ProfileServiceGrpc.newBlockingStub(channel).withInterceptors(authenticate);
    query = ProfileQueryServiceGrpc.newBlockingStub(channel).withInterceptors(authenticate);
    cases = CaseServiceGrpc.newBlockingStub(channel).withInterceptors(authenticate);
    keys = KeyServiceGrpc.newBlockingStub(channel).withInterceptors(authenticate);
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    String address = Optional.ofNullable(System.getenv("ADDRESS")).orElse("127.0.0.1:50051");
    // Balances, avoids replicas that are not well, and repeats reads. Writes are repeated by `write`, never by both.
    String json = Files.readString(Path.of("../service_config.json"));
    Map<String, ?> serviceConfig = new Gson().fromJson(json, new TypeToken<Map<String, Object>>() {});
    ManagedChannel channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create())
            .defaultServiceConfig(serviceConfig)
            .build();
    try {
      new Client(channel, System.getenv("KEY")).tell();
    } finally {
      channel.shutdownNow();
    }
  }

  /** The detail of a kind in an error, if there is one. */
  private static <T extends Message> Optional<T> detail(StatusRuntimeException error, Class<T> kind) {
    try {
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(kind)) {
          return Optional.of(detail.unpack(kind));
        }
      }
      return Optional.empty();
    } catch (InvalidProtocolBufferException unreadable) {
      return Optional.empty();
    }
  }

  /** Empty where the connection failed and the service did not answer. */
  private static String reason(StatusRuntimeException error) {
    return detail(error, ErrorInfo.class).map(ErrorInfo::getReason).orElse("");
  }

  /**
   * After how many milliseconds the same request may be sent again; throws the error where it may not.
   *
   * @param failures how many were before
   */
  private static long delay(StatusRuntimeException error, int failures) {
    Optional<RetryInfo> retry = detail(error, RetryInfo.class);
    String reason = reason(error);
    long millis;
    if (retry.isPresent()) {
      millis = Durations.toMillis(retry.get().getRetryDelay());
    } else if (reason.isEmpty() ? LOST.contains(error.getStatus().getCode()) : REPEATABLE.contains(reason)) {
      millis = Math.min(1000L << Math.min(failures, 5), 30_000);
    } else {
      throw error;
    }
    // At random, so that clients do not come back all at once.
    return millis + ThreadLocalRandom.current().nextLong(millis / 2 + 1);
  }

  /** Makes a call whose request has a request id, or that ends alike when it is repeated. */
  private static <T> T write(Supplier<T> call) throws InterruptedException {
    for (int failures = 0; ; failures++) {
      try {
        return call.get();
      } catch (StatusRuntimeException error) {
        if (failures == ATTEMPTS - 1) {
          throw error;
        }
        Thread.sleep(delay(error, failures));
      }
    }
  }

  private static String newId() {
    return UUID.randomUUID().toString();
  }

  private static String describe(Profile profile) {
    String state = profile.hasState() ? profile.getState() : "none";
    return "%s, city %s, state %s, country %s"
        .formatted(profile.getFirstName(), profile.getCity(), state, profile.getCountry());
  }

  private void tell() throws InterruptedException {
    showKey();
    String id = showCreate();
    System.out.println("read: " + describe(get(id)));
    System.out.println("patch: " + describe(change(profile(id).setCity("Washington"), "city", "state")));
    readModifyWrite(id);
    showLock(id);
    showDeadline();
    showPages();
    showWatch(id);
  }

  /** With the deadline of each call. */
  private ProfileServiceBlockingStub profiles() {
    return profiles.withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  private static Profile.Builder profile(String id) {
    return Profile.newBuilder().setId(id);
  }

  private Profile create(Profile.Builder profile, String requestId) throws InterruptedException {
    var request = CreateProfileRequest.newBuilder().setProfile(profile).setRequestId(requestId).build();
    return write(() -> profiles().createProfile(request));
  }

  private Profile get(String id) {
    return profiles().getProfile(GetProfileRequest.newBuilder().setId(id).build());
  }

  /** Changes the named fields and no other; one that is named and absent is cleared. */
  private Profile change(Profile.Builder profile, String... paths) throws InterruptedException {
    var mask = FieldMask.newBuilder().addAllPaths(List.of(paths));
    var request =
        PatchProfileRequest.newBuilder().setProfile(profile).setUpdateMask(mask).setRequestId(newId()).build();
    return write(() -> profiles().patchProfile(request));
  }

  private void showKey() {
    var key =
        keys.withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS)
            .getCurrentKey(GetCurrentKeyRequest.getDefaultInstance());
    System.out.println("key: " + String.join(", ", key.getScopesList()));
  }

  private String showCreate() throws InterruptedException {
    var ada =
        Profile.newBuilder()
            .setFirstName("Ada")
            .setLastName(lastName)
            .setDob("1995-10-01")
            .setAddress("1 Main Street")
            .setCity("New York")
            .setState("NY")
            .setCountry("US");
    String requestId = newId();
    Profile created = create(ada, requestId);
    Profile repeated = create(ada, requestId); // as if the first answer had been lost
    String same = created.getId().equals(repeated.getId()) ? "the same profile" : "another profile";
    System.out.println("create: " + created.getFirstName() + ", " + same + " twice");
    return created.getId();
  }

  /** Patches what it has read, until nobody came between. A replace would clear fields that it does not know. */
  private void readModifyWrite(String id) throws InterruptedException {
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
      Profile read = get(id);
      if (attempt == 0) { // another writer comes between
        change(profile(id).setAddress("2 Main Street"), "address");
      }
      try {
        var changed = profile(id).setEtag(read.getEtag()).setAddress(read.getAddress() + ", Floor 2");
        System.out.println("etag: address " + change(changed, "address").getAddress());
        return;
      } catch (StatusRuntimeException error) {
        if (!reason(error).equals("ETAG_MISMATCH")) {
          throw error;
        }
        System.out.println("etag: ETAG_MISMATCH, read again");
      }
    }
    throw new IllegalStateException("others change this profile all the time");
  }

  private void showLock(String id) throws InterruptedException {
    var report =
        ReportCaseStatusRequest.newBuilder()
            .setCaseId(newId())
            .setProfileId(id)
            .setStatus(Case.Status.ASSIGNED)
            .setStatusTime(Timestamps.now())
            .build();
    write(() -> cases.withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS).reportCaseStatus(report));
    try {
      change(profile(id).setDob("1995-01-10"), "dob");
    } catch (StatusRuntimeException error) {
      System.out.println("locked: " + reason(error));
      for (var violation : detail(error, PreconditionFailure.class).orElseThrow().getViolationsList()) {
        System.out.println("locked: " + violation.getSubject() + ": " + violation.getDescription());
      }
    }
  }

  private void showDeadline() {
    var request = WatchProfilesRequest.newBuilder().setSkipExisting(true).build();
    try {
      query.withDeadlineAfter(200, TimeUnit.MILLISECONDS).watchProfiles(request).forEachRemaining(message -> {});
    } catch (StatusRuntimeException error) {
      if (error.getStatus().getCode() != Status.Code.DEADLINE_EXCEEDED) {
        throw error;
      }
      System.out.println("deadline: over after 200 ms");
    }
  }

  private void showPages() throws InterruptedException {
    for (String firstName : List.of("Blaise", "Charles")) {
      create(Profile.newBuilder().setFirstName(firstName).setLastName(lastName), newId());
    }
    var request = ListProfilesRequest.newBuilder().setNamePrefix(lastName).setPageSize(2);
    int number = 0;
    do {
      ListProfilesResponse page =
          query.withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS).listProfiles(request.build());
      String names = page.getProfilesList().stream().map(Profile::getFirstName).collect(Collectors.joining(", "));
      System.out.println("list: page " + ++number + ": " + names);
      request.setPageToken(page.getNextPageToken());
    } while (!request.getPageToken().isEmpty());
  }

  private void showWatch(String id) throws InterruptedException {
    WatchProfilesResponse seen;
    try (var watch = new Watch("")) {
      watch.next(); // comes at once: what changes from now on is seen
      change(profile(id).setCity("Boston"), "city");
      seen = watch.nextChange(id, 0);
    } // as if the connection were lost, or the program had ended; the token is what it keeps
    change(profile(id).setState("MA"), "state");
    try (var watch = new Watch(seen.getResumeToken())) {
      watch.nextChange(id, seen.getRevision());
    }
  }

  /** All changes from now on, or after a token, over as many streams as it takes. */
  private final class Watch implements AutoCloseable {
    private final Context.CancellableContext context = Context.current().withCancellation();
    private WatchProfilesRequest request;
    private Iterator<WatchProfilesResponse> stream;
    private int failures;

    Watch(String token) {
      request = WatchProfilesRequest.newBuilder().setResumeToken(token).setSkipExisting(token.isEmpty()).build();
    }

    WatchProfilesResponse next() throws InterruptedException {
      while (true) {
        try {
          if (stream == null) {
            context.run(() -> stream = query.watchProfiles(request));
          }
          WatchProfilesResponse message = stream.next();
          failures = 0;
          request = WatchProfilesRequest.newBuilder().setResumeToken(message.getResumeToken()).build();
          return message;
        } catch (StatusRuntimeException error) {
          stream = null;
          if (reason(error).equals("RESUME_TOKEN_EXPIRED")) {
            request = WatchProfilesRequest.getDefaultInstance(); // from the beginning
            continue;
          }
          long millis = delay(error, failures);
          // The first time at once: streams end with their connection.
          if (failures > 0 || detail(error, RetryInfo.class).isPresent()) {
            Thread.sleep(millis);
          }
          failures++;
        }
      }
    }

    /** A change of a profile that is newer than a revision. */
    WatchProfilesResponse nextChange(String id, long revision) throws InterruptedException {
      while (true) {
        WatchProfilesResponse message = next();
        if (message.getProfileId().equals(id) && message.getRevision() > revision) {
          System.out.println(
              "watch: revision " + message.getRevision() + " changed " + String.join(", ", message.getFieldsList()));
          return message;
        }
      }
    }

    @Override
    public void close() {
      context.cancel(null);
    }
  }
}
