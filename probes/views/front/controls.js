// The layer slider.

function controls(ctx) {
  const { layers, state, change, endings } = ctx;
  const el = h("div", { class: "lsc-part lsc-controls", "data-part": "lsc-controls", role: "group", "aria-label": "layer" });
  const slider = h("input", { class: "lsc-layer", type: "range", min: 0, max: Math.max(0, layers - 1), step: 1, "aria-label": "layer" });
  const shown = h("output", { class: "lsc-layer-text" });
  const icon = s("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" }, s("path", { d: "", fill: "currentColor" }));
  const play = h("button", { class: "lsc-play", type: "button" }, icon);
  const marks = h("div", { class: "lsc-marks", "aria-hidden": "true" });
  let timer = 0;

  const set = (playing) => {
    clearInterval(timer);
    timer = 0;
    if (playing) {
      if (state.layer === layers - 1) change("layer", 0);
      timer = setInterval(() => {
        if (state.layer >= layers - 1) set(false);
        else {
          change("layer", state.layer + 1);
          if (state.layer === layers - 1) set(false);
        }
      }, PLAY_MS);
    }
    play.setAttribute("aria-label", playing ? "Pause" : "Play through the layers");
    play.setAttribute("aria-pressed", String(playing));
    play.title = playing ? "Pause" : "Play through the layers";
    icon.firstChild.setAttribute("d", playing ? "M2 1h3v10H2zM7 1h3v10H7z" : "M2.5 .8 11 6 2.5 11.2z");
  };
  play.addEventListener("click", () => set(!timer));
  slider.addEventListener("input", () => {
    set(false);
    change("layer", slider.valueAsNumber);
  });
  endings.push(() => clearInterval(timer));
  play.disabled = slider.disabled = layers < 2;

  const show = () => {
    slider.value = state.layer;
    const text = `layer ${state.layer} of ${layers - 1}`;
    slider.setAttribute("aria-valuetext", text);
    shown.replaceChildren(h("b", {}, `Layer ${state.layer}`), ` of ${layers - 1}`, state.layer === 0 ? h("small", {}, "embeddings") : "");
    slider.style.setProperty("--lsc-share", layers > 1 ? state.layer / (layers - 1) : 0);
  };
  const mark = () => {
    marks.replaceChildren(
      ...layerTicks(layers, Math.max(2, slider.clientWidth / 26)).map((layer) => {
        const one = h("span", {}, String(layer));
        one.style.left = layers > 1 ? `calc(8px + (100% - 16px) * ${layer / (layers - 1)})` : "8px";
        return one;
      }),
    );
  };
  el.append(play, shown, h("div", { class: "lsc-track" }, slider, marks));
  set(false);
  show();
  mark();
  return { el, update: (what) => (what === "layer" ? show() : what === "size" ? mark() : null) };
}
