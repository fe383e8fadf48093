// The drawing area: strokes by pointer or by keyboard, kept as lines of points on a square of
// 280 units, whatever the size of the screen.

import { CANVAS } from "/static/drawing.js";

const STEP = 10;
const SMALL_STEP = 2;
const MARGIN = 10;
const MOST_POINTS = 20000;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** A drawing area. `changed(lines)` is called while drawing, `settled(lines)` after a stroke. */
export class Pad {
  lines = [];
  width = 20;
  #canvas;
  #events;
  #context;
  #pointer = null;
  #cursor = null;
  #penDown = false;
  #cleared = [];
  #frame = 0;

  constructor(canvas, events) {
    this.#canvas = canvas;
    this.#events = events;
    this.#context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(end, (event) => this.#release(event));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#hideCursor());
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#redraw());
  }

  get undoable() {
    return this.lines.length > 0 || this.#cleared.length > 0;
  }

  /** Take back the last stroke, or the last clearing. */
  undo() {
    this.#liftPen();
    if (this.lines.length > 0) this.lines.pop();
    else [this.lines, this.#cleared] = [this.#cleared, []];
    this.#settle();
  }

  clear() {
    this.#liftPen();
    if (this.lines.length > 0) [this.#cleared, this.lines] = [this.lines, []];
    this.#settle();
  }

  #press(event) {
    if (!event.isPrimary || event.button !== 0) return;
    this.#hideCursor();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.#begin(this.#place(event));
  }

  #move(event) {
    if (event.pointerId !== this.#pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length > 0 ? all : [event]) this.#extend(this.#place(one));
  }

  #release(event) {
    if (event.pointerId !== this.#pointer) return;
    this.#pointer = null;
    this.#settle();
  }

  #place(event) {
    const area = this.#canvas.getBoundingClientRect();
    const share = CANVAS / area.width;
    return [(event.clientX - area.left) * share, (event.clientY - area.top) * share];
  }

  #begin(point) {
    this.#cleared = [];
    this.lines.push({ width: this.width, points: [point] });
    this.#change();
  }

  #extend(point) {
    const points = this.lines.at(-1).points;
    const [x, y] = points.at(-1);
    if (points.length >= MOST_POINTS || Math.hypot(point[0] - x, point[1] - y) < 1) return;
    points.push(point);
    this.#change();
  }

  #key(event) {
    const undoes = event.key === "Backspace" || (event.key === "z" && (event.ctrlKey || event.metaKey));
    if (undoes) this.undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key in ARROWS) this.#step(ARROWS[event.key], event.shiftKey);
    else if (event.key === " " || event.key === "Enter") this.#togglePen(event.repeat);
    else if (event.key === "Delete") this.clear();
    else if (event.key === "+" || event.key === "-") this.#events.widened(event.key === "+" ? 1 : -1);
    else return;
    event.preventDefault();
  }

  #step([dx, dy], small) {
    if (this.#pointer !== null) return;
    const step = small ? SMALL_STEP : STEP;
    const [x, y] = this.#cursor ?? [CANVAS / 2, CANVAS / 2];
    const inside = (value) => Math.min(Math.max(value, MARGIN), CANVAS - MARGIN);
    this.#cursor = [inside(x + dx * step), inside(y + dy * step)];
    if (this.#penDown) this.#extend(this.#cursor);
    this.#redraw();
  }

  #togglePen(repeated) {
    if (repeated || this.#pointer !== null) return;
    if (this.#penDown) {
      this.#liftPen();
      this.#settle();
      return;
    }
    this.#cursor ??= [CANVAS / 2, CANVAS / 2];
    this.#penDown = true;
    this.#events.pen(true);
    this.#begin([...this.#cursor]);
  }

  #liftPen() {
    if (this.#penDown) this.#events.pen(false);
    this.#penDown = false;
  }

  #hideCursor() {
    if (this.#cursor === null) return;
    const drawing = this.#penDown;
    this.#liftPen();
    this.#cursor = null;
    if (drawing) this.#settle();
    else this.#redraw();
  }

  #change() {
    this.#redraw();
    this.#events.changed(this.lines);
  }

  #settle() {
    this.#redraw();
    this.#events.settled(this.lines);
  }

  #resize() {
    const pixels = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    this.#canvas.width = pixels;
    this.#canvas.height = pixels;
    this.#redraw();
  }

  #redraw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    const context = this.#context;
    const share = this.#canvas.width / CANVAS;
    const colours = getComputedStyle(this.#canvas);
    context.setTransform(share, 0, 0, share, 0, 0);
    context.clearRect(0, 0, CANVAS, CANVAS);
    context.lineCap = "round";
    context.lineJoin = "round";
    context.strokeStyle = colours.getPropertyValue("--ink");
    for (const { width, points } of this.lines) {
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...points[0]);
      for (const point of points) context.lineTo(...point);
      context.stroke();
    }
    if (this.#cursor !== null) this.#paintCursor(colours);
  }

  #paintCursor(colours) {
    const context = this.#context;
    for (const [width, name] of [[5, "--paper"], [2, "--accent"]]) {
      context.lineWidth = width;
      context.strokeStyle = colours.getPropertyValue(name);
      context.beginPath();
      context.arc(...this.#cursor, this.#penDown ? 4 : 12, 0, 2 * Math.PI);
      context.stroke();
    }
  }
}
