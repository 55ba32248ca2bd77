"""What the quickstart and the checkout share: the schemas, a channel to the cluster, and its errors."""

import importlib
import json
import secrets
import sys
import tempfile
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

PROTO_FOLDER = Path(__file__).resolve().parents[2] / "proto"
MODULES = ("common", "reservation", "availability", "inventory", "catalog")

# gRPC repeats calls by itself. A call is repeated as it is, with its request id: where an attempt was
# carried out and only its answer was lost, the next one gets the stored answer.
SERVICE_CONFIG = {
    # Any node takes any call and passes it on to the leader it belongs to; each gets its share.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],  # every method
            # How long one call may take, repeats and all. It is sent along, so that the cluster stops
            # working for a caller who has gone.
            "timeout": "10s",
            # While no node is reached a call waits for one, until it is out of time.
            "waitForReady": True,
            # Five attempts with pauses of 3 s in all: the election of a new leader takes less.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
    # An election fails some hundreds of calls of a busy shop, and all of them may be repeated. A
    # cluster that goes on failing gets one repeat for every ten answers.
    "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.1},
}

CHANNEL_OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # A connection whose node is gone without a word is found out, also while no call is under way.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def connect(endpoints: str) -> grpc.Channel:
    """A channel to the nodes at `endpoints`: several IPv4 addresses with ports, separated by commas,
    or one HOST:PORT, whose name may stand for all nodes."""
    if "," not in endpoints:
        return grpc.insecure_channel(endpoints, options=CHANNEL_OPTIONS)
    # A list of addresses is no host name, and HTTP/2 wants one.
    named = ("grpc.default_authority", "stockd")
    return grpc.insecure_channel(f"ipv4:{endpoints}", options=[*CHANNEL_OPTIONS, named])


def load_schema() -> SimpleNamespace:
    """The modules `NAME_pb2` and `NAME_pb2_grpc` of `stock/v1`, as `NAME` and `NAME_grpc`.

    They are made when a program starts, so that there is nothing generated to keep up to date. An
    application makes them once, in its build:

        python -m grpc_tools.protoc -I proto --python_out=OUT --grpc_python_out=OUT proto/stock/v1/*.proto
    """
    with tempfile.TemporaryDirectory(prefix="stockd-example-") as out:
        compile_schema(out)
        sys.path.insert(0, out)
        schema = SimpleNamespace()
        for name in MODULES:
            setattr(schema, name, importlib.import_module(f"stock.v1.{name}_pb2"))
            setattr(schema, f"{name}_grpc", importlib.import_module(f"stock.v1.{name}_pb2_grpc"))
        sys.path.remove(out)
        return schema


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


def new_request_id() -> str:
    """A UUIDv7: 48 bits of Unix time in milliseconds, the version, and randomness.

    The time is what lets the cluster forget old ids safely, so a random UUIDv4 is refused. From
    Python 3.14 on this is `uuid.uuid7()`.
    """
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant of RFC 9562
    return str(uuid.UUID(int=value))


def reason(error: grpc.RpcError) -> str:
    """Why, for programs, as `stock/v1/errors.proto` lists it; empty where no node has said."""
    for detail in details_of(error):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            return detail.reason
    return ""


def describe(error: grpc.RpcError) -> str:
    """An error for people, with its stable reason and the fields at fault."""
    lines = [f"  {error.code().name}: {error.details()}"]
    for detail in details_of(error):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            lines.append(f"  reason: {detail.reason}")
        if isinstance(detail, error_details_pb2.BadRequest):
            for violation in detail.field_violations:
                lines.append(f"  field {violation.field}: {violation.description}")
    return "\n".join(lines)


def details_of(error: grpc.RpcError) -> list:
    """The `google.rpc` messages that an error carries."""
    status = rpc_status.from_call(error)
    found = []
    for packed in status.details if status else ():
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
            if packed.Is(kind.DESCRIPTOR):
                message = kind()
                packed.Unpack(message)
                found.append(message)
    return found
