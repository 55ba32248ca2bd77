#!/usr/bin/env python3
"""A first round with stockd from Python: receive, reserve, confirm, fulfil.

    pip install -r requirements.txt
    python quickstart.py --endpoint 127.0.0.1:7401
"""

import argparse
import sys

import grpc

import stockd
from stockd import new_request_id


def quickstart(endpoint: str) -> None:
    v1 = stockd.load_schema()
    reservation, availability = v1.reservation, v1.availability
    inventory, catalog = v1.inventory, v1.catalog

    store, sku = "python-store", "python-umbrella"

    with stockd.connect(endpoint) as channel:
        reservations = v1.reservation_grpc.ReservationServiceStub(channel)
        availabilities = v1.availability_grpc.AvailabilityServiceStub(channel)
        stock = v1.inventory_grpc.InventoryServiceStub(channel)
        locations = v1.catalog_grpc.CatalogServiceStub(channel)

        def as_new_as(seen):
            # At least as new as the answer that began with this header, whichever node is asked.
            # Pages that are read by the thousand leave `read` out and take what the node knows.
            return v1.common.ReadOptions(at_least=seen.indexes, incarnation=seen.incarnation)

        def show_availability(seen) -> None:
            request = availability.GetAvailabilityRequest(
                keys=[availability.PositionKey(sku=sku, location=store)],
                read=as_new_as(seen),
            )
            answer = availabilities.GetAvailability(request)
            (item,) = answer.items
            (of,) = answer.header.indexes
            print(
                f"  on hand {item.on_hand}, reserved {item.reserved}, available {item.available}"
                f" (shard {of.shard}, index {of.index})"
            )

        print(f"A store, {store}")
        locations.PutLocation(
            catalog.PutLocationRequest(
                request_id=new_request_id(),
                location=catalog.Location(
                    location_id=store,
                    type=catalog.Location.TYPE_STORE,
                    name="Python Store",
                    coordinates=catalog.Coordinates(latitude=52.5163, longitude=13.3777),
                ),
            ),
        )

        print("A delivery of 10 umbrellas")
        # A movement is known by its document and line instead of a request id: the delivery note
        # can be sent again, and counts once. It says when it happened.
        delivered = inventory.MovementLine(line="1", sku=sku, location=store, quantity=10)
        delivered.occurred_at.GetCurrentTime()
        note = inventory.RecordReceiptsRequest(
            document=f"note-{new_request_id()}",
            lines=[delivered],
        )

        for _ in range(2):
            recorded = stock.RecordReceipts(iter([note]))
            (verdict,) = recorded.verdicts
            print(f"  {inventory.LineVerdict.Verdict.Name(verdict.verdict)}")
        show_availability(recorded.header)

        print("A shopper reserves 2 of them for 10 minutes")
        request = reservation.ReserveRequest(
            request_id=new_request_id(),
            lines=[reservation.Line(sku=sku, location=store, quantity=2)],
            order_reference=f"order-{new_request_id()}",
        )
        request.ttl.FromSeconds(600)
        answer = reservations.Reserve(request)
        if answer.WhichOneof("outcome") == "shortage":
            # Too little stock is an answer, not an error.
            for line in answer.shortage.lines:
                print(f"  short of {line.sku}: {line.requested} wanted, {line.available} available")
            return
        held = answer.reservation
        state = reservation.Reservation.State.Name
        print(f"  {held.reservation_id} {state(held.state)}, expires {held.expires_at.ToJsonString()}")

        print("The answer got lost, so the shop asks again with the same request id")
        again = reservations.Reserve(request).reservation
        print(f"  {again.reservation_id} {state(again.state)}: the same hold, not a second one")
        if again.reservation_id != held.reservation_id:
            sys.exit("two holds for one request")

        print("It was lost for longer than ids are remembered: the order's hold is found")
        found = reservations.ListReservations(
            reservation.ListReservationsRequest(
                order_reference=request.order_reference, read=as_new_as(answer.header)
            ),
        )
        for one in found.reservations:
            print(f"  {one.reservation_id} {state(one.state)}")
        show_availability(answer.header)

        print("She pays: confirm")
        confirmed = reservations.Confirm(
            reservation.ConfirmRequest(
                request_id=new_request_id(), reservation_id=held.reservation_id
            ),
        ).reservation
        print(f"  {confirmed.reservation_id} {state(confirmed.state)}")

        print("The goods leave the store: fulfil")
        answer = reservations.Fulfill(
            reservation.FulfillRequest(
                request_id=new_request_id(), reservation_id=held.reservation_id
            ),
        )
        fulfilled = answer.reservation
        print(f"  {fulfilled.reservation_id} {state(fulfilled.state)}")
        show_availability(answer.header)

        print("A mistake: -1 umbrellas")
        try:
            reservations.Reserve(
                reservation.ReserveRequest(
                    request_id=new_request_id(),
                    lines=[reservation.Line(sku=sku, location=store, quantity=-1)],
                ),
            )
        except grpc.RpcError as error:
            print(stockd.describe(error))
        else:
            sys.exit("the mistake was not refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--endpoint",
        default="127.0.0.1:7401",
        metavar="HOST:PORT",
        help="any node of the cluster (default: %(default)s)",
    )
    endpoint = parser.parse_args().endpoint.removeprefix("http://")
    try:
        quickstart(endpoint)
    except grpc.RpcError as error:
        print(f"The cluster at {endpoint} did not do that:", file=sys.stderr)
        sys.exit(stockd.describe(error))


if __name__ == "__main__":
    main()
