#!/usr/bin/env python3
"""A first round with stockd from Python: receive, reserve, confirm, fulfil.

    pip install -r requirements.txt
    python quickstart.py --endpoint 127.0.0.1:7401

The schema is compiled when the script starts, from the `proto` folder of this repository, so that
there is nothing generated to keep up to date. An application would do that once, in its build:

    python -m grpc_tools.protoc -I proto --python_out=OUT --grpc_python_out=OUT proto/stock/v1/*.proto
"""

import argparse
import importlib
import random
import secrets
import sys
import tempfile
import time
import uuid
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

PROTO_FOLDER = Path(__file__).resolve().parents[2] / "proto"

# How long one call may take, in seconds. It is sent along, so that the cluster stops working for a
# caller who has gone.
CALL_TIMEOUT_S = 2.0
# How often a call is sent before the example gives up, and the first pause between two attempts.
# Pauses double: an election of a new leader is over after a few of them.
ATTEMPTS_MAX = 6
PAUSE_FIRST_S = 0.05


def compile_schema(out: str) -> None:
    """Turns `stock/v1/*.proto` into Python modules below `out`."""
    protos = sorted(str(path) for path in (PROTO_FOLDER / "stock" / "v1").glob("*.proto"))
    if not protos:
        sys.exit(f"no schema in {PROTO_FOLDER}")
    # grpc_tools brings google/protobuf along; google/rpc/status.proto lies in our own folder, and
    # its Python module comes with googleapis-common-protos.
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{PROTO_FOLDER}",
        f"-I{well_known}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        *protos,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("the schema does not compile")
    sys.path.insert(0, out)


def new_request_id() -> str:
    """A UUIDv7: 48 bits of Unix time in milliseconds, the version, and randomness.

    The time is what lets the cluster forget old ids safely, so a random UUIDv4 is refused. From
    Python 3.14 on this is `uuid.uuid7()`.
    """
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant of RFC 9562
    return str(uuid.UUID(int=value))


def call(method, request):
    """Sends `request` until it is answered, every time under the same request id.

    That is what makes it safe: where the first attempt was done and only its answer was lost, the
    second one gets the stored answer. UNAVAILABLE says that there is no leader at the moment,
    DEADLINE_EXCEEDED that the outcome is unknown; RESOURCE_EXHAUSTED says how long to wait.
    """
    pause_s = PAUSE_FIRST_S
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return method(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            asked_s = retry_delay_s(error)
            retryable = asked_s is not None or error.code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )
            if not retryable or attempt == ATTEMPTS_MAX:
                raise
        time.sleep(max(asked_s or 0.0, pause_s * random.uniform(0.5, 1.0)))
        pause_s *= 2


def details_of(error: grpc.RpcError) -> list:
    """The `google.rpc` messages that an error carries."""
    status = rpc_status.from_call(error)
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    found = []
    for packed in status.details if status else ():
        for kind in kinds:
            if packed.Is(kind.DESCRIPTOR):
                message = kind()
                packed.Unpack(message)
                found.append(message)
    return found


def retry_delay_s(error: grpc.RpcError) -> float | None:
    """How long the cluster asks to wait; None where it does not ask."""
    for detail in details_of(error):
        if isinstance(detail, error_details_pb2.RetryInfo):
            return detail.retry_delay.ToTimedelta().total_seconds()
    return None


def explain(error: grpc.RpcError) -> None:
    """Prints an error with its fields and its stable reason."""
    print(f"  {error.code().name}: {error.details()}")
    for detail in details_of(error):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            print(f"  reason: {detail.reason}")
        if isinstance(detail, error_details_pb2.BadRequest):
            for violation in detail.field_violations:
                print(f"  field {violation.field}: {violation.description}")


