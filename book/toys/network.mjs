// ssd_tiny in the page, by the rules of ssdlib: the weights of the package, on the convolutions of the playground.
// tests/book/test_toys.py compares with ssdlib.

/** @typedef {{inputs: number, outputs: number, stride: number, side: number, cells: number, map: boolean, head: number}} ToyLayer
 *  cells: side of the kernel, 1 or 3; side: of its output; map: whether heads read its output; head: which of the maps a
 *  head reads, or -1 */
/** @typedef {{classes: string[], side: number, mean: number[], std: number[], layers: ToyLayer[], maps: {cells: number, shapes: number[][]}[]}} ToyAbout */

const bytesOfText = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

// A number of 16 bits: a sign, five bits of exponent, ten of fraction.
/** @type {(bits: number) => number} */
function halfNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : (fraction / 1024) * 2 ** -14);
}

// The layers, ready to run. `halves` has the weights of all layers as they are in the file; `channels`, of each output of
// each layer, what they are multiplied with, which is batch normalisation, and what is added.
/** @type {(about: ToyAbout, halves: Uint16Array, channels: Float32Array) => {layer: Kernel, spec: ToyLayer, output: FeatureMap}[]} */
function toyNetwork({ layers }, halves, channels) {
  let [read, channel] = [0, 0];
  return layers.map((spec) => {
    const { inputs, outputs, stride, cells, side } = spec;
    const weight = new Float64Array(outputs * inputs * 9); // a 1 x 1 kernel is the middle of a 3 x 3 one
    for (let i = 0; i < outputs * inputs * cells * cells; i += 1) {
      const scale = channels[2 * (channel + Math.floor(i / (inputs * cells * cells)))];
      weight[cells === 3 ? i : 9 * i + 4] = scale * halfNumber(halves[read + i]);
    }
    const bias = Float64Array.from({ length: outputs }, (_, o) => channels[2 * (channel + o) + 1]);
    read += outputs * inputs * cells * cells;
    channel += outputs;
    return { layer: { inputs, outputs, stride, weight, bias }, spec, output: emptyMap(outputs, side) };
  });
}

// The image as the first map: (3, side, side) in 0..1, normalised.
/** @type {(input: Float32Array, about: ToyAbout) => FeatureMap} */
function imageMap(input, { side, mean, std }) {
  const image = emptyMap(3, side);
  for (let c = 0; c < 3; c += 1) {
    for (let row = 0; row < side; row += 1) {
      const [from, to] = [(c * side + row) * side, c * image.plane + (row + 1) * image.row + 1];
      for (let column = 0; column < side; column += 1) image.values[to + column] = (input[from + column] - mean[c]) / std[c];
    }
  }
  return image;
}

// A head's numbers prior by prior: of each cell all that it says, in the order of the channels.
function stackHead({ values, channels, side, row, plane }) {
  const stacked = new Float32Array(channels * side * side);
  for (let cell = 0; cell < side * side; cell += 1) {
    const at = (Math.floor(cell / side) + 1) * row + (cell % side) + 1;
    for (let c = 0; c < channels; c += 1) stacked[cell * channels + c] = values[c * plane + at];
  }
  return stacked;
}

// Offsets and logits of all priors, from the network's input (3, side, side) in 0..1.
/** @type {(network: ReturnType<typeof toyNetwork>, about: ToyAbout, input: Float32Array) => {offsets: Float32Array, logits: Float32Array}} */
function runToyNetwork(network, about, input) {
  let x = imageMap(input, about);
  const [maps, said] = [[], { offsets: [], logits: [] }];
  for (const { layer, spec, output } of network) {
    convolve(layer, spec.head < 0 ? x : maps[spec.head], output);
    if (spec.head >= 0) {
      const numbers = spec.outputs / about.maps[spec.head].shapes.length;
      said[numbers === 4 ? "offsets" : "logits"].push(stackHead(output));
      continue;
    }
    relu(output);
    x = output;
    if (spec.map) maps.push(output);
  }
  return { offsets: joined(said.offsets), logits: joined(said.logits) };
}

function joined(parts) {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// Softmax of each prior, without the background.
/** @type {(logits: Float32Array, outputs: number) => Float32Array} */
function softmaxScores(logits, outputs) {
  const scores = new Float32Array((logits.length / outputs) * (outputs - 1));
  for (let prior = 0; prior < logits.length / outputs; prior += 1) {
    const own = logits.subarray(prior * outputs, (prior + 1) * outputs);
    const most = own.reduce((a, b) => Math.max(a, b));
    const sum = own.reduce((total, logit) => total + Math.exp(logit - most), 0);
    for (let c = 1; c < outputs; c += 1) scores[prior * (outputs - 1) + c - 1] = Math.exp(own[c] - most) / sum;
  }
  return scores;
}
