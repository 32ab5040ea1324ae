// MatchingExplorer: every object is handed a prior of its own, then the threshold adds the others; objects can be moved,
// and the matrix of overlaps shows and chooses the pairs.

const UNIT = 1e12; // centres and shapes of priors are whole numbers of this part of the image
const ROWS = 10; // about so many priors have a row in the matrix

const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "12 4", "5 5", "1 4"]; // the map is told by the line, too

// All priors of a scene in the order of make_priors: { map, box }, xyxy in fractions of the image.
const scenePriors = ({ maps }) =>
  maps.flatMap(({ centres, shapes }, map) =>
    centres.flatMap((y) =>
      centres.flatMap((x) => shapes.map(([w, h]) => ({ map, box: toCorners([x, y, w, h].map((side) => side / UNIT)) }))),
    ),
  );

// IoU of each object with each prior, a row for each object.
function overlapsOf(boxes, priors, [width, height]) {
  const inFractions = boxes.map((box) => box.map((side, i) => side / (i % 2 ? height : width)));
  return inFractions.map((box) => priors.map((prior) => iou(box, prior.box)));
}

// Step one, as ssdlib.matching.best_priors has it: of all pairs that are left the largest overlap, one to one.
function servedPairs(overlaps) {
  const pairs = [];
  const [objects, taken] = [new Set(overlaps.keys()), new Set()];
  while (objects.size && taken.size < overlaps[0].length) {
    let best = { object: -1, prior: -1, level: -1 };
    for (const object of objects) {
      for (const [prior, level] of overlaps[object].entries()) {
        if (level > best.level && !taken.has(prior)) best = { object, prior, level };
      }
    }
    pairs.push(best);
    objects.delete(best.object);
    taken.add(best.prior);
  }
  return pairs;
}

// The matched priors after so many steps, each { prior, object, level, own }: what ssdlib.matching.match gives.
function matchedPriors(overlaps, threshold, step) {
  const handed = servedPairs(overlaps).slice(0, step).map((pair) => ({ ...pair, own: true }));
  if (step <= overlaps.length) return handed;
  const taken = new Set(handed.map(({ prior }) => prior));
  const others = [];
  for (const prior of (overlaps[0] ?? []).keys()) {
    let object = 0;
    for (const m of overlaps.keys()) if (overlaps[m][prior] > overlaps[object][prior]) object = m;
    const level = overlaps[object][prior];
    if (level >= threshold && !taken.has(prior)) others.push({ prior, object, level, own: false });
  }
  return [...handed, ...others];
}

const favouriteOf = (row) => row.reduce((best, level, prior) => (level > row[best] ? prior : best), 0);

// Priors with a row in the matrix: for each object the ones that it overlaps most, and its own; by number.
function matrixPriors(overlaps, pairs) {
  const each = Math.max(1, Math.floor(ROWS / Math.max(1, overlaps.length)));
  const best = overlaps.flatMap((row) =>
    [...row.keys()].filter((prior) => row[prior] > 0).sort((a, b) => row[b] - row[a] || a - b).slice(0, each),
  );
  return [...new Set([...best, ...pairs.map(({ prior }) => prior)])].sort((a, b) => a - b);
}

function lineSample(map) {
  const line = svg("line", { x1: 0, x2: 28, y1: 6, y2: 6, class: "ssd-sample", style: lineStyle(map) });
  return svg("svg", { class: "ssd-sample", width: 28, height: 12, "aria-hidden": "true" }, line);
}

const lineStyle = (map) => ({ stroke: colorOf(map + 1), strokeDasharray: DASHES[map % DASHES.length] });

const nameOfObject = ({ names }, m) => `${m} ${names[m]}`;

// What is chosen, and all that follows from it.
function matchingNow(model) {
  const data = model.get("scenes").find(({ name }) => name === model.get("scene"));
  data.priors ??= scenePriors(data);
  // Python may set the scene before the boxes: then the new scene's own are meant.
  const boxes = model.get("boxes").length === data.boxes.length ? model.get("boxes") : data.boxes;
  const last = data.names.length + 1;
  const step = Math.min(model.get("step"), last);
  const threshold = model.get("threshold");
  const selected = Math.min(model.get("selected"), data.names.length - 1);
  const overlaps = overlapsOf(boxes, data.priors, data.size);
  const all = matchedPriors(overlaps, threshold, step);
  const found = all.filter(({ object }) => selected < 0 || object === selected);
  return { data, boxes, last, step, threshold, selected, overlaps, pairs: servedPairs(overlaps), all, found };
}

