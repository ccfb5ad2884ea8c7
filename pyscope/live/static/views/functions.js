// The functions that ran: calls, total and self time, and each one's share of all self time.
"use strict";
(() => {
  const { html, format, router, Rows, Search, Choice, Since, Empty, useRoute, useAnswer, useNarrow } = PyScope;
  const LIMIT = 500;

  function Functions() {
    const { parameters } = useRoute();
    const isNarrow = useNarrow();
    const { q = "", order = "self" } = parameters;
    const { data, error, loading } = useAnswer("api/functions", { order, filter: q, limit: LIMIT }, 2000);
    const rows = data?.functions ?? [];
    const name = (one) => html`<span title=${`${one.module}.${one.qualname}\n${one.file}:${one.line}`}><b>${one.qualname}</b>${" "}<span class="faint">${one.module}</span></span>`;
    const share = (one) => html`<span class="share"><i style=${{ width: `${Math.min(100, 100 * one.share)}%` }}></i><b>${format.percent(100 * one.share)}</b></span>`;
    const where = (one) => html`<span class="location" title=${`${one.file}:${one.line}`}><span class="file">${format.shortPath(one.file, 2)}:${one.line}</span></span>`;
    const cells = isNarrow
      ? (one) => [name(one), format.ms(one.self_ms), share(one), `${format.rate(one.calls)}×`]
      : (one) => [name(one), format.count(one.calls), format.ms(one.total_ms), format.ms(one.self_ms), share(one), where(one)];
    return html`<div class="list-view">
      <div class="toolbar">
        <${Search} label="Search functions" value=${q} onInput=${(value) => router.refine({ q: value })} />
        <${Choice} label="Order" value=${order} onChange=${(value) => router.refine({ order: value })} options=${[["self", "Self time"], ["total", "Total time"], ["calls", "Calls"]]} />
        <span class="tally">${rows.length < (data?.total ?? 0) ? `${format.count(rows.length)} of ${format.plural(data.total, "function")}` : format.plural(rows.length, "function")}${data?.searched < data?.all ? (q ? `, searched in the ${format.count(data.searched)} of ${format.count(data.all)} with the most self time` : ", those with the most self time") : ""}<${Since} at=${data?.since_ms} /></span>
      </div>
      ${error && html`<p class="notice-inline" role="status">${error}</p>`}
      <${Rows} kind=${isNarrow ? "functions narrow" : "functions"} label="Functions" question=${JSON.stringify(parameters)} rows=${rows} idOf=${(one) => `${one.file}:${one.line}:${one.qualname}`} height=${isNarrow ? 58 : 28} cells=${cells}
        columns=${isNarrow ? ["Function", "Self", "Share", "Calls"] : ["Function", "Calls", "Total", "Self", "Share of self time", "Where"]}
        empty=${loading ? html`<p class="loading" role="status">Loading…</p>` : html`<${Empty} title="No functions">${q ? "None fits the search." : "Nothing that was asked for has run yet."}<//>`} />
    </div>`;
  }

  PyScope.views.functions = Functions;
})();
