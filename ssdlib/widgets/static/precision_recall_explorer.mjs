// PrecisionRecallExplorer: the curve of a class, the point that a score threshold chooses, and the false positives.

// Precision and recall after each detection, best score first, as ssdlib.metrics.recall_precision has them; outcomes
// are "+" (true), "-" (false) and "o" (ignored). `counted` are the detections so far without the ignored ones.
function curveOf(outcomes, objects) {
  let [hits, counted] = [0, 0];
  return [...outcomes].map((sign) => {
    hits += sign === "+" ? 1 : 0;
    counted += sign === "o" ? 0 : 1;
    return { recall: hits / objects, precision: hits / Math.max(1, counted), hits, counted };
  });
}

// Best precision at that recall or any higher one.
function envelopeOf(curve) {
  const envelope = curve.map(({ precision }) => precision);
  for (let i = envelope.length - 2; i >= 0; i -= 1) envelope[i] = Math.max(envelope[i], envelope[i + 1]);
  return envelope;
}

// The envelope at the recalls 0, 0.1, ..., 1; the 1e-9 is that of ssdlib.metrics.average_precision.
function elevenPoints(curve) {
  const envelope = envelopeOf(curve);
  return Array.from({ length: 11 }, (_, k) => {
    const at = curve.findIndex(({ recall }) => recall >= k / 10 - 1e-9);
    return at < 0 ? 0 : envelope[at];
  });
}

function averagePrecision(curve, rule) {
  if (rule === "11point") return elevenPoints(curve).reduce((sum, value) => sum + value, 0) / 11;
  const envelope = envelopeOf(curve);
  return curve.reduce((sum, { recall }, i) => sum + (recall - (i ? curve[i - 1].recall : 0)) * envelope[i], 0);
}

// How many detections have at least that score; scores are whole thousandths, best first.
const countAbove = (scores, minScore) => scores.filter((score) => score >= Math.round(1000 * minScore)).length;

// Axes from 0 to 1 with room for the curve of a class.
function curvePlot() {
  const [width, height, left, right, top, bottom] = [420, 336, 46, 408, 32, 288];
  const x = (recall) => left + recall * (right - left);
  const y = (precision) => bottom - precision * (bottom - top);
  const place = stage({ width, height, label: "Precision-recall curve" });
  const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => [
    svg("line", { class: "ssd-pr-grid", x1: x(value), x2: x(value), y1: top, y2: bottom }),
    svg("line", { class: "ssd-pr-grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { x: x(value), y: bottom + 20, "text-anchor": "middle" }, value.toFixed(1)),
    svg("text", { x: left - 8, y: y(value) + 5, "text-anchor": "end" }, value.toFixed(1)),
  ]);
  const layers = ["area", "rest", "line", "guides", "marks"].map(() => svg("g", {}));
  const grip = svg(
    "g",
    { class: "ssd-pr-grip", tabindex: "0", role: "slider", "aria-label": "Point on the curve", "aria-valuemin": 0 },
    svg("circle", { class: "ssd-target" }),
    svg("circle", { class: "ssd-pr-here" }),
  );
  place.node.append(
    ...ticks.flat(),
    ...layers.slice(0, -1),
    grip,
    layers.at(-1),
    svg("text", { x: (left + right) / 2, y: bottom + 42, "text-anchor": "middle" }, "recall"),
    svg("text", { x: 4, y: 14 }, "precision"),
  );
  return { node: place.node, at: place.at, layers, grip, x, y, left, bottom };
}

// The point is dragged along the curve, or walks along it by the arrow keys: the threshold becomes the score there.
function walkCurve(plot, { now, change }) {
  const go = (rank) => {
    const { scores } = now();
    change({ min_score: scores[clamp(rank, 0, scores.length - 1)] / 1000 });
  };
  const nearest = (event) => {
    const [x, y] = plot.at(event);
    const far = now().curve.map((p) => (p.counted ? Math.hypot(plot.x(p.recall) - x, plot.y(p.precision) - y) : Infinity));
    return far.indexOf(Math.min(...far));
  };
  plot.grip.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    plot.grip.focus({ preventScroll: true });
    plot.grip.setPointerCapture(event.pointerId);
  });
  plot.grip.addEventListener("pointermove", (event) => plot.grip.hasPointerCapture(event.pointerId) && go(nearest(event)));
  onArrows(plot.grip, (dx, dy) => {
    const { count, scores } = now();
    const along = dx || -dy;
    // Several detections may have the same score: one step passes all of them.
    if (along > 0) go(count - 1 + along);
    else go(scores.indexOf(scores[Math.max(0, count - 1)]) + along);
  });
}

