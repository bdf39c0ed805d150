// Quality against a cost: every trial is a point that can be hovered, clicked, and reached by the keyboard.

const KINDS = [
  {kind: "unscored", name: "without a score", size: 6, form: "tick"},
  {kind: "infeasible", name: "outside the constraints", size: 4, form: "circle", hollow: true},
  {kind: "pruned", name: "stopped early", size: 4, form: "cross", hollow: true},
  {kind: "other", name: "other trials", size: 4, form: "circle"},
  {kind: "front", name: "front", size: 6, form: "circle"},
  {kind: "uniform", name: "uniform policies", size: 6.5, form: "diamond", hollow: true},
  {kind: "dense", name: "dense model", size: 9.5, form: "star"}];
const KIND_OF = Object.fromEntries(KINDS.map((kind) => [kind.kind, kind]));

const FORMS = {
  circle: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  diamond: (r) => `M0 ${-r}L${r} 0L0 ${r}L${-r} 0Z`,
  cross: (r) => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`,
  tick: (r) => `M-1 ${-r}H1V${r}H-1Z`,
  star: (r) => `M${Array.from({length: 10}, (_, n) => {
    const angle = Math.PI * (n / 5 - 0.5), radius = n % 2 ? r * 0.42 : r;
    return `${(radius * Math.cos(angle)).toFixed(2)} ${(radius * Math.sin(angle)).toFixed(2)}`;
  }).join("L")}Z`,
};
const markOf = (kind, parent) => shape("path", {
  class: `mark ${kind.kind}${kind.hollow ? " hollow" : ""}`, d: FORMS[kind.form](kind.size)}, parent);

const STRIP = 24;
const REACH = 22;

// Members of the front that no other one beats in what is drawn, from left to right.
function staircase(points, cost) {
  const members = points.filter((p) => p.on_front && p.x[cost] !== null)
    .sort((a, b) => a.x[cost] - b.x[cost] || b.y - a.y);
  let best = -Infinity;
  return members.filter((p) => p.y > best && (best = p.y, true));
}

function makeScatter(data, container, legend, onChoose) {
  const hidden = new Set();
  const canvas = element("div", "", container);
  const tip = makeTip(container);
  let cost = 0, near = false, chosen = null, current = data.chosen, places = [];

  function ranges(shown) {
    const line = staircase(data.points, cost), dense = data.points.find((p) => p.kind === "dense");
    const around = near && line.length ? [...line, dense].filter(Boolean) : shown;
    const x = around.map((p) => p.x[cost]);
    const y = around.filter((p) => p.y !== null).flatMap((p) => near ? [p.y] : [p.y, p.low ?? p.y, p.high ?? p.y]);
    const wide = (values) => {
      if (!values.length) return [0, 1];
      const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
      const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.5;
      return [low - margin, high + margin];
    };
    return {x: wide(x), y: wide(y)};
  }

  function drawBounds(plot) {
    const most = data.costs[cost].bound;
    if (most !== null && plot.x.has(most)) {
      shape("path", {class: "bound", d: `M${plot.x.at(most)} ${plot.box.top}V${plot.box.bottom}`}, plot.svg);
      label(data.costs[cost].bound_text, {class: "halo", x: plot.x.at(most) - 6, y: plot.box.top + 12,
        "text-anchor": "end"}, plot.svg);
    }
    if (data.min_quality !== null && plot.y.has(data.min_quality)) {
      const at = plot.y.at(data.min_quality);
      shape("path", {class: "bound", d: `M${plot.box.left} ${at}H${plot.box.right}`}, plot.svg);
      label(data.min_quality_text, {class: "halo", x: plot.box.right - 4,
        y: plot.box.bottom - at > 20 ? at + 15 : at - 6, "text-anchor": "end"}, plot.svg);
    }
  }

  function drawLine(plot) {
    const line = staircase(data.points, cost);
    if (!line.length || hidden.has("front")) return;
    const at = (p) => [plot.x.at(p.x[cost]), plot.y.at(p.y)];
    let path = `M${at(line[0]).join(" ")}`;
    for (const point of line.slice(1)) path += `H${at(point)[0]}V${at(point)[1]}`;
    const clip = shape("clipPath", {id: "inside"}, plot.svg);
    shape("rect", {x: plot.box.left, y: plot.box.top, width: plot.box.right - plot.box.left,
      height: plot.box.bottom - plot.box.top}, clip);
    shape("path", {class: "line", d: path, "clip-path": "url(#inside)"}, plot.svg);
    const [left, top] = at(line[line.length - 1]);
    shape("path", {class: "line tail", d: `M${left} ${top}H${plot.box.right}`, "clip-path": "url(#inside)"}, plot.svg);
  }

  function drawInterval(plot, point, left) {
    if (point.low === null || point.high === null) return;
    const high = Math.max(plot.box.top, plot.y.at(point.high)), low = Math.min(plot.box.bottom, plot.y.at(point.low));
    shape("path", {class: `interval ${point.kind}`,
      d: `M${left} ${high}V${low}M${left - 4} ${high}h8M${left - 4} ${low}h8`}, plot.svg);
  }

  // Names of baselines and of the knee, where they cover neither each other nor points; else hovering tells them.
  function drawNames(plot) {
    const taken = places.map((p) => [p.left - 5, p.top - 5, p.left + 5, p.top + 5]);
    const free = (box) => box[0] > plot.box.left && box[2] < plot.width && box[1] > 0 && box[3] < plot.box.bottom
      && !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
    for (const {index, left, top} of places) {
      const point = data.points[index];
      const text = point.kind === "dense" || point.kind === "uniform" ? point.name : point.knee ? "knee" : "";
      if (!text) continue;
      const width = 6.6 * text.length;
      const spots = [[left + 11, top + 4, "start"], [left - 11, top + 4, "end"], [left, top - 12, "middle"],
        [left, top + 21, "middle"]];
      for (const [x, y, anchor] of spots) {
        const start = anchor === "start" ? x : anchor === "end" ? x - width : x - width / 2;
        const box = [start, y - 11, start + width, y + 3];
        if (!free(box)) continue;
        taken.push(box);
        label(text, {class: "halo", x, y, "text-anchor": anchor, "pointer-events": "none"}, plot.svg);
        break;
      }
    }
  }

  function draw() {
    const drawn = data.points.map((point, index) => ({point, index})).filter(({point}) => point.x[cost] !== null
      && !hidden.has(point.kind));
    const strip = data.points.some((p) => p.kind === "unscored") ? STRIP : 0;
    const plot = plotFrame(canvas, {height: container.clientWidth < 620 ? 400 : 500, top: 10, right: 18,
      bottom: 52 + strip, below: strip}, ranges(drawn.map(({point}) => point)),
      {x: data.costs[cost].title, y: data.metric});
    plot.svg.setAttribute("role", "group");
    plot.svg.setAttribute("aria-label", `${data.metric} against ${data.costs[cost].title}. Left and right go from point `
      + "to point, up and down along the front; Enter shows the policy.");
    if (strip) {
      shape("rect", {class: "band", x: plot.box.left, y: plot.box.bottom + 3, width: plot.box.right - plot.box.left,
        height: strip - 4}, plot.svg);
      label("no score", {x: plot.box.left - 8, y: plot.box.bottom + strip / 2 + 5, "text-anchor": "end"}, plot.svg);
    }
    drawBounds(plot);
    drawLine(plot);
    places = [];
    for (const kind of KINDS) for (const {point, index} of drawn) {
      if (point.kind !== kind.kind || !plot.x.has(point.x[cost]) || !(point.y === null || plot.y.has(point.y))) continue;
      const left = plot.x.at(point.x[cost]);
      const top = point.y === null ? plot.box.bottom + 1 + strip / 2 : plot.y.at(point.y);
      places.push({index, left, top});
    }
    for (const {index, left} of places) drawInterval(plot, data.points[index], left);
    for (const place of places) {
      const point = data.points[place.index];
      place.mark = markOf(KIND_OF[point.kind], plot.svg);
      place.mark.setAttribute("transform", `translate(${place.left.toFixed(1)} ${place.top.toFixed(1)})`);
      place.mark.setAttribute("data-point", place.index);
      place.mark.setAttribute("role", "button");
      place.mark.setAttribute("aria-label", point.hover.join(", "));
      place.mark.setAttribute("tabindex", "-1");
    }
    drawNames(plot);
    ring(plot.svg);
    listen(plot.svg);
    canvas.replaceChildren(plot.svg);
    tip.hide();
    const start = placeOf(current) || placeOf(chosen) || places[places.length - 1];
    if (start) enter(start.index);
  }

  const placeOf = (index) => places.find((place) => place.index === index);
  function enter(index) {
    for (const {mark} of places) if (mark.getAttribute("tabindex") === "0") mark.setAttribute("tabindex", "-1");
    current = index;
    placeOf(index).mark.setAttribute("tabindex", "0");
  }

  function ring(svg) {
    for (const old of svg.querySelectorAll(".chosen")) old.remove();
    const place = placeOf(chosen);
    if (place) shape("circle", {class: "chosen", cx: place.left, cy: place.top, r: 12}, svg);
  }

  function point_at(svg, event) {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const left = (event.clientX - box.left) * scale, top = (event.clientY - box.top) * scale;
    let found = null, least = REACH ** 2;
    for (const place of places) {
      const distance = (place.left - left) ** 2 + (place.top - top) ** 2;
      if (distance <= least) [found, least] = [place, distance];
    }
    return found;
  }

  function tell(svg, place) {
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    tip.show(data.points[place.index].hover, place.left * scale, place.top * scale);
  }

  function step(key) {
    const along = key === "ArrowUp" || key === "ArrowDown";
    const order = places.filter(({index}) => !along || data.points[index].on_front || index === current)
      .sort((a, b) => a.left - b.left || b.top - a.top);
    const at = order.findIndex((place) => place.index === current);
    const next = {ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0,
      End: order.length - 1}[key];
    return next === undefined ? null : order[Math.min(order.length - 1, Math.max(0, next))];
  }

  function listen(svg) {
    svg.addEventListener("pointermove", (event) => {
      const place = point_at(svg, event);
      if (place) tell(svg, place); else tip.hide();
    });
    svg.addEventListener("pointerleave", () => tip.hide());
    svg.addEventListener("click", (event) => {
      const place = point_at(svg, event);
      if (place) onChoose(place.index);
    });
    svg.addEventListener("focusin", () => { const place = placeOf(current); if (place) tell(svg, place); });
    svg.addEventListener("focusout", () => tip.hide());
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") onChoose(current);
      else if (event.key === "Escape") tip.hide();
      else {
        const place = step(event.key);
        if (!place) return;
        enter(place.index);
        place.mark.focus();
        tell(svg, place);
      }
      event.preventDefault();
    });
  }

  for (const kind of [...KINDS].reverse()) {
    const count = data.points.filter((p) => p.kind === kind.kind).length;
    if (!count) continue;
    const button = element("button", "", legend);
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    const key = shape("svg", {class: "key", viewBox: "-11 -11 22 22", "aria-hidden": "true"}, button);
    markOf(kind, key);
    element("span", kind.name, button);
    element("small", String(count), button);
    button.addEventListener("click", () => {
      if (!hidden.delete(kind.kind)) hidden.add(kind.kind);
      button.setAttribute("aria-pressed", String(!hidden.has(kind.kind)));
      draw();
    });
  }
  draw();
  whenResized(container, draw);
  return {
    zoom(wanted) { near = wanted; draw(); },
    against(wanted) { cost = wanted; draw(); },
    choose(index) { chosen = index; ring(canvas.firstElementChild); if (placeOf(index)) enter(index); },
  };
}
