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

function render({ model, el }) {
  const { picture, panel, says } = frame(el, model.get("title"));
  const [width, height] = model.get("size");
  const classes = model.get("classes");
  const nameOf = (label) => classes[label - 1];
  const data = () => ({ boxes: model.get("boxes"), scores: model.get("scores"), labels: model.get("labels") });
  const rounds = () =>
    nmsRounds(
      data(),
      nmsGroups(model.get("labels"), model.get("label"), model.get("together")),
      model.get("min_score"),
      model.get("max_overlap"),
    );
  // A changed rule may have fewer rounds: the step stays inside them.
  const change = (values) => {
    put(model, values);
    const last = rounds().length + 1;
    if (model.get("step") > last) put(model, { step: last });
  };

  const place = stage({ width, height, label: "The scene with its candidates", image: model.get("image") });
  const layer = svg("g", {});
  place.node.append(layer);
  const steps = player({ label: "Rounds of NMS", change: (step) => put(model, { step }), pause: 1100 });
  const legend = html(
    "p",
    { class: "ssd-nms-legend" },
    [
      ["ssd-nms-best", "current best"],
      ["ssd-nms-lost", "suppressed by it"],
      ["ssd-nms-waiting", "waiting"],
      ["ssd-nms-kept", "kept before"],
    ].map(([kind, text]) => html("span", {}, html("i", { class: kind, "aria-hidden": "true" }), text)),
  );
  picture.append(place.node, legend, steps.node);

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
  const plot = overlapPlot();
  const rows = table({ caption: "Candidates, best score first", head: ["no.", "class", "score", "IoU", "state"] });
  rows.node.classList.add("ssd-nms-table");
  panel.append(label.node, together.node, score.node, overlap.node, plot.node);
  const below = html("div", { class: "ssd-nms-below" }, rows.node);
  picture.parentNode.after(below);
  const order = []; // candidates in the order of the table
  onArrows(rows.node, (dx, dy) => {
    if (!order.length) return;
    const at = order.indexOf(model.get("candidate"));
    put(model, { candidate: order[at < 0 ? 0 : clamp(at + (dx || dy), 0, order.length - 1)] });
  });

  const { watch, end } = watching(model);
  const keys = ["label", "together", "min_score", "max_overlap", "step", "candidate", "boxes", "scores", "labels"];
  watch(keys, () => {
    const { boxes, scores, labels } = data();
    const all = rounds();
    const last = all.length + 1;
    const step = clamp(model.get("step"), 0, last);
    const chosen = model.get("candidate");
    label.set(model.get("label"));
    together.set(model.get("together") ? [true] : []);
    together.node.hidden = model.get("label") !== 0;
    score.set(model.get("min_score"));
    overlap.set(model.get("max_overlap"));
    steps.set(step, last);

    // What has become of each candidate by this step.
    const state = new Map();
    all.forEach(({ best, lost }, i) => {
      const round = i + 1;
      const over = round < step;
      state.set(best, { kind: round === step ? "best" : over ? "kept" : "waiting", round });
      for (const { index, overlap: value } of lost) {
        state.set(index, { kind: round === step ? "lost" : over ? "gone" : "waiting", round, by: best, value });
      }
    });
    const now = step >= 1 && step < last ? all[step - 1] : null;
    const measured = new Map(now ? [...now.lost, ...now.rest].map((one) => [one.index, one.overlap]) : []);

    const depth = ["gone", "waiting", "kept", "lost", "best"]; // later ones are drawn over earlier ones
    const shown = [...state.keys()].sort((a, b) => depth.indexOf(state.get(a).kind) - depth.indexOf(state.get(b).kind));
    layer.replaceChildren();
    for (const index of shown) {
      const { kind } = state.get(index);
      if (kind === "gone" && index !== chosen) continue;
      const box = boxes[index];
      const look = index === chosen ? `ssd-nms-${kind} ssd-nms-chosen` : `ssd-nms-${kind}`;
      layer.append(
        boxShape(box, { class: `ssd-box ssd-nms-rim ${look}` }),
        boxShape(box, { class: `ssd-box ${look}`, style: { stroke: colorOf(labels[index]) } }),
      );
    }
    // Names of the pointed out, of the current best or, at the end, of all kept; of two in one place the better one.
    const named = [chosen, ...[...state.keys()].sort((a, b) => scores[b] - scores[a])].filter((index, i) =>
      i === 0 ? state.has(index) : index !== chosen && state.get(index).kind === (step === last ? "kept" : "best"),
    );
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

    plot.limit(model.get("max_overlap"));
    plot.dots.replaceChildren(
      ...(now ? [...now.rest, ...now.lost, { index: now.best, overlap: 1 }] : []).map(({ index, overlap: value }) => {
        const at = `translate(${plot.x(value)},${plot.y(scores[index])})`;
        const mark = { best: "M-6,-6H6V6H-6Z", lost: "M-4,-4L4,4M-4,4L4,-4", waiting: "M-3.5,0a3.5,3.5 0 1 0 7,0a3.5,3.5 0 1 0 -7,0" };
        return svg("path", {
          class: `ssd-nms-dot ssd-nms-dot-${state.get(index).kind}${index === chosen ? " ssd-nms-chosen" : ""}`,
          d: mark[state.get(index).kind],
          transform: at,
        });
      }),
    );
    update(plot.node, {
      "aria-label": now
        ? `Overlap with the current best: ${now.lost.length} of ${measured.size} waiting candidates are above ${fixed(model.get("max_overlap"))}`
        : "Overlap with the current best: no round is shown",
    });

    order.splice(0, order.length, ...[...state.keys()].sort((a, b) => labels[a] - labels[b] || scores[b] - scores[a] || a - b));
    const words = {
      best: ({ round }) => `kept, round ${round}`,
      kept: ({ round }) => `kept, round ${round}`,
      lost: ({ by }) => `suppressed by ${by}`,
      gone: ({ by }) => `suppressed by ${by}`,
      waiting: () => "waiting",
    };
    rows.set(
      order.map((index) => {
        const found = state.get(index);
        const value = found.kind === "lost" || found.kind === "gone" ? found.value : measured.get(index);
        return {
          cells: [
            String(index),
            html("span", {}, swatch(colorOf(labels[index])), nameOf(labels[index])),
            scores[index].toFixed(3),
            value === undefined ? "" : fixed(value),
            words[found.kind](found),
          ],
          current: index === chosen || (chosen < 0 && found.kind === "best"),
          click: () => put(model, { candidate: index === chosen ? -1 : index }),
        };
      }),
    );
    const row = order.indexOf(chosen >= 0 ? chosen : now ? now.best : -1);
    const line = rows.node.querySelectorAll("tbody tr")[row];
    if (line) rows.node.scrollTop = line.offsetTop - 90; // inside the table only: the page stays where it is

    const count = state.size;
    if (!count) says(`No candidate has a score of at least ${fixed(model.get("min_score"))}.`);
    else if (step === 0) says(`${count} candidates wait, ${all.length} will be kept. Go forward to see the first round.`);
    else if (step === last) says(`Done: NMS keeps ${all.length} of ${count} candidates.`);
    else {
      const values = now.lost.map((one) => one.overlap).sort((a, b) => a - b);
      const span = values.length > 1 ? `${fixed(values[0])} to ${fixed(values.at(-1))}` : values.map((v) => fixed(v)).join();
      const most = Math.max(0, ...now.rest.map((one) => one.overlap));
      says(
        `Round ${step} of ${all.length}: keeps ${nameOf(labels[now.best])}, score ${scores[now.best].toFixed(3)}. ` +
          (values.length
            ? `It suppresses ${values.length}, whose IoU with it (${span}) is above ${fixed(model.get("max_overlap"))}.`
            : `It suppresses none: the largest IoU of a waiting candidate with it is ${fixed(most)}.`),
      );
    }
  });
  return () => (steps.stop(), end());
}

export default { render };