// A scene with its objects, which can be moved, and lines for the priors that they have got.
function matchingScene(model, data, select, move) {
  const [width, height] = data.size;
  const image = stage({ width, height, label: `Image with ${data.names.length} objects`, image: data.image || null });
  const [lines, probe] = [svg("g", { "aria-hidden": "true" }), svg("g", { "aria-hidden": "true" })];
  const objects = data.names.map((_, m) => {
    const rim = boxShape(data.boxes[m], { class: "ssd-box ssd-object-rim" });
    const get = () => matchingNow(model).boxes[m];
    const one = movableBox(image, { name: nameOfObject(data, m), color: "var(--ssd-ink)", get, set: (box) => move(m, box), least: 4 });
    let held;
    one.node.classList.add("ssd-quiet");
    one.node.addEventListener("pointerdown", () => {
      held = get();
    });
    one.node.addEventListener("click", () => held === undefined || get().every((side, i) => side === held[i]) ? select(m) : null);
    return { rim, ...one, tag: tag(nameOfObject(data, m)) };
  });
  if (!data.image) image.node.append(gridLines(image));
  image.node.append(...objects.map(({ rim }) => rim), lines, probe, ...objects.map(({ node }) => node), ...objects.map((each) => each.tag));
  const pixelsOf = (prior) => data.priors[prior].box.map((side, i) => side * (i % 2 ? height : width));
  const drawn = ({ prior, own }, kind = own ? "ssd-own" : "ssd-other") => [
    boxShape(pixelsOf(prior), { class: `ssd-box ssd-line-rim ${kind}` }),
    boxShape(pixelsOf(prior), { class: `ssd-box ssd-line ${kind}`, style: lineStyle(data.priors[prior].map) }),
  ];
  const show = ({ boxes, found, all, selected }) => {
    lines.setAttribute("class", found.length > 60 ? "ssd-many" : "");
    lines.replaceChildren(...found.map((one) => svg("g", { "data-link": `p${one.prior}` }, drawn(one))));
    for (const [m, one] of objects.entries()) {
      one.show();
      update(one.rim, boxAttributes(boxes[m]));
      placeTag(one.tag, boxes[m], image);
      const mine = all.filter(({ object }) => object === m).map(({ prior }) => `p${prior}`);
      update(one.node, { "data-link": `o${m}`, "data-lights": [`o${m}`, ...mine].join(" ") });
      for (const node of [one.rim, one.node, one.tag]) node.classList.toggle("ssd-faded", selected >= 0 && selected !== m);
    }
  };
  const point = (prior) => probe.replaceChildren(...(prior >= 0 ? drawn({ prior, own: true }, "ssd-own ssd-pointed") : []));
  return { node: html("div", { class: "ssd-clip" }, image.node), show, point };
}

// The matrix of overlaps: a row for each of the best priors, a column for each object. A cell shows its pair.
function overlapMatrix(select) {
  const head = html("tr", {});
  const [body, foot] = [html("tbody", {}), html("tr", {})];
  const caption = "IoU of the best priors with the objects";
  const node = html(
    "div",
    { class: "ssd-table ssd-matrix", role: "region", "aria-label": caption },
    html("table", {}, html("caption", {}, caption), html("thead", {}, head), body, html("tfoot", {}, foot)),
  );
  const cells = () => /** @type {HTMLElement[]} */ ([...body.querySelectorAll("td")]);
  const columns = () => foot.children.length - 1;
  walkable(body, cells, { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -columns(), ArrowDown: () => columns() });
  const show = ({ data, overlaps, pairs, all, selected, step }) => {
    const active = /** @type {HTMLElement} */ (document.activeElement);
    const held = body.contains(active) ? active.dataset.lights : null;
    const fateOf = new Map(all.map((one) => [`${one.prior} ${one.object}`, one.own ? "own" : "added"]));
    const cell = (prior, m) => {
      const fate = fateOf.get(`${prior} ${m}`);
      const level = overlaps[m][prior];
      return html(
        "td",
        {
          class: fate ? `ssd-${fate}-cell` : null,
          "data-link": `p${prior} o${m}`,
          "data-lights": `p${prior} o${m}`,
          style: { backgroundSize: `${100 * level}% 100%` },
        },
        { own: "● ", added: "✓ " }[fate],
        fixed(level, 2),
      );
    };
    head.replaceChildren(
      html("th", { scope: "col" }, "prior"),
      ...data.names.map((_, m) => {
        const column = html("button", { type: "button", "aria-pressed": String(selected === m), click: () => select(m) }, nameOfObject(data, m));
        return html("th", { scope: "col", "data-link": `o${m}` }, column);
      }),
    );
    body.replaceChildren(
      ...matrixPriors(overlaps, pairs).map((prior) =>
        html(
          "tr",
          {},
          html("th", { scope: "row", "data-link": `p${prior}` }, lineSample(data.priors[prior].map), String(prior)),
          data.names.map((_, m) => cell(prior, m)),
        ),
      ),
    );
    const count = (m) => String(all.filter(({ object }) => object === m).length);
    foot.replaceChildren(html("th", { scope: "row" }, "priors"), ...data.names.map((_, m) => html("td", {}, count(m))));
    const next = pairs[Math.min(step, pairs.length) - 1];
    const lights = held ?? (next ? `p${next.prior} o${next.object}` : "");
    rove(cells(), cells().find((one) => one.dataset.lights === lights), held);
  };
  return { node, show };
}

