// AnatomyExplorer: the layers of a network as bars, one of them in detail, and the way to all predictions.

const HIGH = 250;
const FLOOR = 150; // where the bars stand
const BAR = 205; // the bar of all predictions
const VIEW = 300; // side of the image

// The bars of the image and of the layers; those of maps that predict have colours, and their side above them.
function layerBars(network, gap, drawing) {
  const middle = (i) => (i + 0.5) * gap;
  const height = (side) => 12 + (FLOOR - 42) * (Math.log2(side) / Math.log2(network.size));
  return [{ shape: [3, network.size, network.size], map: -1 }, ...network.layers].map(({ shape: [, side], map }, i) => {
    const tall = height(side);
    const bar = svg("rect", {
      class: map < 0 ? "ssd-layer" : "ssd-layer ssd-predicts",
      x: middle(i) - 0.38 * gap,
      y: FLOOR - tall,
      width: 0.76 * gap,
      height: tall,
      style: map < 0 ? {} : { fill: colorOf(map + 1) },
    });
    drawing.append(bar);
    if (map >= 0) {
      drawing.append(svg("text", { class: "ssd-small", x: middle(i), y: FLOOR - tall - 5, "text-anchor": "middle" }, side));
    }
    return bar;
  });
}

// The bar of all predictions, with a part for each map: as wide as its share of the priors, but never too narrow to see.
function predictionParts(network, gap, WIDE, drawing) {
  const predicting = network.layers.map((layer, i) => ({ ...layer, at: (i + 1.5) * gap })).filter(({ map }) => map >= 0);
  const shares = predicting.map((layer) => Math.max(0.03, rowsOf(layer) / network.priors));
  const all = shares.reduce((sum, share) => sum + share, 0);
  let left = 0;
  return predicting.map(({ map, at }, i) => {
    const width = (shares[i] / all) * WIDE;
    const [from, to] = [FLOOR + 2, BAR - 2];
    const goal = left + width / 2;
    const line = svg("path", { class: "ssd-flow", d: `M${at} ${from}C${at} ${(from + to) / 2} ${goal} ${(from + to) / 2} ${goal} ${to}` });
    line.style.stroke = colorOf(map + 1);
    const part = svg("rect", { class: "ssd-layer ssd-predicts", x: left, y: BAR, width, height: 24, style: { fill: colorOf(map + 1) } });
    drawing.append(line, part);
    left += width;
    return { line, part, at };
  });
}

// The layers as bars over their names' places, lines down to the predictions of each map.
function diagram(network, WIDE, choose) {
  const place = stage({ width: WIDE, height: HIGH, label: "The layers from the image to the predictions, as bars" });
  const drawing = svg("g", { "aria-hidden": "true" });
  const count = network.layers.length + 1; // the image too
  const gap = WIDE / count;
  const bars = layerBars(network, gap, drawing);
  const parts = predictionParts(network, gap, WIDE, drawing);
  const mark = svg("path", { class: "ssd-mark" });
  const words = svg("text", { class: "ssd-tag", "text-anchor": "middle" });
  place.node.append(drawing, mark, words);
  place.node.classList.add("ssd-diagram");
  const pick = (event) => {
    const [x, y] = place.at(event);
    if (y < FLOOR + 10) choose(clamp(Math.floor(x / gap), 0, count - 1));
    else if (event.type === "click" && y > BAR - 20) choose(count); // not on the way of a mouse to the buttons
  };
  place.node.addEventListener("click", pick);
  place.node.addEventListener("pointermove", (event) => event.pointerType === "mouse" && pick(event));

  const show = (number) => {
    const last = number === count;
    const middle = (number + 0.5) * gap;
    for (const [i, bar] of bars.entries()) bar.classList.toggle("ssd-chosen", i === number);
    for (const { line, part, at } of parts) {
      const on = last || Math.abs(at - middle) < 1e-6;
      line.classList.toggle("ssd-chosen", on);
      part.classList.toggle("ssd-chosen", on);
    }
    const under = `M${middle - gap / 2} ${FLOOR + 4}H${middle + gap / 2}`;
    update(mark, { d: last ? `M0 ${BAR - 3}H${WIDE}V${BAR + 27}H0Z` : under });
    mark.classList.toggle("ssd-line", !last);
    words.textContent = last ? "all predictions" : number === 0 ? "image" : network.layers[number - 1].name;
    update(words, { x: last ? WIDE / 2 : clamp(middle, 45, WIDE - 45), y: 26 });
  };
  return { node: place.node, show };
}

