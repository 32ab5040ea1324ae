// Pictures and weights, out of the one script that holds them: a page that is opened as a file may load nothing else.

// The script calls `ssdToys` with what it holds.
/** @type {(address: string) => Promise<any>} */
function fetchToys(address) {
  return new Promise((resolve, reject) => {
    Object.assign(globalThis, { ssdToys: resolve });
    const script = html("script", { src: address });
    script.addEventListener("error", () => reject(new Error("the file with its weights cannot be fetched")));
    script.addEventListener("load", () => reject(new Error("the file with its weights is damaged"))); // has not called
    document.head.append(script);
  });
}

/** @type {(given: any) => Promise<{about: any, halves: Uint16Array, channels: Float32Array, board: Float32Array, sprites: Sprite[]}>} */
async function unpackToys({ about, background, colours, masks, halves, channels }) {
  const decoded = async (base64, type) => (await pixelsOfFile(new Blob([bytesOfText(base64)], { type }))).data;
  const [plain, seen, covered] = await Promise.all([
    decoded(background, "image/jpeg"),
    decoded(colours, "image/jpeg"),
    decoded(masks, "image/png"),
  ]);
  const { side, half } = about.sprites;
  return {
    about,
    halves: new Uint16Array(bytesOfText(halves).buffer),
    channels: new Float32Array(bytesOfText(channels).buffer),
    board: Float32Array.from({ length: BOARD * BOARD * 3 }, (_, i) => plain[4 * Math.floor(i / 3) + (i % 3)]),
    sprites: cutSprites(seen, covered, about.classes.length, side, half),
  };
}
