// Command quickstart goes a first round with stockd: receive, reserve, lose the answer, find the hold,
// confirm, fulfil.
//
//	go generate && go run . -endpoint 127.0.0.1:7401
package main

//go:generate go run ./gen

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stock "example.com/stockd-quickstart/stock/v1"
)

const (
	store = "go-store"
	sku   = "go-umbrella"

	// How long one call may take. It is sent along, so that the cluster stops working for a caller
	// who has gone.
	callTimeout = 2 * time.Second
	// How often a call is sent before the example gives up, and the first pause between two
	// attempts. Pauses double: an election of a new leader is over after a few of them.
	attemptsMax = 6
	pauseFirst  = 50 * time.Millisecond
)

func main() {
	log.SetFlags(0)
	endpoint := flag.String("endpoint", "127.0.0.1:7401", "any node of the cluster, HOST:PORT")
	flag.Parse()
	if err := quickstart(*endpoint); err != nil {
		explain(err)
		log.Fatalf("the cluster at %s did not do that", *endpoint)
	}
}

// newRequestID names a request. The time in a UUIDv7 lets the cluster forget old ids safely.
func newRequestID() string { return uuid.Must(uuid.NewV7()).String() }

// call sends a request until it is answered, every time under the same request id. That is what makes
// it safe: where the first attempt was done and only its answer was lost, the second one gets the
// stored answer.
func call[In, Out any](
	method func(context.Context, In, ...grpc.CallOption) (Out, error), request In,
) (Out, error) {
	pause := pauseFirst
	for attempt := 1; ; attempt++ {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		answer, err := method(ctx, request)
		cancel()
		asked, isAsked := retryDelay(err)
		code := status.Code(err)
		mayHelp := isAsked || code == codes.Unavailable || code == codes.DeadlineExceeded
		if err == nil || !mayHelp || attempt == attemptsMax {
			return answer, err
		}
		time.Sleep(max(asked, pause/2+rand.N(pause/2)))
		pause *= 2
	}
}

// retryDelay is how long the cluster asks to wait, if it asks.
func retryDelay(err error) (time.Duration, bool) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

// explain prints an error with its fields and its stable reason.
func explain(err error) {
	refused := status.Convert(err)
	fmt.Printf("  %s: %s\n", refused.Code(), refused.Message())
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Println("  reason:", detail.GetReason())
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				fmt.Printf("  field %s: %s\n", violation.GetField(), violation.GetDescription())
			}
		}
	}
}

