// Box arithmetic that dragging needs; tests/test_widgets_browser.py compares it with ssdlib on random boxes.
// Boxes are [x_min, y_min, x_max, y_max] or, where the name says so, [c_x, c_y, w, h].

const area = ([x0, y0, x1, y1]) => Math.max(0, x1 - x0) * Math.max(0, y1 - y0);

const intersection = (a, b) => [
  Math.max(a[0], b[0]),
  Math.max(a[1], b[1]),
  Math.min(a[2], b[2]),
  Math.min(a[3], b[3]),
];

function iou(a, b) {
  const shared = area(intersection(a, b));
  const union = area(a) + area(b) - shared;
  return union > 0 ? shared / union : 0;
}

const toCentre = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0];

const toCorners = ([cx, cy, w, h]) => [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];

function encode(boxCentre, priorCentre, variances) {
  const [cx, cy, w, h] = boxCentre;
  const [px, py, pw, ph] = priorCentre;
  const [centre, size] = variances;
  return [(cx - px) / pw / centre, (cy - py) / ph / centre, Math.log(w / pw) / size, Math.log(h / ph) / size];
}

function decode(offsets, priorCentre, variances) {
  const [px, py, pw, ph] = priorCentre;
  const [centre, size] = variances;
  return [
    px + offsets[0] * centre * pw,
    py + offsets[1] * centre * ph,
    pw * Math.exp(offsets[2] * size),
    ph * Math.exp(offsets[3] * size),
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
