// Two charts that grow with the steps: the losses and the mAP.

const WIDE = 300;
const HIGH = 96;
const POINTS = 240; // a line is thinned out to so many

/** @type {(label: string, lines: {text: string, color: string, dash?: string}[]) => any} */
function chart(label, lines) {
  const paths = lines.map(({ color, dash }) =>
    svg("path", { class: "ssd-play-line", style: { stroke: `var(${color})` }, "stroke-dasharray": dash }),
  );
  const top = svg("text", { x: 2, y: 10 });
  const end = svg("text", { x: WIDE - 2, y: HIGH - 3, "text-anchor": "end" });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "ssd-play-chart", role: "img", "aria-label": label },
    svg("path", { class: "ssd-play-axis", d: `M0.5 0V${HIGH - 0.5}H${WIDE}` }),
    paths,
    top,
    end,
  );
  const latest = (points) => (Number.isFinite(points.at(-1)?.[1]) ? fixed(points.at(-1)[1]) : "\u2013");
  const values = lines.map(() => html("b", {}));
  const key = lines.map(({ text, color }, i) => html("span", {}, swatch(`var(${color})`), text, " ", values[i]));
  const node = html("figure", { class: "ssd-play-figure" }, html("figcaption", {}, html("span", {}, label), key), picture);
  // `data`: for each line points [step, value], the steps rising.
  const set = (data, most, steps) => {
    paths.forEach((path, i) => path.setAttribute("d", lineThrough(data[i], most, steps)));
    values.forEach((value, i) => value.replaceChildren(latest(data[i])));
    top.textContent = fixed(most, most < 2 ? 1 : 0);
    end.textContent = `step ${thousands(steps)}`;
    const last = lines.map(({ text }, i) => `${text} ${latest(data[i])}`);
    picture.setAttribute("aria-label", `${label} after ${steps} steps: ${last.join(", ")}`);
  };
  return { node, set };
}

function lineThrough(points, most, steps) {
  const every = Math.max(1, Math.ceil(points.length / POINTS));
  const kept = points.filter(([, value]) => Number.isFinite(value)).filter((_, i, all) => i % every === 0 || i === all.length - 1);
  const place = ([step, value]) =>
    `${((step / Math.max(1, steps)) * (WIDE - 2) + 1).toFixed(1)} ${(HIGH - 1 - (clamp(value, 0, most) / most) * (HIGH - 4)).toFixed(1)}`;
  return kept.length ? `M${kept.map(place).join("L")}` : "";
}

// The mean of the last `width` values at each step: the losses of single batches jump.
function smooth(losses, key, width = 20) {
  let sum = 0;
  return losses.map((loss, i) => {
    sum += loss[key] - (i >= width ? losses[i - width][key] : 0);
    return [loss.step, sum / Math.min(i + 1, width)];
  });
}
