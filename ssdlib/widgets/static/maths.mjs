// Box arithmetic that dragging needs; tests/widgets/test_browser.py compares it with ssdlib on random boxes.
// Boxes are [x_min, y_min, x_max, y_max] or, where the name says so, [c_x, c_y, w, h].

/** @param {number[]} box */
const area = ([x0, y0, x1, y1]) => Math.max(0, x1 - x0) * Math.max(0, y1 - y0);

/** @type {(a: number[], b: number[]) => number[]} */
const intersection = ([aX0, aY0, aX1, aY1], [bX0, bY0, bX1, bY1]) => [
  Math.max(aX0, bX0),
  Math.max(aY0, bY0),
  Math.min(aX1, bX1),
  Math.min(aY1, bY1),
];

/** @type {(a: number[], b: number[]) => number} */
function iou(a, b) {
  const shared = area(intersection(a, b));
  const union = area(a) + area(b) - shared;
  return union > 0 ? shared / union : 0;
}

/** @type {(box: number[]) => number[]} */
const toCentre = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0];

/** @type {(boxCentre: number[]) => number[]} */
const toCorners = ([cx, cy, w, h]) => [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];

/** @type {(boxCentre: number[], priorCentre: number[], variances: number[]) => number[]} */
function encode(boxCentre, priorCentre, variances) {
  const [cx, cy, w, h] = boxCentre;
  const [px, py, pw, ph] = priorCentre;
  const [centre, size] = variances;
  return [(cx - px) / pw / centre, (cy - py) / ph / centre, Math.log(w / pw) / size, Math.log(h / ph) / size];
}

// As in ssdlib.coding: no box is decoded to more than 62.5 times its prior.
const LARGEST_LOG_SIZE = Math.log(1000 / 16);

/** @type {(offsets: number[], priorCentre: number[], variances: number[]) => number[]} */
function decode([gx, gy, gw, gh], priorCentre, variances) {
  const [px, py, pw, ph] = priorCentre;
  const [centre, size] = variances;
  return [
    px + gx * centre * pw,
    py + gy * centre * ph,
    pw * Math.exp(Math.min(gw * size, LARGEST_LOG_SIZE)),
    ph * Math.exp(Math.min(gh * size, LARGEST_LOG_SIZE)),
  ];
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const roundTo = (value, step) => Number((Math.round(value / step) * step).toFixed(6));

// A number as the book writes it: fixed decimals, a true minus sign, no "-0.00".
function fixed(value, decimals = 2) {
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
}

const thousands = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, ",");
