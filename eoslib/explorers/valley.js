// Gradient descent on 1/2 (ab - 1)^2, the minima ab = 1 coloured by their sharpness a^2 + b^2 against 2/eta.
const eta = rate.value, steps = 300;
let a = first.value, b = second.value;
if (start.data.x[0] !== a || start.data.y[0] !== b) start.data = { x: [a], y: [b] };
const top = (a, b) => { const c = 2 * a * b - 1; return (a * a + b * b) / 2 + Math.hypot((a * a - b * b) / 2, c); };
const trace = { a: [a], b: [b] };
for (let t = 0; t < steps; t++) {
  const r = a * b - 1;
  [a, b] = [a - eta * r * b, b - eta * r * a];
  if (!(Math.abs(a) < 1e6 && Math.abs(b) < 1e6)) break;
  trace.a.push(a); trace.b.push(b);
}
const t = trace.a.map((_, k) => k), at = (f) => t.map((k) => f(trace.a[k], trace.b[k]));
const log = (x) => Math.log10(Math.max(x, 1e-18));
path.data = { x: trace.a, y: trace.b };
loss.data = { x: t, y: at((a, b) => log((a * b - 1) ** 2 / 2)) };
sharpness.data = { x: t, y: at(top) };
gap.data = { x: t, y: at((a, b) => log(Math.abs(a * a - b * b))) };
edge.data = { x: [0, t.length], y: [2 / eta, 2 / eta] };
const low = { x: [], y: [] }, high = { x: [], y: [] };
for (let x = 0.32; x < 3.15; x += 0.01) {
  const tame = x * x + 1 / (x * x) < 2 / eta;
  (tame ? low : high).x.push(x); (tame ? low : high).y.push(1 / x);
  (tame ? high : low).x.push(NaN); (tame ? high : low).y.push(NaN);
}
flat.data = low; sharp.data = high;
const end = t.length - 1, diverged = end < steps;
text.text = `<p role="status">2/η = ${(2 / eta).toFixed(3)}. ` + (diverged ? `Diverged after ${end} steps.</p>`
  : `After ${steps} steps: sharpness ${top(a, b).toFixed(3)}, gap a² − b² = ${(a * a - b * b).toExponential(2)}, at first ${(first.value ** 2 - second.value ** 2).toFixed(2)}.</p>`);
state.data = { key: ["eta", "a0", "b0", "a", "b", "sharpness"], value: [eta, first.value, second.value, trace.a[end], trace.b[end], top(trace.a[end], trace.b[end])] };
