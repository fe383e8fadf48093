// The numerals in which the page answers, as strokes of a pen in a box of 100 x 140.

export const NUMERALS = [
  ["M50 14C24 14 15 44 15 70C15 96 24 126 50 126C76 126 85 96 85 70C85 44 76 14 50 14Z"],
  ["M28 36L56 14L56 126"],
  ["M18 42C18 25 31 14 50 14C69 14 81 26 81 43C81 72 36 94 18 126L84 126"],
  ["M19 30C26 19 37 14 50 14C68 14 79 25 79 40C79 57 66 66 45 66C70 66 85 77 85 96C85 114 70 126 49 126C34 126 22 120 14 108"],
  ["M60 14L14 92L88 92", "M66 58L66 126"],
  ["M78 14L30 14L24 65C33 58 42 55 51 55C72 55 86 68 86 89C86 112 70 126 49 126C34 126 22 120 14 108"],
  ["M70 14C40 28 17 56 17 88C17 112 31 126 51 126C71 126 85 112 85 91C85 72 71 59 52 59C36 59 23 69 18 84"],
  ["M16 14L84 14C62 48 48 84 42 126"],
  ["M50 66C31 62 20 52 20 38C20 23 32 14 50 14C68 14 80 23 80 38C80 52 69 61 50 66C29 72 16 82 16 98C16 115 30 126 50 126C70 126 84 115 84 98C84 82 71 72 50 66Z"],
  ["M30 126C60 112 83 84 83 52C83 28 69 14 49 14C29 14 15 28 15 49C15 68 29 81 48 81C64 81 77 71 82 56"],
];
export const QUESTION = ["M24 42C24 25 34 14 51 14C68 14 78 25 78 40C78 62 51 64 51 92", "M51 124L51 124.5"];
export const ALARM = ["M50 14L50 88", "M50 124L50 124.5"];

/** Draw strokes into an <svg>; each is a new element, so that its motion begins anew. */
export function write(svg, paths) {
  svg.replaceChildren(...paths.map((path) => {
    const stroke = document.createElementNS("http://www.w3.org/2000/svg", "path");
    stroke.setAttribute("d", path);
    stroke.style.setProperty("--length", String(Math.ceil(stroke.getTotalLength())));
    return stroke;
  }));
}
