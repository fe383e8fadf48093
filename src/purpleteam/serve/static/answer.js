// What the page says: of each state of a question, in words of its own.

import { ALARM, NUMERALS, QUESTION, write } from "/static/numerals.js";

const $ = (id) => document.getElementById(id);
const REASONS = {
  empty: "There is too little ink to read.",
  not_a_digit: "No digit to be seen in this.",
  unsure: "Not sure what this is.",
  adversarial: "This may have been changed to be misread: no answer.",
  triggered: "This may carry a hidden trigger: no answer.",
};
const TROUBLES = {
  late: () => ["No answer within 5 seconds.", "The server may be busy."],
  gone: () => ["The server does not answer.", "It may be starting again, or out of reach."],
  trouble: ({ status }) => [`The server is in trouble (${status}).`, "Your drawing is fine."],
  refused: ({ status, detail }) => [`The server refused the drawing (${status}).`, detail],
  malformed: () => ["The answer of the server makes no sense.", "So it is not shown."],
  limited: () => ["Too many questions for now.", "You can go on drawing."],
  locked: ({ tried }) => [
    tried ? "That key was not accepted." : "This server asks for an API key.", ""],
};
const UNTOUCHED = ["Nothing is drawn yet.", ""];

export class AnswerView {
  classes = [];
  #ticking = 0;
  #written = "";

  /** Return whether an answer of the server makes sense. */
  isWell(answer) {
    const isClass = (label) => Number.isInteger(label) && label >= 0
      && (this.classes.length === 0 || label < this.classes.length);
    if (answer === null || typeof answer !== "object") return false;
    const { label, reason, nearest, confidences } = answer;
    const shares = confidences ?? [];
    return (label === null ? typeof reason === "string" : isClass(label))
      && ((nearest ?? null) === null || isClass(nearest))
      && Array.isArray(shares) && shares.every((share) => share >= 0 && share <= 1);
  }

  name(label) {
    return this.classes[label] ?? String(label);
  }

  /** Show a state of the asker; `small` is whether little of the paper was used. */
  show(state, small) {
    const { kind } = state;
    const waits = kind === "drawing" || kind === "asked" || kind === "slow";
    $("result").classList.toggle("stale", waits);
    $("result").classList.toggle("slow", kind === "slow");
    $("retry").hidden = waits || !(kind in TROUBLES) || kind === "limited" || kind === "locked";
    $("locked").hidden = kind !== "locked";
    $("samples").hidden = kind !== "empty";
    this.#count(state.seconds);
    const first = waits && $("result").dataset.kind === "empty";
    if (first) this.#say("It is read when the pen is lifted.");
    if (kind === "slow") this.#say("Waiting for the server …");
    $("words").classList.toggle("now", first || kind === "slow");
    $("result").dataset.kind = kind;
    if (waits) return;
    if (kind === "answer") this.#answer(state.answer, small);
    else if (kind === "empty") this.#write("empty", [], ...UNTOUCHED);
    else this.#write("alarm", ALARM, ...TROUBLES[kind](state));
    this.#compare(kind === "answer" ? state.answer : {});
    if (kind === "locked") $("key").focus();
  }

  #answer({ label, reason, nearest }, small) {
    const hint = small ? "It is small: draw larger." : "";
    if (label !== null) {
      this.#write("read", this.name(label), `Read as ${this.name(label)}.`);
    } else if ((nearest ?? null) !== null) {
      const words = `Nearest ${this.name(nearest)}, not sure.`;
      this.#write("near", this.name(nearest), words, hint || "Once more, a little clearer?");
    } else {
      this.#write("none", QUESTION, REASONS[reason] ?? "The model gives no label to this.", hint);
    }
  }

  /** Show a numeral, as strokes or as the name of a class, and say what it means. */
  #write(look, numeral, verdict, hint = "") {
    const drawn = /^\d$/.test(numeral) ? NUMERALS[numeral] : numeral;
    const strokes = Array.isArray(drawn) ? drawn : [];
    if (this.#written !== `${look} ${numeral}`) {
      write($("numeral"), strokes);
      $("numeral").dataset.look = look;
      $("name").textContent = strokes === drawn ? "" : numeral;
    }
    this.#written = `${look} ${numeral}`;
    this.#say(verdict, hint);
  }

  #say(verdict, hint = "") {
    if ($("verdict").textContent !== verdict) $("verdict").textContent = verdict;
    $("hint").textContent = hint;
  }

  #count(seconds) {
    clearInterval(this.#ticking);
    $("countdown").hidden = seconds === undefined;
    if (seconds === undefined) return;
    const end = Date.now() + 1000 * seconds;
    const tick = () => {
      const left = Math.max(Math.ceil((end - Date.now()) / 1000), 0);
      $("countdown").textContent = `Asking again in ${duration(left)}.`;
    };
    tick();
    this.#ticking = setInterval(tick, 1000);
  }

  #compare({ confidences = [], label = null }) {
    $("confidences").hidden = confidences.length === 0;
    const bars = $("bars");
    while (bars.children.length > confidences.length) bars.lastChild.remove();
    while (bars.children.length < confidences.length) bars.append(bar());
    confidences.forEach((share, at) => {
      const [name, track, text] = bars.children[at].children;
      bars.children[at].classList.toggle("chosen", at === label);
      name.textContent = this.name(at);
      track.firstChild.style.transform = `scaleX(${share})`;
      text.textContent = `${(100 * share).toFixed(1)} %`;
    });
  }
}

function duration(seconds) {
  if (seconds <= 90) return `${seconds} s`;
  return seconds <= 5400 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;
}

function bar() {
  const row = document.createElement("li");
  const [name, track, fill, text] = ["b", "span", "span", "span"].map((tag) =>
    document.createElement(tag));
  track.className = "track";
  fill.className = "fill";
  track.append(fill);
  row.append(name, track, text);
  return row;
}
