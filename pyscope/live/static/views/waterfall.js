// The waterfall of one request: its calls, queries, external attempts and locks on one time axis.
"use strict";
(() => {
  const { html, format, router, Rows, Search, Badge, Empty, Since, Location, Statement, PartsBar, PARTS, partLabel, useStore, useAnswer, useNarrow } = PyScope;
  const { useMemo, useState } = preactHooks;

  const KINDS = [
    ["call", "calls"],
    ["query", "SQL"],
    ["external", "external calls"],
    ["attempt", "attempts"],
    ["lock", "locks"],
    ["scope", "scopes"],
  ];

  /** Spans in the order of a depth-first walk, each with its depth, whether it has children, and what hides it. */
  function outline(spans, folded) {
    const children = new Map();
    const known = new Set(spans.map((span) => span.id));
    for (const span of spans) {
      const parent = known.has(span.parent) && span.parent !== span.id ? span.parent : null;
      if (!children.has(parent)) children.set(parent, []);
      children.get(parent).push(span);
    }
    for (const list of children.values()) list.sort((one, other) => one.start_ms - other.start_ms || one.id - other.id);
    const result = [];
    const waiting = (children.get(null) ?? []).map((span) => [span, 0]).reverse();
    while (waiting.length) {
      const [span, depth] = waiting.pop();
      const below = children.get(span.id) ?? [];
      result.push({ span, depth, children: below.length });
      if (!folded.has(span.id)) for (let index = below.length - 1; index >= 0; index -= 1) waiting.push([below[index], depth + 1]);
    }
    return result;
  }

  /** What a span is called: of a call the function first, which would be cut off behind its module. */
  function titled({ kind, name, detail, location }) {
    const own = location?.function;
    if (kind !== "call" || !own || !name.endsWith(`.${own}`)) return html`${name}${detail && html` <small>${detail}</small>`}`;
    return html`${own} <small>${name.slice(0, -own.length - 1)} ${detail}</small>`;
  }

  function Facts({ request, cut }) {
    const facts = [
      ["Started", format.day(request.start_ms)],
      ["Duration", format.ms(request.duration_ms)],
      ...PARTS.filter(([part]) => request.parts?.[part] > 0).map(([part, label, kind]) => [partLabel(request.parts, part, label), format.ms(request.parts[part]), kind]),
      request.parts?.cpu_ms !== null && request.parts?.cpu_ms !== undefined && ["CPU", format.ms(request.parts.cpu_ms)],
      ["SQL", format.plural(request.queries, "query", "queries")],
      ["Calls out", format.count(request.external)],
      ["Process", request.pid],
      ["Thread", request.thread],
      request.context && ["Context", request.context],
      cut > 0 && ["Not shown", format.plural(cut, "span")],
    ].filter(Boolean);
    return html`<dl class="facts">
      ${facts.map(([label, value, kind]) => html`<div><dt>${kind && html`<i class=${`swatch fill-${kind}`}></i>`}${label}</dt><dd>${value}</dd></div>`)}
    </dl>`;
  }

  function Axis({ from, length, ticks }) {
    const marks = Array.from({ length: ticks }, (_, index) => index / (ticks - 1));
    return html`<span class="axis" aria-hidden="true">
      ${marks.map((share) => html`<span style=${{ left: `${share * 100}%` }}>${format.ms(from + share * length)}</span>`)}
    </span>`;
  }

  function Bar({ span, from, length }) {
    const left = (100 * (span.start_ms - from)) / length;
    const width = Math.max(0.15, (100 * span.duration_ms) / length);
    const shownLeft = Math.max(0, Math.min(99.85, left));
    const shownWidth = Math.max(0.15, Math.min(100 - shownLeft, width + Math.min(0, left)));
    const side = shownLeft + shownWidth > 70 ? (shownLeft > 25 ? "before" : "inside") : "after";
    const position = side === "before" ? { right: `${100 - shownLeft}%` } : { left: `${side === "after" ? shownLeft + shownWidth : shownLeft}%` };
    return html`<span class="track">
      <i class=${`span-bar kind-${span.kind} ${span.outcome === "raised" ? "raised" : ""}`} style=${{ left: `${shownLeft.toFixed(3)}%`, width: `${shownWidth.toFixed(3)}%` }}></i>
      <span class=${`span-time ${side}`} style=${position}>${format.ms(span.duration_ms)}</span>
    </span>`;
  }

  function SpanDetails({ span, onZoom, onClose }) {
    return html`<aside class="details" aria-label="Chosen span">
      <header>
        <h2>${span.name}</h2>
        <button type="button" class="plain" onClick=${onClose} aria-label="Close">✕</button>
      </header>
      <p><${Badge} tone=${`kind-${span.kind}`}>${span.kind}<//> ${span.outcome && span.outcome !== "returned" && html`<${Badge} tone=${span.outcome === "raised" ? "error" : "info"}>${span.outcome}<//>`}</p>
      ${span.error && html`<p class="error-text">${span.error}</p>`}
      <dl class="facts">
        <div><dt>Starts at</dt><dd>${format.ms(span.start_ms)}</dd></div>
        <div><dt>Duration</dt><dd>${format.ms(span.duration_ms)}</dd></div>
        <div><dt>Self</dt><dd>${format.ms(span.self_ms)}</dd></div>
      </dl>
      <p><${Location} at=${span.location} /></p>
      ${span.detail && (span.kind === "query" ? html`<${Statement} text=${span.detail} />` : html`<p class="detail-text">${span.detail}</p>`)}
      <p><button type="button" onClick=${onZoom}>Zoom to it</button></p>
    </aside>`;
  }

  function Waterfall({ id }) {
    const [requests, findings] = useStore("requests", "findings");
    const isNarrow = useNarrow();
    const known = PyScope.store.find("requests", id);
    // A request that goes on is asked for again until the answer has its end, which may come later than the list's.
    const { data, error, loading } = useAnswer(`api/requests/${encodeURIComponent(id)}`, {}, (answer) =>
      (answer?.request ?? PyScope.store.find("requests", id))?.outcome === "open" ? 1000 : 0,
    );
    const [folded, setFolded] = useState(new Set());
    const [hidden, setHidden] = useState(new Set());
    const [query, setQuery] = useState("");
    const [picked, setPicked] = useState(null);
    const [zoom, setZoom] = useState(null);

    const spans = data?.spans ?? [];
    const rows = useMemo(() => {
      const wanted = query.toLowerCase();
      if (!wanted && hidden.size === 0) return outline(spans, folded);
      return outline(
        spans.filter((span) => !hidden.has(span.kind) && (!wanted || `${span.name} ${span.detail ?? ""} ${span.error ?? ""}`.toLowerCase().includes(wanted))),
        folded,
      );
    }, [spans, folded, hidden, query]);

    const request = data?.request ?? known;
    const about = findings.findings.filter((one) => one.scope === id || one.details?.accesses?.some((access) => access.scope === id));
    const position = requests.findIndex((one) => one.id === id);
    const newer = position > 0 ? requests[position - 1] : null;
    const older = position >= 0 ? requests[position + 1] : null;
    const whole = Math.max(request?.duration_ms ?? 0, ...spans.map((span) => span.start_ms + span.duration_ms), 0.001);
    const { from, length } = zoom ?? { from: 0, length: whole };

    const toggle = (set, change, value) => {
      const next = new Set(set);
      if (!next.delete(value)) next.add(value);
      change(next);
    };
    const zoomTo = (span) => setZoom({ from: span.start_ms, length: Math.max(span.duration_ms, whole / 1e5) });

    const cells = ({ span, depth, children }) => [
      html`<span class="span-name" style=${{ paddingLeft: `${Math.min(depth, 24) * (isNarrow ? 6 : 12)}px` }}>
        ${children > 0
          ? html`<button type="button" class="fold" aria-expanded=${folded.has(span.id) ? "false" : "true"} aria-label=${`${folded.has(span.id) ? "Unfold" : "Fold"} ${span.name}`}
              onClick=${() => toggle(folded, setFolded, span.id)}>${folded.has(span.id) ? "▸" : "▾"}</button>`
          : html`<span class="fold"></span>`}
        <i class=${`swatch kind-${span.kind}`}></i>
        <button type="button" class="pick" data-open aria-pressed=${picked === span.id ? "true" : "false"} onClick=${() => setPicked(span.id)} onDblClick=${() => zoomTo(span)}
          title=${span.detail ? `${span.name}\n${span.detail}` : span.name}>${titled(span)}</button>
      </span>`,
      html`<${Bar} span=${span} from=${from} length=${length} />`,
    ];

    if (!request) {
      return html`<div class="waterfall">
        <p class="crumbs"><a href=${router.list("requests")}>← Requests</a></p>
        ${loading
          ? html`<p role="status" class="loading">Loading…</p>`
          : html`<${Empty} title="This request is not there">${error || "It is older than what the recording keeps."}<//>`}
      </div>`;
    }
    const chosen = spans.find((span) => span.id === picked);
    return html`<div class=${`waterfall ${chosen ? "with-details" : ""}`}>
      <div class="crumbs">
        <a href=${router.list("requests")}>← Requests</a>
        <span class="neighbours">
          ${newer && html`<a href=${router.link("requests", newer.id)}>newer</a>`}
          ${older && html`<a href=${router.link("requests", older.id)}>older</a>`}
          ${request.parent && html`<a href=${router.link("requests", request.parent)}>caused by</a>`}
        </span>
      </div>
      <header class="request-head">
        <h2>${request.name}</h2>
        ${PyScope.outcomeBadge(request)}
        ${request.route && request.route !== request.name && html`<span class="route">${request.route}</span>`}
      </header>
      ${request.error && html`<p class="error-text">${request.error}</p>`}
      <${PartsBar} parts=${request.parts} />
      <${Facts} request=${request} cut=${data?.cut ?? 0} />
      ${about.length > 0 &&
      html`<ul class="brief about" aria-label="Findings in this request">
        ${about.map((one) => html`<li key=${one.id}><a href=${router.link("findings", one.id)}><${Badge} tone=${one.severity}>${format.words(one.kind)}<//> <span>${one.title}</span></a></li>`)}
      </ul>`}
      ${error && data && html`<p class="notice-inline" role="status">${error}</p>`}
      <div class="toolbar">
        <${Search} label="Search spans" value=${query} onInput=${setQuery} />
        <div class="choice" role="group" aria-label="Kinds shown">
          ${KINDS.filter(([kind]) => spans.some((span) => span.kind === kind)).map(
            ([kind, label]) => html`<button type="button" aria-pressed=${hidden.has(kind) ? "false" : "true"} onClick=${() => toggle(hidden, setHidden, kind)}><i class=${`swatch kind-${kind}`}></i>${label}</button>`,
          )}
        </div>
        ${zoom && html`<button type="button" data-reset onClick=${() => setZoom(null)}>Whole request</button>`}
        <span class="tally">${format.plural(rows.length, "span")}<${Since} at=${data?.since_ms} /></span>
      </div>
      <div class="with-aside">
        <${Rows} kind="spans" label="Spans of the request" question=${query} rows=${rows} idOf=${(row) => row.span.id} height=${24} selected=${picked ?? undefined}
          columns=${["Span", html`<span class="hidden">Time</span><${Axis} from=${from} length=${length} ticks=${isNarrow ? 2 : 5} />`]} cells=${cells}
          rowClass=${({ span }) => (span.outcome === "raised" ? "failed" : "")} onOpen=${(row) => setPicked(row.span.id)}
          empty=${loading ? html`<p class="loading" role="status">Loading…</p>` : html`<${Empty} title="No spans">${spans.length ? "None fits the search." : data ? "Nothing was recorded within this request." : error}<//>`} />
        ${chosen && html`<${SpanDetails} span=${chosen} onZoom=${() => zoomTo(chosen)} onClose=${() => setPicked(null)} />`}
      </div>
    </div>`;
  }

  PyScope.Waterfall = Waterfall;
})();
