// The page: what is drawn goes through drawing.js to the server, and its answer is shown.
// Text reaches the page by textContent alone.

import { Pad } from "/static/canvas.js";
import { CANVAS, FIELD, fitted, place, strokes } from "/static/drawing.js";

const PAUSE = 80; // milliseconds; strokes in quick succession are asked about once

const $ = (id) => document.getElementById(id);
const seen = $("seen").getContext("2d", { willReadFrequently: true });
let classes = [];
let asking = null;
let timer = 0;

const pad = new Pad($("pad"), { changed, settled, pen, widened });

$("undo").addEventListener("click", () => pad.undo());
$("clear").addEventListener("click", () => pad.clear());
$("brush").addEventListener("input", () => { pad.width = Number($("brush").value); });
showImage(null);
introduce();

function changed(lines) {
  $("prompt").hidden = lines.length > 0;
  $("clear").disabled = lines.length === 0;
  $("undo").disabled = !pad.undoable;
  const image = place(strokes(fitted(lines)), CANVAS, CANVAS);
  showImage(image);
  return image;
}

function settled(lines) {
  const image = changed(lines);
  clearTimeout(timer);
  asking?.abort();
  if (image === null) show({ label: null, reason: "empty" });
  else timer = setTimeout(() => ask(image), PAUSE);
}

function pen(down) {
  $("pen").textContent = down ? "Pen down." : "Pen up.";
}

function widened(direction) {
  const brush = $("brush");
  if (direction > 0) brush.stepUp();
  else brush.stepDown();
  pad.width = Number(brush.value);
}

async function ask(image) {
  const mine = new AbortController();
  asking = mine;
  try {
    const response = await fetch("/predict", {
      method: "POST",
      headers: { "content-type": "application/octet-stream" },
      body: image,
      signal: mine.signal,
    });
    const answer = await response.json();
    if (mine.signal.aborted) return;
    if (response.ok) show(answer);
    else say("!", `The server refused the image (${response.status}).`);
  } catch {
    if (!mine.signal.aborted) say("!", "The server does not answer.");
  }
}

function show(answer) {
  const name = classes[answer.label] ?? String(answer.label);
  if (answer.label !== null) say(name, `Read as ${name}.`);
  else if (answer.reason === "empty") say("", "Nothing is drawn yet.");
  else if (answer.reason === "triggered") say("?", "This may carry a hidden trigger: no answer.");
  else say("?", "No digit to be seen in this.");
  showConfidences(answer.confidences ?? [], answer.label);
}

function say(numeral, verdict) {
  $("numeral").textContent = numeral;
  $("numeral").classList.toggle("long", numeral.length > 2);
  $("numeral").classList.toggle("none", numeral === "?" || numeral === "!");
  $("verdict").textContent = verdict;
}

function showImage(image) {
  const pixels = seen.createImageData(FIELD, FIELD);
  for (let at = 0; at < FIELD * FIELD; at += 1) {
    const level = image === null ? 0 : image[at];
    pixels.data.set([level, level, level, 255], 4 * at);
  }
  seen.putImageData(pixels, 0, 0);
}

function showConfidences(shares, label) {
  $("confidences").hidden = shares.length === 0;
  $("bars").replaceChildren(...shares.map((share, at) => bar(share, at, at === label)));
}

function bar(share, at, chosen) {
  const row = document.createElement("li");
  const [name, track, fill, text] = ["b", "span", "span", "span"].map((tag) =>
    document.createElement(tag));
  row.classList.toggle("chosen", chosen);
  name.textContent = classes[at] ?? String(at);
  track.className = "track";
  fill.className = "fill";
  fill.style.transform = `scaleX(${share})`;
  track.append(fill);
  text.textContent = `${(100 * share).toFixed(1)} %`;
  row.append(name, track, text);
  return row;
}

async function introduce() {
  try {
    const facts = await (await fetch("/version")).json();
    classes = facts.classes;
    $("model").textContent = facts.model;
    $("digest").textContent = facts.digest;
    $("mode").textContent = facts.confidences
      ? "It says how sure it is, which also helps those who would copy or fool it."
      : "It answers with a label alone, not with how sure it is.";
  } catch {
    $("model").textContent = "unknown: the server does not answer";
  }
}
