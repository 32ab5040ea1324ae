// Matching, the MultiBox loss with its gradients, detection and mAP: the rules of ssdlib, on plain arrays.
// tests/book/test_playground.py compares each with ssdlib.

const VARIANCES = [0.1, 0.2];
const NO_VARIANCES = [1, 1];

/** @typedef {{
 *   threshold: number, everyObject: boolean, negatives: number, mistake: string,
 * }} Rules negatives: of each positive, Infinity for all; mistake: a key of MISTAKES */

// The classic mistakes of the book that the page can plant, and what to look at.
const MISTAKES = {
  none: "No mistake",
  stacking: "Heads reshaped without permute",
  swapped: "x and y swapped in the targets",
  variances: "Variances forgotten in decoding",
  labels: "Labels begin at 0, as the background",
  nms: "No NMS",
};

// Which object each prior has to predict, or -1.
/** @type {(boxes: number[][], priors: number[][], rules: {threshold: number, everyObject: boolean}) => Int32Array} */
function matchPriors(boxes, priors, { threshold, everyObject }) {
  const matched = new Int32Array(priors.length).fill(-1);
  const overlaps = boxes.map((box) => Float64Array.from(priors, (prior) => iou(box, toCorners(prior))));
  for (let j = 0; j < priors.length; j += 1) {
    let best = 0;
    for (let i = 0; i < boxes.length; i += 1) {
      if (overlaps[i][j] >= threshold && (matched[j] < 0 || overlaps[i][j] > best)) [matched[j], best] = [i, overlaps[i][j]];
    }
  }
  for (const [object, prior] of everyObject ? bestPriors(overlaps).entries() : []) {
    if (prior >= 0) matched[prior] = object;
  }
  return matched;
}

// A prior of its own for every object: the pair with the largest overlap first.
/** @type {(overlaps: Float64Array[]) => number[]} */
function bestPriors(overlaps) {
  const own = overlaps.map(() => -1);
  const free = overlaps.map((row) => row.slice());
  for (const _ of overlaps) {
    let [object, prior, best] = [-1, -1, -1];
    for (const [i, row] of free.entries()) {
      for (const [j, value] of row.entries()) if (value > best) [object, prior, best] = [i, j, value];
    }
    if (object < 0) break;
    own[object] = prior;
    free[object].fill(-1);
    for (const row of free) row[prior] = -1;
  }
  return own;
}

