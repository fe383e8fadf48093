// The drawing area: strokes by pointer or by keyboard, kept as lines of points on a square of
// 280 units, whatever the size of the screen.

import { CANVAS, Painted, enlarge } from "/static/drawing.js";

const STEP = 10;
const SMALL_STEP = 2;
const MARGIN = 10;
const MOST_POINTS = 20000;
const MOST_UNDONE = 500;
const PEN_ERASER = 32; // in `buttons`: the other end of a pen
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * A drawing area, and the nib that shows where and how wide it draws. Of `events`,
 * `changed(lines)` is called once a frame while drawing, `settled(lines)` after each stroke,
 * `pen(down)` and `key(name)` for what the keyboard asks of others.
 */
export class Pad {
  lines = [];
  #past = [];
  #future = [];
  #width = 20;
  #erasing = false;
  #canvas;
  #nib;
  #events;
  #context;
  #painted = new Painted();
  #pointer = null;
  #cursor = null;
  #penDown = false;
  #frame = 0;
  #news = false;

  constructor(canvas, nib, events) {
    this.#canvas = canvas;
    this.#nib = nib;
    this.#events = events;
    this.#context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerleave", () => this.#showNib(null));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(end, (event) => this.#release(event));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#hideCursor());
    new ResizeObserver(() => this.#resize()).observe(canvas);
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => this.#repaint());
    }
  }

  get width() { return this.#width; }

  set width(width) {
    this.#width = width;
    this.#showNib(this.#cursor);
  }

  get erasing() { return this.#erasing; }

  set erasing(erasing) {
    this.#liftPen();
    this.#erasing = erasing;
    this.#nib.classList.toggle("erases", erasing);
  }

  get undoable() { return this.#past.length > 0; }

  get redoable() { return this.#future.length > 0; }

  undo() { this.#travel(this.#past, this.#future); }

  redo() { this.#travel(this.#future, this.#past); }

  clear() {
    this.#liftPen();
    if (this.lines.length === 0) return;
    this.#keep([]);
    this.#settle();
  }

  /** Put a sample digit, of 8x8 levels, in place of the drawing. */
  show(cells) {
    this.#liftPen();
    this.#keep([{ cells }]);
    this.#settle();
  }

  #travel(from, to) {
    this.#liftPen();
    if (from.length === 0 || this.#pointer !== null) return;
    to.push(this.lines);
    this.lines = from.pop();
    this.#settle();
  }

  #keep(lines) {
    this.#past.push(this.lines);
    if (this.#past.length > MOST_UNDONE) this.#past.shift();
    this.#future = [];
    this.lines = lines;
  }

  #press(event) {
    const eraser = (event.buttons & PEN_ERASER) !== 0;
    if (!event.isPrimary || (event.button !== 0 && !eraser)) return;
    this.#hideCursor();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.#begin(this.#place(event), this.#erasing || eraser);
  }

  #move(event) {
    this.#showNib(event.pointerType === "touch" ? null : this.#place(event));
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

  #begin(point, erases) {
    this.#keep([...this.lines, { width: this.#width, erases, points: [point] }]);
    this.#change();
  }

  #extend(point) {
    const { points } = this.lines.at(-1);
    const [x, y] = points.at(-1);
    if (points.length >= MOST_POINTS || Math.hypot(point[0] - x, point[1] - y) < 1) return;
    points.push(point);
    this.#change();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) this.#step(ARROWS[event.key], event.shiftKey);
    else if (event.key === " " || event.key === "Enter") this.#togglePen(event.repeat);
    else if (event.key === "Backspace") this.undo();
    else if (event.key === "Delete") this.clear();
    else if (!this.#events.key(event.key)) return;
    event.preventDefault();
  }

  #step([dx, dy], small) {
    if (this.#pointer !== null) return;
    const step = small ? SMALL_STEP : STEP;
    const [x, y] = this.#cursor ?? [CANVAS / 2, CANVAS / 2];
    const inside = (value) => Math.min(Math.max(value, MARGIN), CANVAS - MARGIN);
    this.#cursor = [inside(x + dx * step), inside(y + dy * step)];
    this.#showNib(this.#cursor);
    if (this.#penDown) this.#extend(this.#cursor);
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
    this.#showNib(this.#cursor);
    this.#begin([...this.#cursor], this.#erasing);
  }

  #liftPen() {
    if (this.#penDown) this.#events.pen(false);
    this.#penDown = false;
    this.#nib.classList.remove("down");
  }

  #hideCursor() {
    if (this.#cursor === null) return;
    const drawing = this.#penDown;
    this.#liftPen();
    this.#cursor = null;
    this.#showNib(null);
    if (drawing) this.#settle();
  }

  #showNib(point) {
    const nib = this.#nib;
    nib.hidden = point === null;
    if (point === null) return;
    nib.classList.toggle("keys", point === this.#cursor);
    nib.classList.toggle("down", this.#penDown);
    const scale = this.#canvas.clientWidth / CANVAS;
    const [x, y] = point.map((value) => value * scale);
    nib.style.width = nib.style.height = `${this.#width * scale}px`;
    nib.style.transform = `translate(${x}px, ${y}px) translate(-50%, -50%)`;
  }

  #change() {
    this.#news = true;
    this.#redraw();
  }

  #settle() {
    this.#news = false;
    this.#redraw();
    this.#events.settled(this.lines);
  }

  #resize() {
    const pixels = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    if (pixels === this.#canvas.width) return;
    [this.#canvas.width, this.#canvas.height] = [pixels, pixels];
    this.#repaint();
  }

  #repaint() {
    this.#painted.forget();
    this.#redraw();
  }

  #redraw() {
    this.#frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = 0;
    const context = this.#context;
    const share = this.#canvas.width / CANVAS;
    const ink = getComputedStyle(this.#canvas).color;
    context.setTransform(share, 0, 0, share, 0, 0);
    context.lineCap = "round";
    context.strokeStyle = context.fillStyle = ink;
    const restart = () => context.clearRect(0, 0, CANVAS, CANVAS);
    for (const { line, from, to } of this.#painted.news(this.lines, restart)) {
      context.globalCompositeOperation = line.erases ? "destination-out" : "source-over";
      context.lineWidth = line.width;
      context.beginPath();
      if (line.cells) {
        context.drawImage(sampleInInk(line.cells, CANVAS, ink), 0, 0);
      } else if (from === to) {
        context.arc(...from, line.width / 2, 0, 2 * Math.PI);
        context.fill();
      } else {
        context.moveTo(...from);
        context.lineTo(...to);
        context.stroke();
      }
    }
    if (this.#news) this.#events.changed(this.lines);
    this.#news = false;
  }
}

/** Return a canvas of `side` pixels with a sample digit in a colour, on nothing. */
export function sampleInInk(cells, side, colour) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [side, side];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(side, side);
  enlarge(cells, side).forEach((level, at) => { pixels.data[4 * at + 3] = level; });
  context.putImageData(pixels, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, side, side);
  return canvas;
}
