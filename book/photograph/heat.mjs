// Best scores of cells as light on a picture.

const DOTS_SIDE = 95; // of the picture in which each cell of every map is a dot

// Scores of cells as light on a darkened picture.
function drawHeat(canvas, cells, heat) {
  if (canvas.width !== cells) [canvas.width, canvas.height] = [cells, cells];
  const context = canvas.getContext("2d");
  const picture = context.createImageData(cells, cells);
  for (let i = 0; i < heat.length; i += 1) {
    const light = Math.sqrt(heat[i]); // low scores are seen, too
    picture.data.set([255 * light, 170 * light, 40 * light, 255 * (0.6 + 0.25 * light)], 4 * i);
  }
  context.putImageData(picture, 0, 0);
}

// Each cell of every map as a dot at its centre, larger for larger cells: small squares of light, side by side.
function heatOfAll(maps, heats) {
  const all = new Float32Array(DOTS_SIDE * DOTS_SIDE);
  for (const [map, { cells }] of maps.entries()) {
    const reach = Math.round(0.1 * (DOTS_SIDE / cells)) + 1;
    for (const [cell, score] of heats[map].entries()) {
      const [row, column] = [Math.floor(cell / cells), cell % cells];
      const [y, x] = [row, column].map((value) => Math.floor(((value + 0.5) / cells) * DOTS_SIDE));
      for (let i = 0; i < (2 * reach + 1) ** 2; i += 1) {
        const [down, right] = [y - reach + Math.floor(i / (2 * reach + 1)), x - reach + (i % (2 * reach + 1))];
        if (down < 0 || right < 0 || down >= DOTS_SIDE || right >= DOTS_SIDE) continue;
        const at = down * DOTS_SIDE + right;
        all[at] = Math.max(all[at], score);
      }
    }
  }
  return all;
}
