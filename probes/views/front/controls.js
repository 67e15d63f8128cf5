// The layer slider, and the button that plays through the layers; below it those of the steps of a training.

const PLAY_MS = 800;

function controlsPart(view) {
  const { layers } = view;
  const el = h("div", {
    class: "lsc-part lsc-controls",
    "data-part": "lsc-controls",
    role: "group",
    "aria-label": "layer",
  });
  const span = { type: "range", min: 0, max: Math.max(0, layers - 1), step: 1 };
  const slider = h("input", { class: "lsc-layer", ...span, "aria-label": "layer" });
  const box = h("input", { ...span, type: "number", class: "lsc-layer-box", "aria-label": "layer, as a number" });
  const first = h("small", {});
  const shown = h("span", { class: "lsc-layer-text" }, h("b", {}, "Layer"), box, ` of ${layers - 1}`, first);
  const sign = s("path", { d: "", fill: "currentColor" });
  const icon = s("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" }, sign);
  const button = h("button", { class: "lsc-play", type: "button" }, icon);
  const marks = h("div", { class: "lsc-marks", "aria-hidden": "true" });
  const panel = { view, slider, box, first, sign, button, marks, timer: 0 };

  button.addEventListener("click", () => play(panel, !panel.timer));
  slider.addEventListener("input", () => {
    play(panel, false);
    change(view, "layer", slider.valueAsNumber);
  });
  box.addEventListener("change", () => {
    play(panel, false);
    if (Number.isFinite(box.valueAsNumber)) change(view, "layer", box.valueAsNumber); // brought into its range
    showLayer(panel);
  });
  view.endings.push(() => clearInterval(panel.timer));
  button.disabled = slider.disabled = box.disabled = layers < 2;

  const training = stepTrack(view);
  el.append(button, shown, h("div", { class: "lsc-track" }, slider, marks));
  if (training) el.append(training.el);
  play(panel, false);
  showLayer(panel);
  markLayers(panel);
  return {
    el,
    update(what) {
      if (what === "layer") showLayer(panel);
      else if (what === "step") training?.update();
      else if (what === "size") markLayers(panel);
    },
  };
}

/** Begin or end to play. */
function play(panel, playing) {
  const { view, button, sign } = panel;
  const { layers, state } = view;
  clearInterval(panel.timer);
  panel.timer = 0;
  if (playing) {
    if (state.layer === layers - 1) change(view, "layer", 0);
    panel.timer = setInterval(() => {
      if (state.layer < layers - 1) change(view, "layer", state.layer + 1);
      if (state.layer >= layers - 1) play(panel, false);
    }, PLAY_MS);
  }
  const label = playing ? "Pause" : "Play through the layers";
  button.setAttribute("aria-label", label);
  button.setAttribute("aria-pressed", String(playing));
  button.title = label;
  sign.setAttribute("d", playing ? "M2 1h3v10H2zM7 1h3v10H7z" : "M2.5 .8 11 6 2.5 11.2z");
}

function showLayer({ view, slider, box, first }) {
  const { about, layers, state } = view;
  box.value = state.layer;
  slider.value = state.layer;
  slider.setAttribute("aria-valuetext", `layer ${state.layer} of ${layers - 1}`);
  first.textContent = state.layer === 0 ? about.first : "";
  slider.style.setProperty("--lsc-share", layers > 1 ? state.layer / (layers - 1) : 0);
}

/** Print layer numbers under the slider, as many as there is room for. */
function markLayers({ view, slider, marks }) {
  const { layers } = view;
  marks.replaceChildren(
    ...layerTicks(layers, Math.max(2, slider.clientWidth / 26)).map((layer) => {
      const one = h("span", {}, String(layer));
      one.style.left = layers > 1 ? `calc(8px + (100% - 16px) * ${layer / (layers - 1)})` : "8px";
      return one;
    }),
  );
}
