// The conversation with the server. One question is under way at most: a new one ends the old,
// and an answer to what is no longer on the page is never told.

const PAUSE = 80; // milliseconds; strokes in quick succession are asked about once
const SLOW = 400; // milliseconds without an answer, after which the page says that it waits
const PATIENCE = 5000; // milliseconds; then the question is given up
const BACKOFF = [2, 4, 8, 15, 30]; // seconds to the next try at a server that is gone
const LONGEST_WAIT = 86400; // seconds

/**
 * Asks about images, and tells `heard(state)` what comes of it, by `kind`:
 *   empty, drawing, asked, slow (asked long ago), then one of
 *   answer {answer}, malformed, late, gone, trouble {status}, refused {status, detail},
 *   limited, locked {tried}
 * With `seconds`, it asks again by itself in so many seconds. While it is limited or locked, new
 * images wait: they would only be refused, and counted.
 */
export class Asker {
  key = ""; // of an API, for the visitor who has one; kept here and nowhere else
  #heard;
  #well;
  #image = null;
  #asking = null;
  #timer = 0;
  #holds = false;
  #failures = 0;

  /** `well(answer)` returns whether the fields of an answer make sense. */
  constructor(heard, well) {
    this.#heard = heard;
    this.#well = well;
  }

  /** The drawing goes on: what was asked is of no interest any more. */
  drawing() {
    if (this.#holds) return;
    this.#stop();
    this.#heard({ kind: "drawing" });
  }

  /** Ask about an image in a moment; null is an empty paper, about which nothing is asked. */
  about(image) {
    this.#image = image;
    if (this.#holds) return;
    this.#stop();
    this.#heard({ kind: image === null ? "empty" : "asked" });
    if (image !== null) this.#timer = setTimeout(() => this.again(), PAUSE);
  }

  /** Ask now, whatever was said before. */
  async again() {
    this.#stop();
    this.#holds = false;
    this.#heard({ kind: this.#image === null ? "empty" : "asked" });
    if (this.#image === null) return;
    const mine = new AbortController();
    this.#asking = mine;
    const slow = setTimeout(() => this.#heard({ kind: "slow" }), SLOW);
    let late = false;
    const patience = setTimeout(() => {
      late = true;
      mine.abort();
    }, PATIENCE);
    mine.signal.addEventListener("abort", () => clearTimeout(slow));
    try {
      const state = await this.#ask(this.#image, mine.signal);
      if (this.#asking === mine) this.#tell(state);
    } catch {
      if (this.#asking === mine) this.#tell({ kind: late ? "late" : "gone" });
    } finally {
      clearTimeout(slow);
      clearTimeout(patience);
    }
  }

  /** Send an image, or nothing at all, to a path; headers are those of the API. */
  send(path, body, signal) {
    const headers = { "content-type": "application/octet-stream" };
    if (this.key !== "") headers.authorization = `Bearer ${this.key}`;
    return fetch(path, { method: "POST", headers, body, signal, redirect: "error" });
  }

  async #ask(image, signal) {
    const response = await this.send("/predict", image, signal);
    const content = await response.json().catch((error) => {
      if (signal.aborted) throw error;
      return null;
    });
    const { status } = response;
    if (response.ok) {
      return this.#well(content) ? { kind: "answer", answer: content } : { kind: "malformed" };
    }
    const seconds = waitFrom(response.headers.get("retry-after"));
    if (status === 401) return { kind: "locked", tried: this.key !== "" };
    if (status === 429) return { kind: "limited", seconds };
    if (status >= 500) return { kind: "trouble", status, seconds };
    return { kind: "refused", status, detail: String(content?.detail ?? "") };
  }

  #tell(state) {
    this.#asking = null;
    const down = state.kind === "gone" || state.kind === "trouble";
    if (down) state.seconds ??= BACKOFF[Math.min(this.#failures, BACKOFF.length - 1)];
    this.#failures = down ? this.#failures + 1 : 0;
    this.#holds = state.kind === "limited" || state.kind === "locked";
    this.#heard(state);
    if (state.seconds !== undefined) {
      this.#timer = setTimeout(() => this.again(), 1000 * state.seconds);
    }
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    this.#asking = null;
  }
}

/** Return the seconds of a Retry-After, which may be a date; undefined where there is none. */
function waitFrom(header) {
  if (header === null) return undefined;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  if (Number.isNaN(seconds)) return undefined;
  return Math.min(Math.max(Math.ceil(seconds), 1), LONGEST_WAIT);
}
