// What pages gain by script: they follow what happens, say how long ago things were, copy texts. Everything works without.
import { connect } from "./holdfast-live.js";

const POLL_MS = 5_000; // while the gateway tells nothing
const CALM_MS = 30_000; // while it does: what it does not tell of, such as time that passes
const PAUSE_MS = 1_000; // at least between two refreshes, however much happens
const AGO_MS = 10_000;

const policy = window.trustedTypes?.createPolicy("holdfast-console", { createHTML: (text) => text });
const csrf = document.querySelector('meta[name="csrf"]')?.content ?? "";
const page = document.querySelector("main");

/** Replaces the regions of this page by those of the same page, loaded anew. */
class Refresher {
  #timer = 0;
  #last = 0;
  #isBusy = false;
  #isWanted = false;
  isPaused = false;
  isReachable = true;

  /** @param {(refresher: Refresher) => number} waitMs  until the next refresh that nobody asks for */
  constructor(waitMs, onChange) {
    this.waitMs = waitMs;
    this.onChange = onChange;
  }

  /** Something has happened: soon, but not more than once a second. */
  hurry() {
    if (this.isPaused || document.hidden) return;
    this.#isWanted = true;
    if (!this.#isBusy) this.#schedule(Math.max(0, this.#last + PAUSE_MS - Date.now()));
  }

  rest() {
    if (!this.#isBusy) this.#schedule(this.waitMs(this));
  }

  #schedule(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#run(), ms);
  }

  async #run() {
    if (this.isPaused || document.hidden) return;
    this.#isBusy = true;
    this.#isWanted = false;
    this.#last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (answer.redirected && new URL(answer.url).pathname === "/console/sign-in") return location.reload();
      this.isReachable = answer.ok || answer.status < 500;
      if (answer.ok) swap(new DOMParser().parseFromString(trusted(await answer.text()), "text/html"));
    } catch {
      this.isReachable = false;
    }
    this.#isBusy = false;
    this.onChange();
    if (this.#isWanted) this.hurry();
    else this.rest();
  }
}

function trusted(html) {
  return policy ? policy.createHTML(html) : html;
}

function swap(next) {
  for (const old of document.querySelectorAll("[data-region]")) {
    const fresh = next.getElementById(old.id);
    if (fresh && !isInUse(old) && essence(old) !== essence(fresh)) put(old, document.importNode(fresh, true));
  }
}

/** What counts as a change: not the words for how long ago, nor the key that makes a form's work happen once. */
function essence(region) {
  const copy = region.cloneNode(true);
  for (const time of copy.querySelectorAll("[data-ago]")) time.textContent = "";
  for (const input of copy.querySelectorAll('input[name="request"]')) input.remove();
  for (const details of copy.querySelectorAll("details")) details.open = false;
  for (const row of copy.querySelectorAll(".is-new")) row.classList.remove("is-new");
  for (const button of copy.querySelectorAll("[data-copy]")) button.hidden = true;
  return copy.outerHTML.replaceAll(' class=""', "");
}

/** Nobody's selection, open question or half-filled form is taken away from them. */
function isInUse(region) {
  const selection = getSelection();
  const isSelected = selection && !selection.isCollapsed && region.contains(selection.anchorNode);
  const isTyped = document.activeElement?.matches("input, select, textarea") && region.contains(document.activeElement);
  return isSelected || isTyped || region.querySelector(":popover-open") !== null;
}

function put(old, fresh) {
  const known = new Set([...old.querySelectorAll("[id]")].map((each) => each.id));
  for (const row of fresh.querySelectorAll("tr[id]")) row.classList.toggle("is-new", known.size > 0 && !known.has(row.id));
  for (const details of old.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
    if (same) same.open = true;
  }
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  old.replaceWith(fresh);
  if (focused) again(fresh, focused)?.focus({ preventScroll: true });
  dress(fresh);
}

function again(region, focused) {
  if (focused.id) return region.querySelector(`#${CSS.escape(focused.id)}`);
  const address = focused.getAttribute("href");
  return address && region.querySelector(`a[href="${CSS.escape(address)}"]`);
}

