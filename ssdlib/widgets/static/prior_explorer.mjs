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

function render({ model, el }) {
  const { picture, panel, says } = frame(el, model.get("title"));
  const recipes = model.get("recipes");
  const named = (name) => recipes.find((recipe) => recipe.name === name);
  // Python may set map and recipe one after the other: a cell or map that is not there yet is drawn as the nearest.
  const now = () => {
    const recipe = named(model.get("recipe"));
    const number = Math.min(model.get("map"), recipe.maps.length - 1);
    const map = recipe.maps[number];
    const cell = model.get("cell").map((place) => Math.min(place, map.side - 1));
    return { recipe, number, map, cell };
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

  // The picture
  const stageOf = stage({ width: VIEW, height: VIEW, label: "An image, the cells of a feature map, and priors" });
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
  const picker = svg("rect", {
    class: "ssd-picker",
    tabindex: "0",
    role: "button",
    "aria-roledescription": "cell of a map",
  });
  stageOf.node.classList.add("ssd-cut");
  stageOf.node.append(photo, grid, shade, border, kernel, own, others, lines, lit, centre, picker);

  let margin = 0;
  const place = (fraction) => Number((((fraction + margin) / (1 + 2 * margin)) * VIEW).toFixed(2));
  const length = (fraction) => (fraction / (1 + 2 * margin)) * VIEW;
  const rectOf = ([x0, y0, x1, y1]) => boxAttributes([place(x0), place(y0), place(x1), place(y1)]);

  const pick = (event) => {
    const { side } = now().map;
    const [x, y] = stageOf.at(event).map((at) => Math.floor(((at / VIEW) * (1 + 2 * margin) - margin) * side));
    goTo(y, x);
  };
  picker.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    picker.focus({ preventScroll: true });
    picker.setPointerCapture(event.pointerId);
    pick(event);
  });
  picker.addEventListener("pointermove", (event) => picker.hasPointerCapture(event.pointerId) && pick(event));
  onArrows(picker, (dx, dy) => {
    const [row, column] = now().cell;
    goTo(row + dy, column + dx);
  });
  const steps = player({
    label: "Cells in the order of the predictions",
    pause: 500,
    change: (step) => {
      const { side } = now().map;
      goTo(Math.floor(step / side), step % side);
    },
  });
  const sums = readout([
    { text: "priors of this map" },
    { text: "of them over the border" },
    { text: "count up to this map" },
    { text: "numbers of this cell's priors" },
  ]);
  const fieldCheck = checks({
    label: "Receptive field",
    options: [{ value: "on", text: "Show what the 3 × 3 kernel sees" }],
    change: (values) => put(model, { show_receptive_field: values.length > 0 }),
  });
  const fieldText = html("p", { class: "ssd-hint" });
  // The controls
  const recipeChoice = select({
    label: "Recipe",
    options: recipes.map(({ name, title }) => ({ value: name, text: title })),
    change: (name) => go(name, now().number),
  });
  const mapChoices = recipes.map(({ name, maps }) => {
    const options = maps.map(({ side }, i) => ({ value: i, text: `${side} × ${side}` }));
    return { name, ...choice({ label: "Feature map, in cells", options, change: (i) => go(name, i) }) };
  });
  const compareChoice = select({
    label: "Compare with (dotted)",
    options: [{ value: "", text: "nothing" }, ...recipes.map(({ name, title }) => ({ value: name, text: title }))],
    change: (name) => put(model, { compare: name }),
  });
  const caption = html("caption", {});
  const head = html("tr", {});
  const body = html("tbody", {});
  const priorTable = html(
    "div",
    { class: "ssd-table ssd-priors", role: "group", "aria-label": "The priors of this cell", tabindex: "0" },
    html("table", {}, caption, html("thead", {}, head), body),
  );
  const extra = html("p", { class: "ssd-hint" });
  const note = html("p", { class: "ssd-hint" });
  picture.append(
    ...mapChoices.map(({ node }) => node),
    stageOf.node,
    html("p", { class: "ssd-hint" }, "Click a cell, or drag over the image. By keyboard: arrow keys, with Ctrl ten cells."),
    html("div", { class: "ssd-under" }, steps.node, sums.node),
  );
  panel.append(
    recipeChoice.node,
    compareChoice.node,
    note,
    priorTable,
    extra,
    fieldCheck.node,
    fieldText,
  );

  // The rows stay while their numbers change, so that a box that was ticked keeps the focus.
  let rows = [];
  let rowsOf = "";
  const makeRows = (ratios) => {
    if (rowsOf === ratios.join()) return;
    rowsOf = ratios.join();
    rows = ratios.map((ratio, i) => {
      const input = html("input", {
        type: "checkbox",
        change: () => {
          const rest = model.get("shown").filter((name) => name !== ratio);
          put(model, { shown: input.checked ? [...rest, ratio] : rest });
        },
      });
      const cells = [1, 2, 3].map(() => html("td", {}));
      const name = html("label", {}, input, swatch(colorOf(i + 1)), ratio);
      return { ratio, input, cells, node: html("tr", {}, html("th", { scope: "row" }, name), cells) };
    });
    body.replaceChildren(...rows.map(({ node }) => node));
  };

  const drawBox = (box, color, group) => {
    const { inside, outside } = outline(box, place);
    for (const [d, name] of [[inside, "ssd-inside"], [outside, "ssd-outside"]]) {
      if (!d) continue;
      group.append(svg("path", { d, class: "ssd-halo" }), svg("path", { d, class: name, style: { stroke: color } }));
    }
  };

  const { watch, end } = watching(model);
  watch(["recipe", "map", "cell", "shown", "compare", "show_receptive_field"], () => {
    const { recipe, number, map, cell } = now();
    const [row, column] = cell;
    const { side } = map;
    const shown = model.get("shown");
    const priors = cellPriors(map, cell);
    const boxes = priors.map(toCorners);
    const over = boxes.filter(crosses).length;
    const other = named(model.get("compare"));
    const otherMap = other?.maps[number];
    const otherPriors = otherMap ? cellPriors(otherMap, samePlace(cell, side, otherMap.side)) : [];

    // A margin for the priors of the map's corners, so that the picture is still while cells change; not too wide.
    const corner = [map, ...(otherMap ? [otherMap] : [])].flatMap((each) => {
      const [first, last] = [each.centres[0], each.centres[each.side - 1]];
      return each.shapes.flatMap((shape) => shape.flatMap((s) => [s / 2 - first, last + s / 2 - 1]));
    });
    margin = clamp(Math.max(...corner), 0, 0.22) + 0.015;

    update(photo, rectOf([0, 0, 1, 1]));
    update(border, rectOf([0, 0, 1, 1]));
    update(picker, rectOf([0, 0, 1, 1]));
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

    lines.replaceChildren();
    others.replaceChildren();
    priors.forEach((_, i) => shown.includes(map.ratios[i]) && drawBox(boxes[i], colorOf(i + 1), lines));
    otherPriors.forEach((prior, i) => {
      if (!shown.includes(otherMap.ratios[i])) return;
      const rect = rectOf(toCorners(prior));
      others.append(svg("rect", { class: "ssd-halo", ...rect }), svg("rect", { class: "ssd-dotted", ...rect }));
    });

    // The receptive field lights up; all around it lies in the shade.
    const on = model.get("show_receptive_field") && map.field !== null;
    for (const node of [shade, lit, kernel]) update(node, { d: "" });
    const square = ([x0, y0, x1, y1]) => `M${place(x0)} ${place(y0)}H${place(x1)}V${place(y1)}H${place(x0)}Z`;
    let whole = false;
    if (on) {
      const field = receptiveField(map.field, cell).map((value) => clamp(value / recipe.size, 0, 1));
      whole = Math.min(field[2], field[3]) >= 1 && Math.max(field[0], field[1]) <= 0;
      update(shade, { d: square([0, 0, 1, 1]) + square(field) });
      update(lit, { d: square(field) });
      const near = [column - 1, row - 1, column + 2, row + 2].map((value) => clamp(value, 0, side) / side);
      update(kernel, { d: square(near) });
    }
    if (map.field === null) {
      fieldText.textContent = "The network of this recipe is not one of the book's.";
    } else {
      const shift = map.field.start + column * map.field.step - map.centres[column] * recipe.size;
      const down = map.field.start + row * map.field.step - map.centres[row] * recipe.size;
      const off = Math.max(Math.abs(shift), Math.abs(down));
      const where = (value, less, more) => `${pixels(Math.abs(value))} px ${value < 0 ? less : more}`;
      fieldText.textContent =
        `The kernel reads 3 × 3 cells of ${map.name} (thin frame). Through the layers before, it reaches ` +
        `${map.field.side} × ${map.field.side} px; what the image has of them is bright. ` +
        (off >= 1
          ? `Their middle lies ${where(shift, "left", "right")} of and ${where(down, "above", "below")} the centre of ` +
            "the cell: strides and padding shift it. "
          : "") +
        "This is the theoretical receptive field; pixels near its rim reach the kernel by few paths, so the effective " +
        "one is smaller.";
    }
    fieldCheck.inputs[0].disabled = map.field === null;
    fieldCheck.set(on ? ["on"] : []);

    // Numbers
    recipeChoice.set(recipe.name);
    compareChoice.set(model.get("compare"));
    for (const each of mapChoices) {
      each.node.hidden = each.name !== recipe.name;
      each.set(number);
    }
    steps.set(row * side + column, side * side - 1);
    makeRows(map.ratios);
    caption.textContent = `Priors of row ${row}, column ${column}${map.name ? `, ${map.name}` : ""}`;
    head.replaceChildren(
      ...["ratio", "scale", "w × h in px", other ? "dotted, in px" : "border"].map((text) =>
        html("th", { scope: "col" }, text),
      ),
    );
    const px = ([w, h], size) => `${pixels(w * size)} × ${pixels(h * size)}`;
    rows.forEach(({ ratio, input, cells }, i) => {
      input.checked = shown.includes(ratio);
      const scale = ratio === "extra" ? Math.sqrt(map.scale * map.next) : map.scale;
      const match = otherMap ? otherMap.ratios.indexOf(ratio) : -1;
      cells[0].textContent = fixed(scale, 3);
      cells[1].textContent = px(map.shapes[i], recipe.size);
      if (!other) cells[2].textContent = crosses(boxes[i]) ? "crosses" : "inside";
      else if (match < 0) cells[2].textContent = "none";
      else {
        const overlap = fixed(iou(boxes[i], toCorners(otherPriors[match])), 2);
        cells[2].replaceChildren(px(otherMap.shapes[match], other.size), html("br", {}), `IoU ${overlap}`);
      }
    });
    const root = fixed(Math.sqrt(map.scale * map.next), 3);
    extra.textContent = map.ratios.includes("extra")
      ? `extra: one more square, between this map's scale and the next. Its scale is ` +
        `√(${fixed(map.scale, 3)} × ${fixed(map.next, 3)}) = ${root}.`
      : "This map has no extra square.";
    const centreStep = recipe.steps.length
      ? `The centres lie ${recipe.steps[number]} px apart, as the recipe says.`
      : `The centres lie ${recipe.size} / ${side} = ${pixels(recipe.size / side)} px apart.`;
    note.textContent =
      `${centreStep} ` +
      (recipe.clipped
        ? "Widths and heights are limited to the side of the image; nothing is cut at its border."
        : "Priors are not clipped at the border: the dashed part lies outside the image.") +
      (other && !otherMap ? " The other recipe has no such map." : "");
    const counts = recipe.maps.map((each) => each.side ** 2 * each.shapes.length);
    const soFar = counts.slice(0, number + 1).reduce((sum, count) => sum + count, 0);
    const first = map.first + (row * side + column) * priors.length;
    sums.set([
      `${side} × ${side} × ${priors.length} = ${thousands(counts[number])}`,
      `${thousands(map.crossing)} of ${thousands(counts[number])}`,
      html(
        "span",
        {},
        number > 0 ? `${counts.slice(0, number).map(thousands).join(" + ")} + ` : "",
        html("strong", {}, thousands(counts[number])),
        number > 0 ? ` = ${thousands(soFar)}` : "",
        ` of ${thousands(recipe.count)}`,
      ),
      `${thousands(first)} to ${thousands(first + priors.length - 1)}`,
    ]);
    says(
      `Row ${row}, column ${column} of ${side} × ${side}: ${priors.length} priors, ` +
        `${over === 0 ? "none" : over} of them over the border.` +
        (on ? (whole ? " Its kernel can depend on the whole image." : ` Its kernel sees ${map.field.side} × ${map.field.side} px.`) : ""),
    );
  });
  return () => {
    steps.stop();
    end();
  };
}

export default { render };
