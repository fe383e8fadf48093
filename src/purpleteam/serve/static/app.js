// The page: what is drawn goes through drawing.js to the server, and its answer is shown.
// Text reaches the page by textContent alone.

import { AnswerView } from "/static/answer.js";
import { Asker } from "/static/ask.js";
import { Pad, sampleInInk } from "/static/canvas.js";
import { CANVAS, FIELD, Raster, place } from "/static/drawing.js";
import { NUMERALS, write } from "/static/numerals.js";
import { SAMPLES } from "/static/samples.js";
import { WrongView } from "/static/wrong.js";

const SMALL = CANVAS / 5; // units; where the pen's path is shorter, its ends and turns run together

const $ = (id) => document.getElementById(id);
const seen = $("seen").getContext("2d", { willReadFrequently: true });
const raster = new Raster();
const view = new AnswerView();
const asker = new Asker(heard, (answer) => view.isWell(answer));
const wrong = new WrongView((path, body) => asker.send(path, body));
const pad = new Pad($("pad"), $("nib"), { changed, settled, pen, key });
let image = null;
let small = false;
let digest = null;
let inTrouble = false;

$("undo").addEventListener("click", () => pad.undo());
$("redo").addEventListener("click", () => pad.redo());
$("clear").addEventListener("click", () => pad.clear());
$("erase").addEventListener("click", () => erase(!pad.erasing));
$("retry").addEventListener("click", () => asker.again());
$("copy").addEventListener("click", copy);
$("widths").addEventListener("change", (event) => { pad.width = Number(event.target.value); });
$("locked").addEventListener("submit", unlock);
document.addEventListener("keydown", undoByKey);
window.addEventListener("online", () => { if (inTrouble) asker.again(); });
for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
  matchMedia(query).addEventListener("change", showSamples);
}
pad.width = Number($("widths").querySelector(":checked").value);
showSamples();
settled([]);
introduce();

function changed(lines) {
  look(lines, true);
  asker.drawing();
}

function settled(lines) {
  look(lines, false);
  asker.about(image);
}

function look(lines, growing) {
  image = place(raster.follow(lines, growing), CANVAS, CANVAS);
  small = image !== null && raster.longest < SMALL;
  showImage(image);
  $("prompt").classList.toggle("gone", lines.length > 0);
  $("clear").disabled = lines.length === 0;
  $("undo").disabled = !pad.undoable;
  $("redo").disabled = !pad.redoable;
  if (lines.length === 0) suggest();
}

async function heard(state) {
  const failed = !["drawing", "asked", "slow", "empty", "answer"].includes(state.kind);
  const back = inTrouble && state.kind === "answer";
  if (failed || state.kind === "answer") inTrouble = failed;
  view.show(state, small);
  wrong.about(state.kind === "answer" ? state.answer : null, image);
  if (back) await introduce();
}

function pen(down) {
  $("pen").textContent = down ? "Pen down." : "Pen up.";
}

function key(name) {
  const widths = [...$("widths").querySelectorAll("input")];
  const at = widths.findIndex((width) => width.checked);
  const next = widths[at + { "+": 1, "-": -1 }[name]];
  if (name === "e" || name === "E") erase(!pad.erasing);
  else if (name !== "+" && name !== "-") return false;
  else if (next !== undefined) {
    next.checked = true;
    pad.width = Number(next.value);
  }
  return true;
}

function erase(erasing) {
  pad.erasing = erasing;
  $("erase").setAttribute("aria-pressed", String(erasing));
}

function undoByKey(event) {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || event.target.type === "password") return;
  const name = event.key.toLowerCase();
  if (name === "z" && !event.shiftKey) pad.undo();
  else if (name === "y" || name === "z") pad.redo();
  else return;
  event.preventDefault();
}

function unlock(event) {
  event.preventDefault();
  asker.key = $("key").value.trim();
  $("key").value = "";
  asker.again();
  introduce();
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("digest").textContent);
    $("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("digest"));
    $("copied").textContent = "Selected: copy it with your keys.";
  }
}

function showImage(grey) {
  const pixels = seen.createImageData(FIELD, FIELD);
  for (let at = 0; at < FIELD * FIELD; at += 1) {
    const level = grey === null ? 0 : grey[at];
    pixels.data.set([level, level, level, 255], 4 * at);
  }
  seen.putImageData(pixels, 0, 0);
}

function showSamples() {
  $("row").replaceChildren(...SAMPLES.map((cells, digit) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `A ${digit} that somebody wrote`);
    button.append(sampleInInk(cells, 72, getComputedStyle($("pad")).color));
    button.addEventListener("click", () => {
      $("pad").focus({ preventScroll: true });
      pad.show(cells);
    });
    return button;
  }));
}

/** Dot a digit on the empty paper, another one each time. */
function suggest() {
  const suggested = Math.floor(Math.random() * NUMERALS.length);
  write($("prompt").firstElementChild, NUMERALS[suggested]);
}

async function introduce() {
  try {
    const headers = asker.key === "" ? {} : { authorization: `Bearer ${asker.key}` };
    const facts = await (await fetch("/version", { headers })).json();
    view.classes = facts.classes;
    wrong.introduce(facts.classes, facts.feedback);
    $("model").textContent = facts.model;
    $("digest").textContent = facts.digest;
    $("copy").hidden = false;
    $("mode").textContent = facts.confidences
      ? "It says how sure it is, which also helps those who would copy or fool it."
      : "It answers with a label alone, not with how sure it is.";
    $("news").textContent = digest === null || digest === facts.digest ? ""
      : `The server was restarted, and its model is now ${facts.model}.`;
    digest = facts.digest;
  } catch {
    $("model").textContent = "unknown: the server does not answer";
  }
}
