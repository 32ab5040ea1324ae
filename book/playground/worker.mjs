// The session: what trains, answers and reports. It lives in a Web Worker or, where none can be started, on the page.

const SLICE = 90; // milliseconds of training between two reports
const SLOW = 500; // milliseconds between two steps in slow motion
const EVERY = 50; // steps between two measurements of the mAP
const GALLERY = 8; // of the unseen scenes are shown

class Session {
  /** @param {(report: object) => void} send */
  constructor(send) {
    this.send = send;
    this.trainer = new Trainer();
    this.trainer.evaluate();
    this.running = false;
    this.slow = false;
    this.timer = null;
    this.view = { kind: "training", shapes: [] };
    this.told = 0; // losses that were reported
  }

  // Messages: settings, run, pause, step, restart, slow, view.
  hear({ type, value }) {
    if (type === "settings") this.take(value);
    else if (type === "restart") this.restart(this.trainer.settings);
    else if (type === "run") this.run();
    else if (type === "pause") this.pause();
    else if (type === "step") this.stepOnce();
    else if (type === "slow") this.slow = value;
    else if (type === "view") this.view = value;
    this.report();
  }

  take(settings) {
    const { mistake } = this.trainer.settings;
    if (!this.trainer.change(settings)) return this.restart({ ...this.trainer.settings, ...settings });
    this.trainer.last = null; // what is shown follows the new rules
    if (this.trainer.settings.mistake !== mistake) this.trainer.evaluate(); // some mistakes spoil the detections at once
  }

  restart(settings) {
    this.trainer = new Trainer(settings);
    this.trainer.evaluate();
    this.told = 0;
  }

  run() {
    if (this.running) return;
    this.running = true;
    this.slice();
  }

  pause() {
    this.running = false;
    clearTimeout(this.timer);
  }

  stepOnce() {
    this.pause();
    this.step();
  }

  slice() {
    const until = Date.now() + SLICE;
    do this.step();
    while (this.running && !this.slow && Date.now() < until);
    this.report();
    if (this.running) this.timer = setTimeout(() => this.slice(), this.slow ? SLOW : 0);
  }

  step() {
    const { localization, confidence } = this.trainer.step();
    if (!Number.isFinite(localization + confidence)) this.pause();
    if (this.trainer.steps % EVERY === 0) this.trainer.evaluate();
  }

  // The scene that is looked at, with all that the network makes of it.
  shown() {
    const { trainer, view } = this;
    if (view.kind === "training" && trainer.last) return trainer.last;
    let scene = trainer.unseen[view.kind === "unseen" ? view.number : 0];
    if (view.kind === "own") scene = drawScene(view.shapes, 0, () => 0.5);
    if (view.kind === "training") scene = randomScene(randomNumbers(trainer.settings.seed), trainer.settings.noise);
    const predicted = trainer.predict(scene);
    return { scene, predicted, loss: multiboxLoss(predicted, scene, trainer.network.priors, trainer.settings) };
  }

  report() {
    const { trainer, running } = this;
    const { scene, predicted, loss } = this.shown();
    const { network, settings } = trainer;
    const variances = settings.mistake === "variances" ? NO_VARIANCES : VARIANCES;
    const boxOfPrior = (p) => decodedBox(predicted.offsets.subarray(4 * p, 4 * p + 4), network.priors[p], variances);
    const losses = trainer.losses.slice(this.told);
    this.told = trainer.losses.length;
    this.send({
      running,
      settings,
      steps: trainer.steps,
      parameters: countParameters(network),
      losses,
      scores: trainer.scores,
      fresh: trainer.losses.length === losses.length, // everything since the start: the page forgets what it had
      scene,
      priors: network.priors,
      positives: loss.positives.map((p) => ({ prior: p, object: loss.matched[p], box: boxOfPrior(p) })),
      mined: loss.mined,
      found: detectObjects(predicted, network.priors, settings.mistake, 0.05),
      gallery: trainer.unseen.slice(0, GALLERY).map((one) => ({ ...one, found: trainer.detect(one, 0.3) })),
      filters: { count: network.trunk[0].outputs, weight: network.trunk[0].weight.slice() },
      maps: this.mapsOf(scene),
    });
  }

  // The maps of a scene as plain squares; the gallery has used the network since, so it looks once more.
  mapsOf(scene) {
    forward(this.trainer.network, scene.pixels);
    return this.trainer.network.maps.slice(1).map(({ channels, side, row, plane, values }) => ({
      channels,
      side,
      values: Float32Array.from({ length: channels * side * side }, (_, i) => {
        const [channel, place] = [Math.floor(i / (side * side)), i % (side * side)];
        return values[channel * plane + (Math.floor(place / side) + 1) * row + (place % side) + 1];
      }),
    }));
  }
}

function serveAsWorker(scope) {
  const session = new Session((report) => scope.postMessage(report));
  scope.onmessage = ({ data }) => session.hear(data);
}

// A session elsewhere, or on the page itself, in slices that leave it alive. `hear` gets each report.
const openSession = (address, program, hear) => openElsewhere(address, program, hear, () => new Session(hear));