// Rows of predictions that a layer has: one for each prior of each of its cells.
function rowsOf({ shape: [, high, wide], per_cell: each }) {
  return high * wide * each;
}

const sizes = (shape) => shape.join(" × ");

// The image, and what the cell in the middle of a layer can see.
function fieldStage(model) {
  const place = stage({ width: VIEW, height: VIEW, label: "The image, and what the cell in the middle can see" });
  place.node.classList.add("ssd-cut", "ssd-half");
  const shade = svg("path", { class: "ssd-shade", "fill-rule": "evenodd" });
  const lit = svg("path", { class: "ssd-lit" });
  const photo = { href: model.get("image"), width: VIEW, height: VIEW, preserveAspectRatio: "none", "aria-hidden": "true" };
  place.node.append(svg("image", photo), shade, lit);
  /** @param {number[]} box */
  const square = ([x0, y0, x1, y1]) => `M${x0} ${y0}H${x1}V${y1}H${x0}Z`;
  const show = (network, layer) => {
    const scale = VIEW / network.size;
    for (const node of [shade, lit]) update(node, { d: "" });
    if (!layer) return;
    const centre = layer.start + middleCell(layer) * layer.step;
    const field = toCorners([centre, centre, layer.field, layer.field]).map((v) => clamp(v * scale, 0, VIEW));
    update(shade, { d: square([0, 0, VIEW, VIEW]) + square(field) });
    update(lit, { d: square(field) });
    lit.classList.toggle("ssd-thin", layer.field * scale < 8);
  };
  return { node: place.node, show };
}

const middleCell = ({ shape: [, side] }) => Math.floor(side / 2);

function seenText(network, layer) {
  if (!layer) return `The image, squeezed to ${network.size} × ${network.size} px.`;
  return (
    `Bright: what the cell in row and column ${middleCell(layer)} can depend on, ` +
    `${layer.field} × ${layer.field} px${layer.field > network.size ? ", more than the image has" : ""}. ` +
    "The part that matters is smaller."
  );
}

// One channel of a layer: a part of the picture that has all of them, one below the other.
const tile = (href, i, of, words) =>
  html(
    "figure",
    {},
    svg(
      "svg",
      { viewBox: `0 ${i} 1 1`, role: "img", "aria-label": words, class: "ssd-tile" },
      svg("image", { href, width: 1, height: of, preserveAspectRatio: "none" }),
    ),
    html("figcaption", {}, words),
  );

// Activations of a layer, or the scores of all maps at the end.
function layerTiles({ network, layer, number, last }) {
  if (number === last) {
    return network.layers.filter((each) => each.scores).map((each) => tile(each.scores, 0, 1, sizes(each.shape.slice(1))));
  }
  if (!layer?.picture) return [];
  const found = layer.channels.map((channel, i) => tile(layer.picture, i, layer.channels.length, `channel ${channel}`));
  if (!layer.scores) return found;
  const scored = tile(layer.scores, 0, 1, "object score");
  scored.classList.add("ssd-score");
  return [...found, scored];
}

function tilesText({ network, layer, number, last }) {
  if (!network.trained) {
    return "Sizes only: the package has no trained weights for this network, so there are no activations to show.";
  }
  if (number === last) {
    return "Object scores of each map: the highest 1 − (score of background) among the priors of a cell; white is 1.";
  }
  if (!layer) return "";
  return (
    "The channels that vary most on this image, after ReLU; black is 0, white each channel's largest value" +
    (layer.shape[1] > 40 ? ", shown coarser than they are." : ".") +
    (layer.scores ? " Last: the highest object score among the priors of each cell." : "")
  );
}

const ofAll = (part, whole) => `${thousands(part)} (${fixed((100 * part) / whole, 1)} %)`;

