// RoiExplorer: a box on a feature map, the points at which RoIAlign reads it, the cells that RoI pooling takes.

const METHOD_NAMES = { align: "RoIAlign", pool: "RoI pooling", shifted: "shifted ½" };

// The two cells around a position along one side of the map, and how far it is behind the first one's centre.
/** @type {(position: number, length: number) => [number, number, number]} */
function aroundOf(position, length) {
  const inside = Math.max(position, 0);
  const low = Math.floor(inside);
  return low >= length - 1 ? [length - 1, length - 1, 0] : [low, low + 1, inside - low];
}

// The four cells that a point (in cells) is interpolated from, as in ssdlib.family.roi.
/** @type {(x: number, y: number, width: number, height: number) => {row: number, column: number, weight: number}[]} */
function neighboursOf(x, y, width, height) {
  if (x < -0.5 || x > width + 0.5 || y < -0.5 || y > height + 0.5) return [];
  const [left, right, along] = aroundOf(x - 0.5, width);
  const [top, bottom, down] = aroundOf(y - 0.5, height);
  return [
    { row: top, column: left, weight: (1 - down) * (1 - along) },
    { row: top, column: right, weight: (1 - down) * along },
    { row: bottom, column: left, weight: down * (1 - along) },
    { row: bottom, column: right, weight: down * along },
  ];
}

// For each bin, row by row, its sampling points [x, y] in cells.
/** @type {(box: number[], bins: number, samples: number) => number[][][]} */
function samplingPoints([x0, y0, x1, y1], bins, samples) {
  const [width, height] = [(x1 - x0) / bins, (y1 - y0) / bins];
  return Array.from({ length: bins * bins }, (_, bin) =>
    Array.from({ length: samples * samples }, (_, k) => [
      x0 + ((bin % bins) + ((k % samples) + 0.5) / samples) * width,
      y0 + (Math.floor(bin / bins) + (Math.floor(k / samples) + 0.5) / samples) * height,
    ]),
  );
}

// The box that is read by mistake (`aligned=False`): half a cell further, and never smaller than a cell.
/** @param {number[]} box */
const halfCellOff = ([x0, y0, x1, y1]) => [
  x0 + 0.5,
  y0 + 0.5,
  x0 + 0.5 + Math.max(x1 - x0, 1),
  y0 + 0.5 + Math.max(y1 - y0, 1),
];

const valueAt = (values, cells) => cells.reduce((sum, { row, column, weight }) => sum + weight * values[row][column], 0);

/** @type {(values: number[][], box: number[], bins: number, samples: number) => number[]} */
function alignedOf(values, box, bins, samples) {
  const read = (/** @type {number[]} */ [x, y]) => valueAt(values, neighboursOf(x, y, values[0].length, values.length));
  return samplingPoints(box, bins, samples).map((points) => points.reduce((sum, point) => sum + read(point), 0) / points.length);
}

const roundHalfAway = (value) => Math.sign(value) * Math.floor(Math.abs(value) + 0.5);

// A number of the map, or the largest of some: whole ones without decimals.
const plain = (value) => fixed(value, Number.isInteger(value) ? 0 : 2);

// For each bin, row by row, the whole cells [left, top, right, bottom] that RoI pooling takes, the last two exclusive.
/** @type {(box: number[], bins: number, width: number, height: number) => number[][]} */
function poolingCells(box, bins, width, height) {
  const [left, top, right, bottom] = box.map(roundHalfAway);
  const along = (first, last, length) => {
    const size = Math.max(last - first + 1, 1) / bins;
    return Array.from({ length: bins }, (_, k) =>
      [first + Math.floor(k * size), first + Math.ceil((k + 1) * size)].map((end) => clamp(end, 0, length)),
    );
  };
  const columns = along(left, right, width);
  return along(top, bottom, height).flatMap(([y0, y1]) => columns.map(([x0, x1]) => [x0, y0, x1, y1]));
}

/** @type {(values: number[][], box: number[], bins: number) => number[]} */
const pooledOf = (values, box, bins) =>
  poolingCells(box, bins, values[0].length, values.length).map(([x0, y0, x1, y1]) => {
    const inside = values.slice(y0, y1).flatMap((row) => row.slice(x0, x1));
    return inside.length ? Math.max(...inside) : 0;
  });

