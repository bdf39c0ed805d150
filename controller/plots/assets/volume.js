// The hypervolume after each finished trial.

function makeVolume(values, container) {
  const canvas = element("div", "", container);
  const tip = makeTip(container);
  const known = values.map((value, index) => [index + 1, value]).filter(([, value]) => value !== null);
  if (!known.length) return;
  const draw = () => {
    const top = Math.max(...known.map(([, value]) => value)), low = Math.min(...known.map(([, value]) => value));
    const plot = plotFrame(canvas, {height: 230, top: 8, right: 18, bottom: 48, below: 0},
      {x: [1, Math.max(2, values.length)], y: [low, top + 0.06 * (top - low || 1)]},
      {x: "finished trials", y: "hypervolume"});
    let path = "";
    for (const [trial, value] of known) {
      path += path ? `H${plot.x.at(trial)}V${plot.y.at(value)}` : `M${plot.x.at(trial)} ${plot.y.at(value)}`;
    }
    shape("path", {class: "line", d: path}, plot.svg);
    plot.svg.setAttribute("role", "img");
    plot.svg.setAttribute("aria-label", `hypervolume ${top.toPrecision(4)} after ${values.length} finished trials`);
    plot.svg.addEventListener("pointermove", (event) => {
      const box = plot.svg.getBoundingClientRect(), scale = plot.width / box.width;
      const at = (event.clientX - box.left) * scale;
      const share = (at - plot.box.left) / (plot.box.right - plot.box.left);
      const wanted = plot.x.low + share * (plot.x.high - plot.x.low);
      const [trial, value] = known.reduce((best, pair) => pair[0] <= wanted ? pair : best, known[0]);
      tip.show([`after ${trial} trials`, `hypervolume ${value.toPrecision(4)}`], plot.x.at(trial) / scale,
        plot.y.at(value) / scale);
    });
    plot.svg.addEventListener("pointerleave", () => tip.hide());
    canvas.replaceChildren(plot.svg);
  };
  draw();
  whenResized(container, draw);
}
