// A first round with stockd from TypeScript: receive, reserve, lose the answer, find the hold, confirm,
// fulfil.
//
//     npm install && npm run build && npm start -- 127.0.0.1:7401

import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";

import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import { v7 as uuidv7 } from "uuid";

import type { BadRequest__Output } from "./types/google/rpc/BadRequest.js";
import type { ErrorInfo__Output } from "./types/google/rpc/ErrorInfo.js";
import type { RetryInfo__Output } from "./types/google/rpc/RetryInfo.js";
import type { Status__Output } from "./types/google/rpc/Status.js";
import type { ProtoGrpcType as Availability } from "./types/availability.js";
import type { ProtoGrpcType as Catalog } from "./types/catalog.js";
import type { ProtoGrpcType as Inventory } from "./types/inventory.js";
import type { ProtoGrpcType as Reservation } from "./types/reservation.js";
import type { FulfillResponse__Output } from "./types/stock/v1/FulfillResponse.js";
import type { GetAvailabilityResponse__Output } from "./types/stock/v1/GetAvailabilityResponse.js";
import type { ListReservationsResponse__Output } from "./types/stock/v1/ListReservationsResponse.js";
import type { ReadOptions } from "./types/stock/v1/ReadOptions.js";
import type { RecordReceiptsRequest } from "./types/stock/v1/RecordReceiptsRequest.js";
import type { RecordReceiptsResponse__Output } from "./types/stock/v1/RecordReceiptsResponse.js";
import type { ReserveRequest } from "./types/stock/v1/ReserveRequest.js";
import type { ReserveResponse__Output } from "./types/stock/v1/ReserveResponse.js";
import type { ResponseHeader__Output } from "./types/stock/v1/ResponseHeader.js";

// How long one call may take. It is sent along, so that the cluster stops working for a caller who has
// gone.
const CALL_TIMEOUT_MS = 2_000;
// How often a call is sent before the example gives up, and the first pause between two attempts.
// Pauses double: an election of a new leader is over after a few of them.
const ATTEMPTS_MAX = 6;
const PAUSE_FIRST_MS = 50;

const STORE = "typescript-store";
const SKU = "typescript-umbrella";

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
const { stock } = grpc.loadPackageDefinition(schemas) as unknown as Availability & Catalog & Inventory & Reservation;

type Callback<Out> = (error: grpc.ServiceError | null, answer?: Out) => void;

/**
 * Sends a request until it is answered, every time under the same request id. That is what makes it safe:
 * where the first attempt was done and only its answer was lost, the second one gets the stored answer.
 */
async function call<Out>(send: (options: grpc.CallOptions, done: Callback<Out>) => void): Promise<Out> {
  for (let attempt = 1, pauseMs = PAUSE_FIRST_MS; ; attempt += 1, pauseMs *= 2) {
    try {
      return await new Promise<Out>((resolve, reject) => {
        send({ deadline: Date.now() + CALL_TIMEOUT_MS }, (error, answer) =>
          error ? reject(error) : resolve(answer as Out),
        );
      });
    } catch (error) {
      if (!isServiceError(error)) throw error;
      const askedMs = retryDelayMs(error);
      const mayHelp =
        askedMs !== undefined ||
        error.code === grpc.status.UNAVAILABLE ||
        error.code === grpc.status.DEADLINE_EXCEEDED;
      if (!mayHelp || attempt === ATTEMPTS_MAX) throw error;
      await sleep(Math.max(askedMs ?? 0, pauseMs * (0.5 + Math.random() / 2)));
    }
  }
}

function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && "code" in error && "metadata" in error;
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

/** How long the cluster asks to wait, if it asks. */
function retryDelayMs(error: grpc.ServiceError): number | undefined {
  const delay = detail<RetryInfo__Output>(error, "google.rpc.RetryInfo")?.retryDelay;
  return delay ? Number(delay.seconds ?? 0) * 1_000 + (delay.nanos ?? 0) / 1e6 : undefined;
}

/** Prints an error with its fields and its stable reason. */
function explain(error: grpc.ServiceError): void {
  console.log(`  ${grpc.status[error.code]}: ${error.details}`);
  const reason = detail<ErrorInfo__Output>(error, "google.rpc.ErrorInfo")?.reason;
  if (reason) console.log(`  reason: ${reason}`);
  const fields = detail<BadRequest__Output>(error, "google.rpc.BadRequest")?.fieldViolations;
  for (const { field, description } of fields ?? []) console.log(`  field ${field}: ${description}`);
}

/** Has a read wait until it can show what this answer has told. */
function asNewAs(answer: { header?: ResponseHeader__Output | null }): ReadOptions {
  return { atLeast: answer.header?.indexes, incarnation: answer.header?.incarnation };
}

