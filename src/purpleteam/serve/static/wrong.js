// "That is wrong": the visitor says what was meant. The server counts it, and gets the drawing
// only where the visitor ticks the box, which is there only where the server would keep it.

const $ = (id) => document.getElementById(id);

export class WrongView {
  #send;
  #said = null;
  #image = null;

  /** `send(path, body)` posts to the server. */
  constructor(send) {
    this.#send = send;
    $("wrong").addEventListener("click", () => this.#open($("meant").hidden));
  }

  /** Offer what may have been meant. A server that counts says whether it `keeps` drawings. */
  introduce(classes, counts) {
    const named = classes.map((name, label) => [name, String(label)]);
    const choices = counts ? [...named, ["no digit", "none"]] : [];
    $("choices").replaceChildren(...choices.map(([name, meant]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.value = meant;
      button.addEventListener("click", () => this.#tell(meant));
      return button;
    }));
    $("keep").parentElement.hidden = !counts?.keeps;
  }

  /** Stand by an answer to an image; null where there is none to be wrong. */
  about(answer, image) {
    this.#said = answer === null ? null : String(answer.label ?? "none");
    this.#image = image;
    for (const choice of $("choices").children) choice.hidden = choice.value === this.#said;
    $("feedback").hidden = this.#said === null || $("choices").children.length === 0;
    $("thanks").textContent = "";
    $("keep").checked = false;
    $("wrong").hidden = false;
    this.#open(false);
  }

  #open(open) {
    $("meant").hidden = !open;
    $("wrong").setAttribute("aria-expanded", String(open));
  }

  async #tell(meant) {
    const body = $("keep").checked ? this.#image : null;
    this.#open(false);
    $("wrong").focus();
    try {
      const response = await this.#send(`/feedback?said=${this.#said}&meant=${meant}`, body);
      if (!response.ok) throw new Error(response.status);
      const { kept } = await response.json();
      $("thanks").textContent = kept ? "Counted, and the drawing is kept. Thank you."
        : "Counted; the drawing is not kept. Thank you.";
      $("wrong").hidden = true;
    } catch {
      $("thanks").textContent = "The server did not take it.";
    }
  }
}