// Heading and numbers of a layer, of the image, or of all predictions.
function layerNumbers({ network, layer, number, last }) {
  const before = number > 1 ? network.layers[number - 2].shape : [3, network.size, network.size];
  if (number === 0) {
    return ["Image", [`${sizes(before)} (C × H × W)`, "red, green and blue, normalised", "0", "1 px", "1 × 1 px"]];
  }
  if (number === last) {
    const all = network.layers.reduce((sum, each) => sum + (each.map >= 0 ? each.head_parameters : 0), 0);
    const what = "moves channels last, and puts the maps one below the other";
    const output = `${thousands(network.priors)} × (4 + ${network.classes})`;
    return ["All predictions", [output, what, `${ofAll(all, network.parameters)}, of all heads`, "–", "–"]];
  }
  const extra = [`stride ${layer.stride}`, `padding ${layer.padding}`];
  if (layer.dilation > 1) extra.push(`dilation ${layer.dilation}`);
  return [
    `${layer.name}: layer ${number} of ${network.layers.length}`,
    [
      `${sizes(layer.shape)} (C × H × W)`,
      `${layer.kernel} × ${layer.kernel} ${layer.kind} of ${sizes(before)}, ${extra.join(", ")}`,
      ofAll(layer.parameters, network.parameters),
      `${layer.step} px`,
      `${layer.field} × ${layer.field} px`,
    ],
  ];
}

// What predicts from a layer.
function headText({ network, layer, number, last }) {
  if (layer && layer.map >= 0) {
    const k = layer.per_cell;
    return [
      html("strong", {}, `This map predicts for ${k} priors a cell. `),
      `Two 3 × 3 convolutions read it: ${k} × 4 = ${4 * k} offsets and ${k} × ${network.classes} = ` +
        `${network.classes * k} class scores (background included) for each cell. ` +
        `${sizes(layer.shape.slice(1))} × ${k} = ${thousands(rowsOf(layer))} rows, numbers ` +
        `${thousands(layer.first)} to ${thousands(layer.first + rowsOf(layer) - 1)} of ${thousands(network.priors)}. ` +
        `${thousands(layer.head_parameters)} parameters. Through their kernels a prediction sees ` +
        `${layer.head_field} × ${layer.head_field} px.`,
    ];
  }
  if (number < last) return ["No head reads this layer; it feeds the next one."];
  const counts = network.layers.filter(({ map }) => map >= 0).map((each) => thousands(rowsOf(each)));
  return [
    html("strong", {}, `${counts.join(" + ")} = ${thousands(network.priors)} rows. `),
    `Each has 4 offsets and ${network.classes} class scores, background included.`,
  ];
}

function anatomySentence({ network, layer, number, last }) {
  if (number === last) return `All predictions: ${thousands(network.priors)} rows of 4 offsets and ${network.classes} scores.`;
  if (!layer) return `The image: 3 channels of ${network.size} × ${network.size} px.`;
  const [channels, ...cells] = layer.shape;
  return (
    `${layer.name}: ${channels} channels of ${sizes(cells)} cells; a cell sees ${layer.field} × ${layer.field} px.` +
    (layer.map >= 0 ? ` ${thousands(rowsOf(layer))} priors are predicted from it.` : "")
  );
}

// Image, activations, numbers and heads of one layer. Each part is as high as its highest layer needs, so that nothing
// below moves while the layers go by.
function layerDetails(model) {
  const field = fieldStage(model);
  const seen = html("p", { class: "ssd-hint" });
  const tiles = html("div", { class: "ssd-tiles" });
  const about = html("p", { class: "ssd-hint" });
  const heading = html("p", { class: "ssd-label" });
  const numbers = readout([
    { text: "output" },
    { text: "what it does" },
    { text: "parameters" },
    { text: "from cell to cell" },
    { text: "receptive field" },
  ]);
  const heads = html("p", { class: "ssd-heads" });
  const write = (at) => {
    const [name, values] = layerNumbers(at);
    seen.textContent = seenText(at.network, at.layer);
    tiles.replaceChildren(...layerTiles(at));
    about.textContent = tilesText(at);
    heading.textContent = name;
    numbers.set(values);
    heads.replaceChildren(...headText(at));
  };
  const steady = [seen, tiles, about, numbers.node, heads];
  const reserve = (all) => {
    for (const node of steady) node.style.minHeight = "";
    const highest = steady.map(() => 0);
    for (const at of all) {
      write(at);
      for (const [i, node] of steady.entries()) highest[i] = Math.max(highest[i], Math.ceil(node.getBoundingClientRect().height));
    }
    for (const [i, node] of steady.entries()) node.style.minHeight = `${highest[i]}px`;
  };
  const show = (at) => {
    field.show(at.network, at.layer);
    write(at);
  };
  return { left: [field.node, seen, tiles, about], right: [heading, numbers.node, heads], show, reserve };
}

