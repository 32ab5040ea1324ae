// The tray of toys on a page: a still picture until the reader asks for it, then a board, its toys and the four stops.

// On the page: fills its place. In a worker there is no document: runs the network.
function startToys(script, program) {
  if (typeof document === "undefined") return serveToys(globalThis);
  for (const place of document.querySelectorAll(".ssd-toys-place")) {
    const offer = /** @type {HTMLElement} */ (place.querySelector(".ssd-toys-offer"));
    const ask = button(offer.dataset.words, () => Object.assign(place, { toys: new ToyBoard(place, script.src, `${program}`) }));
    offer.replaceChildren(ask);
  }
}

const MOST = 8; // toys on the board
const FEW = 5; // toys, of which the sentence says where they lie: of more it would be long
const STILL = 150; // milliseconds without a change until the network is asked

class ToyBoard {
  /** @type {(place: Element, address: string, program: string) => void} */
  constructor(place, address, program) {
    this.address = address;
    this.program = program;
    this.data = /** @type {HTMLElement} */ (place.querySelector(".ssd-toys-offer")).dataset;
    /** @type {Placed[]} */
    this.toys = []; // from the lowest to the uppermost
    this.given = null; // pictures and weights, when they are here
    this.chosen = -1; // id of a toy
    this.stop = "answer";
    this.seen = null;
    this.asked = 0;
    this.ids = 0;
    this.names = this.data.classes.split(" ");
    this.arrange(place.querySelector(".ssd-toys"), place.querySelector("img"));
    this.load();
  }

  arrange(root, still) {
    this.picture = boardPicture(still, (x, y) => this.send(x, y));
    this.tray = toyTray(this.names, { put: (kind) => this.put(kind), drag: (kind) => this.drag(kind) });
    this.again = button("Begin again", () => this.begin());
    able(this.again, false);
    const act = (values) => this.change(this.chosen, values(this.chosenToy()));
    this.tools = toyTools({ act, remove: () => this.remove(this.chosen), more: this.again });
    const options = Object.entries(STOPS).map(([value, text]) => ({ value, text }));
    this.stops = choice({ label: "What lies over the board", options, change: (stop) => this.look(stop) });
    this.stops.node.classList.add("ssd-toys-stops");
    this.stops.set(this.stop);
    this.words = html("p", { class: "ssd-toys-words" });
    this.says = html("p", { class: "ssd-says", role: "status" }, "The toys are being fetched.");
    const hint = `Drag toys to the board, or press them; ${MOST} have room. Press an empty place to send the chosen toy there. Try first: stand the fish on its tail.`;
    const panel = html("div", { class: "ssd-panel" }, this.tray.node, html("p", { class: "ssd-hint" }, hint), this.tools.node, this.stops.node, this.words);
    const left = html("div", { class: "ssd-panel" }, this.picture.node, this.says);
    root.replaceChildren(html("div", { class: "ssd-columns" }, left, panel));
    const get = () => this.chosenToy();
    this.knob = turnKnob(this.picture.place, { get, change: (values) => this.change(this.chosen, values) });
    this.picture.place.node.append(this.picture.ground, this.picture.layer, this.picture.handles, this.knob.node);
    this.tools.set("");
    this.tray.buttons[0].focus({ preventScroll: true });
  }

  async load() {
    try {
      const given = await unpackToys(await fetchToys(this.data.payload));
      this.priors = priorsOfMaps(given.about.maps);
      this.detector = toyDetector(this.address, this.program, (answer) => this.hear(answer));
      this.detector.load({ about: given.about, halves: given.halves, channels: given.channels });
      this.given = given;
    } catch (error) {
      able(this.again, true);
      return this.say(`It does not start: ${error instanceof Error ? error.message : error}. "Begin again" tries once more.`);
    }
    this.tray.draw(this.given.sprites);
    able(this.again, true);
    this.begin();
  }

  // The toys of the beginning, and no others. What could not be fetched is asked for again.
  begin() {
    if (!this.given) {
      able(this.again, false);
      this.say("The toys are being fetched.");
      return this.load();
    }
    this.picture.shown.clear();
    this.toys = this.given.about.first.map((toy) => this.numbered(toy));
    this.chosen = -1;
    this.picture.handles.replaceChildren(...this.toys.map((toy) => this.handle(toy)));
    this.changed();
  }

  numbered(toy) {
    this.ids += 1;
    return { ...toy, id: this.ids };
  }

  handle({ id, kind }) {
    const handle = toyHandle(id, this.names[kind], this.picture.place, {
      get: (of) => this.toy(of),
      change: (of, values) => this.change(of, values),
      hold: (of) => this.lift(of),
      choose: (of) => this.choose(of),
      remove: (of) => this.remove(of),
    });
    this.picture.shown.set(id, handle);
    return handle.node;
  }

  toy(id) {
    return this.toys.find((one) => one.id === id);
  }

