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

// A plot of the waiting candidates: overlap with the current best to the right, score upwards. The line of the allowed
// overlap is a slider: `change` is called with where it is dragged.
function overlapPlot(change) {
  const [left, right, top, bottom] = [44, 306, 24, 132];
  const x = (overlap) => left + overlap * (right - left);
  const y = (score) => bottom - score * (bottom - top);
  const place = stage({ width: 320, height: 168, label: "Overlap with the current best" });
  const zone = svg("rect", { class: "ssd-nms-zone", y: top, height: bottom - top });
  const dots = svg("g", { "aria-hidden": "true" });
  const ticks = [0, 0.5, 1].map((value) => [
    svg("line", { class: "ssd-nms-axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }),
    svg("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, String(value)),
    svg("line", { class: "ssd-nms-axis", x1: left - 4, x2: left, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, String(value)),
  ]);
  const parts = [
    svg("rect", { class: "ssd-nms-grip", x: -20, y: top - 12, width: 40, height: bottom - top + 12 }),
    svg("line", { class: "ssd-nms-limit", y1: top, y2: bottom }),
    svg("circle", { class: "ssd-nms-knob", cy: top, r: 6 }),
  ];
  const words = svg("text", { y: 11, "text-anchor": "middle" });
  const limits = { role: "slider", tabindex: "0", "aria-label": "allowed IoU (max_overlap)", "aria-valuemin": 0, "aria-valuemax": 1 };
  const handle = svg("g", { class: "ssd-nms-handle", ...limits }, parts);
  let now = 0;
  const go = (value) => change(clamp(roundTo(value, 0.01), 0, 1));
  draggable(handle, place, { start: () => now, move: (from, dx) => go(from + dx / (right - left)) });
  onArrows(handle, (dx, dy) => go(now + (dx || -dy) / 100));
  place.node.classList.add("ssd-nms-plot");
  place.node.append(
    zone,
    svg("path", { class: "ssd-nms-axis", d: `M${left},${top}V${bottom}H${right}` }),
    ...ticks.flat(),
    handle,
    words,
    dots,
    svg("text", { x: (left + right) / 2, y: bottom + 32, "text-anchor": "middle" }, "IoU with the current best"),
    svg("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(12,${(top + bottom) / 2}) rotate(-90)` }, "score"),
  );
  const limit = (maxOverlap) => {
    now = maxOverlap;
    update(handle, { transform: `translate(${x(now)},0)`, "aria-valuenow": now, "aria-valuetext": fixed(now) });
    update(words, { x: clamp(x(now), left + 40, right - 40) });
    words.textContent = `allowed IoU ${fixed(now)}`;
    update(zone, { x: x(now), width: right - x(now) });
  };
  return { node: place.node, dots, x, y, limit };
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

// Box, dot and row of a candidate are one; with a suppressed one lights its suppressor, with a kept one all that it
// suppresses at this step.
const nmsLink = (index) => `c${index}`;

function nmsPartners(index, state) {
  const { kind, by } = state.get(index);
  if (kind === "lost" || kind === "gone") return [index, by];
  const others = [...state].filter(([, one]) => one.by === index && one.kind !== "waiting").map(([other]) => other);
  return [index, ...others];
}

const nmsLinks = (index, state) => ({
  "data-link": nmsLink(index),
  "data-lights": nmsPartners(index, state).map(nmsLink).join(" "),
});

// Who suppresses the candidate that is pointed at or chosen: its frame, and a line from one centre to the other.
function suppressorMark(place) {
  const [frame, rim, line] = [boxShape([0, 0, 0, 0], { class: "ssd-nms-by" }), ...["ssd-nms-bond-rim", "ssd-nms-bond"].map((name) => svg("line", { class: name }))];
  const words = tag("");
  words.classList.add("ssd-below");
  const node = svg("g", { "aria-hidden": "true" });
  const show = (index, { boxes, state }) => {
    const found = state.get(index);
    const suppressed = found?.kind === "lost" || found?.kind === "gone";
    node.replaceChildren(...(suppressed ? [frame, rim, line, words] : []));
    if (!suppressed) return;
    const [[x1, y1], [x2, y2]] = [toCentre(boxes[index]), toCentre(boxes[found.by])];
    update(frame, boxAttributes(boxes[found.by]));
    for (const each of [rim, line]) update(each, { x1, y1, x2, y2 });
    const [left, , , floor] = boxes[found.by];
    update(words, { x: left, y: Math.min(floor, 0.93 * place.height) }); // its name stands above
    words.textContent = `${found.by} suppresses ${index}, IoU ${fixed(found.value)}`;
  };
  return { node, show };
}

// The image with the candidates, each drawn as what it is at this step.
function nmsStage(model, nameOf, choose) {
  const [width, height] = model.get("size");
  const place = stage({ width, height, label: "The scene with its candidates", image: model.get("image") });
  const [layer, hits] = [svg("g", {}), svg("g", { "aria-hidden": "true" })];
  const mark = suppressorMark(place);
  place.node.append(layer, mark.node, hits);
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
    hits.replaceChildren();
    for (const index of [...state.keys()].sort((a, b) => depth.indexOf(state.get(a).kind) - depth.indexOf(state.get(b).kind))) {
      const { kind } = state.get(index);
      if (kind === "gone" && index !== chosen) continue;
      const look = index === chosen ? `ssd-nms-${kind} ssd-nms-chosen` : `ssd-nms-${kind}`;
      const links = nmsLinks(index, state);
      layer.append(
        svg(
          "g",
          links,
          boxShape(boxes[index], { class: `ssd-box ssd-nms-rim ${look}` }),
          boxShape(boxes[index], { class: `ssd-box ${look}`, style: { stroke: colorOf(labels[index]) } }),
        ),
      );
      hits.append(boxShape(boxes[index], { class: "ssd-nms-hit", click: () => choose(index), ...links }));
    }
    drawNames(now);
    mark.show(chosen, now);
  };
  return { node: place.node, show, mark: mark.show };
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
  const show = () => {
    label.set(model.get("label"));
    together.set(model.get("together") ? [true] : []);
    together.node.hidden = model.get("label") !== 0;
    score.set(model.get("min_score"));
  };
  return { nodes: [html("div", { class: "ssd-pair" }, label.node, score.node), together.node], show };
}

const DOTS = { best: "M-6,-6H6V6H-6Z", lost: "M-4,-4L4,4M-4,4L4,-4", waiting: "M-3.5,0a3.5,3.5 0 1 0 7,0a3.5,3.5 0 1 0 -7,0" };

// The candidates of this round in the plot.
function showDots(plot, { scores, round, measured, state, chosen }, maxOverlap, choose) {
  plot.limit(maxOverlap);
  plot.dots.replaceChildren(
    ...(round ? [...round.rest, ...round.lost, { index: round.best, overlap: 1 }] : []).map(({ index, overlap }) => {
      const { kind } = state.get(index);
      return svg("path", {
        class: `ssd-nms-dot ssd-nms-dot-${kind}${index === chosen ? " ssd-nms-chosen" : ""}`,
        d: DOTS[kind],
        transform: `translate(${plot.x(overlap)},${plot.y(scores[index])})`,
        click: () => choose(index),
        ...nmsLinks(index, state),
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

// All candidates, best score first; by keyboard, arrow keys walk along them, and Enter chooses.
function nmsRows(nameOf, choose) {
  const rows = table({ caption: "Candidates, best score first", head: ["no.", "class", "score", "IoU", "state"] });
  rows.node.classList.add("ssd-nms-table");
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
      click: () => choose(index),
      link: nmsLink(index),
      lights: nmsPartners(index, state).map(nmsLink).join(" "),
    };
  };
  const show = (now) => {
    const { scores, labels, state, chosen, round } = now;
    const order = [...state.keys()].sort((a, b) => labels[a] - labels[b] || scores[b] - scores[a] || a - b);
    rows.set(order.map((index) => rowOf(index, now)));
    const row = order.indexOf(chosen >= 0 ? chosen : round ? round.best : -1);
    const line = /** @type {HTMLElement} */ (rows.node.querySelectorAll("tbody tr")[row]);
    if (line) rows.node.scrollTop = line.offsetTop - 60; // inside the table only: the page stays where it is
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
  const { root, picture, panel, says, watch, end } = frame(el, model);
  root.classList.add("ssd-even");
  const scene = nmsScene(model);
  const choose = (index) => put(model, { candidate: index === model.get("candidate") ? -1 : index });
  const drawing = nmsStage(model, scene.nameOf, choose);
  const steps = player({ label: "Rounds of NMS", change: (step) => put(model, { step }), pause: 1100 });
  const controls = nmsControls(model, scene);
  const plot = overlapPlot((value) => scene.change({ max_overlap: value }));
  const rows = nmsRows(scene.nameOf, choose);
  picture.append(drawing.node, nmsLegend(), steps.node);
  panel.append(...controls.nodes, plot.node, rows.node);
  root.addEventListener("ssd-link", (/** @type {CustomEvent} */ { detail }) => {
    const now = scene.now();
    drawing.mark(detail ? Number(detail.split(" ")[0].slice(1)) : now.chosen, now);
  });

  watch(["label", "together", "min_score", "max_overlap", "step", "candidate", "boxes", "scores", "labels"], () => {
    const now = scene.now();
    controls.show();
    steps.set(now.step, now.last);
    drawing.show(now);
    showDots(plot, now, model.get("max_overlap"), choose);
    rows.show(now);
    says(nmsSentence(now, scene.nameOf, model.get("min_score"), model.get("max_overlap")));
  });
  return () => {
    steps.stop();
    end();
  };
}

export default { render };
