// Flipbook: pictures of one size, with a sentence each; slider, buttons, arrow keys, a player or a finger turn them.

const SWIPE = 30; // pixels that a finger goes across to turn a page; where it goes down, the browser scrolls and cancels

// All pictures on one place, of which one is seen; so nothing blinks when they change.
function flipbookPages(pages, [width, height], turn) {
  const images = pages.map(({ picture, words }) => html("img", { src: picture, alt: words, width, height, draggable: "false" }));
  const node = html(
    "div",
    { class: "ssd-flipbook", style: { maxWidth: `calc(var(--ssd-high, 400px) * ${fixed(width / height, 4)})` } },
    images,
  );
  let from = null;
  node.addEventListener("pointerdown", (event) => {
    from = event.pointerType === "mouse" ? null : event.clientX;
  });
  node.addEventListener("pointercancel", () => {
    from = null;
  });
  node.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const across = event.clientX - from;
    from = null;
    if (Math.abs(across) >= SWIPE) turn(across < 0 ? 1 : -1);
  });
  const show = (step) => {
    for (const [i, image] of images.entries()) image.classList.toggle("ssd-turned", i !== step);
  };
  return { node, show };
}

// The place of the sentence is as high as the longest needs, so that what is below stays where it is.
function roomFor(sentences, live) {
  const node = html("div", { class: "ssd-flipbook-words" }, sentences.map((words) => html("p", { class: "ssd-turned" }, words)));
  node.append(live);
  return node;
}

function render({ model, el }) {
  const { root, picture, panel, says, watch, end } = frame(el, model);
  const pages = model.get("steps");
  const last = pages.length - 1;
  const at = () => clamp(model.get("step"), 0, last);
  const change = (step) => put(model, { step: clamp(step, 0, last) });
  const turn = (by) => {
    steps.stop();
    change(at() + by);
  };
  const sheets = flipbookPages(pages, model.get("size"), turn);
  const longest = Math.max(...pages.map(({ words }) => words.length));
  const steps = player({ label: "Steps", change, pause: clamp(35 * longest, 1200, 5000), words: () => "" });
  const where = slider({
    label: "Step",
    min: 1,
    max: last + 1,
    step: 1,
    format: (value) => `${value} of ${last + 1}`,
    change: (value) => turn(value - 1 - at()),
  });
  root.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target === where.input || event.altKey || event.ctrlKey || event.metaKey) return; // a slider has its own
    event.preventDefault();
    turn(by);
  });
  const words = pages.map((page) => page.words);
  picture.append(sheets.node);
  panel.append(steps.node, where.node, roomFor(words, root.querySelector(".ssd-says")));

  watch(["step"], () => {
    const step = at();
    sheets.show(step);
    steps.set(step, last);
    where.set(step + 1);
    says(words[step]);
  });
  return () => {
    steps.stop();
    end();
  };
}

export default { render };
