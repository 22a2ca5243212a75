// A client of profile-service. It tells the story of ../README.md and prints ../expected.txt.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	pb "example/gen/profiles/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // without it the health check of the service config is ignored
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	deadline = 5 * time.Second // for each call
	attempts = 5
)

// What the service says where a call may have been made, or a stream can go on.
var repeatable = []string{"OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED", "STREAM_ENDED"}

// What the library says where the connection ended: the call may have been made.
var lost = []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal}

// detail finds the detail of a type in an error; nil where there is none.
func detail[T proto.Message](err error) (found T) {
	for _, each := range status.Convert(err).Details() {
		if detail, ok := each.(T); ok {
			return detail
		}
	}
	return found
}

// reason is empty where the connection failed and the service did not answer.
func reason(err error) string {
	return detail[*errdetails.ErrorInfo](err).GetReason()
}

// delay is after what time the same request may be sent again, if ever. failures is how many were before.
func delay(err error, failures int) (time.Duration, bool) {
	var wait time.Duration
	why := reason(err)
	if retry := detail[*errdetails.RetryInfo](err); retry != nil {
		wait = retry.GetRetryDelay().AsDuration()
	} else if slices.Contains(repeatable, why) || why == "" && slices.Contains(lost, status.Code(err)) {
		wait = min(time.Second<<failures, 30*time.Second)
	} else {
		return 0, false
	}
	return wait + mathrand.N(wait/2+1), true // at random, so that clients do not come back all at once
}

type method[Request, Response any] func(context.Context, *Request, ...grpc.CallOption) (*Response, error)

// read calls a method that the service config repeats.
func read[Request, Response any](ctx context.Context, call method[Request, Response], request *Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	return call(ctx, request)
}

