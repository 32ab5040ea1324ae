// MatchingExplorer: every object is handed a prior of its own, then the threshold adds the others.

const LEVELS = 10000; // overlaps are whole numbers of ten-thousandths, rounded down

const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "12 4", "5 5", "1 4"]; // the map is told by the line, too

// Rows of the matched priors after so many steps, each { row, object, level, own }: what ssdlib.matching.match gives.
function matchedPriors({ objects, priors, own }, threshold, step) {
  const handed = own.slice(0, step).map(([object, row, level]) => ({ row, object, level, own: true }));
  if (step <= objects.length) return handed;
  const taken = new Set(handed.map(({ row }) => row));
  const least = Math.round(threshold * LEVELS);
  const others = priors
    .map((prior, row) => ({ row, object: prior[5], level: prior[6], own: false }))
    .filter(({ row, level }) => level >= least && !taken.has(row));
  return [...handed, ...others];
}

function lineSample(map) {
  const line = svg("line", { x1: 0, x2: 28, y1: 6, y2: 6, class: "ssd-sample", style: lineStyle(map) });
  return svg("svg", { class: "ssd-sample", width: 28, height: 12, "aria-hidden": "true" }, line);
}

const lineStyle = (map) => ({ stroke: colorOf(map + 1), strokeDasharray: DASHES[map % DASHES.length] });

function render({ model, el }) {
  const { picture, panel, says } = frame(el, model.get("title"));
  const scenes = model.get("scenes");
  const iou = (level) => fixed(level / LEVELS, 3);
  const place = html("div", {});
  const steps = player({ label: "Steps of the matching", change: (step) => put(model, { step }) });
  const byMap = table({ caption: "Positives by feature map", head: ["map", "step one", "step two", "both"] });
  const byObject = table({ caption: "Positives by object", head: ["object", "own prior, IoU", "priors"] });
  picture.append(
    place,
    html("p", { class: "ssd-hint" }, "Thick lines: the objects' own priors, of step one. Colour and pattern of a line: its feature map."),
    html("div", { class: "ssd-spaced" }, steps.node),
  );
  const scene = choice({
    label: "Scene",
    options: scenes.map(({ name }) => ({ text: name, value: name })),
    change: (name) => {
      const { objects } = scenes.find((one) => one.name === name);
      put(model, { scene: name, step: objects.length + 1, selected: -1 });
    },
  });
  const threshold = slider({
    label: "Threshold of step two (IoU)",
    min: 0.2,
    max: 1,
    step: 0.01,
    format: (value) => fixed(value, 2),
    change: (value) => put(model, { threshold: value }),
  });
  const who = html("div", {});
  for (const { node } of [byMap, byObject]) node.classList.add("ssd-whole");
  panel.append(scene.node, threshold.node, who, byMap.node, byObject.node);

  let shown = {};
  const label = ({ objects }, m) => `${m} ${objects[m].name}`;
  const build = () => {
    const data = scenes.find(({ name }) => name === model.get("scene"));
    const [width, height] = data.size;
    const image = stage({ width, height, label: `Image with ${data.objects.length} objects`, image: data.image || null });
    const lines = svg("g", { "aria-hidden": "true" });
    const select = (m) => put(model, { selected: model.get("selected") === m ? -1 : m });
    const boxes = data.objects.map(({ box }, m) => [
      boxShape(box, { class: "ssd-box ssd-object-rim", click: () => select(m) }),
      boxShape(box, { class: "ssd-box ssd-object" }),
    ]);
    const tags = data.objects.map(({ box }, m) => {
      const name = tag(label(data, m));
      placeTag(name, box, image);
      return name;
    });
    if (!data.image) image.node.append(gridLines(image));
    image.node.append(lines, ...boxes.flat(), ...tags);
    place.replaceChildren(html("div", { class: "ssd-clip" }, image.node));
    const objects = choice({
      label: "Show the priors of",
      options: [{ text: "all", value: -1 }, ...data.objects.map((_, m) => ({ text: label(data, m), value: m }))],
      change: (selected) => put(model, { selected }),
    });
    who.replaceChildren(objects.node);
    shown = { data, lines, boxes, tags, objects };
  };

  const show = () => {
    const { data, lines, boxes, tags, objects } = shown;
    const last = data.objects.length + 1;
    const [step, selected, least] = [Math.min(model.get("step"), last), model.get("selected"), model.get("threshold")];
    scene.set(data.name);
    threshold.set(least);
    objects.set(selected);
    steps.set(step, last);
    const all = matchedPriors(data, least, step);
    const found = all.filter(({ object }) => selected < 0 || object === selected);
    lines.setAttribute("class", found.length > 60 ? "ssd-many" : "");
    lines.replaceChildren(
      ...found.flatMap(({ row, own }) => {
        const [map, ...rest] = data.priors[row];
        const box = rest.slice(0, 4).map((side) => side / 10);
        const kind = own ? "ssd-own" : "ssd-other";
        return [
          boxShape(box, { class: `ssd-box ssd-line-rim ${kind}` }),
          boxShape(box, { class: `ssd-box ssd-line ${kind}`, style: lineStyle(map) }),
        ];
      }),
    );
    data.objects.forEach((_, m) => {
      const faded = selected >= 0 && selected !== m;
      [...boxes[m], tags[m]].forEach((node) => node.classList.toggle("ssd-faded", faded));
    });
    const tally = (wanted) => found.filter(wanted).length;
    byMap.set([
      ...data.maps.map((side, map) => {
        const one = tally(({ row, own }) => own && data.priors[row][0] === map);
        const both = tally(({ row }) => data.priors[row][0] === map);
        return { cells: [[lineSample(map), `${side} × ${side}`], one, both - one, both].map(cell) };
      }),
      { cells: ["all", tally(({ own }) => own), tally(({ own }) => !own), found.length].map(cell), current: true },
    ]);
    byObject.set(
      data.objects.map((_, m) => {
        const mine = all.filter(({ object }) => object === m);
        const handed = mine.find(({ own }) => own);
        return { cells: [label(data, m), handed ? iou(handed.level) : "–", mine.length].map(cell), current: selected === m };
      }),
    );
    says(sentence(data, step, least, all, selected, label));
  };
  const cell = (content) => (typeof content === "number" ? String(content) : content);

  const { watch, end } = watching(model);
  watch(["scene"], build);
  watch(["scene", "threshold", "step", "selected"], show);
  return () => (steps.stop(), end());
}

