// The page of the playground: buttons, pictures and charts around a session.

// On a page: puts the playground into its place. In a worker there is no document: trains.
function start(script, program) {
  if (typeof document === "undefined") return serveAsWorker(globalThis);
  for (const place of document.querySelectorAll(".ssd-playground-place")) {
    const playground = new Playground(place, script.src, `${program}`);
    Object.assign(place, { playground }); // for those who ask from outside: tests
  }
}

class Playground {
  constructor(place, address, program) {
    this.view = { layers: ["truth", "found"], minScore: 0.4, kind: "training", number: 0, shapes: [] };
    this.losses = [];
    this.last = null;
    this.makePictures();
    this.makeButtons();
    this.makeChoices();
    place.replaceChildren(this.arrange());
    this.layers.set(this.view.layers);
    this.score.set(this.view.minScore);
    this.link = openSession(address, program, (report) => this.hear(report));
    addEventListener("hashchange", () => this.followLink());
    place.closest("main")?.addEventListener("click", (event) => this.followPressed(event));
    this.own.show();
    this.followLink();
    if (linkNote(location.hash)) place.querySelector("details").open = true;
  }

  post(type, value) {
    this.link?.post({ type, value });
  }

  followLink() {
    if (namesPlace(location.hash)) return;
    this.post("settings", { ...DEFAULTS, ...readLink(location.hash) });
    this.note.replaceChildren(...[linkNote(location.hash)].filter(Boolean));
  }