// What is chosen, and what follows from it.
function prScene(model) {
  const classes = model.get("classes");
  const key = () => String(model.get("iou_threshold"));
  const listed = () => {
    const least = Math.round(1000 * model.get("min_score"));
    return model
      .get("errors")
      .filter(({ label, score, why }) => label === model.get("label") && key() in why && score >= least);
  };
  // Another class or threshold may have fewer false positives: the number stays among them.
  const change = (values) => {
    put(model, values);
    const last = Math.max(0, listed().length - 1);
    if (model.get("error") > last) put(model, { error: last });
  };
  const now = () => {
    const own = model.get("label");
    const rule = model.get("ap");
    const { scores, objects, outcomes } = model.get("curves")[own];
    const curve = curveOf(outcomes[key()], objects);
    const count = countAbove(scores, model.get("min_score"));
    const here = count ? curve[count - 1] : { recall: 0, precision: 0, hits: 0, counted: 0 };
    const found = listed();
    const shown = found[clamp(model.get("error"), 0, found.length - 1)];
    const averages = model.get("averages")[key()][rule];
    return { own, name: classes[own - 1], minScore: model.get("min_score"), rule, objects, scores, curve, count, here, found, shown, averages };
  };
  return { classes, key, change, now };
}

// The area under the envelope, or bars at the eleven recalls.
function drawRule(layer, plot, { curve, rule }) {
  if (rule === "area") {
    let d = `M${plot.x(0)},${plot.y(0)}`;
    for (const [i, height] of envelopeOf(curve).entries()) d += `V${plot.y(height)}H${plot.x(curve[i].recall)}`;
    layer.replaceChildren(svg("path", { class: "ssd-pr-area", d: `${d}V${plot.y(0)}Z` }));
    return;
  }
  layer.replaceChildren(
    ...elevenPoints(curve).flatMap((height, k) => [
      svg("line", { class: "ssd-pr-bar", x1: plot.x(k / 10), x2: plot.x(k / 10), y1: plot.y(0), y2: plot.y(height) }),
      svg("path", { class: "ssd-pr-point", d: `M${plot.x(k / 10) - 5},${plot.y(height)}h10` }),
    ]),
  );
}

// The curve: solid down to the threshold, with the point there, and a cross for each false positive.
function drawCurve(plot, now, open) {
  const { name, minScore, curve, count, here, found, shown } = now;
  const [area, rest, line, guides, marks] = plot.layers;
  drawRule(area, plot, now);
  const path = (some) =>
    some
      .filter(({ counted }) => counted > 0)
      .map((p, i) => `${i ? "L" : "M"}${plot.x(p.recall)},${plot.y(p.precision)}`)
      .join("");
  rest.replaceChildren(svg("path", { class: "ssd-pr-rest", d: path(curve) }));
  line.replaceChildren(svg("path", { class: "ssd-pr-line", d: path(curve.slice(0, count)) }));
  const at = { cx: plot.x(here.recall), cy: plot.y(here.precision) };
  const any = here.counted > 0;
  guides.replaceChildren();
  if (any) guides.append(svg("path", { class: "ssd-pr-guide", d: `M${plot.left},${at.cy}H${at.cx}V${plot.bottom}` }));
  marks.replaceChildren(
    ...found.map((one, i) => {
      const [cx, cy] = [plot.x(curve[one.rank].recall), plot.y(curve[one.rank].precision)];
      const cross = svg("path", {
        class: one === shown ? "ssd-pr-false ssd-pr-shown" : "ssd-pr-false",
        d: `M${cx - 5},${cy - 5}l10,10m0,-10l-10,10`,
      });
      const hit = svg("circle", { class: "ssd-pr-hit", cx, cy, r: 9 });
      return svg("g", { class: "ssd-pr-cross", "data-link": `e${i}`, click: () => open(i) }, hit, cross);
    }),
  );
  plot.grip.style.display = any ? "" : "none";
  for (const circle of plot.grip.children) update(circle, at);
  update(plot.grip, {
    "aria-valuemax": curve.length,
    "aria-valuenow": count,
    "aria-valuetext": `score ${fixed(minScore)}: recall ${fixed(here.recall)}, precision ${fixed(here.precision)}`,
  });
  update(plot.node, {
    "aria-label":
      `Precision-recall curve of ${name}. At a score of ${fixed(minScore)}: ` +
      `recall ${fixed(here.recall)}, precision ${any ? fixed(here.precision) : "no detection"}.`,
  });
}

