// The page "Your photograph": what is asked for first, and then pictures, boxes and controls around the detector.

// On the page: fills its place. In a worker there is no document: runs the network.
function startPhotograph(script) {
  if (typeof document === "undefined") return serveDetector(globalThis);
  for (const place of document.querySelectorAll(".ssd-photograph-place")) {
    const about = JSON.parse(place.querySelector("script").textContent);
    const page = new Photograph(place, script.src, about);
    Object.assign(place, { photograph: page }); // for those who ask from outside: tests
  }
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const LISTED = 60; // boxes that NMS removed

const PHOTO_LAYERS = { found: "Detections", removed: "Removed by NMS", heat: "Heat", followed: "One prior" };

class Photograph {
  /** @type {any} */
  about;
  /** @type {string} */
  script;
  /** @type {HTMLElement} */
  cameraButton;

  constructor(place, script, about) {
    Object.assign(this, { script, about });
    this.priors = priorsOfMaps(about.maps);
    this.view = { layers: ["found"], minScore: 0.3, maxOverlap: 0.45, map: -1, label: 0, prior: 0 };
    this.seen = null; // pixels, offsets, logits, scores, boxes, times
    this.says = html("p", { class: "ssd-says", role: "status" });
    this.head = html("div", {});
    this.body = html("div", {});
    this.turn = 0; // counts what was asked for: only the last is shown
    this.root = html(
      "div",
      { class: "ssd-widget ssd-photograph", role: "group", "aria-label": "A detector for your photograph" },
      this.head,
      this.says, // here, where what was pressed is still on the screen
      this.body,
      html("p", { class: "ssd-hint" }, "The network is MediaPipe's (Apache 2.0), the program that runs it Microsoft's ONNX Runtime (MIT). ", html("a", { href: this.address("NOTICE.txt") }, "Licences and changes"), "."),
    );
    place.replaceChildren(this.root);
    if (location.protocol === "file:") this.tellFile();
    else this.offer();
  }

  // Of a file that stands beside the script.
  address(file) {
    return new URL(`photograph/${file}`, this.script).href;
  }

  tellFile() {
    this.head.append(
      html("p", {}, "This page is opened from a file, and a browser lets files start no worker. Serve the folder of the site, for example with ", html("code", {}, "python -m http.server"), ", and open it from there: the detector then runs here, without any other network."),
    );
  }

  // What it costs, before anything is fetched.
  offer() {
    const { fetched, model, runtime } = this.about.sizes;
    this.bar = html("progress", { max: fetched, value: 0, hidden: true, "aria-label": "Fetched of the detector" });
    this.loading = button(`Fetch the detector, ${megabytes(fetched)}`, () => this.load());
    this.head.append(
      html("p", {}, `The network (${megabytes(model)}) and the program that runs it (${megabytes(runtime)}) come from this site, compressed to ${megabytes(fetched)}. What you show it stays on this page: nothing is sent anywhere.`),
      html("div", { class: "ssd-options ssd-photo-offer" }, this.loading, this.bar),
    );
  }

  async load() {
    able(this.loading, false);
    update(this.bar, { value: 0 }).hidden = false;
    this.say("The detector is being fetched.");
    this.detector = detectorWorker(this.script, this.about, (fetched) => update(this.bar, { value: fetched }));
    try {
      await this.detector.ready;
    } catch (error) {
      this.detector.end();
      this.bar.hidden = true;
      able(this.loading, true);
      return this.say(`The detector does not start: ${reasonOf(error)}.`);
    }
    this.arrange();
    this.head.querySelector("button").focus({ preventScroll: true });
    await this.sample(this.about.samples[0]);
  }

  arrange() {
    const see = (pixels, on) => this.see(pixels, "The camera", "", on);
    this.camera = cameraLoop(see, (error) => this.attempt(() => Promise.reject(error)));
    this.picture = photoPicture((x, y) => this.pick(x, y));
    this.maps = mapPicks(this.about.maps, (map) => {
      const layers = [...new Set([...this.view.layers, "heat"])];
      this.look({ layers, map: map === this.shownMap() ? -1 : map });
    });
    this.follow = followPanel(this.about, this.priors, (prior) => this.look({ prior, layers: [...new Set([...this.view.layers, "followed"])] }));
    this.rows = table({ caption: "Boxes that reach the threshold", head: ["class", "score", "NMS"] });
    this.controls = photoControls(this.about, (changes) => this.look(changes));
    this.times = readout(["Resize to 300 × 300", "Network", "Scores: sigmoid", "Boxes: decoding", "Threshold and NMS", "Together"].map((text) => ({ text })));
    this.credit = html("p", { class: "ssd-hint" });
    const left = html("div", { class: "ssd-panel" }, this.picture.node, this.credit, this.controls.layers.node, this.times.node);
    const right = html("div", { class: "ssd-panel" }, this.controls.node, this.rows.node);
    const maps = html("p", { class: "ssd-label" }, "The best score in every cell of the six maps. Press one to see it large");
    this.head.replaceChildren(photoSources(this));
    this.body.replaceChildren(
      html("div", { class: "ssd-columns" }, left, right),
      maps,
      this.controls.label.node,
      this.maps.node,
      this.follow.node,
    );
    this.relight = linking(this.root);
  }

  async sample(sample) {
    await this.take(() => pixelsOfSample(this.address(sample.file)), sample.name, sample.credit);
  }

  async file(file) {
    await this.take(() => readPhotograph(file), file.name, `${file.name}, on your machine only.`);
  }

  async take(read, name, credit) {
    await this.attempt(async (current) => {
      this.camera.stop();
      await this.see(await read(), name, credit, current);
    });
  }

  async film() {
    this.frames = [];
    await this.attempt(async (current) => {
      if (!this.camera.running()) return this.camera.start(current);
      this.camera.stop();
      this.look({});
    });
  }

  // Does what the reader asked for; `act` gets what tells it whether that still is the last.
  async attempt(act) {
    this.turn += 1;
    const { turn } = this;
    const current = () => turn === this.turn;
    try {
      await act(current);
    } catch (error) {
      if (current()) this.say(`It did not work: ${reasonOf(error)}.`);
    }
    this.cameraButton.textContent = this.camera.running() ? "Stop the camera" : "Camera";
  }

  // Runs the network on a photograph, and shows what comes out, if that still is wanted.
  async see(pixels, name, credit, wanted) {
    if (!wanted()) return;
    const { offsets, logits, times } = await this.detector.detect(pixels);
    if (!wanted()) return;
    const begin = performance.now();
    const scores = objectScores(logits, this.about.classes.length + 1);
    const scored = performance.now();
    const boxes = boxesOf(offsets, this.priors);
    Object.assign(times, { scores: scored - begin, boxes: performance.now() - scored });
    this.seen = { pixels, name, offsets, logits, scores, boxes, times };
    this.credit.textContent = credit;
    this.picture.show(pixels);
    this.maps.show(this.picture.photo);
    if (this.camera.running()) this.frames = [...this.frames.filter((time) => time > begin - 2000), begin];
    else this.view.prior = this.bestOf(this.priors.keys());
    this.look({});
  }

  // The map whose heat is shown, or -1 for none or all.
  shownMap() {
    return this.view.layers.includes("heat") ? this.view.map : -1;
  }

  // Of some priors the one with the best score.
  bestOf(priors) {
    const { scores } = this.seen;
    const scoreOf = (i) => bestScore(scores, this.about.classes.length, i, this.view.label).score;
    return [...priors].reduce((best, i) => (scoreOf(i) > scoreOf(best) ? i : best));
  }

  pick(x, y) {
    const { maps } = this.about;
    const map = this.shownMap();
    const within = this.priors.map((_, i) => i).filter((i) => {
      const { cells } = maps[this.priors[i].map];
      const at = (value) => Math.min(cells - 1, Math.floor(value * cells));
      return (map < 0 || this.priors[i].map === map) && this.priors[i].row === at(y) && this.priors[i].column === at(x);
    });
    this.look({ prior: this.bestOf(within), layers: [...new Set([...this.view.layers, "followed"])] });
  }

  // Changes what is looked at, and draws it.
  look(changes) {
    Object.assign(this.view, changes);
    const { view, seen, about } = this;
    this.controls.set(view);
    if (!seen) return;
    const begin = performance.now();
    const candidates = candidatesOf(seen.scores, seen.boxes, view.minScore);
    const result = suppress(candidates, view.maxOverlap);
    seen.times.nms = performance.now() - begin;
    const heats = about.maps.map(({ cells }, map) => heatOfMap(seen.scores, this.priors, map, cells, view.label));
    this.maps.set(heats, this.shownMap());
    Object.assign(seen, { result }); // for those who ask from outside: tests
    const followed = this.follow.set(view.prior, { ...seen, ...view, result });
    const on = (layer) => view.layers.includes(layer);
    const { kept, removed } = result;
    this.picture.lay({
      kept: on("found") ? kept : [],
      removed: on("removed") ? removed : [],
      followed: on("followed") ? followed : null,
      nameOf: (label) => about.classes[label - 1],
    });
    this.picture.heat.hidden = !on("heat");
    if (view.map < 0) drawHeat(this.picture.heat, DOTS_SIDE, heatOfAll(about.maps, heats));
    else drawHeat(this.picture.heat, about.maps[view.map].cells, heats[view.map]);
    this.list(kept, removed);
    this.measure(seen.times, candidates.length);
    this.relight();
    const words = foundWords(kept, about.classes);
    this.picture.photo.setAttribute("aria-label", `${seen.name}; found: ${words}`);
    this.say(this.camera.running() ? this.rate() : `${seen.name}; found: ${words}. ${removed.length} removed by NMS.`);
  }

  list(kept, removed) {
    const { classes } = this.about;
    const row = (one, fate) => ({
      cells: [html("span", {}, swatch(colorOf(one.label)), classes[one.label - 1]), one.score.toFixed(3), fate],
      current: one.prior === this.view.prior && one.label === bestScore(this.seen.scores, classes.length, one.prior, this.view.label).label,
      click: () => this.look({ prior: one.prior, layers: [...new Set([...this.view.layers, "followed"])] }),
      link: nameOfFound(one),
      lights: [one, one.by].filter(Boolean).map(nameOfFound).join(" "),
    });
    this.rows.set([
      ...kept.map((one, i) => row(one, `stays, no. ${i + 1}`)),
      ...removed.slice(0, LISTED).map((one) => row(one, `IoU ${fixed(one.overlap)} with no. ${kept.indexOf(one.by) + 1}`)),
      ...(removed.length > LISTED ? [{ cells: ["…", "", `${thousands(removed.length - LISTED)} more are removed`] }] : []),
    ]);
  }

  measure({ resize, network, scores, boxes, nms }, count) {
    const ms = (value) => `${value.toFixed(1)} ms`;
    const all = resize + network + scores + boxes + nms;
    this.times.set([ms(resize), ms(network), ms(scores), ms(boxes), `${ms(nms)}, ${count} candidates`, ms(all)]);
  }

  // Frames a second of the camera, over the last second or so.
  rate() {
    const seconds = (this.frames.at(-1) - this.frames[0]) / 1000;
    const rate = this.frames.length > 1 ? ((this.frames.length - 1) / seconds).toFixed(1) : "…";
    return `The camera: ${rate} pictures a second, on this machine only.`;
  }

  say(sentence) {
    this.says.setAttribute("aria-live", this.camera?.running() ? "off" : "polite");
    if (this.says.textContent !== sentence) this.says.textContent = sentence;
  }
}
