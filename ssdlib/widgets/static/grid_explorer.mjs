// GridExplorer: a grid on an image; the cell that holds the centre of an object answers for it.

const GRID_SIDES = [3, 5, 7, 9, 13];

// The centre of a box in fractions of the image, with the arithmetic of Python: first divided, then added.
/** @type {(box: number[], size: number[]) => number[]} */
const centreOf = (box, [width, height]) => [(box[0] / width + box[2] / width) / 2, (box[1] / height + box[3] / height) / 2];

// Row and column of the cell that holds a centre: y is the row, x the column.
/** @type {(box: number[], size: number[], cells: number) => number[]} */
const cellOfBox = (box, size, cells) =>
  centreOf(box, size)
    .map((place) => clamp(Math.floor(place * cells), 0, cells - 1))
    .reverse();

// What a cell says of its object: x and y within the cell, and the roots of width and height.
/** @type {(box: number[], size: number[], cells: number) => number[]} */
function gridTargets(box, size, cells) {
  const [row, column] = cellOfBox(box, size, cells);
  const [x, y] = centreOf(box, size);
  const sides = [0, 1].map((i) => Math.sqrt(box[i + 2] / size[i] - box[i] / size[i]));
  return [x * cells - column, y * cells - row, ...sides];
}

// For each object its cell, and whether the cell answers for it: the first of those that are centred there.
/** @type {(boxes: number[][], size: number[], cells: number) => {row: number, column: number, kept: boolean}[]} */
function placesOf(boxes, size, cells) {
  const taken = new Set();
  return boxes.map((box) => {
    const [row, column] = cellOfBox(box, size, cells);
    const kept = !taken.has(`${row} ${column}`);
    taken.add(`${row} ${column}`);
    return { row, column, kept };
  });
}

const listed = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);

/** @type {(cell: number[], size: number[], cells: number) => number[]} */
const cellBox = ([row, column], [width, height], cells) =>
  [column * width, row * height, (column + 1) * width, (row + 1) * height].map((side) => side / cells);

// What the chosen cell has to do, in sentences.
function cellWords({ names, boxes, size, cells, cell, places, classes, predictors }) {
  const [row, column] = cell;
  const centred = names.map((_, m) => m).filter((m) => places[m].row === row && places[m].column === column);
  const head = `Row ${row}, column ${column}: `;
  if (centred.length === 0) {
    const covering = names.filter((_, m) => area(intersection(boxes[m], cellBox(cell, size, cells))) > 0);
    const whose = covering.length ? ` It lies on ${listed(covering)}, but no centre lies in it.` : "";
    const boxesOfCell = predictors === 1 ? "its box" : `its ${predictors} boxes`;
    return { head, say: `nobody's cell. The confidence of ${boxesOfCell} should be 0.${whose}`, numbers: "", loss: "" };
  }
  const [first, ...others] = centred.map((m) => names[m]);
  const [x, y, w, h] = gridTargets(boxes[centred[0]], size, cells).map((value) => fixed(value, 2));
  const loss = others.length
    ? `Lost: ${listed(others)}. The cell has one set of class probabilities, and ${first} has it.`
    : "";
  return {
    head,
    say: `the centre${others.length ? "s" : ""} of ${listed([first, ...others])}. The cell answers for ${first}.`,
    numbers: `x ${x}, y ${y} in the cell; √w ${w}, √h ${h}; P(${first}) = 1, the other ${classes - 1} classes 0.`,
    loss,
  };
}

