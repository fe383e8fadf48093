// From strokes to the 28x28 image that the model reads. `strokes`, `fitted` and `place` are the
// twins, byte for byte, of those in purpleteam.data.drawing, whose docstrings explain each step; a
// test holds them together. The strokes are painted here and not read back from a canvas: browsers
// smooth differently, and some add noise to what is read back.
//
// A line is {width, erases, points: [[x, y], ...]}, or {cells}: a sample digit of 8x8 levels.

export const FIELD = 28;
export const CANVAS = 280;
const BOX = 20;
const INK = 64;
const FRAME = 200;
const SHORTEST = 16;
const UPRIGHT = -0.13;
const MOST_SLANT = 1;
const PENS = [20, 28];
const SLACK = 0.05; // while a stroke grows, the preview may be so much off its final size
const SAMPLE = { side: 8, share: 240 / 280, low: 6.8, high: 7.6 }; // levels from 0 to 16

/** Remembers what of some lines was painted, so that each point is painted but once. */
export class Painted {
  #lines = [];
  #points = 0;

  /** Yield {line, from, to} for what is new; first `restart` where something was taken back. */
  *news(lines, restart = () => {}) {
    if (this.#lines.some((line, at) => line !== lines[at])) this.forget();
    if (this.#lines.length === 0) restart();
    for (let at = Math.max(this.#lines.length - 1, 0); at < lines.length; at += 1) {
      const line = lines[at];
      if (this.#lines[at] !== line) [this.#lines[at], this.#points] = [line, 0];
      if (line.cells) {
        if (this.#points === 0) yield { line };
        this.#points = 1;
        continue;
      }
      for (; this.#points < line.points.length; this.#points += 1) {
        const from = line.points[Math.max(this.#points - 1, 0)];
        yield { line, from, to: line.points[this.#points] };
      }
    }
  }

  forget() {
    [this.#lines, this.#points] = [[], 0];
  }
}

/** The 280x280 grey levels of fitted lines; a look costs what is new since the last one. */
export class Raster {
  levels = new Uint8Array(CANVAS * CANVAS);
  #painted = new Painted();
  #path = new Path();
  #fit = null;

  /** Return the levels; where `growing`, they may be off their final size by `SLACK`. */
  follow(lines, growing = false) {
    let anew = false;
    const news = [...this.#painted.news(lines, () => { anew = true; })];
    if (anew) this.#path = new Path();
    for (const { line, from, to } of news) this.#path.add(line, from, to);
    const fit = this.#path.fit();
    if (anew || unlike(fit, this.#fit) > (growing ? SLACK : 0)) {
      this.#fit = fit;
      this.levels.fill(0);
      for (const one of new Painted().news(lines)) this.#paint(one);
    } else {
      for (const one of news) this.#paint(one);
    }
    return this.levels;
  }

  /** The longest side of the pen's path as it was drawn. */
  get longest() {
    return this.#path.longest;
  }

  #paint({ line, from, to }) {
    if (line.cells) stamp(this.levels, line.cells);
    else {
      const [start, end] = [moved(from, this.#fit), moved(to, this.#fit)];
      paint(this.levels, start, end, penOf(line, this.#fit), line.erases);
    }
  }
}

/** Where the ink of some lines goes, and how it is brought upright, to one size and place. */
class Path {
  #points = [];
  #still = false; // a sample stays where it is, and what is drawn on it
  #length = 0; // and the moments of the path
  #x = 0;
  #y = 0;
  #across = 0;
  #down = 0;

  add(line, from, to) {
    if (line.cells) this.#still = true;
    if (line.cells || line.erases) return;
    this.#points.push(to);
    const [stepX, stepY] = [to[0] - from[0], to[1] - from[1]];
    const [x, y] = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2];
    const far = Math.sqrt(stepX * stepX + stepY * stepY);
    this.#length += far;
    this.#x += far * x;
    this.#y += far * y;
    this.#across += far * (x * y + (stepX * stepY) / 12);
    this.#down += far * (y * y + (stepY * stepY) / 12);
  }

  get longest() {
    return this.#still ? CANVAS : this.#extent(0).longest;
  }

  /** How far the path goes to the right for each pixel downwards. */
  get #slant() {
    const spread = this.#down * this.#length - this.#y * this.#y;
    return spread > 0 ? (this.#across * this.#length - this.#x * this.#y) / spread : 0;
  }

  #extent(shear) {
    const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
    for (const [x, y] of this.#points) {
      const there = x - shear * y;
      low[0] = Math.min(low[0], there);
      high[0] = Math.max(high[0], there);
      low[1] = Math.min(low[1], y);
      high[1] = Math.max(high[1], y);
    }
    return { low, high, longest: Math.max(high[0] - low[0], high[1] - low[1]) };
  }

  fit() {
    if (this.#still || this.#points.length === 0) {
      return { shear: 0, scale: 1, x: 0, y: 0, pens: [0, CANVAS] };
    }
    const shear = (Math.min(Math.max(this.#slant, -MOST_SLANT), MOST_SLANT) - UPRIGHT) / 2;
    const { low, high, longest } = this.#extent(shear);
    const scale = FRAME / Math.max(longest, SHORTEST);
    const [x, y] = low.map((one, axis) => CANVAS / 2 - ((one + high[axis]) / 2) * scale);
    return { shear, scale, x, y, pens: PENS };
  }
}

function unlike(fit, other) {
  const corners = [[0, 0], [0, CANVAS]].map((point) => [moved(point, fit), moved(point, other)]);
  const shifts = corners.flatMap(([[x, y], [otherX, otherY]]) => [x - otherX, y - otherY]);
  const shift = Math.max(...shifts.map(Math.abs)) / FRAME;
  return Math.max(shift, Math.abs(fit.scale / other.scale - 1));
}

function moved([x, y], fit) {
  return [(x - fit.shear * y) * fit.scale + fit.x, y * fit.scale + fit.y];
}

/** A pen grows with its drawing, and is kept to widths that can be read; an eraser only grows. */
function penOf({ width, erases }, { scale, pens }) {
  return erases ? width * scale : Math.min(Math.max(width * scale, pens[0]), pens[1]);
}

/** Bring lines to one size and place, and to pens that can be read. */
export function fitted(lines) {
  const path = new Path();
  for (const { line, from, to } of new Painted().news(lines)) path.add(line, from, to);
  const fit = path.fit();
  return lines.map((line) => ({
    ...line,
    width: penOf(line, fit),
    points: line.points.map((point) => moved(point, fit)),
  }));
}

/** Paint lines on a fresh canvas of 280x280 levels. */
export function strokes(lines) {
  const levels = new Uint8Array(CANVAS * CANVAS);
  for (const { line, from, to } of new Painted().news(lines)) {
    paint(levels, from, to, line.width, line.erases);
  }
  return levels;
}

/** Paint one segment with a round, anti-aliased brush; the brightest stroke counts. */
function paint(levels, from, to, width, erases = false) {
  const reach = width / 2 + 0.5;
  const [startX, startY] = from;
  const stepX = to[0] - startX;
  const stepY = to[1] - startY;
  const squared = stepX * stepX + stepY * stepY;
  const [left, right] = span(startX, to[0], reach);
  const [top, bottom] = span(startY, to[1], reach);
  for (let y = top; y <= bottom; y += 1) {
    for (let x = left; x <= right; x += 1) { // no arrays in here: it runs for each pixel
      const dx = x + 0.5 - startX;
      const dy = y + 0.5 - startY;
      const along = squared ? (dx * stepX + dy * stepY) / squared : 0;
      const share = Math.min(Math.max(along, 0), 1);
      const gapX = dx - share * stepX;
      const gapY = dy - share * stepY;
      const distance = Math.sqrt(gapX * gapX + gapY * gapY); // hypot may differ in its last bit
      if (distance >= reach) continue;
      const level = Math.floor(Math.min(reach - distance, 1) * 255 + 0.5);
      const at = y * CANVAS + x;
      if (erases) levels[at] = Math.min(levels[at], 255 - level);
      else if (level > levels[at]) levels[at] = level;
    }
  }
}

function span(first, second, reach) {
  const low = Math.floor(Math.min(first, second) - reach);
  const high = Math.ceil(Math.max(first, second) + reach);
  return [Math.max(low, 0), Math.min(high, CANVAS - 1)];
}

function stamp(levels, cells) {
  enlarge(cells, CANVAS).forEach((level, at) => {
    if (level > levels[at]) levels[at] = level;
  });
}

/** Return a sample's grey levels on a square of `side` pixels: a spline with a clear edge. */
export function enlarge(cells, side) {
  const { share, low, high } = SAMPLE;
  const cell = (side * share) / SAMPLE.side;
  const taps = Array.from({ length: side }, (_, pixel) =>
    tapsAt((pixel + 0.5 - (side * (1 - share)) / 2) / cell - 0.5));
  const levels = new Uint8ClampedArray(side * side); // rounds, and keeps within 0 and 255
  const row = new Float64Array(SAMPLE.side);
  for (let y = 0; y < side; y += 1) {
    row.fill(0);
    for (const [at, weight] of taps[y]) {
      for (let x = 0; x < SAMPLE.side; x += 1) row[x] += weight * cells[SAMPLE.side * at + x];
    }
    for (let x = 0; x < side; x += 1) {
      let value = 0;
      for (const [at, weight] of taps[x]) value += weight * row[at];
      levels[y * side + x] = ((value - low) / (high - low)) * 255;
    }
  }
  return levels;
}

/** Return the cells that a quadratic B-spline takes at a place, each with its weight. */
function tapsAt(place) {
  const nearest = Math.round(place);
  const weights = [nearest - 1, nearest, nearest + 1].map((at) => {
    const distance = Math.abs(place - at);
    return [at, distance < 0.5 ? 0.75 - distance * distance : 0.5 * (1.5 - distance) ** 2];
  });
  return weights.filter(([at]) => at >= 0 && at < SAMPLE.side);
}

/** Return the 784 bytes that MNIST would have made of a drawing; null where there is no ink. */
export function place(levels, width, height) {
  const box = inkBox(levels, width, height);
  if (box === null) return null;
  const longest = Math.max(box.rows, box.columns);
  const rows = scaled(box.rows, longest);
  const columns = scaled(box.columns, longest);
  const cells = contrast(areaSums(levels, width, box, rows, columns));
  const byRow = new Array(rows).fill(0);
  const byColumn = new Array(columns).fill(0);
  cells.forEach((cell, at) => {
    byRow[Math.floor(at / columns)] += cell;
    byColumn[at % columns] += cell;
  });
  const [top, left] = [offset(byRow), offset(byColumn)];
  const placed = new Uint8Array(FIELD * FIELD);
  cells.forEach((cell, at) => {
    placed[(top + Math.floor(at / columns)) * FIELD + left + (at % columns)] = cell;
  });
  return placed;
}

function inkBox(levels, width, height) {
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let y = 0; y < height; y += 1) {
    const start = y * width;
    let first = 0;
    while (first < width && levels[start + first] < INK) first += 1;
    if (first === width) continue;
    let last = width - 1;
    while (levels[start + last] < INK) last -= 1;
    if (bottom < 0) top = y;
    bottom = y;
    left = Math.min(left, first);
    right = Math.max(right, last);
  }
  if (bottom < 0) return null;
  return { top, left, rows: bottom - top + 1, columns: right - left + 1 };
}

function scaled(side, longest) {
  return Math.max(1, Math.floor((2 * BOX * side + longest) / (2 * longest)));
}

/** Return what each cell of rows x columns collects of the levels that it covers. */
function areaSums(levels, width, box, rows, columns) {
  const across = new Float64Array(box.rows * columns);
  for (let y = 0; y < box.rows; y += 1) {
    const start = (box.top + y) * width + box.left;
    share({ from: levels, start, step: 1, count: box.columns }, columns, across, y * columns, 1);
  }
  const sums = new Float64Array(rows * columns);
  for (let k = 0; k < columns; k += 1) {
    share({ from: across, start: k, step: columns, count: box.rows }, rows, sums, k, columns);
  }
  return sums;
}

/** Share `count` values out to `cells`, each in units of 1/cells of a value. */
function share({ from, start, step, count }, cells, sums, at, stride) {
  let [value, whole, before] = [0, 0, 0];
  for (let cell = 1; cell <= cells; cell += 1) {
    const end = Math.floor((cell * count) / cells);
    for (; value < end; value += 1) whole += from[start + value * step];
    const part = (cell * count) % cells;
    const total = whole * cells + (part === 0 ? 0 : from[start + value * step] * part);
    sums[at + (cell - 1) * stride] = total - before;
    before = total;
  }
}

function contrast(sums) {
  const peak = sums.reduce((high, sum) => Math.max(high, sum), 0);
  return sums.map((sum) => Math.floor((510 * sum + peak) / (2 * peak)));
}

function offset(profile) {
  const mass = profile.reduce((total, part) => total + part, 0);
  const moment = profile.reduce((total, part, at) => total + part * at, 0);
  const start = -Math.floor((2 * moment - (FIELD - 1) * mass) / (2 * mass));
  return Math.min(Math.max(start, 0), FIELD - profile.length);
}
