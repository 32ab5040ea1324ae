// PriorExplorer: the cells of a feature map on an image, and the priors of one of them.

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
