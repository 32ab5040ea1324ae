// WindowExplorer: windows on an image, their cells on each map of the network, and which of those are new.

// For each layer, the answers last: the cells along a side of a window, and in a stride.
/** @type {(layers: {kernel: number, stride: number}[], window: number, stride: number) => number[][]} */
function mapsOf(layers, window, stride) {
  let [cells, step] = [window, 1];
  return layers.map((layer) => {
    cells = Math.floor((cells - layer.kernel) / layer.stride) + 1;
    step *= layer.stride;
    return [cells, Math.floor(stride / step)];
  });
}

// Height and width of the block of cells that no earlier window had.
/** @type {(map: number[], place: number[]) => number[]} */
const newCells = ([cells, step], place) => place.map((at) => (at ? step : cells));

// How many cells the windows up to this one have, each counted once.
/** @type {(map: number[], place: number[], count: number) => number} */
function computedCells([cells, step], [row, column], count) {
  const [height, width] = newCells([cells, step], [row, column]);
  const above = row ? (cells + (count - 1) * step) * (cells + (row - 1) * step) : 0;
  return above + (column ? (cells + (column - 1) * step) * height : 0) + height * width;
}

// Multiplications up to this window: with every window for itself, and with every number computed once.
/** @type {(layers: {each: number}[], maps: number[][], place: number[], count: number) => number[]} */
function costsOf(layers, maps, place, count) {
  const sum = (cellsOf) => maps.reduce((total, map, k) => total + cellsOf(map) * layers[k].each, 0);
  const windows = place[0] * count + place[1] + 1;
  return [windows * sum(([cells]) => cells * cells), sum((map) => computedCells(map, place, count))];
}

// Which part of a window's multiplications is new.
function newShare({ layers, maps, place }) {
  const sum = (cellsOf) => maps.reduce((total, map, k) => total + cellsOf(map) * layers[k].each, 0);
  return sum((map) => newCells(map, place)[0] * newCells(map, place)[1]) / sum(([cells]) => cells * cells);
}

// All that follows from the traits.
function windowsOf(model) {
  const [layers, window, stride, side] = ["layers", "window", "stride", "side"].map((key) => model.get(key));
  const count = Math.floor((side - window) / stride) + 1;
  const place = model.get("place").map((at) => Math.min(at, count - 1)); // Python may set the side first
  const maps = mapsOf(layers, window, stride);
  const [label, score] = model.get("answers")[place[0]][place[1]];
  return { layers, window, stride, side, count, place, maps, label, score, costs: costsOf(layers, maps, place, count) };
}

const [SMALL, GAP, HEAD] = [86, 10, 24]; // a map, the room beside it, and that for the words above it

// Where things are drawn: the image large, and right of it two columns of maps.
function panels(maps) {
  const rows = Math.ceil(maps / 2);
  const large = rows * (SMALL + HEAD) - HEAD;
  const small = Array.from({ length: maps }, (_, k) => ({
    x: large + (k % 2) * SMALL + (1 + (k % 2)) * GAP,
    y: HEAD + Math.floor(k / 2) * (SMALL + HEAD),
    length: SMALL,
  }));
  return { width: large + 2 * (SMALL + GAP), height: rows * (SMALL + HEAD), frames: [{ x: 0, y: HEAD, length: large }, ...small] };
}

// One map, or the image: what earlier windows had, the window, and what is new of it.
function mapPanel({ x, y, length }, link, picture = null) {
  const words = svg("text", { class: "ssd-small", x, y: y - 6 });
  const [known, shared, fresh, own] = ["known", "shared", "new", "own"].map((name) => svg("rect", { class: `ssd-window-${name}` }));
  const beside = svg("rect", { class: "ssd-window-known" });
  const lines = svg("path", { class: "ssd-window-lines" });
  const dots = svg("g", {});
  const ground = svg("rect", { class: "ssd-window-ground", x, y, width: length, height: length });
  const parts = [ground, picture, known, beside, shared, fresh, lines, own, dots].filter(Boolean);
  const node = svg("g", { "aria-hidden": "true", "data-link": link }, words, parts);
  /** @type {(map: number[], place: number[], count: number) => number} */
  const show = ([cells, step], [row, column], count) => {
    const whole = cells + (count - 1) * step;
    const unit = length / whole;
    const block = (left, top, wide, high) => ({ x: x + left * unit, y: y + top * unit, width: Math.max(0, wide) * unit, height: Math.max(0, high) * unit });
    const [left, top] = [column * step, row * step];
    const [high, wide] = newCells([cells, step], [row, column]);
    const seen = row ? cells + (row - 1) * step : 0; // rows that the windows above have
    update(known, block(0, 0, whole, seen));
    update(beside, block(0, seen, column ? cells + (column - 1) * step : 0, top + cells - seen));
    update(shared, block(left, top, cells, cells));
    update(fresh, block(left + cells - wide, top + cells - high, wide, high));
    update(own, block(left, top, cells, cells));
    let d = "";
    if (whole <= 12) for (let i = 1; i < whole; i += 1) d += `M${x + i * unit} ${y}v${length}M${x} ${y + i * unit}h${length}`;
    update(lines, { d });
    words.textContent = `${whole} × ${whole}`;
    return unit;
  };
  return { node, show, dots };
}