// write calls a method whose request has a request id, or that ends alike when it is repeated.
func write[Request, Response any](ctx context.Context, call method[Request, Response], request *Request) (*Response, error) {
	for failures := 0; ; failures++ {
		response, err := read(ctx, call, request)
		if err == nil {
			return response, nil
		}
		wait, ok := delay(err, failures)
		if !ok || failures == attempts-1 {
			return nil, err
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

func newID() string {
	id := make([]byte, 16)
	rand.Read(id)
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // a UUIDv4
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

func describe(profile *pb.Profile) string {
	state := cmp.Or(profile.GetState(), "none")
	return fmt.Sprintf("%s, city %s, state %s, country %s", profile.GetFirstName(), profile.GetCity(), state, profile.GetCountry())
}

type story struct {
	profiles pb.ProfileServiceClient
	query    pb.ProfileQueryServiceClient
	cases    pb.CaseServiceClient
	keys     pb.KeyServiceClient
	lastName string
}

func (s *story) tell(ctx context.Context) error {
	if err := s.key(ctx); err != nil {
		return err
	}
	id, err := s.create(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, string) error{
		s.read, s.patch, s.readModifyWrite, s.locked, s.deadline, s.pages, s.watch,
	} {
		if err := step(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// change changes the named fields and no other; one that is named and absent is cleared.
func (s *story) change(ctx context.Context, profile *pb.Profile, paths ...string) (*pb.Profile, error) {
	mask := &fieldmaskpb.FieldMask{Paths: paths}
	request := &pb.PatchProfileRequest{Profile: profile, UpdateMask: mask, RequestId: newID()}
	return write(ctx, s.profiles.PatchProfile, request)
}

func (s *story) key(ctx context.Context) error {
	key, err := read(ctx, s.keys.GetCurrentKey, &pb.GetCurrentKeyRequest{})
	if err != nil {
		return err
	}
	fmt.Println("key:", strings.Join(key.Scopes, ", "))
	return nil
}

func (s *story) create(ctx context.Context) (string, error) {
	ada := &pb.Profile{
		FirstName: proto.String("Ada"),
		LastName:  &s.lastName,
		Dob:       proto.String("1995-10-01"),
		Address:   proto.String("1 Main Street"),
		City:      proto.String("New York"),
		State:     proto.String("NY"),
		Country:   proto.String("US"),
	}
	request := &pb.CreateProfileRequest{Profile: ada, RequestId: newID()}
	created, err := write(ctx, s.profiles.CreateProfile, request)
	if err != nil {
		return "", err
	}
	repeated, err := write(ctx, s.profiles.CreateProfile, request) // as if the first answer had been lost
	if err != nil {
		return "", err
	}
	same := "another profile"
	if created.Id == repeated.Id {
		same = "the same profile"
	}
	fmt.Printf("create: %s, %s twice\n", created.GetFirstName(), same)
	return created.Id, nil
}

func (s *story) read(ctx context.Context, id string) error {
	profile, err := read(ctx, s.profiles.GetProfile, &pb.GetProfileRequest{Id: id})
	if err != nil {
		return err
	}
	fmt.Println("read:", describe(profile))
	return nil
}

func (s *story) patch(ctx context.Context, id string) error {
	patched, err := s.change(ctx, &pb.Profile{Id: id, City: proto.String("Washington")}, "city", "state")
	if err != nil {
		return err
	}
	fmt.Println("patch:", describe(patched))
	return nil
}

// readModifyWrite patches what it has read, until nobody came between. A replace would clear fields that it does not know.
func (s *story) readModifyWrite(ctx context.Context, id string) error {
	for attempt := range attempts {
		current, err := read(ctx, s.profiles.GetProfile, &pb.GetProfileRequest{Id: id})
		if err != nil {
			return err
		}
		if attempt == 0 { // another writer comes between
			if _, err := s.change(ctx, &pb.Profile{Id: id, Address: proto.String("2 Main Street")}, "address"); err != nil {
				return err
			}
		}
		address := current.GetAddress() + ", Floor 2"
		changed, err := s.change(ctx, &pb.Profile{Id: id, Etag: current.Etag, Address: &address}, "address")
		if err == nil {
			fmt.Println("etag: address", changed.GetAddress())
			return nil
		}
		if reason(err) != "ETAG_MISMATCH" {
			return err
		}
		fmt.Println("etag: ETAG_MISMATCH, read again")
	}
	return errors.New("others change this profile all the time")
}

func (s *story) locked(ctx context.Context, id string) error {
	report := &pb.ReportCaseStatusRequest{
		CaseId:     newID(),
		ProfileId:  id,
		Status:     pb.Case_ASSIGNED,
		StatusTime: timestamppb.Now(),
	}
	if _, err := write(ctx, s.cases.ReportCaseStatus, report); err != nil {
		return err
	}
	_, err := s.change(ctx, &pb.Profile{Id: id, Dob: proto.String("1995-01-10")}, "dob")
	fmt.Println("locked:", reason(err))
	for _, violation := range detail[*errdetails.PreconditionFailure](err).GetViolations() {
		fmt.Printf("locked: %s: %s\n", violation.Subject, violation.Description)
	}
	return nil
}

func (s *story) deadline(ctx context.Context, _ string) error {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	stream, err := s.query.WatchProfiles(ctx, &pb.WatchProfilesRequest{SkipExisting: true})
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		return err
	}
	fmt.Println("deadline: over after 200 ms")
	return nil
}

func (s *story) pages(ctx context.Context, _ string) error {
	for _, firstName := range []string{"Blaise", "Charles"} {
		profile := &pb.Profile{FirstName: &firstName, LastName: &s.lastName}
		request := &pb.CreateProfileRequest{Profile: profile, RequestId: newID()}
		if _, err := write(ctx, s.profiles.CreateProfile, request); err != nil {
			return err
		}
	}
	request := &pb.ListProfilesRequest{NamePrefix: s.lastName, PageSize: 2}
	for number := 1; ; number++ {
		page, err := read(ctx, s.query.ListProfiles, request)
		if err != nil {
			return err
		}
		var names []string
		for _, profile := range page.Profiles {
			names = append(names, profile.GetFirstName())
		}
		fmt.Printf("list: page %d: %s\n", number, strings.Join(names, ", "))
		if page.NextPageToken == "" {
			return nil
		}
		request.PageToken = page.NextPageToken
	}
}

func (s *story) watch(ctx context.Context, id string) error {
	var seen *pb.WatchProfilesResponse
	first := true
	for message, err := range s.follow(ctx, "") {
		if err != nil {
			return err
		}
		if first { // it comes at once: what changes from now on is seen
			first = false
			if _, err := s.change(ctx, &pb.Profile{Id: id, City: proto.String("Boston")}, "city"); err != nil {
				return err
			}
		}
		if message.ProfileId == id {
			seen = message
			break // as if the connection were lost, or the program had ended; the token is what it keeps
		}
	}
	show(seen)
	if _, err := s.change(ctx, &pb.Profile{Id: id, State: proto.String("MA")}, "state"); err != nil {
		return err
	}
	for message, err := range s.follow(ctx, seen.ResumeToken) {
		if err != nil {
			return err
		}
		if message.ProfileId == id && message.Revision > seen.Revision { // a change may be sent twice
			show(message)
			break
		}
	}
	return nil
}

func show(message *pb.WatchProfilesResponse) {
	fmt.Printf("watch: revision %d changed %s\n", message.Revision, strings.Join(message.Fields, ", "))
}

// follow yields all changes from now on, or after a token, over as many streams as it takes.
func (s *story) follow(ctx context.Context, token string) iter.Seq2[*pb.WatchProfilesResponse, error] {
	return func(yield func(*pb.WatchProfilesResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the stream where the loop is left
		request := &pb.WatchProfilesRequest{ResumeToken: token, SkipExisting: token == ""}
		for failures := 0; ; failures++ {
			stream, err := s.query.WatchProfiles(ctx, request)
			for err == nil {
				var message *pb.WatchProfilesResponse
				if message, err = stream.Recv(); err == nil {
					if !yield(message, nil) {
						return
					}
					failures = 0
					request = &pb.WatchProfilesRequest{ResumeToken: message.ResumeToken}
				}
			}
			if reason(err) == "RESUME_TOKEN_EXPIRED" {
				request = &pb.WatchProfilesRequest{} // from the beginning
				continue
			}
			wait, ok := delay(err, failures)
			if ok && failures == 0 && detail[*errdetails.RetryInfo](err) == nil {
				wait = 0 // the first time at once: streams end with their connection
			}
			if !ok || sleep(ctx, wait) != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// apiKey sends the key with each call.
type apiKey string

func (key apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"cv-api-key": string(key)}, nil
}

func (apiKey) RequireTransportSecurity() bool { return false } // true where the server has TLS

func run(ctx context.Context) error {
	// Balances, avoids replicas that are not well, and repeats reads. Writes are repeated by write, never by both.
	config, err := os.ReadFile("../service_config.json")
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(
		cmp.Or(os.Getenv("ADDRESS"), "127.0.0.1:50051"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(apiKey(os.Getenv("KEY"))),
		grpc.WithDefaultServiceConfig(string(config)),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	story := &story{
		profiles: pb.NewProfileServiceClient(connection),
		query:    pb.NewProfileQueryServiceClient(connection),
		cases:    pb.NewCaseServiceClient(connection),
		keys:     pb.NewKeyServiceClient(connection),
		lastName: fmt.Sprintf("Example %d", mathrand.IntN(1e9)),
	}
	return story.tell(ctx)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}
