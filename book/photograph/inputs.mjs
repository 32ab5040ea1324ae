// Where photographs come from: the samples of the site, a file of the reader's, the camera. All stay on the page.

const CAMERA = { video: { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } }, audio: false };

async function pixelsOfSample(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`the photograph cannot be fetched: ${response.status}`);
  return pixelsOfFile(await response.blob());
}

// Pictures of the camera, one after the other: `see` gets the pixels of each, and the next one is taken when it is done.
// Once `wanted` says no, a camera that the reader allows late is switched off again. `lost` gets why pictures ended.
function cameraLoop(see, lost) {
  let stream = null;
  const video = html("video", { playsinline: true });
  video.muted = true;
  const off = (one) => one?.getTracks().forEach((track) => track.stop());
  const stop = () => {
    off(stream);
    stream = null;
    video.srcObject = null;
  };
  const start = async (wanted) => {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error("browsers give a camera only to pages that come over https");
    const given = await navigator.mediaDevices.getUserMedia(CAMERA);
    if (!wanted()) return off(given);
    stop();
    stream = given;
    const on = () => stream === given;
    const end = (error) => {
      if (!on()) return;
      stop();
      lost(error);
    };
    for (const track of given.getTracks()) track.addEventListener("ended", () => end(new Error("the camera is gone")));
    video.srcObject = given;
    await video.play();
    const next = async () => {
      if (video.videoWidth && !document.hidden) await see(pixelsOf(video, video.videoWidth, video.videoHeight), on);
      if (on()) requestAnimationFrame(() => next().catch(end));
    };
    next().catch(end);
  };
  addEventListener("pagehide", stop);
  return { start, stop, running: () => stream !== null };
}

// What was dropped or chosen that is no photograph is told by the browser as an error of its own.
async function readPhotograph(file) {
  try {
    return await pixelsOfFile(file);
  } catch {
    throw new Error(`${file.name} is no photograph that this browser can read; JPEG and PNG always are`);
  }
}
