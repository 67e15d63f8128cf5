// A training: which of its models is shown, and the slider that goes through its steps.

const STEP_PLAY_MS = 1000;

/** The training that a model is a step of, or undefined. */
function seriesOf({ about }, m) {
  return (about.series ?? []).find((one) => one.models.includes(m));
}

/** The model that stands at the present step: of a training its last one up to there, or its first; itself of others. */
function atStep(view, m) {
  const series = seriesOf(view, m);
  if (!series) return m;
  const passed = series.steps.filter((step) => step <= view.state.step).length;
  return series.models[Math.max(0, passed - 1)];
}

/** Whether a model is shown where all are: of a training the one at the present step, and the baseline. */
const isAtStep = (view, m) => m === view.about.baseline || atStep(view, m) === m;

/** The models of a training between two of its steps, in the order in which they are passed. */
function stepsBetween(view, from, to) {
  const models = seriesOf(view, from)?.models ?? [];
  const [a, b] = [models.indexOf(from), models.indexOf(to)];
  if (b < 0) return [];
  return a < b ? models.slice(a + 1, b) : models.slice(b + 1, a).reverse();
}

/** Show the models of the present step in place of those of another. */
function followStep(view) {
  const { about, names, state } = view;
  const moved = (name) => names[atStep(view, names.indexOf(name))];
  const beside = (name) => (names.indexOf(name) === about.baseline ? name : moved(name));
  change(view, "models", [...new Set(state.models.map(moved))]);
  change(view, "compared", state.compared.map(beside));
  change(view, "focus", beside(state.focus));
}

/** The slider, and the button that plays through the steps; nothing where there are none. */
function stepTrack(view) {
  const { about } = view;
  const steps = about.steps ?? [];
  if (steps.length < 2) return null;
  const span = { type: "range", min: 0, max: steps.length - 1, step: 1 };
  const slider = h("input", { class: "lsc-step", ...span, "aria-label": "step of the training" });
  const said = h("output", { class: "lsc-step-box" });
  const shown = h("span", { class: "lsc-layer-text" }, h("b", {}, "Step "), said, ` of ${steps.at(-1)}`);
  const sign = s("path", { d: "", fill: "currentColor" });
  const icon = s("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" }, sign);
  const button = h("button", { class: "lsc-play lsc-step-play", type: "button" }, icon);
  const track = { view, steps, slider, said, sign, button, timer: 0 };
  button.addEventListener("click", () => playSteps(track, !track.timer));
  slider.addEventListener("input", () => {
    playSteps(track, false);
    change(view, "step", steps[slider.valueAsNumber]);
  });
  view.endings.push(() => clearInterval(track.timer));
  playSteps(track, false);
  const el = h("div", { class: "lsc-steps", role: "group", "aria-label": "step" }, button, shown);
  el.append(h("div", { class: "lsc-track" }, slider));
  showStep(track);
  return { el, update: () => showStep(track) };
}

/** Begin or end to play. */
function playSteps(track, playing) {
  const { view, steps, button, sign } = track;
  clearInterval(track.timer);
  track.timer = 0;
  const place = () => steps.indexOf(view.state.step);
  if (playing) {
    if (place() === steps.length - 1) change(view, "step", steps[0]);
    track.timer = setInterval(() => {
      if (place() < steps.length - 1) change(view, "step", steps[place() + 1]);
      if (place() >= steps.length - 1) playSteps(track, false);
    }, STEP_PLAY_MS);
  }
  const label = playing ? "Pause" : "Play through the steps";
  button.setAttribute("aria-label", label);
  button.setAttribute("aria-pressed", String(playing));
  button.title = label;
  sign.setAttribute("d", playing ? "M2 1h3v10H2zM7 1h3v10H7z" : "M2.5 .8 11 6 2.5 11.2z");
}

function showStep({ view, steps, slider, said }) {
  const place = steps.indexOf(view.state.step);
  slider.value = place;
  slider.setAttribute("aria-valuetext", `step ${view.state.step} of ${steps.at(-1)}`);
  slider.style.setProperty("--lsc-share", place / (steps.length - 1));
  said.textContent = String(view.state.step);
}
