// NmsStepper: the candidates of a scene, and what each round of NMS keeps and suppresses.

// The rounds of NMS as ssdlib.nms.nms has them, group after group (a group is a list of labels that meet each other):
// [{ best, lost: [{ index, overlap }], rest: [{ index, overlap }] }], where `rest` waits for the next rounds.
function nmsRounds({ boxes, scores, labels }, groups, minScore, maxOverlap) {
  const rounds = [];
  for (const group of groups) {
    let waiting = scores.map((_, i) => i).filter((i) => scores[i] >= minScore && group.includes(labels[i]));
    waiting.sort((i, j) => scores[j] - scores[i]); // a stable sort: of equal scores the earlier box comes first
    while (waiting.length) {
      const best = waiting[0];
      const others = waiting.slice(1).map((index) => ({ index, overlap: iou(boxes[best], boxes[index]) }));
      const rest = others.filter(({ overlap }) => overlap <= maxOverlap);
      rounds.push({ best, lost: others.filter(({ overlap }) => overlap > maxOverlap), rest });
      waiting = rest.map(({ index }) => index);
    }
  }
  return rounds;
}

// Labels that meet each other in NMS: one class, or each class by itself, or (the classic mistake) all of them.
function nmsGroups(labels, label, together) {
  if (label) return [[label]];
  const every = [...new Set(labels)].sort((a, b) => a - b);
  return together ? [every] : every.map((one) => [one]);
}

