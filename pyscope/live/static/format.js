// Numbers, times and names as people read them. Every function takes null for "not known".
"use strict";
(() => {
  const PyScope = (window.PyScope ??= {});
  const UNKNOWN = "–";
  const missing = (value) => value === null || value === undefined || Number.isNaN(value);

  /** A duration: three digits that matter, in the unit that fits. It is rounded before its unit is chosen: never 60 s. */
  function ms(value) {
    if (missing(value)) return UNKNOWN;
    if (value < 0) return `-${ms(-value)}`;
    if (value >= 3_599_500) {
      const minutes = Math.round(value / 60_000);
      return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    }
    if (value >= 59_950) {
      const seconds = Math.round(value / 1000);
      return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    }
    if (value >= 999.5) return `${(value / 1000).toPrecision(3)} s`;
    if (value >= 0.9995) return `${value.toPrecision(3)} ms`;
    if (value === 0) return "0 ms";
    return `${(value * 1000).toFixed(value >= 0.00995 ? 0 : 1)} µs`;
  }

  function bytes(value) {
    if (missing(value)) return UNKNOWN;
    let unit = 0;
    let size = value;
    while (Math.abs(size) >= 1024 && unit < 4) {
      size /= 1024;
      unit += 1;
    }
    return `${unit === 0 || size >= 100 ? size.toFixed(0) : size.toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
  }

  /** A count, whole: 12 345. */
  const count = (value) => (missing(value) ? UNKNOWN : Math.round(value).toLocaleString("en-GB").replaceAll(",", "\u202f"));

  /** A rate or a count that may be large: 12.3 k. */
  function rate(value) {
    if (missing(value)) return UNKNOWN;
    if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
    if (value >= 1e4) return `${(value / 1e3).toPrecision(3)} k`;
    if (value >= 100 || Number.isInteger(value)) return count(value);
    return value.toFixed(value >= 10 ? 1 : 2);
  }

  function percent(value, digits = 1) {
    return missing(value) ? UNKNOWN : `${value.toFixed(value >= 100 ? 0 : digits)} %`;
  }

  const two = (number) => String(number).padStart(2, "0");

  /** The local time of day of Unix milliseconds. */
  function clock(value, millis = true) {
    if (missing(value) || value <= 0) return UNKNOWN;
    const date = new Date(value);
    const seconds = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
    return millis ? `${seconds}.${String(date.getMilliseconds()).padStart(3, "0")}` : seconds;
  }

  function day(value, millis = true) {
    if (missing(value) || value <= 0) return UNKNOWN;
    const date = new Date(value);
    return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(value, millis)}`;
  }

  const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

  /** `snake_case` as words. */
  const words = (name) => String(name).replaceAll("_", " ").replace("n plus one", "N+1");

  /** The end of a path, which is what tells files apart. */
  function shortPath(file, parts = 3) {
    const pieces = String(file).split("/").filter(Boolean);
    return pieces.length <= parts ? String(file) : `…/${pieces.slice(-parts).join("/")}`;
  }

  /** A hue, the same for the same name: neighbours in a list seldom share one. */
  function hue(name) {
    let hash = 2166136261;
    for (let index = 0; index < name.length; index += 1) hash = Math.imul(hash ^ name.charCodeAt(index), 16777619);
    return ((hash >>> 0) % 24) * 15;
  }

  PyScope.format = { UNKNOWN, ms, bytes, count, rate, percent, clock, day, plural, words, shortPath, hue };
})();
