// What belongs together on a widget: partners that light up with each other, tables that are walked, fields of a box.

// One thing is pointed at, by hover, focus or tap: its partners (row, box, dot, cell) stay bright and all others dim.
// `data-link` names what an element stands for, `data-lights` what it brightens if that is more. Tells of every change
// by the event "ssd-link"; what is returned marks elements that have been drawn anew.
function linking(root) {
  let [over, pinned] = ["", ""];
  const lit = () => over || pinned;
  const mark = () => {
    const names = lit().split(" ").filter(Boolean);
    root.classList.toggle("ssd-linking", names.length > 0);
    for (const node of root.querySelectorAll("[data-link]")) {
      node.classList.toggle("ssd-linked", node.dataset.link.split(" ").some((name) => names.includes(name)));
    }
  };
  const change = (next) => {
    const before = lit();
    ({ over = over, pinned = pinned } = next);
    if (lit() === before) return;
    mark();
    root.dispatchEvent(new CustomEvent("ssd-link", { detail: lit() }));
  };
  const namesAt = ({ target }) => {
    const node = target.closest?.("[data-link]");
    return node ? (node.dataset.lights ?? node.dataset.link) : "";
  };
  root.addEventListener("pointerover", (event) => event.pointerType === "mouse" && change({ over: namesAt(event) }));
  root.addEventListener("pointerleave", () => change({ over: "" }));
  root.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && change({ over: namesAt(event) }));
  root.addEventListener("focusout", () => change({ over: "" }));
  root.addEventListener("click", (event) => {
    if (event.pointerType !== "mouse") change({ pinned: namesAt(event) }); // a finger does not hover: a tap stays
  });
  return mark;
}

// A table whose rows are replaced by `set`; cells are texts or nodes. Rows with a `link` are partners of what has the
// same link elsewhere, and can be walked with the arrow keys.
function table({ caption, head }) {
  const body = html("tbody", {});
  const node = html(
    "div",
    { class: "ssd-table", role: "region", "aria-label": caption, tabindex: "0" }, // it scrolls: reachable by keyboard
    html(
      "table",
      {},
      html("caption", {}, caption),
      html("thead", {}, html("tr", {}, head.map((text) => html("th", { scope: "col" }, text)))),
      body,
    ),
  );
  const lines = () => /** @type {HTMLElement[]} */ ([...body.querySelectorAll("tr[data-link]")]);
  walkable(body, lines, { ArrowUp: () => -1, ArrowDown: () => 1 });
  const set = (rows) => {
    const held = body.contains(document.activeElement) ? /** @type {any} */ (document.activeElement).dataset.link : null;
    body.replaceChildren(
      ...rows.map(({ cells, current, click, link, lights }) =>
        html(
          "tr",
          { class: current ? "ssd-current" : null, click, "data-link": link, "data-lights": lights },
          cells.map((cell) => html("td", {}, cell)),
        ),
      ),
    );
    const linked = lines();
    if (linked.length) node.removeAttribute("tabindex"); // its rows take the focus
    rove(linked, linked.find((row) => row.dataset.link === held) ?? linked.find((row) => row.matches(".ssd-current")), held);
  };
  return { node, set };
}

// One of several nodes takes the focus of the keyboard: the one given, or the first.
function rove(nodes, one, focus) {
  const chosen = one ?? nodes[0];
  for (const node of nodes) node.setAttribute("tabindex", node === chosen ? "0" : "-1");
  if (focus) chosen?.focus();
}

// Arrow keys go from one node of a list to another, each by its way; Enter and the space bar click.
function walkable(parent, nodes, ways) {
  parent.addEventListener("keydown", (event) => {
    const list = nodes();
    const at = list.indexOf(document.activeElement);
    if (at < 0) return;
    if (event.key === "Enter" || event.key === " ") list[at].dispatchEvent(new MouseEvent("click", { bubbles: true }));
    else if (ways[event.key]) rove(list, list[clamp(at + ways[event.key](), 0, list.length - 1)], true);
    else return;
    event.preventDefault();
  });
}

// Four number fields for a box: what a movable box shows, for the keyboard and for screen readers. `set` is called with
// a box whose sides are in order, inside the picture and at least `least` long.
function boxFields({ name, color, get, set, width, height, least = 0 }) {
  const sides = ["left", "top", "right", "bottom"];
  const inputs = sides.map((_, i) => {
    const change = () => {
      const box = [...get()];
      const [low, high] = i < 2 ? [0, box[i + 2] - least] : [box[i - 2] + least, i % 2 ? height : width];
      if (input.value !== "" && input.validity.badInput === false) box[i] = clamp(Number(input.value), low, high);
      set(box);
      show();
    };
    const input = html("input", { type: "number", min: 0, max: i % 2 ? height : width, step: "any", change });
    return input;
  });
  const show = () => {
    for (const [i, side] of get().entries()) inputs[i].value = roundTo(side, 0.1);
  };
  const legend = html("legend", {}, color && swatch(color), name);
  const node = html(
    "fieldset",
    { class: "ssd-fields" },
    legend,
    html("div", {}, sides.map((side, i) => html("label", {}, html("span", {}, side), inputs[i]))),
  );
  const call = (text, hue) => legend.replaceChildren(...[hue && swatch(hue), text].filter(Boolean));
  return { node, show, call };
}
