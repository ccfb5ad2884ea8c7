// The page by keyboard: digits and `g` with a letter choose a view, `/` searches, space pauses, `?` lists the keys.
"use strict";
(() => {
  const { html, router, store } = PyScope;
  const { useEffect, useRef } = preactHooks;
  const PATIENCE = 1500; // how long `g` waits for its letter

  const typing = (element) => element?.closest?.("input, select, textarea, [contenteditable]");

  /** Listens for keys; `help` opens the list of them. */
  function listen(help) {
    let waiting = 0;
    function onKey(event) {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
      const { key } = event;
      if (Date.now() < waiting) {
        waiting = 0;
        const view = router.VIEWS.find((one) => one.key === key);
        if (view) {
          event.preventDefault();
          router.go(view.name);
          return;
        }
      }
      if (key === "g") waiting = Date.now() + PATIENCE;
      else if (key >= "1" && key <= "9" && router.VIEWS[key - 1]) router.go(router.VIEWS[key - 1].name);
      else if (key === "/") {
        const field = document.querySelector("[data-search]");
        if (!field) return;
        event.preventDefault();
        field.focus();
        field.select();
      } else if (key === " " && !event.target.closest?.("button, a, summary, [role=table]")) {
        event.preventDefault();
        store.pause(!store.paused());
      } else if (key === "?") help();
    }
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }

  function Help({ open, onClose }) {
    const dialog = useRef(null);
    useEffect(() => {
      if (open && !dialog.current.open) dialog.current.showModal();
      if (!open && dialog.current.open) dialog.current.close();
    }, [open]);
    const line = (keys, does) => html`<div><dt>${keys.map((key) => html`<kbd>${key}</kbd> `)}</dt><dd>${does}</dd></div>`;
    return html`<dialog ref=${dialog} onClose=${onClose} aria-labelledby="keys-title" class="keys">
      <header><h2 id="keys-title">Keys</h2><button type="button" class="plain" aria-label="Close" onClick=${onClose}>✕</button></header>
      <dl>
        ${router.VIEWS.map((view, index) => line(index < 9 ? [String(index + 1), "g", view.key] : ["g", view.key], view.title))}
        ${line(["/"], "Search in the view")}
        ${line(["space"], "Pause and go on")}
        ${line(["↑", "↓"], "Walk through a list; Enter opens")}
        ${line(["Esc"], "Leave the search; zoom out")}
        ${line(["?"], "This list")}
      </dl>
    </dialog>`;
  }

  Object.assign(PyScope, { listenToKeys: listen, Help });
})();
