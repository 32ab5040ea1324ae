// HardNegativeMiner: the negatives that count, hardest first, and what the others would have made of the loss.

// The confidence loss with so many negatives for each positive, in parts; `all` is the part that all negatives have.
function lossesAt({ positives, sums }, ratio) {
  const count = Math.max(1, positives.length); // an image without positives counts as one with a single positive
  const mined = Math.min(ratio * count, sums.number);
  return {
    mined,
    positives: sums.positives / count,
    negatives: sums.hardest[mined] / count,
    all: sums.negatives / count,
  };
}

function lossChart(hardness) {
  const [width, height] = [320, 112];
  const [left, right, top, floor] = [34, 316, 8, 88];
  const place = stage({ width, height, label: "Loss of the negatives as background, hardest first" });
  const most = Math.max(1, ...hardness);
  const x = (rank) => left + ((right - left) * rank) / Math.max(1, hardness.length);
  const y = (loss) => floor - ((floor - top) * loss) / most;
  const area = (from, to) => {
    if (to <= from) return "";
    const steps = hardness.slice(from, to).map((loss, i) => `V${y(loss)}H${x(from + i + 1)}`);
    return `M${x(from)} ${floor}${steps.join("")}V${floor}Z`;
  };
  const parts = ["ssd-done", "ssd-wanted", "ssd-dropped"].map((name) => svg("path", { class: name }));
  const now = svg("line", { class: "ssd-way" });
  const text = (words, at, anchor) => svg("text", { ...at, "text-anchor": anchor, class: "ssd-small" }, words);
  place.node.append(
    ...parts,
    svg("line", { class: "ssd-way", x1: left, x2: right, y1: floor, y2: floor }),
    now,
    text(fixed(most, 1), { x: left - 4, y: top + 8 }, "end"),
    text("0", { x: left - 4, y: floor + 4 }, "end"),
    text("1", { x: left, y: floor + 17 }, "start"),
    text("rank of the negative", { x: (left + right) / 2, y: floor + 17 }, "middle"),
    text(String(hardness.length), { x: right, y: floor + 17 }, "end"),
  );
  const set = (shown, mined) => {
    [
      [0, shown],
      [shown, mined],
      [mined, hardness.length],
    ].forEach(([from, to], i) => update(parts[i], { d: area(from, to) }));
    update(now, { x1: x(mined), x2: x(mined), y1: top, y2: floor });
  };
  return { node: place.node, set };
}

