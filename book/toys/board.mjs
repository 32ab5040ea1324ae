// The board as the network sees it: a picture of BOARD x BOARD pixels, computed and not drawn, so that it is the same
// in every browser and in book/_ext/toys_files.py, with which tests/book/test_toys.py compares it.

const BOARD = 512; // pixels of a side

/** @typedef {{kind: number, x: number, y: number, turn: number, size: number}} Toy centre and size in fractions of the board, turn in degrees */
/** @typedef {{side: number, half: number, colours: Uint8Array, masks: Uint8Array}} Sprite side: of the picture, in pixels; half: of the toy
 *  in it; colours: RGB; masks: how much of the toy, and of its shadow, covers each pixel */
/** @typedef {{shift: number[], strength: number}} Shadow shift: in halves of the toy */

// Adds toys to a picture (BOARD, BOARD, 3): of each its shadow, and then itself.
/** @type {(rgb: Float32Array, toys: Toy[], sprites: Sprite[], shadow: Shadow) => Float32Array} in place */
function putToys(rgb, toys, sprites, { shift, strength }) {
  for (const toy of toys) {
    const sprite = sprites[toy.kind];
    const half = (toy.size * BOARD) / 2;
    eachPixel(toy, sprite, shift[0] * half, shift[1] * half, (at, u, v) => {
      const light = 1 - (strength * between(sprite.masks, sprite.side, 2, 1, u, v)) / 255;
      for (let c = 0; c < 3; c += 1) rgb[at + c] *= light;
    });
    eachPixel(toy, sprite, 0, 0, (at, u, v) => {
      const cover = between(sprite.masks, sprite.side, 2, 0, u, v) / 255;
      if (cover === 0) return;
      for (let c = 0; c < 3; c += 1) rgb[at + c] += (between(sprite.colours, sprite.side, 3, c, u, v) - rgb[at + c]) * cover;
    });
  }
  return rgb;
}

// Calls `visit` for each pixel of the board that a toy's picture covers, shifted by (right, down) pixels, with the
// pixel's place in the array and the place in the toy's picture.
function eachPixel({ x, y, turn, size }, { side, half }, right, down, visit) {
  const scale = half / ((size * BOARD) / 2);
  const angle = (turn * Math.PI) / 180;
  const [cos, sin] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  const [centreX, centreY] = [x * BOARD + right, y * BOARD + down];
  const reach = (side / 2) * (Math.abs(cos) + Math.abs(sin)) / scale ** 2;
  const from = (centre) => Math.max(0, Math.ceil(centre - reach - 0.5));
  const to = (centre) => Math.min(BOARD, Math.floor(centre + reach + 0.5));
  for (let row = from(centreY); row < to(centreY); row += 1) {
    for (let column = from(centreX); column < to(centreX); column += 1) {
      const [dx, dy] = [column + 0.5 - centreX, row + 0.5 - centreY];
      const u = cos * dx + sin * dy + side / 2 - 0.5;
      const v = cos * dy - sin * dx + side / 2 - 0.5;
      if (u >= 0 && v >= 0 && u < side - 1 && v < side - 1) visit((row * BOARD + column) * 3, u, v);
    }
  }
}

// The value of a channel between four pixels.
function between(values, side, channels, channel, u, v) {
  const [left, top] = [Math.floor(u), Math.floor(v)];
  const [right, down] = [u - left, v - top];
  const at = (top * side + left) * channels + channel;
  const below = at + side * channels;
  return (
    (values[at] * (1 - right) + values[at + channels] * right) * (1 - down) +
    (values[below] * (1 - right) + values[below + channels] * right) * down
  );
}

// As bytes with opacity: what a canvas shows and the network's input is made of.
/** @type {(rgb: Float32Array, rgba: Uint8ClampedArray) => Uint8ClampedArray} writes into rgba */
function toBytes(rgb, rgba) {
  for (let i = 0, at = 0; i < rgba.length; i += 4, at += 3) {
    rgba[i] = rgb[at]; // rounds, and cuts at 0 and 255
    rgba[i + 1] = rgb[at + 1];
    rgba[i + 2] = rgb[at + 2];
    rgba[i + 3] = 255;
  }
  return rgba;
}

// Three of each kind's pictures side by side, one pixel after the other, become a sprite each.
/** @type {(colours: Uint8ClampedArray, masks: Uint8ClampedArray, count: number, side: number, half: number) => Sprite[]} RGBA both, `count` squares below each other */
function cutSprites(colours, masks, count, side, half) {
  return Array.from({ length: count }, (_, kind) => {
    const start = kind * side * side * 4;
    const pick = (from, channels) =>
      Uint8Array.from({ length: side * side * channels }, (_, i) => from[start + 4 * Math.floor(i / channels) + (i % channels)]);
    return { side, half, colours: pick(colours, 3), masks: pick(masks, 2) };
  });
}
