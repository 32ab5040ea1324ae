// EncodingPlayground: an object, a prior, and the offsets between them, each with the way it is worked out.

const OFFSETS = [
  { name: "centre x", symbol: "cx" },
  { name: "centre y", symbol: "cy" },
  { name: "width", symbol: "w" },
  { name: "height", symbol: "h" },
];

// The object with one of its offsets changed, as far as it stays on the grid and at least 1 pixel wide and high.
/** @type {(box: number[], prior: number[], variances: number[], size: number[], i: number, value: number) => number[]} */
function withOffset(box, prior, variances, size, i, value) {
  const offsets = encode(toCentre(box), toCentre(prior), variances);
  offsets[i] = value;
  const moved = decode(offsets, toCentre(prior), variances);
  const result = toCentre(box);
  const axis = i % 2;
  const side = result[axis + 2];
  const [low, high] =
    i < 2
      ? [side / 2, size[axis] - side / 2]
      : [1, 2 * Math.min(result[axis], size[axis] - result[axis])];
  result[i] = clamp(moved[i], low, high);
  return toCorners(result).map((side, at) => clamp(roundTo(side, 0.001), 0, size[at % 2]));
}

// Prior and object on their grid, and the way from centre to centre.
function encodingStage(model) {
  const [width, height] = model.get("size");
  const colors = { prior: colorOf(1), object: colorOf(2) };
  const place = stage({ width, height, label: "A prior and an object on a grid of 20 pixels" });
  place.node.classList.add("ssd-low");
  const prior = svg("rect", { class: "ssd-box ssd-dashed", style: { stroke: colors.prior } });
  const object = movableBox(place, {
    name: "Object",
    color: colors.object,
    get: () => model.get("box"),
    set: (box) => put(model, { box }),
    least: 1,
  });
  // The distance of the centres along x, over the width of the prior, which is drawn along its lower side.
  const rulers = ["ssd-ruler", "ssd-ruler ssd-ruler-whole"].map((name) => svg("path", { class: name }));
  const words = [0, 1].map(() => svg("text", { class: "ssd-small ssd-tag", "text-anchor": "middle" }));
  const way = svg("line", { class: "ssd-way" });
  const dots = [colors.prior, colors.object].map((fill) => svg("circle", { class: "ssd-handle", style: { fill } }));
  const tags = { prior: tag("prior"), object: tag("object") };
  place.node.append(gridLines(place), prior, ...rulers, object.node, way, ...dots, ...words, tags.prior, tags.object);
  /** @type {(from: number[], ends: number[][]) => void} */
  const measure = (from, [[px, py, pw], [bx]]) => {
    const below = from[3] + 24 < height;
    const side = below ? from[3] : from[1]; // where there is room for it
    const out = below ? 1 : -1;
    const at = side + 10 * out;
    update(rulers[0], { d: bx === px ? "" : `M${px} ${py}V${at}M${bx} ${py}V${at}M${px} ${at}H${bx}` });
    update(rulers[1], { d: `M${from[0]} ${at - 4}v8M${from[0]} ${at}H${from[2]}M${from[2]} ${at - 4}v8` });
    words[0].textContent = bx === px ? "" : `${fixed(bx - px, 0)}`;
    words[1].textContent = `${fixed(bx - px, 0)} of ${fixed(pw, 0)} px = ${fixed((bx - px) / pw, 2)}`;
    update(words[0], { x: (px + bx) / 2, y: py });
    update(words[1], { x: clamp(px, 60, width - 60), y: at + (below ? 24 : -2) });
  };
  const show = (box, from) => {
    const ends = [toCentre(from), toCentre(box)];
    const [[px, py], [bx, by]] = ends;
    object.show();
    update(prior, boxAttributes(from));
    update(way, { x1: px, y1: py, x2: bx, y2: by });
    for (const [i, [cx, cy]] of ends.entries()) update(dots[i], { cx, cy });
    placeTag(tags.object, box, place);
    measure(from, ends);
    // The prior's name stands beside it, on the side that the object is not.
    const left = bx >= px;
    update(tags.prior, { x: from[left ? 0 : 2], y: py + 10, "text-anchor": left ? "end" : "start" });
  };
  return { node: place.node, show };
}

// Buttons that change the object; those that would leave the grid, or change nothing, are off, and a line says so.
function objectButtons(model) {
  const [width, height] = model.get("size");
  /** @param {number[]} box */
  const inside = ([x0, y0, x1, y1]) => x0 >= 0 && y0 >= 0 && x1 <= width && y1 <= height;
  // A wider object moves off the border as far as it must.
  /** @param {number[]} box */
  const pushed = ([cx, cy, w, h]) => toCorners([w > width ? cx : clamp(cx, w / 2, width - w / 2), cy, w, h]);
  const edits = [
    { text: "equal to the prior", edit: () => model.get("prior") },
    { text: "10 px to the right", edit: ([x0, y0, x1, y1]) => [x0 + 10, y0, x1 + 10, y1] },
    { text: "twice as wide", edit: (box) => pushed(toCentre(box).map((side, i) => (i === 2 ? 2 * side : side))) },
    { text: "half as wide", edit: (box) => toCorners(toCentre(box).map((side, i) => (i === 2 ? side / 2 : side))) },
  ].map(({ text, edit }) => {
    const result = () => edit(model.get("box"));
    const node = button(text, () => put(model, { box: result() }));
    const works = () => {
      const [before, after] = [model.get("box"), result()];
      return inside(after) && toCentre(after)[2] >= 1 && after.some((side, i) => side !== before[i]);
    };
    return { node, text, works };
  });
  const why = html("p", { class: "ssd-hint ssd-two-lines" });
  const node = html(
    "div",
    {},
    html("p", { class: "ssd-label ssd-spaced" }, "Change the object"),
    html("div", { class: "ssd-buttons", role: "group", "aria-label": "Change the object" }, edits.map((one) => one.node)),
    why,
  );
  const show = () => {
    for (const one of edits) able(one.node, one.works());
    const off = edits.filter((one) => !one.works()).map(({ text }) => text);
    why.textContent = off.length ? `Off now, as it would leave the grid or change nothing: ${off.join(", ")}.` : "";
  };
  return { node, show };
}

