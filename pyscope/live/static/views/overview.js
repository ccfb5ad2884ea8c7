// How the service is doing: its figures now, their course, what was found and what was slow.
"use strict";
(() => {
  const { html, format, router, Chart, WHOLE, Panel, NothingYet, PartsBar, PartsLegend, Badge, Location, useStore } = PyScope;
  const SLOWEST = 8;
  const RECENT_FINDINGS = 6;

  /** With its method: of one route there may be several. */
  const titleOf = (one) => (one.route && one.kind === "request" ? `${one.name.split(" ", 1)[0]} ${one.route}` : one.name);

  function Tile({ label, value, detail, tone = "" }) {
    return html`<div class=${`tile ${tone}`}>
      <span class="tile-label">${label}</span>
      <span class="tile-value">${value}</span>
      <span class="tile-detail">${detail ?? "\u00a0"}</span>
    </div>`;
  }

  function Tiles({ sample, requests, findings, losses }) {
    // As in the samples: requests count, and where there are none messages and the like.
    const proper = requests.filter((one) => one.kind === "request");
    const counted = proper.length ? proper : requests;
    const errors = counted.reduce((sum, one) => sum + (one.outcome === "raised" || one.status >= 500 ? 1 : 0), 0);
    const lost = sample?.lost_events ?? losses.reduce((sum, row) => sum + row.count, 0);
    const severe = findings.findings.filter((one) => one.severity === "error").length;
    return html`<div class="tiles">
      <${Tile} label="Throughput" value=${sample ? `${format.rate(sample.throughput)}/s` : format.UNKNOWN} detail=${`${format.count(counted.length)} kept`} />
      <${Tile} label="Latency p50" value=${format.ms(sample?.p50_ms)} detail=${`p90 ${format.ms(sample?.p90_ms)}`} />
      <${Tile} label="Latency p99" value=${format.ms(sample?.p99_ms)} />
      <${Tile} label="Errors" value=${sample ? `${format.rate(sample.errors_per_s)}/s` : format.UNKNOWN} tone=${sample?.errors_per_s > 0 ? "bad" : ""} detail=${`${format.count(errors)} kept`} />
      <${Tile} label="CPU" value=${format.percent(sample?.cpu_percent, 0)} detail=${sample?.process_count > 1 ? format.plural(sample.process_count, "process", "processes") : null} />
      <${Tile} label="Memory" value=${format.bytes(sample?.memory_bytes)} detail=${`peak ${format.bytes(sample?.peak_memory_bytes)}`} />
      <${Tile} label="Events" value=${sample ? `${format.rate(sample.events_per_s)}/s` : format.UNKNOWN} detail=${sample ? `${format.rate(sample.calls_per_s)} calls/s` : null} />
      <${Tile} label="Overhead" value=${format.percent(sample?.overhead_percent, 2)} detail=${lost ? `${format.count(lost)} events lost` : losses.length ? "see Losses" : "nothing lost"} tone=${losses.length || lost ? "warn" : ""} />
      <${Tile} label="Findings" value=${format.count(findings.total)} detail=${severe ? `${format.count(severe)} severe` : "none severe"} tone=${severe ? "bad" : ""} />
    </div>`;
  }

  const THROUGHPUT = [
    { label: "requests/s", colour: "accent", read: (one) => one.throughput, fill: true },
    { label: "errors/s", colour: "bad", read: (one) => one.errors_per_s },
  ];
  const LATENCY = [
    { label: "p50", colour: "python", read: (one) => one.p50_ms },
    { label: "p90", colour: "external", read: (one) => one.p90_ms },
    { label: "p99", colour: "bad", read: (one) => one.p99_ms },
  ];
  const CPU = [{ label: "all processes", colour: "python", read: (one) => one.cpu_percent, fill: true }];
  const EVENTS = [
    { label: "events/s", colour: "sql", read: (one) => one.events_per_s, fill: true },
    { label: "calls/s", colour: "python", read: (one) => one.calls_per_s },
  ];

  const select = (from, to) => router.go("flame", "", { from: Math.round(from), to: Math.round(to) });

  /** When a recording that has ended was made: charts and lists have the time of day only. */
  function Span({ whole }) {
    if (!whole) return null;
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    return html`<p class="span-of-time faint" data-span>${format.ms(whole.at_ms - whole.start_ms)} from ${format.day(whole.start_ms, false)}${zone ? ` (${zone})` : ""}</p>`;
  }

  function LatestFindings({ findings }) {
    const shown = findings.findings.slice(0, RECENT_FINDINGS);
    return html`<${Panel} title="Findings" aside=${html`<a href="#/findings">all ${format.count(findings.total)}</a>`}>
      ${shown.length === 0
        ? html`<${NothingYet} title="Nothing found" yet=" so far" ended="The recording shows no N+1 queries, races, crashes, timeouts, slow calls or overloads.">N+1 queries, races, crashes, timeouts and slow calls appear here as they happen.<//>`
        : html`<ul class="brief">
            ${shown.map(
              (one) => html`<li key=${one.id}>
                <a href=${router.link("findings", one.id)}><${Badge} tone=${one.severity}>${format.words(one.kind)}<//> <span>${one.title}</span></a>
                <${Location} at=${one.where} parts=${2} />
              </li>`,
            )}
          </ul>`}
    <//>`;
  }

  function Slowest({ requests }) {
    const slow = requests
      .filter((one) => one.outcome !== "open")
      .sort((one, other) => other.duration_ms - one.duration_ms)
      .slice(0, SLOWEST);
    return html`<${Panel} title="Slowest requests" aside=${html`<${PartsLegend} />`}>
      ${slow.length === 0
        ? html`<${NothingYet} title="No requests" yet=" yet">Requests and actor messages appear here when the service handles one.<//>`
        : html`<ul class="brief slowest">
            ${slow.map(
              (one) => html`<li key=${one.id}>
                <a href=${router.link("requests", one.id)}>${titleOf(one)}</a>
                <span class="number">${format.ms(one.duration_ms)}</span>
                <${PartsBar} parts=${one.parts} />
              </li>`,
            )}
          </ul>`}
    <//>`;
  }

  function Overview() {
    const [metrics, requests, findings, losses, whole] = useStore("metrics", "requests", "findings", "losses", "whole");
    // A saved report has the flame graph of all its time alone.
    const onSelect = PyScope.source.live ? select : undefined;
    return html`<div class="overview">
      <${Span} whole=${whole} />
      <${Tiles} sample=${whole ?? metrics.at(-1)} requests=${requests} findings=${findings} losses=${losses} />
      <div class="charts">
        <${Chart} title="Throughput" series=${THROUGHPUT} samples=${metrics} summary=${whole} show=${format.rate} onSelect=${onSelect} note=${onSelect && html`<span class="note">drag: flame graph of a stretch</span>`} />
        <${Chart} title="Latency" series=${LATENCY} samples=${metrics} summary=${whole} show=${format.ms} onSelect=${onSelect} />
        <${Chart} title="CPU" series=${CPU} samples=${metrics} summary=${whole} show=${(value) => format.percent(value, 0)} incrs=${WHOLE} onSelect=${onSelect} />
        <${Chart} title="Events recorded" series=${EVENTS} samples=${metrics} summary=${whole} show=${format.rate} onSelect=${onSelect} />
      </div>
      <div class="two">
        <${LatestFindings} findings=${findings} />
        <${Slowest} requests=${requests} />
      </div>
    </div>`;
  }

  PyScope.views.overview = Overview;
})();
