// Where a photograph comes from, and what is shown of it.

function photoSources(page) {
  const samples = page.about.samples.map((sample) => button(sample.name, () => page.sample(sample)));
  const input = html("input", { type: "file", accept: "image/*" });
  input.addEventListener("change", () => {
    const file = input.files[0];
    input.value = ""; // so that the same file can be chosen again
    if (file) page.file(file);
  });
  const upload = html("label", {}, input, html("span", {}, "Your photograph…"));
  page.cameraButton = button("Camera", () => page.film());
  for (const kind of ["dragover", "drop"]) {
    page.root.addEventListener(kind, (event) => {
      event.preventDefault();
      const file = event.dataTransfer.files[0];
      if (kind === "drop" && file) page.file(file);
    });
  }
  const label = "Photographs. Nothing leaves this page";
  return html(
    "fieldset",
    { class: "ssd-choice ssd-photo-sources" },
    html("legend", {}, label),
    html("div", { class: "ssd-options" }, samples, upload, page.cameraButton),
  );
}

// `change` gets what is to be looked at otherwise.
function photoControls(about, change) {
  const threshold = (label, key, min) =>
    slider({ label, min, max: 0.95, step: 0.01, format: (value) => fixed(value), change: (value) => change({ [key]: value }) });
  const minScore = threshold("Lowest score (min_score)", "minScore", 0.05);
  const maxOverlap = threshold("Allowed IoU in NMS (max_overlap)", "maxOverlap", 0.05);
  const layers = checks({
    label: "Show",
    options: Object.entries(PHOTO_LAYERS).map(([value, text]) => ({ value, text })),
    change: (values) => change({ layers: values }),
  });
  const names = about.classes.map((text, i) => ({ value: i + 1, text }));
  const label = select({
    label: "Heat of",
    options: [{ value: 0, text: "the best class of each prior" }, ...names],
    change: (value) => change({ label: value }),
  });
  const set = (view) => {
    minScore.set(view.minScore);
    maxOverlap.set(view.maxOverlap);
    layers.set(view.layers);
    label.set(view.label);
  };
  return { node: html("div", {}, minScore.node, maxOverlap.node), layers, label, set };
}

function foundWords(kept, classes) {
  const words = kept.slice(0, 6).map(({ label, score }) => `${classes[label - 1]} ${score.toFixed(2)}`);
  return kept.length > 6 ? `${kept.length} boxes, the first of them ${words.join(", ")}` : words.join(", ") || "nothing";
}