async function quickstart(endpoint: string): Promise<void> {
  // Any node takes any call and passes it on to the leader it belongs to.
  const plain = grpc.credentials.createInsecure();
  const catalog = new stock.v1.CatalogService(endpoint, plain);
  const inventory = new stock.v1.InventoryService(endpoint, plain);
  const availability = new stock.v1.AvailabilityService(endpoint, plain);
  const reservations = new stock.v1.ReservationService(endpoint, plain);

  console.log(`A store, ${STORE}`);
  const location = {
    locationId: STORE,
    type: "TYPE_STORE" as const,
    name: "TypeScript Store",
    coordinates: { latitude: 52.5163, longitude: 13.3777 },
  };
  const put = { requestId: uuidv7(), location };
  await call((options, done) => catalog.putLocation(put, options, done));

  console.log("A delivery of 10 umbrellas");
  // A movement is known by its document and line instead of a request id: the delivery note can be sent
  // again, and counts once. It says when it happened.
  const occurredAt = { seconds: Math.floor(Date.now() / 1_000) };
  const note: RecordReceiptsRequest = {
    document: `note-${uuidv7()}`,
    lines: [{ line: "1", sku: SKU, location: STORE, quantity: 10, occurredAt }],
  };
  for (let time = 1; time <= 2; time += 1) {
    const recorded = await call<RecordReceiptsResponse__Output>((options, done) => {
      const stream = inventory.recordReceipts(options, done);
      stream.end(note);
    });
    console.log(`  ${recorded.verdicts?.[0]?.verdict}`);
  }

  console.log("A shopper reserves 2 of them for 10 minutes");
  const orderReference = `order-${uuidv7()}`;
  const request: ReserveRequest = {
    requestId: uuidv7(),
    lines: [{ sku: SKU, location: STORE, quantity: 2 }],
    ttl: { seconds: 600 },
    orderReference,
  };
  const answer = await call<ReserveResponse__Output>((options, done) =>
    reservations.reserve(request, options, done),
  );
  if (!answer.reservation) {
    // Too little stock is an answer, not an error.
    for (const line of answer.shortage?.lines ?? [])
      console.log(`  short of ${line.sku}: ${line.requested} wanted, ${line.available ?? 0} available`);
    return;
  }
  const { reservationId, state } = answer.reservation;
  console.log(`  ${reservationId} ${state}`);

  console.log("The answer got lost, so the shop asks again with the same request id");
  const again = await call<ReserveResponse__Output>((options, done) =>
    reservations.reserve(request, options, done),
  );
  console.log(`  ${again.reservation?.reservationId}: the same hold, not a second one`);

  console.log("It was lost for longer than ids are remembered: the order's hold is found");
  // At least as new as the answer that began with this header, whichever node is asked.
  const list = { orderReference, read: asNewAs(answer) };
  const found = await call<ListReservationsResponse__Output>((options, done) =>
    reservations.listReservations(list, options, done),
  );
  for (const one of found.reservations ?? []) console.log(`  ${one.reservationId} ${one.state}`);

  console.log("She pays: confirm. The goods leave the store: fulfil");
  const confirm = { requestId: uuidv7(), reservationId };
  await call((options, done) => reservations.confirm(confirm, options, done));
  const fulfill = { requestId: uuidv7(), reservationId };
  const fulfilled = await call<FulfillResponse__Output>((options, done) =>
    reservations.fulfill(fulfill, options, done),
  );
  console.log(`  ${fulfilled.reservation?.state}`);

  const look = { keys: [{ sku: SKU, location: STORE }], read: asNewAs(fulfilled) };
  const there = await call<GetAvailabilityResponse__Output>((options, done) =>
    availability.getAvailability(look, options, done),
  );
  // What is 0 is left out.
  const { onHand = 0, reserved = 0, available = 0 } = there.items?.[0] ?? {};
  console.log(`  on hand ${onHand}, reserved ${reserved}, available ${available}`);

  console.log("A mistake: -1 umbrellas");
  const mistake = { requestId: uuidv7(), lines: [{ sku: SKU, location: STORE, quantity: -1 }] };
  try {
    await call((options, done) => reservations.reserve(mistake, options, done));
  } catch (error) {
    if (!isServiceError(error)) throw error;
    explain(error);
    return;
  }
  throw new Error("the mistake was not refused");
}

const endpoint = process.argv[2] ?? "127.0.0.1:7401";
try {
  await quickstart(endpoint);
} catch (error) {
  if (!isServiceError(error)) throw error;
  console.error(`The cluster at ${endpoint} did not do that:`);
  explain(error);
  process.exitCode = 1;
}
