// The findings: what, where, why, what to change, and the evidence on demand.
"use strict";
(() => {
  const { html, memo, format, router, store, Location, Badge, Empty, NothingYet, Search, Choice, Evidence, useStore, useRoute } = PyScope;
  const { useEffect, useRef } = preactHooks;

  const SEVERITY = { error: "Error", warning: "Warning", info: "Note" };

  const Card = memo(({ finding, open, parameters }) => {
    const { id, kind, severity, title, where, why, cure, count, time_ms, scope } = finding;
    return html`<article class=${`card ${severity}`} data-finding=${id} data-kind=${kind} aria-label=${title}>
      <header>
        <${Badge} tone=${severity}>${SEVERITY[severity] ?? severity}<//>
        <span class="kind">${format.words(kind)}</span>
        <span class="when">${count > 1 && html`<b>${format.count(count)}×</b> `}${time_ms > 0 && `${count > 1 ? "first " : ""}at ${format.clock(time_ms, false)}`}</span>
      </header>
      <h2><a href=${router.link("findings", id, parameters)}>${title}</a></h2>
      ${where && html`<p class="where"><${Location} at=${where} /></p>`}
      <dl class="advice">
        ${why && html`<div><dt>Why</dt><dd>${why}</dd></div>`}
        ${cure && html`<div><dt>What to change</dt><dd>${cure}</dd></div>`}
      </dl>
      <footer>
        ${open
          ? html`<a href=${router.link("findings", "", parameters)} aria-expanded="true">Hide the evidence</a>`
          : html`<a href=${router.link("findings", id, parameters)} aria-expanded="false">Evidence</a>`}
        ${scope && html`<a href=${router.link("requests", scope)}>The request</a>`}
      </footer>
      ${open && html`<div class="evidence"><${Evidence} finding=${finding} /></div>`}
    </article>`;
  });

  function Findings() {
    const [{ total, findings }] = useStore("findings");
    const { id, parameters } = useRoute();
    const list = useRef(null);
    const there = findings.some((one) => one.id === id);

    useEffect(() => {
      if (id && there) list.current?.querySelector(`[data-finding="${CSS.escape(id)}"]`)?.scrollIntoView({ block: "start" });
    }, [id, there]);

    const counts = new Map();
    for (const one of findings) counts.set(one.kind, (counts.get(one.kind) ?? 0) + 1);
    const { q = "", kind = "" } = parameters;
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (one) => `${one.kind} ${one.title} ${one.why} ${one.cure} ${one.where?.file} ${one.where?.function}`.toLowerCase();
    const shown = findings.filter((one) => one.id === id || ((kind === "" || one.kind === kind) && words.every((word) => text(one).includes(word))));
    return html`<div class="findings">
      <div class="toolbar">
        <${Search} label="Search findings" value=${q} onInput=${(value) => router.refine({ q: value })} />
        ${counts.size > 1 &&
        html`<${Choice} label="Kind" value=${kind} onChange=${(value) => router.refine({ kind: value })}
          options=${[["", "All", findings.length], ...[...counts].map(([name, number]) => [name, format.words(name), number])]} />`}
        <span class="tally">${total > findings.length ? `${format.count(findings.length)} of ${format.count(total)}` : format.plural(total, "finding")}</span>
      </div>
      ${id && !there && html`<p class="notice-inline" role="status">The finding of this link is not there (any more).</p>`}
      <div class="cards" ref=${list}>
        ${shown.map((one) => html`<${Card} key=${one.id} finding=${one} open=${one.id === id} parameters=${parameters} />`)}
      </div>
      ${shown.length === 0 &&
      (findings.length
        ? html`<${Empty} title="No finding fits">Change the search or the filter.<//>`
        : html`<${NothingYet} title="Nothing found" yet=" so far" ended="The recording shows no N+1 queries, races, crashes, timeouts, slow calls or overloads.">N+1 queries, races, crashes, timeouts, slow calls and overloads appear here as they happen${store.read("hello")?.source.mode === "flight" ? ", from the seconds that the flight recorder holds" : ""}.<//>`)}
    </div>`;
  }

  PyScope.views.findings = Findings;
})();
