// Where photographs come from: the samples of the site, a file of the reader's, the camera. All stay on the page.

const LONGEST = 4096; // pixels of a side; larger photographs are made smaller, as canvases have their limits
const CAMERA = { video: { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } }, audio: false };

// The pixels of a file, upright, with its own numbers: no colour profile is applied, as in ssdlib.
async function pixelsOfFile(blob) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(blob, /** @type {any} */ (options));
  return pixelsOf(bitmap, bitmap.width, bitmap.height);
}

function pixelsOf(source, width, height) {
  const shrink = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * shrink));
  canvas.height = Math.max(1, Math.round(height * shrink));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

async function pixelsOfSample(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`the photograph cannot be fetched: ${response.status}`);
  return pixelsOfFile(await response.blob());
}

// Pictures of the camera, one after the other: `see` gets the pixels of each, and the next one is taken when it is done.
// What goes wrong with one of them stops the camera, and `fail` gets it.
function cameraLoop(see, fail) {
  let stream = null;
  const video = html("video", { playsinline: true });
  video.muted = true;
  const stop = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    video.srcObject = null;
  };
  const start = async () => {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error("the browser gives a page like this one no camera");
    stream = await navigator.mediaDevices.getUserMedia(CAMERA);
    video.srcObject = stream;
    await video.play();
    const next = async () => {
      if (!stream) return;
      try {
        if (video.videoWidth && !document.hidden) await see(pixelsOf(video, video.videoWidth, video.videoHeight));
        requestAnimationFrame(next);
      } catch (error) {
        stop();
        fail(error);
      }
    };
    next();
  };
  addEventListener("pagehide", stop);
  return { start, stop, running: () => stream !== null };
}

// What was dropped or chosen that is no photograph is told by the browser as an error of its own.
async function readPhotograph(file) {
  try {
    return await pixelsOfFile(file);
  } catch {
    throw new Error(`${file.name} is no photograph that this browser can read`);
  }
}
