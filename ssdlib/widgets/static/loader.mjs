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
}
