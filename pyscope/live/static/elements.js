// The small pieces that views are made of. Text of the traced program only ever becomes text nodes and attributes.
"use strict";
(() => {
  const PyScope = (window.PyScope ??= {});
  const { h, Component } = preact;
  const { useEffect, useState, useRef } = preactHooks;
  const { format } = PyScope;
  // 3: not to keep what never changes for the next time (htm's README, "caching"). What it kept would know its first parents
  // for good, and through them all that was ever drawn there.
  const html = htm.bind(function (...made) {
    this[0] = 3;
    return h(...made);
  });

  /** A component that renders again only when one of its properties is another object. */
  function memo(render) {
    return class extends Component {
      shouldComponentUpdate(next) {
        const names = Object.keys(next);
        return names.length !== Object.keys(this.props).length || names.some((name) => next[name] !== this.props[name]);
      }

      render(properties) {
        return render(properties);
      }
    };
  }

  /** file:line and the function; the whole path in the tooltip. */
  function Location({ at, parts = 3 }) {
    if (!at || !at.file) return null;
    const name = at.function ? html`<span class="function">${at.function}</span> ` : null;
    return html`<span class="location" title=${`${at.file}:${at.line}`}>${name}<span class="file">${format.shortPath(at.file, parts)}:${at.line}</span></span>`;
  }

  function Stack({ frames, label = "Stack" }) {
    if (!frames?.length) return null;
    return html`<ol class="stack" aria-label=${label}>
      ${frames.map((at) => html`<li><${Location} at=${at} /></li>`)}
    </ol>`;
  }

  const KEYWORDS =
    /\b(SELECT|FROM|WHERE|AND|OR|NOT|IN|IS|NULL|JOIN|LEFT|RIGHT|INNER|OUTER|ON|AS|GROUP BY|ORDER BY|HAVING|LIMIT|OFFSET|INSERT INTO|VALUES|UPDATE|SET|DELETE|RETURNING|DISTINCT|UNION|CASE|WHEN|THEN|ELSE|END|BEGIN|COMMIT|ROLLBACK|FOR)\b/g;
  const LONGEST_STATEMENT = 4000;

  /** An SQL statement with its keywords set apart. */
  const Statement = memo(({ text, short = false }) => {
    if (!text) return null;
    const cut = text.length > LONGEST_STATEMENT ? `${text.slice(0, LONGEST_STATEMENT)}…` : text;
    const pieces = cut.replace(/\s+/g, " ").trim().split(KEYWORDS);
    return html`<code class=${short ? "sql one-line" : "sql"} title=${short ? cut : null}>
      ${pieces.map((piece, index) => (index % 2 ? html`<b>${piece}</b>` : piece))}
    </code>`;
  });

  /** What a list leaves out: of a recording that has ended the number is known, of a living one that it is full. */
  function ofAll(kept, total, limit) {
    if (total > kept) return `, of ${format.count(total)} in the recording`;
    return total === undefined && kept >= limit ? ", older ones are not kept" : "";
  }

  /** Since when a living recording's events are kept, where it has given up what was before. */
  const Since = ({ at }) => at > 0 && html` <span class="since" title="Of a recording that goes on, the last 16 MB of events are kept. A report of it has all.">since ${format.clock(at, false)}, earlier events are not kept</span>`;

  function Empty({ title, children }) {
    return html`<div class="empty"><p class="empty-title">${title}</p><p>${children}</p></div>`;
  }

  /** What stands for a list that nothing has come into; into that of a recording that has ended nothing will. */
  function NothingYet({ title, yet = "", ended = "The recording holds none.", children }) {
    const [whole] = PyScope.useStore("whole");
    return whole ? html`<${Empty} title=${title}>${ended}<//>` : html`<${Empty} title=${`${title}${yet}`}>${children}<//>`;
  }

  function Panel({ title, aside, children, kind = "" }) {
    return html`<section class=${`panel ${kind}`} aria-label=${title}>
      <header><h2>${title}</h2>${aside ?? null}</header>
      ${children}
    </section>`;
  }

  const Badge = ({ tone = "plain", children, title }) => html`<span class=${`badge ${tone}`} title=${title}>${children}</span>`;

  // ---- where the time of a request went

  const PARTS = [
    ["python_ms", "Python", "python"],
    ["sql_ms", "SQL", "sql"],
    ["external_ms", "external", "external"],
    ["lock_ms", "locks", "lock"],
    ["wait_ms", "waiting", "wait"],
  ];

  /** Where CPU time is not known, what Python took is a part of the waiting. */
  const partLabel = (parts, name, label) => (name === "wait_ms" && parts.cpu_ms === null ? "waiting or Python" : label);

  const partsText = (parts) =>
    PARTS.filter(([name]) => parts?.[name] > 0)
      .map(([name, label]) => `${partLabel(parts, name, label)} ${format.ms(parts[name])}`)
      .join(", ") || "not known";

  const PartsBar = memo(({ parts }) => {
    const total = PARTS.reduce((sum, [name]) => sum + (parts?.[name] ?? 0), 0);
    const label = partsText(parts);
    return html`<span class="parts" role="img" aria-label=${`Time: ${label}`} title=${label}>
      ${total > 0 &&
      PARTS.map(([name, , kind]) => {
        const share = (100 * (parts[name] ?? 0)) / total;
        return share > 0.5 ? html`<i class=${`fill-${kind}`} style=${{ width: `${share.toFixed(2)}%` }}></i>` : null;
      })}
    </span>`;
  });

  function PartsLegend() {
    return html`<ul class="legend" aria-label="Colours of the time bars">
      ${PARTS.map(([, label, kind]) => html`<li><i class=${`fill-${kind}`}></i>${label}</li>`)}
    </ul>`;
  }

  // ---- fields to search and choose

  function Search({ value, onInput, label }) {
    return html`<label class="search">
      <span class="hidden">${label}</span>
      <input type="search" data-search placeholder=${`${label}  ( / )`} value=${value} spellcheck="false" autocomplete="off"
        onInput=${(event) => onInput(event.currentTarget.value)}
        onKeyDown=${(event) => event.key === "Escape" && (onInput(""), event.currentTarget.blur())} />
    </label>`;
  }

  /** A row of choices of which one holds. `options`: [value, label, count?]. */
  function Choice({ label, options, value, onChange }) {
    return html`<div class="choice" role="group" aria-label=${label}>
      ${options.map(
        ([option, text, count]) => html`<button type="button" key=${option} aria-pressed=${option === value ? "true" : "false"} onClick=${() => onChange(option)}>
          ${text}${count === undefined ? null : html` <span class="count">${format.count(count)}</span>`}
        </button>`,
      )}
    </div>`;
  }

  // ---- what is asked of the server

  /**
   * The answer to a GET, asked again every `every` milliseconds (or every(answer)) where that is given and the page
   * is live, and when `again` is another value.
   * Returns { data, error, loading }; the last answer stays while a new one is on its way.
   */
  function useAnswer(path, parameters, every = 0, again = 0) {
    const [answer, setAnswer] = useState({ data: null, error: "", loading: true });
    const asked = JSON.stringify([path, parameters, again]);
    const shown = useRef(asked);
    useEffect(() => {
      let over = false;
      let timer;
      let known = null;
      const ask = async () => {
        if (!PyScope.store.paused() || shown.current !== asked) {
          try {
            const data = await PyScope.source.get(path, parameters);
            known = data;
            if (!over) setAnswer({ data, error: "", loading: false });
          } catch (error) {
            if (!over) setAnswer((last) => ({ data: shown.current === asked ? last.data : null, error: error.message, loading: false }));
          }
          shown.current = asked;
        }
        const period = typeof every === "function" ? every(known) : every;
        if (!over && period && PyScope.source.live) timer = setTimeout(ask, period);
      };
      setAnswer((last) => ({ ...last, loading: true }));
      ask();
      return () => {
        over = true;
        clearTimeout(timer);
      };
    }, [asked]);
    return answer;
  }

  /** `value` as it was at most `period` milliseconds ago: for drawings that cost more than they say. */
  function useSeldom(value, period) {
    const shown = useRef({ value, at: 0, timer: 0 });
    const [, tick] = useState(0);
    const last = shown.current;
    const wait = last.at + period - performance.now();
    if (last.value !== value && wait <= 0) Object.assign(last, { value, at: performance.now() });
    useEffect(() => {
      if (last.value !== value && !last.timer) {
        last.timer = setTimeout(() => {
          last.timer = 0;
          tick((count) => count + 1);
        }, Math.max(0, wait));
      }
    });
    useEffect(() => () => clearTimeout(last.timer), []);
    return last.value;
  }

  Object.assign(PyScope, {
    html, memo, useSeldom, Location, Stack, Statement, ofAll, Since, Empty, NothingYet, Panel, Badge, PartsBar, PartsLegend, PARTS, partLabel, partsText, Search, Choice, useAnswer,
  });
  PyScope.views ??= {};
})();
