/**
 * Holdfast's live updates in a browser: protocol `live.v1` over a WebSocket, described in docs/asyncapi.yaml.
 *
 * One client is one connection that reconnects and resumes by itself. Every update of a topic comes once and in order, or
 * the client says that there is a gap. Types and their documentation: holdfast-live.d.ts.
 */

const FIRST_TERMINAL_CODE = 4500; // Below, reconnect; from here on, do not.
const MAX_FRAME_BYTES = 8 * 1024; // Longest frame that a gateway takes.
const REMEMBERED_EVENTS = 10_000; // Highest versions kept, of the events that moved last.
const COMMANDS_MS = 100; // Between two batches of commands: half of the 20 a second that a gateway allows.
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const HEALTHY_MS = 5_000; // A connection that lasted this long was a good one: waits start small again.
const OPENING_MS = 20_000; // From the connection's start to `welcome`.
const PONG_MS = 15_000; // Silence beyond the ping interval after which the connection is taken for dead.
const LONGEST_TIMER_MS = 2 ** 31 - 1; // setTimeout fires at once for more.

/** @typedef {import("./holdfast-live.js").LiveEvent} LiveEvent */

const bytes = (/** @type {unknown} */ value) => new TextEncoder().encode(JSON.stringify(value)).length;

/** Doubling, and between half and all of it, so that clients that failed together do not come back together. */
const backoffMs = (/** @type {number} */ failures) =>
  Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), LONGEST_WAIT_MS) * (0.5 + Math.random() / 2);

/** The highest (version, step) of each event. */
class Versions {
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
class Follow {
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

/** See `connect`. */
class LiveClient {
  #url;
  #options;
  #topics = new Set();
  #positions = new Map();
  #follows = new Map();
  #versions = new Versions();
  #session = "";
  #socket = /** @type {WebSocket | null} */ (null);
  #isWelcome = false; // whether the current connection has been accepted
  #isClosed = false;
  #attempt = 0; // counts connections; what belongs to an earlier one is ignored
  #failures = 0;
  #askedMs = 0; // what `reconnect` asked for
  #commandId = 0;
  #pending = new Map(); // topic → "subscribe" or "unsubscribe", since the last batch
  #timers = { retry: 0, silence: 0, token: 0, commands: 0 };
  #silenceMs = OPENING_MS;
  #lastBatchAt = 0;
  #onOnline = () => this.#timers.retry && this.#open();

