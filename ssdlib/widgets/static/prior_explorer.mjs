// PriorExplorer: the cells of a feature map on an image, and the priors of one of them.

const VIEW = 300; // side of the picture, which shows the image and a margin around it
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
  const place = (fraction) => Number((((fraction + margin) / (1 + 2 * margin)) * VIEW).toFixed(2));
  return {
    place,
    rectOf: (box) => boxAttributes(box.map(place)),
    cellAt: (position, side) => Math.floor(((position / VIEW) * (1 + 2 * margin) - margin) * side),
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
  const pick = (event) => {
    const [column, row] = stageOf.at(event).map((at) => cellAt(at, now().map.side));
    goTo(row, column);
  };
  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    picker.focus({ preventScroll: true });
    picker.setPointerCapture(event.pointerId);
    pick(event);
  });
  node.addEventListener("pointermove", (event) => picker.hasPointerCapture(event.pointerId) && pick(event));
  onArrows(picker, (dx, dy) => {
    const [row, column] = now().cell;
    goTo(row + dy, column + dx);
  });
  return { node, picker, hits };
}

// The image with the cells of the map, the priors of one of them, and what its kernel sees.
function priorStage(model, choices) {
  const stageOf = stage({ width: VIEW, height: VIEW, label: "An image, the cells of a feature map, and priors" });
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

// The priors of the cell as rows: ticked ones are drawn. The rows stay while their numbers change, so that a box that
// was ticked keeps the focus.
function priorRows(model) {
  const caption = html("caption", {});
  const head = html("tr", {});
  const body = html("tbody", {});
  const node = html(
    "div",
    { class: "ssd-table ssd-priors", role: "group", "aria-label": "The priors of this cell", tabindex: "0" },
    html("table", {}, caption, html("thead", {}, head), body),
  );
  let rows = [];
  let rowsOf = "";
  const makeRow = (ratio, i) => {
    const input = html("input", {
      type: "checkbox",
      change: () => {
        const rest = model.get("shown").filter((name) => name !== ratio);
        put(model, { shown: input.checked ? [...rest, ratio] : rest });
      },
    });
    const [scale, shape, last] = [1, 2, 3].map(() => html("td", {}));
    const name = html("label", {}, input, swatch(colorOf(i + 1)), ratio);
    return { ratio, input, scale, shape, last, node: html("tr", { "data-link": ratio }, html("th", { scope: "row" }, name), scale, shape, last) };
  };
  const px = ([w, h], size) => `${pixels(w * size)} × ${pixels(h * size)}`;
  // The last column: whether the prior crosses the border, or its partner in the other recipe.
  const partner = ({ other, otherMap, otherPriors }, ratio, box) => {
    if (!other) return [crosses(box) ? "crosses" : "inside"];
    const at = otherMap ? otherMap.ratios.indexOf(ratio) : -1;
    if (at < 0) return ["none"];
    const overlap = fixed(iou(box, toCorners(otherPriors[at])), 2);
    return [px(otherMap.shapes[at], other.size), html("br", {}), `IoU ${overlap}`];
  };
  const show = (now) => {
    const { recipe, map, cell: [row, column], priors, other } = now;
    if (rowsOf !== map.ratios.join()) {
      rowsOf = map.ratios.join();
      rows = map.ratios.map(makeRow);
      body.replaceChildren(...rows.map((each) => each.node));
    }
    caption.textContent = `Priors of row ${row}, column ${column}${map.name ? `, ${map.name}` : ""}`;
    const titles = ["ratio", "scale", "w × h in px", other ? "dotted, in px" : "border"];
    head.replaceChildren(...titles.map((text) => html("th", { scope: "col" }, text)));
    const shown = model.get("shown");
    for (const [i, each] of rows.entries()) {
      each.input.checked = shown.includes(each.ratio);
      each.scale.textContent = fixed(each.ratio === "extra" ? Math.sqrt(map.scale * map.next) : map.scale, 3);
      each.shape.textContent = px(map.shapes[i], recipe.size);
      each.last.replaceChildren(...partner(now, each.ratio, toCorners(priors[i])));
    }
  };
  return { node, show };
}

function extraText(map) {
  if (!map.ratios.includes("extra")) return "This map has no extra square.";
  const root = fixed(Math.sqrt(map.scale * map.next), 3);
  return (
    "extra: one more square, between this map's scale and the next. Its scale is " +
    `√(${fixed(map.scale, 3)} × ${fixed(map.next, 3)}) = ${root}.`
  );
}

function noteText({ recipe, number, map, other, otherMap }) {
  const centres = recipe.steps.length
    ? `The centres lie ${recipe.steps[number]} px apart, as the recipe says. `
    : `The centres lie ${recipe.size} / ${map.side} = ${pixels(recipe.size / map.side)} px apart. `;
  const border = recipe.clipped
    ? "Widths and heights are limited to the side of the image; nothing is cut at its border."
    : "Priors are not clipped at the border: the dashed part lies outside the image.";
  return `${centres}${border}${other && !otherMap ? " The other recipe has no such map." : ""}`;
}

function fieldText({ recipe, map, cell: [row, column] }) {
  if (map.field === null) return "The network of this recipe is not one of the book's.";
  const shift = map.field.start + column * map.field.step - map.centres[column] * recipe.size;
  const down = map.field.start + row * map.field.step - map.centres[row] * recipe.size;
  const where = (value, less, more) => `${pixels(Math.abs(value))} px ${value < 0 ? less : more}`;
  return (
    `The kernel reads 3 × 3 cells of ${map.name} (thin frame). Through the layers before, it reaches ` +
    `${map.field.side} × ${map.field.side} px; what the image has of them is bright. ` +
    (Math.max(Math.abs(shift), Math.abs(down)) >= 1
      ? `Their middle lies ${where(shift, "left", "right")} of and ${where(down, "above", "below")} the centre of ` +
        "the cell: strides and padding shift it. "
      : "") +
    "This is the theoretical receptive field; pixels near its rim reach the kernel by few paths, so the effective " +
    "one is smaller."
  );
}

// The maps up to the one that is shown fill a bar, which stands for all priors.
function priorCounter() {
  const node = html("div", { class: "ssd-counter", "aria-hidden": "true" });
  const show = ({ recipe, number }) =>
    node.replaceChildren(
      ...recipe.maps.map(({ side, shapes }, i) =>
        html("i", {
          class: i < number ? "ssd-counted" : i === number ? "ssd-counting" : null,
          style: { flexGrow: side ** 2 * shapes.length },
        }),
      ),
    );
  return { node, show };
}

// How the priors of the maps add up, and which rows this cell has of them.
function priorSums() {
  const counter = priorCounter();
  const { node, set } = readout([
    { text: "priors of this map" },
    { text: "of them over the border" },
    { text: "count up to this map" },
    { text: "numbers of this cell" },
  ]);
  const show = ({ recipe, number, map, cell: [row, column], priors }) => {
    const counts = recipe.maps.map((each) => each.side ** 2 * each.shapes.length);
    const before = counts.slice(0, number);
    const soFar = before.reduce((sum, count) => sum + count, counts[number]);
    const first = map.first + (row * map.side + column) * priors.length;
    counter.show({ recipe, number });
    set([
      `${map.side} × ${map.side} × ${priors.length} = ${thousands(counts[number])}`,
      `${thousands(map.crossing)} of ${thousands(counts[number])}`,
      html(
        "span",
        {},
        number > 0 ? `${before.map(thousands).join(" + ")} + ` : "",
        html("strong", {}, thousands(counts[number])),
        number > 0 ? ` = ${thousands(soFar)}` : "",
        ` of ${thousands(recipe.count)}`,
      ),
      `${thousands(first)} to ${thousands(first + priors.length - 1)}`,
    ]);
  };
  return { node: html("div", {}, counter.node, node), show };
}

// The image under the cells of a map, small.
function thumbnail(image, side) {
  const cells = Array.from({ length: side + 1 }, (_, i) => `M${(60 * i) / side} 0V60M0 ${(60 * i) / side}H60`).join("");
  return svg(
    "svg",
    { class: "ssd-thumb", viewBox: "0 0 60 60", "aria-hidden": "true" },
    svg("image", { href: image, width: 60, height: 60, preserveAspectRatio: "none" }),
    svg("path", { d: cells, class: side > 12 ? "ssd-fine" : null }),
  );
}

// Recipe, map, and the recipe to compare with.
function priorChoices(model, { recipes, now, go }) {
  const recipe = select({
    label: "Recipe",
    options: recipes.map(({ name, title }) => ({ value: name, text: title })),
    change: (name) => go(name, now().number),
  });
  const maps = recipes.map((each) => {
    const options = each.maps.map(({ side }, i) => ({
      value: i,
      text: `${side} × ${side}`,
      picture: thumbnail(model.get("image"), side),
    }));
    const made = choice({ label: "Feature map, in cells", options, change: (i) => go(each.name, i) });
    made.node.classList.add("ssd-thumbs");
    return { name: each.name, ...made };
  });
  const compare = select({
    label: "Compare (dotted)",
    options: [{ value: "", text: "nothing" }, ...recipes.map(({ name, title }) => ({ value: name, text: title }))],
    change: (name) => put(model, { compare: name }),
  });
  const show = (chosenNow) => {
    recipe.set(chosenNow.recipe.name);
    compare.set(model.get("compare"));
    for (const each of maps) {
      each.node.hidden = each.name !== chosenNow.recipe.name;
      each.set(chosenNow.number);
    }
  };
  return { recipes: html("div", { class: "ssd-pair" }, recipe.node, compare.node), maps: maps.map(({ node }) => node), show };
}

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const choices = chosen(model);
  const drawing = priorStage(model, choices);
  const controls = priorChoices(model, choices);
  const steps = player({
    label: "Cells in the order of the predictions",
    pause: 500,
    change: (step) => {
      const { side } = choices.now().map;
      choices.goTo(Math.floor(step / side), step % side);
    },
  });
  const sums = priorSums();
  const rows = priorRows(model);
  const field = checks({
    label: "",
    options: [{ value: "on", text: "What the kernel sees" }],
    change: (values) => put(model, { show_receptive_field: values.length > 0 }),
  });
  const [note, extra, seen] = [1, 2, 3].map(() => html("p", { class: "ssd-hint" }));
  picture.append(
    ...controls.maps,
    drawing.node,
    html("p", { class: "ssd-hint" }, "Click or drag over the image. By keyboard: arrows, with Ctrl ten cells."),
    steps.node,
  );
  const more = html("details", { class: "ssd-more" }, html("summary", {}, "In words"), note, extra, seen);
  panel.append(controls.recipes, rows.node, sums.node, html("div", { class: "ssd-beside" }, field.node, more));

  watch(["recipe", "map", "cell", "shown", "compare", "show_receptive_field"], () => {
    const now = choices.now();
    const { map, cell, priors, on } = now;
    const [row, column] = cell;
    const { side } = map;
    const whole = drawing.show(now);
    controls.show(now);
    sums.show(now);
    rows.show(now);
    steps.set(row * side + column, side * side - 1);
    field.inputs[0].disabled = map.field === null;
    field.set(on ? ["on"] : []);
    note.textContent = noteText(now);
    extra.textContent = extraText(map);
    seen.textContent = fieldText(now);
    const over = priors.map(toCorners).filter(crosses).length;
    const sees = whole ? " Its kernel can depend on the whole image." : ` Its kernel sees ${map.field?.side} × ${map.field?.side} px.`;
    says(
      `Row ${row}, column ${column} of ${side} × ${side}: ${priors.length} priors, ` +
        `${over === 0 ? "none" : over} of them over the border.${on ? sees : ""}`,
    );
  });
  return () => {
    steps.stop();
    end();
  };
}

export default { render };