  chosenToy() {
    return this.toy(this.chosen);
  }

  choose(id) {
    this.chosen = id;
    this.show();
  }

  // A toy that is moved by a pointer comes to lie above the others.
  lift(id) {
    if (this.toys.at(-1).id === id) return;
    this.toys = [...this.toys.filter((one) => one.id !== id), this.toy(id)];
    this.picture.raise(id);
  }

  change(id, values) {
    this.toys = this.toys.map((one) => (one.id === id ? allowed(one, values) : one));
    this.changed();
  }

  // Adds a toy of a kind, and takes hold of it with the keyboard.
  put(kind, where = freePlace(this.toys)) {
    if (this.toys.length >= MOST) return null;
    const toy = this.numbered({ kind, turn: 0, size: 0.3, ...where });
    this.toys = [...this.toys, toy];
    const node = this.handle(toy);
    this.picture.handles.append(node);
    this.chosen = toy.id;
    this.changed();
    /** @type {SVGElement} */ (node).focus({ preventScroll: true });
    return toy;
  }

  // From the tray: the toy appears where the pointer comes over the board, and goes where it leaves.
  drag(kind) {
    const { place } = this.picture;
    let toy = null;
    return (event) => {
      const [x, y] = place.at(event).map((value) => value / BOARD);
      const over = x > 0 && y > 0 && x < 1 && y < 1;
      if (over && !toy) toy = this.put(kind, { x, y });
      else if (over) this.change(toy.id, { x, y });
      else if (toy) toy = this.remove(toy.id);
    };
  }

  remove(id) {
    const at = this.toys.findIndex((one) => one.id === id);
    if (at < 0) return null;
    const held = this.picture.node.contains(document.activeElement);
    this.toys = this.toys.filter((one) => one.id !== id);
    this.picture.shown.get(id).node.remove();
    this.picture.shown.delete(id);
    const next = this.toys[Math.min(at, this.toys.length - 1)];
    this.chosen = next && held ? next.id : -1;
    if (held) (next ? this.picture.shown.get(next.id).node : this.tray.buttons[0]).focus({ preventScroll: true });
    this.changed();
    return null;
  }

  send(x, y) {
    if (this.chosenToy()) this.change(this.chosen, { x: x / BOARD, y: y / BOARD });
  }

  // Something is another than it was: the board is drawn, and the network asked when things are still.
  changed() {
    this.asked += 1;
    this.picture.draw(this.toys, this.given);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.detector.ask(this.asked, this.picture.rgba), STILL);
    this.show();
  }

  hear(answer) {
    if (answer.type === "failed") return this.say(`The network does not answer: ${answer.reason}.`);
    if (answer.type !== "answer" || answer.id !== this.asked) return;
    const after = afterNetwork(answer, this.given.about, this.priors);
    this.seen = { ...after, found: foundToys(this.toys, after.kept), time: answer.time, id: answer.id };
    this.show();
    const words = (where) => answerWords(this.toys, this.seen, this.names, where);
    this.say(words(this.toys.length <= FEW), words(true));
  }

  look(stop) {
    this.stop = stop;
    this.stops.set(stop);
    this.show();
  }

  show() {
    const { seen, stop, picture, given } = this;
    const chosen = this.chosenToy();
    for (const toy of this.toys) picture.shown.get(toy.id)?.show(toy, toy === chosen);
    this.knob.show(chosen);
    this.tools.set(chosen ? `${this.names[chosen.kind]}, ${poseWords(chosen)}` : "");
    this.tray.set(Boolean(given) && this.toys.length < MOST);
    picture.stale(seen?.id !== this.asked);
    if (!seen) return;
    const own = seen.found.get(this.chosen);
    const one = own ?? seen.kept[0];
    const missed = !own && seen.found.has(this.chosen) ? this.names[chosen.kind] : "";
    const context = { priors: this.priors, about: given.about, place: picture.place, missed };
    picture.lay(shapesOfStop(stop, seen, one, context), stop === "scores" ? heatOfAll(given.about.maps, seen.heats) : null);
    this.words.replaceChildren(...wordsOfStop(stop, seen, one, context));
  }

  // `more` is what the picture says to those who do not see it.
  say(sentence, more = sentence) {
    if (this.says.textContent !== sentence) this.says.textContent = sentence;
    this.picture.canvas.setAttribute("aria-label", `The board. ${more}`);
  }
}

// Of some places the one that is farthest from all toys.
function freePlace(toys) {
  const values = [0.2, 0.35, 0.5, 0.65, 0.8];
  const places = values.flatMap((y) => values.map((x) => ({ x, y })));
  const room = ({ x, y }) => Math.min(1, ...toys.map((toy) => Math.hypot(toy.x - x, toy.y - y) - toy.size / 2));
  return places.reduce((best, one) => (room(one) > room(best) ? one : best), { x: 0.5, y: 0.5 });
}
