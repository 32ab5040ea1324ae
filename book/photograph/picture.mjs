// The photograph with what is laid over it: heat, boxes that stay, boxes that NMS removed, and a prior that is followed.

const nameOfFound = ({ prior, label }) => `p${prior}-${label}`; // ties box and row together

// `pick` gets a place of the picture, in fractions of it.
function photoPicture(pick) {
  const photo = html("canvas", { class: "ssd-photo-image", role: "img", "aria-label": "The photograph" });
  const heat = html("canvas", { class: "ssd-photo-over", "aria-hidden": "true" });
  const node = html("div", { class: "ssd-photo-picture" }, photo, heat);
  let place = null;
  const layer = svg("g", {});
  const fit = (width, height) => {
    if (place?.width === width && place.height === height) return;
    place?.node.remove();
    place = stage({ width, height, label: "Boxes on the photograph" });
    place.node.style.maxWidth = "none";
    place.node.classList.add("ssd-photo-over");
    place.node.append(svg("rect", { class: "ssd-photo-hit", width, height }), layer);
    place.node.addEventListener("click", (event) => {
      const [x, y] = place.at(event);
      pick(clamp(x / width, 0, 1), clamp(y / height, 0, 1));
    });
    node.append(place.node);
    node.style.maxWidth = `calc(var(--ssd-high, 460px) * ${fixed(width / height, 4)})`;
  };
  const show = (pixels) => {
    const { width, height } = pixels;
    if (photo.width !== width) photo.width = width;
    if (photo.height !== height) photo.height = height;
    photo.getContext("2d").putImageData(pixels, 0, 0);
    fit(width, height);
  };
  const scaled = ([x0, y0, x1, y1]) => [x0 * place.width, y0 * place.height, x1 * place.width, y1 * place.height];
  const lay = ({ kept, removed, followed, nameOf }) => {
    layer.replaceChildren();
    for (const one of removed) layer.append(photoBox(scaled(one.box), one, "ssd-photo-removed"));
    for (const one of [...kept].reverse()) layer.append(photoBox(scaled(one.box), one, "ssd-photo-kept"));
    if (followed) layer.append(...followedShapes(followed, scaled));
    layer.append(...namesOf(kept, nameOf, scaled, place));
  };
  return { node, photo, heat, show, lay };
}

// Names of the best boxes; of two that would lie on each other the better one.
function namesOf(kept, nameOf, scaled, place) {
  const unit = place.width / (place.node.clientWidth || 400);
  const taken = [];
  return kept.slice(0, 8).flatMap((one) => {
    const words = `${nameOf(one.label)} ${one.score.toFixed(2)}`;
    const box = scaled(one.box);
    const [x, y] = box;
    if (taken.some((other) => Math.abs(other.y - y) < 16 * unit && Math.abs(other.x - x) < 8 * words.length * unit)) return [];
    taken.push({ x, y });
    const text = tag(words);
    placeTag(text, box, place);
    return [text];
  });
}

const photoBox = (box, one, look) =>
  svg(
    "g",
    { "data-link": nameOfFound(one), "data-lights": [one, one.by].filter(Boolean).map(nameOfFound).join(" ") },
    boxShape(box, { class: "ssd-box ssd-photo-rim" }),
    boxShape(box, { class: `ssd-box ${look}`, style: { stroke: colorOf(one.label) } }),
  );

// The prior dashed, its cell filled, the decoded box, and the way of its centre.
function followedShapes({ prior, cell, box }, scaled) {
  const [from, to] = [scaled(toCorners(prior)), scaled(box)];
  const [[x1, y1], [x2, y2]] = [toCentre(from), toCentre(to)];
  return [
    boxShape(scaled(cell), { class: "ssd-photo-cell" }),
    boxShape(from, { class: "ssd-box ssd-photo-rim" }),
    boxShape(from, { class: "ssd-box ssd-photo-prior" }),
    boxShape(to, { class: "ssd-box ssd-photo-rim" }),
    boxShape(to, { class: "ssd-box ssd-photo-decoded" }),
    svg("line", { class: "ssd-photo-rim", x1, y1, x2, y2 }),
    svg("line", { class: "ssd-photo-way", x1, y1, x2, y2 }),
    svg("circle", { class: "ssd-photo-dot", cx: x1, cy: y1 }),
  ];
}

// One small picture for each map: press it to see its cells large; pressed again, those of all maps.
function mapPicks(maps, choose) {
  const picks = maps.map(({ cells, shapes }, map) => {
    const [photo, heat] = [html("canvas", { width: 150, height: 150 }), html("canvas", { class: "ssd-photo-over" })];
    const words = `${cells} × ${cells}`;
    const best = html("span", {});
    const node = button(html("span", { class: "ssd-photo-thumb", "aria-hidden": "true" }, photo, heat), () => choose(map), {
      class: "ssd-photo-pick",
      "aria-pressed": "false",
    });
    node.append(html("span", {}, words), best);
    const name = `Map of ${cells} × ${cells} cells, ${shapes.length} priors each`;
    return { node, photo, heat, best, name };
  });
  const show = (image) => {
    for (const { photo } of picks) photo.getContext("2d").drawImage(image, 0, 0, 150, 150);
  };
  const set = (heats, chosen) => {
    for (const [map, { node, heat, best, name }] of picks.entries()) {
      drawHeat(heat, maps[map].cells, heats[map]);
      const highest = heats[map].reduce((a, b) => Math.max(a, b)).toFixed(2);
      best.textContent = `best ${highest}`;
      node.setAttribute("aria-label", `${name}, best score ${highest}`);
      node.setAttribute("aria-pressed", String(map === chosen));
    }
  };
  return { node: html("div", { class: "ssd-photo-maps" }, picks.map(({ node }) => node)), show, set };
}
