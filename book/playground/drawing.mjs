// Pictures of the playground: scenes with boxes over them, filters and maps, on canvases as sharp as the screen.

const VIEW = { truth: "Objects", positives: "Positives", mined: "Negatives", offsets: "Offsets", found: "Detections" };

const NAMED = 8; // detections with a name in the picture: more would hide it

const css = (node, name) => getComputedStyle(node).getPropertyValue(name).trim();

// A canvas of `side` style pixels; `paint` gets a context in which the picture is 1 x 1... times `side`.
function makeCanvas(label, side, attributes = {}) {
  const node = html("canvas", { role: "img", "aria-label": label, ...attributes });
  const paint = (draw) => {
    const pixels = Math.round((node.clientWidth || side) * (globalThis.devicePixelRatio || 1));
    if (node.width !== pixels) [node.width, node.height] = [pixels, pixels];
    const context = node.getContext("2d");
    context.setTransform(pixels / side, 0, 0, pixels / side, 0, 0);
    context.imageSmoothingEnabled = false;
    draw(context, side);
  };
  return { node, paint };
}

const sheet = (() => {
  let canvas = null;
  return (width, height) => {
    canvas ??= document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    return canvas;
  };
})();

// Values of a square as gray, `low` black and `high` white, drawn at (x, y) with a side of `size`.
function drawGray(context, values, offset, cells, [low, high], x, y, size) {
  const picture = sheet(cells, cells);
  const inner = picture.getContext("2d");
  const image = inner.createImageData(cells, cells);
  for (let i = 0; i < cells * cells; i += 1) {
    const gray = clamp((255 * (values[offset + i] - low)) / (high - low || 1), 0, 255);
    image.data.set([gray, gray, gray, 255], 4 * i);
  }
  inner.putImageData(image, 0, 0);
  context.drawImage(picture, x, y, size, size);
}

/** @type {(context: any, side: number, box: number[], color: string, width: number, dash?: number[]) => void} */
function strokeBox(context, side, [x0, y0, x1, y1], color, width, dash = []) {
  context.setLineDash(dash);
  context.lineWidth = width;
  context.strokeStyle = color;
  context.strokeRect(x0 * side, y0 * side, (x1 - x0) * side, (y1 - y0) * side);
  context.setLineDash([]);
}

function arrow(context, [x0, y0], [x1, y1], color) {
  const angle = Math.atan2(y1 - y0, x1 - x0);
  context.strokeStyle = color;
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  for (const turn of [2.6, -2.6]) {
    context.moveTo(x1, y1);
    context.lineTo(x1 + 6 * Math.cos(angle + turn), y1 + 6 * Math.sin(angle + turn));
  }
  context.stroke();
}

function write(context, words, x, y, color) {
  context.font = "600 12px system-ui, sans-serif";
  const width = context.measureText(words).width;
  context.fillStyle = "rgb(0 0 0 / 0.72)";
  context.fillRect(x, y - 13, width + 11, 16);
  context.fillStyle = color;
  context.fillRect(x, y - 13, 5, 16);
  context.fillStyle = "white";
  context.fillText(words, x + 8, y - 1);
}

const COLORS = ["var(--ssd-2)", "var(--ssd-3)", "var(--ssd-1)"]; // of the shapes, as style sheets have them

const colorsOf = (node) => COLORS.map((color) => css(node, color.slice(4, -1)) || "#fff");

// A scene and, by the names in `layers`, what the network makes of it.
function drawShown(canvas, { scene, priors, positives, mined, found }, layers, minScore) {
  const colors = colorsOf(canvas.node);
  canvas.paint((context, side) => {
    drawGray(context, scene.pixels, 0, SIDE, [0, 1], 0, 0, side);
    if (layers.includes("mined")) {
      for (const prior of mined) strokeBox(context, side, toCorners(priors[prior]), "rgb(255 120 110 / 0.75)", 1.2, [2, 3]);
    }
    if (layers.includes("positives")) {
      for (const { prior } of positives) strokeBox(context, side, toCorners(priors[prior]), "rgb(110 210 255 / 0.9)", 1.5);
    }
    if (layers.includes("offsets")) {
      for (const { prior, box } of positives) {
        const to = toCentre(box).map((value) => value * side);
        arrow(context, [priors[prior][0] * side, priors[prior][1] * side], [to[0], to[1]], "rgb(255 230 90)");
      }
    }
    if (layers.includes("truth")) for (const box of scene.boxes) strokeBox(context, side, box, "white", 1.5, [6, 4]);
    if (layers.includes("found")) drawFound(context, side, found.filter(({ score }) => score >= minScore), colors, true);
  });
}

function drawFound(context, side, found, colors, words) {
  for (const { box, label } of found) strokeBox(context, side, box, colors[label - 1], words ? 3 : 2);
  if (!words) return;
  for (const { box, label, score } of found.slice(0, NAMED).reverse()) {
    const text = `${SHAPES[label - 1]} ${score.toFixed(2)}`;
    write(context, text, clamp(box[0] * side, 0, side - 90), Math.max(14, box[1] * side), colors[label - 1]);
  }
}

// The scenes of the gallery: what is found there, and dashed what is to be found.
function drawGallery(canvases, gallery) {
  for (const [i, canvas] of canvases.entries()) {
    const { pixels, boxes, found } = gallery[i];
    canvas.paint((context, side) => {
      drawGray(context, pixels, 0, SIDE, [0, 1], 0, 0, side);
      for (const box of boxes) strokeBox(context, side, box, "white", 1, [3, 3]);
      drawFound(context, side, found, colorsOf(canvas.node), false);
    });
  }
}

// The filters of the first layer (3 x 3 each) above the maps, one row of squares for each layer.
function drawInside(canvas, { filters, maps }) {
  const rows = [
    { count: filters.count, cells: 3, values: filters.weight, range: rangeAround(filters.weight) },
    ...maps.map(({ channels, side, values }) => ({
      count: channels,
      cells: side,
      values,
      range: [0, Math.max(...values) || 1],
    })),
  ];
  canvas.paint((context, side) => {
    context.clearRect(0, 0, side, side);
    let y = 0;
    for (const { count, cells, values, range } of rows) {
      const size = Math.min(side / 7, side / count - 3);
      for (let n = 0; n < count; n += 1) drawGray(context, values, n * cells * cells, cells, range, n * (size + 3), y, size);
      y += size + 12;
    }
  });
}

function rangeAround(values) {
  const most = Math.max(...values.map(Math.abs));
  return [-most, most];
}
