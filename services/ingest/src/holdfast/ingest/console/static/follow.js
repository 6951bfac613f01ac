/** A topic as a snapshot and the updates after it, which of two updates is newer, and how long to wait after a failure. */

const REMEMBERED_EVENTS = 10_000; // Highest versions kept, of the events that moved last.
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;

/** @typedef {import("./holdfast-live.js").LiveEvent} LiveEvent */

/** Doubling, and between half and all of it, so that clients that failed together do not come back together. */
export const backoffMs = (/** @type {number} */ failures) =>
  Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), LONGEST_WAIT_MS) * (0.5 + Math.random() / 2);

/** The highest (version, step) of each event. */
export class Versions {
  #seen = new Map();

  /** Whether this tells more about the event than has been told before. @param {import("./holdfast-live.js").Versioned} event */
  isNews({ id, event_id = id, version, step = 0 }) {
    const [knownVersion, knownStep] = this.#seen.get(event_id) ?? [0, -1];
    if (version < knownVersion || (version === knownVersion && step <= knownStep)) return false;
    this.#seen.delete(event_id); // so that the map's order is that of the last moves
    this.#seen.set(event_id, [version, step]);
    if (this.#seen.size > REMEMBERED_EVENTS) this.#seen.delete(this.#seen.keys().next().value);
    return true;
  }
}

/** A topic that is shown as a snapshot and the updates after it. */
export class Follow {
  #versions = new Versions();
  /** @type {Map<string, LiveEvent> | null} the newest of each event, while no snapshot has come */
  #buffer = new Map();
  #load = 0; // counts loads; an earlier one that is still under way is ignored
  #fetch;
  #show;
  #onError;

  constructor(fetch, show, onError) {
    this.#fetch = fetch;
    this.#show = show;
    this.#onError = onError;
  }

  /** Whether a snapshot was ever asked for. */
  get hasBegun() {
    return this.#load > 0;
  }

  /** Take an update. @param {LiveEvent} event */
  take(event) {
    if (this.#buffer === null) return this.#apply(event);
    const kept = this.#buffer.get(event.id);
    if (kept && (kept.version > event.version || (kept.version === event.version && kept.step >= event.step))) return;
    this.#buffer.delete(event.id); // so that events are shown in the order in which the kept updates came
    this.#buffer.set(event.id, event);
  }

  /** Keep updates back, fetch after `delayMs`, apply what is newer; again until a fetch succeeds or another load begins. */
  async load(delayMs = 0) {
    const load = ++this.#load;
    this.#buffer ??= new Map();
    for (let failures = 1, wait = delayMs; ; failures++) {
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (load !== this.#load) return;
      try {
        const snapshot = await this.#fetch();
        if (load !== this.#load) return;
        const kept = this.#buffer ?? new Map();
        this.#buffer = null;
        for (const event of [...snapshot, ...kept.values()]) this.#apply(event);
        return;
      } catch (error) {
        this.#onError({ code: "snapshot", message: String(error), temporary: true });
        wait = backoffMs(failures);
      }
    }
  }

  /** Call off what is under way. */
  end() {
    this.#load++;
  }

  #apply(event) {
    if (this.#versions.isNews(event)) this.#show(event);
  }
}
