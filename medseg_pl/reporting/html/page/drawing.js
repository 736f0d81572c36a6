// Draws a slice of a case: the image, prediction or difference as a tint, the reference as outlines.
const MISSED = [255, 70, 110];
const FALSE_POSITIVE = [60, 210, 255];
const IGNORED = 255;

// The masks of a case, `(channel, slice, row, column)` bytes, unpacked by the browser: exact, and without a request.
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Whether a label is at a pixel: labels that may overlap have a channel each, others share one.
function holds(volume, label, start, size, slices, overlapping) {
  return overlapping ? volume[label * size * slices + start] === 1 : volume[start] === label + 1;
}

function drawCase(canvas, picture, state, labels, colors, overlapping) {
  const { width, height } = picture;
  const size = width * height;
  const scale = Math.ceil(900 / Math.max(width, height));
  const brush = canvas.getContext("2d");
  const at = (volume, label, pixel) =>
    volume !== null && holds(volume, label, state.slice * size + pixel, size, picture.slices.length, overlapping);
  const open = (label, pixel) =>
    picture.reference[(overlapping ? label * picture.slices.length : 0) * size + state.slice * size + pixel] === IGNORED;
  canvas.width = width * scale;
  canvas.height = height * scale;
  brush.imageSmoothingEnabled = Math.max(width, height) > 128; // what is small was never shrunk: its pixels as they are
  brush.drawImage(picture.images[state.slice], 0, 0, canvas.width, canvas.height);
  brush.globalCompositeOperation = "color-dodge"; // divides by 1 less the fill: a filter, which not all browsers have
  brush.fillStyle = `rgb(${Array(3).fill(255 * (1 - 1 / state.brightness)).join(" ")})`;
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.globalCompositeOperation = "source-over";
  const prediction = picture.predictions[state.run];
  const shown = labels.map((_, label) => label).filter((label) => state.labels[label]);

  const tint = new ImageData(width, height);
  const paint = (pixel, [red, green, blue]) => tint.data.set([red, green, blue, 255 * state.opacity], 4 * pixel);
  for (const label of shown) {
    for (let pixel = 0; pixel < size; pixel += 1) {
      const found = at(prediction, label, pixel);
      const wanted = state.difference && at(picture.reference, label, pixel);
      if (state.prediction && found) paint(pixel, colors[label % colors.length]);
      if (state.difference && found !== wanted && !open(label, pixel)) paint(pixel, wanted ? MISSED : FALSE_POSITIVE);
    }
  }
  const layer = document.createElement("canvas");
  layer.width = width;
  layer.height = height;
  layer.getContext("2d").putImageData(tint, 0, 0);
  brush.imageSmoothingEnabled = false;
  brush.drawImage(layer, 0, 0, canvas.width, canvas.height);
  if (state.reference) {
    for (const label of shown) outline((x, y) => at(picture.reference, label, y * width + x), colors[label % colors.length]);
  }

  function outline(inside, color) {
    brush.beginPath();
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        if (!inside(x, y)) continue;
        if (x === 0 || !inside(x - 1, y)) edge(x, y, x, y + 1);
        if (x === width - 1 || !inside(x + 1, y)) edge(x + 1, y, x + 1, y + 1);
        if (y === 0 || !inside(x, y - 1)) edge(x, y, x + 1, y);
        if (y === height - 1 || !inside(x, y + 1)) edge(x, y + 1, x + 1, y + 1);
      }
    }
    brush.lineCap = "square";
    for (const [style, lineWidth] of [["rgb(0 0 0 / 60%)", 4], [`rgb(${color.join(" ")})`, 2]]) {
      brush.strokeStyle = style;
      brush.lineWidth = lineWidth;
      brush.stroke();
    }
  }

  function edge(x0, y0, x1, y1) {
    brush.moveTo(x0 * scale, y0 * scale);
    brush.lineTo(x1 * scale, y1 * scale);
  }
}
