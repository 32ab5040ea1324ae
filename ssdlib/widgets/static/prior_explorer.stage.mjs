// Part of PriorExplorer: the picture, with the cells of a feature map and the priors of one of them.

const PRIOR_VIEW = 300; // side of the picture, which shows the image and a margin around it
const EDGE = 1e-6; // numbers of the state are rounded to 6 digits

// The priors of a cell, cxcywh in fractions of the image; the state has the centres and shapes of make_priors.
const cellPriors = (map, [row, column]) => map.shapes.map((shape) => [map.centres[column], map.centres[row], ...shape]);

const crosses = (corners) => corners.some((value) => value < -EDGE || value > 1 + EDGE);

// What the 3 x 3 kernel at a cell can depend on, xyxy in pixels of the image.
function receptiveField({ start, step, side }, [row, column]) {
  return toCorners([start + column * step, start + row * step, side, side]);
}

// The cell of a map of `side` cells at the place of another map's cell.
const samePlace = (cell, from, to) => cell.map((place) => clamp(Math.floor(((place + 0.5) / from) * to), 0, to - 1));

// The outline of a box as two paths: within the image 0..1, and outside of it.
/** @type {(box: number[], place: (fraction: number) => number) => {inside: string, outside: string}} */
function outline([x0, y0, x1, y1], place) {
  const paths = { inside: "", outside: "" };
  const line = (fixedValue, from, to, horizontal) => {
    const within = fixedValue >= -EDGE && fixedValue <= 1 + EDGE;
    const cuts = [from, ...[0, 1].filter((cut) => cut > from && cut < to), to];
    for (let i = 0; i + 1 < cuts.length; i += 1) {
      const [a, b] = [cuts[i], cuts[i + 1]];
      const middle = (a + b) / 2;
      const where = within && middle > 0 && middle < 1 ? "inside" : "outside";
      const [p, q] = [place(a), place(b)];
      const f = place(fixedValue);
      paths[where] += horizontal ? `M${p} ${f}H${q}` : `M${f} ${p}V${q}`;
    }
  };
  line(y0, x0, x1, true);
  line(y1, x0, x1, true);
  line(x0, y0, y1, false);
  line(x1, y0, y1, false);
  return paths;
}

const pixels = (value) => fixed(value, value < 20 && !Number.isInteger(value) ? 1 : 0);

/** @type {(box: number[], place: (fraction: number) => number) => string} */
const squarePath = ([x0, y0, x1, y1], place) => `M${place(x0)} ${place(y0)}H${place(x1)}V${place(y1)}H${place(x0)}Z`;

// What is chosen. Python may set map and recipe one after the other: a cell or map that is not there yet is taken as
// the nearest.
function chosen(model) {
  const recipes = model.get("recipes");
  const named = (name) => recipes.find((recipe) => recipe.name === name);
  const now = () => {
    const recipe = named(model.get("recipe"));
    const number = Math.min(model.get("map"), recipe.maps.length - 1);
    const map = recipe.maps[number];
    const cell = model.get("cell").map((place) => Math.min(place, map.side - 1));
    const other = named(model.get("compare"));
    const otherMap = other?.maps[number];
    const otherPriors = otherMap ? cellPriors(otherMap, samePlace(cell, map.side, otherMap.side)) : [];
    const on = model.get("show_receptive_field") && map.field !== null;
    return { recipe, number, map, cell, priors: cellPriors(map, cell), other, otherMap, otherPriors, on };
  };
  const go = (name, number) => {
    const before = now();
    const { maps } = named(name);
    const map = Math.min(number, maps.length - 1);
    put(model, { recipe: name, map, cell: samePlace(before.cell, before.map.side, maps[map].side) });
  };
  const goTo = (row, column) => {
    const last = now().map.side - 1;
    put(model, { cell: [clamp(row, 0, last), clamp(column, 0, last)] });
  };
  return { recipes, now, go, goTo };
}

// A margin for the priors of the map's corners, so that the picture is still while cells change; not too wide.
function marginFor(maps) {
  const corner = maps.flatMap((each) => {
    const [first, last] = [each.centres[0], each.centres[each.side - 1]];
    return each.shapes.flatMap((shape) => shape.flatMap((s) => [s / 2 - first, last + s / 2 - 1]));
  });
  return clamp(Math.max(...corner), 0, 0.22) + 0.015;
}

// Where fractions of the image lie on the picture, and back.
function mapping() {
  let margin = 0;
  const place = (fraction) => Number((((fraction + margin) / (1 + 2 * margin)) * PRIOR_VIEW).toFixed(2));
  return {
    place,
    rectOf: (box) => boxAttributes(box.map(place)),
    cellAt: (position, side) => Math.floor(((position / PRIOR_VIEW) * (1 + 2 * margin) - margin) * side),
    setMargin: (value) => {
      margin = value;
    },
  };
}