// All that follows from the traits.
function roiOf(model) {
  const [values, stride, bins, samples, method] = ["values", "stride", "bins", "samples", "method"].map((key) => model.get(key));
  const [width, height] = [values[0].length, values.length];
  const box = model.get("box").map((side) => side / stride);
  const read = method === "shifted" ? halfCellOff(box) : box;
  const points = samplingPoints(read, bins, samples);
  const bin = Math.min(model.get("bin"), bins * bins - 1);
  const point = Math.min(model.get("point"), samples * samples - 1);
  const at = points[bin][point];
  const cells = poolingCells(box, bins, width, height);
  const results = {
    align: alignedOf(values, box, bins, samples),
    pool: pooledOf(values, box, bins),
    shifted: alignedOf(values, halfCellOff(box), bins, samples),
  };
  return { values, stride, bins, samples, method, box, read, points, bin, point, at, cells, results, near: neighboursOf(at[0], at[1], width, height) };
}

// The map with its numbers; on it the box, and what the chosen method reads.
function roiStage(model) {
  const [width, height] = model.get("size");
  const place = stage({ width, height, label: "A feature map, a number in each cell, and a box on it" });
  const { values, stride } = roiOf(model);
  const largest = Math.max(...values.flat().map(Math.abs), 1e-9);
  const cellBox = (column, row) => [column * stride, row * stride, (column + 1) * stride, (row + 1) * stride];
  const cells = values.flatMap((numbers, row) =>
    numbers.map((number, column) => [
      svg("rect", { class: "ssd-roi-cell", ...boxAttributes(cellBox(column, row)), "fill-opacity": fixed((0.55 * Math.abs(number)) / largest) }),
      svg("text", { class: "ssd-small ssd-roi-number", x: column * stride, y: row * stride }, String(roundTo(number, 0.01))),
      svg("circle", { class: "ssd-roi-centre", cx: (column + 0.5) * stride, cy: (row + 0.5) * stride }), // where it stands
    ]),
  );
  const [whole, taken, lines, dots, near] = ["whole", "taken", "lines", "dots", "near"].map((name) => svg("g", { class: `ssd-roi-${name}` }));
  const box = movableBox(place, {
    name: "Box",
    color: colorOf(2),
    get: () => model.get("box"),
    set: (next) => put(model, { box: next }),
  });
  place.node.append(svg("g", { "aria-hidden": "true" }, cells), taken, whole, near, box.node, lines, dots);
  const pixels = (side) => side * stride;
  const showPoints = ({ method, read, bins, points, bin, point, at, near: around }) => {
    const [x0, y0, x1, y1] = read.map(pixels);
    const inner = Array.from({ length: bins - 1 }, (_, k) => (k + 1) / bins);
    const d = inner.map((part) => `M${x0 + part * (x1 - x0)} ${y0}V${y1}M${x0} ${y0 + part * (y1 - y0)}H${x1}`).join("");
    const outline = method === "shifted" ? `M${x0} ${y0}H${x1}V${y1}H${x0}Z` : "";
    lines.replaceChildren(svg("path", { d: d + outline }));
    dots.replaceChildren(
      ...points.flatMap((some, i) =>
        some.map(([x, y], k) => svg("circle", { class: i === bin && k === point ? "ssd-chosen" : null, cx: pixels(x), cy: pixels(y) })),
      ),
    );
    near.replaceChildren(
      ...around
        .filter(({ weight }) => weight > 0)
        .flatMap(({ row, column, weight }) => [
          svg("rect", boxAttributes(cellBox(column, row))),
          svg("line", { x1: pixels(at[0]), y1: pixels(at[1]), x2: pixels(column + 0.5), y2: pixels(row + 0.5) }),
          svg("text", { class: "ssd-small ssd-tag ssd-roi-weight", x: pixels(column + 0.5), y: pixels(row + 1) }, `×${fixed(weight)}`),
        ]),
    );
  };
  const showCells = ({ cells: bins, bin }) => {
    whole.replaceChildren(...bins.map((one) => svg("rect", boxAttributes(one.map(pixels)))));
    taken.replaceChildren(svg("rect", boxAttributes(bins[bin].map(pixels))));
  };
  const show = (now) => {
    box.show();
    for (const group of [whole, taken, lines, dots, near]) group.replaceChildren();
    (now.method === "pool" ? showCells : showPoints)(now);
  };
  return { node: place.node, show };
}

