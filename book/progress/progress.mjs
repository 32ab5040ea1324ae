// What the reader marks as done: chapters and exercises. It stays in the browser's storage for this book; it is exported
// and erased by the reader, and never sent.

const PROGRESS_KEY = "ssd-from-scratch-progress";
const PROGRESS_MARK = /^(chapter|exercise):[\w.-]{1,100}$/;
const PROGRESS_LARGEST = 1_000_000; // bytes of a file that is read

// The marks as an object { "chapter:03_priors": "2026-11-29" }; what is damaged or foreign is left out.
/** @type {(text: string | null) => Record<string, string> | null} */
function readMarks(text) {
  try {
    const { version, done } = JSON.parse(text);
    if (version !== 1 || typeof done !== "object" || done === null) return null;
    const known = Object.entries(done).filter(([mark, day]) => PROGRESS_MARK.test(mark) && /^\d{4}-\d\d-\d\d$/.test(`${day}`));
    return Object.fromEntries(known);
  } catch {
    return null;
  }
}

const writeMarks = (done) => JSON.stringify({ version: 1, done }, null, 1);

// Where a browser keeps nothing for a page, the marks hold as long as the page is open, and `lasts` is false.
function progressStore() {
  let held = {};
  let lasts = true;
  const get = () => {
    try {
      return readMarks(localStorage.getItem(PROGRESS_KEY)) ?? {};
    } catch {
      lasts = false;
      return held;
    }
  };
  const put = (done) => {
    held = done;
    try {
      if (Object.keys(done).length) localStorage.setItem(PROGRESS_KEY, writeMarks(done));
      else localStorage.removeItem(PROGRESS_KEY);
    } catch {
      lasts = false;
    }
  };
  const set = (mark, yes) => {
    const { [mark]: _, ...others } = get();
    const day = new Date().toISOString().slice(0, 10);
    put(yes ? { ...others, [mark]: day } : others);
  };
  return { get, put, set, lasts: () => lasts };
}

function progressNode(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const countOf = (done, marks) => marks.filter((mark) => mark in done).length;

// A box to tick; `show` brings it up to date.
function tickBox(store, mark, words, name, changed) {
  const input = progressNode("input", { type: "checkbox", "aria-label": name });
  input.addEventListener("change", () => {
    store.set(mark, input.checked);
    changed();
  });
  const node = progressNode("label", { class: "ssd-done" }, input, progressNode("span", {}, words));
  return { node, show: (done) => (input.checked = mark in done) };
}

// On a chapter: a box in each exercise, and at the end one for the chapter.
function progressOfChapter(place, store) {
  const { chapter, first } = place.dataset;
  const exercises = [...document.querySelectorAll(".exercise.admonition[id]")];
  const marks = exercises.map(({ id }) => `exercise:${id}`);
  const says = progressNode("span", { role: "status" });
  const show = () => {
    const done = store.get();
    for (const box of boxes) box.show(done);
    const kept = store.lasts() ? "" : " This browser keeps nothing for the page: the marks go when you leave it.";
    says.textContent = marks.length ? `${countOf(done, marks)} of ${marks.length} exercises here.${kept}` : kept;
  };
  const boxes = exercises.map((exercise, i) => {
    const title = exercise.querySelector(".admonition-title");
    const number = title.querySelector(".caption-number")?.textContent.trim() ?? "Exercise";
    const box = tickBox(store, marks[i], "Done", `${number}: done`, show);
    title.append(box.node);
    return box;
  });
  const whole = tickBox(store, `chapter:${chapter}`, "I have done this chapter", "I have done this chapter", show);
  boxes.push(whole);
  const link = progressNode("a", { href: `${first}#your-progress` }, "All your progress");
  place.replaceChildren(whole.node, says, link);
  return show;
}

// On the first page: the sums, a mark on each card, and the ways to keep, read and erase it all.
function progressOfBook(place, store, chapters) {
  const names = Object.keys(chapters);
  const all = names.map((name) => `chapter:${name}`);
  const exercises = names.flatMap((name) => chapters[name].map((id) => `exercise:${id}`));
  const sums = progressNode("p", { class: "ssd-progress-sums" });
  const says = progressNode("p", { role: "status" });
  const press = (words, act) => {
    const node = progressNode("button", { type: "button" }, words);
    node.addEventListener("click", act);
    return node;
  };
  const file = progressNode("input", { type: "file", accept: ".json,application/json", "aria-label": "Read a file of marks" });
  const change = (act, words) => {
    act();
    show();
    says.textContent = words;
  };
  const buttons = [
    press("Save as a file", () => saveMarks(store.get())),
    progressNode("label", { class: "ssd-progress-file" }, file, progressNode("span", {}, "Read a file")),
    press("Erase", () => {
      if (confirm("Erase all marks of this book in this browser?")) change(() => store.put({}), "Erased.");
    }),
  ];
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    const found = chosen.size > PROGRESS_LARGEST ? null : readMarks(await chosen.text());
    file.value = "";
    if (!found) says.textContent = `${chosen.name} holds no marks of this book; nothing has changed.`;
    else change(() => store.put({ ...store.get(), ...found }), `${Object.keys(found).length} marks read from ${chosen.name}.`);
  });
  const show = () => {
    const done = store.get();
    const kept = store.lasts() ? "" : " This browser keeps nothing for the page: save the marks as a file.";
    sums.textContent = `${countOf(done, all)} of ${all.length} chapters, ${countOf(done, exercises)} of ${exercises.length} exercises.${kept}`;
    for (const name of names) markCard(name, done, chapters[name]);
  };
  place.replaceChildren(sums, progressNode("div", { class: "ssd-progress-buttons" }, ...buttons), says);
  return show;
}

function saveMarks(done) {
  const address = URL.createObjectURL(new Blob([writeMarks(done)], { type: "application/json" }));
  progressNode("a", { href: address, download: "ssd-from-scratch-progress.json" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// What is done of a chapter, on its card of the path.
function markCard(name, done, ids) {
  const card = document.querySelector(`.path-of-chapters a[href$="${name}.html"]`)?.closest(".sd-card");
  if (!card) return;
  card.querySelector(".ssd-progress-mark")?.remove();
  const some = countOf(done, ids.map((id) => `exercise:${id}`));
  const words = [
    `chapter:${name}` in done ? "\u2713 done" : "",
    some ? `${some} of ${ids.length} exercises` : "",
  ].filter(Boolean);
  if (words.length) card.querySelector(".sd-card-body").append(progressNode("p", { class: "ssd-progress-mark" }, words.join(" · ")));
}

function startProgress() {
  const place = /** @type {HTMLElement} */ (document.querySelector(".ssd-progress-place"));
  if (!place) return;
  const store = progressStore();
  const chapters = place.querySelector("script")?.textContent;
  const show = chapters ? progressOfBook(place, store, JSON.parse(chapters)) : progressOfChapter(place, store);
  show();
  addEventListener("storage", (event) => event.key === PROGRESS_KEY && show()); // another page of the book
  addEventListener("pageshow", show); // back from another page, by the browser's memory of this one
}
