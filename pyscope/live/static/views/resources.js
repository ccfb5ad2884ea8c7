// Memory, CPU, mailboxes and events over time, and the processes one by one.
"use strict";
(() => {
  const { html, format, Chart, BINARY, HUNDREDTHS, WHOLE, Panel, NothingYet, useStore } = PyScope;
  const { useMemo } = preactHooks;

  const COLOURS = ["python", "external", "sql", "lock", "accent", "scope", "bad", "warn"];
  const MEMORY = [
    { label: "in use", colour: "python", read: (one) => one.memory_bytes, fill: true },
    { label: "peak", colour: "external", read: (one) => one.peak_memory_bytes },
  ];
  const CPU = [{ label: "all processes", colour: "python", read: (one) => one.cpu_percent, fill: true }];
  const COST = [{ label: "of one CPU", colour: "lock", read: (one) => one.overhead_percent, fill: true }];

  /** A line for each of the fullest mailboxes. */
  function mailboxLines(names) {
    return names.map((name, index) => ({ label: name, colour: COLOURS[index % COLOURS.length], read: (one) => one.mailboxes?.[name] ?? null }));
  }

  function fullest(metrics) {
    const most = new Map();
    for (const sample of metrics) for (const [name, length] of Object.entries(sample.mailboxes ?? {})) most.set(name, Math.max(most.get(name) ?? 0, length));
    const names = [...most].sort(([, one], [, other]) => other - one).map(([name]) => name);
    return [names.slice(0, COLOURS.length).sort(), names.length > COLOURS.length];
  }

  function Processes({ sample }) {
    const processes = sample.processes ?? [];
    if (processes.length === 0) return null;
    const isCut = sample.process_count > processes.length;
    return html`<${Panel} title="Processes" aside=${isCut && html`<span class="tally">the ${format.count(processes.length)} with the most memory of ${format.count(sample.process_count)}</span>`}>
      <div class="scroll-x" role="region" aria-label="Table of processes" tabindex="0">
        <table>
          <thead><tr><th scope="col">PID</th><th scope="col">Name</th><th scope="col">CPU</th><th scope="col">Memory</th></tr></thead>
          <tbody>${processes.map((one) => html`<tr key=${one.pid}><td>${one.pid}</td><td>${one.name}</td><td>${format.percent(one.cpu_percent, 0)}</td><td>${format.bytes(one.memory_bytes)}</td></tr>`)}</tbody>
        </table>
      </div>
    <//>`;
  }

  function Resources() {
    const [metrics, whole] = useStore("metrics", "whole");
    const [names, isCut] = fullest(metrics);
    const series = useMemo(() => mailboxLines(names), [names.join("\n")]);
    const sample = metrics.at(-1);
    if (!sample) return html`<${NothingYet} title="No samples" yet=" yet">Memory, CPU and mailbox lengths appear here once the service is watched.<//>`;
    return html`<div class="resources">
      <div class="charts">
        <${Chart} title="Memory" series=${MEMORY} samples=${metrics} summary=${whole} show=${format.bytes} incrs=${BINARY} />
        <${Chart} title="CPU" series=${CPU} samples=${metrics} summary=${whole} show=${(value) => format.percent(value, 0)} incrs=${WHOLE} />
        <${Chart} title="Recorder’s cost" series=${COST} samples=${metrics} summary=${whole} show=${(value) => format.percent(value, 2)} incrs=${HUNDREDTHS} />
        ${series.length > 0 && html`<${Chart} title="Mailboxes" series=${series} samples=${metrics} summary=${whole} show=${format.rate} incrs=${WHOLE} note=${isCut && html`<span class="note">the ${COLOURS.length} fullest</span>`} />`}
      </div>
      <${Processes} sample=${whole ?? sample} />
    </div>`;
  }

  PyScope.views.resources = Resources;
})();
