// The tray: a button for each kind of toy, to be pressed or dragged from, and tools for the toy that is chosen.

const ICON = 96; // pixels of a toy's picture in the tray

// A sprite without its shadow, on a canvas of ICON pixels.
/** @type {(canvas: HTMLCanvasElement, sprite: Sprite) => void} */
function drawIcon(canvas, { side, half, colours, masks }) {
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [side, side];
  const context = picture.getContext("2d");
  const image = context.createImageData(side, side);
  for (let i = 0; i < side * side; i += 1) {
    image.data.set([colours[3 * i], colours[3 * i + 1], colours[3 * i + 2], masks[2 * i]], 4 * i);
  }
  context.putImageData(image, 0, 0);
  const edge = side / 2 - 1.05 * half;
  canvas.getContext("2d").drawImage(picture, edge, edge, 2.1 * half, 2.1 * half, 0, 0, ICON, ICON);
}

// `put` adds a toy of a kind, in a free place; `drag` begins to drag one, and gives what follows the pointer.
function toyTray(names, { put, drag }) {
  const icons = names.map(() => html("canvas", { width: ICON, height: ICON, "aria-hidden": "true" }));
  const buttons = names.map((name, kind) => {
    const node = button([icons[kind], html("span", {}, name)], () => put(kind), { class: "ssd-button ssd-toys-kind" });
    node.setAttribute("aria-label", `Put a ${name} on the board`);
    dragFrom(node, () => drag(kind));
    able(node, false);
    return node;
  });
  const node = html("div", { class: "ssd-toys-kinds", role: "group", "aria-label": "Tray of toys" }, buttons);
  const draw = (sprites) => sprites.forEach((sprite, kind) => drawIcon(icons[kind], sprite));
  const set = (yes) => buttons.forEach((one) => able(one, yes));
  return { node, buttons, draw, set };
}

// A pointer that goes down on a button and walks away with something: the click that follows is not one.
function dragFrom(node, begin) {
  let dragged = false;
  node.addEventListener("click", (event) => dragged && event.stopImmediatePropagation(), { capture: true });
  node.addEventListener("pointerdown", (down) => {
    if (down.button !== 0 || !isAble(node)) return;
    let move = null;
    node.setPointerCapture(down.pointerId); // its way is told from here on, wherever it goes
    const walk = (event) => {
      if (event.pointerId !== down.pointerId) return;
      if (!move && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < 8) return;
      move ??= begin();
      dragged = true;
      move(event);
    };
    const done = (event) => {
      if (event.pointerId !== down.pointerId) return;
      node.removeEventListener("pointermove", walk);
      for (const end of ["pointerup", "pointercancel"]) node.removeEventListener(end, done);
      setTimeout(() => {
        dragged = false;
      });
    };
    node.addEventListener("pointermove", walk);
    for (const end of ["pointerup", "pointercancel"]) node.addEventListener(end, done);
  });
}

// Buttons that turn, resize and remove; `act` gets what to change. `more` is a button beside them.
function toyTools({ act, remove, more }) {
  const tool = (words, values) => button(words, () => act(values));
  const buttons = [
    tool("Turn left", ({ turn }) => ({ turn: turn - 15 })),
    tool("Turn right", ({ turn }) => ({ turn: turn + 15 })),
    button("Remove", remove),
    tool("Smaller", ({ size }) => ({ size: size - 0.04 })),
    tool("Larger", ({ size }) => ({ size: size + 0.04 })),
  ];
  const label = html("p", { class: "ssd-label ssd-toys-chosen-words" });
  const node = html("div", { role: "group", "aria-label": "The chosen toy" }, label, html("div", { class: "ssd-toys-tools" }, buttons, more));
  const set = (words) => {
    label.textContent = words ? `Chosen: ${words}` : "Press a toy on the board to choose it";
    for (const one of buttons) able(one, Boolean(words));
  };
  return { node, set };
}
