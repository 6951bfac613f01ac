/**
 * What this tab knows: orders, the offsets of their updates, and the position up to which it has seen everything. Kept for a
 * reload of the page in `sessionStorage`, all of it together: a position without its updates would skip them.
 */

const KEPT_AS = "holdfast-demo-1";
const MOST_ORDERS = 25;
const MOST_ROWS = 150;
const MOST_LINES = 16;

const nothing = () => ({ topic: "", positions: {}, orders: [], rows: [], count: { first: 0, last: 0, seen: 0, missed: 0, holes: 0, epoch: "" } });

export class Journal {
  #kept = nothing();
  #orders = new Map();

  /** Take over what an earlier load of the page kept of this topic. */
  restore(topic) {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEPT_AS));
      if (kept?.topic === topic) this.#kept = { ...nothing(), ...kept };
    } catch {
      // Not readable, or storage is switched off: begin with nothing.
    }
    this.#kept.topic = topic;
    this.#orders = new Map(this.#kept.orders.map((order) => [order.id, { ...order, heardAt: Date.now() }]));
  }

  save(positions) {
    this.#kept.positions = { ...this.#kept.positions, ...positions };
    try {
      sessionStorage.setItem(KEPT_AS, JSON.stringify({ ...this.#kept, orders: [...this.#orders.values()] }));
    } catch {
      // Full, or switched off: a reload then begins with the list of orders.
    }
  }

  get positions() {
    return this.#kept.positions;
  }

  /** Newest first. */
  get orders() {
    return [...this.#orders.values()].reverse();
  }

  order(id) {
    return this.#orders.get(id);
  }

  get rows() {
    return this.#kept.rows;
  }

  get count() {
    return this.#kept.count;
  }

  /** What the shop answered; the first update may have come before. */
  note(fields) {
    const order = this.#own(fields.id);
    if (order.version === 0) Object.assign(order, fields, { at: new Date().toISOString() });
    else Object.assign(order, { goods: fields.goods, number: fields.number });
    return order;
  }

  /** Replace an order by what a list of the shop says. */
  reload(fields, text) {
    const order = this.#own(fields.id);
    if (fields.version < order.version) return;
    Object.assign(order, fields, { progress: null, heardAt: Date.now() });
    order.story = [{ at: fields.at, state: fields.state, text }];
  }

  /** Take in an update. `text`: its sentence, for a transition. */
  take(event, text) {
    const order = this.#own(event.id);
    const { state, version, attempt, at, detail } = event;
    const isProgress = Boolean(detail?.progress);
    Object.assign(order, { state, version, attempt, at, detail, heardAt: Date.now() });
    order.progress = isProgress ? detail.progress : null;
    if (!isProgress) order.story = [...order.story.filter(({ isPlaced }) => !isPlaced), { at, state, text }].slice(-MOST_LINES);
    return order;
  }

  /** Take in an update's position. `isMissed`: it happened while this tab was away. */
  mark(position, event, isMissed) {
    const [epoch, offset] = [position.slice(0, position.lastIndexOf(":")), Number(position.slice(position.lastIndexOf(":") + 1))];
    const count = this.#kept.count;
    if (count.epoch !== epoch) Object.assign(count, { epoch, first: offset, last: offset - 1, seen: 0, missed: 0, holes: 0 });
    if (offset > count.last + 1) count.holes += offset - count.last - 1;
    count.last = Math.max(count.last, offset);
    count.seen += 1;
    count.missed += isMissed ? 1 : 0;
    const { id, state, version, detail } = event;
    const row = { offset, id, state, version, progress: detail?.progress?.fraction ?? null, isMissed };
    this.#kept.rows = [row, ...this.#kept.rows].slice(0, MOST_ROWS);
    return row;
  }

  /** The gateway said that updates are gone: counting begins anew behind them. */
  gap() {
    this.#kept.count = { ...nothing().count, hadGap: true };
    this.#kept.rows = [];
  }

  #own(id) {
    if (!this.#orders.has(id)) {
      this.#orders.set(id, { id, goods: "", number: "", state: "queued", version: 0, attempt: 0, at: "", detail: {}, story: [], progress: null, heardAt: Date.now() });
      if (this.#orders.size > MOST_ORDERS) this.#orders.delete(this.#orders.keys().next().value);
    }
    return this.#orders.get(id);
  }
}