  // A link in the text: what it sets is far above it, and the browser does nothing where one is followed twice.
  followPressed(event) {
    const link = event.target.closest("a[href^='#']");
    if (!link || namesPlace(link.hash) || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", link.getAttribute("href"));
    this.followLink();
    if (link === this.share) return;
    this.root.scrollIntoView();
    this.play.focus({ preventScroll: true });
  }

  makePictures() {
    this.main = makeCanvas("The scene", 384, { class: "ssd-play-main" });
    this.gallery = Array.from({ length: GALLERY }, (_, i) =>
      makeCanvas(`Unseen scene ${i + 1}`, 96, { class: "ssd-play-small" }),
    );
    this.picks = this.gallery.map(({ node }, number) =>
      button(node, () => this.look({ kind: "unseen", number }), { class: "ssd-play-pick", "aria-pressed": "false" }),
    );
    const label = "Filters of the first layer, and the maps of this scene";
    this.inside = makeCanvas(label, 384, { class: "ssd-play-inside" });
    this.facts = readout(["Step", "Priors", "Parameters", "Positives and negatives here"].map((text) => ({ text })));
    this.lossChart = chart("Loss per positive", [
      { text: "classes", color: "--ssd-1" },
      { text: "offsets", color: "--ssd-2", dash: "5 3" },
    ]);
    this.scoreChart = chart("mAP on scenes it never saw", [{ text: "mAP", color: "--ssd-3" }]);
    this.says = html("p", { class: "ssd-says", role: "status" });
    this.note = html("div", { "aria-live": "polite" });
  }

  makeButtons() {
    this.play = button("Start", () => this.post(this.last?.running ? "pause" : "run"));
    const step = button("One step", () => this.post("step"));
    const again = button("Start again", () => this.post("restart"));
    let slow = false;
    const toggle = () => {
      slow = !slow;
      pace.setAttribute("aria-pressed", String(slow));
      this.post("slow", slow);
    };
    const pace = button("Slow motion", toggle, { "aria-pressed": "false" });
    this.share = html("a", { href: "#" }, "Link to these settings");
    this.buttons = html("div", { class: "ssd-options ssd-play-buttons" }, this.play, step, again, pace, this.share);
  }

  makeChoices() {
    this.layers = checks({
      label: "Show",
      options: Object.entries(VIEW).map(([value, text]) => ({ value, text })),
      change: (layers) => this.look({ layers }),
    });
    this.score = slider({
      label: "Detections from a score of",
      min: 0.05,
      max: 0.95,
      step: 0.05,
      format: (value) => fixed(value),
      change: (minScore) => this.look({ minScore }),
    });
    const options = [
      { value: "training", text: "of the last batch" },
      { value: "unseen", text: "never seen" },
      { value: "own", text: "your own" },
    ];
    this.scenes = choice({ label: "Scene", options, change: (kind) => this.look({ kind }) });
    this.own = ownScene(this.main.node, (shapes) => this.look({ shapes }));
    this.controls = settingControls((settings) => this.post("settings", settings));
  }

  arrange() {
    const heading = (text) => html("p", { class: "ssd-label" }, text);
    const folded = (title, node) =>
      html("details", { toggle: () => this.draw() }, html("summary", {}, title), node);
    const { main, layers, score, scenes, own, facts, lossChart, scoreChart } = this;
    const parts = seenIn("What these are", 3, 4, 5, 6, 7);
    const measures = seenIn("What the curves mean", 6, 10, 11);
    const charts = html("div", { class: "ssd-play-charts" }, lossChart.node, scoreChart.node);
    const kinds = SHAPES.map((name, i) => [i ? ", " : " ", swatch(COLORS[i]), name]);
    this.root = html(
      "div",
      { class: "ssd-widget ssd-playground", role: "group", "aria-label": "SSD playground" },
      this.note,
      this.buttons,
      html(
        "div",
        { class: "ssd-columns" },
        html("div", { class: "ssd-panel" }, main.node, layers.node, parts, score.node, scenes.node, own.node),
        html("div", { class: "ssd-panel" }, facts.node, charts, measures, this.says),
      ),
      heading([`${GALLERY} scenes that it never saw, with what it finds from a score of 0.3:`, kinds, ". Press one to see it large"]),
      html("div", { class: "ssd-play-gallery" }, this.picks),
      folded("Settings and error lab", this.controls.node),
      folded("Inside: first filters, and the maps of this scene", this.inside.node),
    );
    return this.root;
  }

  // Changes what is looked at; the session is asked where it has to compute for it.
  look(changes) {
    const { view } = this;
    Object.assign(view, changes);
    this.layers.set(view.layers);
    this.score.set(view.minScore);
    this.scenes.set(view.kind);
    for (const [i, pick] of this.picks.entries()) {
      pick.setAttribute("aria-pressed", String(view.kind === "unseen" && view.number === i));
    }
    this.own.hold.active = view.kind === "own";
    this.own.node.hidden = view.kind !== "own";
    this.main.node.style.touchAction = view.kind === "own" ? "none" : "auto";
    if (changes.layers || changes.minScore) this.draw();
    else this.post("view", { kind: view.kind, number: view.number, shapes: view.shapes });
  }

  draw() {
    const { last, view } = this;
    if (!last) return;
    drawShown(this.main, last, view.layers, view.minScore);
    drawGallery(this.gallery, last.gallery);
    if (this.inside.node.clientWidth) drawInside(this.inside, last);
    if (last.running) this.say("It learns. Pause it to read what it finds in this scene.");
    else this.describe(last);
  }

  hear(report) {
    if (report.fresh) this.losses.length = 0;
    this.losses.push(...report.losses);
    this.last = report;
    const { losses } = this;
    this.lossChart.set([smooth(losses, "confidence"), smooth(losses, "localization")], highest(losses), report.steps);
    this.scoreChart.set([report.scores.map(({ step, value }) => [step, value])], 1, report.steps);
    const chosen = `${report.positives.length} and ${report.mined.length}`;
    this.facts.set([thousands(report.steps), thousands(report.priors.length), thousands(report.parameters), chosen]);
    this.controls.set(report.settings);
    this.share.href = makeLink(report.settings);
    this.play.textContent = report.running ? "Pause" : "Start";
    this.draw();
  }

  describe({ scene, found, steps, scores, gallery }) {
    const sure = found.filter(({ score }) => score >= this.view.minScore);
    const count = scene.boxes.length;
    const words = foundText(sure);
    this.main.node.setAttribute("aria-label", `A scene with ${count} shape${count === 1 ? "" : "s"}; found: ${words}`);
    for (const [i, pick] of this.picks.entries()) {
      pick.setAttribute("aria-label", `Unseen scene ${i + 1}; found: ${foundText(gallery[i].found)}`);
    }
    const end = this.losses.at(-1);
    const sentence =
      end && !Number.isFinite(end.confidence + end.localization)
        ? "The loss is no number any more: the learning rate was too high. Start again."
        : `${thousands(steps)} steps, mAP ${fixed(scores.at(-1).value)}. In this scene: ${words}.`;
    this.say(sentence);
  }

  say(sentence) {
    if (this.says.textContent !== sentence) this.says.textContent = sentence;
  }
}

// What was found, best score first; of many boxes their number, and the first few.
function foundText(found, most = 6) {
  const text = found
    .slice(0, most)
    .map(({ label, score }) => `${SHAPES[label - 1]} ${score.toFixed(2)}`)
    .join(", ");
  return found.length > most ? `${found.length} boxes, the first of them ${text}` : text || "nothing";
}

// The top of the loss chart: what all but the first few losses stay below.
function highest(losses) {
  const usual = losses.slice(Math.min(5, losses.length - 1)).flatMap((loss) => [loss.confidence, loss.localization]);
  const most = usual.reduce((a, b) => Math.max(a, b), 1);
  return Number.isFinite(most) ? Math.min(20, Math.ceil(most)) : 20;
}
