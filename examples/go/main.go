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
	"io"
	"log"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stock "example.com/stockd-quickstart/stock/v1"
	"example.com/stockd-quickstart/stockd"
)

const (
	store = "go-store"
	sku   = "go-umbrella"
)

func main() {
	log.SetFlags(0)
	endpoint := flag.String("endpoint", "127.0.0.1:7401", "any node of the cluster, HOST:PORT")
	flag.Parse()
	if err := quickstart(*endpoint); err != nil {
		fmt.Println(stockd.Describe(err))
		log.Fatalf("the cluster at %s did not do that", *endpoint)
	}
}

func quickstart(endpoint string) error {
	node, err := stockd.Connect(endpoint)
	if err != nil {
		return err
	}
	defer node.Close()
	ctx := context.Background()
	reservations := stock.NewReservationServiceClient(node)
	availabilities := stock.NewAvailabilityServiceClient(node)

	fmt.Println("A store,", store)
	_, err = stock.NewCatalogServiceClient(node).PutLocation(ctx, &stock.PutLocationRequest{
		RequestId: stockd.NewRequestID(),
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
		Document: "note-" + stockd.NewRequestID(),
		Lines: []*stock.MovementLine{{
			Line: "1", Sku: sku, Location: store, Quantity: 10, OccurredAt: timestamppb.Now(),
		}},
	}
	inventory := stock.NewInventoryServiceClient(node)
	for range 2 {
		recorded, err := send(ctx, inventory, note)
		if err != nil {
			return err
		}
		fmt.Println(" ", recorded.GetVerdicts()[0].GetVerdict())
	}

	fmt.Println("A shopper reserves 2 of them for 10 minutes")
	order := "order-" + stockd.NewRequestID()
	request := &stock.ReserveRequest{
		RequestId: stockd.NewRequestID(),
		Lines: []*stock.Line{{
			Sku: sku, Place: &stock.Line_Location{Location: store}, Quantity: 2,
		}},
		Ttl:            durationpb.New(10 * time.Minute),
		OrderReference: &order,
	}
	answer, err := reservations.Reserve(ctx, request)
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
	again, err := reservations.Reserve(ctx, request)
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
	found, err := reservations.ListReservations(ctx, &stock.ListReservationsRequest{
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
	_, err = reservations.Confirm(ctx, &stock.ConfirmRequest{
		RequestId: stockd.NewRequestID(), ReservationId: held.GetReservationId(),
	})
	if err != nil {
		return err
	}
	fulfilled, err := reservations.Fulfill(ctx, &stock.FulfillRequest{
		RequestId: stockd.NewRequestID(), ReservationId: held.GetReservationId(),
	})
	if err != nil {
		return err
	}
	fmt.Printf("  %s\n", fulfilled.GetReservation().GetState())

	there, err := availabilities.GetAvailability(ctx, &stock.GetAvailabilityRequest{
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
	_, err = reservations.Reserve(ctx, &stock.ReserveRequest{
		RequestId: stockd.NewRequestID(),
		Lines: []*stock.Line{{
			Sku: sku, Place: &stock.Line_Location{Location: store}, Quantity: -1,
		}},
	})
	if err == nil {
		return fmt.Errorf("the mistake was not refused")
	}
	fmt.Println(stockd.Describe(err))
	return nil
}

// send sends one delivery note.
func send(
	ctx context.Context, inventory stock.InventoryServiceClient, note *stock.RecordReceiptsRequest,
) (*stock.RecordReceiptsResponse, error) {
	stream, err := inventory.RecordReceipts(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(note); err != nil && err != io.EOF {
		return nil, err
	}
	// Where the stream has ended early, what is wrong is said where the answer would be.
	return stream.CloseAndRecv()
}
