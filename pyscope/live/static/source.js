// Where messages come from: a live server (WebSocket and fetch), or data embedded in a saved report.
"use strict";
(() => {
  const PyScope = (window.PyScope ??= {});
  const { store } = PyScope;

  const FIRST_WAIT = 500;
  const LONGEST_WAIT = 5000;
  const REFUSALS = new Set([401, 403, 404]);

  /** The address of `path` under the dashboard's mount point, with or without a slash at its end. */
  function address(path) {
    const base = location.pathname.endsWith("/") ? location.pathname : `${location.pathname}/`;
    return new URL(`${base}${path}`, location.origin);
  }

  async function answer(response) {
    const text = await response.text();
    let body;
    try {
      body = JSON.parse(text);
    } catch {
      body = { error: `The server answered ${response.status} ${response.statusText}.` };
    }
    if (!response.ok) throw new Error(body.error ?? body.detail ?? `The server answered ${response.status}.`);
    return body;
  }

  /** A running server. It is tried again for as long as the page is open, ever less often. */
  class LiveSource {
    live = true;

    constructor() {
      this.attempts = 0;
      addEventListener("online", () => this.retry());
      document.addEventListener("visibilitychange", () => document.hidden || this.retry());
    }

    start() {
      this.connect();
    }

    connect() {
      clearTimeout(this.timer);
      this.timer = null;
      const target = address("ws");
      target.protocol = location.protocol === "https:" ? "wss:" : "ws:";
      const mine = (this.socket = new WebSocket(target));
      mine.onopen = () => store.beginConnection();
      mine.onmessage = (event) => {
        if (mine !== this.socket) return;
        const message = JSON.parse(event.data);
        if (message.type === "hello") {
          this.attempts = 0;
          store.set("connection", { state: "live" });
        }
        store.take(message);
      };
      mine.onclose = () => mine === this.socket && this.lost();
    }

    async lost() {
      this.socket = null;
      const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.attempts) * (0.75 + Math.random() / 2);
      this.attempts += 1;
      this.timer = setTimeout(() => this.connect(), wait);
      const retryAt = Date.now() + wait;
      if (store.read("connection").state !== "refused") store.set("connection", { state: "lost", retryAt });
      // A browser does not tell why a WebSocket was refused; the page itself is refused for the same reason.
      const status = await fetch(address(""), { cache: "no-store" }).then(
        (response) => response.status,
        () => 0,
      );
      if (this.timer) store.set("connection", { state: REFUSALS.has(status) ? "refused" : "lost", retryAt });
    }

    /** Try now instead of later; nothing while connected. */
    retry() {
      if (this.timer) this.connect();
    }

    async get(path, parameters = {}) {
      const target = address(path);
      for (const [name, value] of Object.entries(parameters)) {
        if (value !== null && value !== undefined && value !== "") target.searchParams.set(name, value);
      }
      return answer(await fetch(target, { headers: { Accept: "application/json" } }));
    }

    async post(path) {
      const headers = { "X-PyScope-CSRF": store.read("hello")?.csrf ?? "" };
      return answer(await fetch(address(path), { method: "POST", headers }));
    }

    download() {
      return address("api/download").href;
    }
  }

  /** A saved report: everything there is stands in the page. */
  class EmbeddedSource {
    live = false;

    constructor(element) {
      this.data = JSON.parse(element.textContent);
    }

    start() {
      store.set("connection", { state: "saved" });
      store.take(this.data.hello);
      for (const message of this.data.messages ?? []) store.take(message);
    }

    retry() {}

    async get(path, parameters = {}) {
      const waterfall = /^api\/requests\/(.+)$/.exec(path);
      if (waterfall) {
        const found = this.data.waterfalls?.[decodeURIComponent(waterfall[1])];
        if (!found) throw new Error("The report does not hold this request's spans; it keeps those that matter most.");
        return found;
      }
      if (path === "api/functions") return ordered(this.data.functions, parameters);
      const part = this.data[path.slice("api/".length)];
      if (!part) throw new Error("The report does not hold this.");
      return part;
    }
  }

  /** What the server does for `api/functions`, on the functions that a report holds. */
  function ordered(table, { order = "self", filter = "", limit = 500 }) {
    const wanted = filter.toLowerCase();
    const key = order === "calls" ? "calls" : `${order}_ms`;
    const found = (table?.functions ?? []).filter((one) => `${one.module}.${one.qualname}`.toLowerCase().includes(wanted));
    found.sort((one, other) => other[key] - one[key]);
    const all = table?.total ?? found.length;
    const kept = table?.functions.length ?? 0;
    // Of the functions that the report has left out nobody knows whether they fit.
    return { total: wanted ? found.length : all, functions: found.slice(0, limit), ...(wanted || order !== "self" ? { searched: kept, all } : {}) };
  }

  PyScope.chooseSource = () => {
    const embedded = document.getElementById("pyscope-data");
    return embedded ? new EmbeddedSource(embedded) : new LiveSource();
  };
})();
