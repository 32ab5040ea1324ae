// On a page without a kernel: a model like anywidget's for each widget that the page holds, and its module on top.

class PageModel {
  constructor(state) {
    this.state = state;
    this.heard = new Map();
  }
  get(key) {
    return this.state[key];
  }
  set(key, value) {
    if (JSON.stringify(this.state[key]) === JSON.stringify(value)) return;
    this.state[key] = value;
    for (const hear of [...(this.heard.get(`change:${key}`) ?? [])]) hear();
  }
  save_changes() {}
  on(event, hear) {
    this.heard.set(event, [...(this.heard.get(event) ?? []), hear]);
  }
  off(event, hear) {
    this.heard.set(event, (this.heard.get(event) ?? []).filter((known) => known !== hear));
  }
}

function mountAll(modules) {
  /** @type {NodeListOf<HTMLElement & {model: PageModel}>} */
  const places = document.querySelectorAll(".ssd-widget-place:not([data-live])");
  for (const place of places) {
    const model = new PageModel(JSON.parse(place.querySelector("script").textContent));
    const el = document.createElement("div");
    el.className = "ssd-live";
    place.append(el);
    modules[place.dataset.module].render({ model, el });
    place.dataset.live = "true"; // the picture that stood here is for print from now on
    place.model = model; // for the console, and for tests
  }
  bindSentences();
}

// Words of the text that set a widget (book/_ext/widget_sentences.py) become buttons.
function bindSentences() {
  /** @type {NodeListOf<HTMLElement>} */
  const sentences = document.querySelectorAll("span.ssd-sets");
  for (const words of sentences) {
    const { module, traits } = words.dataset;
    const place = nearestPlace(words, module);
    if (!place) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "ssd-sets";
    button.append(...words.childNodes);
    button.addEventListener("click", () => {
      for (const [key, value] of Object.entries(JSON.parse(traits))) place.model.set(key, value);
      pointOut(place.querySelector(".ssd-widget"));
    });
    words.replaceWith(button);
  }
}

// The widget of that kind that lies nearest to the words.
function nearestPlace(words, module) {
  /** @type {NodeListOf<HTMLElement & {model: PageModel}>} */
  const places = document.querySelectorAll(`.ssd-widget-place[data-module="${module}"][data-live]`);
  const top = (node) => node.getBoundingClientRect().top;
  return [...places].sort((a, b) => Math.abs(top(a) - top(words)) - Math.abs(top(b) - top(words)))[0];
}

// Brings a widget into view, and marks it for a moment.
function pointOut(widget) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const block = widget.offsetHeight > 0.8 * innerHeight ? "start" : "nearest";
  widget.scrollIntoView({ block, behavior: calm ? "auto" : "smooth" });
  widget.classList.remove("ssd-set");
  void widget.offsetWidth; // so that the mark begins anew
  widget.classList.add("ssd-set");
}
