// The training loop of the playground: scenes, loss, gradients, Adam; one call of `step` is one batch.

/** @typedef {Design & Rules & {rate: number, batch: number, noise: number}} Settings */

/** @type {Settings} */
const DEFAULTS = {
  seed: 1,
  width: 1,
  priors: 3,
  maps: "both",
  rate: 0.004,
  batch: 8,
  noise: 0.03,
  negatives: 3,
  threshold: 0.5,
  everyObject: true,
  mistake: "none",
};
const DESIGN = ["seed", "width", "priors", "maps"]; // a change of these needs a new network
const UNSEEN = 48; // scenes for the mAP, the same in all runs, and never trained on
const UNSEEN_SEED = 20261;

// Adam (Kingma and Ba, 2015): steps from running means of gradient and squared gradient.
class Adam {
  constructor(layers) {
    this.steps = 0;
    this.parts = layers.flatMap((layer) => [
      { values: layer.weight, gradient: layer.weightGradient },
      { values: layer.bias, gradient: layer.biasGradient },
    ]);
    for (const part of this.parts) {
      part.mean = new Float64Array(part.values.length);
      part.square = new Float64Array(part.values.length);
    }
  }

  // Uses up the gradients, which begin at zero again.
  step(rate, scale) {
    this.steps += 1;
    const correction = Math.sqrt(1 - 0.999 ** this.steps) / (1 - 0.9 ** this.steps);
    const epsilon = 1e-8 * Math.sqrt(1 - 0.999 ** this.steps);
    for (const { values, gradient, mean, square } of this.parts) {
      for (let i = 0; i < values.length; i += 1) {
        const g = gradient[i] * scale;
        mean[i] += 0.1 * (g - mean[i]);
        square[i] += 0.001 * (g * g - square[i]);
        values[i] -= (rate * correction * mean[i]) / (Math.sqrt(square[i]) + epsilon);
        gradient[i] = 0;
      }
    }
  }
}

class Trainer {
  /** @param {Partial<Settings>} settings */
  constructor(settings = {}) {
    /** @type {Settings} */
    this.settings = { ...DEFAULTS, ...settings };
    this.network = makeNetwork(this.settings);
    this.optimizer = new Adam(this.network.layers);
    this.random = randomNumbers(1000 + this.settings.seed);
    this.steps = 0;
    /** @type {{step: number, localization: number, confidence: number}[]} */
    this.losses = [];
    /** @type {{step: number, value: number}[]} */
    this.scores = [];
    this.last = null;
    this.drawUnseen();
  }

  drawUnseen() {
    const random = randomNumbers(UNSEEN_SEED);
    this.unseen = Array.from({ length: UNSEEN }, () => randomScene(random, this.settings.noise));
  }

  // Takes new settings; false when they need a new network, which a new Trainer makes.
  /** @param {Partial<Settings>} settings */
  change(settings) {
    if (DESIGN.some((key) => key in settings && settings[key] !== this.settings[key])) return false;
    const noise = this.settings.noise;
    Object.assign(this.settings, settings);
    if (this.settings.noise !== noise) this.drawUnseen();
    return true;
  }

  predict(scene) {
    return forward(this.network, scene.pixels, this.settings.mistake === "stacking");
  }

  /** @type {(scene: Scene, minScore?: number) => Detection[]} */
  detect(scene, minScore = 0.01) {
    return detectObjects(this.predict(scene), this.network.priors, this.settings.mistake, minScore);
  }

  // One step on a batch of new scenes, or on the `scenes` that are given; returns the losses per positive.
  step(scenes = Array.from({ length: this.settings.batch }, () => randomScene(this.random, this.settings.noise))) {
    const stacking = this.settings.mistake === "stacking";
    let [localization, confidence, positives] = [0, 0, 0];
    for (const scene of scenes) {
      const predicted = this.predict(scene);
      const loss = multiboxLoss(predicted, scene, this.network.priors, this.settings);
      backward(this.network, loss.offsetGradient, loss.logitGradient, stacking);
      localization += loss.localization;
      confidence += loss.confidence;
      positives += loss.positives.length;
      this.last = { scene, predicted, loss };
    }
    const divisor = Math.max(1, positives);
    this.optimizer.step(this.settings.rate, 1 / divisor);
    this.steps += 1;
    const losses = { step: this.steps, localization: localization / divisor, confidence: confidence / divisor };
    this.losses.push(losses);
    return losses;
  }

  // mAP on the scenes that are never trained on.
  evaluate() {
    const found = this.unseen.map((scene) => this.detect(scene));
    const value = meanAveragePrecision(found, this.unseen);
    this.scores.push({ step: this.steps, value });
    return value;
  }
}
