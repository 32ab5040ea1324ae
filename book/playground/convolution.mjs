// Feature maps and the 3 x 3 convolution, for one image at a time: the playground's network and the toys' are made of it.
//
// A map of C channels is one array, channel after channel, each with a border of one zero on every side: a 3 x 3
// convolution then needs no question about edges.

/** @typedef {{channels: number, side: number, row: number, plane: number, values: Float64Array}} FeatureMap */

/** @type {(channels: number, side: number) => FeatureMap} */
function emptyMap(channels, side) {
  const row = side + 2;
  return { channels, side, row, plane: row * row, values: new Float64Array(channels * row * row) };
}

/** @typedef {{inputs: number, outputs: number, stride: number, weight: Float64Array, bias: Float64Array}} Kernel weight: (outputs, inputs, 3, 3) */

/** @type {(layer: Kernel, x: FeatureMap, y: FeatureMap) => void} writes into y */
function convolve({ inputs, outputs, stride, weight, bias }, x, y) {
  const [from, to] = [x.values, y.values];
  for (let o = 0; o < outputs; o += 1) {
    for (let row = 1; row <= y.side; row += 1) {
      const start = o * y.plane + row * y.row + 1;
      to.fill(bias[o], start, start + y.side);
    }
    for (let i = 0; i < inputs; i += 1) {
      const w = (o * inputs + i) * 9;
      const [a, b, c, d, e, f] = [weight[w], weight[w + 1], weight[w + 2], weight[w + 3], weight[w + 4], weight[w + 5]];
      const [g, h, k] = [weight[w + 6], weight[w + 7], weight[w + 8]];
      for (let row = 0; row < y.side; row += 1) {
        let p = i * x.plane + row * stride * x.row; // upper left of the window
        let q = p + x.row;
        let r = q + x.row;
        let t = o * y.plane + (row + 1) * y.row + 1;
        for (const end = t + y.side; t < end; t += 1) {
          to[t] +=
            a * from[p] + b * from[p + 1] + c * from[p + 2] +
            d * from[q] + e * from[q + 1] + f * from[q + 2] +
            g * from[r] + h * from[r + 1] + k * from[r + 2];
          p += stride;
          q += stride;
          r += stride;
        }
      }
    }
  }
}

/** @type {(x: FeatureMap) => void} in place */
function relu({ values }) {
  for (let i = 0; i < values.length; i += 1) if (values[i] < 0) values[i] = 0;
}
