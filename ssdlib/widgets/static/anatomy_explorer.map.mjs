// Part of AnatomyExplorer: a map and the picture side by side. A cell of the one shows what it depends on in the other.

const MAP_SIDE = 300; // of both, in units of their drawing

// What stands for the cells at a place of the network: { number, side, head, tiles, i }, `tiles` as { name, href, i, of }.
function mapAt({ network, layer, number, last }, channel) {
  if (number === last) {
    const maps = network.layers.flatMap((each, i) => (each.map >= 0 ? [{ ...each, number: i + 1 }] : []));
    const tiles = maps.map(({ shape, scores }) => ({ name: sizes(shape.slice(1)), href: scores, i: 0, of: 1 }));
    const i = Math.min(channel, maps.length - 1);
    return { number: maps[i].number, side: maps[i].shape[1], head: true, tiles, i };
  }
  const pictures = layer ? layer.picture : network.colors;
  const names = layer ? (layer.channels ?? []) : ["red", "green", "blue"];
  const tiles = pictures ? names.map((name, i) => ({ name: String(name), href: pictures, i, of: names.length })) : [];
  if (layer?.scores) tiles.push({ name: "score", href: layer.scores, i: 0, of: 1 });
  return { number, side: sideOf(network, number), head: false, tiles, i: tiles[channel] ? channel : 0 };
}

// The cell at a point of the image.
const cellAtPoint = ({ number, side, head }, [x, y]) => {
  const [column, row] = [x, y].map((at) => clamp(Math.floor(at * side), 0, side - 1));
  return { number, row, column, head };
};

/** @param {number[]} box */
const squareOf = ([x0, y0, x1, y1]) => `M${x0} ${y0}H${x1}V${y1}H${x0}Z`;

// The picture in the network's square, and the bright part of it, which the cell can depend on.
function fieldStage(image, pick) {
  const place = stage({ width: MAP_SIDE, height: MAP_SIDE, label: "The image, and what the cell can depend on" });
  const shade = svg("path", { class: "ssd-shade", "fill-rule": "evenodd" });
  const [lit, dot] = [svg("path", { class: "ssd-lit" }), svg("circle", { class: "ssd-centre" })];
  const touch = svg("rect", { class: "ssd-picker", width: MAP_SIDE, height: MAP_SIDE });
  place.node.classList.add("ssd-cut");
  place.node.append(
    svg("image", { href: image, width: MAP_SIDE, height: MAP_SIDE, preserveAspectRatio: "none", "aria-hidden": "true" }),
    shade,
    lit,
    dot,
    touch,
  );
  pickable(touch, place, (x, y) => pick([x / MAP_SIDE, y / MAP_SIDE]));
  const show = (fields, [x, y]) => {
    const box = fields[0].map((at) => at * MAP_SIDE);
    update(shade, { d: squareOf([0, 0, MAP_SIDE, MAP_SIDE]) + squareOf(box) });
    update(lit, { d: squareOf(box) });
    lit.classList.toggle("ssd-thin", box[2] - box[0] < 8);
    update(dot, { cx: x * MAP_SIDE, cy: y * MAP_SIDE });
  };
  return { node: place.node, show };
}

// One map, large: its cells take the pointer and the arrow keys.
function mapStage(pick) {
  const place = stage({ width: MAP_SIDE, height: MAP_SIDE, label: "A map of the layer" });
  const content = tilePicture();
  const grid = svg("path", { class: "ssd-cells" });
  const border = svg("rect", { class: "ssd-border", width: MAP_SIDE, height: MAP_SIDE });
  const cell = svg("rect", { class: "ssd-map-cell" });
  const picker = svg("rect", {
    class: "ssd-picker",
    width: MAP_SIDE,
    height: MAP_SIDE,
    tabindex: "0",
    role: "button",
    "aria-roledescription": "cell of a map",
  });
  update(content.node, { width: MAP_SIDE, height: MAP_SIDE });
  place.node.classList.add("ssd-cut");
  place.node.append(content.node, grid, border, cell, picker);
  let now = { side: 1, row: 0, column: 0 };
  const go = (row, column) => pick([column, row].map((at) => (clamp(at, 0, now.side - 1) + 0.5) / now.side));
  pickable(picker, place, (x, y) => go(Math.floor((y / MAP_SIDE) * now.side), Math.floor((x / MAP_SIDE) * now.side)));
  onArrows(picker, (dx, dy) => go(now.row + dy, now.column + dx));
  const show = ({ side, tiles, i }, { row, column }) => {
    now = { side, row, column };
    const size = MAP_SIDE / side;
    content.node.classList.toggle("ssd-absent", !tiles[i]?.href);
    if (tiles[i]?.href) content.set(tiles[i]);
    const lines = Array.from({ length: side < 41 ? side - 1 : 0 }, (_, k) => (k + 1) * size);
    update(grid, { d: lines.map((at) => `M${at} 0V${MAP_SIDE}M0 ${at}H${MAP_SIDE}`).join("") });
    grid.classList.toggle("ssd-over", Boolean(tiles[i]?.href));
    // A cell smaller than a few screen pixels is framed a little larger.
    const [wide, x, y] = [Math.max(size, 5), (column + 0.5) * size, (row + 0.5) * size];
    update(cell, { x: x - wide / 2, y: y - wide / 2, width: wide, height: wide });
    update(picker, { "aria-label": `Row ${row}, column ${column} of ${side} × ${side} cells. Arrow keys choose another cell.` });
  };
  return { node: place.node, show };
}

// Which of the layer's pictures is shown large. The buttons stay while layers change: a button that has the focus keeps it.
function channelStrip(count, change) {
  const [legend, ...words] = Array.from({ length: count + 1 }, () => html("span", {}));
  const pictures = Array.from({ length: count }, tilePicture);
  const options = pictures.map(({ node }, value) => ({ value, text: words[value], picture: node }));
  const row = choice({ label: legend, options, change });
  row.node.classList.add("ssd-thumbs", "ssd-strip");
  const labels = [...row.node.querySelectorAll("label")];
  const show = ({ tiles, i }, title) => {
    legend.textContent = title;
    for (const [k, label] of labels.entries()) {
      label.hidden = !tiles[k]?.href;
      if (label.hidden) continue;
      pictures[k].set(tiles[k]);
      words[k].textContent = tiles[k].name;
    }
    row.set(i);
  };
  return { node: row.node, show };
}
