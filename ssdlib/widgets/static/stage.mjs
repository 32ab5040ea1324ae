// The picture of a widget: an SVG in the pixels of an image, whose lines and letters keep their size on the screen.

// Marks of the book's palette, in the order of ssdlib.plotting.PALETTE (labels count from 1).
const colorOf = (label) => `var(--ssd-${((label - 1) % 7) + 1})`;

function stage({ width, height, label, image = null }) {
  const node = svg("svg", {
    class: "ssd-stage",
    viewBox: `0 0 ${width} ${height}`,
    role: "group",
    "aria-label": label,
    // Never so high that the rest of the widget leaves the screen.
    style: { maxWidth: `calc(var(--ssd-high, 400px) * ${fixed(width / height, 4)})` },
  });
  if (image) {
    node.append(svg("image", { href: image, width, height, preserveAspectRatio: "none", "aria-hidden": "true" }));
  }
  new ResizeObserver(() => {
    // Sizes in the style sheet are screen pixels times this unit.
    if (node.clientWidth) node.style.setProperty("--ssd-unit", width / node.clientWidth);
  }).observe(node);
  // Screen position of an event, in the pixels of the picture.
  const at = (event) => {
    const frame = node.getBoundingClientRect();
    return [((event.clientX - frame.left) / frame.width) * width, ((event.clientY - frame.top) / frame.height) * height];
  };
  return { node, at, width, height };
}

function gridLines({ width, height }, step = 20) {
  const grid = svg("g", { class: "ssd-grid", "aria-hidden": "true" });
  for (let x = 0; x <= width; x += step) grid.append(svg("line", { x1: x, x2: x, y1: 0, y2: height }));
  for (let y = 0; y <= height; y += step) grid.append(svg("line", { x1: 0, x2: width, y1: y, y2: y }));
  return grid;
}

const HAIR = 0.01; // a rectangle without a side is not drawn at all: a box without area is as thin as a hair

/** @param {number[]} box */
const boxAttributes = ([x0, y0, x1, y1]) => ({
  x: x0,
  y: y0,
  width: Math.max(HAIR, x1 - x0),
  height: Math.max(HAIR, y1 - y0),
});

/** @type {(box: number[], attributes?: object) => SVGElement} */
const boxShape = (box, attributes = {}) => svg("rect", { class: "ssd-box", ...boxAttributes(box), ...attributes });

// A word at the upper left corner of a box: above its edge, or inside where there is no room above.
const tag = (words) => svg("text", { class: "ssd-tag" }, words);

/** @type {(text: SVGElement, box: number[], place: {width: number, height: number}) => void} */
function placeTag(text, [x0, y0, x1], { width, height }) {
  const right = x0 > 0.75 * width;
  const above = y0 > 0.08 * height;
  update(text, { x: right ? x1 : x0, y: y0, "text-anchor": right ? "end" : "start" });
  text.setAttribute("class", above ? "ssd-tag" : "ssd-tag ssd-below");
}

// Moves an element by pointer: `start` gives what `move` gets back with the distance walked in picture pixels.
function draggable(element, place, { start, move }) {
  element.addEventListener("pointerdown", (down) => {
    if (down.button !== 0) return;
    down.preventDefault();
    element.focus?.({ preventScroll: true });
    element.setPointerCapture(down.pointerId);
    const [x, y] = place.at(down);
    const held = start();
    const walk = (event) => {
      if (event.pointerId !== down.pointerId) return;
      // Moved in the document meanwhile, the element would never hear that its pointer was lifted.
      if (!element.hasPointerCapture(down.pointerId)) return done(event);
      const [nowX, nowY] = place.at(event);
      move(held, nowX - x, nowY - y);
    };
    const done = (event) => {
      if (event.pointerId !== down.pointerId) return;
      element.removeEventListener("pointermove", walk);
      element.removeEventListener("pointerup", done);
      element.removeEventListener("pointercancel", done);
    };
    element.addEventListener("pointermove", walk);
    element.addEventListener("pointerup", done);
    element.addEventListener("pointercancel", done);
  });
}