// The result of each method as a grid; the number of the bin that is looked at is marked.
function resultGrids() {
  const parts = ["align", "pool"].map((method) => {
    const name = html("p", { class: "ssd-label" }, METHOD_NAMES[method]);
    const grid = html("div", { class: "ssd-roi-grid" });
    return { method, name, grid, node: html("div", { role: "group", "aria-label": `Result of ${METHOD_NAMES[method]}` }, name, grid) };
  });
  const show = ({ method, bins, bin, results }) => {
    for (const { method: own, name, grid } of parts) {
      const shown = own === "align" && method === "shifted" ? "shifted" : own;
      name.textContent = METHOD_NAMES[shown];
      grid.style.gridTemplateColumns = `repeat(${bins}, 1fr)`;
      grid.replaceChildren(
        ...results[shown].map((number, i) => html("span", { class: i === bin ? "ssd-current" : null }, own === "pool" ? plain(number) : fixed(number))),
      );
    }
  };
  return { node: html("div", { class: "ssd-roi-results" }, parts.map(({ node }) => node)), show };
}

// How the number of a point, or of a bin of RoI pooling, comes about.
function workingOf({ values, method, bin, bins, box, at, near, cells }) {
  if (method !== "pool") {
    const sum = near
      .filter(({ weight }) => weight > 0)
      .map(({ row, column, weight }) => `${fixed(weight)} · ${roundTo(values[row][column], 0.01)}`);
    const place = `column ${fixed(at[0])}, row ${fixed(at[1])}`;
    return `The point at ${place}: ${sum.join(" + ") || "outside of the map"} = ${fixed(valueAt(values, near))}.`;
  }
  const [left, top, right, bottom] = box;
  const [x0, y0, x1, y1] = cells[bin];
  const rounded = [left, right, top, bottom].map((side) => `${fixed(side)} → ${fixed(roundHalfAway(side), 0)}`);
  const number = plain(pooledOf(values, box, bins)[bin]);
  const taken = x1 > x0 && y1 > y0 ? `columns ${x0} to ${x1 - 1}, rows ${y0} to ${y1 - 1}: largest ${number}` : "no cell: 0";
  return `Columns ${rounded[0]}, ${rounded[1]}; rows ${rounded[2]}, ${rounded[3]}. This bin takes ${taken}.`;
}

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const drawing = roiStage(model);
  const [width, height] = model.get("size");
  const fields = boxFields({
    name: "Box, in pixels of the image",
    color: colorOf(2),
    get: () => model.get("box"),
    set: (box) => put(model, { box }),
    width,
    height,
  });
  const presets = html(
    "div",
    { class: "ssd-buttons ssd-roi-presets", role: "group", "aria-label": "Put the box" },
    model.get("presets").map(({ name, box }) => button(name, () => put(model, { box }))),
  );
  picture.append(
    drawing.node,
    html("p", { class: "ssd-hint" }, "Drag the box or its corners. By keyboard: arrow keys move, with Shift they resize."),
    fields.node,
  );
  const methods = choice({
    label: "Read the map by",
    options: Object.entries(METHOD_NAMES).map(([value, text]) => ({ value, text })),
    change: (method) => put(model, { method }),
  });
  const sizes = choice({
    label: "Bins",
    options: [1, 2, 3].map((value) => ({ value, text: `${value} × ${value}` })),
    change: (bins) => put(model, { bins }),
  });
  const steps = slider({
    label: "Look at",
    min: 0,
    max: 1,
    step: 1,
    format: (value) => {
      const { method, bins, samples } = roiOf(model);
      const [count, name] = method === "pool" ? [bins * bins, "bin"] : [bins * bins * samples * samples, "point"];
      return `${name} ${value + 1} of ${count}`;
    },
    change: (value) => {
      const { method, samples } = roiOf(model);
      const each = method === "pool" ? 1 : samples * samples;
      put(model, method === "pool" ? { bin: value } : { bin: Math.floor(value / each), point: value % each });
    },
  });
  const working = html("p", { class: "ssd-hint ssd-roi-working" });
  const grids = resultGrids();
  panel.append(methods.node, sizes.node, steps.node, working, grids.node, presets);

  watch(["box", "method", "bins", "bin", "point"], () => {
    const now = roiOf(model);
    const each = now.method === "pool" ? 1 : now.samples ** 2;
    drawing.show(now);
    fields.show();
    methods.set(now.method);
    sizes.set(now.bins);
    steps.range(0, now.bins ** 2 * each - 1);
    steps.set(now.method === "pool" ? now.bin : now.bin * each + now.point);
    working.textContent = workingOf(now);
    grids.show(now);
    const numbers = now.results[now.method].map((number) => (now.method === "pool" ? plain(number) : fixed(number))).join(", ");
    says(`${METHOD_NAMES[now.method]} of ${now.bins} by ${now.bins} bins, row by row: ${numbers}.`);
  });
  return end;
}

export default { render };