/** @type {(logits: Float64Array, prior: number) => number[]} */
function softmax(logits, prior) {
  const z = Array.from(logits.subarray(prior * CLASSES, (prior + 1) * CLASSES));
  const most = Math.max(...z);
  const powers = z.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// Sums of the two losses over one scene, their gradients, and who was chosen. The batch divides by its positives.
/** @type {(predicted: {offsets: Float64Array, logits: Float64Array}, scene: Scene, priors: number[][], rules: Rules) => any} */
function multiboxLoss({ offsets, logits }, { boxes, labels }, priors, rules) {
  const matched = matchPriors(boxes, priors, rules);
  const offsetGradient = new Float64Array(offsets.length);
  const logitGradient = new Float64Array(logits.length);
  const scores = priors.map((_, prior) => softmax(logits, prior));
  const positives = priors.map((_, prior) => prior).filter((prior) => matched[prior] >= 0);
  const negatives = priors.map((_, prior) => prior).filter((prior) => matched[prior] < 0);
  negatives.sort((a, b) => scores[a][0] - scores[b][0]); // the hardest, least sure to be background, first
  const mined = negatives.slice(0, rules.negatives * Math.max(1, positives.length));
  let [localization, confidence] = [0, 0];
  for (const prior of positives) {
    const wanted = targetOffsets(boxes[matched[prior]], priors[prior], rules.mistake);
    for (let n = 0; n < 4; n += 1) {
      const error = offsets[prior * 4 + n] - wanted[n];
      localization += Math.abs(error) < 1 ? (error * error) / 2 : Math.abs(error) - 0.5; // smooth L1
      offsetGradient[prior * 4 + n] = clamp(error, -1, 1);
    }
  }
  const shift = rules.mistake === "labels" ? 1 : 0;
  for (const prior of [...positives, ...mined]) {
    const label = matched[prior] >= 0 ? labels[matched[prior]] - shift : 0;
    confidence -= Math.log(Math.max(scores[prior][label], 1e-300));
    for (let c = 0; c < CLASSES; c += 1) logitGradient[prior * CLASSES + c] = scores[prior][c] - (c === label ? 1 : 0);
  }
  return { localization, confidence, offsetGradient, logitGradient, matched, positives, mined };
}

/** @type {(box: number[], prior: number[], mistake: string) => number[]} */
function targetOffsets(box, prior, mistake) {
  const [x, y, w, h] = encode(toCentre(box), prior, VARIANCES);
  return mistake === "swapped" ? [y, x, h, w] : [x, y, w, h];
}

/** @typedef {{box: number[], label: number, score: number, prior: number}} Detection */

/** @type {(predicted: {offsets: Float64Array, logits: Float64Array}, priors: number[][], mistake: string, minScore?: number, maxOverlap?: number) => Detection[]} best first */
function detectObjects({ offsets, logits }, priors, mistake, minScore = 0.01, maxOverlap = 0.45) {
  const found = [];
  priors.forEach((prior, p) => {
    const scores = softmax(logits, p);
    if (1 - scores[0] < minScore) return;
    const variances = mistake === "variances" ? NO_VARIANCES : VARIANCES;
    const box = decodedBox(offsets.subarray(4 * p, 4 * p + 4), prior, variances);
    if (!(box[2] > box[0] && box[3] > box[1])) return;
    for (let label = 1; label < CLASSES; label += 1) {
      if (scores[label] >= minScore) found.push({ box, label, score: scores[label], prior: p });
    }
  });
  found.sort((a, b) => b.score - a.score || a.label - b.label || a.prior - b.prior);
  if (mistake === "nms") return found;
  const kept = [];
  for (const one of found) {
    if (kept.every((better) => better.label !== one.label || iou(better.box, one.box) <= maxOverlap)) kept.push(one);
  }
  return kept;
}

/** @type {(offsets: ArrayLike<number>, prior: number[], variances: number[]) => number[]} corners, cut at the edge */
const decodedBox = (offsets, prior, variances) =>
  toCorners(decode(Array.from(offsets), prior, variances)).map((value) => clamp(value, 0, 1));

// Mean over the classes of the area under precision against recall, at an IoU of 0.5; NaN without any object.
/** @type {(detections: Detection[][], scenes: Scene[]) => number} */
function meanAveragePrecision(detections, scenes) {
  const areas = [];
  for (let label = 1; label < CLASSES; label += 1) {
    const objects = scenes.map(({ boxes, labels }) => boxes.filter((_, i) => labels[i] === label));
    const count = objects.reduce((sum, { length }) => sum + length, 0);
    if (count > 0) areas.push(averagePrecision(detections.map((found) => found.filter((d) => d.label === label)), objects, count));
  }
  return areas.reduce((sum, area) => sum + area, 0) / areas.length;
}

function averagePrecision(detections, objects, count) {
  const ranking = detections.flatMap((found, scene) => found.map((detection) => ({ ...detection, scene })));
  ranking.sort((a, b) => b.score - a.score);
  const taken = objects.map((boxes) => boxes.map(() => false));
  let right = 0;
  const points = ranking.map(({ box, scene }, i) => {
    const overlaps = objects[scene].map((object) => iou(object, box));
    const best = overlaps.indexOf(Math.max(...overlaps));
    if (best >= 0 && overlaps[best] >= 0.5 && !taken[scene][best]) {
      taken[scene][best] = true;
      right += 1;
    }
    return { recall: right / count, precision: right / (i + 1) };
  });
  let [area, envelope] = [0, 0];
  for (let i = points.length - 1; i >= 0; i -= 1) {
    envelope = Math.max(envelope, points[i].precision);
    area += envelope * (points[i].recall - (i > 0 ? points[i - 1].recall : 0));
  }
  return area;
}
