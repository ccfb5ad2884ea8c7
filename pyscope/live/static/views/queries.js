// SQL statements by the time they took, with the findings that concern them above.
"use strict";
(() => {
  const { html, format, router, Rows, Search, Choice, Statement, Location, Badge, Since, Empty, NothingYet, useStore, useRoute, useAnswer, useNarrow } = PyScope;

  const CONCERNED = 12;
  const ORDERS = { total: "total_ms", count: "count", mean: "mean_ms", max: "max_ms" };

  function Concerned({ findings }) {
    const shown = findings.filter((one) => one.details?.statement);
    if (shown.length === 0) return null;
    return html`<div class="advice-strip" role="region" aria-label="Findings on queries" tabindex="0">
      ${shown.slice(0, CONCERNED).map(
        (one) => html`<article key=${one.id} class=${`mini ${one.severity}`} data-kind=${one.kind}>
          <p><${Badge} tone=${one.severity}>${format.words(one.kind)}<//> ${format.plural(one.details.query_count ?? 0, "query", "queries")}${one.details.relationship ? html` by <code>${one.details.relationship}</code>` : ""}</p>
          <p><a href=${router.link("findings", one.id)}>${one.title}</a></p>
          <p><${Location} at=${one.where} /></p>
          <p class="cure">${one.cure}</p>
        </article>`,
      )}
      ${shown.length > CONCERNED && html`<p><a href="#/findings">… and ${format.count(shown.length - CONCERNED)} more</a></p>`}
    </div>`;
  }

  function Queries() {
    const [{ findings }] = useStore("findings");
    const { parameters } = useRoute();
    const isNarrow = useNarrow();
    const { data, error, loading } = useAnswer("api/queries", {}, 2000);
    const { q = "", order = "total" } = parameters;
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const key = ORDERS[order] ?? ORDERS.total;
    const all = data?.queries ?? [];
    const text = (one) => `${one.statement} ${one.call_site?.file} ${one.call_site?.function}`.toLowerCase();
    const rows = all.filter((one) => words.every((word) => text(one).includes(word))).sort((one, other) => other[key] - one[key]);
    const most = Math.max(0, ...all.map((one) => one.total_ms));
    const site = (one) => html`<${Location} at=${one.call_site} parts=${2} />`;
    const bar = (one) => html`<span class="share"><i style=${{ width: `${most ? (100 * one.total_ms) / most : 0}%` }}></i><b>${format.ms(one.total_ms)}</b></span>`;
    const statement = (one) => html`<${Statement} text=${one.statement} short />`;
    const cells = isNarrow
      ? (one) => [statement(one), `${format.count(one.count)}×`, bar(one), site(one)]
      : (one) => [statement(one), format.count(one.count), bar(one), format.ms(one.mean_ms), format.ms(one.max_ms), format.count(one.requests), site(one)];
    return html`<div class="list-view">
      <${Concerned} findings=${findings} />
      <div class="toolbar">
        <${Search} label="Search statements and places" value=${q} onInput=${(value) => router.refine({ q: value })} />
        <${Choice} label="Order" value=${order} onChange=${(value) => router.refine({ order: value })} options=${[["total", "Total"], ["count", "Count"], ["mean", "Mean"], ["max", "Longest"]]} />
        <span class="tally">${format.plural(rows.length, "statement")}${data?.total > all.length ? `, of ${format.count(data.total)}` : ""}<${Since} at=${data?.since_ms} /></span>
      </div>
      ${error && html`<p class="notice-inline" role="status">${error}</p>`}
      <${Rows} kind=${isNarrow ? "queries narrow" : "queries"} label="SQL statements" question=${JSON.stringify(parameters)} rows=${rows} height=${isNarrow ? 58 : 30}
        idOf=${(one) => `${one.statement}\n${one.call_site?.file}:${one.call_site?.line}`} cells=${cells}
        columns=${isNarrow ? ["Statement", "Count", "Total", "Called from"] : ["Statement", "Count", "Total", "Mean", "Longest", "Requests", "Called from"]}
        empty=${loading ? html`<p class="loading" role="status">Loading…</p>` : all.length ? html`<${Empty} title="No statements">None fits the search.<//>` : html`<${NothingYet} title="No statements">SQL that SQLAlchemy and Django's ORM execute appears here.<//>`} />
    </div>`;
  }

  PyScope.views.queries = Queries;
})();
