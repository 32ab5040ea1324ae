// JaccardPlayground: two boxes, what they share, what they cover, and the ratio of the two as one bar over another.

const NAMES = ["A", "B"];
const KEYS = ["box_a", "box_b"];
const GOAL = 0.5;

// The sides of a box, and all that follows from two of them.
const sides = (box) => toCentre(box).slice(2).map((side) => Math.max(0, side));
const sidesText = (box) => sides(box).map((side) => fixed(side, 0)).join(" × ");

function jaccardOf(a, b) {
  const common = area(intersection(a, b));
  return { a, b, common, both: area(a) + area(b) - common, value: iou(a, b) };
}

const reached = ({ value }) => Math.abs(value - GOAL) < 0.005;

function jaccardStage(model, colors) {
  const [width, height] = model.get("size");
  const place = stage({ width, height, label: "Two boxes on a grid of 20 pixels" });
  const union = KEYS.map(() => svg("rect", { class: "ssd-area-union" }));
  const shared = svg("rect", { class: "ssd-area-shared" });
  const boxes = KEYS.map((key, i) =>
    movableBox(place, {
      name: `Box ${NAMES[i]}`,
      color: colors[i],
      get: () => model.get(key),
      set: (box) => put(model, { [key]: box }),
      step: 1,
    }),
  );
  for (const [i, { node }] of boxes.entries()) node.dataset.link = NAMES[i];
  const tags = NAMES.map((name) => tag(name));
  place.node.append(
    gridLines(place),
    svg("g", { "data-link": "union" }, union),
    svg("g", { "data-link": "shared" }, shared),
    ...boxes.map(({ node }) => node),
    ...tags,
  );
  const show = ({ a, b }) => {
    for (const each of boxes) each.show();
    for (const [i, box] of [a, b].entries()) {
      update(union[i], boxAttributes(box));
      placeTag(tags[i], box, place);
    }
    update(shared, boxAttributes(intersection(a, b)));
  };
  return { node: place.node, show };
}

// IoU as a fraction that is drawn: the shared area over the area of both, at one scale.
function fractionBars() {
  const row = (text, name, kind) => {
    const part = html("i", { class: kind });
    const value = html("span", { class: "ssd-value" });
    const words = html("span", { class: "ssd-row" }, html("span", {}, text), value);
    const bar = html("div", { class: "ssd-area-bar", "aria-hidden": "true" }, part, html("b", {}));
    return { part, value, node: html("div", { "data-link": name, "data-lights": `${name} A B` }, words, bar) };
  };
  const [top, bottom] = [row("intersection", "shared", "ssd-part-shared"), row("union", "union", "ssd-part-union")];
  const ratio = html("p", { class: "ssd-big" });
  const node = html("div", { class: "ssd-fraction" }, top.node, bottom.node, ratio);
  const show = (now) => {
    const { a, b, common, both, value } = now;
    top.part.style.width = `${100 * value}%`;
    bottom.part.style.width = both > 0 ? "100%" : "0";
    top.value.textContent = common > 0 ? `${sidesText(intersection(a, b))} = ${thousands(Math.round(common))} px²` : "0 px²";
    bottom.value.textContent = `A + B − intersection = ${thousands(Math.round(both))} px²`;
    ratio.replaceChildren("IoU = ", html("strong", {}, fixed(value, 3)), reached(now) ? " ✓ half" : "");
  };
  return { node, show };
}

// "Make it 0.5": begins with equal boxes and says, once it is done, what half means.
function challenge(model) {
  let on = false;
  const text = html("p", { class: "ssd-hint ssd-two-lines" });
  const start = button("Challenge: make it 0.5", () => {
    on = true;
    put(model, { box_a: [60, 60, 180, 140], box_b: [60, 60, 180, 140] });
    say(jaccardOf(...KEYS.map((key) => model.get(key))));
  });
  const say = (now) => {
    if (!on) return;
    const share = fixed((100 * now.common) / Math.max(area(now.a), area(now.b)), 0);
    const words = reached(now)
      ? `Done: IoU ${fixed(now.value, 3)}. The larger box shares ${share} % of itself, not half: two equal boxes need two thirds.`
      : `Equal boxes. Guess first which part of its width B must move, then move it: IoU is ${fixed(now.value, 2)}.`;
    text.textContent = words;
  };
  text.textContent = "Two boxes match from 0.5 on (the mark on the bar). How much do they share then?";
  return { nodes: [start, text], say };
}

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const [width, height] = model.get("size");
  const colors = [colorOf(1), colorOf(4)];
  const drawing = jaccardStage(model, colors);
  const fields = KEYS.map((key, i) =>
    boxFields({
      name: `${NAMES[i]}, in px`,
      color: colors[i],
      get: () => model.get(key),
      set: (box) => put(model, { [key]: box }),
      width,
      height,
    }),
  );
  picture.append(
    drawing.node,
    html("p", { class: "ssd-hint" }, "Drag a box or its corners. By keyboard: arrow keys move, Shift and arrow keys resize; or type."),
    html("div", { class: "ssd-both-fields" }, fields.map(({ node }) => node)),
  );
  const presets = model.get("presets");
  const preset = html(
    "div",
    { class: "ssd-buttons", role: "group", "aria-label": "Put the boxes so that they are" },
    presets.map(({ name, box_a, box_b }) => button(name, () => put(model, { box_a, box_b }))),
  );
  const bars = fractionBars();
  const goal = challenge(model);
  panel.append(html("p", { class: "ssd-label" }, "Put the boxes so that they are"), preset, bars.node, ...goal.nodes);

  watch(KEYS, () => {
    const now = jaccardOf(...KEYS.map((key) => model.get(key)));
    const { a, b, common, both, value } = now;
    drawing.show(now);
    bars.show(now);
    goal.say(now);
    for (const [i, each] of fields.entries()) {
      each.show();
      each.call(`${NAMES[i]}: ${sidesText(i ? b : a)} = ${thousands(Math.round(area(i ? b : a)))} px²`, colors[i]);
    }
    says(
      `The boxes share ${thousands(Math.round(common))} of ${thousands(Math.round(both))} square pixels: ` +
        `IoU ${fixed(value, 3)}, ${value >= GOAL ? "a match" : "no match"} at a threshold of 0.5.${reached(now) ? " Half is reached." : ""}`,
    );
  });
  return end;
}

export default { render };