// A plot of the waiting candidates: overlap with the current best to the right, score upwards.
function overlapPlot() {
  const [left, right, top, bottom] = [44, 306, 12, 132];
  const x = (overlap) => left + overlap * (right - left);
  const y = (score) => bottom - score * (bottom - top);
  const zone = svg("rect", { class: "ssd-nms-zone", y: top, height: bottom - top });
  const line = svg("line", { class: "ssd-nms-limit", y1: top, y2: bottom });
  const dots = svg("g", {});
  const ticks = [0, 0.5, 1].map((value) => [
    svg("line", { class: "ssd-nms-axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }),
    svg("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, String(value)),
    svg("line", { class: "ssd-nms-axis", x1: left - 4, x2: left, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, String(value)),
  ]);
  const node = svg(
    "svg",
    { class: "ssd-stage ssd-nms-plot", viewBox: "0 0 320 168", role: "img" },
    zone,
    svg("path", { class: "ssd-nms-axis", d: `M${left},${top}V${bottom}H${right}` }),
    ticks,
    line,
    dots,
    svg("text", { x: (left + right) / 2, y: bottom + 32, "text-anchor": "middle" }, "IoU with the current best"),
    svg("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(12,${(top + bottom) / 2}) rotate(-90)` }, "score"),
  );
  const limit = (maxOverlap) => {
    update(line, { x1: x(maxOverlap), x2: x(maxOverlap) });
    update(zone, { x: x(maxOverlap), width: right - x(maxOverlap) });
  };
  return { node, dots, x, y, limit };
}

// The candidates, the rules, and the rounds that follow from them.
function nmsScene(model) {
  const classes = model.get("classes");
  const data = () => ({ boxes: model.get("boxes"), scores: model.get("scores"), labels: model.get("labels") });
  const rounds = () => {
    const { labels, ...rest } = data();
    const groups = nmsGroups(labels, model.get("label"), model.get("together"));
    return nmsRounds({ ...rest, labels }, groups, model.get("min_score"), model.get("max_overlap"));
  };
  // A changed rule may have fewer rounds: the step stays inside them.
  const change = (values) => {
    put(model, values);
    const last = rounds().length + 1;
    if (model.get("step") > last) put(model, { step: last });
  };
  const now = () => {
    const all = rounds();
    const last = all.length + 1;
    const step = clamp(model.get("step"), 0, last);
    const round = step >= 1 && step < last ? all[step - 1] : null;
    const measured = new Map(round ? [...round.lost, ...round.rest].map((one) => [one.index, one.overlap]) : []);
    return { ...data(), all, last, step, round, measured, state: nmsStates(all, step), chosen: model.get("candidate") };
  };
  return { classes, nameOf: (label) => classes[label - 1], change, now };
}

// What has become of each candidate by a step: { kind, round } and, of a suppressed one, by which and by what overlap.
function nmsStates(all, step) {
  const state = new Map();
  for (const [i, { best, lost }] of all.entries()) {
    const round = i + 1;
    const over = round < step;
    state.set(best, { kind: round === step ? "best" : over ? "kept" : "waiting", round });
    for (const { index, overlap } of lost) {
      state.set(index, { kind: round === step ? "lost" : over ? "gone" : "waiting", round, by: best, value: overlap });
    }
  }
  return state;
}

// The image with the candidates, each drawn as what it is at this step.
function nmsStage(model, nameOf) {
  const [width, height] = model.get("size");
  const place = stage({ width, height, label: "The scene with its candidates", image: model.get("image") });
  const layer = svg("g", {});
  place.node.append(layer);
  const depth = ["gone", "waiting", "kept", "lost", "best"]; // later ones are drawn over earlier ones
  // Names of the pointed out, of the current best or, at the end, of all kept; of two in one place the better one.
  const drawNames = ({ boxes, scores, labels, state, chosen, step, last }) => {
    const wanted = step === last ? "kept" : "best";
    const named = [...state.keys()]
      .sort((a, b) => scores[b] - scores[a])
      .filter((index) => index !== chosen && state.get(index).kind === wanted);
    if (state.has(chosen)) named.unshift(chosen);
    const unit = width / (place.node.clientWidth || 400);
    const taken = [];
    for (const index of named) {
      const words = `${nameOf(labels[index])} ${scores[index].toFixed(2)}`;
      const [x, y] = boxes[index];
      if (taken.some((other) => Math.abs(other.x - x) < 8 * words.length * unit && Math.abs(other.y - y) < 15 * unit)) continue;
      taken.push({ x, y });
      const text = tag(words);
      placeTag(text, boxes[index], place);
      layer.append(text);
    }
  };
  const show = (now) => {
    const { boxes, labels, state, chosen } = now;
    layer.replaceChildren();
    for (const index of [...state.keys()].sort((a, b) => depth.indexOf(state.get(a).kind) - depth.indexOf(state.get(b).kind))) {
      const { kind } = state.get(index);
      if (kind === "gone" && index !== chosen) continue;
      const look = index === chosen ? `ssd-nms-${kind} ssd-nms-chosen` : `ssd-nms-${kind}`;
      layer.append(
        boxShape(boxes[index], { class: `ssd-box ssd-nms-rim ${look}` }),
        boxShape(boxes[index], { class: `ssd-box ${look}`, style: { stroke: colorOf(labels[index]) } }),
      );
    }
    drawNames(now);
  };
  return { node: place.node, show };
}

const nmsLegend = () =>
  html(
    "p",
    { class: "ssd-nms-legend" },
    [
      ["ssd-nms-best", "current best"],
      ["ssd-nms-lost", "suppressed by it"],
      ["ssd-nms-waiting", "waiting"],
      ["ssd-nms-kept", "kept before"],
    ].map(([kind, text]) => html("span", {}, html("i", { class: kind, "aria-hidden": "true" }), text)),
  );

// Class, the classic mistake, and the two thresholds.
function nmsControls(model, { classes, change }) {
  const label = select({
    label: "Candidates of",
    options: [
      { value: 0, text: "all classes, one after the other" },
      ...classes.map((text, i) => ({ value: i + 1, text })).filter(({ value }) => model.get("labels").includes(value)),
    ],
    change: (value) => change({ label: value, step: 0, candidate: -1 }),
  });
  const together = checks({
    label: "The classic mistake",
    options: [{ value: true, text: "all classes in one NMS" }],
    change: (values) => change({ together: values.length > 0, step: 0 }),
  });
  const score = slider({
    label: "lowest score (min_score)",
    min: 0.05,
    max: 0.95,
    step: 0.01,
    format: (value) => value.toFixed(2),
    change: (value) => change({ min_score: value }),
  });
  const overlap = slider({
    label: "allowed IoU (max_overlap)",
    min: 0,
    max: 1,
    step: 0.01,
    format: (value) => value.toFixed(2),
    change: (value) => change({ max_overlap: value }),
  });
  const show = () => {
    label.set(model.get("label"));
    together.set(model.get("together") ? [true] : []);
    together.node.hidden = model.get("label") !== 0;
    score.set(model.get("min_score"));
    overlap.set(model.get("max_overlap"));
  };
  return { nodes: [label.node, together.node, score.node, overlap.node], show };
}

const DOTS = { best: "M-6,-6H6V6H-6Z", lost: "M-4,-4L4,4M-4,4L4,-4", waiting: "M-3.5,0a3.5,3.5 0 1 0 7,0a3.5,3.5 0 1 0 -7,0" };

// The candidates of this round in the plot.
function showDots(plot, { scores, round, measured, state, chosen }, maxOverlap) {
  plot.limit(maxOverlap);
  plot.dots.replaceChildren(
    ...(round ? [...round.rest, ...round.lost, { index: round.best, overlap: 1 }] : []).map(({ index, overlap }) => {
      const { kind } = state.get(index);
      return svg("path", {
        class: `ssd-nms-dot ssd-nms-dot-${kind}${index === chosen ? " ssd-nms-chosen" : ""}`,
        d: DOTS[kind],
        transform: `translate(${plot.x(overlap)},${plot.y(scores[index])})`,
      });
    }),
  );
  update(plot.node, {
    "aria-label": round
      ? `Overlap with the current best: ${round.lost.length} of ${measured.size} waiting candidates are above ${fixed(maxOverlap)}`
      : "Overlap with the current best: no round is shown",
  });
}

const FATES = {
  best: ({ round }) => `kept, round ${round}`,
  kept: ({ round }) => `kept, round ${round}`,
  lost: ({ by }) => `suppressed by ${by}`,
  gone: ({ by }) => `suppressed by ${by}`,
  waiting: () => "waiting",
};

// All candidates, best score first; by keyboard, arrow keys choose one.
function nmsRows(model, nameOf) {
  const rows = table({ caption: "Candidates, best score first", head: ["no.", "class", "score", "IoU", "state"] });
  rows.node.classList.add("ssd-nms-table");
  let order = [];
  onArrows(rows.node, (dx, dy) => {
    if (!order.length) return;
    const at = order.indexOf(model.get("candidate"));
    put(model, { candidate: order[at < 0 ? 0 : clamp(at + (dx || dy), 0, order.length - 1)] });
  });
  const rowOf = (index, { scores, labels, state, measured, chosen }) => {
    const found = state.get(index);
    const value = found.kind === "lost" || found.kind === "gone" ? found.value : measured.get(index);
    return {
      cells: [
        String(index),
        html("span", {}, swatch(colorOf(labels[index])), nameOf(labels[index])),
        scores[index].toFixed(3),
        value === undefined ? "" : fixed(value),
        FATES[found.kind](found),
      ],
      current: index === chosen || (chosen < 0 && found.kind === "best"),
      click: () => put(model, { candidate: index === chosen ? -1 : index }),
    };
  };
  const show = (now) => {
    const { scores, labels, state, chosen, round } = now;
    order = [...state.keys()].sort((a, b) => labels[a] - labels[b] || scores[b] - scores[a] || a - b);
    rows.set(order.map((index) => rowOf(index, now)));
    const row = order.indexOf(chosen >= 0 ? chosen : round ? round.best : -1);
    const line = /** @type {HTMLElement} */ (rows.node.querySelectorAll("tbody tr")[row]);
    if (line) rows.node.scrollTop = line.offsetTop - 90; // inside the table only: the page stays where it is
  };
  return { node: rows.node, show };
}

function nmsSentence({ all, last, step, round, scores, labels, state }, nameOf, minScore, maxOverlap) {
  const count = state.size;
  if (!count) return `No candidate has a score of at least ${fixed(minScore)}.`;
  if (step === 0) return `${count} candidates wait, ${all.length} will be kept. Go forward to see the first round.`;
  if (step === last) return `Done: NMS keeps ${all.length} of ${count} candidates.`;
  const values = round.lost.map((one) => one.overlap).sort((a, b) => a - b);
  const span = values.length > 1 ? `${fixed(values[0])} to ${fixed(values.at(-1))}` : values.map((v) => fixed(v)).join();
  const most = Math.max(0, ...round.rest.map((one) => one.overlap));
  return (
    `Round ${step} of ${all.length}: keeps ${nameOf(labels[round.best])}, score ${scores[round.best].toFixed(3)}. ` +
    (values.length
      ? `It suppresses ${values.length}, whose IoU with it (${span}) is above ${fixed(maxOverlap)}.`
      : `It suppresses none: the largest IoU of a waiting candidate with it is ${fixed(most)}.`)
  );
}

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const scene = nmsScene(model);
  const drawing = nmsStage(model, scene.nameOf);
  const steps = player({ label: "Rounds of NMS", change: (step) => put(model, { step }), pause: 1100 });
  const controls = nmsControls(model, scene);
  const plot = overlapPlot();
  const rows = nmsRows(model, scene.nameOf);
  picture.append(drawing.node, nmsLegend(), steps.node);
  panel.append(...controls.nodes, plot.node);
  picture.parentNode.after(html("div", { class: "ssd-nms-below" }, rows.node));

  watch(["label", "together", "min_score", "max_overlap", "step", "candidate", "boxes", "scores", "labels"], () => {
    const now = scene.now();
    controls.show();
    steps.set(now.step, now.last);
    drawing.show(now);
    showDots(plot, now, model.get("max_overlap"));
    rows.show(now);
    says(nmsSentence(now, scene.nameOf, model.get("min_score"), model.get("max_overlap")));
  });
  return () => {
    steps.stop();
    end();
  };
}

export default { render };
