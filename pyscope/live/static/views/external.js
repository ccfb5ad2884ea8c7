// Calls to other services: every attempt and every wait between two of them, drawn on the call's own time line.
"use strict";
(() => {
  const { html, memo, format, router, store, Rows, Search, Choice, Badge, Location, Empty, NothingYet, ofAll, useStore, useRoute, useNarrow } = PyScope;

  const TONES = { succeeded: "good", failed: "error", timed_out: "error", cancelled: "warning", open: "info" };
  const tone = (outcome) => TONES[outcome] ?? "plain";

  /** The attempts of a call on one line: a bar each, hatched where the caller waited before the next. */
  const Line = memo(({ call }) => {
    const length = Math.max(call.duration_ms, 0.001);
    const share = (at) => Math.max(0, Math.min(100, (100 * at) / length));
    return html`<span class="attempts-line" role="img" aria-label=${`${format.plural(call.attempts.length, "attempt")} in ${format.ms(call.duration_ms)}`}>
      ${call.attempts.map((attempt) => {
        const left = share(attempt.start_ms - call.start_ms);
        const width = Math.max(0.6, share(attempt.duration_ms));
        const before = share(attempt.backoff_ms);
        return html`${before > 0.2 && html`<i class="backoff" style=${{ left: `${Math.max(0, left - before)}%`, width: `${Math.min(before, left)}%` }} title=${`waited ${format.ms(attempt.backoff_ms)}`}></i>`}
          <i class=${`attempt ${attempt.outcome}`} style=${{ left: `${Math.min(left, 99.4)}%`, width: `${width}%` }} title=${`${format.words(attempt.outcome)} after ${format.ms(attempt.duration_ms)}${attempt.error ? `: ${attempt.error}` : ""}`}></i>`;
      })}
    </span>`;
  });

  /** The attempts of a call in full. */
  function Attempts({ call }) {
    return html`<div class="attempts">
      <${Line} call=${call} />
      <div class="scroll-x" role="region" aria-label="Attempts" tabindex="0">
        <table>
          <thead><tr><th scope="col">Attempt</th><th scope="col">Waited before</th><th scope="col">Started</th><th scope="col">Took</th><th scope="col">Allowed</th><th scope="col">Outcome</th><th scope="col">Error</th></tr></thead>
          <tbody>
            ${call.attempts.map(
              (attempt, index) => html`<tr>
                <td>${index + 1}</td>
                <td>${attempt.backoff_ms > 0 ? format.ms(attempt.backoff_ms) : format.UNKNOWN}</td>
                <td>+${format.ms(attempt.start_ms - call.start_ms)}</td>
                <td>${format.ms(attempt.duration_ms)}</td>
                <td>${attempt.timeout_ms > 0 ? format.ms(attempt.timeout_ms) : "no limit"}</td>
                <td><${Badge} tone=${tone(attempt.outcome)}>${format.words(attempt.outcome)}${attempt.status ? ` ${attempt.status}` : ""}<//></td>
                <td class="error-cell">${attempt.error}</td>
              </tr>`,
            )}
            ${call.retries >= call.attempts.length && html`<tr><td colspan="7">… and ${format.count(call.retries + 1 - call.attempts.length)} more</td></tr>`}
          </tbody>
        </table>
      </div>
    </div>`;
  }

  const SHOWN = {
    "": () => true,
    failed: (one) => one.outcome !== "succeeded" && one.outcome !== "open",
    timed: (one) => one.timed_out,
    retried: (one) => one.retries > 0,
  };

  function External() {
    const [calls, totals] = useStore("external", "totals");
    const { id, parameters } = useRoute();
    const isNarrow = useNarrow();
    const { q = "", only = "" } = parameters;
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (one) => `${one.service} ${one.operation} ${one.peer} ${one.client} ${one.outcome} ${one.attempts.map((attempt) => attempt.error).join(" ")}`.toLowerCase();
    const accept = SHOWN[only] ?? SHOWN[""];
    const rows = calls.filter((one) => accept(one) && words.every((word) => text(one).includes(word)));
    const picked = id ? calls.find((one) => one.id === id) : null;
    const open = (one) => router.go("external", one.id, parameters);
    const name = (one) => html`<a href=${router.link("external", one.id, parameters)} data-open>${one.service}</a>${" "}<span class="faint">${one.operation}</span>`;
    const outcome = (one) => html`<${Badge} tone=${tone(one.outcome)}>${format.words(one.outcome)}<//>`;
    const line = (one) => html`<${Line} call=${one} />`;
    const cells = isNarrow
      ? (one) => [name(one), outcome(one), format.ms(one.duration_ms), line(one)]
      : (one) => [format.clock(one.start_ms), name(one), one.peer, outcome(one), one.retries ? format.count(one.retries) : html`<span class="none">0</span>`, format.ms(one.duration_ms), line(one)];
    return html`<div class="list-view">
      <div class="toolbar">
        <${Search} label="Search service, peer, error" value=${q} onInput=${(value) => router.refine({ q: value })} />
        <${Choice} label="Which" value=${only} onChange=${(value) => router.refine({ only: value })} options=${[["", "All"], ["failed", "Failed"], ["timed", "Timed out"], ["retried", "Retried"]]} />
        <span class="tally">${format.plural(rows.length, "call")}${ofAll(calls.length, totals.external, store.LIMITS.external)}</span>
        <ul class="legend" aria-label="Colours of the attempts"><li><i class="attempt succeeded"></i>answered</li><li><i class="attempt failed"></i>failed</li><li><i class="attempt timed_out"></i>timed out</li><li><i class="backoff"></i>backoff</li></ul>
      </div>
      ${picked &&
      html`<section class="panel picked" aria-label="Chosen call" data-call=${picked.id}>
        <header>
          <h2>${picked.service} <span class="faint">${picked.operation} ${picked.peer}</span></h2>
          ${outcome(picked)}
          <a class="close" href=${router.link("external", "", parameters)} aria-label="Close">✕</a>
        </header>
        <p class="facts-line">${format.ms(picked.duration_ms)} from ${format.clock(picked.start_ms)}${picked.client ? ` with ${picked.client}` : ""}${picked.repeated_by ? `, repeated by ${picked.repeated_by}` : ""} <${Location} at=${picked.location} /> ${picked.scope && html`<a href=${router.link("requests", picked.scope)}>the request</a>`}</p>
        <${Attempts} call=${picked} />
      </section>`}
      <${Rows} kind=${isNarrow ? "external narrow" : "external"} label="External calls" question=${JSON.stringify(parameters)} rows=${rows} idOf=${(one) => one.id} height=${isNarrow ? 58 : 30} cells=${cells} selected=${id}
        columns=${isNarrow ? ["Service", "Outcome", "Duration", "Attempts"] : ["Time", "Service", "Peer", "Outcome", "Retries", "Duration", "Attempts"]}
        rowClass=${(one) => (SHOWN.failed(one) ? "failed" : "")} onOpen=${open}
        empty=${calls.length
          ? html`<${Empty} title="No call fits">Change the search or the filter.<//>`
          : html`<${NothingYet} title="No external calls" yet=" yet">HTTP, SMTP, Redis and storage calls appear here with each of their attempts.<//>`} />
    </div>`;
  }

  Object.assign(PyScope, { Attempts });
  PyScope.views.external = External;
})();