  constructor(url, options) {
    if (!options?.token) throw new TypeError("connect(url, {token}) needs a token, or a function that gets one");
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#options = options;
    globalThis.addEventListener?.("online", this.#onOnline);
    queueMicrotask(() => this.#open()); // after whoever asked has the client, and has subscribed
  }

  get session() {
    return this.#session;
  }

  get positions() {
    return Object.fromEntries(this.#positions);
  }

  subscribe(topics, positions = {}) {
    for (const topic of [topics].flat().map(spelled)) {
      if (this.#topics.has(topic)) continue;
      this.#topics.add(topic);
      if (positions[topic]) this.#positions.set(topic, positions[topic]);
      this.#command(topic, "subscribe");
    }
  }

  unsubscribe(topics) {
    for (const topic of [topics].flat().map(spelled)) {
      if (!this.#topics.delete(topic)) continue;
      this.#positions.delete(topic);
      this.#follows.get(topic)?.end();
      this.#follows.delete(topic);
      this.#command(topic, "unsubscribe");
    }
  }

  follow(topic, { fetch, show }) {
    const name = spelled(topic);
    this.unsubscribe(name); // a snapshot belongs to a position: start over, whatever there was
    const follow = new Follow(fetch, show, (error) => this.#tell("onError", error));
    this.#follows.set(name, follow);
    this.subscribe(name);
    return () => this.#follows.get(name) === follow && this.unsubscribe(name);
  }

  close() {
    this.#end({ state: "closed", code: 1000, reason: "closed by this client" });
  }

  async #open() {
    if (this.#isClosed) return;
    const attempt = ++this.#attempt;
    this.#clearTimers();
    this.#isWelcome = false;
    this.#askedMs = 0;
    this.#tell("onStatus", { state: "connecting" });
    let token;
    try {
      token = await this.#token();
    } catch (error) {
      if (attempt === this.#attempt) this.#retry(`no token: ${error}`);
      return;
    }
    if (attempt !== this.#attempt) return; // closed, or begun anew, while the token was fetched
    const socket = (this.#socket = new WebSocket(this.#url));
    const openedAt = Date.now();
    const ifCurrent = (act) => (event) => attempt === this.#attempt && act(event);
    this.#silenceMs = OPENING_MS;
    this.#watchSilence();
    socket.onopen = ifCurrent(() => this.#hello(token));
    socket.onmessage = ifCurrent(({ data }) => {
      this.#watchSilence();
      this.#take(JSON.parse(data), token);
    });
    socket.onclose = ifCurrent(({ code, reason }) => {
      if (this.#isWelcome && Date.now() - openedAt > HEALTHY_MS) this.#failures = 0;
      if (code >= FIRST_TERMINAL_CODE) this.#end({ state: "closed", code, reason });
      else this.#retry(reason || "connection lost", code);
    });
  }

  async #token() {
    const { token } = this.#options;
    return typeof token === "function" ? await token() : token;
  }

  #hello(token) {
    const topics = [...this.#topics];
    const positions = Object.fromEntries([...this.#positions].filter(([topic]) => this.#topics.has(topic)));
    const hello = { type: "hello", v: 1, token, topics, positions, ...(this.#session && { session: this.#session }) };
    this.#pending.clear();
    if (bytes(hello) <= MAX_FRAME_BYTES) return this.#send(hello);
    // Too many for one frame: subscribe after it. Without the session, which would start the topics not named where
    // they are now, without what was missed.
    this.#send({ type: "hello", v: 1, token });
    for (const topic of topics) this.#command(topic, "subscribe");
  }

  #take(frame, token) {
    const { type, topic, pos } = frame;
    if (type === "ping") return this.#send({ type: "pong" });
    if (type === "welcome") return this.#welcome(frame, token);
    if (type === "reconnect") return void (this.#askedMs = frame.after_ms);
    if (type === "status") return this.#tell("onStatus", { state: frame.state === "ok" ? "live" : "degraded" });
    if (type === "error") return this.#refused(frame);
    if (topic === undefined || pos === undefined) return; // of a newer gateway
    if (!this.#topics.has(topic)) {
      // The session had it, and the gateway was gone before it learnt of its end. Or an update on its way.
      if (type === "subscribed") this.#command(topic, "unsubscribe");
      return;
    }
    this.#positions.set(topic, pos);
    const follow = this.#follows.get(topic);
    if (type === "update") {
      if (follow) follow.take(frame.event);
      else if (this.#versions.isNews(frame.event)) this.#tell("onUpdate", frame.event, topic);
    } else if (type === "gap") {
      const delayMs = Math.random() * frame.jitter_ms;
      follow?.load(delayMs);
      this.#tell("onGap", topic, frame.reason, delayMs);
    } else if (type === "subscribed") {
      if (follow && (frame.recovered === null || !follow.hasBegun)) follow.load();
      this.#tell("onSubscribed", topic, frame.recovered);
    }
  }

  #welcome(frame, token) {
    this.#session = frame.session;
    this.#isWelcome = true;
    this.#silenceMs = frame.ping_s * 1000 + PONG_MS;
    this.#watchSilence();
    this.#refreshBefore(token);
    this.#tell("onStatus", { state: "live" });
    this.#sendCommands();
  }

  #refused({ id, code, message, temporary }) {
    // As the answer to a subscribe it leaves the topic out: the hello of a new connection names them all.
    if (code === "token_expired") return id === undefined ? void this.#refresh() : this.#retry(message);
    this.#tell("onError", { code, message, temporary });
  }

  /** Fetch a fresh token when four fifths of this one's time have passed. A token in a string is all there is. */
  #refreshBefore(token) {
    const validMs = validForMs(token);
    if (typeof this.#options.token !== "function" || validMs === null) return;
    clearTimeout(this.#timers.token);
    this.#timers.token = setTimeout(() => this.#refresh(), Math.min(Math.max(1_000, validMs * 0.8), LONGEST_TIMER_MS));
  }

  async #refresh() {
    if (typeof this.#options.token !== "function") return;
    const attempt = this.#attempt;
    try {
      const token = await this.#token();
      if (attempt !== this.#attempt) return;
      this.#send({ type: "token", id: ++this.#commandId, token });
      this.#refreshBefore(token);
    } catch (error) {
      // Until it expires there is time: the gateway then asks, and at the latest a new connection does.
      this.#tell("onError", { code: "token", message: String(error), temporary: true });
    }
  }

  /** Commands of one turn, and of a tenth of a second, leave together: a loop over topics costs one frame. */
  #command(topic, kind) {
    this.#pending.set(topic, kind);
    if (this.#timers.commands) return;
    const waitMs = Math.max(0, this.#lastBatchAt + COMMANDS_MS - Date.now());
    this.#timers.commands = setTimeout(() => this.#sendCommands(), waitMs);
  }

  #sendCommands() {
    clearTimeout(this.#timers.commands);
    this.#timers.commands = 0;
    if (!this.#isWelcome) return; // the hello names the topics, or #welcome comes back here
    const of = (kind) => [...this.#pending].filter(([, wanted]) => wanted === kind).map(([topic]) => topic);
    const [gone, wanted] = [of("unsubscribe"), of("subscribe")];
    this.#pending.clear();
    this.#lastBatchAt = Date.now();
    this.#sendSplit("unsubscribe", gone);
    this.#sendSplit("subscribe", wanted.map((topic) => ({ topic, since: this.#positions.get(topic) })));
  }

  /** As few frames as the longest one that a gateway takes allows. */
  #sendSplit(type, topics) {
    if (!topics.length) return;
    const frame = { type, id: ++this.#commandId, topics };
    if (topics.length === 1 || bytes(frame) <= MAX_FRAME_BYTES) return this.#send(frame);
    this.#sendSplit(type, topics.slice(0, topics.length / 2));
    this.#sendSplit(type, topics.slice(topics.length / 2));
  }

  #send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  /** A network that went away closes nothing: take a silence longer than the gateway's pings for the end. */
  #watchSilence() {
    clearTimeout(this.#timers.silence);
    this.#timers.silence = setTimeout(() => this.#retry("not a sign of life"), this.#silenceMs);
  }

  #retry(reason, code = 1006) {
    this.#leave();
    const retryMs = this.#askedMs + backoffMs(++this.#failures);
    this.#tell("onStatus", { state: "disconnected", code, reason, retryMs });
    if (!this.#isClosed) this.#timers.retry = setTimeout(() => this.#open(), retryMs);
  }

  #end(status) {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#leave();
    for (const follow of this.#follows.values()) follow.end();
    globalThis.removeEventListener?.("online", this.#onOnline);
    this.#tell("onStatus", status);
  }

  /** Let go of the connection, whatever state it is in. */
  #leave() {
    this.#attempt++;
    this.#isWelcome = false;
    this.#clearTimers();
    this.#socket?.close();
    this.#socket = null;
  }

  #clearTimers() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = { retry: 0, silence: 0, token: 0, commands: 0 };
  }

  /** A callback that throws must not stop the updates: the page's error handler sees it. */
  #tell(name, ...values) {
    try {
      this.#options[name]?.(...values);
    } catch (error) {
      setTimeout(() => {
        throw error;
      });
    }
  }
}

/** A topic as the gateway names it in its frames: an event's id in lower case. @param {string} topic */
const spelled = (topic) => (topic.startsWith("event:") ? topic.toLowerCase() : topic);

/**
 * How long a JWT is good for; `null` when that can not be read. By this machine's clock, unless that contradicts the token.
 * @param {string} token
 */
function validForMs(token) {
  try {
    const { exp, iat } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    const [leftMs, wholeMs] = [exp * 1000 - Date.now(), (exp - iat) * 1000];
    return leftMs > 0 && leftMs < wholeMs ? leftMs : wholeMs || null;
  } catch {
    return null;
  }
}

/**
 * Connect to a gateway and stay connected until `close()`, or until the gateway closes for good (codes from 4500 on).
 *
 * @param {string | URL} url `wss://…/v1/live`
 * @param {import("./holdfast-live.js").Options} options
 * @returns {import("./holdfast-live.js").LiveClient}
 */
export function connect(url, options) {
  return new LiveClient(url, options);
}