// Threshold, class, least overlap, and the rule of the average precision.
function prControls(model, { classes, change }) {
  const labels = Object.keys(model.get("curves")).map(Number);
  const score = slider({
    label: "score threshold (min_score)",
    min: 0.01,
    max: 0.99,
    step: 0.01,
    format: (value) => value.toFixed(2),
    change: (value) => change({ min_score: value }),
  });
  const label = select({
    label: "Class",
    options: labels.map((value) => ({ value, text: classes[value - 1] })),
    change: (value) => change({ label: value, error: 0 }),
  });
  const threshold = choice({
    label: "Found from an IoU of",
    options: [0.5, 0.75].map((value) => ({ value, text: String(value) })),
    change: (value) => change({ iou_threshold: value, error: 0 }),
  });
  const rule = choice({
    label: "One number of the curve",
    options: [
      { value: "area", text: "area (VOC 2010)" },
      { value: "11point", text: "11 points (VOC 2007)" },
    ],
    change: (value) => put(model, { ap: value }),
  });
  const show = () => {
    label.set(model.get("label"));
    threshold.set(model.get("iou_threshold"));
    rule.set(model.get("ap"));
    score.set(model.get("min_score"));
  };
  return { score: score.node, nodes: [html("div", { class: "ssd-pair" }, label.node, threshold.node), rule.node], show };
}

// A part of the sheet of photographs with its box (in the colour of the class) and the objects (dashed).
function shots(model) {
  const [tile, columns, sheet] = ["tile", "columns", "sheet"].map((name) => model.get(name));
  const rows = Math.max(1, Math.ceil(model.get("errors").length / columns));
  return (error, attributes) => {
    const part = `${(error.tile % columns) * tile} ${Math.floor(error.tile / columns) * tile} ${tile} ${tile}`;
    return svg(
      "svg",
      { class: "ssd-pr-shot", viewBox: `0 0 ${tile} ${tile}`, ...attributes },
      svg(
        "svg",
        { width: tile, height: tile, viewBox: part },
        svg("image", { href: sheet, width: columns * tile, height: rows * tile }),
      ),
      error.objects.map((corners) => [
        boxShape(corners, { class: "ssd-box ssd-pr-rim" }),
        boxShape(corners, { class: "ssd-box ssd-pr-object" }),
      ]),
      boxShape(error.box, { class: "ssd-box ssd-pr-rim" }),
      boxShape(error.box, { class: "ssd-box ssd-pr-box", style: { stroke: colorOf(error.label) } }),
    );
  };
}

// Why a detection is false: in two words, and in a sentence.
function reasonOf({ why, overlap, label, nearest }, classes, key) {
  const name = classes[label - 1];
  const [other, near] = nearest ? [classes[nearest[0] - 1], fixed(nearest[1])] : ["", fixed(0)];
  return {
    duplicate: ["second box", `A better detection has already found the ${name} that it overlaps by ${fixed(overlap)}.`],
    "badly placed": ["wrong place", `The nearest ${name} overlaps it by ${fixed(overlap)} only; ${key} would be enough.`],
    "wrong class": ["wrong class", `The object is of the class ${other}. It overlaps it by ${near}.`],
    background: ["background", nearest ? `It overlaps no ${name}, and a ${other} by ${near} only.` : "No object is near."],
  }[why[key]];
}

