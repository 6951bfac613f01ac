/** The page: the shop on the left, `holdfast-live.js` in the middle of it all, as an application would use it. */

import { connect } from "./holdfast-live.js";
import { Journal } from "./journal.js";
import { Ledger, tapWebSockets } from "./ledger.js";
import { Cards, numberOf, titleOf } from "./orders.js";
import { listOrders, openSession, placeOrder, replayOrder } from "./shop.js";
import { sentence } from "./words.js";

const STATUS = {
  connecting: "connecting",
  live: "live",
  degraded: "live, but late: Redis is away",
  disconnected: "disconnected, trying again",
  closed: "closed",
  offline: "offline, by your wish",
};
const OFFLINE = "Accepted. You are offline: what becomes of it arrives when you come back.";
const NOTICE_MS = 8_000;
const RETRY_MS = 3_000;

const element = (id) => document.getElementById(id);
const journal = new Journal();
const cards = new Cards(element("orders"), element("empty"), replay);
const ledger = new Ledger(
  {
    rows: element("ledger"), title: element("proof-title"), text: element("proof-text"), box: element("proof"),
    frames: element("frames"), details: element("frames-box"),
  },
  journal,
);

let live = null;
let topic = "";
let leaseSeconds = 30;
let isCatchingUp = false; // from the hello to `subscribed`: what comes between is what was missed
let isOffline = false;
let noticeTimer = 0;

tapWebSockets((direction, text) => {
  ledger.frame(direction, text);
  const frame = JSON.parse(text);
  if (direction === "out") {
    if (frame.type === "hello") isCatchingUp = Boolean(frame.positions?.[topic]);
  } else if (frame.type === "update") ledger.add(journal.mark(frame.pos, frame.event, isCatchingUp));
  else if (frame.type === "subscribed") isCatchingUp = false;
});

/** Get a session, show what is known, and watch from where this tab has got to. */
async function begin() {
  try {
    const session = await openSession();
    ({ topic, lease_seconds: leaseSeconds } = session);
    for (const place of document.querySelectorAll("[data-lease]")) place.textContent = leaseSeconds;
    journal.restore(topic);
    if (!journal.positions[topic]) await reload();
    for (const order of journal.orders.reverse()) cards.show(order);
    ledger.showAll();
    watch(session.token);
  } catch (error) {
    notice(error, true);
    setTimeout(begin, RETRY_MS);
  }
}

/** @param {string} [first] a token that was fetched already */
function watch(first = "") {
  live = connect("../v1/live", {
    token: async () => {
      const token = first || (await openSession()).token;
      first = "";
      return token;
    },
    onUpdate: show,
    onGap: (_, __, delayMs) => {
      journal.gap();
      ledger.showAll();
      setTimeout(() => reload().catch(notice), delayMs);
    },
    onSubscribed: () => keep(),
    onStatus: ({ state }) => !isOffline && say(state),
    onError: ({ message }) => notice(message),
  });
  live.subscribe(topic, journal.positions);
}

function show(event) {
  const text = sentence(event);
  const order = journal.take(event, text);
  cards.show(order);
  cards.keep(new Set(journal.orders.map(({ id }) => id)));
  if (!event.detail?.progress) element("said").textContent = `${titleOf(order)} ${numberOf(order)}: ${event.state}. ${text}`;
  tick();
  keep();
}

/** The orders as ingest has them: for a first visit, and after a gap. */
async function reload() {
  for (const order of await listOrders()) {
    journal.reload(order, sentence(order));
    cards.show(journal.order(order.id));
  }
}

async function order(button) {
  button.disabled = true;
  try {
    const placed = journal.note(await placeOrder(button.dataset.goods));
    if (!placed.story.length) placed.story = [{ at: placed.at, state: placed.state, text: isOffline ? OFFLINE : "Accepted.", isPlaced: true }];
    cards.show(placed);
    ledger.rename(placed);
    keep();
    hideNotice();
  } catch (error) {
    notice(error);
  }
  button.disabled = false;
  button.focus();
}

async function replay(id) {
  try {
    await replayOrder(id);
  } catch (error) {
    notice(error);
  }
}

/** Close the connection, or open a new one where this tab stopped: what a network that went away does, at a click. */
function toggleNetwork() {
  isOffline = !isOffline;
  element("network").textContent = isOffline ? "Come back online" : "Go offline";
  element("network").setAttribute("aria-pressed", String(isOffline));
  if (isOffline) {
    keep();
    live?.close();
    say("offline");
  } else watch();
  tick();
}

function keep() {
  if (live) journal.save(live.positions);
}

function say(state) {
  element("status").dataset.state = state;
  element("status-text").textContent = STATUS[state] ?? state;
  if (state === "live") hideNotice();
  tick();
}

function notice(error, isLasting = false) {
  clearTimeout(noticeTimer);
  element("notice").textContent = error.message ?? String(error);
  element("notice").hidden = false;
  if (!isLasting) noticeTimer = setTimeout(hideNotice, NOTICE_MS);
}

function hideNotice() {
  element("notice").hidden = true;
}

async function copy(button) {
  await navigator.clipboard.writeText(element(button.dataset.copy).textContent);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 2_000);
}

const tick = () => cards.tick(leaseSeconds, !isOffline && element("status").dataset.state === "live");

for (const button of document.querySelectorAll("[data-goods]")) button.addEventListener("click", () => order(button));
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button).catch(() => notice("The browser does not let this page copy; select the text instead.")));
}
element("network").addEventListener("click", toggleNetwork);
element("reload").addEventListener("click", () => location.reload());
addEventListener("pagehide", keep);
setInterval(tick, 1_000);
begin();
