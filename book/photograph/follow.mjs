// One prior on its way: from the numbers of its cell through sigmoid, threshold, decoding and NMS.

const CHAPTERS_OF_STEPS = { prior: "03_priors", offsets: "04_coding", scores: "07_detections", network: "08_network" };

const chapterOf = (step, words) => html("a", { href: `${CHAPTERS_OF_STEPS[step]}.html` }, words);

// Which prior: by map, row, column and shape. `change` gets its place in the list of all.
function priorFields(maps, priors, change) {
  const now = { map: 0, row: 0, column: 0, shape: 0 };
  const tell = (values) => {
    Object.assign(now, values);
    const { cells, shapes } = maps[now.map];
    for (const key of ["row", "column"]) now[key] = clamp(Math.round(now[key]), 0, cells - 1);
    now.shape = clamp(Math.round(now.shape), 0, shapes.length - 1);
    change(priors.findIndex((one) => Object.keys(now).every((key) => one[key] === now[key])));
  };
  const options = maps.map(({ cells }, value) => ({ value, text: `${cells} × ${cells}` }));
  const map = select({ label: "Map", options, change: (value) => tell({ map: value }) });
  const fields = ["row", "column", "shape"].map((key) => {
    const read = () => input.value !== "" && tell({ [key]: Number(input.value) });
    const input = html("input", { type: "number", min: 0, step: 1, inputmode: "numeric", change: read });
    const words = key[0].toUpperCase() + key.slice(1);
    return { key, input, node: html("label", { class: "ssd-photo-field" }, words, input) };
  });
  const set = (one) => {
    for (const key of Object.keys(now)) now[key] = one[key];
    map.set(one.map);
    const last = { row: maps[one.map].cells - 1, column: maps[one.map].cells - 1, shape: maps[one.map].shapes.length - 1 };
    for (const { key, input } of fields) update(input, { max: last[key] }).value = String(one[key]);
  };
  return { node: html("div", { class: "ssd-photo-fields" }, map.node, fields.map(({ node }) => node)), set };
}

const numbers = (values, decimals = 3) => `(${Array.from(values, (value) => fixed(value, decimals)).join(", ")})`;

// The steps of a prior, as lines of text; `found` has what became of it.
function stepsOfPrior({ one, index, offsets, logits, label, score, decoded, fate, names, minScore }) {
  const { prior, map, row, column, shape } = one;
  const [x, y, w, h] = prior;
  const [gx, gy, gw, gh] = offsets;
  const rows = Array.from(logits, (logit, c) => ({ c, logit }))
    .slice(1)
    .sort((a, b) => b.logit - a.logit || a.c - b.c);
  const shown = rows.slice(0, 3).concat(rows.slice(3).filter(({ c }) => c === label));
  const line = (title, ...parts) => html("li", {}, html("strong", {}, title), " ", parts);
  return [
    line("The prior.", `Number ${thousands(index)}: row ${row}, column ${column}, shape ${shape} of map ${map}. Centre and size, in fractions of the picture: ${numbers(prior)} (`, chapterOf("prior", "chapter 3"), ")."),
    line("The numbers of its cell.", `Two 1 × 1 convolutions look at this cell and give four offsets, ${numbers(offsets, 2)}, and a logit for each class (`, chapterOf("network", "chapter 8"), ")."),
    line("Sigmoid.", "Each class is a question of its own: ", shown.map(({ c, logit }, i) => [i ? "; " : "", html("b", {}, names[c - 1]), ` 1 / (1 + exp(${fixed(-logit, 2)})) = ${fixed(sigmoid(logit), 3)}`]), "."),
    line("Threshold.", score >= minScore ? `${names[label - 1]} ${fixed(score, 3)} is at least ${fixed(minScore)}: a candidate.` : `${names[label - 1]} ${fixed(score, 3)} is below ${fixed(minScore)}: no candidate.`),
    line("Decoding.", `Centre x: ${fixed(x, 3)} + ${fixed(gx)} · 0.1 · ${fixed(w, 3)} = ${fixed(decoded[0], 3)}; y: ${fixed(y, 3)} + ${fixed(gy)} · 0.1 · ${fixed(h, 3)} = ${fixed(decoded[1], 3)}. Width: ${fixed(w, 3)} · exp(0.2 · ${fixed(gw)}) = ${fixed(decoded[2], 3)}; height: ${fixed(h, 3)} · exp(0.2 · ${fixed(gh)}) = ${fixed(decoded[3], 3)} (`, chapterOf("offsets", "chapter 4"), ")."),
    line("NMS.", fate, " (", chapterOf("scores", "chapter 7"), ")."),
  ];
}

// What became of a prior's box in its class.
function fateOf(index, label, { kept, removed }, names, maxOverlap) {
  const same = (one) => one.prior === index && one.label === label;
  const place = kept.findIndex(same);
  if (place >= 0) return `It stays, as number ${place + 1}: no better box of its class overlaps it by more than ${fixed(maxOverlap)}`;
  const one = removed.find(same);
  if (!one) return "It is no candidate, so NMS never sees it";
  return `Removed: number ${kept.indexOf(one.by) + 1}, ${names[label - 1]} ${fixed(one.by.score, 3)}, is better and overlaps it by ${fixed(one.overlap)}, more than ${fixed(maxOverlap)}`;
}

function followPanel(about, priors, change) {
  const fields = priorFields(about.maps, priors, change);
  const steps = html("ol", { class: "ssd-photo-steps" });
  const hint = "Press a place of the picture, a row of the list, or write which one.";
  const node = html(
    "section",
    { class: "ssd-photo-follow", "aria-label": "One prior, followed" },
    html("p", { class: "ssd-label" }, "One prior, followed"),
    html("p", { class: "ssd-hint" }, hint),
    fields.node,
    steps,
  );
  const set = (index, { offsets, logits, scores, result, label, minScore, maxOverlap, boxes }) => {
    const outputs = about.classes.length + 1;
    const one = priors[index];
    const own = offsets.subarray(4 * index, 4 * index + 4);
    const best = bestScore(scores, about.classes.length, index, label);
    fields.set(one);
    steps.replaceChildren(
      ...stepsOfPrior({
        one,
        index,
        offsets: own,
        logits: logits.subarray(outputs * index, outputs * (index + 1)),
        ...best,
        decoded: decode(Array.from(own), one.prior, PHOTO_VARIANCES),
        fate: fateOf(index, best.label, result, about.classes, maxOverlap),
        names: about.classes,
        minScore,
      }),
    );
    const { cells } = about.maps[one.map];
    const cell = [one.column / cells, one.row / cells, (one.column + 1) / cells, (one.row + 1) / cells];
    return { prior: one.prior, cell, box: boxes[index] };
  };
  return { node, set };
}
