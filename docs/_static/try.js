// The page "Try it": a picture is cut, resized as the package does it and read by the exported reader, all in this page.

// Pillow's bicubic resize: along one axis, then the other, with weights of 22 bits after the point and bytes in between.
const BITS = 22;

function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

// For each of `to` places: where among `from` its neighbours begin, and their weights.
function neighbours(from, to) {
  const scale = from / to, spread = Math.max(scale, 1);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * spread + 0.5));
    const end = Math.min(from, Math.trunc(centre + 2 * spread + 0.5));
    const shares = Array.from({ length: end - first }, (_, k) => cubic((k + first - centre + 0.5) / spread));
    const sum = shares.reduce((a, b) => a + b, 0);
    return { first, weights: Int32Array.from(shares, (w) => (w / sum) * 2 ** BITS + (w < 0 ? -0.5 : 0.5)) };
  });
}

// Bytes [rows, from, columns] -> [rows, to, columns]
function resampled(bytes, rows, from, columns, to) {
  if (from === to) return bytes;
  const places = neighbours(from, to), made = new Uint8ClampedArray(rows * to * columns);
  for (let row = 0, at = 0; row < rows; row++)
    for (const { first, weights } of places)
      for (let column = 0; column < columns; column++) {
        let sum = 1 << (BITS - 1), where = (row * from + first) * columns + column;
        for (const weight of weights) {
          sum += weight * bytes[where];
          where += columns;
        }
        made[at++] = sum >> BITS;
      }
  return made;
}

// Opaque bytes [height, width, red green blue alpha] -> bytes [3, toHeight, toWidth]
function resized(rgba, width, height, toWidth, toHeight) {
  const size = width * height, planes = new Uint8ClampedArray(3 * size);
  for (let i = 0; i < size; i++) for (let c = 0; c < 3; c++) planes[c * size + i] = rgba[4 * i + c];
  return resampled(resampled(planes, 3 * height, width, 1, toWidth), 3, height, toWidth, toHeight);
}

