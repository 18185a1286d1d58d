/** What a new user sees: nothing has come in yet, and the commands that change it. Used by views/agents.js. */

import { key } from "./api.js";
import { h } from "./dom.js";
import { local, utc } from "./format.js";
import { codeBlock } from "./parts.js";

const INGEST_PORT = 8001; // as it is unless DUNETRACE_INGEST_BIND says otherwise

export function welcome() {
  const server = `http://${location.hostname}:${INGEST_PORT}`;
  return [
    h("section", { class: "panel welcome" },
      h("h1", { tabindex: "-1" }, "No agent has been heard of yet"),
      h("p", {}, "Everything here is ready and listening. Send a first event from a shell; it shows up here within seconds."),
      codeBlock(firstEvent(server), "shell"),
      h("p", {}, "Or give your agent these lines, around what it does already."),
      codeBlock("pip install dunetrace", "shell"),
      codeBlock(firstRun(server), "python"),
      h("p", { class: "hint" }, "Only structure leaves the agent: counts, lengths, timings and digests. Never a prompt, an answer or an argument."),
      h("p", { class: "hint", title: utc(Date.now() / 1000) }, `Looked ${local(Date.now() / 1000)}; looking again every 15 seconds.`)),
  ];
}

function firstEvent(server) {
  const event = { event_type: "run.started", run_id: "first-run", agent_id: "my-agent", agent_version: "1", step_index: 0 };
  return [
    `curl ${server}/v1/ingest -H 'Content-Type: application/json' \\`,
    ...(key.get() ? ["  -H 'Authorization: Bearer <a key with the scope ingest>' \\"] : []),
    `  -d '${JSON.stringify({ agent_id: "my-agent", events: [event] })}'`,
  ].join("\n");
}

const firstRun = (server) => [
  "from dunetrace import Dunetrace",
  `dt = Dunetrace("${server}"${key.get() ? ', api_key="…"' : ""})`,
  'with dt.run("my-agent", model="gpt-4o", tools=["search"]) as run:',
  '    run.tool_called("search", {"query": "how dunes move"})',
  '    run.tool_responded("search", success=True)',
].join("\n");
