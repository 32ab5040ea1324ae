// MatchingExplorer: every object is handed a prior of its own, then the threshold adds the others.

const LEVELS = 10000; // overlaps are whole numbers of ten-thousandths, rounded down

const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "12 4", "5 5", "1 4"]; // the map is told by the line, too

// The rows of the state by name: a prior is [map, box in tenths of a pixel, its best object, their overlap], and an
// object's own prior [object, row of that prior, their overlap, row of the prior it would like best, that overlap].
const priorOf = ([map, x0, y0, x1, y1, object, level]) => ({ map, box: [x0, y0, x1, y1].map((side) => side / 10), object, level });
const ownOf = ([object, row, level, favourite, wish]) => ({ object, row, level, favourite, wish });

// The matched priors after so many steps, each { row, object, level, own }: what ssdlib.matching.match gives.
function matchedPriors({ objects, priors, own }, threshold, step) {
  const handed = own
    .slice(0, step)
    .map(ownOf)
    .map(({ object, row, level }) => ({ row, object, level, own: true }));
  if (step <= objects.length) return handed;
  const taken = new Set(handed.map(({ row }) => row));
  const least = Math.round(threshold * LEVELS);
  const others = priors
    .map(priorOf)
    .map(({ object, level }, row) => ({ row, object, level, own: false }))
    .filter(({ row, level }) => level >= least && !taken.has(row));
  return [...handed, ...others];
}

function lineSample(map) {
  const line = svg("line", { x1: 0, x2: 28, y1: 6, y2: 6, class: "ssd-sample", style: lineStyle(map) });
  return svg("svg", { class: "ssd-sample", width: 28, height: 12, "aria-hidden": "true" }, line);
}

const lineStyle = (map) => ({ stroke: colorOf(map + 1), strokeDasharray: DASHES[map % DASHES.length] });

const nameOfObject = ({ objects }, m) => `${m} ${objects[m].name}`;

// A scene with its objects, and lines for the priors that they have got.
function matchingScene(data, select) {
  const [width, height] = data.size;
  const image = stage({ width, height, label: `Image with ${data.objects.length} objects`, image: data.image || null });
  const lines = svg("g", { "aria-hidden": "true" });
  const boxes = data.objects.map(({ box }, m) => [
    boxShape(box, { class: "ssd-box ssd-object-rim", click: () => select(m) }),
    boxShape(box, { class: "ssd-box ssd-object" }),
  ]);
  const tags = data.objects.map(({ box }, m) => {
    const name = tag(nameOfObject(data, m));
    placeTag(name, box, image);
    return name;
  });
  if (!data.image) image.node.append(gridLines(image));
  image.node.append(lines, ...boxes.flat(), ...tags);
  const show = (found, selected) => {
    lines.setAttribute("class", found.length > 60 ? "ssd-many" : "");
    lines.replaceChildren(
      ...found.flatMap(({ row, own }) => {
        const { map, box } = priorOf(data.priors[row]);
        const kind = own ? "ssd-own" : "ssd-other";
        return [
          boxShape(box, { class: `ssd-box ssd-line-rim ${kind}` }),
          boxShape(box, { class: `ssd-box ssd-line ${kind}`, style: lineStyle(map) }),
        ];
      }),
    );
    for (const m of data.objects.keys()) {
      for (const node of [...boxes[m], tags[m]]) node.classList.toggle("ssd-faded", selected >= 0 && selected !== m);
    }
  };
  return { node: html("div", { class: "ssd-clip" }, image.node), show };
}

// How many priors each map and each object has got; `found` are those on the picture, `all` those of all objects.
function matchingTables() {
  const byMap = table({ caption: "Positives by feature map", head: ["map", "step one", "step two", "both"] });
  const byObject = table({ caption: "Positives by object", head: ["object", "own prior, IoU", "priors"] });
  for (const { node } of [byMap, byObject]) node.classList.add("ssd-whole");
  const show = (data, all, found, selected) => {
    const tally = (wanted) => {
      const own = found.filter((one) => one.own && wanted(one)).length;
      const both = found.filter(wanted).length;
      return [own, both - own, both].map(String);
    };
    byMap.set([
      ...data.maps.map((side, map) => ({
        cells: [[lineSample(map), `${side} × ${side}`], ...tally(({ row }) => priorOf(data.priors[row]).map === map)],
      })),
      { cells: ["all", ...tally(() => true)], current: true },
    ]);
    byObject.set(
      data.objects.map((_, m) => {
        const mine = all.filter(({ object }) => object === m);
        const handed = mine.find(({ own }) => own);
        const level = handed ? fixed(handed.level / LEVELS, 3) : "–";
        return { cells: [nameOfObject(data, m), level, String(mine.length)], current: selected === m };
      }),
    );
  };
  return { nodes: [byMap.node, byObject.node], show };
}