def quickstart(endpoint: str) -> None:
    reservation = importlib.import_module("stock.v1.reservation_pb2")
    availability = importlib.import_module("stock.v1.availability_pb2")
    inventory = importlib.import_module("stock.v1.inventory_pb2")
    catalog = importlib.import_module("stock.v1.catalog_pb2")
    common = importlib.import_module("stock.v1.common_pb2")
    reservation_grpc = importlib.import_module("stock.v1.reservation_pb2_grpc")
    availability_grpc = importlib.import_module("stock.v1.availability_pb2_grpc")
    inventory_grpc = importlib.import_module("stock.v1.inventory_pb2_grpc")
    catalog_grpc = importlib.import_module("stock.v1.catalog_pb2_grpc")

    store, sku = "python-store", "python-umbrella"

    # Any node takes any call and passes it on to the leader it belongs to.
    with grpc.insecure_channel(endpoint) as channel:
        reservations = reservation_grpc.ReservationServiceStub(channel)
        availabilities = availability_grpc.AvailabilityServiceStub(channel)
        stock = inventory_grpc.InventoryServiceStub(channel)
        locations = catalog_grpc.CatalogServiceStub(channel)

        def as_new_as(seen):
            # At least as new as the answer that began with this header, whichever node is asked.
            # Pages that are read by the thousand leave `read` out and take what the node knows.
            return common.ReadOptions(at_least=seen.indexes, incarnation=seen.incarnation)

        def show_availability(seen) -> None:
            request = availability.GetAvailabilityRequest(
                keys=[availability.PositionKey(sku=sku, location=store)],
                read=as_new_as(seen),
            )
            answer = call(availabilities.GetAvailability, request)
            (item,) = answer.items
            (of,) = answer.header.indexes
            print(
                f"  on hand {item.on_hand}, reserved {item.reserved}, available {item.available}"
                f" (shard {of.shard}, index {of.index})"
            )

        print(f"A store, {store}")
        call(
            locations.PutLocation,
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

        def send_note(request, timeout):
            return stock.RecordReceipts(iter([request]), timeout=timeout)

        for _ in range(2):
            recorded = call(send_note, note)
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
        answer = call(reservations.Reserve, request)
        if answer.WhichOneof("outcome") == "shortage":
            # Too little stock is an answer, not an error.
            for line in answer.shortage.lines:
                print(f"  short of {line.sku}: {line.requested} wanted, {line.available} available")
            return
        held = answer.reservation
        state = reservation.Reservation.State.Name
        print(f"  {held.reservation_id} {state(held.state)}, expires {held.expires_at.ToJsonString()}")

        print("The answer got lost, so the shop asks again with the same request id")
        again = call(reservations.Reserve, request).reservation
        print(f"  {again.reservation_id} {state(again.state)}: the same hold, not a second one")
        if again.reservation_id != held.reservation_id:
            sys.exit("two holds for one request")

        print("It was lost for longer than ids are remembered: the order's hold is found")
        found = call(
            reservations.ListReservations,
            reservation.ListReservationsRequest(
                order_reference=request.order_reference, read=as_new_as(answer.header)
            ),
        )
        for one in found.reservations:
            print(f"  {one.reservation_id} {state(one.state)}")
        show_availability(answer.header)

        print("She pays: confirm")
        confirmed = call(
            reservations.Confirm,
            reservation.ConfirmRequest(
                request_id=new_request_id(), reservation_id=held.reservation_id
            ),
        ).reservation
        print(f"  {confirmed.reservation_id} {state(confirmed.state)}")

        print("The goods leave the store: fulfil")
        answer = call(
            reservations.Fulfill,
            reservation.FulfillRequest(
                request_id=new_request_id(), reservation_id=held.reservation_id
            ),
        )
        fulfilled = answer.reservation
        print(f"  {fulfilled.reservation_id} {state(fulfilled.state)}")
        show_availability(answer.header)

        print("A mistake: -1 umbrellas")
        try:
            call(
                reservations.Reserve,
                reservation.ReserveRequest(
                    request_id=new_request_id(),
                    lines=[reservation.Line(sku=sku, location=store, quantity=-1)],
                ),
            )
        except grpc.RpcError as error:
            explain(error)
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
    with tempfile.TemporaryDirectory(prefix="stockd-example-") as out:
        compile_schema(out)
        try:
            quickstart(endpoint)
        except grpc.RpcError as error:
            print(f"The cluster at {endpoint} did not do that:", file=sys.stderr)
            explain(error)
            sys.exit(1)


if __name__ == "__main__":
    main()
