// Time series drawn by uPlot, with a legend of the page's own that shows the latest or the pointed-at values.
"use strict";
(() => {
  const PyScope = (window.PyScope ??= {});
  const { html, format } = PyScope;
  const { useEffect, useLayoutEffect, useRef, useState } = preactHooks;
  const BINARY = Array.from({ length: 50 }, (_, power) => 2 ** power);
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
  const HUNDREDTHS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, ...WHOLE]; // steps that two digits after the point tell apart
  const PERIOD = 250; // milliseconds between two drawings, at least

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  function axis(size, values) {
    return {
      size,
      values,
      stroke: colour("faint"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: colour("line"), width: 1 },
      ticks: { show: false },
      gap: 6,
    };
  }

  /**
   * series: [{ label, colour (a CSS variable's name), read(sample) → number or null, fill, width }]
   * summary: a sample whose values the legend has, instead of the latest's, while nothing is pointed at.
   * show(value): as text; incrs: steps from tick to tick, such as BINARY or WHOLE. onSelect(from_ms, to_ms): a stretch that was dragged over.
   */
  function Chart({ title, series, samples, summary, show, height = 150, onSelect, note, incrs }) {
    const place = useRef(null);
    const plot = useRef(null);
    const latest = useRef({ samples, series });
    const drawn = useRef({ samples: null, at: 0, timer: 0 });
    const [pointed, setPointed] = useState(null);
    latest.current = { samples, series };
    const names = series.map((one) => one.label).join("\n");

    function columns() {
      const now = latest.current;
      return [now.samples.map((sample) => sample.at_ms / 1000), ...now.series.map((one) => now.samples.map((sample) => one.read(sample) ?? null))];
    }

    function draw() {
      const last = drawn.current;
      clearTimeout(last.timer);
      last.timer = 0;
      if (!plot.current || last.samples === latest.current.samples) return;
      const wait = last.at + PERIOD - performance.now();
      if (wait > 0) {
        last.timer = setTimeout(draw, wait);
        return;
      }
      last.at = performance.now();
      last.samples = latest.current.samples;
      plot.current.setData(columns());
    }

    useLayoutEffect(() => {
      function build() {
        plot.current?.destroy();
        plot.current = new uPlot(
          {
            width: Math.max(120, place.current.clientWidth),
            height,
            legend: { show: false },
            padding: [8, 40, 0, 0], // half a label of the time stands right of the last tick
            cursor: {
              y: false,
              points: { size: 6 },
              drag: { x: Boolean(onSelect), y: false, setScale: false },
              sync: { key: "time" },
            },
            scales: {
              x: { time: true, range: ({ data: [times] }, low, high) => (times.length === 1 ? [times[0] - 0.5, times[0] + 0.5] : [low, high]) },
              y: { range: (_, low, high) => [0, high > 0 ? high * 1.12 : 1] },
            },
            axes: [
              { ...axis(22, (_, ticks) => ticks.map((tick) => format.clock(tick * 1000, ticks[1] - ticks[0] < 1))), space: 84 },
              { ...axis(58, (_, ticks) => ticks.map((tick) => show(tick))), space: 28, ...(incrs ? { incrs } : {}) },
            ],
            series: [
              {},
              ...series.map((one) => ({
                label: one.label,
                stroke: colour(one.colour),
                width: one.width ?? 1.5,
                fill: one.fill ? `${colour(one.colour)}26` : undefined,
                points: { show: (plotted) => plotted.data[0].length === 1 }, // one sample is no line
                spanGaps: true,
              })),
            ],
            hooks: {
              setCursor: [(self) => setPointed(self.cursor.idx ?? null)],
              setSelect: [
                (self) => {
                  if (!onSelect || self.select.width < 4) return;
                  const from = self.posToVal(self.select.left, "x") * 1000;
                  const to = self.posToVal(self.select.left + self.select.width, "x") * 1000;
                  self.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
                  onSelect(from, to);
                },
              ],
            },
          },
          columns(),
          place.current,
        );
        drawn.current.samples = latest.current.samples;
      }
      build();
      const observer = new ResizeObserver(() => {
        const width = place.current?.clientWidth;
        if (plot.current && width > 0 && width !== plot.current.width) plot.current.setSize({ width, height });
      });
      observer.observe(place.current);
      addEventListener("pyscope-theme", build);
      return () => {
        observer.disconnect();
        removeEventListener("pyscope-theme", build);
        clearTimeout(drawn.current.timer);
        plot.current?.destroy();
        plot.current = null;
      };
    }, [names, height]);

    useEffect(draw, [samples]);

    const at = pointed === null && summary ? summary : samples[pointed === null ? samples.length - 1 : Math.min(pointed, samples.length - 1)];
    const values = series.map((one) => [one, at ? show(one.read(at) ?? null) : format.UNKNOWN]);
    return html`<figure class="chart" data-chart=${title}>
      <figcaption>
        <strong>${title}</strong>
        <span class="values">
          ${values.map(([one, text]) => html`<span class="value"><i class="swatch" style=${{ background: `var(--${one.colour})` }}></i><span class="value-label" title=${one.label}>${one.label}</span> <b>${text}</b></span>`)}
        </span>
        ${note ?? null}
      </figcaption>
      <div class="plot" ref=${place} role="img" aria-label=${`${title}: ${values.map(([one, text]) => `${one.label} ${text}`).join(", ")}`} style=${{ height: `${height}px` }}></div>
    </figure>`;
  }

  Object.assign(PyScope, { Chart, BINARY, HUNDREDTHS, WHOLE });
})();
