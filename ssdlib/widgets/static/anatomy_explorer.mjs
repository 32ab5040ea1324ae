// AnatomyExplorer: the layers of a network as bars, one of them in detail, and the way to all predictions.

const HIGH = 250;
const FLOOR = 150; // where the bars stand
const BAR = 205; // the bar of all predictions

// The layers as bars over their names' places, lines down to the predictions of each map.
function diagram(network, WIDE, choose) {
  const place = stage({ width: WIDE, height: HIGH, label: "The layers from the image to the predictions, as bars" });
  const drawing = svg("g", { "aria-hidden": "true" });
  const count = network.layers.length + 1; // the image too
  const gap = WIDE / count;
  const middle = (i) => (i + 0.5) * gap;
  const height = (side) => 12 + (FLOOR - 42) * (Math.log2(side) / Math.log2(network.size));
  const bars = [{ shape: [3, network.size, network.size], map: -1 }, ...network.layers].map(({ shape, map }, i) => {
    const tall = height(shape[1]);
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
      drawing.append(svg("text", { class: "ssd-small", x: middle(i), y: FLOOR - tall - 5, "text-anchor": "middle" }, shape[1]));
    }
    return bar;
  });
  // The bar below has a part for each map: as wide as its share of the priors, but never too narrow to see.
  const predicting = network.layers.map((layer, i) => ({ ...layer, at: middle(i + 1) })).filter(({ map }) => map >= 0);
  const shares = predicting.map(({ shape, per_cell }) => Math.max(0.03, (shape[1] ** 2 * per_cell) / network.priors));
  const all = shares.reduce((sum, share) => sum + share, 0);
  let left = 0;
  const parts = predicting.map(({ map, at }, i) => {
    const width = (shares[i] / all) * WIDE;
    const [from, to] = [FLOOR + 2, BAR - 2];
    const goal = left + width / 2;
    const line = svg("path", { class: "ssd-flow", d: `M${at} ${from}C${at} ${(from + to) / 2} ${goal} ${(from + to) / 2} ${goal} ${to}` });
    line.style.stroke = colorOf(map + 1);
    const part = svg("rect", { class: "ssd-layer ssd-predicts", x: left, y: BAR, width, height: 24, style: { fill: colorOf(map + 1) } });
    drawing.append(line, part);
    left += width;
    return { line, part };
  });
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
    bars.forEach((bar, i) => bar.classList.toggle("ssd-chosen", i === number));
    predicting.forEach(({ at }, i) => {
      const on = last || Math.abs(at - middle(number)) < 1e-6;
      parts[i].line.classList.toggle("ssd-chosen", on);
      parts[i].part.classList.toggle("ssd-chosen", on);
    });
    const at = middle(number);
    update(mark, { d: last ? `M0 ${BAR - 3}H${WIDE}V${BAR + 27}H0Z` : `M${at - gap / 2} ${FLOOR + 4}H${at + gap / 2}` });
    mark.classList.toggle("ssd-line", !last);
    words.textContent = last ? "all predictions" : number === 0 ? "image" : network.layers[number - 1].name;
    update(words, { x: last ? WIDE / 2 : clamp(at, 45, WIDE - 45), y: 26 });
  };
  return { node: place.node, show };
}

