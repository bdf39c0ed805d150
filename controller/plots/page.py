"""The page around the plots of a study: style, script and frame, without anything loaded from elsewhere."""

import html
import json
from typing import Any

# The policy forbids every connection: a mistake in escaping could not send anything out either.
CONTENT_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --panel: #f6f7f9; --ink: #1b1f24; --soft: #5b6470; --line: #dde1e6; --grid: #e8ebef;
  --front: #0072b2; --other: #8b939c; --faint: #c3c8ce; --dense: #d55e00; --uniform: #e69f00; --mark: #e3f0f8;
  --bits32: #0072b2; --bits16: #56b4e9; --bits8: #009e73; --bits4: #e69f00; --bits2: #d55e00; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --panel: #1c2126; --ink: #e8eaed; --soft: #a4adb7; --line: #343b43; --grid: #2a3037;
  --front: #56b4e9; --other: #7d8690; --faint: #4d555e; --dense: #ff8c42; --uniform: #e69f00; --mark: #1d3442; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 48px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 32px 0 8px; }
p { margin: 0 0 8px; max-width: 80ch; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--panel); padding: 3px 7px;
  border: 1px solid var(--line); border-radius: 5px; overflow-wrap: anywhere; }
.head { display: flex; justify-content: space-between; align-items: end; gap: 12px; }
button { font: inherit; font-size: 13px; color: var(--ink); background: var(--panel); border: 1px solid var(--line);
  border-radius: 5px; padding: 3px 10px; cursor: pointer; }
#scatter { height: 480px; } #volume { height: 230px; }
#policy { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
#policy h3 { font-size: 15px; margin: 0 0 2px; overflow-wrap: anywhere; }
.strip { display: grid; grid-template-columns: 110px 1fr; gap: 10px; align-items: center; margin-top: 10px; }
.strip > span { font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
.bars { display: flex; gap: 2px; height: 62px; }
.bar { flex: 1 1 0; min-width: 1px; max-width: 64px; height: 100%; display: flex; align-items: end;
  background: var(--grid); border-bottom: 2px solid var(--line); }
.bar i { display: block; width: 100%; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.keys { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 10px; font-size: 13px; color: var(--soft); }
.keys b { display: inline-block; width: 11px; height: 11px; margin-right: 6px; print-color-adjust: exact; }
details { margin-top: 10px; font-size: 13px; } details ul { columns: 3 260px; margin: 8px 0 0; padding-left: 18px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 12px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-size: 12px; font-weight: 600; color: var(--soft); vertical-align: bottom; white-space: normal;
  overflow-wrap: anywhere; }
th:first-child, td:first-child, td.words, th.words { text-align: left; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 110px; }
tbody tr { cursor: pointer; } tbody tr:hover, tbody tr.chosen { background: var(--mark); }
tbody tr:focus-visible { outline: 2px solid var(--front); outline-offset: -2px; }
tr.best td:first-child { font-weight: 600; }
@media print { main { max-width: none; padding: 0; } button, .modebar, .hint { display: none !important; }
  section { break-inside: avoid; } tbody tr.chosen { background: none; } }
"""

_SCRIPT = """
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const byId = (id) => document.getElementById(id);
const paper = {"--page": "#ffffff", "--ink": "#1b1f24", "--soft": "#5b6470", "--line": "#dde1e6", "--grid": "#e8ebef",
  "--front": "#0072b2", "--other": "#8b939c", "--faint": "#c3c8ce", "--dense": "#d55e00", "--uniform": "#e69f00"};
let printing = false;
const colour = (name) => printing ? paper[name]
  : getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const axis = (title) => ({title: {text: title, font: {size: 13}}, gridcolor: colour("--grid"), zeroline: false,
  linecolor: colour("--line"), tickcolor: colour("--line"), automargin: true});
const layout = (x, y, more) => ({paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: {family: 'system-ui, "Segoe UI", Roboto, sans-serif', size: 12, color: colour("--ink")},
  margin: {l: 60, r: 16, t: 8, b: 48}, xaxis: axis(x), yaxis: axis(y), hovermode: "closest",
  hoverlabel: {align: "left", bgcolor: colour("--page"), bordercolor: colour("--line"), font: {color: colour("--ink")}},
  modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--front")},
  legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: {size: 12}}, ...more});
const config = {displaylogo: false, responsive: true,
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]};

function trace(kind) {
  const chosen = data.points.map((p, i) => i).filter((i) => data.points[i].kind === kind.kind);
  const points = chosen.map((i) => data.points[i]);
  const shade = colour(kind.colour);
  const found = {type: "scatter", mode: kind.label ? "markers+text" : "markers", name: kind.name, cliponaxis: false,
    x: points.map((p) => p.x), y: points.map((p) => p.y), ids: chosen, customdata: points.map((p) => [p.hover]),
    marker: {color: shade, size: kind.size, symbol: kind.symbol, line: {color: kind.rim ? colour("--page") : shade,
      width: kind.wide ? 2.5 : 1}}, hovertemplate: "%{customdata[0]}<extra></extra>"};
  if (kind.label) Object.assign(found, {text: points.map((p) => p.label), textposition: "middle right",
    textfont: {size: 11, color: colour("--soft")}});
  if (kind.kind === "front" && points.some((p) => p.up !== null))
    found.error_y = {type: "data", symmetric: false, array: points.map((p) => p.up || 0),
      arrayminus: points.map((p) => p.down || 0), color: shade, thickness: 1, width: 3};
  return found;
}

