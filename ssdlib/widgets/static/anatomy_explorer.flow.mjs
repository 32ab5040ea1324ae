// Part of AnatomyExplorer: the network as a flow of small maps, from the image to the bar of all predictions.

const FLOW = { wide: 700, narrow: 400, floor: 66, bar: 92, high: 112 };

const sizes = (shape) => shape.join(" × ");

// Rows of predictions that a layer has: one for each prior of each of its cells.
const rowsOf = ({ shape: [, high, wide], per_cell: each }) => high * wide * each;

const linkOf = (number) => `l${number}`;

// Cells on a side of a layer, or pixels of the image, which is number 0.
const sideOf = (network, number) => (number ? network.layers[number - 1].shape[1] : network.size);

// What a row (or column) of a layer can depend on: [first, last] row of each layer before it, from the image on, and of
// itself. Cells beyond the border are padding, and lead no further back. With `head` it is a prediction's row.
function dependence(network, number, row, head = false) {
  const spans = [];
  let [low, high] = head ? [row - 1, row + 1] : [row, row];
  for (let i = number; ; i -= 1) {
    const last = sideOf(network, i) - 1;
    [low, high] = [clamp(low, 0, last), clamp(high, 0, last)];
    spans[i] = [low, high];
    if (i === 0) return spans;
    const { kernel, stride, padding, dilation } = network.layers[i - 1];
    [low, high] = [low * stride - padding, high * stride - padding + dilation * (kernel - 1)];
  }
}

// The part of a layer that a cell depends on, xyxy in fractions of the layer, for each layer up to the cell's own.
function fieldsOf(network, { number, row, column, head }) {
  const [rows, columns] = [row, column].map((at) => dependence(network, number, at, head));
  return rows.map(([top, bottom], i) => {
    const side = sideOf(network, i);
    return [columns[i][0] / side, top / side, (columns[i][1] + 1) / side, (bottom + 1) / side];
  });
}

