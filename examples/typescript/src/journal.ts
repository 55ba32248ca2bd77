// What a checkout has to keep of an order, so that it can go on after a crash: the id of its reserve, before
// it reserves.

import * as fs from "node:fs";
import * as path from "node:path";

import { v7 as uuidv7 } from "uuid";

/** One order, spelled as it is kept. */
export interface Order {
  /** The shop's own name for it, which the reservation carries, too. */
  readonly reference: string;
  readonly reserve_id: string;
  /** Whether the money has come. */
  is_paid: boolean;
}

/** Where an order is kept: one file, written whole. */
export class Journal {
  readonly #folder: string;
  readonly #reference: string;

  constructor(folder: string, reference: string) {
    fs.mkdirSync(folder, { recursive: true });
    this.#folder = folder;
    this.#reference = reference;
  }

  /** The order as it was left, or a new one: it is on the disk when this returns. */
  open(): Order {
    const kept = this.#path("json");
    if (fs.existsSync(kept)) return JSON.parse(fs.readFileSync(kept, "utf8")) as Order;
    const order = {
      reference: this.#reference,
      reserve_id: uuidv7(),
      is_paid: false,
    };
    this.keep(order);
    return order;
  }

  /** Keeps the order as it is now. */
  keep(order: Order): void {
    fs.writeFileSync(this.#path("new"), JSON.stringify(order, null, 2), { flush: true });
    fs.renameSync(this.#path("new"), this.#path("json"));
    // Its new name is on the disk, too.
    const folder = fs.openSync(this.#folder, "r");
    fs.fsyncSync(folder);
    fs.closeSync(folder);
  }

  #path(ending: string): string {
    return path.join(this.#folder, `${this.#reference}.${ending}`);
  }
}