const kinds = [
  {kind: "infeasible", name: "outside the constraints", colour: "--faint", size: 7, symbol: "circle-open"},
  {kind: "pruned", name: "stopped early", colour: "--faint", size: 6, symbol: "x-thin-open"},
  {kind: "other", name: "other trials", colour: "--other", size: 7, symbol: "circle", rim: true},
  {kind: "front", name: "front", colour: "--front", size: 10, symbol: "circle", rim: true},
  {kind: "uniform", name: "uniform policies", colour: "--uniform", size: 11, symbol: "diamond-open", wide: true,
   label: true},
  {kind: "dense", name: "dense model", colour: "--dense", size: 15, symbol: "star", rim: true, label: true}];

function bounds() {
  const found = [], line = {color: colour("--soft"), width: 1, dash: "dash"};
  if (data.max_latency_ms !== null) found.push({type: "line", xref: "x", yref: "paper", x0: data.max_latency_ms,
    x1: data.max_latency_ms, y0: 0, y1: 1, line});
  if (data.min_quality !== null) found.push({type: "line", xref: "paper", yref: "y", x0: 0, x1: 1,
    y0: data.min_quality, y1: data.min_quality, line});
  return found;
}

let near = false;
function scatterLayout() {
  const found = layout("latency (ms)", data.metric, {shapes: bounds(), margin: {l: 60, r: 70, t: 34, b: 48}});
  if (data.knee) found.annotations = [{x: data.knee.x, y: data.knee.y, text: "knee", showarrow: true, arrowhead: 2,
    arrowcolor: colour("--soft"), ax: 28, ay: 28, font: {size: 11, color: colour("--soft")}}];
  if (near) { found.xaxis.range = data.near.x; found.yaxis.range = data.near.y; }
  return found;
}

function draw() {
  const line = {type: "scatter", mode: "lines", x: data.line.x, y: data.line.y, hoverinfo: "skip", showlegend: false,
    line: {color: colour("--front"), width: 2, shape: "hv"}};
  const traces = kinds.map(trace).filter((t) => t.x.length);
  Plotly.react("scatter", [line, ...traces], scatterLayout(), config);
  if (data.volume.length) Plotly.react("volume", [{type: "scatter", mode: "lines", x: data.volume.map((v, i) => i + 1),
    y: data.volume, line: {color: colour("--front"), width: 2, shape: "hv"},
    hovertemplate: "after %{x} trials: %{y:.4g}<extra></extra>"}], layout("finished trials", "hypervolume"),
    {...config, displayModeBar: false});
}

function element(tag, text, parent, name) {
  const found = document.createElement(tag);
  if (text) found.textContent = text;
  if (name) found.className = name;
  parent.append(found);
  return found;
}
const shadeOf = (bits) => `var(--bits${[32, 16, 8, 4].find((b) => bits >= b) || 2})`;

function show(index) {
  const point = data.points[index], panel = byId("policy");
  panel.replaceChildren();
  element("h3", point.name, panel);
  element("p", point.scores, panel, "soft");
  const used = new Map();
  const list = [];
  for (const row of data.rows) {
    const strip = element("div", "", panel, "strip");
    element("span", row.name, strip);
    const bars = element("div", "", strip, "bars");
    for (const at of row.units) {
      const choice = point.policy[at], unit = data.units[at];
      if (!choice) continue;
      const [keep, groups, format] = choice;
      const words = `${unit}: ` + (keep ? `keep ${keep}/${groups}, ${data.formats[format].name}` : "left out");
      const bar = element("div", "", bars, "bar");
      bar.title = words;
      const fill = element("i", "", bar);
      fill.style.height = `${100 * keep / groups}%`;
      fill.style.background = shadeOf(data.formats[format].bits);
      if (keep) used.set(format, data.formats[format]);
      list.push(words);
    }
  }
  const keys = element("div", "", panel, "keys");
  for (const format of used.values()) {
    const key = element("span", "", keys);
    element("b", "", key).style.background = shadeOf(format.bits);
    key.append(`${format.name} (${format.bits} bits)`);
  }
  element("span", "height: share of heads or channels kept, first layer on the left", keys);
  const more = element("details", "", panel);
  element("summary", "Unit by unit", more);
  const items = element("ul", "", more);
  for (const words of list) element("li", words, items);
  for (const row of document.querySelectorAll("tr[data-point]"))
    row.classList.toggle("chosen", Number(row.dataset.point) === index);
}

draw();
byId("scatter").on("plotly_click", (event) => {
  const point = event.points[0];
  if (point.data.ids) show(point.data.ids[point.pointIndex]);
});
for (const row of document.querySelectorAll("tr[data-point]")) {
  row.addEventListener("click", () => show(Number(row.dataset.point)));
  row.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(Number(row.dataset.point)); }
  });
}
const zoom = byId("zoom");
if (zoom) zoom.addEventListener("click", () => {
  near = !near;
  zoom.textContent = near ? "Show all" : "Zoom to the front";
  draw();
});
dark.addEventListener("change", draw);
window.addEventListener("beforeprint", () => { printing = true; draw(); });
window.addEventListener("afterprint", () => { printing = false; draw(); });
if (data.chosen !== null) show(data.chosen);
})();
"""


def page(*, title: str, body: str, data: dict[str, Any], plotly: str) -> str:
    """Put the page together.

    Args:
        title: Plain text.
        body: HTML, escaped by its maker.
        data: What the script draws; plain JSON, texts for hovering escaped.
        plotly: Source of plotly.js.

    Returns:
        A whole HTML document that needs no network.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f'<script type="application/json" id="data">{script_json(data)}</script>\n'
        f"<script>{plotly}</script>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def script_json(data: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
