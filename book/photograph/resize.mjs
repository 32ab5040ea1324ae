// The network's input from the pixels of a photograph, to the last bit as ssdlib.model.prepare makes it where PyTorch
// resizes bytes (on processors with AVX2): a triangle filter as wide as a pixel of the small image, whole-number weights,
// rows first, and bytes in between. A canvas resizes otherwise, and scores would differ in the second decimal.

// For each place of `output`: the first pixel of `input` that counts, and the weights from there on, times 2 ** bits.
/** @type {(input: number, output: number) => {starts: number[], weights: number[][], bits: number}} */
function resizeWeights(input, output) {
  const scale = input / output;
  const reach = Math.max(1, scale);
  const starts = [];
  const fractions = Array.from({ length: output }, (_, i) => {
    const centre = scale * (i + 0.5);
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(input, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({ length: end - first }, (_, j) => Math.max(0, 1 - Math.abs((j + first - centre + 0.5) / reach)));
    const sum = raw.reduce((a, b) => a + b, 0);
    starts.push(first);
    return raw.map((weight) => weight / sum);
  });
  const most = Math.max(...fractions.flat());
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + most * 2 ** (bits + 1)) < 2 ** 15) bits += 1;
  const weights = fractions.map((row) => row.map((weight) => Math.trunc(weight * 2 ** bits + 0.5)));
  return { starts, weights, bits };
}

// Resizes lines of pixels that lie `step` bytes apart; `lines` such lines begin `apart` bytes after each other.
function resizeLines(from, { input, step, lines, apart }, to, { output, stepTo, apartTo }) {
  const { starts, weights, bits } = resizeWeights(input, output);
  const half = 2 ** (bits - 1);
  for (let i = 0; i < output; i += 1) {
    const [row, first] = [weights[i], starts[i] * step];
    for (let line = 0; line < lines; line += 1) {
      const [begin, end] = [line * apart + first, line * apartTo + i * stepTo];
      let [red, green, blue] = [half, half, half];
      for (let j = 0, at = begin; j < row.length; j += 1, at += step) {
        red += row[j] * from[at];
        green += row[j] * from[at + 1];
        blue += row[j] * from[at + 2];
      }
      to[end] = red >> bits;
      to[end + 1] = green >> bits;
      to[end + 2] = blue >> bits;
    }
  }
}

// RGBA bytes, row by row, to (3, side, side) in 0..1.
/** @type {(rgba: Uint8ClampedArray, width: number, height: number, side: number) => Float32Array} */
function prepareImage(rgba, width, height, side) {
  const narrow = new Uint8ClampedArray(height * side * 4);
  const small = new Uint8ClampedArray(side * side * 4);
  resizeLines(rgba, { input: width, step: 4, lines: height, apart: 4 * width }, narrow, { output: side, stepTo: 4, apartTo: 4 * side });
  resizeLines(narrow, { input: height, step: 4 * side, lines: side, apart: 4 }, small, { output: side, stepTo: 4 * side, apartTo: 4 });
  const plane = side * side;
  const input = new Float32Array(3 * plane);
  for (let i = 0; i < plane; i += 1) {
    for (let c = 0; c < 3; c += 1) input[c * plane + i] = small[4 * i + c] / 255;
  }
  return input;
}
