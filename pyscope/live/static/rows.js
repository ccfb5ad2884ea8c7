// A table of many rows of which only those in sight are in the document.
"use strict";
(() => {
  const PyScope = (window.PyScope ??= {});
  const { html, memo } = PyScope;
  const { useEffect, useLayoutEffect, useRef, useState } = preactHooks;
  const SPARE = 6; // rows beyond the edges, so that the keyboard finds the next one
  const narrow = matchMedia("(max-width: 719px)");

  /** Whether the page has a phone's width; renders again when that changes. */
  function useNarrow() {
    const [is, set] = useState(narrow.matches);
    useEffect(() => {
      const tell = () => set(narrow.matches);
      narrow.addEventListener("change", tell);
      return () => narrow.removeEventListener("change", tell);
    }, []);
    return is;
  }

  /**
   * Which element shows which row: a row in sight keeps its own, a new one takes that of a row that has gone. Most of
   * what drawing a fast list costs is the making of elements. `held`: an element that has the focus goes with its row.
   */
  function assign(ids, before, held, fresh) {
    const inSight = new Set(ids);
    const free = [...before].filter(([id, element]) => !inSight.has(id) && element !== held).map(([, element]) => element);
    let next = 0;
    return new Map(ids.map((id) => [id, before.get(id) ?? free[next++] ?? fresh()]));
  }

  /**
   * The cells of an item: an item that changes is another object, and what stays the same is not compared. (To keep what
   * was drawn by the item instead would keep all there was: what is drawn knows its parents, and they the items then.)
   */
  const Cells = memo(({ row, cells }) => cells(row).map((cell, column) => html`<span role="cell" class=${`c${column}`}>${cell}</span>`));

  /** How far the rows in sight have moved since `before` (id -> index): by what came in above them. */
  function moved(ids, first, before) {
    for (const [offset, id] of ids.entries()) if (before.has(id)) return first + offset - before.get(id);
    return 0;
  }

  /**
   * rows: the items; idOf(row): its key; cells(row): the row's cells; columns: titles (a title may be a node);
   * height: of a row in pixels; rowClass(row), onOpen(row), selected: an id.
   * What is being read stays where it is when rows come in above it; `question`: what was searched and how it is ordered,
   * with another one the list begins at its top.
   */
  function Rows({ label, rows, idOf, cells, columns, height, kind, rowClass, onOpen, selected, question, empty }) {
    const box = useRef(null);
    const anchor = useRef(null);
    const elements = useRef({ made: 0, of: new Map(), at: new Map(), shift: 0 });
    const [view, setView] = useState({ top: 0, height: 600 });

    useLayoutEffect(() => {
      const element = box.current;
      const measure = () => setView({ top: element.scrollTop, height: element.clientHeight });
      measure();
      const observer = new ResizeObserver(measure);
      observer.observe(element);
      return () => observer.disconnect();
    }, []);

    useLayoutEffect(() => {
      anchor.current = null;
      box.current.scrollTop = 0;
    }, [question]);

    useLayoutEffect(() => {
      const element = box.current;
      if (anchor.current && element.scrollTop > 0) {
        const { id, index } = anchor.current;
        if (rows[index] === undefined || idOf(rows[index]) !== id) {
          const moved = rows.findIndex((row) => idOf(row) === id);
          if (moved >= 0) element.scrollTop += (moved - index) * height;
        }
      }
      remember();
    }, [rows]);

    useLayoutEffect(() => {
      if (selected === undefined || selected === "") return;
      const index = rows.findIndex((row) => idOf(row) === selected);
      const element = box.current;
      if (index < 0) return;
      if (index * height < element.scrollTop || (index + 1) * height > element.scrollTop + element.clientHeight - 34) {
        element.scrollTop = Math.max(0, index * height - element.clientHeight / 3);
      }
    }, [selected]);

    function remember() {
      const index = Math.floor(box.current.scrollTop / height);
      anchor.current = rows[index] === undefined ? null : { index, id: idOf(rows[index]) };
    }

    function onScroll() {
      remember();
      setView({ top: box.current.scrollTop, height: box.current.clientHeight });
    }

    function onKeyDown(event) {
      const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: 10, PageUp: -10 }[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      const row = document.activeElement?.closest?.("[data-row]");
      if (!row || !box.current.contains(row)) return;
      event.preventDefault();
      const index = Math.min(rows.length - 1, Math.max(0, Number(row.dataset.row) + step));
      const element = box.current;
      if (index * height < element.scrollTop) element.scrollTop = index * height;
      const lowest = (index + 1) * height + 34 - element.clientHeight;
      if (lowest > element.scrollTop) element.scrollTop = lowest;
      onScroll();
      requestAnimationFrame(() => element.querySelector(`[data-row="${index}"] [data-open]`)?.focus({ preventScroll: true }));
    }

    const first = Math.max(0, Math.floor(view.top / height) - SPARE);
    const last = Math.min(rows.length, Math.ceil((view.top + view.height) / height) + SPARE);
    const shown = rows.slice(first, last);
    const held = document.activeElement?.closest?.("[data-element]")?.dataset.element;
    const fresh = () => String((elements.current.made += 1));
    const ids = shown.map(idOf);
    elements.current.of = assign(ids, elements.current.of, held, fresh);
    // What comes in at the top moves the body; the rows keep their places in it.
    elements.current.shift += moved(ids, first, elements.current.at);
    elements.current.at = new Map(ids.map((id, offset) => [id, first + offset]));
    const { shift } = elements.current;
    return html`<div class=${`rows ${kind}`} ref=${box} onScroll=${onScroll} onKeyDown=${onKeyDown} tabindex="0"
        role="table" aria-label=${label} aria-rowcount=${rows.length + 1}>
      <div class="row head" role="row" aria-rowindex="1">
        ${columns.map((title, index) => html`<span role="columnheader" class=${`c${index}`}>${title}</span>`)}
      </div>
      ${rows.length === 0 && html`<div role="row"><div role="cell">${empty}</div></div>`}
      <div class="room" style=${{ height: `${rows.length * height}px` }}><div class="body" role="rowgroup" style=${{ transform: `translateY(${shift * height}px)` }}>
        ${shown.map((row, offset) => {
          const id = ids[offset];
          const index = first + offset;
          return html`<div key=${elements.current.of.get(id)} data-element=${elements.current.of.get(id)} role="row" aria-rowindex=${index + 2} data-row=${index} data-id=${id}
              class=${`row ${rowClass ? rowClass(row) : ""} ${id === selected ? "selected" : ""}`}
              style=${{ transform: `translateY(${(index - shift) * height}px)`, height: `${height}px` }}
              onClick=${onOpen && ((event) => event.target.closest("a, button") || getSelection().toString() || onOpen(row))}>
            <${Cells} row=${row} cells=${cells} />
          </div>`;
        })}
      </div></div>
    </div>`;
  }

  Object.assign(PyScope, { Rows, useNarrow });
})();
