// AnatomyExplorer: the layers of a network as a flow of maps; each cell shows what it depends on.

function stripTitle({ network, layer, number, last }) {
  if (!network.trained) return "Sizes only: the package has no trained weights for this network.";
  if (number === last) return "Object scores of each map";
  return layer ? `Channels of ${layer.name}` : "The three colours";
}

// What the small pictures are.
function picturesText({ network, layer, number, last }) {
  if (!network.trained) return "Cells of the chosen layer are drawn as a grid, where they are large enough.";
  if (number === last) return "Of each cell the highest 1 − (score of background) among its priors; white is 1.";
  if (!layer) return "What the network gets; white is 1. Each pixel is a cell.";
  return (
    "The channels that vary most on this image, after ReLU, in 16 greys; black is 0, white each channel's largest value" +
    (layer.shape[1] > 40 ? ", shown coarser than they are." : ".") +
    (layer.scores ? " score: the highest object score among the priors of each cell." : "")
  );
}

const ofAll = (part, whole) => `${thousands(part)} (${fixed((100 * part) / whole, 1)} %)`;

// Heading and numbers of a layer, of the image, or of all predictions.
function layerNumbers({ network, layer, number, last }, { row, column }, { side, number: shown }) {
  const cell = `row ${row}, column ${column} of ${side} × ${side}`;
  const before = number > 1 ? network.layers[number - 2].shape : [3, network.size, network.size];
  if (number === 0) return ["Image", [`${sizes(before)} (C × H × W)`, "red, green and blue", "0", cell, "1 × 1 px"]];
  if (number === last) {
    const all = network.layers.reduce((sum, each) => sum + (each.map >= 0 ? each.head_parameters : 0), 0);
    const seen = network.layers[shown - 1].head_field;
    return [
      "All predictions",
      [
        `${thousands(network.priors)} × (4 + ${network.classes})`,
        "the maps, one below the other",
        `${ofAll(all, network.parameters)}, heads`,
        cell,
        `${seen} × ${seen} px`,
      ],
    ];
  }
  const extra = [layer.stride > 1 && `stride ${layer.stride}`, layer.dilation > 1 && `dilation ${layer.dilation}`];
  return [
    `${layer.name}: layer ${number} of ${network.layers.length}`,
    [
      `${sizes(layer.shape)} (C × H × W)`,
      [`${layer.kernel} × ${layer.kernel} ${layer.kind}`, ...extra.filter(Boolean), `padding ${layer.padding}`].join(", "),
      ofAll(layer.parameters, network.parameters),
      cell,
      `${layer.field} × ${layer.field} px, every ${layer.step} px`,
    ],
  ];
}

// A product stays on one line.
const whole = (text) => text.replaceAll(" × ", "\u00a0×\u00a0");

// What predicts from a layer.
function headText({ network, layer, number, last }) {
  if (layer && layer.map >= 0) {
    const k = layer.per_cell;
    return [
      html("strong", {}, `This map predicts for ${k} priors a cell. `),
      whole(
        `Two 3 × 3 convolutions, ${thousands(layer.head_parameters)} parameters, give ${k} × 4 = ${4 * k} offsets and ` +
          `${k} × ${network.classes} = ${network.classes * k} class scores a cell (background included). ` +
          `${sizes(layer.shape.slice(1))} × ${k} = ${thousands(rowsOf(layer))} rows, numbers ` +
          `${thousands(layer.first)} to ${thousands(layer.first + rowsOf(layer) - 1)} of ${thousands(network.priors)}. ` +
          `Each sees ${layer.head_field} × ${layer.head_field} px.`
      ),
    ];
  }
  if (number < last) return ["No head reads this layer; it feeds the next one."];
  const counts = network.layers.filter(({ map }) => map >= 0).map((each) => thousands(rowsOf(each)));
  return [
    html("strong", {}, `${counts.join(" + ")} = ${thousands(network.priors)} rows. `),
    `Each has 4 offsets and ${network.classes} class scores, background included.`,
  ];
}

// Pixels of the image between which a cell can see, and whether that is all of it.
function seenText(network, fields) {
  const [left, top, right, bottom] = fields[0].map((at) => Math.round(at * network.size));
  if (right - left === network.size && bottom - top === network.size) return "can depend on the whole image";
  if (right - left === 1) return `is the pixel in row ${top}, column ${left} of the image`;
  return `can depend on rows ${top} to ${bottom - 1} and columns ${left} to ${right - 1} of the image`;
}

function anatomySentence({ network, layer, number, last }, { row, column }, fields) {
  const cell = `The cell in row ${row}, column ${column} ${seenText(network, fields)}.`;
  if (number === last) return `All predictions: ${thousands(network.priors)} rows of 4 offsets and ${network.classes} scores. ${cell}`;
  if (!layer) return `The image: 3 channels of ${network.size} × ${network.size} px. ${cell}`;
  const [channels, ...cells] = layer.shape;
  return `${layer.name}: ${channels} channels of ${sizes(cells)} cells. ${cell}`;
}

// All layers in a list: a click chooses one.
function layerList(choose) {
  const list = table({ caption: "All layers", head: ["layer", "C × H × W", "parameters", "sees, px"] });
  list.node.classList.add("ssd-layers");
  const show = ({ network, number }) =>
    list.set(
      network.layers.map((each, i) => ({
        cells: [each.name, sizes(each.shape), thousands(each.parameters), String(each.field)],
        current: i + 1 === number,
        link: linkOf(i + 1),
        click: () => choose(i + 1),
      })),
    );
  return { node: list.node, show };
}

