// PipelineTimeline: frames through the stages of a program, with so many in flight, as bars over time.

// When each frame is in each stage: as ssdlib.deploy.pipeline, which a test compares it with.
function pipeline(durations, inFlight, frames) {
  const free = durations.map(() => 0);
  const [taken, spans] = [[], []];
  for (let k = 0; k < frames; k += 1) {
    let now = k >= inFlight ? spans[k - inFlight].at(-1)[1] : 0;
    taken.push(now);
    spans.push(
      durations.map((duration, s) => {
        const start = Math.max(now, free[s]);
        now = start + duration;
        free[s] = now;
        return [start, now];
      }),
    );
  }
  return { taken, spans };
}

// What it comes to once it has run for a while, per millisecond.
function steady(durations, inFlight) {
  const { taken, spans } = pipeline(durations, inFlight, 100 + inFlight);
  const done = spans.map((stages) => stages.at(-1)[1]);
  const rate = 50 / (done.at(-1) - done.at(-51));
  const waits = done.map((end, k) => end - taken[k]).slice(-50);
  return {
    rate,
    latency: waits.reduce((sum, wait) => sum + wait, 0) / waits.length,
    busy: durations.map((duration) => Math.min(1, rate * duration)),
  };
}

const [WIDE, ROW, LEFT, FOOT] = [400, 20, 22, 34];

// A row for each frame: its bars, and as a thin line the time in which it waits.
function timeline(names, frames) {
  const height = frames * ROW + FOOT;
  const place = stage({ width: WIDE, height, label: "When each frame is in each stage" });
  const floor = frames * ROW + 2;
  const rows = Array.from({ length: frames }, (_, k) => {
    const y = k * ROW + 3;
    const way = svg("line", { class: "ssd-pipeline-wait", y1: y + ROW / 2 - 3, y2: y + ROW / 2 - 3 });
    const bars = names.map((_, s) => svg("rect", { y, height: ROW - 6, style: { fill: colorOf(s + 1) } }));
    const letters = names.map((_, s) => svg("text", { class: "ssd-pipeline-letter", y: y + ROW / 2 + 1, "text-anchor": "middle" }, String(s + 1)));
    place.node.append(svg("text", { class: "ssd-small", x: LEFT - 6, y: y + ROW / 2 + 1, "text-anchor": "end" }, String(k + 1)), way, ...bars, ...letters);
    return { way, bars, letters };
  });
  const ticks = Array.from({ length: 8 }, () => ({
    line: svg("line", { y1: 2, y2: floor }),
    word: svg("text", { class: "ssd-small", y: floor + 14, "text-anchor": "middle" }),
  }));
  const words = ticks.map(({ word }) => word);
  place.node.prepend(svg("g", { class: "ssd-grid", "aria-hidden": "true" }, ticks.map(({ line }) => line)), ...words);
  place.node.append(svg("text", { class: "ssd-small", x: (LEFT + WIDE) / 2, y: floor + 28, "text-anchor": "middle" }, "milliseconds; a row for each frame"));
  const show = ({ taken, spans }) => {
    const last = spans.at(-1).at(-1)[1];
    const step = [10, 20, 50, 100, 200, 500].find((size) => last / size < 8) ?? 1000;
    const x = (time) => LEFT + ((WIDE - LEFT - 8) * time) / last;
    for (const [i, { line, word }] of ticks.entries()) {
      const inside = i * step <= last;
      update(line, { x1: x(i * step), x2: x(i * step) });
      update(word, { x: x(i * step) });
      word.textContent = inside ? String(i * step) : "";
      line.style.display = inside ? "" : "none";
    }
    for (const [k, { way, bars, letters }] of rows.entries()) {
      update(way, { x1: x(taken[k]), x2: x(spans[k].at(-1)[0]) });
      for (const [s, [start, end]] of spans[k].entries()) {
        update(bars[s], { x: x(start), width: Math.max(0.5, x(end) - x(start) - 0.7) });
        update(letters[s], { x: x((start + end) / 2) });
        letters[s].style.display = x(end) - x(start) > 9 ? "" : "none";
      }
    }
  };
  return { node: place.node, show };
}

function render({ model, el }) {
  const { picture, panel, says, watch, end } = frame(el, model);
  const stages = model.get("stages");
  const names = stages.map(({ name }) => name);
  const frames = model.get("frames");
  const drawing = timeline(names, frames);
  const flying = slider({
    label: "frames in flight",
    min: 1,
    max: 8,
    step: 1,
    change: (value) => put(model, { in_flight: value }),
  });
  const times = names.map((name, s) =>
    slider({
      label: [swatch(colorOf(s + 1)), `${s + 1} ${name}`],
      min: 1,
      max: 60,
      step: 1,
      format: (value) => `${fixed(value, 0)} ms`,
      change: (value) =>
        put(model, { stages: model.get("stages").map((one, i) => (i === s ? { ...one, milliseconds: value } : one)) }),
    }),
  );
  const out = readout([
    { text: "frames a second" },
    { text: "latency of a frame" },
    { text: "rate × latency (Little)" },
    { text: "busiest stage" },
  ]);
  picture.append(drawing.node, html("p", { class: "ssd-hint" }, "A thin line: the frame has been taken, and waits for a stage that is not free."));
  panel.append(flying.node, ...times.map(({ node }) => node), out.node);

  watch(["in_flight", "stages"], () => {
    const inFlight = model.get("in_flight");
    const durations = model.get("stages").map(({ milliseconds }) => milliseconds);
    const { rate, latency, busy } = steady(durations, inFlight);
    drawing.show(pipeline(durations, inFlight, frames));
    flying.set(inFlight);
    for (const [s, time] of times.entries()) time.set(durations[s]);
    const busiest = busy.indexOf(Math.max(...busy));
    out.set([
      fixed(1000 * rate, 1),
      `${fixed(latency, 0)} ms`,
      `${fixed(1000 * rate, 1)} × ${fixed(latency / 1000, 3)} = ${fixed(rate * latency, 1)}`,
      `${names[busiest]}, ${fixed(100 * busy[busiest], 0)} % of the time`,
    ]);
    says(
      `With ${inFlight} in flight ${fixed(1000 * rate, 1)} frames a second, each after ${fixed(latency, 0)} milliseconds; ` +
        `${names[busiest]} is busy ${fixed(100 * busy[busiest], 0)} percent of the time.`,
    );
  });
  return end;
}

export default { render };
