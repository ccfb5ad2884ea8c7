// What the recording does not hold, and why: a recorder that loses events says so.
"use strict";
(() => {
  const { html, format, Empty, Panel, useStore } = PyScope;

  function Losses() {
    const [losses, totals] = useStore("losses", "totals");
    return html`<div class="losses">
      <${Panel} title="What is missing" aside=${html`<span class="tally">${totals.losses > losses.length ? `the largest ${format.count(losses.length)} of ${format.count(totals.losses)} rows` : format.plural(losses.length, "row")}</span>`}>
        ${losses.length === 0
          ? html`<${Empty} title="Nothing was lost">Events that a full ring drops, calls that are cut by a crash and code that is quieted to keep within its budget are listed here.<//>`
          : html`<div class="scroll-x" role="region" aria-label="Losses" tabindex="0">
              <table>
                <thead><tr><th scope="col">Reason</th><th scope="col">Count</th><th scope="col">From</th><th scope="col">To</th><th scope="col">PID</th><th scope="col">Detail</th></tr></thead>
                <tbody>
                  ${losses.map((row) => html`<tr><td><b>${format.words(row.reason)}</b></td><td>${row.count ? format.count(row.count) : "not known"}</td><td>${format.clock(row.start_ms)}</td><td>${format.clock(row.end_ms)}</td><td>${row.pid || ""}</td><td class="error-cell">${row.detail}</td></tr>`)}
                </tbody>
              </table>
            </div>`}
      <//>
    </div>`;
  }

  PyScope.views.losses = Losses;
})();