function render({ model, el }) {
  const { picture, panel, says } = frame(el, model.get("title"));
  const [width, height] = model.get("size");
  const scene = model.get("scene");
  const names = ["background", ...model.get("classes")];
  const place = stage({ width, height, label: "Positives and mined negatives on the image", image: model.get("image") });
  const share = (part, whole) => `${fixed(whole > 0 ? (100 * part) / whole : 0, 0)} %`;
  const pixels = (row) => row.slice(0, 4).map((side) => side / 10);

  const objects = svg(
    "g",
    {},
    scene.objects.map((row) => [
      boxShape(row, { class: "ssd-box ssd-object-rim" }),
      boxShape(row, { class: "ssd-box ssd-object" }),
    ]),
  );
  const tags = svg(
    "g",
    {},
    scene.objects.map((row) => {
      const name = tag(names[row[4]]);
      placeTag(name, row, place);
      return name;
    }),
  );
  const line = (row, kind, label) => [
    boxShape(pixels(row), { class: "ssd-box ssd-line-rim" }),
    boxShape(pixels(row), { class: `ssd-box ssd-line ${kind}`, style: { stroke: colorOf(label) } }),
  ];
  const positives = svg("g", {}, scene.positives.map((row) => line(row, "ssd-positive", row[4])));
  const negatives = svg("g", {});
  const now = [boxShape([0, 0, 0, 0], { class: "ssd-box ssd-now-rim" }), boxShape([0, 0, 0, 0], { class: "ssd-box ssd-now" })];
  const nowTag = tag("");
  place.node.classList.add("ssd-dim");
  place.node.append(objects, positives, negatives, ...now, tags, nowTag);

  const chart = lossChart(scene.negatives.map((row) => row[7] / 1000));
  const steps = player({ label: "Mined negatives, hardest first", change: (shown) => put(model, { shown }), pause: 350 });
  const drawn = checks({
    label: "Draw",
    options: [
      { text: "objects", value: "objects" },
      { text: "positives (solid)", value: "positives" },
      { text: "mined (dashed)", value: "negatives" },
    ],
    change: (values) => put(model, { drawn: values }),
  });
  const one = readout([
    { text: "rank and loss" },
    { text: "probability of background" },
    { text: "most likely object" },
    { text: "IoU with the nearest object" },
  ]);
  const oneName = html("p", { class: "ssd-label" });
  picture.append(
    html("div", { class: "ssd-clip" }, place.node),
    html("div", { class: "ssd-spaced" }, steps.node),
    html("div", { class: "ssd-spaced" }, oneName, one.node),
    html("p", { class: "ssd-label ssd-spaced" }, "Loss of the hardest negatives as background"),
    chart.node,
    html("p", { class: "ssd-hint" }, "Left of the line: mined. Orange: drawn so far."),
  );

  const ratio = slider({
    label: "Negatives for each positive",
    min: 0,
    max: 10,
    step: 1,
    change: (value) => put(model, { ratio: value, shown: lossesAt(scene, value).mined }),
  });
  const losses = table({ caption: "Confidence loss (sums / N)", head: ["counted", "positives", "negatives", "sum"] });
  losses.node.classList.add("ssd-whole");
  const bars = ["all", "mined"].map((name) => {
    const part = html("i", {});
    const words = html("span", {});
    return { part, words, node: html("div", {}, html("div", { class: "ssd-bar", "aria-hidden": "true" }, part), words), name };
  });
  const others = readout([{ text: "localization loss (positives only)" }, { text: "sum of both losses, after mining" }]);
  const claims = table({ caption: "Mined, by their most likely object", head: ["object", "negatives"] });
  claims.node.classList.add("ssd-whole");
  panel.append(
    drawn.node,
    ratio.node,
    losses.node,
    html("p", { class: "ssd-label" }, "Share of the positives in it"),
    html("div", { class: "ssd-shares" }, bars.map(({ node }) => node)),
    others.node,
    claims.node,
  );

  const { watch, end } = watching(model);
  watch(["ratio", "shown", "drawn"], () => {
    const wanted = model.get("ratio");
    const { mined, ...loss } = lossesAt(scene, wanted);
    const shown = Math.min(model.get("shown"), mined);
    ratio.set(wanted);
    steps.set(shown, mined);
    chart.set(shown, mined);
    drawn.set(model.get("drawn"));
    const on = (name) => model.get("drawn").includes(name);
    for (const node of [objects, tags]) node.style.display = on("objects") ? "" : "none";
    positives.style.display = on("positives") ? "" : "none";
    negatives.replaceChildren(
      ...(on("negatives") ? scene.negatives.slice(0, shown).flatMap((row) => line(row, "ssd-mined", row[4])) : []),
    );
    const last = shown > 0 && on("negatives") ? scene.negatives[shown - 1] : null;
    [...now, nowTag].forEach((node) => (node.style.display = last ? "" : "none"));
    const per = (value) => fixed(value / 1000, 3);
    if (last) {
      now.forEach((node) => update(node, boxAttributes(pixels(last))));
      nowTag.textContent = `${names[last[4]]} ${fixed(last[5] / 1000, 2)}`;
      placeTag(nowTag, pixels(last).map((side, i) => clamp(side, 0, i % 2 ? height : width)), place);
    }
    const row = shown > 0 ? scene.negatives[shown - 1] : null;
    oneName.textContent = row ? `Negative ${shown} of ${mined}` : "No negative drawn yet";
    one.set(row ? [`${shown}, ${per(row[7])}`, per(row[6]), `${names[row[4]]}, ${per(row[5])}`, per(row[8])] : ["–", "–", "–", "–"]);

    const [before, after] = [loss.positives + loss.all, loss.positives + loss.negatives];
    losses.set([
      { cells: [`all ${thousands(scene.sums.number)}`, ...[loss.positives, loss.all, before].map((value) => fixed(value, 2))] },
      { cells: [`${mined} mined`, ...[loss.positives, loss.negatives, after].map((value) => fixed(value, 2))], current: true },
    ]);
    [before, after].forEach((whole, i) => {
      bars[i].part.style.width = share(loss.positives, whole).replace(" ", "");
      bars[i].words.textContent = `${share(loss.positives, whole)} ${i ? "after mining" : "if all negatives count"}`;
    });
    others.set([fixed(scene.sums.localization, 2), fixed(scene.sums.localization + after, 2)]);
    const counts = names.map((_, label) => scene.negatives.slice(0, mined).filter((entry) => entry[4] === label).length);
    claims.node.hidden = mined === 0;
    claims.set(
      names
        .map((name, label) => ({ label, count: counts[label], cells: [[swatch(colorOf(label)), name], String(counts[label])] }))
        .filter(({ count }) => count > 0)
        .sort((a, b) => b.count - a.count),
    );
    says(
      row && shown < mined
        ? `Negative ${shown} of ${mined}, loss ${per(row[7])}: the network gives ${names[row[4]]} ${per(row[5])} and ` +
            `background ${per(row[6])}; IoU with the nearest object ${per(row[8])}.`
        : `${mined} of ${thousands(scene.sums.number)} negatives count. The confidence loss is ${fixed(after, 2)} ` +
            `in place of ${fixed(before, 2)}, and the positives make up ${share(loss.positives, after)} of it ` +
            `in place of ${share(loss.positives, before)}.`,
    );
  });
  return () => (steps.stop(), end());
}

export default { render };