// One of the tiles of a picture that has them one below the other, as an SVG; `set` changes which.
function tilePicture() {
  const image = svg("image", { width: 1, preserveAspectRatio: "none" });
  const node = svg("svg", { class: "ssd-tile", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" }, image);
  const set = ({ href, i, of }) => {
    update(image, { href, height: of });
    update(node, { viewBox: `0 ${i} 1 1` });
  };
  return { node, set };
}

// The image and the layers as squares, the larger the more cells they have; what a layer answers is drawn in them.
function flowSquares(network, { image, gap, choose }) {
  const largest = Math.min(44, 0.94 * gap);
  const all = [{ name: "image", shape: [3, network.size, network.size], map: -1 }, ...network.layers];
  return all.map(({ name, shape, map, picture, channels }, i) => {
    const side = largest * (0.25 + (0.75 * Math.log2(shape[1])) / Math.log2(network.size));
    const box = { x: (i + 0.5) * gap - side / 2, y: FLOW.floor - side, width: side, height: side };
    const content = i ? tilePicture() : { node: svg("image", { href: image, preserveAspectRatio: "none", ...box }) };
    if (i) update(content.node, box);
    content.set?.({ href: picture, i: 0, of: channels?.length ?? 1 });
    const rim = svg("rect", { class: "ssd-layer", ...box, style: map < 0 ? {} : { stroke: colorOf(map + 1) } });
    rim.classList.toggle("ssd-predicts", map >= 0);
    const field = svg("rect", { class: "ssd-depends" });
    const node = svg(
      "g",
      {
        class: "ssd-flow-layer",
        role: "button",
        "data-link": linkOf(i),
        "aria-label": `${name}, ${sizes(shape)}`,
        click: () => choose(i),
      },
      svg("rect", { class: "ssd-hold", x: i * gap, y: 0, width: gap, height: FLOW.floor + 6 }),
      picture || i === 0 ? content.node : svg("rect", { class: "ssd-plain", ...box }),
      rim,
      map < 0 ? null : svg("text", { class: "ssd-small", x: (i + 0.5) * gap, y: box.y - 4, "text-anchor": "middle" }, shape[1]),
      field,
    );
    const depends = (part) => {
      const [x0, y0, x1, y1] = part ?? [0, 0, 0, 0];
      update(field, boxAttributes([box.x + x0 * side, box.y + y0 * side, box.x + x1 * side, box.y + y1 * side]));
      field.classList.toggle("ssd-absent", !part);
    };
    return { node, rim, depends };
  });
}

// The bar of all predictions, with a part for each map: as wide as its share of the priors, but never too narrow to see.
function predictionBar(network, { wide, gap, choose }) {
  const predicting = network.layers.map((layer, i) => ({ ...layer, number: i + 1, at: (i + 1.5) * gap })).filter(({ map }) => map >= 0);
  const shares = predicting.map((layer) => Math.max(0.04, rowsOf(layer) / network.priors));
  const all = shares.reduce((sum, share) => sum + share, 0);
  let left = 0;
  const parts = predicting.map(({ map, number, at }, i) => {
    const width = (shares[i] / all) * wide;
    const [from, to, goal] = [FLOW.floor + 2, FLOW.bar - 2, left + width / 2];
    const line = svg("path", { class: "ssd-flow", d: `M${at} ${from}C${at} ${(from + to) / 2} ${goal} ${(from + to) / 2} ${goal} ${to}`, style: { stroke: colorOf(map + 1) } });
    const rect = svg("rect", { class: "ssd-layer", x: left, y: FLOW.bar, width, height: 16, style: { fill: colorOf(map + 1) } });
    left += width;
    return { number, line, rect, node: svg("g", { "data-link": linkOf(number), click: () => choose(map) }, line, rect) };
  });
  const node = svg("g", { class: "ssd-flow-layer", role: "button", "aria-label": "all predictions" }, parts.map((part) => part.node));
  node.addEventListener("click", (event) => event.target === node && choose(0)); // by key
  return { node, parts };
}

// All of it for one network; `choose` gets the number of a layer, and of the end with the map.
function flowDiagram(network, { image, narrow, choose }) {
  const wide = narrow ? FLOW.narrow : FLOW.wide;
  const count = network.layers.length + 1; // the image too
  const gap = wide / count;
  const place = stage({ width: wide, height: FLOW.high, label: "The layers from the image to the predictions" });
  place.node.classList.add("ssd-diagram");
  const squares = flowSquares(network, { image, gap, choose });
  const bar = predictionBar(network, { wide, gap, choose: (map) => choose(count, map) });
  const words = svg("text", { class: "ssd-tag", "aria-hidden": "true", "text-anchor": "middle", y: 20 });
  place.node.append(bar.node, ...squares.map(({ node }) => node), words);
  const stops = [...squares.map(({ node }) => node), bar.node];
  walkable(place.node, () => stops, { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -1, ArrowDown: () => 1 });

  let chosen = 0;
  // `cell` is { number, row, column, head }: what it depends on is framed in each layer.
  const show = (number, cell) => {
    const last = number === count;
    const fields = fieldsOf(network, cell);
    for (const [i, { rim, depends }] of squares.entries()) {
      rim.classList.toggle("ssd-chosen", i === number);
      depends(fields[i]);
    }
    for (const part of bar.parts) {
      const on = last ? part.number === cell.number : part.number === number;
      part.line.classList.toggle("ssd-chosen", on);
      part.rect.classList.toggle("ssd-chosen", on || last);
    }
    for (const [i, stop] of stops.entries()) stop.setAttribute("aria-pressed", String(i === number));
    if (!place.node.contains(document.activeElement)) rove(stops, stops[number], null);
    chosen = number;
    say(number);
  };
  // The name of what is pointed at stands above it, else that of what is chosen.
  const say = (number) => {
    words.textContent = number === count ? "all predictions" : number === 0 ? "image" : network.layers[number - 1].name;
    update(words, { x: number === count ? wide / 2 : clamp((number + 0.5) * gap, 40, wide - 40) });
  };
  const point = (links) => {
    const pointed = stops.findIndex((_, i) => links === linkOf(i));
    say(pointed < 0 ? chosen : pointed);
  };
  return { name: network.name, node: place.node, show, point };
}
