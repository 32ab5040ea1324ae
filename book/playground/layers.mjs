// The layers of the playground's network, backward, and pooling; forward they are in `convolution`.
//
// Gradients are added up, so that a batch is image after image.

/** @typedef {ReturnType<typeof convolution>} Convolution */

// A 3 x 3 convolution with a border of one; weights (outputs, inputs, 3, 3), drawn for ReLU (He) or for a head (Xavier).
function convolution(inputs, outputs, stride, random, head = false) {
  const weight = new Float64Array(outputs * inputs * 9);
  const spread = head ? Math.sqrt(2 / (9 * (inputs + outputs))) : Math.sqrt(2 / (9 * inputs));
  for (let i = 0; i < weight.length; i += 1) weight[i] = spread * normal(random);
  return {
    inputs,
    outputs,
    stride,
    weight,
    bias: new Float64Array(outputs),
    weightGradient: new Float64Array(weight.length),
    biasGradient: new Float64Array(outputs),
  };
}

// From the gradient of the output: adds to the gradients of weights and biases and, unless it is the first layer, to
// that of the input. Most gradients are zero (pooling hands on one of four, mining picks few priors): they are skipped.
/** @type {(layer: Convolution, x: FeatureMap, yGradient: FeatureMap, xGradient: FeatureMap | null) => void} */
function convolveBack(layer, x, yGradient, xGradient) {
  const { inputs, outputs, stride, weight, weightGradient, biasGradient } = layer;
  const [from, back] = [x.values, xGradient?.values];
  for (let o = 0; o < outputs; o += 1) {
    for (let row = 0; row < yGradient.side; row += 1) {
      for (let column = 0; column < yGradient.side; column += 1) {
        const g = yGradient.values[o * yGradient.plane + (row + 1) * yGradient.row + column + 1];
        if (g === 0) continue;
        biasGradient[o] += g;
        for (let i = 0; i < inputs; i += 1) {
          const w = (o * inputs + i) * 9;
          const p = i * x.plane + row * stride * x.row + column * stride;
          const q = p + x.row;
          const r = q + x.row;
          weightGradient[w] += g * from[p];
          weightGradient[w + 1] += g * from[p + 1];
          weightGradient[w + 2] += g * from[p + 2];
          weightGradient[w + 3] += g * from[q];
          weightGradient[w + 4] += g * from[q + 1];
          weightGradient[w + 5] += g * from[q + 2];
          weightGradient[w + 6] += g * from[r];
          weightGradient[w + 7] += g * from[r + 1];
          weightGradient[w + 8] += g * from[r + 2];
          if (!back) continue;
          back[p] += g * weight[w];
          back[p + 1] += g * weight[w + 1];
          back[p + 2] += g * weight[w + 2];
          back[q] += g * weight[w + 3];
          back[q + 1] += g * weight[w + 4];
          back[q + 2] += g * weight[w + 5];
          back[r] += g * weight[w + 6];
          back[r + 1] += g * weight[w + 7];
          back[r + 2] += g * weight[w + 8];
        }
      }
    }
  }
}

// ReLU, and the largest of each 2 x 2 cells; `winner` keeps where it was, -1 where nothing was above zero.
/** @type {(x: FeatureMap, y: FeatureMap, winner: Int32Array) => void} */
function reluAndPool(x, y, winner) {
  let n = 0;
  for (let channel = 0; channel < x.channels; channel += 1) {
    for (let row = 0; row < y.side; row += 1) {
      for (let column = 0; column < y.side; column += 1) {
        const p = channel * x.plane + (2 * row + 1) * x.row + 2 * column + 1;
        let best = -1;
        let value = 0;
        for (const at of [p, p + 1, p + x.row, p + x.row + 1]) {
          if (x.values[at] > value) {
            value = x.values[at];
            best = at;
          }
        }
        winner[n] = best;
        y.values[channel * y.plane + (row + 1) * y.row + column + 1] = value;
        n += 1;
      }
    }
  }
}

/** @type {(yGradient: FeatureMap, winner: Int32Array, xGradient: FeatureMap) => void} writes into xGradient */
function poolBack(yGradient, winner, xGradient) {
  xGradient.values.fill(0);
  let n = 0;
  for (let channel = 0; channel < yGradient.channels; channel += 1) {
    for (let row = 0; row < yGradient.side; row += 1) {
      for (let column = 0; column < yGradient.side; column += 1) {
        const g = yGradient.values[channel * yGradient.plane + (row + 1) * yGradient.row + column + 1];
        if (winner[n] >= 0) xGradient.values[winner[n]] = g;
        n += 1;
      }
    }
  }
}

/** @type {(x: FeatureMap, gradient: FeatureMap) => void} the gradient is kept where the map is above zero */
function reluBack(x, gradient) {
  for (let i = 0; i < x.values.length; i += 1) if (x.values[i] <= 0) gradient.values[i] = 0;
}
