/** The column "Under the hood": every update with its offset, the proof that none is missing, and the frames themselves. */

import { make, numberOf } from "./orders.js";

const MOST_FRAMES = 80;
const MOST_CHARACTERS = 700;
const MOST_ROWS = 150;

/**
 * Look over the shoulder of every WebSocket that is opened from now on. The client of `libs/client-js` is used as it is;
 * this is for the page to show frames, which an application has no need of.
 *
 * @param {(direction: "in" | "out", text: string) => void} tell
 */
export function tapWebSockets(tell) {
  globalThis.WebSocket = class extends globalThis.WebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => tell("in", data));
    }

    send(text) {
      tell("out", text);
      super.send(text);
    }
  };
}

export class Ledger {
  #frames = [];

  constructor({ rows, title, text, box, frames, details }, journal) {
    Object.assign(this, { body: rows, title, text, box, list: frames, details, journal });
    details.addEventListener("toggle", () => this.#showFrames());
  }

  /** All rows anew: after a reload of the page, or a gap. */
  showAll() {
    this.body.replaceChildren(...this.journal.rows.map((row) => this.#line(row)));
    this.prove();
  }

  add(row) {
    this.body.prepend(this.#line(row));
    while (this.body.childElementCount > MOST_ROWS) this.body.lastElementChild.remove();
    this.prove();
  }

  /** The order's number became known after its first update had come. */
  rename(order) {
    for (const cell of this.body.querySelectorAll(`[data-of="${order.id}"]`)) cell.textContent = numberOf(order);
  }

  prove() {
    const { first, last, seen, missed, holes, hadGap } = this.journal.count;
    this.box.dataset.whole = holes === 0;
    if (!seen) {
      this.title.textContent = hadGap ? "You were told of a gap" : "Nothing to miss yet";
      this.text.textContent = hadGap
        ? "You were away for longer than updates are kept. You were told so, and your orders were read anew."
        : "Every update of your orders has a number, its offset. They have to come without a hole.";
      return;
    }
    this.title.textContent = holes === 0 ? "Nothing missed" : `${holes} missing`;
    const range = first === last ? `Offset ${first}` : `Offsets ${first} to ${last}`;
    const came = `${range}: ${seen} ${seen === 1 ? "update" : "updates"}, each once and in order.`;
    const late = missed ? ` ${missed} of them happened while you were away and ${missed === 1 ? "was" : "were"} delivered when you came back.` : "";
    this.text.textContent = (holes === 0 ? came : `${range}: ${seen} came, ${holes} did not.`) + late;
  }

  frame(direction, text) {
    const shown = text.replace(/("token":")[^"]*/, "$1…").slice(0, MOST_CHARACTERS);
    this.#frames = [{ direction, shown }, ...this.#frames].slice(0, MOST_FRAMES);
    if (this.details.open) this.#showFrames();
  }

  #showFrames() {
    if (!this.details.open) return;
    this.list.replaceChildren(...this.#frames.map(({ direction, shown }) => {
      const line = make("li", {}, make("b", { textContent: direction === "in" ? "received" : "sent" }), " ", make("code", { textContent: shown }));
      line.dataset.direction = direction;
      return line;
    }));
  }

  #line(row) {
    const order = this.journal.order(row.id) ?? { id: row.id };
    const number = make("td", { textContent: numberOf(order) });
    number.dataset.of = row.id;
    const state = row.progress === null ? row.state : `${Math.round(row.progress * 100)} %`;
    const badge = make("span", { className: "badge", textContent: state });
    badge.dataset.state = row.state;
    const came = make("td", { textContent: row.isMissed ? "caught up" : "live" });
    const line = make("tr", {}, make("td", { textContent: row.offset }), number, make("td", {}, badge, ` v${row.version}`), came);
    line.dataset.missed = row.isMissed;
    line.dataset.offset = row.offset;
    return line;
  }
}
