#!/usr/bin/env python3
"""A checkout: reserve, take the money, confirm; release where no money comes.

    python checkout.py --endpoint 127.0.0.1:7401,127.0.0.1:7402 A-1042 milk-1l@store-7=2

Whatever ends it in between, the same command goes on where it was.
"""

import argparse
import sys
from pathlib import Path

import grpc

import stockd
from journal import Journal, Order

v1 = stockd.load_schema()
State = v1.reservation.Reservation.State

# With these a node says that it has not done what was asked, and never will. After any other an
# attempt may have been carried out, or may succeed later.
REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
)


class NoSale(Exception):
    """Why an order ends without a sale."""


def checkout(reservations, journal: Journal, order: Order, lines: list, is_declined: bool) -> None:
    held = reserve(reservations, order, lines)
    if held.state == State.STATE_CONFIRMED:
        print(f"{order.reference}: was confirmed before as {held.reservation_id}")
        return
    if held.state != State.STATE_HELD:
        state = State.Name(held.state).removeprefix("STATE_").capitalize()
        raise NoSale(f"the hold is over ({state})")
    print(f"{order.reference}: held as {held.reservation_id}")

    if not order.is_paid:
        if is_declined:
            release(reservations, held)
            raise NoSale("not paid, and released")
        order.is_paid = True
        journal.keep(order)
    confirm(reservations, held)
    print(f"{order.reference}: confirmed")


def reserve(reservations, order: Order, lines: list):
    """Holds the basket, or finds what was held for this order before."""
    request = v1.reservation.ReserveRequest(
        request_id=order.reserve_id,
        order_reference=order.reference,
        channel="web",
        lines=lines,
    )
    try:
        answer = reservations.Reserve(request)
    except grpc.RpcError as error:
        # Ids are remembered for ten minutes; reservations are found by their order for longer.
        if stockd.reason(error) == "REQUEST_TOO_OLD":
            return find(reservations, order)
        raise
    if answer.WhichOneof("outcome") == "shortage":
        raise NoSale("there is not enough left")
    # The same id brings the same answer: the hold as it was made. What became of it since is looked up.
    return find(reservations, order)


def find(reservations, order: Order):
    request = v1.reservation.ListReservationsRequest(
        order_reference=order.reference,
        channel="web",
        read=v1.common.ReadOptions(consistency=v1.common.CONSISTENCY_LINEARIZABLE),
    )
    found = reservations.ListReservations(request).reservations
    if not found:
        raise NoSale(
            "nothing is held for it, and it is too old to be asked for again: begin a new order"
        )
    return found[0]


def confirm(reservations, held) -> None:
    """Needs no id that is kept: whether it was done before, the state told that was looked up."""
    request = v1.reservation.ConfirmRequest(
        request_id=stockd.new_request_id(), reservation_id=held.reservation_id
    )
    reservations.Confirm(request)


def release(reservations, held) -> None:
    request = v1.reservation.ReleaseRequest(
        request_id=stockd.new_request_id(), reservation_id=held.reservation_id
    )
    reservations.Release(request)


def line(text: str):
    """One line of the basket, as SKU@LOCATION=QUANTITY."""
    try:
        place, quantity = text.rsplit("=", 1)
        sku, location = place.rsplit("@", 1)
        return v1.reservation.Line(sku=sku, location=location, quantity=int(quantity))
    except ValueError:
        sys.exit(f"Error: `{text}` is not SKU@LOCATION=QUANTITY")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--endpoint",
        default="127.0.0.1:7401",
        metavar="HOST:PORT,...",
        help="nodes of the cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--journal",
        default="orders",
        type=Path,
        metavar="DIR",
        help="the folder in which orders are kept (default: %(default)s)",
    )
    parser.add_argument("--declined", action="store_true", help="no money comes")
    parser.add_argument("order", metavar="ORDER", help="the shop's name for the order")
    parser.add_argument(
        "lines", metavar="SKU@LOCATION=QTY", nargs="+", help="what is in the basket"
    )
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    lines = [line(text) for text in asked.lines]
    # Its ids are kept before the first call.
    journal = Journal(asked.journal, asked.order)
    order = journal.open()
    with stockd.connect(asked.endpoint) as channel:
        reservations = v1.reservation_grpc.ReservationServiceStub(channel)
        try:
            checkout(reservations, journal, order, lines, asked.declined)
        except NoSale as why:
            sys.exit(f"Error: {order.reference}: {why}")
        except grpc.RpcError as error:
            what = "nothing was done"
            if error.code() not in REFUSALS:
                what = "it is not known yet what became of it: run the same command again"
            sys.exit(f"Error: {order.reference}: {what}\n{stockd.describe(error)}")


if __name__ == "__main__":
    main()
