// The four stops on the way to the answer: what is laid over the board at each, and what is said of it.

const STOPS = { answer: "Answer", priors: "Priors", scores: "Scores", boxes: "Boxes", nms: "NMS" };
const SURE = 0.3; // the lowest score that is shown
const MAX_OVERLAP = 0.45;

/** @typedef {{offsets: Float32Array, logits: Float32Array, scores: Float32Array, boxes: number[][], heats: Float32Array[],
 *   candidates: Found[], kept: Found[], removed: Found[]}} Seen */

// What comes after the network, by the rules of ssdlib.detection.
/** @type {(answer: {offsets: Float32Array, logits: Float32Array}, about: ToyAbout, priors: PhotoPrior[]) => Seen} */
function afterNetwork({ offsets, logits }, about, priors) {
  const scores = softmaxScores(logits, about.classes.length + 1);
  const boxes = boxesOf(offsets, priors);
  const candidates = candidatesOf(scores, boxes, SURE);
  const heats = about.maps.map(({ cells }, map) => heatOfMap(scores, priors, map, cells, 0));
  return { offsets, logits, scores, boxes, heats, candidates, ...suppress(candidates, MAX_OVERLAP) };
}

const onBoard = (box) => box.map((value) => value * BOARD);

const rimmed = (box, look, label) => [
  boxShape(onBoard(box), { class: "ssd-box ssd-toys-rim" }),
  boxShape(onBoard(box), { class: `ssd-box ${look}`, style: { stroke: label ? colorOf(label) : null } }),
];

// Boxes with their names; `place` is the stage, for whose border names are moved inside.
function namedBoxes(kept, classes, place) {
  const shapes = [...kept].reverse().flatMap(({ box, label }) => rimmed(box, "ssd-toys-kept", label));
  const names = kept.map(({ box, label, score }) => {
    const text = tag(`${classes[label - 1]} ${score.toFixed(2)}`);
    placeTag(text, onBoard(box), place);
    return text;
  });
  return [...shapes, ...names];
}

// The cells of the map whose prior found a toy, the priors of its cell, and that prior.
function priorShapes(one, priors, { maps }) {
  const { map, row, column } = priors[one.prior];
  const { cells } = maps[map];
  const step = BOARD / cells;
  const lines = Array.from({ length: cells - 1 }, (_, i) => (i + 1) * step).flatMap((at) => [
    svg("line", { class: "ssd-toys-line", x1: at, x2: at, y1: 0, y2: BOARD }),
    svg("line", { class: "ssd-toys-line", y1: at, y2: at, x1: 0, x2: BOARD }),
  ]);
  const cell = [column, row, column + 1, row + 1].map((value) => value / cells);
  const beside = priors.filter((other) => other.map === map && other.row === row && other.column === column);
  return [
    ...lines,
    boxShape(onBoard(cell), { class: "ssd-toys-cell" }),
    ...beside.flatMap(({ prior }) => rimmed(toCorners(prior), "ssd-toys-prior", 0)),
    ...rimmed(toCorners(priors[one.prior].prior), "ssd-toys-kept", one.label),
  ];
}

// All decoded boxes, each with the way from the centre of its prior to its own.
const decodedShapes = (candidates, priors) =>
  [...candidates].reverse().flatMap(({ box, label, prior }) => {
    const [from, to] = [onBoard(priors[prior].prior), onBoard(toCentre(box))];
    const way = { x1: from[0], y1: from[1], x2: to[0], y2: to[1] };
    return [
      boxShape(onBoard(box), { class: "ssd-box ssd-toys-decoded", style: { stroke: colorOf(label) } }),
      svg("line", { class: "ssd-toys-rim", ...way }),
      svg("line", { class: "ssd-toys-way", ...way }),
      svg("circle", { class: "ssd-toys-dot", cx: from[0], cy: from[1] }),
    ];
  });

// What lies over the board at a stop; `one` is the detection that is looked at.
/** @type {(stop: string, seen: Seen, one: Found | undefined, context: {priors: PhotoPrior[], about: ToyAbout, place: any}) => SVGElement[]} */
function shapesOfStop(stop, { candidates, kept, removed }, one, { priors, about, place }) {
  if (stop === "priors") return one ? priorShapes(one, priors, about) : [];
  if (stop === "boxes") return decodedShapes(candidates, priors);
  if (stop === "scores") return [];
  const lost = stop === "nms" ? removed.flatMap(({ box, label }) => rimmed(box, "ssd-toys-removed", label)) : [];
  return [...lost, ...namedBoxes(kept, about.classes, place)];
}

const toChapter = (page, words) => html("a", { href: `${page}.html` }, words);

const counted = (count, word) => `${thousands(count)} ${word}${count === 1 ? "" : word.endsWith("x") ? "es" : "s"}`;

