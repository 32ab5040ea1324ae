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
// `says` announces a sentence to screen readers, and shows it, once things have been still for a moment; while a
// player plays it is shown only. `watch` calls `show` now and whenever one of the traits changes; `end` stops that,
// and is what render returns. What is watched, a button puts back.
function frame(el, model) {
  const title = model.get("title");
  const picture = html("div", { class: "ssd-picture" });
  const panel = html("div", { class: "ssd-panel" });
  const live = html("p", { class: "ssd-says", role: "status" });
  const atFirst = new Map();
  const changed = () => [...atFirst].filter(([key, text]) => JSON.stringify(model.get(key)) !== text);
  const reset = button("Reset", () => put(model, Object.fromEntries(changed().map(([key, text]) => [key, JSON.parse(text)]))));
  reset.setAttribute("aria-label", `Reset: ${title}`);
  const root = html(
    "div",
    { class: "ssd-widget", role: "group", "aria-label": title },
    html("p", { class: "ssd-title" }, title),
    html("div", { class: "ssd-columns" }, picture, panel),
    html("div", { class: "ssd-foot" }, live, reset),
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
  root.addEventListener("ssd-playing", (/** @type {CustomEvent} */ { detail }) => {
    live.setAttribute("aria-live", detail ? "off" : "polite");
    if (!detail) setTimeout(() => live.replaceChildren(live.textContent), 500); // new text: the last sentence is spoken
  });
  const bound = [];
  const listen = (key, hear) => {
    model.on(`change:${key}`, hear);
    bound.push([key, hear]);
  };
  const mark = () => able(reset, changed().length > 0);
  const relight = linking(root);
  const watch = (keys, draw) => {
    const show = () => {
      draw();
      relight();
    };
    for (const key of keys) {
      listen(key, show);
      if (atFirst.has(key)) continue;
      atFirst.set(key, JSON.stringify(model.get(key)));
      listen(key, mark);
    }
    show();
    mark();
  };
  const end = () => {
    clearTimeout(timer);
    for (const [key, hear] of bound) model.off(`change:${key}`, hear);
  };
  return { root, picture, panel, says, watch, end };
}

function put(model, values) {
  for (const [key, value] of Object.entries(values)) model.set(key, value);
  model.save_changes();
}

/** @param {{label: any, min: number, max: number, step: number, format?: (value: number) => string, change: Function}} options */
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

const isAble = (button) => button.getAttribute("aria-disabled") !== "true";

// A button; while it is switched off by `able` it stays where it is in the order of the keyboard, and does nothing.
function button(label, click, attributes = {}) {
  const node = html("button", { type: "button", class: "ssd-button", ...attributes }, label);
  node.addEventListener("click", () => isAble(node) && click());
  return node;
}

const able = (button, yes) => button.setAttribute("aria-disabled", String(!yes));

// Inputs that look like buttons in a row, under one name.
const optionRow = (label, inputs, options) =>
  html(
    "fieldset",
    { class: "ssd-choice" },
    html("legend", {}, label),
    html(
      "div",
      { class: "ssd-options" },
      options.map(({ text, color, picture }, i) =>
        html("label", {}, inputs[i], html("span", {}, picture, color && swatch(color), text)),
      ),
    ),
  );

// One of several: a row of radio buttons that looks like one control.
function choice({ label, options, change }) {
  instances += 1;
  const name = `ssd-choice-${instances}`;
  const inputs = options.map(({ value }) =>
    html("input", { type: "radio", name, value, change: () => change(value) }),
  );
  const node = optionRow(label, inputs, options);
  const set = (value) => {
    for (const [i, input] of inputs.entries()) input.checked = options[i].value === value;
  };
  return { node, set };
}

// Any number of several.
function checks({ label, options, change }) {
  const inputs = options.map(() =>
    html("input", {
      type: "checkbox",
      change: () => change(options.filter((_, i) => inputs[i].checked).map((option) => option.value)),
    }),
  );
  const node = optionRow(label, inputs, options);
  const set = (values) => {
    for (const [i, input] of inputs.entries()) input.checked = values.includes(options[i].value);
  };
  return { node, inputs, set };
}

function select({ label, options, change }) {
  const input = html(
    "select",
    { change: () => change(options[input.selectedIndex].value) },
    options.map(({ text }) => html("option", {}, text)),
  );
  const node = html("label", { class: "ssd-select" }, html("span", {}, label), input);
  const set = (value) => {
    input.selectedIndex = options.findIndex((option) => option.value === value);
  };
  return { node, set };
}

const swatch = (color) => html("i", { class: "ssd-swatch", "aria-hidden": "true", style: { background: color } });

const ICONS = {
  Start: "M2 3h2v10H2zM9 3v10L4 8zM15 3v10L9 8z",
  Back: "M3 3h2v10H3zM13 3v10L5 8z",
  Play: "M4 2v12l9-6z",
  Pause: "M4 3h3v10H4zM9 3h3v10H9z",
  Forward: "M3 3v10l8-5zM11 3h2v10h-2z",
};

const withIcon = (name) => [
  svg("svg", { class: "ssd-icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: ICONS[name] })),
  html("span", {}, name),
];

// Back, play, forward through steps 0..last; `change` is called with the new step, and `words` say which one it is.
// Whoever asks for less motion goes by Back and Forward, and finds nothing that moves by itself.
function player({ label, change, pause = 900, words = (step, last) => `step ${step} of ${last}` }) {
  let step = 0;
  let last = 0;
  let timer = null;
  const go = (to) => change(clamp(to, 0, last));
  const tell = (playing) => {
    play.replaceChildren(...withIcon(playing ? "Pause" : "Play"));
    node.dispatchEvent(new CustomEvent("ssd-playing", { detail: playing, bubbles: true }));
  };
  const stop = () => {
    if (timer === null) return;
    clearInterval(timer);
    timer = null;
    tell(false);
  };
  const jump = (name, says, to) => {
    const click = () => {
      stop();
      go(to());
    };
    return button(withIcon(name), click, { "aria-label": `${name}, ${label}: ${says}` });
  };
  const first = jump("Start", "to the start", () => 0);
  const back = jump("Back", "one step back", () => step - 1);
  const play = button(withIcon("Play"), () => {
    if (timer !== null) return stop();
    tell(true); // before the first step, which would be spoken
    if (step >= last) go(0);
    timer = setInterval(() => (step < last ? go(step + 1) : stop()), pause);
  });
  const forward = jump("Forward", "one step forward", () => step + 1);
  const count = html("span", { class: "ssd-value" });
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const node = html("div", { class: "ssd-player", role: "group", "aria-label": label }, first, back, calm ? null : play, forward, count);
  const set = (value, end) => {
    [step, last] = [value, end];
    count.textContent = words(step, last);
    if (step >= last) stop();
    for (const backward of [first, back]) able(backward, step > 0);
    able(forward, step < last);
    able(play, last > 0);
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
