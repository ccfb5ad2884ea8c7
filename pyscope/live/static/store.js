// What the page knows: bounded collections that messages fill, and those who want to be told of changes.
// Messages are applied as they come; views are told at most once for each animation frame.
"use strict";
(() => {
  const PyScope = (window.PyScope ??= {});
  const { useLayoutEffect, useState } = preactHooks;

  const LIMITS = { requests: 2000, state: 2000, external: 500, metrics: 600, findings: 200 };
  const MOST_SPARED = 200; // open requests and calls that stay although newer ones would push them out
  const FRAME = 8;
  const LATEST = 90; // milliseconds that what arrived may wait for that
  const MAIN_SHARE = 0.6; // the share of the main thread that rendering may take when much arrives

  /**
   * Newest-last items by id; the oldest go when there are too many, but for some that are open: for them one waits.
   * An item that changes keeps its place; one that was spared stands among the newest when it ends.
   */
  class Recent {
    constructor(limit) {
      this.limit = limit;
      this.items = new Map();
      this.spared = new Set();
      this.list = null;
    }

    put(items) {
      for (const item of items) {
        if (item.outcome !== "open" && this.spared.delete(item.id)) this.items.delete(item.id);
        this.items.set(item.id, item);
      }
      let surplus = this.items.size - this.limit;
      if (surplus > 0) {
        for (const [id, item] of this.items) {
          if (item.outcome === "open" && (this.spared.has(id) || this.spared.size < MOST_SPARED)) {
            this.spared.add(id);
            continue;
          }
          this.items.delete(id);
          if (--surplus === 0) break;
        }
      }
      this.list = null;
    }

    clear() {
      this.items.clear();
      this.spared.clear();
      this.list = null;
    }

    /** Newest first. */
    read() {
      return (this.list ??= [...this.items.values()].reverse());
    }
  }

  const requests = new Recent(LIMITS.requests);
  const state = new Recent(LIMITS.state);
  const external = new Recent(LIMITS.external);
  const data = {
    hello: null,
    status: null,
    connection: { state: "connecting", retryAt: 0 },
    metrics: [],
    totals: {}, // by kind how many there are in all, where that is known
    whole: null, // one sample of all the time of a recording that has ended
    losses: [],
    findings: { total: 0, findings: [] },
    supervision: { tree: [], events: [] },
  };

  const readers = {
    requests: () => requests.read(),
    state: () => state.read(),
    external: () => external.read(),
  };
  const read = (name) => (held && name in held ? held[name] : current(name));
  const current = (name) => (name in readers ? readers[name]() : data[name]);
  const find = (name, id) => ({ requests, state, external })[name].items.get(id);

  // ---- messages

  let held = null; // what views see while the page is paused
  let stale = new Set(); // kinds whose content is of an earlier connection: the next message of it replaces all

  /** Begin a new connection: what it says first replaces what an earlier one said. */
  function beginConnection() {
    stale = new Set(["traces", "metrics", "state", "external"]);
  }

  function first(type, clear) {
    if (stale.delete(type)) clear();
  }

  /** Objects that did not change stay the same objects, so that their views need no rendering. */
  function keepSame(before, after) {
    const known = new Map(before.map((item) => [item.id, item]));
    return after.map((item) => {
      const old = known.get(item.id);
      return old !== undefined && JSON.stringify(old) === JSON.stringify(item) ? old : item;
    });
  }

  /** What is open lasts: its server tells it again only when something happens in it. */
  function goOn(at_ms) {
    const gone = new Set(data.hello.source.processes.filter((one) => one.state !== "recording").map((one) => one.pid));
    const open = [...requests.items.values()].filter((one) => one.outcome === "open" && !gone.has(one.pid) && at_ms - one.start_ms > one.duration_ms);
    if (open.length === 0) return;
    requests.put(open.map((one) => ({ ...one, duration_ms: at_ms - one.start_ms })));
    changed("requests");
  }

  const SEVERITIES = ["error", "warning", "info"];
  let seen = new Map(); // findings in the order in which they came

  /** Findings by severity, else in the order in which they came: cards that change places cannot be read. */
  function steady(findings) {
    const before = seen;
    seen = new Map();
    const next = Math.max(0, ...before.values()) + 1;
    for (const [index, one] of findings.entries()) seen.set(one.id, before.get(one.id) ?? next + index);
    const rank = (one) => SEVERITIES.indexOf(one.severity);
    return findings.sort((one, other) => rank(one) - rank(other) || seen.get(one.id) - seen.get(other.id));
  }

  const apply = {
    hello(message) {
      const before = data.hello;
      data.hello = message;
      if (before && (before.source.path !== message.source.path || before.source.name !== message.source.name)) {
        beginConnection();
      }
      return "hello";
    },
    status(message) {
      data.status = message;
      return "status";
    },
    traces(message) {
      first("traces", () => requests.clear());
      requests.put(message.requests);
      data.totals.requests = message.total;
      return "requests";
    },
    metrics(message) {
      first("metrics", () => (data.metrics = []));
      // A reconnecting server may send history that is known; time only goes forwards in a chart.
      const last = data.metrics.length ? data.metrics.at(-1).at_ms : -Infinity;
      const fresh = message.samples.filter((sample) => sample.at_ms > last);
      data.metrics = [...data.metrics, ...fresh].slice(-LIMITS.metrics);
      data.whole = message.whole ?? null;
      if (fresh.length && data.hello?.source.recording) goOn(fresh.at(-1).at_ms);
      return "metrics";
    },
    losses(message) {
      data.losses = message.rows;
      data.totals.losses = message.total;
      return "losses";
    },
    findings(message) {
      const findings = keepSame(data.findings.findings, message.findings.slice(0, LIMITS.findings));
      data.findings = { total: message.total, findings: steady(findings) };
      return "findings";
    },
    supervision(message) {
      data.supervision = { tree: message.tree, events: message.events };
      data.totals.supervision = message.total;
      return "supervision";
    },
    state(message) {
      first("state", () => state.clear());
      state.put(message.changes);
      data.totals.state = message.total;
      return "state";
    },
    external(message) {
      first("external", () => external.clear());
      external.put(message.calls);
      data.totals.external = message.total;
      return "external";
    },
  };

  /** Take one message in; unknown kinds are of a newer server and are left alone. */
  function take(message) {
    if (Object.hasOwn(apply, message.type)) changed(apply[message.type](message));
  }

  function set(name, value) {
    data[name] = value;
    changed(name);
  }

  // ---- telling the views

  const listeners = new Set();
  let dirty = new Set();
  let waiting = false;
  let notBefore = 0;
  const drawn = new MessageChannel();

  function changed(name) {
    dirty.add(name);
    if (waiting) return;
    waiting = true;
    const pause = notBefore - performance.now();
    if (pause > FRAME) setTimeout(() => requestAnimationFrame(flush), pause - FRAME); // a frame asked for is a frame made
    else requestAnimationFrame(flush);
  }

  function flush() {
    waiting = false;
    const names = dirty;
    dirty = new Set();
    const began = performance.now();
    for (const [names_wanted, tell] of listeners) if (names_wanted.some((name) => names.has(name))) tell();
    // A message comes after this frame's rendering, style, layout and painting: all of what drawing costs.
    drawn.port1.onmessage = () => (notBefore = began + Math.min((performance.now() - began) / MAIN_SHARE - FRAME, LATEST));
    drawn.port2.postMessage(null);
  }

  /** Renders the calling component again when one of the named parts of the store changed. */
  function useStore(...names) {
    const [, tick] = useState(0);
    // Before the next frame: a saved report says everything at once, right after the first rendering.
    useLayoutEffect(() => {
      const listener = [names, () => tick((count) => count + 1)];
      listeners.add(listener);
      return () => listeners.delete(listener);
    }, names);
    return names.map(read);
  }

  // ---- pausing

  const PAUSED = ["requests", "state", "external", "metrics", "findings", "supervision", "losses"];

  /** While paused views see what there was; what arrives is kept (bounded) and shown afterwards. */
  function pause(on) {
    held = on ? Object.fromEntries(PAUSED.map((name) => [name, current(name)])) : null;
    for (const name of ["paused", ...PAUSED]) changed(name);
  }

  PyScope.store = { LIMITS, take, set, read, find, beginConnection, pause, paused: () => held !== null };
  PyScope.useStore = useStore;
})();
