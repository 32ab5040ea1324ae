// HardNegativeMiner: the negatives that count, hardest first, and what the others would have made of the loss.

// The confidence loss with so many negatives for each positive, in parts; `all` is the part that all negatives have.
function lossesAt({ positives, sums }, ratio) {
  const count = Math.max(1, positives.length); // an image without positives counts as one with a single positive
  const mined = Math.min(ratio * count, sums.number);
  return {
    mined,
    positives: sums.positives / count,
    negatives: sums.hardest[mined] / count,
    all: sums.negatives / count,
  };
}

// The rows of the state by name: an object is [box in pixels, label], a positive [box in tenths of a pixel, label], a
// negative [box, the most likely object, and in thousandths its probability, that of background, the loss, the IoU].
const objectOf = ([x0, y0, x1, y1, label]) => ({ box: [x0, y0, x1, y1], label });
const positiveOf = ([x0, y0, x1, y1, label]) => ({ box: [x0, y0, x1, y1].map((side) => side / 10), label });
function negativeOf([x0, y0, x1, y1, label, ...thousandths]) {
  const [probability, background, loss, overlap] = thousandths.map((value) => value / 1000);
  return { box: [x0, y0, x1, y1].map((side) => side / 10), label, probability, background, loss, overlap };
}

const LAST = 5; // so many of the mined negatives are drawn in full; those before them are faint

// The sorted losses as a chart, along which the last drawn negative is moved: `change` is called with its rank.
function lossChart(hardness, change) {
  const [width, height] = [320, 112];
  const [left, right, top, floor] = [34, 316, 8, 88];
  const place = stage({ width, height, label: "Loss of the hardest negatives" });
  place.node.classList.add("ssd-flat");
  const most = Math.max(1, ...hardness);
  const x = (rank) => left + ((right - left) * rank) / Math.max(1, hardness.length);
  const y = (loss) => floor - ((floor - top) * loss) / most;
  const area = (from, to) => {
    if (to <= from) return "";
    const steps = hardness.slice(from, to).map((loss, i) => `V${y(loss)}H${x(from + i + 1)}`);
    return `M${x(from)} ${floor}${steps.join("")}V${floor}Z`;
  };
  const parts = ["ssd-done", "ssd-wanted", "ssd-dropped"].map((name) => svg("path", { class: name }));
  const now = svg("line", { class: "ssd-way" });
  const here = svg("path", { class: "ssd-here" });
  const grip = svg("rect", {
    class: "ssd-scrub",
    x: left - 10,
    y: 0,
    width: right - left + 20,
    height: floor + 4,
    role: "slider",
    tabindex: "0",
    "aria-label": "Mined negatives, hardest first",
    "aria-valuemin": 0,
  });
  let [at, limit] = [0, 0];
  const go = (rank) => change(clamp(rank, 0, limit));
  const rankAt = (event) => Math.ceil(((place.at(event)[0] - left) / (right - left)) * hardness.length);
  grip.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    grip.setPointerCapture(event.pointerId);
    go(rankAt(event));
  });
  grip.addEventListener("pointermove", (event) => grip.hasPointerCapture(event.pointerId) && go(rankAt(event)));
  onArrows(grip, (dx, dy) => go(at + (dx || -dy)));
  const text = (words, at, anchor) => svg("text", { ...at, "text-anchor": anchor, class: "ssd-small" }, words);
  place.node.append(
    ...parts,
    svg("line", { class: "ssd-way", x1: left, x2: right, y1: floor, y2: floor }),
    now,
    here,
    text(fixed(most, 1), { x: left - 4, y: top + 8 }, "end"),
    text("0", { x: left - 4, y: floor + 4 }, "end"),
    text("1", { x: left, y: floor + 17 }, "start"),
    text("rank of the negative", { x: (left + right) / 2, y: floor + 17 }, "middle"),
    text(String(hardness.length), { x: right, y: floor + 17 }, "end"),
    grip,
  );
  const set = (shown, mined) => {
    [at, limit] = [shown, mined];
    const words = shown > 0 ? `${shown}, loss ${fixed(hardness[shown - 1], 3)}` : "none";
    update(grip, { "aria-valuemax": mined, "aria-valuenow": shown, "aria-valuetext": words });
    const peak = shown > 0 ? y(hardness[shown - 1]) : floor;
    update(here, { d: shown > 0 ? `M${x(shown - 0.5)} ${peak - 1}l-5 -7h10z` : "" });
    const cuts = [0, shown, mined, hardness.length];
    for (const [i, part] of parts.entries()) update(part, { d: area(cuts[i], cuts[i + 1]) });
    update(now, { x1: x(mined), x2: x(mined), y1: top, y2: floor });
  };
  return { node: place.node, set };
}

