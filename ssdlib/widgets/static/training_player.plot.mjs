// Part of TrainingPlayer: the losses of the run over its steps, with the checkpoints on it as a slider.

const TRAINING_CURVES = [
  { key: "localization", text: "localization loss", color: "var(--ssd-1)" },
  { key: "confidence", text: "confidence loss", color: "var(--ssd-2)" },
];

// A round number that is at least the value: 1, 2, 4 or 5 times a power of ten.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((each) => each * power).find((each) => each >= value);
}

// The losses around a step: the means of the window of steps that it is in.
function lossesAt({ curve }, step) {
  const i = curve.step.findIndex((end) => end >= step);
  return TRAINING_CURVES.map(({ key }) => curve[key].at(i));
}

function nearestCheckpoint({ checkpoints }, step) {
  const far = checkpoints.map((each) => Math.abs(each.step - step));
  return far.indexOf(Math.min(...far));
}

// Where steps, losses (left axis) and mAP (right axis) lie.
function trainingAxes(run, narrow) {
  const [width, height] = narrow ? [360, 190] : [780, 160];
  const [left, right, top, bottom] = [34, width - 34, 10, height - 36];
  const most = Math.max(...TRAINING_CURVES.flatMap(({ key }) => run.curve[key]));
  const ceiling = 5 * roundUp(most / 5);
  const x = (step) => left + (step / run.steps) * (right - left);
  const upTo = (limit) => (value) => bottom - (value / limit) * (bottom - top);
  return { width, height, left, right, top, bottom, ceiling, x, loss: upTo(ceiling), map: upTo(1) };
}

function trainingTicks(run, { left, right, bottom, ceiling, x, loss, map }) {
  const text = (words, at) => svg("text", at, words);
  const levels = [0, 0.2, 0.4, 0.6, 0.8, 1];
  const apart = 10 ** Math.floor(Math.log10(run.steps / 2));
  const steps = Array.from({ length: Math.floor(run.steps / apart) + 1 }, (_, i) => i * apart).filter((_, i, all) => all.length < 8 || i % 2 === 0);
  return [
    levels.map((level) => [
      svg("line", { class: "ssd-pr-grid", x1: left, x2: right, y1: map(level), y2: map(level) }),
      text(String(roundTo(level * ceiling, 0.01)), { class: "ssd-small", x: left - 6, y: loss(level * ceiling) + 4, "text-anchor": "end" }),
      text(level.toFixed(1), { class: "ssd-small", x: right + 6, y: map(level) + 4 }),
    ]),
    steps.map((step) => text(thousands(step), { class: "ssd-small", x: x(step), y: bottom + 16, "text-anchor": "middle" })),
    text("loss", { class: "ssd-small", x: 0, y: bottom + 31 }),
    text("step", { class: "ssd-small", x: (left + right) / 2, y: bottom + 31, "text-anchor": "middle" }),
    text("mAP", { class: "ssd-small", x: right + 34, y: bottom + 31, "text-anchor": "end" }),
  ].flat(2);
}

// The plot; `change` is called with the number of a checkpoint.
function trainingPlot(run, { narrow, change }) {
  const axes = trainingAxes(run, narrow);
  const { width, height, left, right, top, bottom, x, loss, map } = axes;
  const place = stage({ width, height, label: "Losses and mAP of the run" });
  const { curve, checkpoints } = run;
  const line = (points) => points.map(([across, up], i) => `${i ? "L" : "M"}${fixedPlace(across)} ${fixedPlace(up)}`).join("");
  const curves = TRAINING_CURVES.map(({ key, color }) => {
    const points = curve.step.map((step, i) => [x(step), loss(curve[key][i])]);
    const [future, past] = ["ssd-future", "ssd-past"].map((name) => svg("path", { class: `ssd-curve ${name}`, style: { stroke: color } }));
    update(future, { d: line(points) });
    const until = (step) => update(past, { d: line(points.filter((_, i) => curve.step[i] <= step)) });
    return { nodes: [future, past], until };
  });
  const dots = checkpoints.map(({ step, mAP }) => svg("circle", { class: "ssd-map-dot", cx: x(step), cy: map(mAP) }));
  const here = [svg("line", { class: "ssd-training-now", y1: top, y2: bottom }), svg("circle", { class: "ssd-knob" })];
  const touch = svg("rect", { class: "ssd-training-scrub", x: left - 12, y: 0, width: right - left + 24, height });
  const handle = svg(
    "g",
    { class: "ssd-training-handle", role: "slider", tabindex: "0", "aria-label": "Checkpoint", "aria-valuemin": 1, "aria-valuemax": checkpoints.length },
    here,
    touch,
  );
  place.node.append(
    ...trainingTicks(run, axes),
    ...curves.flatMap(({ nodes }) => nodes),
    svg("path", { class: "ssd-map-line", d: line(checkpoints.map(({ step, mAP }) => [x(step), map(mAP)])) }),
    ...dots,
    handle,
  );
  let now = 0;
  const go = (to) => change(clamp(to, 0, checkpoints.length - 1));
  pickable(handle, place, (across) => go(nearestCheckpoint(run, ((across - left) / (right - left)) * run.steps)));
  onArrows(handle, (dx, dy) => go(now + Math.sign(dx - dy)));
  handle.addEventListener("keydown", (event) => {
    if (event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    go(event.key === "Home" ? 0 : checkpoints.length - 1);
  });
  const show = (number) => {
    now = number;
    const { step, mAP } = checkpoints[number];
    for (const { until } of curves) until(step);
    for (const [i, dot] of dots.entries()) dot.classList.toggle("ssd-passed", i <= number);
    update(here[0], { x1: x(step), x2: x(step) });
    update(here[1], { cx: x(step), cy: map(mAP) });
    update(handle, { "aria-valuenow": number + 1, "aria-valuetext": `${number + 1}, step ${thousands(step)}, mAP ${fixed(mAP)}` });
  };
  return { node: place.node, show };
}

const fixedPlace = (value) => Number(value.toFixed(2));

const trainingLegend = ({ images, window }) =>
  html(
    "p",
    { class: "ssd-nms-legend ssd-training-legend" },
    TRAINING_CURVES.map(({ text, color }) => html("span", {}, html("i", { "aria-hidden": "true", style: { borderColor: color } }), text)),
    html("span", {}, html("i", { class: "ssd-dashed", "aria-hidden": "true" }), `mAP on ${images.test} test scenes (right)`),
    html("span", { class: "ssd-soft" }, `losses: means of ${window} steps`),
  );
