// The board on the page: its pixels, and over them heat, boxes, and the toys as things to take hold of.

// `still` is the picture that is shown until the first board is drawn; `press` gets an empty place that was pressed.
function boardPicture(still, press) {
  const canvas = html("canvas", { class: "ssd-toys-image", width: BOARD, height: BOARD, role: "img", "aria-label": "The board" });
  const heat = html("canvas", { class: "ssd-toys-over", "aria-hidden": "true" });
  heat.hidden = true;
  const place = stage({ width: BOARD, height: BOARD, label: "Toys on the board" });
  place.node.style.maxWidth = "none"; // the board has its own
  const layer = svg("g", { class: "ssd-toys-layer", "aria-hidden": "true" });
  const handles = svg("g", {});
  const ground = svg("rect", { class: "ssd-toys-ground", width: BOARD, height: BOARD });
  ground.addEventListener("click", (event) => press(...place.at(event)));
  const shown = new Map(); // handles by the ids of their toys
  const node = html("div", { class: "ssd-toys-board" }, still, canvas, heat, place.node);
  const context = canvas.getContext("2d");
  const image = context.createImageData(BOARD, BOARD);
  const paint = boardPainter(image.data);
  const draw = (toys, given) => {
    paint(toys, given);
    context.putImageData(image, 0, 0);
    still.remove();
  };
  const lay = (shapes, light) => {
    layer.replaceChildren(...shapes);
    heat.hidden = !light;
    if (light) drawHeat(heat, DOTS_SIDE, light);
  };
  const raise = (id) => {
    const { node: top } = shown.get(id);
    for (const other of [...handles.children]) if (other !== top) handles.insertBefore(other, top);
  };
  const stale = (yes) => node.classList.toggle("ssd-toys-stale", yes);
  return { node, canvas, heat, place, layer, handles, ground, shown, draw, lay, raise, stale, rgba: image.data };
}

// Paints toys into RGBA bytes. While only the uppermost moves, what lies below it is not painted again.
function boardPainter(rgba) {
  const [below, all] = [new Float32Array(BOARD * BOARD * 3), new Float32Array(BOARD * BOARD * 3)];
  let known = "";
  return (toys, { board, sprites, about }) => {
    const key = JSON.stringify(toys.slice(0, -1));
    if (key !== known) {
      below.set(board);
      putToys(below, toys.slice(0, -1), sprites, about.shadow);
      known = key;
    }
    all.set(below);
    toBytes(putToys(all, toys.slice(-1), sprites, about.shadow), rgba);
  };
}