// Colour and pattern of each map, with the positives that it has got.
function mapLegend() {
  const node = html("ul", { class: "ssd-maps", "aria-label": "Positives by feature map" });
  const show = ({ data, found }) =>
    node.replaceChildren(
      ...data.maps.map(({ centres: { length: side } }, map) => {
        const count = found.filter(({ prior }) => data.priors[prior].map === map).length;
        return html("li", {}, lineSample(map), `${side} × ${side}: `, html("strong", {}, String(count)));
      }),
    );
  return { node, show };
}

// Scene and threshold.
function matchingControls(model, go) {
  const scenes = model.get("scenes");
  const scene = choice({ label: "Scene", options: scenes.map(({ name }) => ({ text: name, value: name })), change: go });
  // Only step two knows the threshold: moving it goes there, so that it is never without effect.
  const threshold = slider({
    label: "Threshold of step two (IoU)",
    min: 0.2,
    max: 1,
    step: 0.01,
    format: (value) => fixed(value, 2),
    change: (value) => put(model, { threshold: value, step: matchingNow(model).last }),
  });
  const why = html("p", { class: "ssd-hint" });
  const show = ({ data, threshold: least, step, last }) => {
    scene.set(data.name);
    threshold.set(least);
    why.textContent = step === last ? "Step two adds every prior with at least this IoU." : "It counts in step two only; moving it goes there.";
  };
  return { nodes: [scene.node, threshold.node, why], show };
}

function render({ model, el }) {
  const { root, picture, panel, says, watch, end } = frame(el, model);
  root.classList.add("ssd-even");
  const place = html("div", {});
  const select = (m) => put(model, { selected: model.get("selected") === m ? -1 : m });
  const move = (m, box) => put(model, { boxes: matchingNow(model).boxes.map((one, i) => (i === m ? box : one)) });
  const go = (name) => {
    const { boxes } = model.get("scenes").find((one) => one.name === name);
    put(model, { scene: name, step: 0, selected: -1, boxes });
  };
  const steps = player({ label: "Steps of the matching", change: (step) => put(model, { step }) });
  const controls = matchingControls(model, go);
  const [matrix, maps] = [overlapMatrix(select), mapLegend()];
  const typed = html("div", {});
  picture.append(place, maps.node, steps.node);
  panel.append(
    ...controls.nodes,
    matrix.node,
    html("p", { class: "ssd-hint" }, "● own prior, ✓ by the threshold. Point at a cell, or drag an object."),
    typed,
  );

  let drawing;
  let fields;
  watch(["scene"], () => {
    const { data } = matchingNow(model);
    const chosen = () => Math.max(0, matchingNow(model).selected);
    const [width, height] = data.size;
    drawing = matchingScene(model, data, select, move);
    place.replaceChildren(drawing.node);
    fields = data.names.length
      ? boxFields({ name: "", color: null, get: () => matchingNow(model).boxes[chosen()], set: (box) => move(chosen(), box), width, height, least: 4 })
      : null;
    typed.replaceChildren(...(fields ? [fields.node] : []));
  });
  root.addEventListener("ssd-link", (/** @type {CustomEvent} */ { detail }) =>
    drawing.point(detail.startsWith("p") ? Number(detail.split(" ")[0].slice(1)) : -1),
  );
  watch(["scene", "threshold", "step", "selected", "boxes"], () => {
    const now = matchingNow(model);
    controls.show(now);
    steps.set(now.step, now.last);
    drawing.show(now);
    matrix.show(now);
    maps.show(now);
    fields?.show();
    fields?.call(`${nameOfObject(now.data, Math.max(0, now.selected))}, in px`);
    says(matchingSentence(now));
  });
  return () => {
    steps.stop();
    end();
  };
}

function matchingSentence({ data, step, threshold, all, selected, overlaps, pairs }) {
  const { names, maps, priors } = data;
  const total = thousands(priors.length);
  if (step === 0) return `${names.length} objects, ${total} priors: nothing is matched yet. Go forward.`;
  if (step <= pairs.length) {
    const { object, prior, level } = pairs[step - 1];
    const favourite = favouriteOf(overlaps[object]);
    const side = maps[priors[prior].map].centres.length;
    const start = `Step one, object ${nameOfObject(data, object)}: `;
    const got = `prior ${prior} of the ${side} × ${side} map with IoU ${fixed(level, 3)}`;
    return prior === favourite
      ? `${start}of all pairs that are left this is the largest overlap; it gets ${got}.`
      : `${start}its best prior, with IoU ${fixed(overlaps[object][favourite], 3)}, is taken by an object that overlaps it more. It gets the best that is left, ${got}.`;
  }
  const few = names.filter((_, m) => all.filter(({ object }) => object === m).length === 1).length;
  const mine = all.filter(({ object }) => object === selected).length;
  return (
    `Step two, threshold ${fixed(threshold, 2)}: ${all.length} of ${total} priors are positive, ` +
    `${pairs.length} by step one and ${all.length - pairs.length} by the threshold. ` +
    (selected >= 0
      ? `Object ${nameOfObject(data, selected)} has ${mine} of them.`
      : `${few} of ${names.length} objects have one prior only.`)
  );
}

export default { render };
