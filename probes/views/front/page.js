// A saved explorer: the stand-in for the widget's model, answering from the data embedded in the page.
{
  const read = (text) => {
    const plain = atob(text);
    const bytes = new Uint8Array(plain.length);
    for (let i = 0; i < plain.length; i++) bytes[i] = plain.charCodeAt(i);
    return new DataView(bytes.buffer);
  };
  const page = JSON.parse(document.getElementById("layerscope-data").textContent);
  const traits = {};
  for (const [name, value] of Object.entries(page.traits))
    traits[name] = typeof value?.bytes === "string" ? read(value.bytes) : value;
  const known = new Map((page.answers ?? []).map((one) => [keyOf(one.ask), one]));

  // Nearest sentences are embedded as plain row numbers: (layers, n, k) of each model.
  const rowsOf = new Map();
  function nearestRows(model, layer, row) {
    const { k, models } = page.neighbours;
    const { n } = traits.about;
    const layers = Math.max(1, traits.about.models[model].layers);
    if (!rowsOf.has(model)) {
      const { buffer, byteLength } = read(models.find((one) => one.model === model).rows);
      rowsOf.set(model, byteLength === layers * n * k * 2 ? new Uint16Array(buffer) : new Uint32Array(buffer));
    }
    const start = (Math.min(layer, layers - 1) * n + row) * k;
    return [...rowsOf.get(model).subarray(start, start + k)].filter((found) => found < n);
  }
  function sentence({ row, layer }) {
    const { baseline } = traits.about;
    const embedded = page.neighbours.models.map((one) => one.model);
    const before = embedded.includes(baseline) ? nearestRows(baseline, layer, row) : null;
    const neighbours = embedded.map((model) => {
      const found = nearestRows(model, layer, row);
      const compared = before !== null && model !== baseline;
      return {
        model,
        found: found.map((other) => ({
          row: other,
          cosine: null,
          state: !compared ? "" : before.includes(other) ? "kept" : "gained",
        })),
        lost: compared ? before.filter((other) => !found.includes(other)) : [],
      };
    });
    const why = "Representers need a running notebook: open the comparison there.";
    return { give: "sentence", row, layer, neighbours, representers: null, why };
  }

  const listeners = new Map();
  const call = (event, ...values) => {
    for (const listener of [...(listeners.get(event) ?? [])]) listener(...values);
  };
  const model = {
    get: (name) => traits[name],
    set(name, value) {
      traits[name] = value;
      call(`change:${name}`);
    },
    save_changes() {},
    on(event, listener) {
      if (!listeners.has(event)) listeners.set(event, new Set());
      listeners.get(event).add(listener);
    },
    off(event, listener) {
      if (listener) listeners.get(event)?.delete(listener);
      else listeners.delete(event);
    },
    send(ask) {
      queueMicrotask(() => {
        const one = known.get(keyOf(ask));
        if (one) call("msg:custom", one.give, (one.buffers ?? []).map(read));
        else if (ask.ask === "sentence" && page.neighbours) call("msg:custom", sentence(ask), []);
        else
          call(
            "msg:custom",
            { give: "missing", ask, why: "This needs a running notebook: open the comparison there." },
            [],
          );
      });
    },
  };
  document.documentElement.classList.add("lsc-page");
  render({ model, el: document.getElementById("layerscope") });
}
