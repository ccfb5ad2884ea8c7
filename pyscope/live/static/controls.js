// Starting and stopping the recorder, dumping the flight recorder, downloading the recording.
"use strict";
(() => {
  const { html, store, useStore } = PyScope;
  const { useEffect, useState } = preactHooks;
  const SHOWN_FOR = 8000;

  function Controls() {
    const [hello] = useStore("hello");
    const [busy, setBusy] = useState("");
    const [said, setSaid] = useState(null);

    useEffect(() => {
      if (!said) return undefined;
      const timer = setTimeout(() => setSaid(null), SHOWN_FOR);
      return () => clearTimeout(timer);
    }, [said]);

    if (!hello || !PyScope.source.live) return null;
    const { controls, source } = hello;

    async function act(action) {
      setBusy(action);
      try {
        const { message } = await PyScope.source.post(`api/${action}`);
        setSaid({ tone: "good", text: message });
      } catch (error) {
        setSaid({ tone: "bad", text: error.message });
      }
      setBusy("");
    }

    const button = (action, label, title) =>
      html`<button type="button" data-control=${action} disabled=${busy !== ""} onClick=${() => act(action)} title=${title}>${busy === action ? "…" : label}</button>`;
    return html`<div class="controls" role="group" aria-label="Recording">
      ${controls.read_only && html`<span class="faint">read-only</span>`}
      ${!controls.read_only && controls.start && !source.recording && button("start", "Start", "Start recording")}
      ${!controls.read_only && controls.stop && source.recording && button("stop", "Stop", "Stop recording")}
      ${!controls.read_only && controls.dump && button("dump", "Dump", "Write what the flight recorder holds to a file")}
      ${controls.download && html`<a class="button" data-control="download" href=${PyScope.source.download()} download title="Download the recording">Download</a>`}
      <p class=${`toast ${said?.tone ?? ""}`} role="status">${said?.text}</p>
    </div>`;
  }

  function Pause() {
    useStore("paused");
    const paused = store.paused();
    return html`<button type="button" class="pause" data-pause aria-pressed=${paused ? "true" : "false"} title="Pause what is shown (space)" onClick=${() => store.pause(!paused)}><i class=${paused ? "icon-resume" : "icon-pause"}></i>${paused ? "Resume" : "Pause"}</button>`;
  }

  Object.assign(PyScope, { Controls, Pause });
})();
