// "Draw your own scene": shapes to add, drag and change; the detector answers at once.

// `tell` gets the shapes whenever they change.
function ownScene(canvas, tell) {
  /** @type {Shape[]} */
  const shapes = [
    { label: 1, x: 15, y: 17, size: 18, gray: 0.9 },
    { label: 3, x: 33, y: 31, size: 16, gray: 0.1 },
  ];
  let chosen = 0;
  const field = (key, label, min, max, step) => {
    const input = html("input", { type: "number", min, max, step, inputmode: "decimal" });
    input.addEventListener("change", () => {
      const value = Number(input.value);
      if (shapes[chosen] && input.value !== "" && Number.isFinite(value)) shapes[chosen][key] = clamp(value, min, max);
      show();
    });
    return { key, input, node: html("label", { class: "ssd-play-field" }, label, input) };
  };
  const fields = [
    field("x", "x of its centre", 0, SIDE, 1),
    field("y", "y of its centre", 0, SIDE, 1),
    field("size", "Size", 6, 40, 1),
    field("gray", "Gray (0 to 1)", 0, 1, 0.1),
  ];
  const choose = (i) => {
    chosen = i;
    show();
  };
  const which = html("select", { change: () => choose(which.selectedIndex) });
  const add = SHAPES.map((name, i) =>
    button(`Add a ${name}`, () => {
      if (shapes.length >= 6) return;
      shapes.push({ label: i + 1, x: SIDE / 2, y: SIDE / 2, size: 16, gray: 0.9 });
      choose(shapes.length - 1);
    }),
  );
  const remove = button("Remove it", () => {
    shapes.splice(chosen, 1);
    choose(Math.max(0, chosen - 1));
  });
  const node = html(
    "div",
    { class: "ssd-play-own" },
    html("p", { class: "ssd-hint" }, "Drag the shapes in the picture, or write their numbers here (pixels of 48)."),
    html("div", { class: "ssd-options" }, add, remove),
    html("label", { class: "ssd-select" }, html("span", {}, "Shape"), which),
    html("div", { class: "ssd-play-fields" }, fields.map((one) => one.node)),
  );
  const show = () => {
    which.replaceChildren(...shapes.map(({ label }, i) => html("option", {}, `${i + 1}: ${SHAPES[label - 1]}`)));
    which.selectedIndex = Math.min(chosen, shapes.length - 1);
    for (const { key, input } of fields) input.value = shapes[chosen] ? String(roundTo(shapes[chosen][key], 0.01)) : "";
    for (const one of add) able(one, shapes.length < 6);
    able(remove, shapes.length > 0);
    tell(shapes.map((shape) => ({ ...shape })));
  };
  const hold = dragShapes(canvas, shapes, choose);
  return { node, show, hold };
}

// Lets the pointer drag shapes on the canvas while `active` is set; `moved` gets the number of the shape.
function dragShapes(canvas, shapes, moved) {
  const state = { active: false };
  const at = (event) => {
    const frame = canvas.getBoundingClientRect();
    return [((event.clientX - frame.left) / frame.width) * SIDE, ((event.clientY - frame.top) / frame.height) * SIDE];
  };
  canvas.addEventListener("pointerdown", (down) => {
    if (!state.active || down.button !== 0) return;
    const [x, y] = at(down);
    const i = shapes.findLastIndex((shape) => Math.max(Math.abs(shape.x - x), Math.abs(shape.y - y)) <= shape.size / 2 + 1);
    if (i < 0) return;
    down.preventDefault();
    canvas.setPointerCapture(down.pointerId);
    const [dx, dy] = [shapes[i].x - x, shapes[i].y - y];
    const walk = (event) => {
      const [nowX, nowY] = at(event);
      Object.assign(shapes[i], { x: clamp(nowX + dx, 0, SIDE), y: clamp(nowY + dy, 0, SIDE) });
      moved(i);
    };
    const done = () => {
      canvas.removeEventListener("pointermove", walk);
      for (const end of ["pointerup", "pointercancel"]) canvas.removeEventListener(end, done);
    };
    canvas.addEventListener("pointermove", walk);
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, done);
    moved(i);
  });
  return state;
}