// Map, picture, numbers and heads of one layer. Each part is as high as its highest layer needs, so that nothing below
// moves while the layers go by.
function layerDetails(model, choose) {
  const networks = model.get("networks");
  const pick = (point) => put(model, { point });
  const [field, map] = [fieldStage(model.get("image"), pick), mapStage(pick)];
  const most = (network) => Math.max(...[0, ...network.layers.keys(), network.layers.length].map((i) => mapAt(placeIn(network, i + 1), 0).tiles.length));
  const strip = channelStrip(Math.max(...networks.map(most)), (channel) => put(model, { channel }));
  const heading = html("p", { class: "ssd-label" });
  const numbers = readout([
    { text: "output" },
    { text: "layer" },
    { text: "parameters" },
    { text: "cell" },
    { text: "receptive field" },
  ]);
  const [heads, about] = [html("p", { class: "ssd-heads" }), html("p", { class: "ssd-hint" })];
  const list = layerList(choose);
  const maps = html("div", { class: "ssd-maps-pair" }, map.node, field.node);
  const looks = html("div", {}, maps, strip.node);
  const write = (at) => {
    const shown = mapAt(at, model.get("channel"));
    const cell = cellAtPoint(shown, model.get("point"));
    const fields = fieldsOf(at.network, cell);
    const [name, values] = layerNumbers(at, cell, shown);
    heading.textContent = name;
    numbers.set(values);
    heads.replaceChildren(...headText(at));
    about.textContent = picturesText(at);
    strip.show(shown, stripTitle(at));
    return { shown, cell, fields };
  };
  const show = (at) => {
    const { shown, cell, fields } = write(at);
    map.show(shown, cell);
    field.show(fields, model.get("point"));
    list.show(at);
    // The map belongs to its layer, and to all that it depends on.
    const lights = fields.map((_, i) => linkOf(i)).join(" ");
    update(looks, { "data-link": linkOf(shown.number), "data-lights": lights });
    return { cell, fields };
  };
  const steady = [strip.node, numbers.node, heads];
  const reserve = (all) => {
    for (const node of steady) node.style.minHeight = "";
    const highest = steady.map(() => 0);
    for (const at of all) {
      write(at);
      for (const [i, node] of steady.entries()) highest[i] = Math.max(highest[i], Math.ceil(node.getBoundingClientRect().height));
    }
    for (const [i, node] of steady.entries()) node.style.minHeight = `${highest[i]}px`;
  };
  const more = html("details", { class: "ssd-more" }, html("summary", {}, "All layers, and what the pictures are"), about, list.node);
  return { left: [looks], right: [heading, numbers.node, heads, more], show, reserve };
}

// The same kind of place in another network: the image, a map that predicts, or the end.
function sameKind({ network, number, last }, other) {
  if (number === last) return other.layers.length + 1;
  const map = network.layers[number - 1]?.map ?? -1;
  const same = other.layers.findIndex((layer) => layer.map === map);
  return map >= 0 && same >= 0 ? same + 1 : 0;
}

const placeIn = (network, number) => ({ network, number, last: network.layers.length + 1, layer: network.layers[number - 1] });

function render({ model, el }) {
  const { root, picture, panel, says, watch, end } = frame(el, model);
  const networks = model.get("networks");
  const now = () => {
    const network = networks.find(({ name }) => name === model.get("network"));
    return placeIn(network, clamp(model.get("layer"), 0, network.layers.length + 1));
  };
  const choose = (layer, channel = model.get("channel")) => put(model, { layer, channel });
  const networkChoice = choice({
    label: "Network",
    options: networks.map(({ name, title }) => ({ value: name, text: title })),
    change: (name) => put(model, { network: name, layer: sameKind(now(), networks.find((each) => each.name === name)) }),
  });
  const steps = player({ label: "Layers", change: choose, pause: 1200 });
  const narrow = el.clientWidth > 0 && el.clientWidth < 480; // on a phone, small enough for letters to be read
  const diagrams = networks.map((network) => flowDiagram(network, { image: model.get("image"), narrow, choose }));
  const controls = html("div", { class: "ssd-flow-controls" }, networks.length > 1 ? networkChoice.node : null, steps.node);
  const top = html("div", { class: "ssd-top" }, controls, diagrams.map(({ node }) => node));
  root.insertBefore(top, root.querySelector(".ssd-columns"));
  root.classList.add("ssd-anatomy");
  root.addEventListener("ssd-link", (/** @type {CustomEvent} */ { detail }) => diagrams.forEach(({ point }) => point(detail)));
  const details = layerDetails(model, choose);
  picture.append(...details.left);
  panel.append(...details.right);

  watch(["network", "layer", "point", "channel"], () => {
    const at = now();
    networkChoice.set(at.network.name);
    steps.set(at.number, at.last);
    const { cell, fields } = details.show(at);
    for (const each of diagrams) {
      each.node.toggleAttribute("hidden", each.name !== at.network.name);
      if (each.name === at.network.name) each.show(at.number, cell);
    }
    says(anatomySentence(at, cell, fields));
  });
  const measure = () => {
    const at = now();
    details.reserve(Array.from({ length: at.last + 1 }, (_, number) => placeIn(at.network, number)));
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