/** Follow the topic of this page through the gateway; without one, or while it is away, ask every few seconds. */
function follow() {
  const button = document.querySelector("[data-live-switch]");
  let status = "connecting";
  const every = Number(page.dataset.refreshSeconds ?? 0) * 1000;
  const refresher = new Refresher(() => (status === "live" && !every ? CALM_MS : every || POLL_MS), say);

  function say() {
    const state = refresher.isPaused ? "paused" : !refresher.isReachable ? "away" : status === "live" ? "live" : page.dataset.topic ? "polling" : "calm";
    const texts = { live: "Live", polling: "Updating", calm: "Updating", away: "Out of reach, trying again", paused: "Paused" };
    button.dataset.state = state;
    button.querySelector("[data-live-text]").textContent = texts[state];
    button.title = refresher.isPaused ? "Follow again" : "Pause: nothing on this page moves until you go on";
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    refresher.isPaused = !refresher.isPaused;
    button.setAttribute("aria-pressed", String(refresher.isPaused));
    say();
    refresher.hurry();
  });
  document.addEventListener("visibilitychange", () => refresher.hurry());
  say();
  refresher.rest();
  if (page.dataset.topic) listen(page.dataset.topic, () => refresher.hurry(), (state) => ((status = state), say(), refresher.rest()));
}

async function listen(topic, onEvent, onStatus) {
  const first = await token().catch(() => null);
  if (!first?.live_url) return;
  let known = first.token;
  const client = connect(first.live_url, {
    token: async () => {
      const own = known ?? (await token()).token;
      known = null;
      return own;
    },
    onUpdate: onEvent,
    onGap: onEvent,
    onSubscribed: onEvent,
    onStatus: ({ state }) => onStatus(state),
  });
  client.subscribe(topic);
  addEventListener("pagehide", () => client.close(), { once: true });
}

async function token() {
  const answer = await fetch("/console/live-token", { method: "POST", headers: { "X-CSRF-Token": csrf } });
  if (!answer.ok) throw new Error(`no live token: ${answer.status}`);
  return answer.json();
}

const UNITS = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];

function ago(moment) {
  const seconds = Math.round((Date.now() - moment) / 1000);
  if (Math.abs(seconds) < 1) return "now";
  let left = Math.abs(seconds);
  const words = [];
  for (const [size, name] of UNITS) {
    if (left >= size) words.push(`${Math.floor(left / size)} ${name}`);
    left %= size;
  }
  const text = words.slice(0, Math.abs(seconds) >= 3600 ? 2 : 1).join(" ");
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

function tick() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = ago(Date.parse(time.dateTime));
    if (time.textContent !== text) time.textContent = text;
  }
}

/** What only works by script is hidden until there is one. */
function dress(root) {
  for (const button of root.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = button.dataset.copy || document.getElementById(button.dataset.copyFrom)?.textContent;
  await navigator.clipboard.writeText(text.trim());
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = before), 1500);
});

document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (event.target.method !== "post" || !button) return;
  // After the browser has taken the form: a disabled button's name would not be sent.
  setTimeout(() => (button.disabled = true));
});
// A page that comes back from the browser's memory has its buttons as they were left.
addEventListener("pageshow", () => document.querySelectorAll("button[disabled]").forEach((each) => (each.disabled = false)));

// On a phone the menu is a line that is longer than the screen.
const nav = document.querySelector(".nav");
const current = nav?.querySelector("[aria-current]");
if (current) nav.scrollLeft = current.offsetLeft - (nav.clientWidth - current.offsetWidth) / 2;

const here = new URL(location);
if (here.searchParams.has("notice")) {
  here.searchParams.delete("notice"); // said once: loading the page again, or keeping its address, does not say it again
  history.replaceState(history.state, "", here);
}
dress(document);
setInterval(tick, AGO_MS);
if (document.querySelector("[data-live-switch]")) follow();
