// From strokes to the 28x28 image that the model reads. `place` and `fitted` are the twins, byte for
// byte, of purpleteam.data.drawing, whose docstrings explain each step; a test holds them together.
// The strokes are painted here and not read back from a canvas: browsers smooth differently,
// and some add noise to what is read back.

export const FIELD = 28;
export const CANVAS = 280;
const BOX = 20;
const INK = 64;
const FRAME = 200;
const SHORTEST = 16;
const PENS = [20, 28];

/** Paint one segment with a round, anti-aliased brush; the brightest stroke counts. */
export function paint(levels, from, to, width) {
  const reach = width / 2 + 0.5;
  const [stepX, stepY] = [to[0] - from[0], to[1] - from[1]];
  const squared = stepX * stepX + stepY * stepY;
  const [left, right] = span(from[0], to[0], reach);
  const [top, bottom] = span(from[1], to[1], reach);
  for (let y = top; y <= bottom; y += 1) {
    for (let x = left; x <= right; x += 1) {
      const [dx, dy] = [x + 0.5 - from[0], y + 0.5 - from[1]];
      const along = squared ? (dx * stepX + dy * stepY) / squared : 0;
      const share = Math.min(Math.max(along, 0), 1);
      const [gapX, gapY] = [dx - share * stepX, dy - share * stepY];
      const distance = Math.sqrt(gapX * gapX + gapY * gapY); // hypot may differ in its last bit
      const level = Math.floor(Math.min(Math.max(reach - distance, 0), 1) * 255 + 0.5);
      const at = y * CANVAS + x;
      if (level > levels[at]) levels[at] = level;
    }
  }
}

function span(first, second, reach) {
  const low = Math.floor(Math.min(first, second) - reach);
  const high = Math.ceil(Math.max(first, second) + reach);
  return [Math.max(low, 0), Math.min(high, CANVAS - 1)];
}

/** Paint lines of [x, y] points, each {width, points}, on a fresh canvas of 280x280 levels. */
export function strokes(lines) {
  const levels = new Uint8Array(CANVAS * CANVAS);
  for (const { width, points } of lines) {
    points.forEach((point, at) => paint(levels, points[Math.max(at - 1, 0)], point, width));
  }
  return levels;
}

/** Bring lines, each {width, points}, to one size and place, and to pens that can be read. */
export function fitted(lines) {
  const [left, right] = extent(lines, 0);
  const [top, bottom] = extent(lines, 1);
  const scale = FRAME / Math.max(right - left, bottom - top, SHORTEST);
  const [shiftX, shiftY] = [[left, right], [top, bottom]].map(([low, high]) =>
    CANVAS / 2 - ((low + high) / 2) * scale);
  return lines.map((line) => ({
    ...line,
    width: Math.min(Math.max(line.width * scale, PENS[0]), PENS[1]),
    points: line.points.map(([x, y]) => [x * scale + shiftX, y * scale + shiftY]),
  }));
}

function extent(lines, axis) {
  let [low, high] = [Infinity, -Infinity];
  for (const { points } of lines) {
    for (const point of points) [low, high] = [Math.min(low, point[axis]), Math.max(high, point[axis])];
  }
  return [low, high];
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
    for (let x = 0; x < width; x += 1) {
      if (levels[y * width + x] < INK) continue;
      top = Math.min(top, y);
      bottom = y;
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
  }
  if (bottom < 0) return null;
  return { top, left, rows: bottom - top + 1, columns: right - left + 1 };
}

function scaled(side, longest) {
  return Math.max(1, Math.floor((2 * BOX * side + longest) / (2 * longest)));
}

function cover(pixel, cell, pixels, cells) {
  const end = Math.min((pixel + 1) * cells, (cell + 1) * pixels);
  return Math.max(0, end - Math.max(pixel * cells, cell * pixels));
}

function areaSums(levels, width, box, rows, columns) {
  const sums = new Float64Array(rows * columns);
  for (let y = 0; y < box.rows; y += 1) {
    const across = rowSums(levels, (box.top + y) * width + box.left, box.columns, columns);
    const [first, last] = cellsOf(y, box.rows, rows);
    for (let j = first; j <= last; j += 1) {
      const share = cover(y, j, box.rows, rows);
      for (let k = 0; k < columns; k += 1) sums[j * columns + k] += share * across[k];
    }
  }
  return sums;
}

function rowSums(levels, start, pixels, cells) {
  const sums = new Float64Array(cells);
  for (let x = 0; x < pixels; x += 1) {
    const [first, last] = cellsOf(x, pixels, cells);
    for (let k = first; k <= last; k += 1) {
      sums[k] += cover(x, k, pixels, cells) * levels[start + x];
    }
  }
  return sums;
}

/** Return the first and the last cell that a pixel may lie on. */
function cellsOf(pixel, pixels, cells) {
  const first = Math.floor((pixel * cells) / pixels);
  return [first, Math.min(cells - 1, Math.floor(((pixel + 1) * cells) / pixels))];
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
