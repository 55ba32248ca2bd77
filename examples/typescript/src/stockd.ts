// What the quickstart and the checkout share: the schemas, a connection to the cluster, and its errors.

import { fileURLToPath } from "node:url";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

import type { BadRequest__Output } from "./types/google/rpc/BadRequest.js";
import type { ErrorInfo__Output } from "./types/google/rpc/ErrorInfo.js";
import type { Status__Output } from "./types/google/rpc/Status.js";
import type { ProtoGrpcType as Availability } from "./types/availability.js";
import type { ProtoGrpcType as Catalog } from "./types/catalog.js";
import type { ProtoGrpcType as Inventory } from "./types/inventory.js";
import type { ProtoGrpcType as Reservation } from "./types/reservation.js";

// The schemas are read when the program starts; `npm run types` has made their types.
const schemas = loader.loadSync(
  [
    "stock/v1/reservation.proto",
    "stock/v1/availability.proto",
    "stock/v1/inventory.proto",
    "stock/v1/catalog.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
  ],
  {
    includeDirs: [fileURLToPath(new URL("../../../proto", import.meta.url))],
    longs: Number, // counts stay far below 2^53
    enums: String,
    oneofs: true,
  },
);
type Schemas = Availability & Catalog & Inventory & Reservation;
export const { stock } = grpc.loadPackageDefinition(schemas) as unknown as Schemas;

// gRPC repeats calls by itself. A call is repeated as it is, with its request id: where an attempt was
// carried out and only its answer was lost, the next one gets the stored answer.
const SERVICE_CONFIG = {
  // Any node takes any call and passes it on to the leader it belongs to; each gets its share.
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{}], // every method
      // How long one call may take, repeats and all. It is sent along, so that the cluster stops working
      // for a caller who has gone.
      timeout: "10s",
      // Five attempts with pauses of 3 s in all: the election of a new leader takes less.
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
  // An election fails some hundreds of calls of a busy shop, and all of them may be repeated. A cluster
  // that goes on failing gets one repeat for every ten answers.
  retryThrottling: { maxTokens: 1000, tokenRatio: 0.1 },
};

const CHANNEL_OPTIONS: grpc.ChannelOptions = {
  "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
  // A connection whose node is gone without a word is found out, also while no call is under way.
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  // A list of addresses is no host name, and HTTP/2 wants one.
  "grpc.default_authority": "stockd",
};

/**
 * What a client of a service is made with, to reach the nodes at `endpoints`: several IPv4 addresses with
 * ports, separated by commas, or one HOST:PORT, whose name may stand for all nodes.
 */
export function connection(endpoints: string): [string, grpc.ChannelCredentials, grpc.ChannelOptions] {
  const target = endpoints.includes(",") ? `ipv4:${endpoints}` : endpoints;
  return [target, grpc.credentials.createInsecure(), CHANNEL_OPTIONS];
}

type Callback<Out> = (error: grpc.ServiceError | null, answer?: Out) => void;

/** Awaits the answer of a call. While no node is reached it waits for one, until it is out of time. */
export function call<Out>(send: (metadata: grpc.Metadata, done: Callback<Out>) => void): Promise<Out> {
  return new Promise<Out>((resolve, reject) => {
    send(new grpc.Metadata({ waitForReady: true }), (error, answer) =>
      error ? reject(error) : resolve(answer as Out),
    );
  });
}

export function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
}

/** Why, for programs, as `stock/v1/errors.proto` lists it; nothing where no node has said. */
export function reason(error: grpc.ServiceError): string | undefined {
  return detail<ErrorInfo__Output>(error, "google.rpc.ErrorInfo")?.reason;
}

/** An error for people, with its stable reason and the fields at fault. */
export function describe(error: grpc.ServiceError): string {
  const lines = [`  ${grpc.status[error.code]}: ${error.details}`];
  const why = reason(error);
  if (why) lines.push(`  reason: ${why}`);
  const fields = detail<BadRequest__Output>(error, "google.rpc.BadRequest")?.fieldViolations;
  for (const { field, description } of fields ?? []) lines.push(`  field ${field}: ${description}`);
  return lines.join("\n");
}

/** The `google.rpc` message of this name that an error carries. */
function detail<T>(error: grpc.ServiceError, name: string): T | undefined {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  if (!(packed instanceof Buffer)) return undefined;
  const status = decode<Status__Output>("google.rpc.Status", packed);
  const found = status.details?.find((any) => "type_url" in any && String(any.type_url).endsWith(`/${name}`));
  return found && decode<T>(name, Buffer.from((found as { value: Uint8Array }).value));
}

function decode<T>(name: string, bytes: Buffer): T {
  const type = schemas[name] as loader.MessageTypeDefinition<object, object>;
  return type.deserialize(bytes) as T;
}