function render({ model, el }) {
  const { root, picture, panel, says } = frame(el, model.get("title"));
  const networks = model.get("networks");
  const now = () => {
    const network = networks.find(({ name }) => name === model.get("network"));
    const last = network.layers.length + 1;
    return { network, last, number: clamp(model.get("layer"), 0, last) };
  };
  const choose = (layer) => put(model, { layer });

  const networkChoice = choice({
    label: "Network",
    options: networks.map(({ name, title }) => ({ value: name, text: title })),
    // The same kind of place in the other network: image, a map that predicts, or the end.
    change: (name) => {
      const { network, number, last } = now();
      const other = networks.find((each) => each.name === name);
      const map = network.layers[number - 1]?.map ?? -1;
      const same = other.layers.findIndex((layer) => layer.map === map);
      const layer = number === last ? other.layers.length + 1 : map >= 0 && same >= 0 ? same + 1 : 0;
      put(model, { network: name, layer });
    },
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

  // Left: the image with the receptive field, and activations.
  const VIEW = 300;
  const stageOf = stage({ width: VIEW, height: VIEW, label: "The image, and what the cell in the middle can see" });
  stageOf.node.classList.add("ssd-cut", "ssd-half");
  const shade = svg("path", { class: "ssd-shade", "fill-rule": "evenodd" });
  const lit = svg("path", { class: "ssd-lit" });
  stageOf.node.append(
    svg("image", { href: model.get("image"), width: VIEW, height: VIEW, preserveAspectRatio: "none", "aria-hidden": "true" }),
    shade,
    lit,
  );
  const seen = html("p", { class: "ssd-hint" });
  const tiles = html("div", { class: "ssd-tiles" });
  const tilesText = html("p", { class: "ssd-hint" });
  picture.append(stageOf.node, seen, tiles, tilesText);

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

  // Right: numbers of the layer, and all layers.
  const heading = html("p", { class: "ssd-label" });
  const numbers = readout([
    { text: "output" },
    { text: "what it does" },
    { text: "parameters" },
    { text: "from cell to cell" },
    { text: "receptive field" },
  ]);
  const heads = html("p", { class: "ssd-heads" });
  const list = table({ caption: "All layers", head: ["layer", "C × H × W", "parameters", "sees, px"] });
  list.node.classList.add("ssd-layers");
  panel.append(heading, numbers.node, heads, list.node);

  const sizes = (shape) => shape.join(" × ");
  const share = (part, whole) => `${thousands(part)} (${fixed((100 * part) / whole, 1)} %)`;

  const { watch, end } = watching(model);
  watch(["network", "layer"], () => {
    const { network, last, number } = now();
    const layer = network.layers[number - 1];
    networkChoice.set(network.name);
    steps.set(number, last);
    for (const each of diagrams) {
      each.node.toggleAttribute("hidden", each.name !== network.name);
      if (each.name === network.name) each.show(number);
    }

    // What the cell in the middle sees
    const square = ([x0, y0, x1, y1]) => `M${x0} ${y0}H${x1}V${y1}H${x0}Z`;
    const scale = VIEW / network.size;
    if (layer) {
      const centre = layer.start + Math.floor(layer.shape[1] / 2) * layer.step;
      const field = toCorners([centre, centre, layer.field, layer.field]).map((v) => clamp(v * scale, 0, VIEW));
      const small = layer.field * scale < 8;
      update(shade, { d: square([0, 0, VIEW, VIEW]) + square(field) });
      update(lit, { d: square(field) });
      lit.classList.toggle("ssd-thin", small);
      seen.textContent =
        `Bright: what the cell in row and column ${Math.floor(layer.shape[1] / 2)} can depend on, ` +
        `${layer.field} × ${layer.field} px${layer.field > network.size ? ", more than the image has" : ""}. ` +
        "The part that matters is smaller.";
    } else {
      update(shade, { d: "" });
      update(lit, { d: "" });
      seen.textContent = `The image, squeezed to ${network.size} × ${network.size} px.`;
    }

    // Activations, or the scores of all maps at the end
    const of = (each) => each.channels.length;
    const scored = network.layers.filter((each) => each.scores);
    if (number === last) {
      tiles.replaceChildren(...scored.map((each) => tile(each.scores, 0, 1, `${each.shape[1]} × ${each.shape[2]}`)));
    } else if (layer?.picture) {
      tiles.replaceChildren(
        ...layer.channels.map((channel, i) => tile(layer.picture, i, of(layer), `channel ${channel}`)),
        ...(layer.scores ? [tile(layer.scores, 0, 1, "object score")] : []),
      );
      tiles.lastChild.classList.toggle("ssd-score", Boolean(layer.scores));
    } else {
      tiles.replaceChildren();
    }
    tilesText.textContent = !network.trained
      ? "Sizes only: the package has no trained weights for this network, so there are no activations to show."
      : number === last
        ? "Object scores of each map: the highest 1 − (score of background) among the priors of a cell; white is 1."
        : layer
          ? "The channels that vary most on this image, after ReLU; black is 0, white each channel's largest value" +
            (layer.shape[1] > 40 ? ", shown coarser than they are." : ".") +
            (layer.scores ? " Last: the highest object score among the priors of each cell." : "")
          : "";

    // Numbers
    const before = number > 1 ? network.layers[number - 2].shape : [3, network.size, network.size];
    const names = network.layers.filter(({ map }) => map >= 0);
    if (layer) {
      heading.textContent = `${layer.name}: layer ${number} of ${network.layers.length}`;
      const extra = [
        `stride ${layer.stride}`,
        `padding ${layer.padding}`,
        ...(layer.dilation > 1 ? [`dilation ${layer.dilation}`] : []),
      ];
      numbers.set([
        `${sizes(layer.shape)} (C × H × W)`,
        `${layer.kernel} × ${layer.kernel} ${layer.kind} of ${sizes(before)}, ${extra.join(", ")}`,
        share(layer.parameters, network.parameters),
        `${layer.step} px`,
        `${layer.field} × ${layer.field} px`,
      ]);
    } else if (number === 0) {
      heading.textContent = "Image";
      numbers.set([`${sizes(before)} (C × H × W)`, "red, green and blue, normalised", "0", "1 px", "1 × 1 px"]);
    } else {
      heading.textContent = "All predictions";
      const all = names.reduce((sum, each) => sum + each.head_parameters, 0);
      numbers.set([
        `${thousands(network.priors)} × (4 + ${network.classes})`,
        "moves channels last, and puts the maps one below the other",
        `${share(all, network.parameters)}, of all heads`,
        "–",
        "–",
      ]);
    }
    const rowsOf = (each) => each.shape[1] * each.shape[2] * each.per_cell;
    if (layer && layer.map >= 0) {
      const k = layer.per_cell;
      heads.replaceChildren(
        html("strong", {}, `This map predicts for ${k} priors a cell. `),
        `Two 3 × 3 convolutions read it: ${k} × 4 = ${4 * k} offsets and ${k} × ${network.classes} = ` +
          `${network.classes * k} class scores (background included) for each cell. ` +
          `${layer.shape[1]} × ${layer.shape[2]} × ${k} = ${thousands(rowsOf(layer))} rows, numbers ` +
          `${thousands(layer.first)} to ${thousands(layer.first + rowsOf(layer) - 1)} of ${thousands(network.priors)}. ` +
          `${thousands(layer.head_parameters)} parameters. Through their kernels a prediction sees ` +
          `${layer.head_field} × ${layer.head_field} px.`,
      );
    } else if (number === last) {
      heads.replaceChildren(
        html("strong", {}, `${names.map((each) => thousands(rowsOf(each))).join(" + ")} = ${thousands(network.priors)} rows. `),
        `Each has 4 offsets and ${network.classes} class scores, background included.`,
      );
    } else {
      heads.replaceChildren("No head reads this layer; it feeds the next one.");
    }
    list.set(
      network.layers.map((each, i) => ({
        cells: [each.name, sizes(each.shape), thousands(each.parameters), String(each.field)],
        current: i + 1 === number,
        click: () => choose(i + 1),
      })),
    );
    const current = list.node.querySelector(".ssd-current");
    if (current) list.node.scrollTop = current.offsetTop - list.node.clientHeight / 2;
    says(
      number === last
        ? `All predictions: ${thousands(network.priors)} rows of 4 offsets and ${network.classes} scores.`
        : layer
          ? `${layer.name}: ${layer.shape[0]} channels of ${layer.shape[1]} × ${layer.shape[2]} cells; a cell sees ` +
            `${layer.field} × ${layer.field} px.${layer.map >= 0 ? ` ${thousands(rowsOf(layer))} priors are predicted from it.` : ""}`
          : `The image: 3 channels of ${network.size} × ${network.size} px.`,
    );
  });
  return () => {
    steps.stop();
    end();
  };
}

export default { render };
