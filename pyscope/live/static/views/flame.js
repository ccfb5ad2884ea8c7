// The flame graph of a time window, by wall time: callers above callees, as wide as they took long.
"use strict";
(() => {
  const { html, memo, format, router, tree, Search, Choice, Location, Empty, useStore, useRoute, useAnswer } = PyScope;
  const { useEffect, useMemo, useRef, useState } = preactHooks;

  const HEIGHT = 20;
  const WINDOWS = [
    ["", "All"],
    ["300", "5 min"],
    ["60", "1 min"],
    ["10", "10 s"],
  ];

  const LETTER = 0.0065; // the width of a letter as a share of a wide graph

  /** As much of a dotted name as the bar has room for: what it is called, before where it stands. */
  function label(name, width) {
    if (width < 2 * LETTER) return "";
    return name.length * LETTER <= width ? name : name.split(".").slice(-2).join(".");
  }

  const moduleOf = (node) => node.location?.file ?? node.name.split(".")[0];

  const Bar = memo(({ bar, matches, dim, focused, onPick, onPoint }) => {
    const { node, depth, left, width } = bar;
    const kind = node.name === "…" ? "rest" : bar.path.length === 0 ? "root" : "";
    return html`<button type="button" class=${`flame-bar ${kind} ${dim ? "dim" : ""} ${matches ? "match" : ""} ${focused ? "focused" : ""}`}
      tabindex=${focused ? "0" : "-1"} data-path=${bar.path.join(".")}
      style=${{ left: `${left * 100}%`, width: `${width * 100}%`, top: `${depth * HEIGHT}px`, "--hue": String(format.hue(moduleOf(node))) }}
      aria-label=${`${node.name}, ${format.ms(node.value)}`} onClick=${() => onPick(bar)} onMouseEnter=${() => onPoint(bar)} onFocus=${() => onPoint(bar)}>
      ${label(node.name, width)}
    </button>`;
  });

  function Graph({ root, query }) {
    const [zoomed, setPath] = useState([]);
    const before = useRef(root);
    // The order of callees is by time: the zoom stays with its function, not with its number.
    const path = useMemo(() => (before.current === root ? zoomed : tree.follow(root, tree.walk(before.current, zoomed))), [root, zoomed]);
    if (before.current !== root) {
      before.current = root;
      setPath(path);
    }
    const [pointed, setPointed] = useState(null);
    const place = useRef(null);
    const wanted = query.toLowerCase();
    const matches = (node) => wanted !== "" && `${node.name} ${node.location?.file ?? ""}`.toLowerCase().includes(wanted);
    const bars = useMemo(() => tree.bars(root, path), [root, path]);
    const depth = Math.max(...bars.map((bar) => bar.depth)) + 1;
    const trail = tree.walk(root, path);
    const found = wanted ? tree.matched(root, matches) : 0;
    const shown = pointed && bars.includes(pointed) ? pointed.node : trail.at(-1);

    useEffect(() => {
      const onEscape = (event) => event.key === "Escape" && !event.defaultPrevented && !event.target.closest?.("input, dialog") && setPath((now) => now.slice(0, -1));
      addEventListener("keydown", onEscape);
      return () => removeEventListener("keydown", onEscape);
    }, []);

    /** Arrow keys walk: down to the first callee, up to the caller, sideways among siblings. */
    function onKeyDown(event) {
      const current = bars.find((bar) => bar.path.join(".") === document.activeElement?.dataset?.path);
      if (!current || !event.key.startsWith("Arrow")) return;
      event.preventDefault();
      const level = { ArrowDown: 1, ArrowUp: -1 }[event.key] ?? 0;
      const candidates = bars.filter((bar) => bar.depth === current.depth + level);
      const middle = current.left + current.width / 2;
      let next;
      if (event.key === "ArrowDown") next = candidates.filter((bar) => bar.left >= current.left - 1e-9 && bar.left + bar.width <= current.left + current.width + 1e-9).sort((one, other) => other.width - one.width)[0];
      else if (event.key === "ArrowUp") next = candidates.find((bar) => bar.left <= middle && middle <= bar.left + bar.width);
      else {
        const ordered = candidates.sort((one, other) => one.left - other.left);
        next = ordered[ordered.indexOf(current) + (event.key === "ArrowRight" ? 1 : -1)];
      }
      if (next) place.current.querySelector(`[data-path="${next.path.join(".")}"]`)?.focus();
    }

    const select = (bar) => setPath(bar.path);
    return html`<div class="flame">
      <p class="flame-facts" aria-live="off">
        <b>${shown.name}</b> <span class="number">${format.ms(shown.value)}</span> <span class="faint">${format.percent((100 * shown.value) / (root.value || 1))} of the time, self ${format.ms(shown.self_ms)}, ${format.plural(shown.calls ?? 0, "call")}</span> <${Location} at=${shown.location} />
      </p>
      <p class="crumbs">
        ${trail.map((node, index) => (index === trail.length - 1 ? html`<span>${index ? " › " : ""}${node.name}</span>` : html`<span>${index ? " › " : ""}<button type="button" class="plain link" onClick=${() => setPath(path.slice(0, index))}>${node.name}</button></span>`))}
        ${path.length > 0 && html` <button type="button" data-reset onClick=${() => setPath([])}>Reset zoom</button>`}
        ${wanted && html`<span class="tally" data-found>${format.percent((100 * found) / (root.value || 1))} of the time is in what was searched</span>`}
      </p>
      <div class="flame-scroll" ref=${place} role="group" aria-label="Flame graph; arrow keys walk, Enter zooms, Escape goes back" onKeyDown=${onKeyDown}>
        <div class="flame-bars" style=${{ height: `${depth * HEIGHT}px` }}>
          ${bars.map((bar) => html`<${Bar} key=${bar.path.join(".")} bar=${bar} matches=${matches(bar.node)} dim=${wanted !== "" && !matches(bar.node)}
            focused=${bar.path.length === path.length} onPick=${select} onPoint=${setPointed} />`)}
        </div>
      </div>
    </div>`;
  }

  function Flame() {
    const { parameters } = useRoute();
    const { from = "", to = "", last = "", q = "" } = parameters;
    const [metrics] = useStore("metrics");
    const [asked, setAsked] = useState(() => Date.now());
    // The last seconds end where the recording's clock stands, which in a saved file is not now.
    const end = metrics.at(-1)?.at_ms ?? asked;
    const window_ = useMemo(() => (last ? { from_ms: Math.round(end - Number(last) * 1000), to_ms: Math.round(end) } : { from_ms: from, to_ms: to }), [asked, last, from, to]);
    const { data, error, loading } = useAnswer("api/flame", window_, 0, asked);
    const chosen = from || to ? "chosen" : last;
    const options = from || to ? [...WINDOWS, ["chosen", "Chosen stretch"]] : WINDOWS;
    return html`<div class="flame-view">
      <div class="toolbar">
        <${Search} label="Search functions and files" value=${q} onInput=${(value) => router.refine({ q: value })} />
        ${PyScope.source.live && html`<${Choice} label="Time window" options=${options} value=${chosen} onChange=${(value) => value !== "chosen" && (setAsked(Date.now()), router.refine({ last: value, from: "", to: "" }))} />`}
        ${PyScope.source.live && html`<button type="button" onClick=${() => setAsked(Date.now())} disabled=${loading}>${loading ? "Loading…" : "Refresh"}</button>`}
        ${data?.window && html`<span class="tally">${format.clock(data.window.from_ms)} to ${format.clock(data.window.to_ms)}</span>`}
      </div>
      ${error && html`<p class="notice-inline" role="status">${error}</p>`}
      ${data && data.children?.length
        ? html`<${Graph} root=${data} query=${q} />`
        : !loading && !error && html`<${Empty} title="No calls in this window">${PyScope.source.live ? "Choose a longer one, or see" : "See"} under Losses whether calls were quieted.<//>`}
    </div>`;
  }

  PyScope.views.flame = Flame;
})();
