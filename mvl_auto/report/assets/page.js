"use strict";
// Sorting and filtering of the table of cases, and the viewer of the embedded volumes. No request to anywhere.

// ---------------------------------------------------------------- tables

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sortBy(head, column));
  });

  function sortBy(head, column) {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((each) => each.hasAttribute("aria-sort") && each.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numbers = head.classList.contains("number");
    const key = (row) => row.cells[column].dataset.sort;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (numbers && (x === "" || y === "")) return (x === "") - (y === ""); // undefined ones last, either way
      const order = numbers ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return down ? -order : order;
    });
    body.append(...rows);
  }
}

for (const section of document.querySelectorAll("section.cases")) {
  const [name, fold, failed] = ["name", "fold", "failed"].map((key) => section.querySelector(`[data-filter=${key}]`));
  const rows = [...section.querySelector("tbody").rows];
  const output = section.querySelector("output");
  const apply = () => {
    const wanted = name.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = row.dataset.name.toLowerCase().includes(wanted)
        && (!fold.value || row.dataset.fold === fold.value)
        && (!failed.checked || row.classList.contains("failed"));
      row.hidden = !fits;
      shown += fits;
    }
    output.textContent = `${shown} of ${rows.length} cases`;
  };
  for (const input of [name, fold, failed]) input.addEventListener("input", apply);
  apply();
}

// ---------------------------------------------------------------- viewer

const viewer = document.getElementById("viewer");
const planes = document.getElementById("planes");
const sources = new Map([...document.querySelectorAll("script.volume")].map((node) => [node.dataset.key, node]));
const shown = { truth: true, prediction: true, labels: false, fill: false };
const colours = getComputedStyle(document.documentElement);
const colour = (name) => colours.getPropertyValue(`--${name}`).trim();
const labelColour = (klass) => colour(`label-${(klass - 1) % 7}`);
const PLANES = [["axial", "R", "A"], ["coronal", "R", "S"], ["sagittal", "A", "S"]];
let volume = null, place = [0, 0, 0], order = [], current = "";

async function decode(key) {
  const content = JSON.parse(sources.get(key).textContent);
  const bytes = Uint8Array.from(atob(content.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const all = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = content.shape[0] * content.shape[1] * content.shape[2];
  content.image = all.subarray(0, size);
  content.truth = all.subarray(size, 2 * size);
  content.predicted = content.prediction ? all.subarray(2 * size, 3 * size) : null;
  return content;
}

async function open(key) {
  if (typeof DecompressionStream === "undefined") {
    window.alert("This browser cannot unpack the volumes: it is older than Chrome 80, Firefox 113 or Safari 16.4.");
    return;
  }
  current = key;
  const loaded = await decode(key);
  if (current !== key) return;
  volume = loaded;
  place = [...volume.place];
  document.getElementById("viewer-name").textContent = volume.name;
  document.getElementById("viewer-note").textContent =
    `${volume.shape.join(" x ")} voxels of ${volume.spacing.map((mm) => +mm.toPrecision(3)).join(" x ")} mm (Z Y X), `
    + `cropped around the labels${volume.prediction ? "" : "; there is no prediction"}. Click or scroll to move.`;
  build();
  legend();
  if (!viewer.open) viewer.showModal();
  draw();
  viewer.dataset.ready = key;
}

function build() {
  planes.textContent = "";
  const flat = volume.shape[0] === 1;
  for (const axis of flat ? [0] : [0, 1, 2]) {
    const [rows, columns] = [0, 1, 2].filter((other) => other !== axis);
    const box = document.createElement("div");
    box.className = "plane";
    const canvas = document.createElement("canvas");
    canvas.dataset.axis = axis;
    box.style.flexGrow = volume.shape[columns] * volume.spacing[columns];
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); move(axis, Math.sign(event.deltaY)); }, { passive: false });
    const pick = (event) => {
      if (!(event.buttons & 1) && event.type !== "pointerdown") return;
      const area = canvas.getBoundingClientRect();
      place[columns] = clamp(Math.floor((event.clientX - area.left) / area.width * volume.shape[columns]), columns);
      place[rows] = clamp(Math.floor((event.clientY - area.top) / area.height * volume.shape[rows]), rows);
      draw();
    };
    canvas.addEventListener("pointerdown", pick);
    canvas.addEventListener("pointermove", pick);
    box.append(canvas);
    if (!flat) {
      const label = document.createElement("label");
      const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: volume.shape[axis] - 1 });
      slider.addEventListener("input", () => { place[axis] = +slider.value; draw(); });
      label.append(document.createElement("span"), slider);
      box.append(label);
    }
    if (volume.turned) {
      const [, left, top] = PLANES[axis];
      for (const [text, style] of [[left, "left:.6rem;top:45%"], [top, "top:.3rem;left:50%"]]) {
        const side = Object.assign(document.createElement("span"), { className: "side", textContent: text });
        side.style.cssText = style;
        box.append(side);
      }
    }
    planes.append(box);
  }
}

