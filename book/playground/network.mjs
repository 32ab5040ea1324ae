// The playground's network: three convolutions with pooling (48 -> 6 cells a side), one with stride 2 (6 -> 3), and on
// each of the two maps two heads, which give 4 offsets and 4 scores (background first) for each prior of each cell.

const CLASSES = SHAPES.length + 1; // with background
const MAP_SIDES = [6, 3];
const SCALES = [0.28, 0.45];
const RATIOS = { 1: [1], 3: [1, 0.7, 1.4], 5: [1, 0.7, 1.4, 0.5, 2] }; // by the number of priors of a cell

/** @typedef {{width: number, priors: number, maps: string, seed: number}} Design width: factor of the channels */

// Centre and size of all priors, in the order of the stacked predictions: map, row, column, prior of the cell.
function makePriors({ priors, maps }) {
  return MAP_SIDES.flatMap((side, map) => {
    if (!usesMap(maps, map)) return [];
    const cell = RATIOS[priors].map((ratio) => [SCALES[map] * Math.sqrt(ratio), SCALES[map] / Math.sqrt(ratio)]);
    return Array.from({ length: side * side }, (_, i) => i).flatMap((i) =>
      cell.map(([w, h]) => [((i % side) + 0.5) / side, (Math.floor(i / side) + 0.5) / side, w, h]),
    );
  });
}

const usesMap = (maps, map) => maps === "both" || maps === ["fine", "coarse"][map];

/** @typedef {ReturnType<typeof makeNetwork>} Network */

/** @param {Design} design */
function makeNetwork(design) {
  const random = randomNumbers(design.seed);
  const wide = (channels) => Math.max(2, Math.round(channels * design.width));
  const channels = [1, wide(6), wide(12), wide(16), wide(16)];
  const sides = [SIDE, SIDE / 2, SIDE / 4, ...MAP_SIDES];
  const trunk = [0, 1, 2, 3].map((n) => convolution(channels[n], channels[n + 1], n < 3 ? 1 : 2, random));
  const heads = MAP_SIDES.map((side, map) => {
    const make = (numbers) => ({
      layer: convolution(channels[3 + map], design.priors * numbers, 1, random, true),
      output: emptyMap(design.priors * numbers, side),
      gradient: emptyMap(design.priors * numbers, side),
      numbers,
    });
    return usesMap(design.maps, map) ? [make(4), make(CLASSES)] : [];
  });
  const maps = sides.map((side, n) => emptyMap(channels[n], side));
  return {
    design,
    trunk,
    heads,
    maps, // maps[0] is the image, maps[3] and maps[4] have the heads
    gradients: sides.map((side, n) => emptyMap(channels[n], side)),
    before: [0, 1, 2].map((n) => emptyMap(channels[n + 1], sides[n])), // before ReLU and pooling
    beforeGradients: [0, 1, 2].map((n) => emptyMap(channels[n + 1], sides[n])),
    winners: [0, 1, 2].map((n) => new Int32Array(channels[n + 1] * sides[n + 1] ** 2)),
    priors: makePriors(design),
    layers: [...trunk, ...heads.flat().map(({ layer }) => layer)],
  };
}

/** @type {(network: Network) => number} */
const countParameters = ({ layers }) => layers.reduce((sum, { weight, bias }) => sum + weight.length + bias.length, 0);

// Where the number `n` of prior `k` of a cell stands in a head's output. "Wrong stacking" is the classic mistake: the
// head is read channel after channel, as if it had been permuted, so that a prior reads other cells' numbers.
function stackedAt(head, wrong) {
  const { output, numbers } = head;
  const cells = output.side ** 2;
  return (cell, k, n) => {
    const flat = (cell * (output.channels / numbers) + k) * numbers + n; // in the order of the priors
    const [channel, place] = wrong ? [Math.floor(flat / cells), flat % cells] : [k * numbers + n, cell];
    return channel * output.plane + (Math.floor(place / output.side) + 1) * output.row + (place % output.side) + 1;
  };
}

// Calls `visit` with the number of the prior, its four or CLASSES places, the head's arrays, and which head it is.
function eachPrior(network, wrong, visit) {
  let prior = 0;
  for (const pair of network.heads) {
    if (pair.length === 0) continue;
    const places = pair.map((head) => stackedAt(head, wrong));
    const { side } = pair[0].output;
    for (let cell = 0; cell < side * side; cell += 1) {
      for (let k = 0; k < network.design.priors; k += 1) {
        pair.forEach((head, which) => {
          for (let n = 0; n < head.numbers; n += 1) visit(prior, n, which, head, places[which](cell, k, n));
        });
        prior += 1;
      }
    }
  }
}

/** @type {(network: Network, pixels: Float64Array, wrongStacking?: boolean) => {offsets: Float64Array, logits: Float64Array}} */
function forward(network, pixels, wrongStacking = false) {
  const { trunk, maps, before, winners } = network;
  const [image] = maps;
  for (let row = 0; row < SIDE; row += 1) {
    for (let column = 0; column < SIDE; column += 1) {
      image.values[(row + 1) * image.row + column + 1] = (pixels[row * SIDE + column] - 0.5) / 0.25;
    }
  }
  for (const n of [0, 1, 2]) {
    convolve(trunk[n], maps[n], before[n]);
    reluAndPool(before[n], maps[n + 1], winners[n]);
  }
  convolve(trunk[3], maps[3], maps[4]);
  relu(maps[4]);
  network.heads.forEach((pair, map) => pair.forEach(({ layer, output }) => convolve(layer, maps[3 + map], output)));
  const offsets = new Float64Array(network.priors.length * 4);
  const logits = new Float64Array(network.priors.length * CLASSES);
  eachPrior(network, wrongStacking, (prior, n, which, { output, numbers }, place) => {
    (which === 0 ? offsets : logits)[prior * numbers + n] = output.values[place];
  });
  return { offsets, logits };
}

// Adds the gradients of all parameters, from those of the predictions; `forward` was called for the same image.
/** @type {(network: Network, offsetGradient: Float64Array, logitGradient: Float64Array, wrongStacking?: boolean) => void} */
function backward(network, offsetGradient, logitGradient, wrongStacking = false) {
  const { trunk, maps, gradients, beforeGradients, winners } = network;
  for (const gradient of gradients) gradient.values.fill(0);
  for (const head of network.heads.flat()) head.gradient.values.fill(0);
  eachPrior(network, wrongStacking, (prior, n, which, { gradient, numbers }, place) => {
    gradient.values[place] = (which === 0 ? offsetGradient : logitGradient)[prior * numbers + n];
  });
  network.heads.forEach((pair, map) =>
    pair.forEach(({ layer, gradient }) => convolveBack(layer, maps[3 + map], gradient, gradients[3 + map])),
  );
  reluBack(maps[4], gradients[4]);
  convolveBack(trunk[3], maps[3], gradients[4], gradients[3]);
  for (const n of [2, 1, 0]) {
    poolBack(gradients[n + 1], winners[n], beforeGradients[n]);
    convolveBack(trunk[n], maps[n], beforeGradients[n], n > 0 ? gradients[n] : null);
  }
}
