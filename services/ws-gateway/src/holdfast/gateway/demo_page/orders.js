/** The cards of the column "What happens". */

import { GOODS, clock, silence } from "./words.js";

const STEPS = ["accepted", "queued", "processing", "processed"];
const REACHED = { queued: 1, processing: 2, failed: 2, processed: 3, dead: 3, discarded: 3 };
const ENDS = { dead: "dead letter", discarded: "discarded" };
const QUIET_SECONDS = 3; // The shop's handlers report every second: longer than this is worth a word.

export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export const titleOf = (order) => GOODS[order.goods] ?? "An order";
export const numberOf = (order) => order.number || order.id.slice(-6);

/** One order. Built once, then changed in place: what a screen reader or a keyboard is at stays where it is. */
class Card {
  constructor(order, replay) {
    this.order = order;
    this.title = make("h3");
    this.badge = make("span", { className: "badge" });
    this.steps = make("ol", { className: "steps" });
    this.bar = make("progress", { max: 1, value: 0 });
    this.message = make("p", { className: "message" });
    this.lease = make("p", { className: "lease" });
    this.leaseBar = make("progress", { max: 1, value: 1, className: "lease-bar" });
    this.story = make("ol", { className: "story" });
    this.button = make("button", { textContent: "Replay", onclick: () => replay(order.id) });
    this.work = make("div", { className: "work" }, this.message, this.bar, this.lease, this.leaseBar);
    const head = make("div", { className: "card-head" }, this.title, this.badge);
    this.element = make("li", { className: "card" }, head, this.steps, this.work, this.story, this.button);
    this.element.dataset.order = order.id;
    this.show();
  }

  show() {
    const { order } = this;
    const name = `${titleOf(order)} ${numberOf(order)}`;
    Object.assign(this.element.dataset, { state: order.state, version: order.version, goods: order.goods, attempt: order.attempt });
    this.title.replaceChildren(titleOf(order), " ", make("span", { className: "number", textContent: numberOf(order) }));
    this.badge.textContent = badgeOf(order);
    this.#showSteps();
    this.#showWork(name);
    this.story.replaceChildren(...order.story.map(lineOf));
    this.button.hidden = order.state !== "dead" && order.state !== "discarded";
    this.button.setAttribute("aria-label", `Replay ${name}`);
  }

  #showSteps() {
    const { state } = this.order;
    const reached = REACHED[state] ?? 0;
    const isOver = reached === 3;
    this.steps.replaceChildren(...STEPS.map((step, index) => {
      const item = make("li", { textContent: index === 3 ? (ENDS[state] ?? step) : step });
      item.dataset.is = index < reached || isOver ? "done" : index === reached ? "now" : "ahead";
      if (index === reached && !isOver) item.setAttribute("aria-current", "step");
      return item;
    }));
  }

  #showWork(name) {
    const { state, progress } = this.order;
    this.work.hidden = state !== "processing" && state !== "failed";
    this.work.dataset.is = state === "failed" ? "waiting" : "busy";
    this.bar.value = progress?.fraction ?? 0;
    this.bar.setAttribute("aria-label", `Progress of ${name}`);
    this.leaseBar.setAttribute("aria-label", `Lease of ${name}`);
    this.message.textContent = progress?.message ? `${progress.message}, ${Math.round(progress.fraction * 100)} %` : "beginning";
    this.element.dataset.quiet = "false";
  }

  /** Once a second: how long until the next attempt, or how long the worker has been silent. */
  tick(now, leaseSeconds, isOnline) {
    const { order } = this;
    if (order.state === "failed") this.message.textContent = nextAttempt(order, now);
    if (order.state !== "processing") return;
    const quietSeconds = (now - order.heardAt) / 1000;
    const isQuiet = isOnline && quietSeconds >= QUIET_SECONDS;
    this.element.dataset.quiet = isQuiet;
    this.leaseBar.max = leaseSeconds;
    this.leaseBar.value = isQuiet ? Math.max(0, leaseSeconds - quietSeconds) : leaseSeconds;
    this.lease.textContent = !isOnline
      ? "You are offline: this is what you saw last."
      : isQuiet ? silence(quietSeconds, leaseSeconds) : `Leased for ${leaseSeconds} s at a time, and renewed while its worker lives.`;
  }
}

const badgeOf = ({ state, attempt }) =>
  ({ processing: `attempt ${attempt}`, failed: `attempt ${attempt} failed`, dead: "dead letter" })[state] ?? state;

function nextAttempt({ detail, heardAt }, now) {
  const left = Math.ceil((detail?.retry_in_seconds ?? 0) - (now - heardAt) / 1000);
  return left > 0 ? `The next attempt begins in ${left} s.` : "The next attempt is due.";
}

function lineOf({ at, state, text }) {
  const line = make("li", {}, make("time", { dateTime: at, textContent: clock(at) }), make("span", { textContent: text }));
  line.dataset.state = state;
  return line;
}

/** All cards, newest first. */
export class Cards {
  #cards = new Map();

  constructor(list, empty, replay) {
    this.list = list;
    this.empty = empty;
    this.replay = replay;
  }

  show(order) {
    const known = this.#cards.get(order.id);
    if (known) known.show();
    else {
      const card = new Card(order, this.replay);
      this.#cards.set(order.id, card);
      this.list.prepend(card.element);
    }
    this.empty.hidden = true;
  }

  /** Drop the cards of orders that are not kept any more. */
  keep(ids) {
    for (const [id, card] of this.#cards) {
      if (ids.has(id)) continue;
      card.element.remove();
      this.#cards.delete(id);
    }
  }

  tick(leaseSeconds, isOnline) {
    for (const card of this.#cards.values()) card.tick(Date.now(), leaseSeconds, isOnline);
  }
}