// All layers in a list: a click chooses one.
function layerList(choose) {
  const list = table({ caption: "All layers", head: ["layer", "C × H × W", "parameters", "sees, px"] });
  list.node.classList.add("ssd-layers");
  const show = ({ network, number }) => {
    list.set(
      network.layers.map((each, i) => ({
        cells: [each.name, sizes(each.shape), thousands(each.parameters), String(each.field)],
        current: i + 1 === number,
        click: () => choose(i + 1),
      })),
    );
    const current = /** @type {HTMLElement} */ (list.node.querySelector(".ssd-current"));
    if (current) list.node.scrollTop = current.offsetTop - list.node.clientHeight / 2;
  };
  return { node: list.node, show };
}

// The same kind of place in another network: the image, a map that predicts, or the end.
function sameKind({ network, number, last }, other) {
  if (number === last) return other.layers.length + 1;
  const map = network.layers[number - 1]?.map ?? -1;
  const same = other.layers.findIndex((layer) => layer.map === map);
  return map >= 0 && same >= 0 ? same + 1 : 0;
}

function render({ model, el }) {
  const { root, picture, panel, says, watch, end } = frame(el, model);
  const networks = model.get("networks");
  const place = (network, number) => ({ network, number, last: network.layers.length + 1, layer: network.layers[number - 1] });
  const now = () => {
    const network = networks.find(({ name }) => name === model.get("network"));
    return place(network, clamp(model.get("layer"), 0, network.layers.length + 1));
  };
  const choose = (layer) => put(model, { layer });
  const networkChoice = choice({
    label: "Network",
    options: networks.map(({ name, title }) => ({ value: name, text: title })),
    change: (name) => put(model, { network: name, layer: sameKind(now(), networks.find((each) => each.name === name)) }),
  });
  const steps = player({ label: "Layers", change: choose, pause: 1200 });
  const wide = el.clientWidth > 0 && el.clientWidth < 480 ? 400 : 700; // on a phone, narrow enough to be read
  const diagrams = networks.map((network) => ({ name: network.name, ...diagram(network, wide, choose) }));
  root.insertBefore(
    html(
      "div",
      { class: "ssd-top" },
      networks.length > 1 ? networkChoice.node : null,
      diagrams.map(({ node }) => node),
      html("p", { class: "ssd-hint" }, "A bar for each layer, as high as its map (logarithmic). Coloured maps predict. Point at a bar, or use the buttons."),
      steps.node,
    ),
    root.querySelector(".ssd-columns"),
  );
  const details = layerDetails(model);
  const list = layerList(choose);
  picture.append(...details.left);
  panel.append(...details.right, list.node);

  watch(["network", "layer"], () => {
    const at = now();
    networkChoice.set(at.network.name);
    steps.set(at.number, at.last);
    for (const each of diagrams) {
      each.node.toggleAttribute("hidden", each.name !== at.network.name);
      if (each.name === at.network.name) each.show(at.number);
    }
    details.show(at);
    list.show(at);
    says(anatomySentence(at));
  });
  const measure = () => {
    const at = now();
    details.reserve([0, ...at.network.layers.keys(), at.last - 1, at.last].map((number) => place(at.network, number)));
    details.show(at);
  };
  watch(["network"], measure);
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    measure();
  });
  resized.observe(root);
  return () => {
    resized.disconnect();
    steps.stop();
    end();
  };
}

export default { render };