function gridStage(model, goTo) {
  const [width, height] = model.get("size");
  const [boxes, names] = [model.get("boxes"), model.get("names")];
  const place = stage({ width, height, image: model.get("image"), label: "An image with its objects under a grid of cells" });
  const tints = svg("g", { "aria-hidden": "true" });
  const lines = svg("path", { class: "ssd-cells ssd-grid-lines" });
  const rects = boxes.map((box, m) => boxShape(box, { style: { stroke: colorOf(m + 1) }, "data-link": `o${m}` }));
  const dots = boxes.map((box, m) => {
    const [cx, cy] = toCentre(box);
    return svg("circle", { class: "ssd-handle", cx, cy, style: { fill: colorOf(m + 1) }, "data-link": `o${m}` });
  });
  const tags = names.map((name) => tag(name));
  for (const [m, text] of tags.entries()) placeTag(text, boxes[m], place);
  const own = svg("rect", { class: "ssd-cell ssd-grid-cell" });
  const picker = svg("rect", {
    class: "ssd-picker",
    x: 0,
    y: 0,
    width,
    height,
    tabindex: "0",
    role: "button",
    "aria-roledescription": "cell of a grid",
  });
  place.node.append(tints, lines, ...rects, own, ...dots, ...tags, picker);
  const at = (position, length) => Math.floor((position / length) * model.get("cells"));
  pickable(picker, place, (x, y) => goTo(at(y, height), at(x, width)));
  onArrows(picker, (dx, dy) => goTo(model.get("cell")[0] + dy, model.get("cell")[1] + dx));
  const show = ({ cells, cell, size, places }) => {
    let d = "";
    for (let i = 1; i < cells; i += 1) d += `M${(i * width) / cells} 0V${height}M0 ${(i * height) / cells}H${width}`;
    update(lines, { d });
    tints.replaceChildren(
      ...places.flatMap(({ row, column, kept }, m) =>
        kept ? [svg("rect", { class: "ssd-grid-tint", ...boxAttributes(cellBox([row, column], size, cells)), style: { fill: colorOf(m + 1) } })] : [],
      ),
    );
    for (const [m, { kept }] of places.entries()) rects[m].setAttribute("class", kept ? "ssd-box" : "ssd-box ssd-dashed");
    update(own, boxAttributes(cellBox(cell, size, cells)));
    picker.setAttribute(
      "aria-label",
      `Row ${cell[0]}, column ${cell[1]} of a grid of ${cells} × ${cells} cells. Arrow keys choose another cell.`,
    );
  };
  return { node: place.node, show };
}

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const [boxes, names, size] = ["boxes", "names", "size"].map((key) => model.get(key));
  const now = () => {
    const cells = model.get("cells");
    const cell = model.get("cell").map((place) => Math.min(place, cells - 1)); // Python may set the grid first
    const places = placesOf(boxes, size, cells);
    return { boxes, names, size, cells, cell, places, classes: model.get("classes"), predictors: model.get("predictors") };
  };
  const goTo = (row, column) => {
    const last = model.get("cells") - 1;
    put(model, { cell: [clamp(row, 0, last), clamp(column, 0, last)] });
  };
  const drawing = gridStage(model, goTo);
  picture.append(
    drawing.node,
    html("p", { class: "ssd-hint" }, "Tap a cell, or walk with the arrow keys. A tinted cell answers for the object of its colour; a dashed object is lost."),
  );
  const side = choice({
    label: "Cells of a side",
    options: GRID_SIDES.map((value) => ({ text: String(value), value })),
    change: (cells) => {
      const { cell, cells: before } = now();
      put(model, { cells, cell: cell.map((at) => clamp(Math.floor(((at + 0.5) / before) * cells), 0, cells - 1)) });
    },
  });
  const sums = readout([{ text: "numbers of the output" }, { text: "objects that are learned" }]);
  const words = html("p", { class: "ssd-grid-words" });
  const objects = table({ caption: "Objects and their cells", head: ["object", "row", "column", "learned"] });
  panel.append(side.node, sums.node, words, objects.node);

  watch(["cells", "cell", "predictors", "classes"], () => {
    const seen = now();
    const { cells, cell, places, classes, predictors } = seen;
    const kept = places.filter((each) => each.kept).length;
    const depth = 5 * predictors + classes;
    side.set(cells);
    drawing.show(seen);
    sums.set([
      `${cells} × ${cells} × (${predictors} × 5 + ${classes}) = ${thousands(cells * cells * depth)}`,
      `${kept} of ${names.length}`,
    ]);
    const { head, say, numbers, loss } = cellWords(seen);
    words.replaceChildren(html("strong", {}, head), `${say} ${numbers} `, loss && html("strong", {}, loss));
    objects.set(
      places.map(({ row, column, kept: learned }, m) => ({
        cells: [html("span", {}, swatch(colorOf(m + 1)), names[m]), row, column, learned ? "yes" : "lost"],
        current: row === cell[0] && column === cell[1],
        link: `o${m}`,
        click: () => goTo(row, column),
      })),
    );
    says(`${head}${say} ${loss}`.trim());
  });
  return end;
}

export default { render };
