// A live server as one writes it with `ws`: clients join a topic, and what is published goes to everybody in it.
"use strict";

const { createServer } = require("node:http");
const { WebSocketServer } = require("ws");

const clients = new Map(); // topic -> its clients

function join(client, topic) {
  if (!clients.has(topic)) clients.set(topic, new Set());
  clients.get(topic).add(client);
  client.on("close", () => clients.get(topic).delete(client));
  client.send('{"type":"subscribed"}');
}

function publish(message) {
  const { topic } = JSON.parse(message);
  for (const client of clients.get(topic) ?? []) client.send(message, { binary: false });
}

const server = createServer();
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (client, request) => {
  client.on("message", (message) => {
    if (request.url === "/publish") publish(message);
    else join(client, JSON.parse(message).topics[0]);
  });
});
server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
