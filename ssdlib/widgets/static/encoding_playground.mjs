// EncodingPlayground: an object, a prior, and the offsets between them, each with the way it is worked out.

const OFFSETS = [
  { name: "centre x", symbol: "cx" },
  { name: "centre y", symbol: "cy" },
  { name: "width", symbol: "w" },
  { name: "height", symbol: "h" },
];

// The object with one of its offsets changed, as far as it stays on the grid and at least 1 pixel wide and high.
function withOffset(box, prior, variances, size, i, value) {
  const offsets = encode(toCentre(box), toCentre(prior), variances);
  offsets[i] = value;
  const moved = decode(offsets, toCentre(prior), variances);
  const result = toCentre(box);
  const axis = i % 2;
  const [low, high] =
    i < 2
      ? [result[axis + 2] / 2, size[axis] - result[axis + 2] / 2]
      : [1, 2 * Math.min(result[axis], size[axis] - result[axis])];
  result[i] = clamp(moved[i], low, high);
  return toCorners(result).map((side, at) => clamp(roundTo(side, 0.001), 0, size[at % 2]));
}

function render({ model, el }) {
  const { picture, panel, says } = frame(el, model.get("title"));
  const [width, height] = model.get("size");
  const colors = { prior: colorOf(1), object: colorOf(2) };
  const place = stage({ width, height, label: "A prior and an object on a grid of 20 pixels" });
  const prior = svg("rect", { class: "ssd-box ssd-dashed", style: { stroke: colors.prior } });
  const object = movableBox(place, {
    name: "Object",
    color: colors.object,
    get: () => model.get("box"),
    set: (box) => put(model, { box }),
    least: 1,
  });
  const way = svg("line", { class: "ssd-way" });
  const dots = [colors.prior, colors.object].map((fill) => svg("circle", { class: "ssd-handle", style: { fill } }));
  const tags = [tag("prior"), tag("object")];
  place.node.append(gridLines(place), prior, object.node, way, ...dots, ...tags);
  const change = (edit) => {
    const edited = edit(toCentre(model.get("box")));
    const [w, h] = [Math.min(edited[2], width), Math.min(edited[3], height)];
    const centre = [clamp(edited[0], w / 2, width - w / 2), clamp(edited[1], h / 2, height - h / 2), w, h];
    put(model, { box: toCorners(centre) });
  };
  picture.append(
    place.node,
    html(
      "p",
      { class: "ssd-hint" },
      "Drag the object or its corners, or drag the offsets. By keyboard: arrow keys move the object, Shift and arrow keys resize it.",
    ),
    html("p", { class: "ssd-label ssd-spaced" }, "Change the object"),
    html(
      "div",
      { class: "ssd-buttons", role: "group", "aria-label": "Change the object" },
      button("equal to the prior", () => put(model, { box: model.get("prior") })),
      button("10 px to the right", () => change(([x, y, w, h]) => [x + 10, y, w, h])),
      button("twice as wide", () => change(([x, y, w, h]) => [x, y, 2 * w, h])),
      button("half as wide", () => change(([x, y, w, h]) => [x, y, Math.max(1, w / 2), h])),
    ),
  );

  const priors = model.get("priors");
  const shapes = choice({
    label: "Prior, in pixels",
    options: priors.map(({ name }, value) => ({ text: name, value })),
    change: (i) => put(model, { prior: priors[i].prior }),
  });
  const sliders = OFFSETS.map(({ name, symbol }, i) =>
    slider({
      label: html("span", {}, html("i", {}, "g"), html("sub", {}, symbol), ` ${name}`),
      min: -10,
      max: 10,
      step: 0.1,
      format: (value) => fixed(value, 2),
      change: (value) => {
        const box = withOffset(model.get("box"), model.get("prior"), model.get("variances"), [width, height], i, value);
        put(model, { box });
        show(); // where the border stopped the object, nothing has changed, and the slider must go back
      },
    }),
  );
  const sums = OFFSETS.map(() => html("p", { class: "ssd-hint ssd-sum" }));
  panel.append(shapes.node, html("div", { class: "ssd-offsets" }, sliders.map(({ node }, i) => [node, sums[i]])));

  const show = () => {
    const [box, from, variances] = ["box", "prior", "variances"].map((key) => model.get(key));
    const [b, p] = [toCentre(box), toCentre(from)];
    const raw = encode(b, p, [1, 1]);
    const offsets = encode(b, p, variances);
    object.show();
    update(prior, boxAttributes(from));
    shapes.set(priors.findIndex((one) => one.prior.every((side, i) => side === from[i])));
    update(way, { x1: p[0], y1: p[1], x2: b[0], y2: b[1] });
    [p, b].forEach(([cx, cy], i) => update(dots[i], { cx, cy }));
    placeTag(tags[1], box, place);
    // The prior's name stands beside it, on the side that the object is not.
    const left = b[0] >= p[0];
    update(tags[0], { x: from[left ? 0 : 2], y: p[1] + 10, "text-anchor": left ? "end" : "start" });
    const px = (value) => fixed(value, Number.isInteger(roundTo(value, 0.01)) ? 0 : 1);
    OFFSETS.forEach((_, i) => {
      sliders[i].set(offsets[i]);
      const side = px(p[i < 2 ? i + 2 : i]);
      const inside = i < 2 ? `(${px(b[i])} − ${px(p[i])}) / ${side}` : `ln(${px(b[i])} / ${side})`;
      const variance = variances[i < 2 ? 0 : 1];
      sums[i].textContent = `${inside} = ${fixed(raw[i], 3)};  ÷ ${variance} = ${fixed(offsets[i], 2)}`;
    });
    says(
      `Offsets of the object from the prior: ${OFFSETS.map(({ name }, i) => `${name} ${fixed(offsets[i], 2)}`).join(", ")}. ` +
        `Without the variances: ${raw.map((value) => fixed(value, 3)).join(", ")}.`,
    );
  };
  const { watch, end } = watching(model);
  watch(["box", "prior", "variances"], show);
  return end;
}

export default { render };
