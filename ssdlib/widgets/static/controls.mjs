// Elements and controls that all widgets are made of: native where the browser has one, named, at least 44 px to touch.

const SVG = "http://www.w3.org/2000/svg";
// Makes the names of radio groups unique on a page; in a notebook every widget has a copy of this file of its own.
let instances = Math.floor(1e9 * Math.random());

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "style") Object.assign(node.style, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null)); // text is added as text, never as markup
  return node;
}

const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const update = (node, attributes) => fill(node, attributes, []);

// The frame of a widget: heading, the picture, and the panel beside it (below it where the page is narrow).
// `says` announces a sentence to screen readers, and shows it, once things have been still for a moment.
function frame(el, title) {
  const picture = html("div", { class: "ssd-picture" });
  const panel = html("div", { class: "ssd-panel" });
  const live = html("p", { class: "ssd-says", role: "status" });
  const root = html(
    "div",
    { class: "ssd-widget", role: "group", "aria-label": title },
    html("p", { class: "ssd-title" }, title),
    html("div", { class: "ssd-columns" }, picture, panel),
    live,
  );
  root.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab would take the arrow keys
  el.replaceChildren(root);
  let timer;
  const says = (sentence) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (live.textContent !== sentence) live.textContent = sentence;
    }, 250);
  };
  return { root, picture, panel, says };
}

// Calls `show` now and whenever one of the traits changes; `end` stops it, and is what render returns.
function watching(model) {
  const bound = [];
  return {
    watch(keys, show) {
      for (const key of keys) {
        model.on(`change:${key}`, show);
        bound.push([key, show]);
      }
      show();
    },
    end: () => bound.forEach(([key, show]) => model.off(`change:${key}`, show)),
  };
}

function put(model, values) {
  for (const [key, value] of Object.entries(values)) model.set(key, value);
  model.save_changes();
}

function slider({ label, min, max, step, format = String, change }) {
  const input = html("input", { type: "range", min, max, step, input: () => change(Number(input.value)) });
  const output = html("span", { class: "ssd-value", "aria-hidden": "true" });
  const node = html(
    "label",
    { class: "ssd-slider" },
    html("span", { class: "ssd-row" }, html("span", {}, label), output),
    input,
  );
  const set = (value) => {
    input.value = value;
    output.textContent = format(value);
    input.setAttribute("aria-valuetext", format(value));
  };
  const range = (low, high) => update(input, { min: low, max: high });
  return { node, input, set, range };
}

const button = (label, click, attributes = {}) =>
  html("button", { type: "button", class: "ssd-button", click, ...attributes }, label);

// Inputs that look like buttons in a row, under one name.
const optionRow = (label, inputs, options) =>
  html(
    "fieldset",
    { class: "ssd-choice" },
    html("legend", {}, label),
    html(
      "div",
      { class: "ssd-options" },
      options.map(({ text, color }, i) => html("label", {}, inputs[i], html("span", {}, color && swatch(color), text))),
    ),
  );

// One of several: a row of radio buttons that looks like one control.
function choice({ label, options, change }) {
  const name = `ssd-choice-${(instances += 1)}`;
  const inputs = options.map(({ value }) =>
    html("input", { type: "radio", name, value, change: () => change(value) }),
  );
  const node = optionRow(label, inputs, options);
  const set = (value) => inputs.forEach((input, i) => (input.checked = options[i].value === value));
  return { node, set };
}

// Any number of several.
function checks({ label, options, change }) {
  const inputs = options.map(({ value }) =>
    html("input", {
      type: "checkbox",
      change: () => change(options.filter((_, i) => inputs[i].checked).map((option) => option.value)),
    }),
  );
  const node = optionRow(label, inputs, options);
  const set = (values) => inputs.forEach((input, i) => (input.checked = values.includes(options[i].value)));
  return { node, inputs, set };
}

function select({ label, options, change }) {
  const input = html(
    "select",
    { change: () => change(options[input.selectedIndex].value) },
    options.map(({ text }) => html("option", {}, text)),
  );
  const node = html("label", { class: "ssd-select" }, html("span", {}, label), input);
  const set = (value) => (input.selectedIndex = options.findIndex((option) => option.value === value));
  return { node, set };
}

const swatch = (color) => html("i", { class: "ssd-swatch", "aria-hidden": "true", style: { background: color } });

// Back, play, forward through steps 0..last; `change` is called with the new step.
function player({ label, change, pause = 900 }) {
  let step = 0;
  let last = 0;
  let timer = null;
  const go = (to) => change(clamp(to, 0, last));
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  const first = button("Start", () => (stop(), go(0)), { "aria-label": `${label}: to the start` });
  const back = button("Back", () => (stop(), go(step - 1)), { "aria-label": `${label}: one step back` });
  const play = button("Play", () => {
    if (timer !== null) return stop();
    if (step >= last) go(0);
    play.textContent = "Pause";
    timer = setInterval(() => (step < last ? go(step + 1) : stop()), pause);
  });
  const forward = button("Forward", () => (stop(), go(step + 1)), { "aria-label": `${label}: one step forward` });
  const count = html("span", { class: "ssd-value" });
  const node = html("div", { class: "ssd-player", role: "group", "aria-label": label }, first, back, play, forward, count);
  const set = (value, end) => {
    [step, last] = [value, end];
    count.textContent = `step ${step} of ${last}`;
    if (step >= last && timer !== null) stop();
    first.disabled = back.disabled = step <= 0;
    forward.disabled = step >= last;
    play.disabled = last === 0;
  };
  return { node, set, stop };
}

// Lines of "name: value", some with a colour; `set` takes the values in the same order.
function readout(rows) {
  const values = rows.map(() => html("dd", {}));
  const node = html(
    "dl",
    { class: "ssd-readout" },
    rows.map(({ text, color }, i) => html("div", {}, html("dt", {}, color && swatch(color), text), values[i])),
  );
  const set = (texts) => texts.forEach((text, i) => values[i].replaceChildren(text));
  return { node, set };
}

// A table whose rows are replaced by `set`; cells are texts or nodes.
function table({ caption, head }) {
  const body = html("tbody", {});
  const node = html(
    "div",
    { class: "ssd-table", role: "region", "aria-label": caption, tabindex: "0" }, // it scrolls: reachable by keyboard
    html(
      "table",
      {},
      html("caption", {}, caption),
      html("thead", {}, html("tr", {}, head.map((text) => html("th", { scope: "col" }, text)))),
      body,
    ),
  );
  const set = (rows) =>
    body.replaceChildren(
      ...rows.map(({ cells, current, click }) =>
        html("tr", { class: current ? "ssd-current" : null, click }, cells.map((cell) => html("td", {}, cell))),
      ),
    );
  return { node, set };
}
