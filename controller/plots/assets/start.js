// Puts the page together.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const rows = [...document.querySelectorAll("tr[data-point]")];

function choose(index) {
  showPolicy(data, index, byId("policy"));
  scatter.choose(index);
  for (const row of rows) row.classList.toggle("chosen", Number(row.dataset.point) === index);
}

const scatter = makeScatter(data, byId("scatter"), byId("legend"), choose);
if (byId("volume")) makeVolume(data.volume, byId("volume"));
for (const row of rows) {
  row.addEventListener("click", () => choose(Number(row.dataset.point)));
  row.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(Number(row.dataset.point));
  });
}
const zoom = byId("zoom"), cost = byId("cost");
if (zoom) zoom.addEventListener("click", () => {
  const near = zoom.getAttribute("aria-pressed") !== "true";
  zoom.setAttribute("aria-pressed", String(near));
  zoom.textContent = near ? "Show all" : "Zoom to the front";
  scatter.zoom(near);
});
if (cost) cost.addEventListener("change", () => scatter.against(Number(cost.value)));
if (data.chosen !== null) choose(data.chosen);