// The reader ----------------------------------------------------------------------------------------------------------
async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`);
  return answer;
}

// From the folder that this script is in.
async function loadReader(folder) {
  if (location.protocol === "file:")
    throw new Error(
      "This page was opened as a file, and a browser lets a file load nothing. Serve the folder that it is in, with " +
        "python -m http.server for example, and open the page at http://localhost:8000/try.html.");
  const ort = await import(`${folder}onnxruntime/ort.js`);
  if (!ort.InferenceSession)
    throw new Error("This copy of the site was built without the reader: npm could not be reached then. `make docs` adds it.");
  const bytes = async (name) => new Uint8Array(await (await fetched(folder + name)).arrayBuffer());
  const [about, model, wasm] = await Promise.all([
    fetched(`${folder}reader/reader.json`).then((answer) => answer.json()),
    bytes("reader/reader.onnx"), bytes("onnxruntime/ort.wasm")]);
  Object.assign(ort.env.wasm, {
    numThreads: 1, // more need special headers
    wasmPaths: { mjs: `${folder}onnxruntime/wasm.js` }, wasmBinary: wasm });
  // rewriting the graph first takes a second or more, and words are read no faster then
  const session = await ort.InferenceSession.create(model, { graphOptimizationLevel: "disabled" });
  return { ...about, chars: [...about.chars], ort, session };
}

// Bytes [3, height, width] -> text, confidence, and every letter with its confidence and its place, 0..1 from left and top
async function readBytes(reader, bytes) {
  const images = new reader.ort.Tensor("uint8", new Uint8Array(bytes.buffer), [1, 3, reader.height, reader.width]);
  const { ids, probabilities, places } = await reader.session.run({ images });
  const eos = reader.chars.length, unknown = eos + 2, letters = [];
  for (const [i, id] of Array.from(ids.data, Number).entries()) {
    if (id === eos) break;
    if (id > eos && id !== unknown) continue;
    const [x, y] = places.data.slice(2 * i, 2 * i + 2);
    letters.push({ letter: reader.chars[id] ?? "\ufffd", confidence: probabilities.data[i], x, y });
  }
  const confidence = probabilities.data.reduce((a, b) => a * b, 1);
  return { text: letters.map(({ letter }) => letter).join(""), confidence, letters };
}

// The picture ---------------------------------------------------------------------------------------------------------
const MOST_PIXELS = 2 ** 25; // as in the package

// Draws a file upright, its numbers as they are stored, over white.
async function draw(file, canvas) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error(`${file.name ?? "This"} is no picture that this browser can open.`);
  });
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new Error(`${width} × ${height} pixels are too many: cut the word out.`);
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
}

// What is in a box of the drawn picture, as the reader wants it.
function bytesOf(canvas, reader, [left, top, width, height] = [0, 0, canvas.width, canvas.height]) {
  const { data } = canvas.getContext("2d").getImageData(left, top, width, height);
  return resized(data, width, height, reader.width, reader.height);
}

// The page ------------------------------------------------------------------------------------------------------------
function mark(name, text, style) {
  const element = Object.assign(document.createElement("span"), { className: name, textContent: text });
  Object.assign(element.style, style);
  return element;
}

// Every letter above what was read, and a dot where it was seen.
function letterMarks(letters, canvas, [left, top, width, height] = [0, 0, canvas.width, canvas.height]) {
  return letters.flatMap(({ letter, x, y }) => {
    const share = (part, whole) => `${(100 * part) / whole}%`, across = share(left + x * width, canvas.width);
    return [mark("try-letter", letter, { left: across, top: share(top, canvas.height) }),
            mark("try-dot", "", { left: across, top: share(top + y * height, canvas.height) })];
  });
}

// Pixels of the picture between two pointer events; undefined, the whole picture, when they are at one place.
function boxBetween(canvas, start, stop) {
  const shown = canvas.getBoundingClientRect(), scale = canvas.width / shown.width;
  const [xs, ys] = [["clientX", "left", "width"], ["clientY", "top", "height"]].map(([at, edge, side]) =>
    [start, stop].map((event) => Math.round(Math.min(Math.max((event[at] - shown[edge]) * scale, 0), canvas[side])))
      .sort((a, b) => a - b));
  const box = [xs[0], ys[0], xs[1] - xs[0], ys[1] - ys[0]];
  return Math.min(box[2], box[3]) >= 4 && Math.max(box[2], box[3]) >= 8 ? box : undefined;
}

function tryIt(page, folder) {
  const part = (name) => page.querySelector(`.try-${name}`);
  const canvas = page.querySelector("canvas"), say = (text) => (part("status").textContent = text);
  const reader = loadReader(folder);
  say("Loading the reader, 18 MB …");
  reader.then(() => say("Ready."), (error) => say(error.message));
  let asked = 0; // of several pictures in a row the last one counts

  async function read(box) {
    const mine = ++asked, loaded = await reader;
    const { text, confidence, letters } = await readBytes(loaded, bytesOf(canvas, loaded, box));
    if (mine !== asked) return;
    part("marks").replaceChildren(...letterMarks(letters, canvas, box));
    part("text").textContent = text;
    part("each").textContent = letters.map(({ letter, confidence }) => `${letter}\u00a0${confidence.toFixed(2)}`).join("  ");
    const hint = !text ? ": no letters were seen" : confidence < 0.3 ? ": unsure. The reader wants one word, cut out closely" : "";
    part("confidence").textContent = `confidence ${confidence.toFixed(2)}${hint}`;
    part("result").hidden = false;
    say("Drag over the picture to read a part of it.");
  }

  async function open(file) {
    part("result").hidden = true;
    for (const name of ["marks", "text", "each", "confidence"]) part(name).replaceChildren();
    part("box").hidden = true;
    await draw(file, canvas);
    canvas.style.setProperty("--shape", canvas.width / canvas.height);
    await read();
  }

  const attempt = (work) => work.catch((error) => say(error.message));
  const openFirst = (files) => files?.length && attempt(open(files[0]));
  for (const input of page.querySelectorAll("input"))
    input.addEventListener("change", () => { openFirst(input.files); input.value = ""; });
  for (const button of page.querySelectorAll("button"))
    button.addEventListener("click", () =>
      attempt(fetched(button.querySelector("img").src).then((answer) => answer.blob()).then(open)));
  document.addEventListener("paste", (event) => openFirst(event.clipboardData.files));
  for (const name of ["dragover", "drop"]) // anywhere on the page; what is no file goes where it goes
    document.addEventListener(name, (event) => event.dataTransfer.types.includes("Files") && event.preventDefault());
  document.addEventListener("drop", (event) => openFirst(event.dataTransfer.files));

  let start = null;
  function choose(event, done) {
    if (!start) return;
    const box = boxBetween(canvas, start, event);
    part("box").hidden = !box;
    if (box)
      for (const [i, side] of ["left", "top", "width", "height"].entries())
        part("box").style[side] = `${(100 * box[i]) / (i % 2 ? canvas.height : canvas.width)}%`;
    if (done) { start = null; attempt(read(box)); }
  }
  canvas.addEventListener("pointerdown", (event) => { start = event; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => choose(event, false));
  canvas.addEventListener("pointerup", (event) => choose(event, true));
  canvas.addEventListener("pointercancel", () => (start = null));
}

if (typeof module !== "undefined") module.exports = { resized }; // for the tests
else tryIt(document.getElementById("try-it"), new URL(".", document.currentScript.src).href);