// What a stop shows on this board, and where the book explains it; `missed` is the class of the chosen toy, if it is.
/** @type {(stop: string, seen: Seen, one: Found | undefined, context: {priors: PhotoPrior[], about: ToyAbout, missed: string}) => any[]} */
function wordsOfStop(stop, { candidates, kept, removed, scores }, one, { priors, about, missed }) {
  const all = thousands(priors.length);
  if (stop === "answer") {
    return ["The boxes with a score of at least ", SURE.toFixed(1), ". Four stops lead to them: choose one. ", toChapter("01_detection", "Chapter 1"), " begins the way."];
  }
  if (stop === "scores") {
    const classes = about.classes.length;
    const high = Array.from(priors, (_, i) => bestScore(scores, classes, i, 0).score).filter((score) => score >= 0.5).length;
    return [`For each of the ${all} priors the network gives ${classes + 1} numbers, and softmax makes scores of them. Bright cells: some toy, they say; ${high} priors are surer than 0.5. `, toChapter("08_network", "Chapter 8"), " builds the network."];
  }
  if (stop === "boxes") {
    const count = candidates.length;
    const reach = count
      ? `${counted(count, "box")} of ${all} ${count === 1 ? "reaches" : "reach"} ${SURE.toFixed(1)}; NMS leaves ${kept.length}.`
      : `None of the ${all} boxes reaches ${SURE.toFixed(1)}.`;
    return [`Four offsets move and stretch each prior: lines lead from its centre to that of its box. ${reach} `, toChapter("04_coding", "Chapter 4"), " decodes them."];
  }
  if (stop === "nms") {
    return [`Of boxes of one class that overlap by more than ${MAX_OVERLAP}, the best stays: ${counted(kept.length, "box")} here. ${removed.length ? `Dashed: the ${removed.length} that NMS removed.` : "NMS removed none."} `, toChapter("07_detections", "Chapter 7"), " has the rule."];
  }
  if (!one) return [`All ${all} priors stay below a score of ${SURE.toFixed(1)}. `, toChapter("03_priors", "Chapter 3"), " says where they lie."];
  const { cells, shapes } = about.maps[priors[one.prior].map];
  const lost = missed ? `The chosen ${missed} was missed. ` : "";
  return [`${lost}The ${about.classes[one.label - 1]} was found by a prior of the ${cells} × ${cells} map, thick; dashed, the ${shapes.length} of its cell. They are ${shapes.length} of ${all}, and the same for every image. `, toChapter("03_priors", "Chapter 3"), " lays them out."];
}

// How far a detection's centre is from that of a toy, as far as the toy is on the board, in sizes of the toy. Of
// another class, it is not near.
function farFrom({ kind, x, y, size }, { label, box }) {
  if (label !== kind + 1) return Infinity;
  const [ownX, ownY] = [x, y].map((value) => (Math.max(0, value - size / 2) + Math.min(1, value + size / 2)) / 2);
  const [atX, atY] = toCentre(box);
  return Math.hypot(atX - ownX, atY - ownY) / size;
}

const NEAR = 1 / 3;

// Of each toy, by its id, the detection that found it. As when detectors are evaluated, the best detection comes first,
// and none finds two toys; of toys at one place it is the uppermost.
/** @type {(toys: Placed[], kept: Found[]) => Map<number, Found | undefined>} */
function foundToys(toys, kept) {
  const found = new Map(toys.map(({ id }) => [id, undefined]));
  for (const one of kept) {
    const free = toys.filter((toy) => !found.get(toy.id) && farFrom(toy, one) < NEAR);
    if (free.length) found.set(free.reduce((a, b) => (farFrom(b, one) <= farFrom(a, one) ? b : a)).id, one);
  }
  return found;
}

// Where a toy lies, in words.
function placeWords({ x, y }) {
  const third = (value, names) => names[clamp(Math.floor(3 * value), 0, 2)];
  const [row, column] = [third(y, ["top", "middle", "bottom"]), third(x, ["left", "centre", "right"])];
  return row === "middle" && column === "centre" ? "in the middle" : `${row} ${column}`;
}

// What was found, `where` it lies if that is wanted, which toys were missed, and which detections are too many.
/** @type {(toys: Placed[], seen: {kept: Found[], found: Map<number, Found | undefined>}, classes: string[], where: boolean) => string} */
function answerWords(toys, { kept, found: foundBy }, classes, where) {
  if (!toys.length) return kept.length ? `The board is empty, and yet: ${kept.map(({ label }) => classes[label - 1]).join(", ")}.` : "The board is empty, and nothing was found.";
  const pairs = toys.map((toy) => ({ toy, one: foundBy.get(toy.id) }));
  const place = (toy) => (where ? ` ${placeWords(toy)}` : "");
  const found = pairs.filter(({ one }) => one).map(({ toy, one }) => `${classes[toy.kind]} ${one.score.toFixed(2)}${place(toy)}`);
  const missed = pairs.filter(({ one }) => !one).map(({ toy }) => `${classes[toy.kind]}${place(toy)}`);
  const over = kept.filter((one) => pairs.every((pair) => pair.one !== one));
  const isAgain = (one) => toys.some((toy) => farFrom(toy, one) < NEAR);
  const named = (ones) => ones.map(({ label, score }) => `${classes[label - 1]} ${score.toFixed(2)}`).join(", ");
  const [again, wrong] = [over.filter(isAgain), over.filter((one) => !isAgain(one))];
  const parts = [`${found.length} of ${toys.length} found${found.length ? ": " : ""}${found.join(", ")}`];
  if (missed.length) parts.push(`Missed: ${missed.join(", ")}`);
  if (again.length) parts.push(`Found twice: ${named(again)}`);
  if (wrong.length) parts.push(`No such toy there: ${named(wrong)}`);
  return `${parts.join(". ")}.`;
}
