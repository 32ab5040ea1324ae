// TrainingPlayer: a recorded run; at each of its checkpoints, what it finds and how good it is.

const FALSE_ONE = -1; // in place of an object's number; below it, a detection that does not count
const classLink = (label) => `c${label}`;

// What a checkpoint finds in the scenes, down to a score: { scenes: [{ shown, missed }], hits, wrong, objects }.
function trainingNow(run, checkpoint, minScore) {
  const scenes = run.scenes.map(({ found, objects }) => {
    const shown = found[checkpoint]
      .map(([x0, y0, x1, y1, score, label, object]) => ({ box: [x0, y0, x1, y1], score, label, object }))
      .filter(({ score }) => score >= minScore);
    const taken = new Set(shown.map(({ object }) => object));
    return { shown, missed: objects.filter(({ counts }, i) => counts && !taken.has(i)) };
  });
  const all = scenes.flatMap(({ shown }) => shown);
  return {
    scenes,
    hits: all.filter(({ object }) => object >= 0).length,
    wrong: all.filter(({ object }) => object === FALSE_ONE).length,
    objects: run.scenes.reduce((sum, { count }) => sum + count, 0),
  };
}

// A scene with what is found, and dotted frames where an object is not.
function trainingScene({ image, size: [width, height] }, number, classes) {
  const place = stage({ width, height, label: `Test scene ${number + 1}`, image });
  const layer = svg("g", { "aria-hidden": "true" });
  place.node.classList.add("ssd-cut");
  place.node.append(layer);
  const nameTags = (shown) => {
    const unit = width / (place.node.clientWidth || 220);
    const taken = [];
    const first = [...shown].sort((a, b) => Number(b.object >= 0) - Number(a.object >= 0)); // stable: else best first
    return first.flatMap(({ box, score, label, object }) => {
      const words = `${object === FALSE_ONE ? "✗ " : ""}${classes[label - 1]} ${fixed(score)}`;
      const long = 8 * words.length * unit;
      const right = box[0] + long > width; // then it ends at the box's right edge, so that it is not cut
      const [x, y] = [right ? Math.min(box[2], width) - long : box[0], box[1]];
      if (taken.some((other) => Math.abs(other.x - x) < long && Math.abs(other.y - y) < 16 * unit)) return [];
      taken.push({ x, y });
      const text = tag(words);
      placeTag(text, box, place);
      text.setAttribute("class", box[1] > 24 * unit ? "ssd-tag" : "ssd-tag ssd-below");
      update(text, right ? { x: Math.min(box[2], width), "text-anchor": "end" } : { x: box[0], "text-anchor": "start" });
      text.setAttribute("data-link", classLink(label));
      return [text];
    });
  };
  const show = ({ shown, missed }) => {
    const draw = (box, names, attributes) =>
      svg("g", attributes, boxShape(box, { class: `ssd-box ssd-nms-rim ${names}` }), boxShape(box, { class: `ssd-box ${names}`, style: attributes.style }));
    layer.replaceChildren(
      ...missed.map(({ box, label }) => draw(box, "ssd-missed", { "data-link": classLink(label) })),
      ...[...shown]
        .reverse() // the best on top
        .map(({ box, label, object }) =>
          draw(box, object === FALSE_ONE ? "ssd-false-box" : "ssd-true-box", { "data-link": classLink(label), style: { stroke: colorOf(label) } }),
        ),
      ...nameTags(shown),
    );
  };
  return { node: place.node, show };
}

// AP of each class as a bar; a class lights up its boxes.
function classTable({ classes }) {
  const list = table({ caption: "AP of each class", head: ["class", "AP as a bar", "AP"] });
  list.node.classList.add("ssd-training-classes");
  const bar = (value, background) =>
    html("div", { class: "ssd-bar" }, html("i", { style: { width: `${100 * value}%`, background } }));
  const show = ({ AP }) =>
    list.set(
      classes.map((name, i) => ({
        cells: [html("span", {}, swatch(colorOf(i + 1)), name), bar(AP[i], colorOf(i + 1)), fixed(AP[i])],
        link: classLink(i + 1),
      })),
    );
  return { node: list.node, show };
}

function trainingSentence(run, number, { hits, wrong, objects }) {
  const { step, mAP } = run.checkpoints[number];
  const [localization, confidence] = lossesAt(run, step).map((value) => fixed(value));
  const before = number === 0 ? "random weights" : `step ${thousands(step)} of ${thousands(run.steps)}`;
  return (
    `Checkpoint ${number + 1} of ${run.checkpoints.length}, ${before}: localization loss ${localization}, confidence loss ` +
    `${confidence}, mAP ${fixed(mAP)}. Found in the scenes: ${hits} of ${objects} objects, and ${wrong} false detection${wrong === 1 ? "" : "s"}.`
  );
}

function render({ model, el }) {
  const { root, picture, panel, says, watch, end } = frame(el, model);
  const run = model.get("run");
  const last = run.checkpoints.length - 1;
  const change = (checkpoint) => put(model, { checkpoint });
  const narrow = el.clientWidth > 0 && el.clientWidth < 480; // on a phone, small enough for letters to be read
  const steps = player({ label: "Checkpoints", change, pause: 1400, words: (step) => `checkpoint ${step + 1} of ${last + 1}` });
  const plot = trainingPlot(run, { narrow, change });
  const scenes = run.scenes.map((scene, i) => trainingScene(scene, i, run.classes));
  const threshold = slider({
    label: "Lowest score shown",
    min: run.min_score,
    max: 0.95,
    step: 0.05,
    format: (value) => fixed(value),
    change: (value) => put(model, { min_score: value }),
  });
  const classes = classTable(run);
  const heading = html("p", { class: "ssd-label" });
  root.classList.add("ssd-training");
  root.insertBefore(html("div", { class: "ssd-top" }, steps.node, plot.node, trainingLegend(run)), root.querySelector(".ssd-columns"));
  picture.append(
    html("div", { class: "ssd-scenes" }, scenes.map(({ node }) => node)),
    html("p", { class: "ssd-hint" }, "Solid: right. Dashed with ✗: false. Dotted: an object that is not found."),
  );
  panel.append(heading, classes.node, threshold.node);

  watch(["checkpoint", "min_score"], () => {
    const number = clamp(model.get("checkpoint"), 0, last);
    const minScore = model.get("min_score");
    const now = trainingNow(run, number, minScore);
    const { step, mAP } = run.checkpoints[number];
    steps.set(number, last);
    plot.show(number);
    for (const [i, scene] of scenes.entries()) scene.show(now.scenes[i]);
    classes.show(run.checkpoints[number]);
    threshold.set(minScore);
    heading.replaceChildren(`Step ${thousands(step)}: mAP `, html("strong", { class: "ssd-big" }, fixed(mAP)));
    says(trainingSentence(run, number, now));
  });
  return () => {
    steps.stop();
    end();
  };
}

export default { render };
