// The chapters that explain what the playground shows, by their numbers.

const CHAPTERS = {
  3: ["03_priors", "priors"],
  4: ["04_coding", "offsets"],
  5: ["05_matching", "matching"],
  6: ["06_loss", "loss and mining"],
  7: ["07_detections", "NMS and detections"],
  8: ["08_network", "network"],
  9: ["09_data", "data"],
  10: ["10_evaluation", "precision, recall, AP"],
  11: ["11_training", "training"],
};

// Which one explains a setting.
const EXPLAINED = {
  rate: 11,
  batch: 11,
  negatives: 6,
  threshold: 5,
  everyObject: 5,
  noise: 9,
  priors: 3,
  maps: 3,
  width: 8,
};

// Which one explains a planted mistake.
const MISTAKE_EXPLAINED = { stacking: 8, swapped: 4, variances: 4, labels: 6, nms: 7 };

/** @type {(number: number, before?: string) => HTMLElement} */
function chapterLink(number, before = "") {
  const [file, topic] = CHAPTERS[number];
  return html("a", { class: "ssd-play-chapter", href: `${file}.html` }, `${before}chapter ${number}, ${topic}`);
}

const explainedBy = (key, value) => (key === "mistake" ? MISTAKE_EXPLAINED[value] : EXPLAINED[key]);

// A line of links: what is seen, and where it is explained.
const seenIn = (text, ...numbers) =>
  html("p", { class: "ssd-hint ssd-play-seen" }, `${text}: `, numbers.map((number, i) => [i ? "; " : "", chapterLink(number)]), ".");
