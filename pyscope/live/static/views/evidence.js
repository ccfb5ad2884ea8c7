// What a finding rests on, drawn by its kind: statements, the accesses of a race side by side, stacks, attempts.
"use strict";
(() => {
  const { html, format, Statement, Stack, Location, Badge, PartsBar, partsText } = PyScope;

  function Pair({ label, children }) {
    return html`<div class="pair"><dt>${label}</dt><dd>${children}</dd></div>`;
  }

  function Queries({ details }) {
    return html`<dl class="pairs">
      <${Pair} label="Statement"><${Statement} text=${details.statement} /><//>
      ${details.parent_statement && html`<${Pair} label="Once for each row of"><${Statement} text=${details.parent_statement} /><//>`}
      ${details.relationship && html`<${Pair} label="Relationship"><code>${details.relationship}</code><//>`}
      ${details.cause && html`<${Pair} label="Cause">${format.words(details.cause)}<//>`}
      <${Pair} label="Cost">${format.plural(details.query_count ?? 0, "query", "queries")}${details.parents ? ` for ${format.plural(details.parents, "parent row")}` : ""}, ${format.ms(details.total_ms)} in all<//>
      ${details.stack?.length > 0 && html`<${Pair} label="Called from"><${Stack} frames=${details.stack} /><//>`}
    </dl>`;
  }

  /** The accesses of a race in columns, one for each thread or task, in the order in which they happened. */
  function Race({ details }) {
    const accesses = details.accesses ?? [];
    const start = Math.min(...accesses.map((access) => access.time_ms));
    return html`<div>
      <dl class="pairs">
        <${Pair} label="Subject"><code>${details.subject}</code><//>
        ${details.grade && html`<${Pair} label="Grade"><${Badge} tone=${details.grade === "observed" ? "error" : "warning"}>${details.grade}<//> ${details.grade === "observed" ? "the foreign write fell inside the window" : "it could happen; it was not seen to"}<//>`}
      </dl>
      <div class="accesses">
        ${accesses.map(
          (access, index) => html`<section class="access" aria-label=${`Access ${index + 1}: ${access.operation}`}>
            <header>
              <span class="step">${index + 1}</span>
              <${Badge} tone=${/write|set|update|insert|delete/i.test(access.operation) ? "error" : "info"}>${access.operation}<//>
              <span class="number">+${format.ms(access.time_ms - start)}</span>
            </header>
            <p class="who">${access.thread}${access.context ? ` · ${access.context}` : ""}</p>
            <p><${Location} at=${access.location} /></p>
            <${Stack} frames=${access.stack} label=${`Stack of access ${index + 1}`} />
          </section>`,
        )}
      </div>
      ${details.accesses_left_out > 0 && html`<p class="faint">${format.plural(details.accesses_left_out, "access", "accesses")} in the middle ${details.accesses_left_out === 1 ? "is" : "are"} not shown.</p>`}
    </div>`;
  }

  function Slow({ details }) {
    return html`<div>
      ${details.parts && html`<p class="slow-parts"><${PartsBar} parts=${details.parts} /> <span>${partsText(details.parts)}</span></p>`}
      <dl class="pairs">
        ${details.duration_ms !== undefined && html`<${Pair} label="Took">${format.ms(details.duration_ms)}<//>`}
        ${details.stack?.length > 0 && html`<${Pair} label="Called from"><${Stack} frames=${details.stack} /><//>`}
        <${Rest} details=${details} />
      </dl>
    </div>`;
  }

  const SHOWN = new Set(["stack", "parts", "duration_ms", "id", "attempts", "location"]);

  /** Facts that no drawing knows: still shown. */
  function Rest({ details }) {
    return Object.entries(details)
      .filter(([name, value]) => !SHOWN.has(name) && value !== null && value !== "" && typeof value !== "object")
      .map(([name, value]) => html`<${Pair} label=${labelOf(name)}>${fact(name, value)}<//>`);
  }

  const LABELS = { total_ms: "In all", pid: "PID" };

  function labelOf(name) {
    const words = format.words(name.replace(/_ms$/, ""));
    return LABELS[name] ?? words[0].toUpperCase() + words.slice(1);
  }

  function fact(name, value) {
    if (name === "time_ms") return format.clock(value);
    if (name.endsWith("_ms")) return format.ms(value);
    return name.startsWith("bytes_") ? format.bytes(value) : String(value);
  }

  function Evidence({ finding }) {
    const details = finding.details ?? {};
    if (details.statement) return html`<${Queries} details=${details} />`;
    if (details.accesses) return html`<${Race} details=${details} />`;
    if (details.attempts) {
      return html`<div><p><b>${details.service}</b> ${details.operation} <span class="faint">${details.peer}</span></p><${PyScope.Attempts} call=${details} /></div>`;
    }
    return html`<${Slow} details=${details} />`;
  }

  PyScope.Evidence = Evidence;
})();