function legend() {
  const target = document.getElementById("legend");
  target.textContent = "";
  viewer.classList.toggle("by-label", shown.labels);
  if (!shown.labels) return;
  volume.labels.slice(1).forEach((name, index) => {
    const sample = document.createElement("i");
    sample.className = "stroke";
    sample.style.background = labelColour(index + 1);
    target.append(sample, `${name} `);
  });
}

const clamp = (index, axis) => Math.min(Math.max(index, 0), volume.shape[axis] - 1);
function move(axis, by) { place[axis] = clamp(place[axis] + by, axis); draw(); }

function draw() {
  for (const canvas of planes.querySelectorAll("canvas")) drawPlane(canvas, +canvas.dataset.axis);
}

function drawPlane(canvas, axis) {
  const [rows, columns] = [0, 1, 2].filter((other) => other !== axis);
  const [height, width] = [volume.shape[rows], volume.shape[columns]];
  const strides = [volume.shape[1] * volume.shape[2], volume.shape[2], 1];
  const at = (row, column) => place[axis] * strides[axis] + row * strides[rows] + column * strides[columns];
  const [mmHigh, mmWide] = [height * volume.spacing[rows], width * volume.spacing[columns]];
  const ratio = mmHigh / mmWide;
  const highest = innerHeight * 0.62;
  const room = canvas.parentElement.clientWidth - 14;
  const wide = Math.max(Math.min(room, highest / ratio), 40);
  const dots = devicePixelRatio || 1;
  canvas.width = Math.round(wide * dots);
  canvas.height = Math.round(wide * ratio * dots);
  canvas.style.width = `${wide}px`; // the height follows: a scroll bar that comes up may leave less room than this
  const context = canvas.getContext("2d");

  const small = new OffscreenCanvas(width, height);
  const pixels = new ImageData(width, height);
  const gain = +document.getElementById("contrast").value;
  const overlay = shown.fill ? [shown.prediction && volume.predicted, shown.truth && volume.truth].find(Boolean) : null;
  const paint = shown.labels ? (klass) => rgb(labelColour(klass)) : () => rgb(colour(overlay === volume.truth ? "truth" : "prediction"));
  for (let row = 0, to = 0; row < height; row++) {
    for (let column = 0; column < width; column++, to += 4) {
      const from = at(row, column);
      const grey = 128 + (volume.image[from] - 128) * gain;
      const klass = overlay ? overlay[from] : 0;
      const over = klass ? paint(klass) : null;
      for (let channel = 0; channel < 3; channel++) pixels.data[to + channel] = over ? 0.6 * grey + 0.4 * over[channel] : grey;
      pixels.data[to + 3] = 255;
    }
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);

  const scale = [canvas.height / height, canvas.width / width];
  if (shown.truth) outline(context, volume.truth, at, height, width, scale, "truth", 2.6 * dots);
  if (shown.prediction && volume.predicted) outline(context, volume.predicted, at, height, width, scale, "prediction", 1.5 * dots);

  context.strokeStyle = "rgb(255 255 255 / .35)";
  context.lineWidth = dots;
  context.setLineDash([3 * dots, 4 * dots]);
  const [y, x] = [(place[rows] + 0.5) * scale[0], (place[columns] + 0.5) * scale[1]];
  context.beginPath();
  context.moveTo(0, y); context.lineTo(canvas.width, y);
  context.moveTo(x, 0); context.lineTo(x, canvas.height);
  context.stroke();
  context.setLineDash([]);

  const slider = canvas.parentElement.querySelector("input");
  if (slider) {
    slider.value = place[axis];
    slider.previousElementSibling.textContent = `${PLANES[axis][0]} ${place[axis] + 1}/${volume.shape[axis]}`;
  }
}

