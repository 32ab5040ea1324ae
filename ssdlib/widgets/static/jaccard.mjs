// JaccardPlayground: two boxes, what they share, what they cover, and the ratio of the two.

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const [width, height] = model.get("size");
  const names = ["A", "B"];
  const keys = ["box_a", "box_b"];
  const colors = [colorOf(1), colorOf(4)];
  const place = stage({ width, height, label: "Two boxes on a grid of 20 pixels" });
  const union = keys.map(() => svg("rect", { class: "ssd-area-union" }));
  const shared = svg("rect", { class: "ssd-area-shared" });
  const boxes = keys.map((key, i) =>
    movableBox(place, {
      name: `Box ${names[i]}`,
      color: colors[i],
      get: () => model.get(key),
      set: (box) => put(model, { [key]: box }),
      step: 1,
    }),
  );
  const tags = names.map((name) => tag(name));
  place.node.append(gridLines(place), ...union, shared, ...boxes.map(({ node }) => node), ...tags);
  picture.append(
    place.node,
    html("p", { class: "ssd-hint" }, "Drag a box or its corners. By keyboard: arrow keys move, Shift and arrow keys resize."),
  );

  const presets = model.get("presets");
  const preset = html(
    "div",
    { class: "ssd-buttons", role: "group", "aria-label": "Put the boxes so that they are" },
    presets.map(({ name, box_a, box_b }) => button(name, () => put(model, { box_a, box_b }))),
  );
  const areas = readout([
    { text: "A", color: colors[0] },
    { text: "B", color: colors[1] },
    { text: "intersection" },
    { text: "union" },
  ]);
  const bar = html("div", { class: "ssd-bar", "aria-hidden": "true" }, html("i", {}), html("b", {}));
  bar.lastChild.style.left = "50%"; // the threshold of matching
  const ratio = html("p", { class: "ssd-big" });
  panel.append(
    html("p", { class: "ssd-label" }, "Put the boxes so that they are"),
    preset,
    areas.node,
    ratio,
    bar,
    html("p", { class: "ssd-hint" }, "The mark on the bar is 0.5, the threshold of matching."),
  );

  watch(keys, () => {
    const [a, b] = keys.map((key) => model.get(key));
    for (const { show } of boxes) show();
    [a, b].forEach((box, i) => {
      update(union[i], boxAttributes(box));
      placeTag(tags[i], box, place);
    });
    update(shared, boxAttributes(intersection(a, b)));
    const [w, h] = toCentre(intersection(a, b)).slice(2).map((side) => Math.max(0, side));
    const common = area(intersection(a, b));
    const both = area(a) + area(b) - common;
    const value = iou(a, b);
    const sides = (box) => toCentre(box).slice(2).map((side) => fixed(side, 0)).join(" × ");
    areas.set([
      `${sides(a)} = ${thousands(Math.round(area(a)))} px²`,
      `${sides(b)} = ${thousands(Math.round(area(b)))} px²`,
      common > 0 ? `${fixed(w, 0)} × ${fixed(h, 0)} = ${thousands(Math.round(common))} px²` : "0 px²",
      `${thousands(Math.round(both))} px²`,
    ]);
    ratio.replaceChildren("IoU = ", html("strong", {}, fixed(value, 3)));
    bar.firstChild.style.width = `${100 * value}%`;
    bar.classList.toggle("ssd-above", value >= 0.5);
    says(
      `The boxes share ${thousands(Math.round(common))} of ${thousands(Math.round(both))} square pixels: ` +
        `IoU ${fixed(value, 3)}, ${value >= 0.5 ? "a match" : "no match"} at a threshold of 0.5.`,
    );
  });
  return end;
}

export default { render };