const shareOf = (part, whole) => `${fixed(whole > 0 ? (100 * part) / whole : 0, 0)} %`;

// The image with objects, positives and mined negatives, the last of them with its name.
function minerStage(model, names, negatives) {
  const [width, height] = model.get("size");
  const scene = model.get("scene");
  const place = stage({ width, height, label: "Positives and mined negatives on the image", image: model.get("image") });
  const rows = scene.objects.map(objectOf);
  const boxes = rows.map(({ box }) => [
    boxShape(box, { class: "ssd-box ssd-object-rim" }),
    boxShape(box, { class: "ssd-box ssd-object" }),
  ]);
  const words = rows.map(({ box, label }) => {
    const name = tag(names[label]);
    placeTag(name, box, place);
    return name;
  });
  const line = ({ box, label }, kind, link) =>
    svg(
      "g",
      { "data-link": link, class: kind.includes("ssd-older") ? "ssd-older" : null },
      boxShape(box, { class: "ssd-box ssd-line-rim" }),
      boxShape(box, { class: `ssd-box ssd-line ${kind}`, style: { stroke: colorOf(label) } }),
    );
  const layers = {
    objects: svg("g", {}, boxes),
    positives: svg("g", {}, scene.positives.map(positiveOf).map((row) => line(row, "ssd-positive"))),
    negatives: svg("g", {}),
    tags: svg("g", {}, words),
  };
  const frames = ["ssd-box ssd-now-rim", "ssd-box ssd-now"].map((name) => boxShape([0, 0, 0, 0], { class: name }));
  const nowTag = tag("");
  place.node.classList.add("ssd-dim", "ssd-low");
  place.node.append(layers.objects, layers.positives, layers.negatives, ...frames, layers.tags, nowTag);
  const show = (shown) => {
    const on = (name) => model.get("drawn").includes(name);
    for (const node of [layers.objects, layers.tags]) node.style.display = on("objects") ? "" : "none";
    layers.positives.style.display = on("positives") ? "" : "none";
    layers.negatives.replaceChildren(
      ...(on("negatives")
        ? negatives
            .slice(0, shown)
            .map((row, i) => line(row, i < shown - LAST ? "ssd-mined ssd-older" : "ssd-mined", `taken-${row.label}`))
        : []),
    );
    const last = shown > 0 && on("negatives") ? negatives[shown - 1] : null;
    for (const node of [...frames, nowTag]) node.style.display = last ? "" : "none";
    if (!last) return;
    for (const node of frames) update(node, boxAttributes(last.box));
    nowTag.textContent = `${names[last.label]} ${fixed(last.probability, 2)}`;
    placeTag(nowTag, last.box.map((side, i) => clamp(side, 0, i % 2 ? height : width)), place);
  };
  return { node: place.node, show };
}

// The loss with all negatives and with the mined ones: sums, and the share of the positives as a bar.
function lossTable(scene) {
  const losses = table({ caption: "Confidence loss (sums / N), share of the positives", head: ["counted", "positives", "negatives", "sum", "share"] });
  losses.node.classList.add("ssd-whole", "ssd-losses");
  const others = readout([{ text: "localization loss (positives only)" }, { text: "sum of both losses, after mining" }]);
  const show = (mined, loss) => {
    const [before, after] = [loss.positives + loss.all, loss.positives + loss.negatives];
    const share = (whole) => {
      const part = html("i", { style: { width: shareOf(loss.positives, whole).replace(" ", "") } });
      return html("span", {}, shareOf(loss.positives, whole), html("span", { class: "ssd-bar", "aria-hidden": "true" }, part));
    };
    const row = (counted, ...values) => [counted, ...values.map((value) => fixed(value, 2))];
    losses.set([
      { cells: [...row(`all ${thousands(scene.sums.number)}`, loss.positives, loss.all, before), share(before)] },
      { cells: [...row(`${mined} mined`, loss.positives, loss.negatives, after), share(after)], current: true },
    ]);
    others.set([fixed(scene.sums.localization, 2), fixed(scene.sums.localization + after, 2)]);
    return { before, after };
  };
  return { nodes: [losses.node, others.node], show };
}

