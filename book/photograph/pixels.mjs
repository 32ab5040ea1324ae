// The pixels of an image file.

const LONGEST = 4096; // pixels of a side; larger photographs are made smaller, as canvases have their limits

// The pixels of a file, upright, with its own numbers: no colour profile is applied, as in ssdlib. What is transparent
// becomes black, for the reader's eyes and for the network.
async function pixelsOfFile(blob) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(blob, /** @type {any} */ (options));
  try {
    return pixelsOf(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close(); // it would wait, with all its pixels, for the garbage collector
  }
}

function pixelsOf(source, width, height) {
  const shrink = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * shrink));
  canvas.height = Math.max(1, Math.round(height * shrink));
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}
