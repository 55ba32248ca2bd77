// A first round with stockd from TypeScript: receive, reserve, lose the answer, find the hold, confirm,
// fulfil.
//
//     npm install && npm run build && npm start -- 127.0.0.1:7401

import { v7 as uuidv7 } from "uuid";

import { call, connection, describe, isServiceError, stock } from "./stockd.js";
import type { FulfillResponse__Output } from "./types/stock/v1/FulfillResponse.js";
import type { GetAvailabilityResponse__Output } from "./types/stock/v1/GetAvailabilityResponse.js";
import type { ListReservationsResponse__Output } from "./types/stock/v1/ListReservationsResponse.js";
import type { ReadOptions } from "./types/stock/v1/ReadOptions.js";
import type { RecordReceiptsRequest } from "./types/stock/v1/RecordReceiptsRequest.js";
import type { RecordReceiptsResponse__Output } from "./types/stock/v1/RecordReceiptsResponse.js";
import type { ReserveRequest } from "./types/stock/v1/ReserveRequest.js";
import type { ReserveResponse__Output } from "./types/stock/v1/ReserveResponse.js";
import type { ResponseHeader__Output } from "./types/stock/v1/ResponseHeader.js";

const STORE = "typescript-store";
const SKU = "typescript-umbrella";

/** Has a read wait until it can show what this answer has told. */
function asNewAs(answer: { header?: ResponseHeader__Output | null }): ReadOptions {
  return { atLeast: answer.header?.indexes, incarnation: answer.header?.incarnation };
}

async function quickstart(endpoint: string): Promise<void> {
  const nodes = connection(endpoint);
  const catalog = new stock.v1.CatalogService(...nodes);
  const inventory = new stock.v1.InventoryService(...nodes);
  const availability = new stock.v1.AvailabilityService(...nodes);
  const reservations = new stock.v1.ReservationService(...nodes);

  console.log(`A store, ${STORE}`);
  const location = {
    locationId: STORE,
    type: "TYPE_STORE" as const,
    name: "TypeScript Store",
    coordinates: { latitude: 52.5163, longitude: 13.3777 },
  };
  const put = { requestId: uuidv7(), location };
  await call((metadata, done) => catalog.putLocation(put, metadata, done));

  console.log("A delivery of 10 umbrellas");
  // A movement is known by its document and line instead of a request id: the delivery note can be sent
  // again, and counts once. It says when it happened.
  const occurredAt = { seconds: Math.floor(Date.now() / 1_000) };
  const note: RecordReceiptsRequest = {
    document: `note-${uuidv7()}`,
    lines: [{ line: "1", sku: SKU, location: STORE, quantity: 10, occurredAt }],
  };
  for (let time = 1; time <= 2; time += 1) {
    const recorded = await call<RecordReceiptsResponse__Output>((metadata, done) => {
      const stream = inventory.recordReceipts(metadata, done);
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
  const answer = await call<ReserveResponse__Output>((metadata, done) =>
    reservations.reserve(request, metadata, done),
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
  const again = await call<ReserveResponse__Output>((metadata, done) =>
    reservations.reserve(request, metadata, done),
  );
  console.log(`  ${again.reservation?.reservationId}: the same hold, not a second one`);

  console.log("It was lost for longer than ids are remembered: the order's hold is found");
  // At least as new as the answer that began with this header, whichever node is asked.
  const list = { orderReference, read: asNewAs(answer) };
  const found = await call<ListReservationsResponse__Output>((metadata, done) =>
    reservations.listReservations(list, metadata, done),
  );
  for (const one of found.reservations ?? []) console.log(`  ${one.reservationId} ${one.state}`);

  console.log("She pays: confirm. The goods leave the store: fulfil");
  const confirm = { requestId: uuidv7(), reservationId };
  await call((metadata, done) => reservations.confirm(confirm, metadata, done));
  const fulfill = { requestId: uuidv7(), reservationId };
  const fulfilled = await call<FulfillResponse__Output>((metadata, done) =>
    reservations.fulfill(fulfill, metadata, done),
  );
  console.log(`  ${fulfilled.reservation?.state}`);

  const look = { keys: [{ sku: SKU, location: STORE }], read: asNewAs(fulfilled) };
  const there = await call<GetAvailabilityResponse__Output>((metadata, done) =>
    availability.getAvailability(look, metadata, done),
  );
  // What is 0 is left out.
  const { onHand = 0, reserved = 0, available = 0 } = there.items?.[0] ?? {};
  console.log(`  on hand ${onHand}, reserved ${reserved}, available ${available}`);

  console.log("A mistake: -1 umbrellas");
  const mistake = { requestId: uuidv7(), lines: [{ sku: SKU, location: STORE, quantity: -1 }] };
  try {
    await call((metadata, done) => reservations.reserve(mistake, metadata, done));
  } catch (error) {
    if (!isServiceError(error)) throw error;
    console.log(describe(error));
    return;
  }
  throw new Error("the mistake was not refused");
}

const endpoint = process.argv[2] ?? "127.0.0.1:7401";
try {
  await quickstart(endpoint);
} catch (error) {
  if (!isServiceError(error)) throw error;
  console.error(`The cluster at ${endpoint} did not do that:\n${describe(error)}`);
  process.exitCode = 1;
}