// What the mined negatives were taken for; pointing at an object lights up the boxes that were taken for it.
function claimsList(names, negatives) {
  const list = html("ul", { class: "ssd-claims", "aria-label": "Mined, by their most likely object" });
  const node = html("div", {}, html("p", { class: "ssd-label" }, "Mined, by their most likely object"), list);
  const show = (mined) => {
    const counts = names.map((_, label) => negatives.slice(0, mined).filter((row) => row.label === label).length);
    node.hidden = mined === 0;
    list.replaceChildren(
      ...names
        .map((name, label) => ({ name, label, count: counts[label] }))
        .filter(({ count }) => count > 0)
        .sort((a, b) => b.count - a.count)
        .map(({ name, label, count }) =>
          html("li", { "data-link": `taken-${label}`, tabindex: "0" }, swatch(colorOf(label)), `${name} `, html("strong", {}, String(count))),
        ),
    );
  };
  return { node, show };
}

// The negative that was drawn last, in numbers.
function oneNegative(names) {
  const name = html("p", { class: "ssd-label" });
  const numbers = readout([
    { text: "rank and loss" },
    { text: "probability of background" },
    { text: "most likely object" },
    { text: "IoU with the nearest object" },
  ]);
  const per = (value) => fixed(value, 3);
  const show = (row, shown, mined) => {
    if (row) {
      name.textContent = `Negative ${shown} of ${mined}`;
      const { loss, background, label, probability, overlap } = row;
      numbers.set([`${shown}, ${per(loss)}`, per(background), `${names[label]}, ${per(probability)}`, per(overlap)]);
    } else {
      name.textContent = mined > 0 ? "No negative drawn yet: go forward" : "None is mined: ask for some for each positive";
      numbers.set(["–", "–", "–", "–"]);
    }
  };
  return { nodes: [name, numbers.node], show };
}

function render({ model, el }) {
  const { root, picture, panel, says, watch, end } = frame(el, model);
  root.classList.add("ssd-even");
  const scene = model.get("scene");
  const names = ["background", ...model.get("classes")];
  const negatives = scene.negatives.map(negativeOf);
  const drawing = minerStage(model, names, negatives);
  const chart = lossChart(negatives.map(({ loss }) => loss), (shown) => put(model, { shown }));
  const steps = player({ label: "Mined negatives, hardest first", change: (shown) => put(model, { shown }), pause: 350 });
  const one = oneNegative(names);
  picture.append(
    html("div", { class: "ssd-clip" }, drawing.node),
    html("div", { class: "ssd-spaced" }, steps.node),
    html("div", { class: "ssd-spaced" }, one.nodes),
  );
  const drawn = checks({
    label: "Draw",
    options: [
      { text: "objects", value: "objects" },
      { text: "positives (solid)", value: "positives" },
      { text: "mined (dashed)", value: "negatives" },
    ],
    change: (values) => put(model, { drawn: values }),
  });
  const ratio = slider({
    label: "Negatives for each positive",
    min: 0,
    max: 10,
    step: 1,
    change: (value) => put(model, { ratio: value, shown: Math.min(model.get("shown"), lossesAt(scene, value).mined) }),
  });
  const losses = lossTable(scene);
  const claims = claimsList(names, negatives);
  picture.append(html("div", { class: "ssd-spaced" }, claims.node));
  panel.append(
    ratio.node,
    html("p", { class: "ssd-label" }, "Loss as background, hardest first: drag along it"),
    chart.node,
    html("p", { class: "ssd-hint" }, "Left of the line: mined. Orange: drawn, the last five in full."),
    ...losses.nodes,
    drawn.node,
  );

  watch(["ratio", "shown", "drawn"], () => {
    const wanted = model.get("ratio");
    const { mined, ...loss } = lossesAt(scene, wanted);
    const shown = Math.min(model.get("shown"), mined);
    const row = shown > 0 ? negatives[shown - 1] : null;
    ratio.set(wanted);
    steps.set(shown, mined);
    chart.set(shown, mined);
    drawn.set(model.get("drawn"));
    drawing.show(shown);
    one.show(row, shown, mined);
    claims.show(mined);
    const { before, after } = losses.show(mined, loss);
    const per = (value) => fixed(value, 3);
    says(
      row && shown < mined
        ? `Negative ${shown} of ${mined}, loss ${per(row.loss)}: the network gives ${names[row.label]} ${per(row.probability)} ` +
            `and background ${per(row.background)}; IoU with the nearest object ${per(row.overlap)}.`
        : `${mined} of ${thousands(scene.sums.number)} negatives count. The confidence loss is ${fixed(after, 2)} ` +
            `in place of ${fixed(before, 2)}, and the positives make up ${shareOf(loss.positives, after)} of it ` +
            `in place of ${shareOf(loss.positives, before)}.`,
    );
  });
  return () => {
    steps.stop();
    end();
  };
}

export default { render };
