// A checkout: reserve, take the money, confirm; release where no money comes. Whatever ends it in between,
// the same command goes on where it was.
//
//     npm run checkout -- --endpoint 127.0.0.1:7401,127.0.0.1:7402 A-1042 milk-1l@store-7=2

import { parseArgs } from "node:util";

import { status } from "@grpc/grpc-js";
import { v7 as uuidv7 } from "uuid";

import { Journal, type Order } from "./journal.js";
import { call, connection, describe, isServiceError, reason, stock } from "./stockd.js";
import type { Line } from "./types/stock/v1/Line.js";
import type { ListReservationsResponse__Output } from "./types/stock/v1/ListReservationsResponse.js";
import type { Reservation__Output } from "./types/stock/v1/Reservation.js";
import type { ReservationServiceClient } from "./types/stock/v1/ReservationService.js";
import type { ReserveResponse__Output } from "./types/stock/v1/ReserveResponse.js";

const USAGE =
  "Usage: checkout [--endpoint HOST:PORT,...] [--journal DIR] [--declined] ORDER SKU@LOCATION=QTY...";

// With these a node says that it has not done what was asked, and never will. After any other an attempt
// may have been carried out, or may succeed later.
const REFUSALS = [
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNIMPLEMENTED,
];

/** Why an order ends without a sale. */
class NoSale extends Error {}

/** Why a basket cannot be read. */
class BasketError extends Error {}

/** One order on its way. */
class Checkout {
  readonly #reservations: ReservationServiceClient;
  readonly #journal: Journal;
  readonly #order: Order;

  constructor(reservations: ReservationServiceClient, journal: Journal, order: Order) {
    this.#reservations = reservations;
    this.#journal = journal;
    this.#order = order;
  }

  async run(lines: Line[], isDeclined: boolean): Promise<void> {
    const order = this.#order;
    const held = await this.#reserve(lines);
    if (held.state === "STATE_CONFIRMED") {
      console.log(`${order.reference}: was confirmed before as ${held.reservationId}`);
      return;
    }
    if (held.state !== "STATE_HELD") throw new NoSale(`the hold is over (${stateName(held)})`);
    console.log(`${order.reference}: held as ${held.reservationId}`);

    if (!order.is_paid) {
      if (isDeclined) {
        await this.#release(held);
        throw new NoSale("not paid, and released");
      }
      order.is_paid = true;
      this.#journal.keep(order);
    }
    await this.#confirm(held);
    console.log(`${order.reference}: confirmed`);
  }

  /** Holds the basket, or finds what was held for this order before. */
  async #reserve(lines: Line[]): Promise<Reservation__Output> {
    const { reserve_id: requestId, reference: orderReference } = this.#order;
    const request = { requestId, orderReference, channel: "web", lines };
    try {
      const answer = await call<ReserveResponse__Output>((metadata, done) =>
        this.#reservations.reserve(request, metadata, done),
      );
      if (answer.outcome === "shortage") throw new NoSale("there is not enough left");
    } catch (error) {
      // Ids are remembered for ten minutes; reservations are found by their order for longer.
      if (!isServiceError(error) || reason(error) !== "REQUEST_TOO_OLD") throw error;
    }
    // The same id brings the same answer: the hold as it was made. What became of it since is looked up.
    return this.#find();
  }

  async #find(): Promise<Reservation__Output> {
    const request = {
      orderReference: this.#order.reference,
      channel: "web",
      read: { consistency: "CONSISTENCY_LINEARIZABLE" as const },
    };
    const found = await call<ListReservationsResponse__Output>((metadata, done) =>
      this.#reservations.listReservations(request, metadata, done),
    );
    const held = found.reservations?.[0];
    if (!held) {
      throw new NoSale("nothing is held for it, and it is too old to be asked for again: begin a new order");
    }
    return held;
  }

  /** Needs no id that is kept: whether it was done before, the state told that was looked up. */
  async #confirm({ reservationId }: Reservation__Output): Promise<void> {
    const request = { requestId: uuidv7(), reservationId };
    await call((metadata, done) => this.#reservations.confirm(request, metadata, done));
  }

  async #release({ reservationId }: Reservation__Output): Promise<void> {
    const request = { requestId: uuidv7(), reservationId };
    await call((metadata, done) => this.#reservations.release(request, metadata, done));
  }
}

/** The name of a reservation's state, for people: Released for STATE_RELEASED. */
function stateName({ state }: Reservation__Output): string {
  const word = String(state).replace("STATE_", "");
  return word.charAt(0) + word.slice(1).toLowerCase();
}

/** One line of the basket, as SKU@LOCATION=QUANTITY. */
function line(text: string): Line {
  const [, sku, location, quantity] = /^(.*)@([^@]*)=(\d+)$/s.exec(text) ?? [];
  if (quantity === undefined) throw new BasketError(`\`${text}\` is not SKU@LOCATION=QUANTITY`);
  return { sku, location, quantity: Number(quantity) };
}

/** What a failure means for the order, for people. */
function told(error: unknown): string {
  if (error instanceof NoSale) return error.message;
  if (!isServiceError(error)) throw error;
  const what = REFUSALS.includes(error.code)
    ? "nothing was done"
    : "it is not known yet what became of it: run the same command again";
  return `${what}\n${describe(error)}`;
}

function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      endpoint: { type: "string", default: "127.0.0.1:7401" },
      journal: { type: "string", default: "orders" },
      declined: { type: "boolean", default: false },
    },
  });
  const [reference, ...basket] = positionals;
  if (reference === undefined || basket.length === 0) throw new Error("an order and its basket are missing");
  return { ...values, reference, lines: basket.map(line) };
}

async function main(): Promise<number> {
  let asked: ReturnType<typeof options>;
  try {
    asked = options();
  } catch (error) {
    console.error(`Error: ${(error as Error).message}`);
    if (error instanceof BasketError) return 1;
    console.error(USAGE);
    return 2;
  }
  // Its ids are kept before the first call.
  const journal = new Journal(asked.journal, asked.reference);
  const order = journal.open();
  const reservations = new stock.v1.ReservationService(...connection(asked.endpoint));
  try {
    await new Checkout(reservations, journal, order).run(asked.lines, asked.declined);
    return 0;
  } catch (error) {
    console.error(`Error: ${order.reference}: ${told(error)}`);
    return 1;
  } finally {
    reservations.close();
  }
}

process.exitCode = await main();