function sentence({ objects, own, maps, priors, total }, step, threshold, all, selected, label) {
  const iou = (level) => fixed(level / LEVELS, 3);
  const data = { objects };
  if (step === 0) return `${objects.length} objects, ${thousands(total)} priors: nothing is matched yet.`;
  if (step <= own.length) {
    const [object, row, level, favourite, wish] = own[step - 1];
    const map = maps[priors[row][0]];
    const start = `Step one, object ${label(data, object)}: `;
    const prior = `a prior of the ${map} × ${map} map with IoU ${iou(level)}`;
    return row === favourite
      ? `${start}of all pairs that are left this is the largest overlap; it gets ${prior}.`
      : `${start}its best prior, with IoU ${iou(wish)}, is taken by an object that overlaps it more. It gets the best that is left, ${prior}.`;
  }
  const few = objects.filter((_, m) => all.filter(({ object }) => object === m).length === 1).length;
  const mine = all.filter(({ object }) => object === selected).length;
  return (
    `Step two, threshold ${fixed(threshold, 2)}: ${all.length} of ${thousands(total)} priors are positive, ` +
    `${own.length} by step one and ${all.length - own.length} by the threshold. ` +
    (selected >= 0 ? `Object ${label(data, selected)} has ${mine} of them.` : `${few} of ${objects.length} objects have one prior only.`)
  );
}

export default { render };