// One slider for each offset, with the way it is worked out below it.
function offsetSliders(model, moved) {
  const rows = OFFSETS.map(({ name, symbol }, i) => {
    const { node, set, range, input } = slider({
      label: html("span", {}, html("i", {}, "g"), html("sub", {}, symbol), ` ${name}`),
      min: -10,
      max: 10,
      step: 0.1,
      format: (value) => fixed(value, 2),
      change: (value) => {
        const [box, prior, variances, size] = ["box", "prior", "variances", "size"].map((key) => model.get(key));
        put(model, { box: withOffset(box, prior, variances, size, i, value) });
        moved(i, value); // where the border stopped the object, nothing has changed, and the slider must go back
      },
    });
    return { node, set, range, input, sum: html("p", { class: "ssd-hint ssd-sum" }) };
  });
  const px = (value) => fixed(value, Number.isInteger(roundTo(value, 0.01)) ? 0 : 1);
  const show = (box, prior, variances) => {
    const [raw, offsets] = [encode(box, prior, [1, 1]), encode(box, prior, variances)];
    for (const [i, { set, range, input, sum }] of rows.entries()) {
      // Without the variances the numbers are smaller: the slider covers the same boxes.
      const most = variances[i < 2 ? 0 : 1] === 1 ? [1, 1, 2, 2][i] : 10;
      range(-most, most);
      input.step = most < 10 ? 0.01 : 0.1;
      set(offsets[i]);
      const side = px(prior[i < 2 ? i + 2 : i]);
      const inside = i < 2 ? `(${px(box[i])} − ${px(prior[i])}) / ${side}` : `ln(${px(box[i])} / ${side})`;
      const variance = variances[i < 2 ? 0 : 1];
      sum.textContent = `${inside} = ${fixed(raw[i], 3)};  ÷ ${variance} = ${fixed(offsets[i], 2)}`;
    }
    return { raw, offsets };
  };
  return { node: html("div", { class: "ssd-offsets" }, rows.map(({ node, sum }) => [node, sum])), show };
}

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const drawing = encodingStage(model);
  const edits = objectButtons(model);
  const [width, height] = model.get("size");
  const fields = boxFields({
    name: "Object, in px",
    color: colorOf(2),
    get: () => model.get("box"),
    set: (box) => put(model, { box }),
    width,
    height,
    least: 1,
  });
  const first = model.get("variances");
  const used = first.every((value) => value === 1) ? [0.1, 0.2] : first;
  const scaled = checks({
    label: "",
    options: [{ value: true, text: `divide by the variances ${used.join(" and ")}` }],
    change: (values) => put(model, { variances: values.length ? used : [1, 1] }),
  });
  picture.append(
    drawing.node,
    html(
      "p",
      { class: "ssd-hint" },
      "Drag the object, its corners or the offsets. By keyboard: arrows, with Shift resizing.",
    ),
    fields.node,
    edits.node,
  );
  const priors = model.get("priors");
  const shapes = choice({
    label: "Prior, in pixels",
    options: priors.map(({ name }, value) => ({ text: name, value })),
    change: (i) => put(model, { prior: priors[i].prior }),
  });
  const sliders = offsetSliders(model, (i, wanted) => {
    const [box, prior, variances] = ["box", "prior", "variances"].map((key) => model.get(key));
    show();
    const got = encode(toCentre(box), toCentre(prior), variances)[i];
    if (Math.abs(got - wanted) > 0.05) {
      says(`The border of the grid, or the smallest side of 1 pixel, stops the object at ${OFFSETS[i].name} ${fixed(got, 2)}.`);
    }
  });
  panel.append(shapes.node, scaled.node, sliders.node);

  const show = () => {
    const [box, from, variances] = ["box", "prior", "variances"].map((key) => model.get(key));
    drawing.show(box, from);
    edits.show();
    fields.show();
    scaled.set(variances.every((value) => value === 1) ? [] : [true]);
    shapes.set(priors.findIndex((one) => one.prior.every((side, i) => side === from[i])));
    const { raw, offsets } = sliders.show(toCentre(box), toCentre(from), variances);
    says(
      `Offsets of the object from the prior: ${OFFSETS.map(({ name }, i) => `${name} ${fixed(offsets[i], 2)}`).join(", ")}. ` +
        `Without the variances: ${raw.map((value) => fixed(value, 3)).join(", ")}.`,
    );
  };
  watch(["box", "prior", "variances"], show);
  return end;
}

export default { render };