// A rectangle that takes the pointer and the arrow keys, and chooses a cell. On top of it, `hits` are the outlines of
// the priors: pointing at one lights up its row.
function cellPicker(stageOf, cellAt, { now, goTo }) {
  const picker = svg("rect", {
    class: "ssd-picker",
    tabindex: "0",
    role: "button",
    "aria-roledescription": "cell of a map",
  });
  const hits = svg("g", { "aria-hidden": "true" });
  const node = svg("g", {}, picker, hits);
  const cellOf = (at) => cellAt(at, now().map.side);
  pickable(node, stageOf, (x, y) => goTo(cellOf(y), cellOf(x)), picker);
  onArrows(picker, (dx, dy) => {
    const [row, column] = now().cell;
    goTo(row + dy, column + dx);
  });
  return { node, picker, hits };
}

// The image with the cells of the map, the priors of one of them, and what its kernel sees.
function priorStage(model, choices) {
  const stageOf = stage({ width: PRIOR_VIEW, height: PRIOR_VIEW, label: "An image, the cells of a feature map, and priors" });
  const { place, rectOf, cellAt, setMargin } = mapping();
  const photo = svg("image", { href: model.get("image"), preserveAspectRatio: "none", "aria-hidden": "true" });
  const grid = svg("path", { class: "ssd-cells" });
  const border = svg("rect", { class: "ssd-border" });
  const shade = svg("path", { class: "ssd-shade", "fill-rule": "evenodd" });
  const lit = svg("path", { class: "ssd-lit" });
  const kernel = svg("path", { class: "ssd-kernel" });
  const own = svg("rect", { class: "ssd-cell" });
  const centre = svg("circle", { class: "ssd-centre" });
  const others = svg("g", { class: "ssd-others", "aria-hidden": "true" });
  const lines = svg("g", { "aria-hidden": "true" });
  const { node: top, picker, hits } = cellPicker(stageOf, cellAt, choices);
  stageOf.node.classList.add("ssd-cut");
  stageOf.node.append(photo, grid, shade, border, kernel, own, others, lines, lit, centre, top);

  const drawBox = (box, color, link) => {
    const { inside, outside } = outline(box, place);
    const parts = [[inside, "ssd-inside"], [outside, "ssd-outside"]].filter(([d]) => d);
    const paths = parts.map(([d, name]) => [
      svg("path", { d, class: "ssd-halo" }),
      svg("path", { d, class: name, style: { stroke: color } }),
    ]);
    lines.append(svg("g", { "data-link": link }, paths));
    hits.append(svg("path", { d: inside + outside, class: "ssd-hit", "data-link": link }));
  };
  const drawPriors = ({ map, priors, otherMap, otherPriors }) => {
    const shown = model.get("shown");
    for (const layer of [lines, others, hits]) layer.replaceChildren();
    for (const [i, prior] of priors.entries()) {
      if (shown.includes(map.ratios[i])) drawBox(toCorners(prior), colorOf(i + 1), map.ratios[i]);
    }
    for (const [i, prior] of otherPriors.entries()) {
      if (!shown.includes(otherMap.ratios[i])) continue;
      const rect = rectOf(toCorners(prior));
      const pair = ["ssd-halo", "ssd-dotted"].map((name) => svg("rect", { class: name, ...rect }));
      others.append(svg("g", { "data-link": otherMap.ratios[i] }, pair));
    }
  };
  const drawCells = ({ map, cell: [row, column] }) => {
    const { side } = map;
    for (const node of [photo, border, picker]) update(node, rectOf([0, 0, 1, 1]));
    let d = "";
    for (let i = 1; i < side; i += 1) {
      d += `M${place(i / side)} ${place(0)}V${place(1)}M${place(0)} ${place(i / side)}H${place(1)}`;
    }
    update(grid, { d });
    update(own, rectOf([column / side, row / side, (column + 1) / side, (row + 1) / side]));
    update(centre, { cx: place(map.centres[column]), cy: place(map.centres[row]) });
    picker.setAttribute(
      "aria-label",
      `Row ${row}, column ${column} of a map of ${side} × ${side} cells. Arrow keys choose another cell.`,
    );
  };
  // The receptive field lights up; all around it lies in the shade. Says whether it is the whole image.
  const drawField = ({ on, recipe, map, cell }) => {
    for (const node of [shade, lit, kernel]) update(node, { d: "" });
    if (!on) return false;
    const [row, column] = cell;
    const field = receptiveField(map.field, cell).map((value) => clamp(value / recipe.size, 0, 1));
    const near = [column - 1, row - 1, column + 2, row + 2].map((value) => clamp(value, 0, map.side) / map.side);
    update(shade, { d: squarePath([0, 0, 1, 1], place) + squarePath(field, place) });
    update(lit, { d: squarePath(field, place) });
    update(kernel, { d: squarePath(near, place) });
    return field.every((value, i) => value === (i < 2 ? 0 : 1));
  };
  const show = (now) => {
    setMargin(marginFor(now.otherMap ? [now.map, now.otherMap] : [now.map]));
    drawCells(now);
    drawPriors(now);
    return drawField(now);
  };
  return { node: stageOf.node, show };
}