// The outline of every class: the edges between voxels of it and of others, joined into one path for each colour.
function outline(context, labels, at, height, width, [high, wide], source, thickness) {
  const paths = new Map();
  const path = (klass) => {
    const key = shown.labels ? klass : 0;
    if (!paths.has(key)) paths.set(key, new Path2D());
    return paths.get(key);
  };
  const edge = (a, b, x0, y0, x1, y1) => {
    for (const klass of shown.labels ? [a, b] : [a || b]) {
      if (klass) { const line = path(klass); line.moveTo(x0 * wide, y0 * high); line.lineTo(x1 * wide, y1 * high); }
    }
  };
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const here = labels[at(row, column)];
      const right = column + 1 < width ? labels[at(row, column + 1)] : 0;
      const below = row + 1 < height ? labels[at(row + 1, column)] : 0;
      if (here !== right) edge(here, right, column + 1, row, column + 1, row + 1);
      if (here !== below) edge(here, below, column, row + 1, column + 1, row + 1);
    }
  }
  context.lineWidth = thickness;
  context.lineCap = "round";
  context.setLineDash(shown.labels && source === "prediction" ? [4, 4] : []);
  for (const [klass, line] of paths) {
    context.strokeStyle = shown.labels ? labelColour(klass) : colour(source);
    context.stroke(line);
  }
  context.setLineDash([]);
}

function rgb(hex) { return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16)); }

function toggle(name) {
  shown[name] = !shown[name];
  viewer.querySelector(`[data-toggle=${name}]`).setAttribute("aria-pressed", shown[name]);
  legend();
  draw();
}

function step(by) {
  const index = order.indexOf(current) + by;
  if (order[index]) open(order[index]);
}

function openFrom(element) {
  const inTable = element.closest("tbody");
  const rows = inTable ? [...inTable.rows].filter((row) => !row.hidden) : [element.parentElement];
  order = [...new Set(rows.flatMap((row) => [...row.querySelectorAll("[data-open]")]).map((each) => each.dataset.open))];
  if ("labels" in element.dataset && !shown.labels) {
    shown.labels = true;
    viewer.querySelector("[data-toggle=labels]").setAttribute("aria-pressed", true);
  }
  open(element.dataset.open);
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener) openFrom(opener);
});
document.addEventListener("keydown", (event) => {
  if (!viewer.open && (event.key === "Enter" || event.key === " ") && event.target.matches("article[data-open]")) {
    event.preventDefault();
    openFrom(event.target);
  } else if (viewer.open && !event.target.matches("input")) {
    const toggled = { t: "truth", p: "prediction", l: "labels", f: "fill" }[event.key.toLowerCase()];
    if (toggled) toggle(toggled);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowUp") move(0, -1);
    else if (event.key === "ArrowDown") move(0, 1);
  }
});
viewer.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (event.target === viewer || (button && button.dataset.do === "close")) viewer.close();
  else if (button && button.dataset.toggle) toggle(button.dataset.toggle);
  else if (button && button.dataset.do) step(button.dataset.do === "next" ? 1 : -1);
});
document.getElementById("contrast").addEventListener("input", () => volume && draw());
window.addEventListener("resize", () => viewer.open && draw());
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
