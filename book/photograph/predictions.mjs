// From the network's numbers to detections, by the rules of ssdlib.detection; tests/book/test_photograph.py compares.

const PHOTO_VARIANCES = [0.1, 0.2];
const NO_AREA = 1e-6; // of the image's side: below, a width is rounding

/** @typedef {{map: number, row: number, column: number, shape: number, prior: number[]}} PhotoPrior */
/** @typedef {{prior: number, label: number, score: number, box: number[], by?: any, overlap?: number}} Found */

// All priors in the order of the predictions: map by map, row by row, cell by cell.
/** @type {(maps: {cells: number, shapes: number[][]}[]) => PhotoPrior[]} */
function priorsOfMaps(maps) {
  const priors = [];
  for (const [map, { cells, shapes }] of maps.entries()) {
    for (let i = 0; i < cells * cells; i += 1) {
      const [row, column] = [Math.floor(i / cells), i % cells];
      const centre = [(column + 0.5) / cells, (row + 0.5) / cells];
      for (const [shape, size] of shapes.entries()) priors.push({ map, row, column, shape, prior: [...centre, ...size] });
    }
  }
  return priors;
}

const sigmoid = (value) => 1 / (1 + Math.exp(-value));

// A score for each prior and class; the first of the `outputs` logits of a prior is background, and says nothing.
/** @type {(logits: Float32Array, outputs: number) => Float32Array} */
function objectScores(logits, outputs) {
  const scores = new Float32Array((logits.length / outputs) * (outputs - 1));
  let place = 0;
  for (let i = 0; i < logits.length; i += 1) {
    if (i % outputs === 0) continue;
    scores[place] = sigmoid(logits[i]);
    place += 1;
  }
  return scores;
}

// The boxes of all priors, corners in fractions of the image, cut at its edge.
/** @type {(offsets: Float32Array, priors: PhotoPrior[]) => number[][]} */
const boxesOf = (offsets, priors) =>
  priors.map(({ prior }, i) =>
    toCorners(decode(Array.from(offsets.subarray(4 * i, 4 * i + 4)), prior, PHOTO_VARIANCES)).map((value) => clamp(value, 0, 1)),
  );

// Whatever reaches the threshold, best first; of equal scores the lower label, then the earlier prior.
/** @type {(scores: Float32Array, boxes: number[][], minScore: number) => Found[]} */
function candidatesOf(scores, boxes, minScore) {
  const classes = scores.length / boxes.length;
  const found = [];
  for (let i = 0; i < scores.length; i += 1) {
    if (scores[i] < minScore) continue;
    const prior = Math.floor(i / classes);
    const [x0, y0, x1, y1] = boxes[prior];
    if (x1 - x0 > NO_AREA && y1 - y0 > NO_AREA) {
      found.push({ prior, label: (i % classes) + 1, score: scores[i], box: boxes[prior] });
    }
  }
  return found.sort((a, b) => b.score - a.score || a.label - b.label || a.prior - b.prior);
}

// NMS of each class: what is kept, and what is removed, `by` which one and by what `overlap`.
/** @type {(candidates: Found[], maxOverlap: number) => {kept: Found[], removed: Found[]}} */
function suppress(candidates, maxOverlap) {
  const [kept, removed] = [[], []];
  for (const one of candidates) {
    const by = kept.find((better) => better.label === one.label && iou(better.box, one.box) > maxOverlap);
    if (by) removed.push({ ...one, by, overlap: iou(by.box, one.box) });
    else kept.push(one);
  }
  return { kept, removed };
}

// The best score in each cell of a map, of one class or (label 0) of all: where the network sees something.
/** @type {(scores: Float32Array, priors: PhotoPrior[], map: number, cells: number, label: number) => Float32Array} */
function heatOfMap(scores, priors, map, cells, label) {
  const classes = scores.length / priors.length;
  const heat = new Float32Array(cells * cells);
  for (const [i, one] of priors.entries()) {
    if (one.map !== map) continue;
    const place = one.row * cells + one.column;
    heat[place] = Math.max(heat[place], bestScore(scores, classes, i, label).score);
  }
  return heat;
}

// The best class of a prior, or the one that is asked for.
/** @type {(scores: Float32Array, classes: number, prior: number, label: number) => {score: number, label: number}} */
function bestScore(scores, classes, prior, label) {
  if (label) return { label, score: scores[prior * classes + label - 1] };
  let best = 0;
  for (let c = 1; c < classes; c += 1) if (scores[prior * classes + c] > scores[prior * classes + best]) best = c;
  return { label: best + 1, score: scores[prior * classes + best] };
}
