// Command checkout takes one order from the basket to the receipt: reserve, take the money, confirm;
// release where no money comes. Whatever ends it in between, the same command goes on where it was.
//
//	go run ./checkout -endpoint 127.0.0.1:7401,127.0.0.1:7402 A-1042 milk-1l@store-7=2
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stock "example.com/stockd-quickstart/stock/v1"
	"example.com/stockd-quickstart/stockd"
)

var channel = "web"

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:7401", "nodes of the cluster, HOST:PORT,...")
	folder := flag.String("journal", "orders", "the folder in which orders are kept")
	isDeclined := flag.Bool("declined", false, "no money comes")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Usage: checkout [options] ORDER SKU@LOCATION=QTY...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() < 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*endpoint, *folder, *isDeclined, flag.Arg(0), flag.Args()[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(endpoint, folder string, isDeclined bool, reference string, basket []string) error {
	lines, err := parseLines(basket)
	if err != nil {
		return err
	}
	// Its ids are kept before the first call.
	journal, order, err := openJournal(folder, reference)
	if err != nil {
		return err
	}
	node, err := stockd.Connect(endpoint)
	if err != nil {
		return err
	}
	defer node.Close()
	checkout := checkout{stock.NewReservationServiceClient(node), journal, order}
	if err := checkout.run(context.Background(), lines, isDeclined); err != nil {
		return fmt.Errorf("%s: %w", reference, told(err))
	}
	return nil
}

// checkout is one order on its way.
type checkout struct {
	reservations stock.ReservationServiceClient
	journal      journal
	order        *order
}

func (c checkout) run(ctx context.Context, lines []*stock.Line, isDeclined bool) error {
	held, err := c.reserve(ctx, lines)
	if err != nil {
		return err
	}
	switch held.GetState() {
	case stock.Reservation_STATE_HELD:
		fmt.Printf("%s: held as %s\n", c.order.Reference, held.GetReservationId())
	case stock.Reservation_STATE_CONFIRMED:
		fmt.Printf("%s: was confirmed before as %s\n", c.order.Reference, held.GetReservationId())
		return nil
	default:
		return fmt.Errorf("the hold is over (%s)", name(held.GetState()))
	}

	if !c.order.IsPaid {
		if isDeclined {
			return c.release(ctx, held)
		}
		c.order.IsPaid = true
		if err := c.journal.keep(c.order); err != nil {
			return err
		}
	}
	return c.confirm(ctx, held)
}

var (
	errShortage = errors.New("there is not enough left")
	errNoHold   = errors.New("nothing is held for it, and it is too old to be asked for again: begin a new order")
)

// reserve holds the basket, or finds what was held for this order before.
func (c checkout) reserve(ctx context.Context, lines []*stock.Line) (*stock.Reservation, error) {
	answer, err := c.reservations.Reserve(ctx, &stock.ReserveRequest{
		RequestId:      c.order.ReserveID,
		OrderReference: &c.order.Reference,
		Channel:        &channel,
		Lines:          lines,
	})
	// Ids are remembered for ten minutes; reservations are found by their order for longer.
	if err != nil && stockd.Reason(err) != "REQUEST_TOO_OLD" {
		return nil, err
	}
	if answer.GetShortage() != nil {
		return nil, errShortage
	}
	// The same id brings the same answer: the hold as it was made. What became of it since is looked up.
	return c.find(ctx)
}

func (c checkout) find(ctx context.Context) (*stock.Reservation, error) {
	found, err := c.reservations.ListReservations(ctx, &stock.ListReservationsRequest{
		OrderReference: &c.order.Reference,
		Channel:        &channel,
		Read:           &stock.ReadOptions{Consistency: stock.Consistency_CONSISTENCY_LINEARIZABLE},
	})
	if err != nil {
		return nil, err
	}
	if len(found.GetReservations()) == 0 {
		return nil, errNoHold
	}
	return found.GetReservations()[0], nil
}

// confirm needs no id that is kept: whether it was done before, the state told that was looked up.
func (c checkout) confirm(ctx context.Context, held *stock.Reservation) error {
	_, err := c.reservations.Confirm(ctx, &stock.ConfirmRequest{
		RequestId: stockd.NewRequestID(), ReservationId: held.GetReservationId(),
	})
	if err == nil {
		fmt.Printf("%s: confirmed\n", c.order.Reference)
	}
	return err
}

// release gives the units back, and says so: there is no sale.
func (c checkout) release(ctx context.Context, held *stock.Reservation) error {
	_, err := c.reservations.Release(ctx, &stock.ReleaseRequest{
		RequestId: stockd.NewRequestID(), ReservationId: held.GetReservationId(),
	})
	if err == nil {
		return errors.New("not paid, and released")
	}
	return err
}

// told says of a failed call what it means for the order; other errors speak for themselves.
func told(err error) error {
	refused, ok := status.FromError(err)
	if !ok {
		return err
	}
	what := "it is not known yet what became of it: run the same command again"
	switch refused.Code() {
	// With these a node says that it has not done what was asked, and never will. After any other an
	// attempt may have been carried out, or may succeed later.
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
		codes.OutOfRange, codes.Unimplemented:
		what = "nothing was done"
	}
	return fmt.Errorf("%s\n%s", what, stockd.Describe(err))
}

// name of a state, for people: Released for STATE_RELEASED.
func name(state stock.Reservation_State) string {
	word := strings.TrimPrefix(state.String(), "STATE_")
	return word[:1] + strings.ToLower(word[1:])
}

// parseLines reads a basket, each line of it as SKU@LOCATION=QUANTITY.
func parseLines(basket []string) ([]*stock.Line, error) {
	var lines []*stock.Line
	for _, text := range basket {
		equals := strings.LastIndex(text, "=")
		at := strings.LastIndex(text[:max(equals, 0)], "@")
		quantity, err := strconv.ParseInt(text[equals+1:], 10, 64)
		if at < 0 || err != nil {
			return nil, fmt.Errorf("`%s` is not SKU@LOCATION=QUANTITY", text)
		}
		place := &stock.Line_Location{Location: text[at+1 : equals]}
		lines = append(lines, &stock.Line{Sku: text[:at], Place: place, Quantity: quantity})
	}
	return lines, nil
}
