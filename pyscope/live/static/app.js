// The frame of the page: header, navigation, banners, and the view that the address names.
"use strict";
(() => {
  const { html, format, router, store, Badge, Controls, Pause, Help, useStore, useRoute } = PyScope;
  const { useEffect, useErrorBoundary, useLayoutEffect, useRef, useState } = preactHooks;

  // ---- light and dark

  const THEMES = { auto: ["◐", "Auto"], light: ["☀", "Light"], dark: ["☾", "Dark"] };
  const remembered = () => {
    try {
      return localStorage.getItem("pyscope-theme");
    } catch {
      return null; // storage is refused to some files and private windows
    }
  };

  function setTheme(name) {
    document.documentElement.dataset.theme = name;
    try {
      localStorage.setItem("pyscope-theme", name);
    } catch {
      // the choice lasts as long as the page
    }
    dispatchEvent(new Event("pyscope-theme"));
  }

  document.documentElement.dataset.theme = remembered() in THEMES ? remembered() : "auto";
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("pyscope-theme")));

  function Theme() {
    const [theme, set] = useState(document.documentElement.dataset.theme);
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(theme) + 1) % names.length];
    return html`<button type="button" class="theme" data-theme-toggle title=${`Colours: ${theme}; change to ${next}`} onClick=${() => (setTheme(next), set(next))}><span aria-hidden="true">${THEMES[theme][0]}</span><span class="theme-name">${THEMES[theme][1]}</span></button>`;
  }

  // ---- what the connection and the source are like

  function useSeconds(until) {
    const [, tick] = useState(0);
    useEffect(() => {
      if (!until) return undefined;
      const timer = setInterval(() => tick((count) => count + 1), 500);
      return () => clearInterval(timer);
    }, [until]);
    return Math.max(0, Math.ceil((until - Date.now()) / 1000));
  }

  function Connection() {
    const [connection, status] = useStore("connection", "status");
    const seconds = useSeconds(connection.retryAt);
    const text = {
      connecting: "Connecting…",
      live: (status?.state ?? "live") === "live" ? "Live" : "Connected", // to what does not go on
      lost: seconds > 0 ? `Reconnecting in ${seconds} s…` : "Reconnecting…",
      refused: "Refused",
      saved: "Saved report",
    }[connection.state];
    return html`<span id="connection" class=${`connection ${connection.state}`} role="status" data-state=${connection.state}><i class="dot"></i>${text}</span>`;
  }

  function Banner() {
    const [connection, status] = useStore("connection", "status");
    const told = status && status.state !== "live" && (status.message || status.state !== "waiting");
    return html`<div class="banners" aria-live="polite">
      ${connection.state === "lost" &&
      html`<p class="banner warn" data-banner="connection">The connection to the service is lost; what you see may be out of date. <button type="button" onClick=${() => PyScope.source.retry()}>Try now</button></p>`}
      ${connection.state === "refused" && html`<p class="banner bad" data-banner="connection">The service no longer lets this page in. Open the dashboard with its current token.</p>`}
      ${told && html`<p class=${`banner ${status.state === "error" || status.state === "lost" ? "bad" : "info"}`} data-banner=${status.state}>${status.message || format.words(status.state)}</p>`}
    </div>`;
  }

  const STATE_TONES = { recording: "good", stopped: "plain", killed: "error", recovered: "warning", waiting: "info", write_failed: "error" };

  /** What people call the source: a process by its program, a recording by its file. */
  function nameOf({ kind, name, processes }) {
    return kind !== "recording" && processes[0]?.name ? processes[0].name : name;
  }

  function Source() {
    const [hello] = useStore("hello");
    const name = hello ? nameOf(hello.source) : "";
    useEffect(() => {
      if (hello) document.title = `${name} · PyScope`;
    }, [name]);
    if (!hello) return null;
    const { source } = hello;
    const processes = source.processes.map((one) => `${one.name} (pid ${one.pid}, ${one.state}, Python ${one.python})`).join("\n");
    return html`<span class="source" title=${`${source.path}\n${processes}`}>
      <b>${name}</b>
      ${source.processes.length > 0 && html`<span class="pid faint">pid ${source.processes[0].pid}</span>`}
      <${Badge} tone=${STATE_TONES[source.state] ?? "plain"}>${format.words(source.state)}${source.mode === "flight" ? " (flight)" : ""}<//>
    </span>`;
  }

  // ---- navigation

  function Navigation({ view }) {
    const [findings, supervision, losses, totals] = useStore("findings", "supervision", "losses", "totals");
    const failed = (nodes) => nodes.reduce((sum, node) => sum + (node.state === "failed" ? 1 : 0) + failed(node.children ?? []), 0);
    const marks = {
      findings: [findings.total, findings.findings.some((one) => one.severity === "error") ? "error" : "warning"],
      supervision: [failed(supervision.tree), "error"],
      losses: [totals.losses ?? losses.length, "warning"],
    };
    const list = useRef(null);
    useEffect(() => {
      // On a phone the bar is wider than the screen; only the bar itself may scroll.
      const link = list.current.querySelector('[aria-current="page"]');
      if (list.current.scrollWidth > list.current.clientWidth) list.current.scrollLeft = link.offsetLeft - list.current.clientWidth / 2 + link.offsetWidth / 2;
    }, [view]);
    return html`<nav aria-label="Views" class="navigation" ref=${list}>
      ${router.VIEWS.map(({ name, title, key }) => {
        const [number, tone] = marks[name] ?? [0];
        return html`<a key=${name} href=${router.link(name)} aria-current=${name === view ? "page" : undefined} title=${`${title} (g ${key})`}>
          <span>${title}</span>${number > 0 && html`<${Badge} tone=${tone}>${format.rate(number)}<//>`}
        </a>`;
      })}
    </nav>`;
  }

  /** A view that fails must not take the page with it. */
  function View({ name }) {
    const [error, reset] = useErrorBoundary((caught) => console.error(caught));
    if (error) {
      return html`<div class="empty" role="alert">
        <p class="empty-title">This view failed</p>
        <p>${String(error.message ?? error)}</p>
        <p><button type="button" onClick=${reset}>Show it again</button></p>
      </div>`;
    }
    return html`<${PyScope.views[name]} />`;
  }

  function App() {
    const { view, id } = useRoute();
    const [help, setHelp] = useState(false);
    const main = useRef(null);
    const before = useRef("");
    useEffect(() => PyScope.listenToKeys(() => setHelp(true)), []);
    // With the change itself, not after the next frame: a "/" typed in between would lose the search field its focus.
    useLayoutEffect(() => {
      const last = before.current;
      before.current = view;
      if (last !== view) main.current.scrollTop = 0;
      // What had the focus may be gone with the list that it stood in.
      if (last && (last !== view || document.activeElement === document.body)) main.current.focus({ preventScroll: true });
    }, [view, id]);
    const title = router.VIEWS.find((one) => one.name === view).title;
    return html`<div class="frame">
      <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>Skip to the view</a>
      <header class="top">
        <a class="brand" href="#/overview"><span aria-hidden="true" class="mark"></span>PyScope</a>
        <${Source} />
        <${Connection} />
        <span class="spring"></span>
        <${Controls} />
        ${PyScope.source.live && html`<${Pause} />`}
        <${Theme} />
        <button type="button" class="help" aria-label="Keys" title="Keys (?)" onClick=${() => setHelp(true)}>?</button>
      </header>
      <${Navigation} view=${view} />
      <main id="main" ref=${main} tabindex="-1" aria-label=${title} data-view=${view}>
        <h1 class="hidden">${title}</h1>
        <${Banner} />
        <${View} key=${view} name=${view} />
      </main>
      <${Help} open=${help} onClose=${() => setHelp(false)} />
    </div>`;
  }

  function start() {
    PyScope.source = PyScope.chooseSource();
    const place = document.getElementById("app");
    place.replaceChildren();
    preact.render(html`<${App} />`, place);
    PyScope.source.start();
  }

  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