// A finger or the mouse on an element, going down and walking: `pick` gets where, in picture pixels.
function pickable(element, place, pick, holder = element) {
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    holder.focus({ preventScroll: true });
    holder.setPointerCapture(event.pointerId);
    pick(...place.at(event));
  });
  element.addEventListener("pointermove", (event) => holder.hasPointerCapture(event.pointerId) && pick(...place.at(event)));
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// Calls `walk` with the direction of an arrow key (times 10 with Ctrl or Cmd) and whether Shift is held.
function onArrows(element, walk) {
  element.addEventListener("keydown", (event) => {
    const direction = ARROWS[event.key];
    if (!direction || event.altKey) return;
    event.preventDefault();
    const times = event.ctrlKey || event.metaKey ? 10 : 1;
    walk(direction[0] * times, direction[1] * times, event.shiftKey);
  });
}

// A box to move by its inside and to resize by its corners; by keyboard, arrows move and Shift with arrows resizes.
// `get` and `set` are its corners; `step` is the grid that it keeps to, `least` the smallest side.
function movableBox(place, { name, color, get, set, step = 1, least = 0 }) {
  const { width, height } = place;
  const snap = (value) => roundTo(value, step);
  const shift = ([x0, y0, x1, y1], dx, dy) => {
    const [w, h] = [x1 - x0, y1 - y0];
    const x = clamp(snap(x0 + dx), 0, width - w);
    const y = clamp(snap(y0 + dy), 0, height - h);
    set([x, y, x + w, y + h]);
  };
  const resize = ([x0, y0, x1, y1], right, bottom, dx, dy) => {
    const low = right ? x0 + least : 0;
    const high = right ? width : x1 - least;
    const x = clamp(snap((right ? x1 : x0) + dx), low, high);
    const top = bottom ? y0 + least : 0;
    const floor = bottom ? height : y1 - least;
    const y = clamp(snap((bottom ? y1 : y0) + dy), top, floor);
    set([right ? x0 : x, bottom ? y0 : y, right ? x : x1, bottom ? y : y1]);
  };
  const body = svg("rect", { class: "ssd-box ssd-movable", style: { stroke: color } });
  const corners = [0, 1, 2, 3].map((i) => {
    const [right, bottom] = [i % 2 === 1, i > 1];
    const dot = svg("circle", { class: "ssd-handle", style: { fill: color } });
    const target = svg("circle", { class: "ssd-target", style: { cursor: right === bottom ? "nwse-resize" : "nesw-resize" } });
    draggable(target, place, { start: get, move: (box, dx, dy) => resize(box, right, bottom, dx, dy) });
    return { right, bottom, dot, target };
  });
  const node = svg(
    "g",
    { class: "ssd-movable-box", tabindex: "0", role: "button", "aria-roledescription": "movable box" },
    body,
    corners.map(({ dot, target }) => [dot, target]),
  );
  draggable(body, place, { start: get, move: shift });
  onArrows(node, (dx, dy, resizing) =>
    resizing ? resize(get(), true, true, dx * step, dy * step) : shift(get(), dx * step, dy * step),
  );
  const show = () => {
    const box = get();
    update(body, boxAttributes(box));
    for (const { right, bottom, dot, target } of corners) {
      const at = { cx: box[right ? 2 : 0], cy: box[bottom ? 3 : 1] };
      update(dot, at);
      update(target, at);
    }
    const [x0, y0, x1, y1] = box.map((value) => Math.round(value));
    node.setAttribute(
      "aria-label",
      `${name}: left ${x0}, top ${y0}, right ${x1}, bottom ${y1}. Arrow keys move it, Shift and arrow keys resize it.`,
    );
  };
  return { node, show };
}
