// What all plots share: SVG elements, axes with round ticks, a tooltip. Texts from the study become text nodes only.

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes, parent) {
  const found = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  parent.append(found);
  return found;
}

function label(text, attributes, parent) {
  const found = shape("text", attributes, parent);
  found.textContent = text;
  return found;
}

function element(tag, text, parent, name) {
  const found = document.createElement(tag);
  if (text) found.textContent = text;
  if (name) found.className = name;
  parent.append(found);
  return found;
}

const shortened = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

// Maps values to pixels; ticks are multiples of 1, 2 or 5 times a power of ten, at most `most` of them.
function axis(low, high, from, to, most) {
  if (!(high > low)) {
    const margin = Math.abs(low) * 0.05 || 0.5;
    low -= margin;
    high += margin;
  }
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) ticks.push(n * step || 0);
  const text = (value) => value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
  return {low, high, ticks, text, at: (value) => from + (value - low) / (high - low) * (to - from),
    has: (value) => value >= low && value <= high};
}

// An empty plot of the container's width, so that letters keep their size: frame, ticks and titles.
function plotFrame(container, size, ranges, titles) {
  const width = Math.max(300, container.clientWidth || 860);
  const box = {left: 62, right: width - size.right, top: size.top, bottom: size.height - size.bottom};
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "plot");
  svg.setAttribute("viewBox", `0 0 ${width} ${size.height}`);
  const x = ranges.x && axis(ranges.x[0], ranges.x[1], box.left, box.right, Math.max(3, Math.floor(width / 110)));
  const y = axis(ranges.y[0], ranges.y[1], box.bottom, box.top, Math.max(3, Math.floor((box.bottom - box.top) / 42)));
  for (const tick of y.ticks) {
    shape("path", {class: "grid", d: `M${box.left} ${y.at(tick)}H${box.right}`}, svg);
    label(y.text(tick), {x: box.left - 8, y: y.at(tick) + 4, "text-anchor": "end"}, svg);
  }
  for (const tick of x ? x.ticks : []) {
    shape("path", {class: "grid", d: `M${x.at(tick)} ${box.top}V${box.bottom}`}, svg);
    label(x.text(tick), {x: x.at(tick), y: box.bottom + size.below + 17, "text-anchor": "middle"}, svg);
  }
  shape("path", {class: "axis", d: `M${box.left} ${box.bottom}H${box.right}`}, svg);
  label(shortened(titles.y, 40), {class: "title", transform: `translate(14 ${(box.top + box.bottom) / 2}) rotate(-90)`,
    "text-anchor": "middle"}, svg);
  if (titles.x) label(titles.x, {class: "title", x: (box.left + box.right) / 2, y: size.height - 6,
    "text-anchor": "middle"}, svg);
  return {svg, x, y, box, width};
}

function makeTip(container) {
  const tip = element("div", "", container, "tip");
  tip.setAttribute("role", "status");
  tip.hidden = true;
  return {
    hide() { tip.hidden = true; },
    // At a place in pixels of the container, to the side where there is room.
    show(lines, left, top) {
      tip.replaceChildren();
      for (const line of lines) element("div", line, tip);
      tip.hidden = false;
      const room = container.clientWidth - left;
      tip.style.left = `${room > tip.offsetWidth + 16 ? left + 14 : Math.max(0, left - tip.offsetWidth - 14)}px`;
      tip.style.top = `${Math.max(0, top - tip.offsetHeight / 2)}px`;
    },
  };
}

function whenResized(container, draw) {
  let width = container.clientWidth;
  new ResizeObserver(() => {
    if (container.clientWidth && container.clientWidth !== width) {
      width = container.clientWidth;
      draw();
    }
  }).observe(container);
}
