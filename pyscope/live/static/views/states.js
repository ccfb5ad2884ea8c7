// State changes: lanes of the objects that changed last on a time line, and the list of changes as diffs.
"use strict";
(() => {
  const { html, memo, format, router, store, Rows, Search, Location, Empty, NothingYet, ofAll, useSeldom, useStore, useRoute, useNarrow } = PyScope;
  const { useMemo } = preactHooks;

  const LANES = 8;
  const LANES_PERIOD = 1000;
  const SEGMENTS = 24;
  const LONGEST_VALUE = 200;

  function value(one) {
    if (one === null || one === undefined) return "None";
    const text = typeof one === "string" ? one : JSON.stringify(one);
    return text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE)}…` : text;
  }

  const laneName = (one) => `${one.process}${one.key ? ` ${one.key}` : ""}.${one.attribute}`;
  const laneKey = (one) => `${laneName(one)} ${one.object}`;

  /** The objects' attributes that changed last, each as the stretches of time in which it had a value. */
  function lanes(changes) {
    const found = new Map();
    let isCut = false;
    for (const one of changes) {
      const name = laneKey(one);
      if (!found.has(name)) {
        if (found.size === LANES) {
          isCut = true;
          continue;
        }
        found.set(name, []);
      }
      const lane = found.get(name);
      if (lane.length < SEGMENTS) lane.push(one);
    }
    // By name, lest they change places with every change.
    const lists = [...found].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true })).map(([, lane]) => lane);
    const from = Math.min(...lists.map((lane) => lane.at(-1).time_ms));
    const to = Math.max(...lists.map((lane) => lane[0].time_ms));
    const length = Math.max(to - from, 1) * 1.04;
    return { from, to, lists, isCut, share: (time) => (100 * (time - from)) / length };
  }

  const Lanes = memo(({ changes }) => {
    const { from, to, lists, isCut, share } = lanes(changes);
    if (lists.length === 0) return null;
    return html`<section class="panel lanes" aria-label="Time line">
      ${lists.map(
        (lane) => html`<div class="lane" key=${laneKey(lane[0])}>
          <span class="lane-name" title=${laneName(lane[0])}>${laneName(lane[0])}</span>
          <span class="lane-track">
            ${lane.map((one, index) => {
              const left = share(one.time_ms);
              const right = index === 0 ? 100 : share(lane[index - 1].time_ms);
              return html`<i key=${one.id} style=${{ left: `${left}%`, width: `${Math.max(0.3, right - left)}%`, "--hue": String(format.hue(value(one.new))) }} title=${`${format.clock(one.time_ms)}  ${value(one.old)} → ${value(one.new)}`}>${right - left > 6 ? value(one.new) : ""}</i>`;
            })}
          </span>
        </div>`,
      )}
      <p class="lane-axis"><span>${format.clock(from)}</span>${isCut && html`<span>the ${LANES} that changed last</span>`}<span>${format.clock(to)}</span></p>
    </section>`;
  });

  function Diff({ one }) {
    return html`<span class="diff" title=${`${value(one.old)} → ${value(one.new)}`}><del>${value(one.old)}</del><span aria-hidden="true"> → </span><ins>${value(one.new)}</ins></span>`;
  }

  function States() {
    const [changes, totals] = useStore("state", "totals");
    const { parameters } = useRoute();
    const isNarrow = useNarrow();
    const { q = "" } = parameters;
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (one) => `${laneName(one)} ${value(one.old)} ${value(one.new)} ${one.transition} ${one.trigger} ${one.thread}`.toLowerCase();
    const rows = useMemo(() => (words.length ? changes.filter((one) => words.every((word) => text(one).includes(word))) : changes), [changes, q]);
    const seldom = useSeldom(rows, LANES_PERIOD);
    const object = (one) => html`<b>${one.process}</b>${one.key ? ` ${one.key}` : ""}`;
    const from = (one) => html`${one.scope ? html`<a href=${router.link("requests", one.scope)} data-open title="The request that changed it">${one.trigger || "request"}</a>` : html`<span tabindex="-1" data-open>${one.trigger}</span>`}`;
    const cells = isNarrow
      ? (one) => [object(one), html`${one.attribute} <${Diff} one=${one} />`, format.clock(one.time_ms), from(one)]
      : (one) => [format.clock(one.time_ms), object(one), one.attribute, html`<${Diff} one=${one} />`, format.words(one.transition), from(one), one.thread, html`<${Location} at=${one.location} parts=${2} />`];
    return html`<div class="list-view">
      <${Lanes} changes=${seldom} />
      <div class="toolbar">
        <${Search} label="Search object, attribute, value" value=${q} onInput=${(text_) => router.refine({ q: text_ })} />
        <span class="tally">${words.length ? `${format.count(rows.length)} of ${format.plural(changes.length, "change")}` : format.plural(rows.length, "change")}${ofAll(changes.length, totals.state, store.LIMITS.state)}</span>
      </div>
      <${Rows} kind=${isNarrow ? "states narrow" : "states"} label="State changes" question=${q} rows=${rows} idOf=${(one) => one.id} height=${isNarrow ? 58 : 30} cells=${cells}
        columns=${isNarrow ? ["Object", "Change", "Time", "By"] : ["Time", "Object", "Attribute", "From → to", "Transition", "By", "Thread", "Where"]}
        empty=${changes.length
          ? html`<${Empty} title="No change fits">Change the search.<//>`
          : html`<${NothingYet} title="No state changes" yet=" yet">Attributes of watched objects and actors appear here when they change.<//>`} />
    </div>`;
  }

  PyScope.views.states = States;
})();