func quickstart(endpoint string) error {
	// Any node takes any call and passes it on to the leader it belongs to.
	node, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer node.Close()
	reservations := stock.NewReservationServiceClient(node)
	availabilities := stock.NewAvailabilityServiceClient(node)

	fmt.Println("A store,", store)
	_, err = call(stock.NewCatalogServiceClient(node).PutLocation, &stock.PutLocationRequest{
		RequestId: newRequestID(),
		Location: &stock.Location{
			LocationId:  store,
			Type:        stock.Location_TYPE_STORE,
			Name:        "Go Store",
			Coordinates: &stock.Coordinates{Latitude: 52.5163, Longitude: 13.3777},
		},
	})
	if err != nil {
		return err
	}

	fmt.Println("A delivery of 10 umbrellas")
	// A movement is known by its document and line instead of a request id: the delivery note can be
	// sent again, and counts once. It says when it happened.
	note := &stock.RecordReceiptsRequest{
		Document: "note-" + newRequestID(),
		Lines: []*stock.MovementLine{{
			Line: "1", Sku: sku, Location: store, Quantity: 10, OccurredAt: timestamppb.Now(),
		}},
	}
	inventory := stock.NewInventoryServiceClient(node)
	send := func(
		ctx context.Context, note *stock.RecordReceiptsRequest, _ ...grpc.CallOption,
	) (*stock.RecordReceiptsResponse, error) {
		stream, err := inventory.RecordReceipts(ctx)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(note); err != nil {
			// What is wrong is said where the answer would be.
			return stream.CloseAndRecv()
		}
		return stream.CloseAndRecv()
	}
	for range 2 {
		recorded, err := call(send, note)
		if err != nil {
			return err
		}
		fmt.Println(" ", recorded.GetVerdicts()[0].GetVerdict())
	}

	fmt.Println("A shopper reserves 2 of them for 10 minutes")
	order := "order-" + newRequestID()
	request := &stock.ReserveRequest{
		RequestId: newRequestID(),
		Lines: []*stock.Line{{
			Sku: sku, Place: &stock.Line_Location{Location: store}, Quantity: 2,
		}},
		Ttl:            durationpb.New(10 * time.Minute),
		OrderReference: &order,
	}
	answer, err := call(reservations.Reserve, request)
	if err != nil {
		return err
	}
	held := answer.GetReservation()
	if held == nil {
		// Too little stock is an answer, not an error.
		for _, line := range answer.GetShortage().GetLines() {
			fmt.Printf("  short of %s: %d wanted, %d available\n",
				line.GetSku(), line.GetRequested(), line.GetAvailable())
		}
		return nil
	}
	fmt.Printf("  %s %s, expires in %s\n",
		held.GetReservationId(), held.GetState(), held.GetExpiresIn().AsDuration())

	fmt.Println("The answer got lost, so the shop asks again with the same request id")
	again, err := call(reservations.Reserve, request)
	if err != nil {
		return err
	}
	fmt.Printf("  %s: the same hold, not a second one\n", again.GetReservation().GetReservationId())

	fmt.Println("It was lost for longer than ids are remembered: the order's hold is found")
	// At least as new as the answer that began with this header, whichever node is asked.
	asNew := &stock.ReadOptions{
		AtLeast:     answer.GetHeader().GetIndexes(),
		Incarnation: answer.GetHeader().GetIncarnation(),
	}
	found, err := call(reservations.ListReservations, &stock.ListReservationsRequest{
		OrderReference: &order,
		Read:           asNew,
	})
	if err != nil {
		return err
	}
	for _, reservation := range found.GetReservations() {
		fmt.Printf("  %s %s\n", reservation.GetReservationId(), reservation.GetState())
	}

	fmt.Println("She pays: confirm. The goods leave the store: fulfil")
	_, err = call(reservations.Confirm, &stock.ConfirmRequest{
		RequestId: newRequestID(), ReservationId: held.GetReservationId(),
	})
	if err != nil {
		return err
	}
	fulfilled, err := call(reservations.Fulfill, &stock.FulfillRequest{
		RequestId: newRequestID(), ReservationId: held.GetReservationId(),
	})
	if err != nil {
		return err
	}
	fmt.Printf("  %s\n", fulfilled.GetReservation().GetState())

	there, err := call(availabilities.GetAvailability, &stock.GetAvailabilityRequest{
		Keys: []*stock.PositionKey{{
			Sku: sku, Place: &stock.PositionKey_Location{Location: store},
		}},
		Read: &stock.ReadOptions{
			AtLeast:     fulfilled.GetHeader().GetIndexes(),
			Incarnation: fulfilled.GetHeader().GetIncarnation(),
		},
	})
	if err != nil {
		return err
	}
	item := there.GetItems()[0]
	fmt.Printf("  on hand %d, reserved %d, available %d\n",
		item.GetOnHand(), item.GetReserved(), item.GetAvailable())

	fmt.Println("A mistake: -1 umbrellas")
	_, err = call(reservations.Reserve, &stock.ReserveRequest{
		RequestId: newRequestID(),
		Lines: []*stock.Line{{
			Sku: sku, Place: &stock.Line_Location{Location: store}, Quantity: -1,
		}},
	})
	if err == nil {
		return fmt.Errorf("the mistake was not refused")
	}
	explain(err)
	return nil
}
