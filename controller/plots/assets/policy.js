// A policy unit by unit: what stays, in which format, and the time that it takes.

const shadeOf = (bits) => `var(--bits${[32, 16, 8, 4].find((least) => bits >= least) || 2})`;

function unitWords(unit, choice, format, time) {
  const kept = choice[0] ? `keep ${choice[0]}/${unit.groups}, ${format.name}` : "left out";
  return `${unit.name}: ${kept}${time === null ? "" : `, ${time.toPrecision(3)} ms`}`;
}

// Two formats of as many bits share a colour; the later ones are striped.
const isStriped = (data, number) => data.formats.findIndex((f) => f.bits === data.formats[number].bits) !== number;

function drawStrips(data, point, panel) {
  const used = new Set(), words = [];
  for (const row of data.rows) {
    const strip = element("div", "", panel, "strip");
    element("span", row.name, strip);
    const bars = element("div", "", strip, "bars");
    for (const number of row.units) {
      const unit = data.units[number], choice = unit.choices[point.policy[number]];
      if (!choice) continue;
      const [keep, format] = choice;
      const bar = element("div", "", bars, "bar");
      bar.title = unitWords(unit, choice, data.formats[format], point.times ? point.times[number] : null);
      const fill = element("i", "", bar, isStriped(data, format) ? "striped" : "");
      fill.style.height = `${100 * keep / unit.groups}%`;
      fill.style.backgroundColor = shadeOf(data.formats[format].bits);
      if (keep) used.add(format);
      words.push(bar.title);
    }
  }
  const keys = element("div", "", panel, "keys");
  for (const format of [...used].sort((a, b) => a - b)) {
    const key = element("span", "", keys);
    const sample = element("b", "", key, isStriped(data, format) ? "striped" : "");
    sample.style.backgroundColor = shadeOf(data.formats[format].bits);
    key.append(`${data.formats[format].name} (${data.formats[format].bits} bits)`);
  }
  element("span", "height: share of heads or channels kept, first layer on the left", keys);
  return words;
}

function drawTimes(data, point, panel) {
  const dense = data.points.find((p) => p.kind === "dense");
  if (!point.times || !dense || !dense.times) return;
  element("h4", "Latency by unit", panel);
  const container = element("div", "", panel, "chart");
  const canvas = element("div", "", container);
  const tip = makeTip(container);
  const names = [...data.units.map((unit) => unit.name), "all else"];
  const draw = () => {
    const top = Math.max(...dense.times, ...point.times);
    const many = names.length > 26, longest = Math.min(24, Math.max(...names.map((name) => name.length)));
    const below = many ? 14 : 4.4 * longest + 22;
    const plot = plotFrame(canvas, {height: 190 + below, top: 8, right: 14, bottom: 20 + below, below: 0},
      {x: null, y: [0, top * 1.06]}, {x: many ? "units, first layer on the left; all else last" : "", y: "latency (ms)"});
    const pace = (plot.box.right - plot.box.left) / names.length, wide = Math.min(46, pace * 0.72);
    names.forEach((name, number) => {
      const middle = plot.box.left + pace * (number + 0.5), left = middle - wide / 2;
      const choice = number < data.units.length ? data.units[number].choices[point.policy[number]] : null;
      const height = (time) => plot.box.bottom - plot.y.at(time);
      const fill = choice ? shadeOf(data.formats[choice[1]].bits) : "var(--other)";
      const now = shape("rect", {class: "now", x: left, width: wide, y: plot.y.at(point.times[number]),
        height: height(point.times[number])}, plot.svg);
      now.style.fill = fill;
      shape("rect", {class: "was", x: left - 1.5, width: wide + 3, y: plot.y.at(dense.times[number]),
        height: height(dense.times[number])}, plot.svg);
      const area = shape("rect", {x: middle - pace / 2, width: pace, y: plot.box.top,
        height: plot.box.bottom - plot.box.top, fill: "transparent"}, plot.svg);
      area.addEventListener("pointermove", (event) => {
        const box = container.getBoundingClientRect();
        tip.show([name, `${point.times[number].toPrecision(3)} ms`, `dense ${dense.times[number].toPrecision(3)} ms`],
          event.clientX - box.left, event.clientY - box.top);
      });
      area.addEventListener("pointerleave", () => tip.hide());
      if (many) return;
      const short = name.length > 24 ? `…${name.slice(-23)}` : name;
      label(short, {"text-anchor": "end", transform: `translate(${middle + 4} ${plot.box.bottom + 14}) rotate(-38)`},
        plot.svg);
    });
    canvas.replaceChildren(plot.svg);
  };
  draw();
  whenResized(container, draw);
  element("p", "Filled: this policy, coloured by format. Outlined: the dense model.", panel, "soft");
}

function showPolicy(data, index, panel) {
  const point = data.points[index];
  panel.replaceChildren();
  element("h3", point.name, panel);
  for (const line of point.scores) element("p", line, panel, "soft");
  if (!point.policy.length) return;
  const words = drawStrips(data, point, panel);
  drawTimes(data, point, panel);
  const more = element("details", "", panel);
  element("summary", "Unit by unit", more);
  const items = element("ul", "", more);
  for (const line of words) element("li", line, items);
}