// The false positives as small pictures to choose from, and one of them large with its reason.
function falsePositives(model, { classes, key }) {
  const shot = shots(model);
  const heading = html("p", { class: "ssd-label" });
  const strip = html("div", { class: "ssd-pr-strip", role: "group", "aria-label": "False positives, best score first" });
  const large = html("div", { class: "ssd-pr-large" });
  const small = (one, i, { found, shown }) =>
    html(
      "button",
      {
        type: "button",
        class: "ssd-pr-choose",
        "aria-pressed": String(one === shown),
        "data-link": `e${i}`,
        "aria-label": `False positive ${i + 1} of ${found.length}: ${reasonOf(one, classes, key())[0]}, score ${fixed(one.score / 1000)}`,
        click: () => put(model, { error: i }),
      },
      shot(one, { "aria-hidden": "true" }),
      html("span", {}, fixed(one.score / 1000)),
    );
  const explained = (one, name) => {
    const [short, long] = reasonOf(one, classes, key());
    const score = `${name}, score ${fixed(one.score / 1000, 3)}, ${one.image}. Solid: the detection. Dashed: true objects.`;
    return [
      shot(one, { role: "img", "aria-label": `Part of ${one.image} with the detection, and the objects dashed` }),
      html(
        "div",
        {},
        html("p", { class: "ssd-big" }, html("strong", {}, short)),
        html("p", {}, long),
        html("p", { class: "ssd-hint" }, score),
      ),
    ];
  };
  const show = (now) => {
    const { name, minScore, here, found, shown } = now;
    const wrong = here.counted - here.hits;
    heading.textContent =
      `False positives with a score of at least ${fixed(minScore)}: ${wrong}` +
      (wrong > found.length ? `, the first ${found.length} shown` : "");
    const held = document.activeElement?.closest?.(".ssd-pr-strip") === strip;
    const buttons = found.map((one, i) => small(one, i, now));
    strip.replaceChildren(...buttons);
    if (held) buttons[found.indexOf(shown)]?.focus(); // the buttons are new: the keyboard stays where it was
    const none = [html("p", { class: "ssd-hint" }, "None at this threshold. Move it to the left.")];
    large.replaceChildren(...(shown ? explained(shown, name) : none));
  };
  return { node: html("div", { class: "ssd-pr-errors" }, heading, strip, large), show };
}

function render({ model, el }) {
  const { root, picture, panel, says, watch, end } = frame(el, model);
  const scene = prScene(model);
  const plot = curvePlot();
  const controls = prControls(model, scene);
  const legend = html("p", { class: "ssd-hint" });
  const numbers = readout([
    { text: "recall" },
    { text: "precision" },
    { text: "AP, whole list" },
    { text: "AP, list cut here" },
    { text: "mAP of all classes" },
  ]);
  const errors = falsePositives(model, scene);
  walkCurve(plot, scene);
  root.classList.add("ssd-even");
  picture.append(plot.node, controls.score, legend, numbers.node);
  panel.append(...controls.nodes, errors.node);

  watch(["label", "min_score", "iou_threshold", "ap", "error"], () => {
    const now = scene.now();
    const { own, minScore, rule, objects, curve, count, here, averages } = now;
    controls.show();
    drawCurve(plot, now, (error) => put(model, { error }));
    errors.show(now);
    legend.textContent =
      "Drag the point. Solid: down to the threshold. Crosses: false positives; click one to see it. " +
      (rule === "area"
        ? "AP: the shaded area, below the best precision from there on."
        : "AP: the mean of the bars, the best precision from there on.");
    numbers.set([
      `${here.hits} of ${objects} objects = ${fixed(here.recall)}`,
      here.counted ? `${here.hits} of ${here.counted} detections = ${fixed(here.precision)}` : "no detection",
      fixed(averages[own], 3),
      fixed(averagePrecision(curve.slice(0, count), rule), 3),
      fixed(averages.mean, 3),
    ]);
    says(
      here.counted
        ? `At a score of ${fixed(minScore)} the detector finds ${here.hits} of ${objects} objects ` +
            `(recall ${fixed(here.recall)}); ${here.hits} of its ${here.counted} detections are right (precision ${fixed(here.precision)}).`
        : `No detection has a score of ${fixed(minScore)}: recall 0, and no precision.`,
    );
  });
  return end;
}

export default { render };
