#!/usr/bin/env node
// PLUGIN_NAME: reads one request on standard input, writes one response to standard output, and exits.
// Write messages for people to standard error (console.error): standard output is for the response alone.
"use strict";

const fs = require("fs");

// Reports what has happened since the last run.
function poll(request) {
  const runs = (request.state.runs || 0) + 1;
  const greeting = request.config.greeting || "Hello";
  return {
    status: "ok",
    result: `${greeting}: run ${runs}`,
    // What happened, for routes and pipelines. Only the events of a successful run count. An event whose "dedupe_key"
    // has succeeded before is dropped.
    events: [{ type: "PLUGIN_NAME.polled", payload: { runs } }],
    // What to remember. The next run finds it under "state", even if this one fails.
    state_updates: { runs },
    // Lines for `ductilectl logs`. The levels are debug, info, warn and error.
    logs: [{ level: "info", message: `this is run ${runs}` }],
  };
}

// Processes one event: {"type": ..., "payload": ..., "source": ...}. The same event may come again, after a crash for
// example: make sure that a second run does no harm.
function handle(request) {
  if (!request.event) {
    // A failed run is retried, unless "retry" is false.
    return { status: "error", error: "handle needs an event", retry: false };
  }
  // The working directory, request.workspace_dir, belongs to this job: the next step of a pipeline gets the files that
  // a successful run leaves in it.
  return { status: "ok", result: `handled ${request.event.type}` };
}

// Reports whether the plugin works; changes nothing.
function health() {
  return { status: "ok", result: "works" };
}

const COMMANDS = new Map([["poll", poll], ["handle", handle], ["health", health]]);

// For plugins that wait for something: async functions work too.
async function main() {
  const request = JSON.parse(fs.readFileSync(0, "utf8"));
  const command = COMMANDS.get(request.command);
  const response = command
    ? await command(request)
    : { status: "error", error: `no command ${request.command}`, retry: false };
  process.stdout.write(JSON.stringify(response));
}

main().catch((error) => {
  console.error(error);
  process.stdout.write(JSON.stringify({ status: "error", error: String(error) }));
});
