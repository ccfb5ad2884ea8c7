// Who supervises whom, what state each child is in, how often it was restarted, and what happened when.
"use strict";
(() => {
  const { html, memo, format, Badge, NothingYet, Panel, Stack, useStore } = PyScope;
  const { useState } = preactHooks;

  const TONES = { running: "good", terminated: "warning", shutdown: "plain", failed: "error" };
  const EVENT_TONES = {
    child_started: "good",
    child_restarted: "warning",
    child_terminated: "error",
    child_shutdown: "plain",
    max_restarts_exceeded: "error",
  };
  const MOST_EVENTS = 300;

  function Node({ node, level, place, of }) {
    return html`<li role="treeitem" aria-level=${level} aria-setsize=${of} aria-posinset=${place} aria-expanded=${node.children?.length ? "true" : undefined} class=${`node ${node.state}`} data-node=${node.name}>
      <div class="node-line">
        <i class="dot"></i>
        <span class="node-name">${node.name}</span>
        <${Badge} tone=${TONES[node.state] ?? "plain"}>${node.state}<//>
        ${node.restarts > 0 && html`<${Badge} tone="warning">${format.plural(node.restarts, "restart")}<//>`}
        <span class="node-facts">${node.pid ? `pid ${node.pid}` : ""} ${node.since_ms ? `since ${format.clock(node.since_ms, false)}` : ""}</span>
        ${node.reason && node.reason !== node.state && html`<span class="node-reason">${node.reason}</span>`}
      </div>
      ${node.children?.length > 0 &&
      html`<ul role="group">${node.children.map((child, index) => html`<${Node} key=${`${child.name} ${child.pid}`} node=${child} level=${level + 1} place=${index + 1} of=${node.children.length} />`)}</ul>`}
      ${node.left_out > 0 && html`<p class="faint">… and ${format.count(node.left_out)} more that run or have ended in order</p>`}
    </li>`;
  }

  function tally(nodes, counts = { running: 0, failed: 0, restarts: 0, all: 0 }) {
    for (const node of nodes) {
      counts.all += 1;
      counts.restarts += node.restarts;
      if (node.state in counts) counts[node.state] += 1;
      tally(node.children ?? [], counts);
    }
    return counts;
  }

  const Event = memo(({ event }) => {
    const [open, setOpen] = useState(false);
    const orderly = event.kind === "child_shutdown";
    return html`<li class="event" data-event=${event.kind}>
      <span class="number">${format.clock(event.time_ms)}</span>
      <span>
        <${Badge} tone=${EVENT_TONES[event.kind] ?? "plain"}>${format.words(event.kind)}<//> <b>${event.child}</b>
        <span class="faint"> of ${event.supervisor}${event.restart_count > 0 ? `, restart ${event.restart_count}` : ""}</span>
        ${event.reason && !(orderly && event.reason === "shutdown") && html`<p class=${orderly ? "faint" : "error-text"}>${event.reason}</p>`}
        ${event.stack?.length > 0 &&
        html`<div>
          <button type="button" class="plain link" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>${open ? "Hide the stack" : "Stack"}</button>
          ${open && html`<${Stack} frames=${event.stack} />`}
        </div>`}
      </span>
    </li>`;
  });

  function Supervision() {
    const [{ tree, events }, totals] = useStore("supervision", "totals");
    const [only, setOnly] = useState("");
    const counts = tally(tree);
    const chosen = events.filter((event) => only === "" || EVENT_TONES[event.kind] !== "good");
    const shown = chosen.slice(-MOST_EVENTS).reverse();
    const isCut = chosen.length > shown.length || totals.supervision > events.length;
    return html`<div class="supervision two wide-left">
      <${Panel} title="Tree" aside=${html`<span class="tally">${format.count(counts.all)} in all, ${format.count(counts.failed)} failed, ${format.plural(counts.restarts, "restart")}</span>`}>
        ${tree.length
          ? html`<ul class="tree" role="tree" aria-label="Supervision tree" tabindex="0">${tree.map((node, index) => html`<${Node} key=${`${node.name} ${node.pid}`} node=${node} level=${1} place=${index + 1} of=${tree.length} />`)}</ul>`
          : html`<${NothingYet} title="No supervised processes">Supervisors and their children appear here once the traced program starts one.<//>`}
      <//>
      <${Panel} title="Events" aside=${html`${isCut && html`<span class="tally">the last ${format.count(shown.length)} of ${format.count(only ? chosen.length : Math.max(events.length, totals.supervision ?? 0))}</span>`} <button type="button" aria-pressed=${only ? "true" : "false"} onClick=${() => setOnly(only ? "" : "failures")}>Only failures</button>`}>
        ${shown.length
          ? html`<ol class="events" aria-label="Supervision events" tabindex="0">${shown.map((event) => html`<${Event} key=${`${event.time_ms} ${event.kind} ${event.child}`} event=${event} />`)}</ol>`
          : html`<${NothingYet} title="No events">Starts, crashes and restarts of children appear here.<//>`}
      <//>
    </div>`;
  }

  PyScope.views.supervision = Supervision;
})();
