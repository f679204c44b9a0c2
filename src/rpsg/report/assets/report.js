"use strict";
// The page's only script. Texts enter the page as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 10;

// --- charts ---------------------------------------------------------------------------------------

async function loadPlotly() {
  const packed = atob(document.getElementById("plotly").textContent);
  const bytes = Uint8Array.from(packed, (sign) => sign.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(plain).text();
  document.head.append(script);
}

function draw(place) {
  const spec = data.charts[place.dataset.chart];
  const style = getComputedStyle(document.body);
  const layout = { ...spec.layout, font: { family: style.fontFamily, size: 13 }, autosize: true };
  if (place.clientWidth < 480) layout.margin = { ...layout.margin, l: 12, r: 4 };
  const shown = Plotly.newPlot(place, spec.data, layout, { displayModeBar: false, responsive: true });
  if ("points" in place.dataset) {
    shown.then(() => {
      place.on("plotly_hover", (event) => readPoint(event));
      place.on("plotly_click", (event) => readPoint(event));
    });
  }
  return shown;
}

function readPoint(event) {
  const row = event.points[0].customdata;
  if (row === undefined) return;
  const reader = document.getElementById("reader");
  reader.replaceChildren(...textParts(data.texts[row]));
}

// --- texts ----------------------------------------------------------------------------------------

function textParts(item) {
  const text = document.createElement("p");
  text.className = "text";
  text.dir = "auto";
  text.textContent = item.text;
  const labels = document.createElement("p");
  labels.className = "labels";
  labels.textContent = item.labels.join(" · ");
  return item.labels.length ? [text, labels] : [text];
}

function setUpTexts() {
  const list = document.getElementById("texts");
  const search = document.getElementById("search");
  const where = document.getElementById("where");
  const back = document.getElementById("back");
  const on = document.getElementById("on");
  let first = 0;
  let found = data.texts;

  function show() {
    list.replaceChildren(
      ...found.slice(first, first + PAGE).map((item) => {
        const entry = document.createElement("li");
        entry.append(...textParts(item));
        return entry;
      }),
    );
    const last = Math.min(first + PAGE, found.length);
    where.textContent = found.length ? `${first + 1} to ${last} of ${found.length}` : "No text matches.";
    back.disabled = first === 0;
    on.disabled = last >= found.length;
  }
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    found = data.texts.filter((item) => `${item.text}\n${item.labels.join("\n")}`.toLowerCase().includes(wanted));
    first = 0;
    show();
  });
  back.addEventListener("click", () => { first = Math.max(0, first - PAGE); show(); });
  on.addEventListener("click", () => { first += PAGE; show(); });
  show();
}

// --- start ----------------------------------------------------------------------------------------

addEventListener("beforeprint", () => {
  for (const item of document.querySelectorAll("details")) item.open = true;
});
if (document.getElementById("texts")) setUpTexts();
loadPlotly()
  .then(() => Promise.all([...document.querySelectorAll("[data-chart]")].map(draw)))
  .then(() => { document.documentElement.dataset.drawn = "yes"; })
  .catch(() => {
    document.documentElement.dataset.drawn = "no";
    for (const place of document.querySelectorAll("[data-chart]")) {
      place.textContent = "This browser cannot draw the chart; its figures stand in the text and the table.";
    }
  });
