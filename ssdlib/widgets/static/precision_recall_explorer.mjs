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
  update(place.node, { role: "img" });
  place.node.append(
    ...ticks.flat(),
    ...layers,
    svg("text", { x: (left + right) / 2, y: bottom + 42, "text-anchor": "middle" }, "recall"),
    svg("text", { x: 4, y: 14 }, "precision"),
  );
  return { node: place.node, layers, x, y, left, bottom };
}

function render({ model, el }) {
  const { picture, panel, says } = frame(el, model.get("title"));
  const classes = model.get("classes");
  const labels = Object.keys(model.get("curves")).map(Number);
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

  const plot = curvePlot();
  const score = slider({
    label: "score threshold (min_score)",
    min: 0.01,
    max: 0.99,
    step: 0.01,
    format: (value) => value.toFixed(2),
    change: (value) => change({ min_score: value }),
  });
  const legend = html("p", { class: "ssd-hint" });
  picture.append(plot.node, score.node, legend);

  const label = select({
    label: "Class",
    options: labels.map((value) => ({ value, text: classes[value - 1] })),
    change: (value) => change({ label: value, error: 0 }),
  });
  const threshold = choice({
    label: "An object is found from an IoU of",
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
  const numbers = readout([
    { text: "recall" },
    { text: "precision" },
    { text: "AP, whole list" },
    { text: "AP, list cut here" },
    { text: "mAP of all classes" },
  ]);
  panel.append(label.node, threshold.node, rule.node, numbers.node);

  const tile = model.get("tile");
  const columns = model.get("columns");
  const rows = Math.max(1, Math.ceil(model.get("errors").length / columns));
  const sheet = model.get("sheet");
  // A picture of the sheet with its box (the class's colour) and the objects (dashed).
  const shot = (error, attributes) =>
    svg(
      "svg",
      { class: "ssd-pr-shot", viewBox: `0 0 ${tile} ${tile}`, ...attributes },
      svg(
        "svg",
        { width: tile, height: tile, viewBox: `${(error.tile % columns) * tile} ${Math.floor(error.tile / columns) * tile} ${tile} ${tile}` },
        svg("image", { href: sheet, width: columns * tile, height: rows * tile }),
      ),
      error.objects.map((corners) => [
        boxShape(corners, { class: "ssd-box ssd-pr-rim" }),
        boxShape(corners, { class: "ssd-box ssd-pr-object" }),
      ]),
      boxShape(error.box, { class: "ssd-box ssd-pr-rim" }),
      boxShape(error.box, { class: "ssd-box ssd-pr-box", style: { stroke: colorOf(error.label) } }),
    );
  const heading = html("p", { class: "ssd-label" });
  const strip = html("div", { class: "ssd-pr-strip", role: "group", "aria-label": "False positives, best score first" });
  const large = html("div", { class: "ssd-pr-large" });
  picture.parentNode.after(html("div", { class: "ssd-pr-errors" }, heading, strip, large));

  const reason = ({ why, overlap, label: own, nearest }) => {
    const name = classes[own - 1];
    const other = nearest && classes[nearest[0] - 1];
    return {
      duplicate: [
        "second box",
        `A better detection has already found the ${name} that it overlaps by ${fixed(overlap)}.`,
      ],
      "badly placed": [
        "wrong place",
        `The nearest ${name} overlaps it by ${fixed(overlap)} only; ${key()} would be enough.`,
      ],
      "wrong class": ["wrong class", `The object is of the class ${other}. It overlaps it by ${fixed(nearest?.[1] ?? 0)}.`],
      background: [
        "background",
        nearest ? `It overlaps no ${name}, and a ${other} by ${fixed(nearest[1])} only.` : "No object is near.",
      ],
    }[why[key()]];
  };

  const { watch, end } = watching(model);
  watch(["label", "min_score", "iou_threshold", "ap", "error"], () => {
    const own = model.get("label");
    const { scores, objects, outcomes } = model.get("curves")[own];
    const average = model.get("averages")[key()][model.get("ap")];
    const curve = curveOf(outcomes[key()], objects);
    const count = countAbove(scores, model.get("min_score"));
    const here = count ? curve[count - 1] : { recall: 0, precision: 0, hits: 0, counted: 0 };
    label.set(own);
    threshold.set(model.get("iou_threshold"));
    rule.set(model.get("ap"));
    score.set(model.get("min_score"));

    const [area, rest, line, guides, marks] = plot.layers;
    const points = curve.filter(({ counted }) => counted > 0);
    const path = (some) => some.map((p, i) => `${i ? "L" : "M"}${plot.x(p.recall)},${plot.y(p.precision)}`).join("");
    if (model.get("ap") === "area") {
      let d = `M${plot.x(0)},${plot.y(0)}`;
      envelopeOf(curve).forEach((height, i) => {
        d += `V${plot.y(height)}H${plot.x(curve[i].recall)}`;
      });
      area.replaceChildren(svg("path", { class: "ssd-pr-area", d: `${d}V${plot.y(0)}Z` }));
    } else {
      area.replaceChildren(
        ...elevenPoints(curve).map((height, k) => [
          svg("line", { class: "ssd-pr-bar", x1: plot.x(k / 10), x2: plot.x(k / 10), y1: plot.y(0), y2: plot.y(height) }),
          svg("path", { class: "ssd-pr-point", d: `M${plot.x(k / 10) - 5},${plot.y(height)}h10` }),
        ]).flat(),
      );
    }
    rest.replaceChildren(svg("path", { class: "ssd-pr-rest", d: path(points) }));
    const drawn = curve.slice(0, count).filter(({ counted }) => counted > 0);
    line.replaceChildren(svg("path", { class: "ssd-pr-line", d: path(drawn) }));
    const at = { cx: plot.x(here.recall), cy: plot.y(here.precision) };
    guides.replaceChildren(
      ...(here.counted
        ? [svg("path", { class: "ssd-pr-guide", d: `M${plot.left},${at.cy}H${at.cx}V${plot.bottom}` })]
        : []),
    );
    const found = listed();
    const shown = found[clamp(model.get("error"), 0, found.length - 1)];
    marks.replaceChildren(
      ...found.map((one) => {
        const [cx, cy] = [plot.x(curve[one.rank].recall), plot.y(curve[one.rank].precision)];
        return svg("path", {
          class: one === shown ? "ssd-pr-false ssd-pr-shown" : "ssd-pr-false",
          d: `M${cx - 5},${cy - 5}l10,10m0,-10l-10,10`,
        });
      }),
      ...(here.counted ? [svg("circle", { class: "ssd-pr-here", ...at })] : []),
    );

    legend.replaceChildren(
      "Solid: the list down to the threshold. Dashed: the rest. Crosses: the false positives below. " +
        (model.get("ap") === "area"
          ? "The shaded area, below the best precision at that recall or beyond, is the AP."
          : "Bars: the best precision at that recall or beyond; their mean is the AP."),
    );
    const exact = here.counted ? fixed(here.precision) : "no detection";
    update(plot.node, {
      "aria-label":
        `Precision-recall curve of ${classes[own - 1]}. At a score of ${fixed(model.get("min_score"))}: ` +
        `recall ${fixed(here.recall)}, precision ${exact}.`,
    });
    numbers.set([
      `${here.hits} of ${objects} objects = ${fixed(here.recall)}`,
      here.counted ? `${here.hits} of ${here.counted} detections = ${fixed(here.precision)}` : "no detection",
      fixed(average[own], 3),
      fixed(averagePrecision(curve.slice(0, count), model.get("ap")), 3),
      fixed(average.mean, 3),
    ]);

    const wrong = here.counted - here.hits;
    heading.replaceChildren(
      `False positives with a score of at least ${fixed(model.get("min_score"))}: ${wrong}` +
        (wrong > found.length ? `, the first ${found.length} shown` : ""),
    );
    const held = document.activeElement?.closest?.(".ssd-pr-strip") === strip;
    strip.replaceChildren(
      ...found.map((one, i) =>
        html(
          "button",
          {
            type: "button",
            class: "ssd-pr-choose",
            "aria-pressed": String(one === shown),
            "aria-label": `False positive ${i + 1} of ${found.length}: ${reason(one)[0]}, score ${fixed(one.score / 1000)}`,
            click: () => put(model, { error: i }),
          },
          shot(one, { "aria-hidden": "true" }),
          html("span", {}, fixed(one.score / 1000)),
        ),
      ),
    );
    if (held) strip.children[found.indexOf(shown)]?.focus(); // the buttons are new: the keyboard stays where it was
    if (shown) {
      const [short, long] = reason(shown);
      large.replaceChildren(
        shot(shown, { role: "img", "aria-label": `Part of ${shown.image} with the detection, and the objects dashed` }),
        html(
          "div",
          {},
          html("p", { class: "ssd-big" }, html("strong", {}, short)),
          html("p", {}, long),
          html("p", { class: "ssd-hint" }, `${classes[own - 1]}, score ${fixed(shown.score / 1000, 3)}, ${shown.image}. Solid: the detection. Dashed: true objects.`),
        ),
      );
    } else {
      large.replaceChildren(html("p", { class: "ssd-hint" }, "None at this threshold. Move it to the left."));
    }
    says(
      here.counted
        ? `At a score of ${fixed(model.get("min_score"))} the detector finds ${here.hits} of ${objects} objects ` +
            `(recall ${fixed(here.recall)}); ${here.hits} of its ${here.counted} detections are right (precision ${fixed(here.precision)}).`
        : `No detection has a score of ${fixed(model.get("min_score"))}: recall 0, and no precision.`,
    );
  });
  return end;
}

export default { render };
