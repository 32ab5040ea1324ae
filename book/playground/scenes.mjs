// Small drawn scenes for the playground: gray, 48 x 48 pixels, with one to three shapes that hardly overlap.

const SIDE = 48; // pixels
const SHAPES = ["disc", "square", "triangle"]; // labels 1, 2, 3

// Random numbers in 0..1 that are the same for one seed everywhere (mulberry32, public domain).
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// Normally distributed, mean 0 and spread 1 (Box and Muller).
const normal = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

// How deep a point lies inside a shape of half side r around (0, 0), in pixels; negative outside.
const DEPTH = {
  disc: (x, y, r) => r - Math.hypot(x, y),
  square: (x, y, r) => r - Math.max(Math.abs(x), Math.abs(y)),
  triangle: (x, y, r) => Math.min(r - y, (y + r) / Math.sqrt(5) - (2 * Math.abs(x)) / Math.sqrt(5)),
};

/** @typedef {{label: number, x: number, y: number, size: number, gray: number}} Shape centre, side and gray value */
/** @typedef {{shapes: Shape[], pixels: Float64Array, boxes: number[][], labels: number[]}} Scene boxes: corners, 0..1 */

/** @type {(shape: Shape) => number[]} corners in fractions of the side, cut at the edge */
const boxOf = ({ x, y, size }) =>
  [x - size / 2, y - size / 2, x + size / 2, y + size / 2].map((value) => clamp(value / SIDE, 0, 1));

/** @type {(shapes: Shape[], noise: number, random: () => number, background?: number) => Scene} */
function drawScene(shapes, noise, random, background = 0.5) {
  const pixels = new Float64Array(SIDE * SIDE).fill(background);
  for (const { label, x, y, size, gray } of shapes) {
    const depth = DEPTH[SHAPES[label - 1]];
    for (let row = 0; row < SIDE; row += 1) {
      for (let column = 0; column < SIDE; column += 1) {
        const covered = clamp(depth(column + 0.5 - x, row + 0.5 - y, size / 2) + 0.5, 0, 1); // soft edges
        const i = row * SIDE + column;
        pixels[i] += covered * (gray - pixels[i]);
      }
    }
  }
  if (noise > 0) for (let i = 0; i < pixels.length; i += 1) pixels[i] = clamp(pixels[i] + noise * normal(random), 0, 1);
  return { shapes, pixels, boxes: shapes.map(boxOf), labels: shapes.map(({ label }) => label) };
}

// A shape of a random kind, size, place and gray value that stands out from the background.
function randomShape(random, background) {
  const size = 10 + 16 * random();
  const place = () => size / 2 + random() * (SIDE - size);
  const contrast = 0.25 + 0.25 * random();
  return {
    label: 1 + Math.floor(3 * random()),
    x: place(),
    y: place(),
    size,
    gray: clamp(random() < 0.5 ? background - contrast : background + contrast, 0, 1),
  };
}

/** @type {(random: () => number, noise: number) => Scene} */
function randomScene(random, noise) {
  const background = 0.35 + 0.3 * random();
  const wanted = 1 + Math.floor(3 * random());
  const shapes = [];
  for (let tries = 0; shapes.length < wanted && tries < 30; tries += 1) {
    const shape = randomShape(random, background);
    if (shapes.every((other) => iou(boxOf(other), boxOf(shape)) < 0.05)) shapes.push(shape);
  }
  return drawScene(shapes, noise, random, background);
}
