// The list of requests, messages, reports and tasks: newest first, searched and filtered. One of them opens its waterfall.
"use strict";
(() => {
  const { html, format, router, store, Rows, Search, Choice, PartsBar, PartsLegend, Badge, Empty, NothingYet, ofAll, useStore, useRoute, useNarrow } = PyScope;

  const failed = (one) => one.outcome === "raised" || one.status >= 500;
  const SHOWN = {
    "": () => true,
    errors: failed,
    refused: (one) => one.status >= 400 && one.status < 500,
    open: (one) => one.outcome === "open",
    findings: (one) => one.findings > 0,
  };
  const KINDS = [
    ["", "All kinds"],
    ["request", "Requests"],
    ["message", "Messages"],
    ["report", "Reports"],
    ["task", "Tasks"],
    ["job", "Jobs"],
  ];

  const texts = new WeakMap();
  function text(one) {
    if (!texts.has(one)) texts.set(one, `${one.id} ${one.name} ${one.route} ${one.error} ${one.status} ${one.thread} ${one.context ?? ""}`.toLowerCase());
    return texts.get(one);
  }

  function chosen(requests, { q = "", kind = "", only = "", least = "", order = "" }) {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const accept = SHOWN[only] ?? SHOWN[""];
    const fastest = Number(least) || 0;
    const found = requests.filter(
      (one) => (kind === "" || one.kind === kind) && one.duration_ms >= fastest && accept(one) && words.every((word) => text(one).includes(word)),
    );
    return order === "slowest" ? found.sort((one, other) => other.duration_ms - one.duration_ms) : found;
  }

  function outcome(one) {
    if (one.outcome === "open") return html`<${Badge} tone="info">open<//>`;
    if (one.status) return html`<${Badge} tone=${one.status >= 500 ? "error" : one.status >= 400 ? "warning" : "good"}>${one.status}<//>`;
    if (one.outcome === "returned") return html`<${Badge} tone="good">ok<//>`;
    return html`<${Badge} tone=${one.outcome === "raised" ? "error" : "warning"} title=${one.error}>${one.error || one.outcome}<//>`;
  }

  /** The name with the route in it: in place of the path where that is the same but for the parameters' names. */
  function titleOf({ name, route }) {
    if (!route || route === name || name.endsWith(` ${route}`)) return name;
    const method = name.split(" ", 1)[0];
    if (name === `${method} ${route.replace(/\{[^{}]*\}|<[^<>]*>/g, "{}")}`) return `${method} ${route}`;
    return html`${name} <small>${route}</small>`;
  }

  function name(one) {
    return html`<a href=${router.link("requests", one.id)} data-open title=${one.name}>${titleOf(one)}</a>
      ${one.kind !== "request" && html`<span class="kind">${one.kind}</span>`}`;
  }

  const some = (number) => (number ? format.count(number) : html`<span class="none">0</span>`);
  const found = (one) => (one.findings ? html`<${Badge} tone="warning">${format.count(one.findings)}<//>` : html`<span class="none">0</span>`);

  const wideCells = (one) => [
    format.clock(one.start_ms), name(one), outcome(one), format.ms(one.duration_ms), html`<${PartsBar} parts=${one.parts} />`, some(one.queries), some(one.external), found(one),
  ]; // prettier-ignore
  const narrowCells = (one) => [name(one), outcome(one), format.ms(one.duration_ms), html`<${PartsBar} parts=${one.parts} />`, format.clock(one.start_ms)];
  const WIDE = ["Time", "Name", "Status", "Duration", "Where the time went", "SQL", "Calls out", "Findings"];
  const NARROW = ["Name", "Status", "Duration", "Time spent", "At"];

  function RequestList({ parameters }) {
    const [requests, totals] = useStore("requests", "totals");
    const isNarrow = useNarrow();
    const rows = chosen(requests, parameters);
    const filtered = rows.length !== requests.length;
    return html`<div class="list-view">
      <div class="toolbar">
        <${Search} label="Search requests" value=${parameters.q ?? ""} onInput=${(q) => router.refine({ q })} />
        <${Choice} label="Which" value=${parameters.only ?? ""} onChange=${(only) => router.refine({ only })}
          options=${[["", "All"], ["errors", "Errors"], ["refused", "4xx"], ["open", "Open"], ["findings", "With findings"]]} />
        <label class="field"><span>Kind</span>
          <select value=${parameters.kind ?? ""} onChange=${(event) => router.refine({ kind: event.currentTarget.value })}>
            ${KINDS.map(([value, label]) => html`<option value=${value} selected=${value === (parameters.kind ?? "")}>${label}</option>`)}
          </select>
        </label>
        <label class="field"><span>At least</span>
          <select value=${parameters.least ?? ""} onChange=${(event) => router.refine({ least: event.currentTarget.value })}>
            ${[["", "any time"], ["10", "10 ms"], ["100", "100 ms"], ["1000", "1 s"]].map(([value, label]) => html`<option value=${value} selected=${value === (parameters.least ?? "")}>${label}</option>`)}
          </select>
        </label>
        <${Choice} label="Order" value=${parameters.order ?? ""} onChange=${(order) => router.refine({ order })} options=${[["", "Newest"], ["slowest", "Slowest"]]} />
        <span class="tally" data-tally>${filtered ? `${format.count(rows.length)} of ${format.count(requests.length)}` : format.count(rows.length)}${ofAll(requests.length, totals.requests, store.LIMITS.requests)}</span>
        <${PartsLegend} />
      </div>
      <${Rows} kind=${isNarrow ? "requests narrow" : "requests"} label="Requests" question=${JSON.stringify(parameters)} rows=${rows} idOf=${(one) => one.id} height=${isNarrow ? 58 : 30}
        columns=${isNarrow ? NARROW : WIDE} cells=${isNarrow ? narrowCells : wideCells} rowClass=${(one) => (failed(one) ? "failed" : "")}
        onOpen=${(one) => router.go("requests", one.id)}
        empty=${filtered
          ? html`<${Empty} title="No request fits">Change the search or the filters.<//>`
          : html`<${NothingYet} title="No requests" yet=" yet">Requests and actor messages appear here within a moment of the service handling them.<//>`} />
    </div>`;
  }

  function Requests() {
    const { id, parameters } = useRoute();
    return id ? html`<${PyScope.Waterfall} key=${id} id=${id} />` : html`<${RequestList} parameters=${parameters} />`;
  }

  Object.assign(PyScope, { outcomeBadge: outcome });
  PyScope.views.requests = Requests;
})();
