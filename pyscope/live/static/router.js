// Which view is shown: the fragment of the address, `#/view/id?parameters`, so that every place has a link.
"use strict";
(() => {
  const PyScope = (window.PyScope ??= {});
  const { useEffect, useState } = preactHooks;
  const listeners = new Set();

  /** The views in the order of the navigation; `key` follows `g`. */
  const VIEWS = [
    { name: "overview", title: "Overview", key: "o" },
    { name: "requests", title: "Requests", key: "r" },
    { name: "findings", title: "Findings", key: "f" },
    { name: "supervision", title: "Supervision", key: "s" },
    { name: "queries", title: "Queries", key: "q" },
    { name: "external", title: "External calls", key: "e" },
    { name: "states", title: "State changes", key: "c" },
    { name: "flame", title: "Flame graph", key: "g" },
    { name: "resources", title: "Resources", key: "m" },
    { name: "functions", title: "Functions", key: "u" },
    { name: "losses", title: "Losses", key: "l" },
  ];

  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text; // a hand-written link with a stray %
    }
  }

  function parse(hash) {
    const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
    const [name, ...rest] = path.split("/");
    const view = VIEWS.some((one) => one.name === name) ? name : "overview";
    return { view, id: decoded(rest.join("/")), parameters: Object.fromEntries(new URLSearchParams(query)) };
  }

  let current = parse(location.hash);
  const lists = new Map(); // view -> how its list was searched and filtered last

  function link(view, id = "", parameters = {}) {
    const kept = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    const query = new URLSearchParams(kept).toString();
    return `#/${view}${id === "" ? "" : `/${encodeURIComponent(id)}`}${query ? `?${query}` : ""}`;
  }

  /** The list of a view as it was left. */
  const list = (view) => link(view, "", lists.get(view));

  function go(view, id, parameters) {
    location.hash = link(view, id, parameters);
  }

  /** Changes parameters of the shown place without a new entry in the browser's history. */
  function refine(parameters) {
    history.replaceState(null, "", link(current.view, current.id, { ...current.parameters, ...parameters }));
    update();
  }

  function note() {
    if (current.id === "") lists.set(current.view, current.parameters);
  }

  function update() {
    current = parse(location.hash);
    note();
    for (const tell of listeners) tell();
  }

  note();
  addEventListener("hashchange", update);

  PyScope.router = { VIEWS, link, list, go, refine, now: () => current };
  PyScope.useRoute = () => {
    const [, tick] = useState(0);
    useEffect(() => {
      const tell = () => tick((count) => count + 1);
      listeners.add(tell);
      return () => listeners.delete(tell);
    }, []);
    return current;
  };
})();
