// The toys on the board as things to take hold of: by pointer, by finger and by key.

const STEP = BOARD / 64; // pixels of the board for an arrow key
const TURN = 5; // degrees for a key
const SIZES = { min: 0.2, max: 0.6 };
const KNOB = 26; // screen pixels from a toy's edge to the knob that turns it

/** @typedef {Toy & {id: number}} Placed */

// `get` gives a toy by its id; `change` puts it elsewhere, `hold` is told that a pointer moves it, `choose` that it is
// the one that tools are for, `remove` that it goes.
function toyHandle(id, name, place, { get, change, hold, choose, remove }) {
  const hit = svg("circle", { class: "ssd-toys-hit" });
  const ring = [svg("circle", { class: "ssd-toys-ring ssd-toys-under" }), svg("circle", { class: "ssd-toys-ring" })];
  const node = svg("g", { class: "ssd-toys-handle", tabindex: "0", role: "button", "aria-roledescription": "toy" }, hit, ring);
  node.addEventListener("focus", () => choose(id));
  node.addEventListener("click", () => choose(id));
  draggable(hit, place, {
    start: () => ({ ...get(id) }),
    move: ({ x, y }, dx, dy) => {
      hold(id);
      change(id, { x: x + dx / BOARD, y: y + dy / BOARD });
    },
  });
  draggableByFocus(hit, node);
  onArrows(node, (dx, dy, turning) => {
    const { x, y, turn, size } = get(id);
    if (!turning) return change(id, { x: x + (dx * STEP) / BOARD, y: y + (dy * STEP) / BOARD });
    change(id, { turn: turn + TURN * dx, size: size - 0.02 * dy });
  });
  node.addEventListener("keydown", (event) => {
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      remove(id);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(id);
    }
  });
  const show = (toy, chosen) => {
    const circle = { cx: toy.x * BOARD, cy: toy.y * BOARD, r: (toy.size * BOARD) / 2 };
    for (const one of [hit, ...ring]) update(one, circle);
    node.classList.toggle("ssd-toys-chosen", chosen);
    node.setAttribute("aria-pressed", String(chosen));
    node.setAttribute("aria-label", `${name}, ${toyWords(toy)}. Arrow keys move it, Shift and arrow keys turn and resize it, Delete removes it.`);
  };
  return { node, show };
}

// What a pointer presses is a shape that takes no focus: its handle does.
const draggableByFocus = (hit, node) => hit.addEventListener("pointerdown", () => node.focus({ preventScroll: true }));

const percent = (value) => `${Math.round(100 * value)} %`;

const poseWords = ({ turn, size }) => `turned by ${fixed(turn, 0)}°, ${percent(size)} wide`;

const toyWords = (toy) => `${percent(toy.x)} from the left, ${percent(toy.y)} from the top, ${poseWords(toy)}`;

// A toy with other values, as far as they are allowed.
/** @type {(toy: Placed, values: object) => Placed} */
function allowed(toy, values) {
  const next = { ...toy, ...values };
  const turn = ((next.turn % 360) + 540) % 360 - 180;
  return { ...next, x: clamp(next.x, 0, 1), y: clamp(next.y, 0, 1), turn, size: clamp(next.size, SIZES.min, SIZES.max) };
}

// The knob beside the chosen toy: dragged around it, it turns the toy. Above it or, where there is no room, below.
function turnKnob(place, { get, change }) {
  const stalk = svg("line", { class: "ssd-toys-stalk" });
  const dot = svg("circle", { class: "ssd-handle ssd-toys-knob" });
  const target = svg("circle", { class: "ssd-target ssd-toys-turn" });
  const node = svg("g", { class: "ssd-toys-knobs", "aria-hidden": "true" }, stalk, dot, target);
  const angle = (dx, dy) => (Math.atan2(dy, dx) * 180) / Math.PI;
  let [side, held] = [1, false];
  for (const end of ["pointerup", "pointercancel"]) {
    target.addEventListener(end, () => {
      held = false;
      show(get());
    });
  }
  const spot = ({ x, y, turn, size }) => {
    const far = (size * BOARD) / 2 + (KNOB * BOARD) / (place.node.clientWidth || BOARD);
    const radians = ((turn - 90) * Math.PI) / 180;
    return [x * BOARD, y * BOARD, far * Math.cos(radians), far * Math.sin(radians)];
  };
  draggable(target, place, {
    start: () => {
      const toy = get();
      const [, , dx, dy] = spot(toy);
      held = true;
      return { turn: toy.turn, from: [side * dx, side * dy] };
    },
    move: ({ turn, from }, dx, dy) => change({ turn: turn + angle(from[0] + dx, from[1] + dy) - angle(from[0], from[1]) }),
  });
  const show = (toy) => {
    node.toggleAttribute("hidden", !toy);
    if (!toy) return;
    const [x, y, dx, dy] = spot(toy);
    const inside = (value) => value > 12 && value < BOARD - 12;
    if (!held) side = inside(x + dx) && inside(y + dy) ? 1 : -1;
    const [cx, cy] = [x + side * dx, y + side * dy];
    update(stalk, { x1: x + side * dx * 0.8, y1: y + side * dy * 0.8, x2: cx, y2: cy });
    for (const one of [dot, target]) update(one, { cx, cy });
  };
  return { node, show };
}
