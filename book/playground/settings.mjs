// The settings of the playground: their controls, and the link that carries them.

const CHOICES = {
  rate: [0.0005, 0.001, 0.002, 0.004, 0.008, 0.02, 0.1],
  batch: [1, 4, 8, 16],
  negatives: [0, 1, 3, Infinity],
  threshold: [0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
  everyObject: [true, false],
  noise: [0, 0.03, 0.1, 0.2],
  priors: [1, 3, 5],
  maps: ["both", "fine", "coarse"],
  width: [0.5, 1, 2],
  mistake: Object.keys(MISTAKES),
};

const WORDS = {
  rate: { label: "Learning rate" },
  batch: { label: "Scenes a batch" },
  negatives: { label: "Negatives for each positive", texts: { Infinity: "all" } },
  threshold: { label: "Matching threshold" },
  everyObject: { label: "Every object keeps a prior", texts: { true: "yes", false: "no" } },
  noise: { label: "Noise in the scenes", texts: { 0: "none", 0.03: "little", 0.1: "some", 0.2: "much" } },
  priors: { label: "Priors of a cell" },
  maps: { label: "Feature maps", texts: { both: "6 x 6 and 3 x 3", fine: "only 6 x 6", coarse: "only 3 x 3" } },
  width: { label: "Channels", texts: { 0.5: "half", 1: "usual", 2: "twice" } },
  mistake: { label: "Planted mistake", texts: MISTAKES },
};

// Settings from a link such as "#negatives=0&threshold=0.7"; what it does not know, or may not be, is left out.
function readLink(hash) {
  const settings = {};
  for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const value = (Object.hasOwn(CHOICES, key) ? CHOICES[key] : []).find((one) => linkText(one) === text);
    if (value !== undefined) settings[key] = value;
  }
  return settings;
}

// A fragment such as "#the-error-lab" leads to a heading of the page, and leaves the settings alone.
const namesPlace = (hash) => hash.length > 1 && !hash.includes("=");

const linkText = (value) => (value === Infinity ? "all" : String(value));

function makeLink(settings) {
  const changed = Object.keys(CHOICES).filter((key) => settings[key] !== DEFAULTS[key]);
  return `#${new URLSearchParams(changed.map((key) => [key, linkText(settings[key])]))}`;
}

// What a link has set, in words, with the chapters that explain it; null where it sets nothing.
function linkNote(hash) {
  const settings = readLink(hash);
  const keys = Object.keys(settings).filter((key) => settings[key] !== DEFAULTS[key]);
  if (!keys.length) return null;
  const text = (key) => WORDS[key].texts?.[settings[key]] ?? String(settings[key]);
  const parts = keys.map((key, i) => [
    i ? "; " : "",
    html("strong", {}, `${WORDS[key].label}: ${text(key)}`),
    " (",
    chapterLink(explainedBy(key, settings[key])),
    ")",
  ]);
  const from = Number(new URLSearchParams(hash.replace(/^#/, "")).get("chapter"));
  const back = Object.hasOwn(CHAPTERS, from) ? [" ", chapterLink(from, "Back to "), "."] : [];
  return html("p", { class: "ssd-play-note" }, "The link has set ", parts, ". Press Start, or Start again for random weights. ", html("a", { href: "#" }, "Take it back"), ".", back);
}

// One list for each setting; `change` gets what was chosen. Those that need a new network are in a group of their own.
function settingControls(change) {
  const controls = Object.fromEntries(
    Object.entries(CHOICES).map(([key, values]) => {
      const options = values.map((value) => ({ value, text: WORDS[key].texts?.[value] ?? String(value) }));
      return [key, select({ label: WORDS[key].label, options, change: (value) => change({ [key]: value }) })];
    }),
  );
  const group = (name, keys) => {
    const numbers = keys.flatMap((key) => (key === "mistake" ? Object.values(MISTAKE_EXPLAINED) : EXPLAINED[key]));
    const chapters = [...new Set(numbers)].sort((a, b) => a - b);
    return html(
      "fieldset",
      { class: "ssd-play-group" },
      html("legend", {}, name),
      keys.map((key) => controls[key].node),
      seenIn("Explained in", ...chapters),
    );
  };
  const afresh = ["priors", "maps", "width"];
  const whileRunning = Object.keys(CHOICES).filter((key) => !afresh.includes(key) && key !== "mistake");
  const node = html(
    "div",
    { class: "ssd-play-settings" },
    group("While it trains", whileRunning),
    group("Start again with", afresh),
    group("Error lab", ["mistake"]),
  );
  const set = (settings) => {
    for (const [key, control] of Object.entries(controls)) control.set(settings[key]);
  };
  return { node, set };
}