function windowStage(model, goTo) {
  const { maps, window, stride } = windowsOf(model);
  const { width, height, frames } = panels(maps.length);
  const place = stage({ width, height, label: "An image with a window, and its maps, layer by layer" });
  const [image, answers] = [frames[0], frames.at(-1)];
  const sides = model.get("sides");
  const full = sides.at(-1);
  const picture = svg("image", { href: model.get("image"), width: full, height: full });
  const view = svg("svg", { x: image.x, y: image.y, width: image.length, height: image.length }, picture);
  const drawn = frames.map((frame_, k) => mapPanel(frame_, `m${k}`, k ? null : view));
  // A finger on the image is the middle of its window; on the last map it is at an answer.
  const at = (x, y, { x: left, y: top, length }) => [(y - top) / length, (x - left) / length];
  const pick = (x, y) => {
    const { side, count } = windowsOf(model);
    if (x > answers.x - GAP / 2) goTo(...at(x, y, answers).map((share) => Math.floor(share * count)));
    else goTo(...at(x, y, image).map((share) => Math.round((share * side - window / 2) / stride)));
  };
  const touched = [image, answers].map(({ x, y, length }) => svg("rect", { class: "ssd-picker", x, y, width: length, height: length }));
  const picker = svg("g", { tabindex: "0", role: "button", "aria-roledescription": "window on an image" }, touched);
  pickable(picker, place, pick);
  onArrows(picker, (dx, dy) => goTo(model.get("place")[0] + dy, model.get("place")[1] + dx));
  place.node.append(...drawn.map(({ node }) => node), picker);
  const show = ({ side, count, place: [row, column] }) => {
    update(view, { viewBox: `0 0 ${side} ${side}` });
    const blocks = [[window, stride], ...maps];
    const units = drawn.map((panel, k) => panel.show(blocks[k], [row, column], count));
    const unit = units.at(-1);
    // A dot for each answer that is there: the surer of an object, the larger.
    drawn.at(-1).dots.replaceChildren(
      ...Array.from({ length: row * count + column + 1 }, (_, i) => {
        const [y, x] = [Math.floor(i / count), i % count];
        const [label, score] = model.get("answers")[y][x];
        return svg("circle", { class: "ssd-window-dot", cx: answers.x + (x + 0.5) * unit, cy: answers.y + (y + 0.5) * unit, r: label ? 0.4 * score * unit : 0 });
      }),
    );
    picker.setAttribute("aria-label", `Window in row ${row}, column ${column} of ${count} × ${count}. Arrow keys move it by ${stride} pixels.`);
  };
  return { node: place.node, show };
}

const millions = (value) => (value < 1e9 ? `${fixed(value / 1e6, value < 1e8 ? 1 : 0)} million` : `${fixed(value / 1e9, 2)} thousand million`);

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const [names, stride] = ["names", "stride"].map((key) => model.get(key));
  const goTo = (row, column) => {
    const { count, place } = windowsOf(model);
    const next = [clamp(row, 0, count - 1), clamp(column, 0, count - 1)];
    if (next.join() !== place.join()) put(model, { place: next });
  };
  const drawing = windowStage(model, goTo);
  picture.append(
    drawing.node,
    html(
      "p",
      { class: "ssd-hint" },
      "Drag the window, or walk with the arrow keys. ",
      html("span", { class: "ssd-window-key ssd-window-key-known" }, "had by an earlier window"),
      " ",
      html("span", { class: "ssd-window-key ssd-window-key-new" }, "new"),
      ". A dot in the last map: an object; the larger, the surer.",
    ),
  );
  const sides = choice({
    label: "Pixels a side of the image",
    options: model.get("sides").map((value) => ({ text: String(value), value })),
    change: (side) => {
      const { window, place } = windowsOf(model);
      put(model, { side, place: place.map((at) => Math.min(at, Math.floor((side - window) / stride))) });
    },
  });
  const walk = player({
    label: "windows",
    pause: 500,
    words: (step, last) => `${step + 1} of ${last + 1}`,
    change: (step) => {
      const { count } = windowsOf(model);
      goTo(Math.floor(step / count), step % count);
    },
  });
  const words = html("p", { class: "ssd-window-words" });
  const cells = table({ caption: "Cells of the window", head: ["map", "in all", "new"] });
  const sums = readout([{ text: "windows so far, one by one" }, { text: "every number once" }, { text: "saved" }]);
  panel.append(sides.node, walk.node, words, cells.node, sums.node);

  watch(["side", "place"], () => {
    const seen = windowsOf(model);
    const { count, place, maps, label, score, costs, side } = seen;
    const [alone, once] = costs;
    drawing.show(seen);
    sides.set(side);
    walk.set(place[0] * count + place[1], count * count - 1);
    const answer = `${label ? names[label - 1] : "background"}, ${fixed(score)}`;
    words.replaceChildren(`Row ${place[0]}, column ${place[1]}: `, html("strong", {}, answer));
    cells.set(
      maps.map((map, k) => {
        const [high, wide] = newCells(map, place);
        const name = k < maps.length - 1 ? String(k + 1) : "answers";
        return { cells: [name, `${map[0]} × ${map[0]}`, `${high} × ${wide}`], link: `m${k + 1}` };
      }),
    );
    sums.set([millions(alone), millions(once), `${fixed(alone / once, 1)} times`]);
    says(`Window ${place[0] * count + place[1] + 1} of ${count * count}: ${answer}. New of its multiplications: ${fixed(100 * newShare(seen), 0)} percent.`);
  });
  return end;
}

export default { render };