// Scene, threshold, and the object whose priors are shown.
function matchingControls(model) {
  const scenes = model.get("scenes");
  const scene = choice({
    label: "Scene",
    options: scenes.map(({ name }) => ({ text: name, value: name })),
    change: (name) => put(model, { scene: name, step: 0, selected: -1 }),
  });
  // Only step two knows the threshold: moving it goes there, so that it is never without effect.
  const threshold = slider({
    label: "Threshold of step two (IoU)",
    min: 0.2,
    max: 1,
    step: 0.01,
    format: (value) => fixed(value, 2),
    change: (value) => {
      const { objects } = scenes.find(({ name }) => name === model.get("scene"));
      put(model, { threshold: value, step: objects.length + 1 });
    },
  });
  const why = html("p", { class: "ssd-hint ssd-two-lines" });
  const who = html("div", {});
  let objects = { set: (_) => {} };
  const build = (data) => {
    objects = choice({
      label: "Show the priors of",
      options: [{ text: "all", value: -1 }, ...data.objects.map((_, m) => ({ text: nameOfObject(data, m), value: m }))],
      change: (selected) => put(model, { selected }),
    });
    who.replaceChildren(objects.node);
  };
  const show = (name, least, selected, two) => {
    scene.set(name);
    threshold.set(least);
    objects.set(selected);
    why.textContent = two
      ? "Step two adds every prior whose IoU with an object is at least this."
      : "It counts in step two only, which comes last; moving it goes there.";
  };
  return { nodes: [scene.node, threshold.node, why, who], build, show };
}

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const place = html("div", {});
  const steps = player({ label: "Steps of the matching", change: (step) => put(model, { step }) });
  const controls = matchingControls(model);
  const tables = matchingTables();
  picture.append(
    place,
    html("p", { class: "ssd-hint" }, "Thick lines: the objects' own priors, of step one. Colour and pattern of a line: its feature map."),
    html("div", { class: "ssd-spaced" }, steps.node),
  );
  panel.append(...controls.nodes, ...tables.nodes);

  const select = (m) => put(model, { selected: model.get("selected") === m ? -1 : m });
  let data;
  let drawing;
  watch(["scene"], () => {
    data = model.get("scenes").find(({ name }) => name === model.get("scene"));
    drawing = matchingScene(data, select);
    place.replaceChildren(drawing.node);
    controls.build(data);
  });
  watch(["scene", "threshold", "step", "selected"], () => {
    const last = data.objects.length + 1;
    const [step, selected, least] = [Math.min(model.get("step"), last), model.get("selected"), model.get("threshold")];
    const all = matchedPriors(data, least, step);
    const found = all.filter(({ object }) => selected < 0 || object === selected);
    controls.show(data.name, least, selected, step === last);
    steps.set(step, last);
    drawing.show(found, selected);
    tables.show(data, all, found, selected);
    says(matchingSentence(data, step, least, all, selected));
  });
  return () => {
    steps.stop();
    end();
  };
}

function matchingSentence(data, step, threshold, all, selected) {
  const { objects, own, maps, priors, total } = data;
  const iou = (level) => fixed(level / LEVELS, 3);
  if (step === 0) return `${objects.length} objects, ${thousands(total)} priors: nothing is matched yet. Go forward.`;
  if (step <= own.length) {
    const { object, row, level, favourite, wish } = ownOf(own[step - 1]);
    const side = maps[priorOf(priors[row]).map];
    const start = `Step one, object ${nameOfObject(data, object)}: `;
    const prior = `a prior of the ${side} × ${side} map with IoU ${iou(level)}`;
    return row === favourite
      ? `${start}of all pairs that are left this is the largest overlap; it gets ${prior}.`
      : `${start}its best prior, with IoU ${iou(wish)}, is taken by an object that overlaps it more. It gets the best that is left, ${prior}.`;
  }
  const few = objects.filter((_, m) => all.filter(({ object }) => object === m).length === 1).length;
  const mine = all.filter(({ object }) => object === selected).length;
  return (
    `Step two, threshold ${fixed(threshold, 2)}: ${all.length} of ${thousands(total)} priors are positive, ` +
    `${own.length} by step one and ${all.length - own.length} by the threshold. ` +
    (selected >= 0
      ? `Object ${nameOfObject(data, selected)} has ${mine} of them.`
      : `${few} of ${objects.length} objects have one prior only.`)
  );
}

export default { render };
