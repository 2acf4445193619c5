// u <- u + (q/L)(1 - u^L) u^(L-1), its exact two-cycle, and the lower root of the printed g (factor L too many).
const power = (u, n) => { let p = 1; for (let k = 0; k < n; k++) p *= u; return p; };
const q = rate.value, L = depth.value, steps = 2000;
const next = (u, q) => u + (q / L) * (1 - power(u, L)) * power(u, L - 1);
const orbit = [start.value];
while (orbit.length <= steps && Math.abs(orbit[orbit.length - 1]) < 1e3) orbit.push(next(orbit[orbit.length - 1], q));
const diverged = orbit.length <= steps;

const bisect = (f, low, high) => {
  const rising = f(high) > 0;
  for (let k = 0; k < 200; k++) { const mid = (low + high) / 2; if ((f(mid) > 0) === rising) high = mid; else low = mid; }
  return (low + high) / 2;
};
// The branch: z = upper / lower value, q as a function of it, increasing from 2.
const lower = (z) => Math.pow((1 + power(z, L - 1)) / (1 + power(z, 2 * L - 1)), 1 / L);
const rateOf = (z) => { const u = lower(z); return L * (z - 1) / ((1 - power(u, L)) * power(u, L - 2)); };
let pair = [];
if (q > 2.0005) { const z = bisect((z) => rateOf(z) - q, 1 + 1e-9, 8); pair = [lower(z), z * lower(z)]; }
const printedG = (u) => { const z = 1 + q * (1 - power(u, L)) * power(u, L - 2); return power(u, L) * (1 + power(z, 2 * L - 1)) / (1 + power(z, L - 1)) - 1; };
let root = NaN;
for (let u = 0.02; u < 0.99; u += 0.001) if (printedG(u) < 0 && printedG(u + 0.001) >= 0) { root = bisect(printedG, u, u + 0.001); break; }

const grid = Array.from({ length: 171 }, (_, k) => k / 100);
curve.data = { x: grid, y: grid.map((u) => next(u, q)) };
const web = { x: [orbit[0]], y: [0] };
const shown = orbit.length > 140 ? orbit.slice(0, 40).concat(orbit.slice(-60)) : orbit;
for (let t = 0; t + 1 < shown.length; t++) { web.x.push(shown[t], shown[t]); web.y.push(shown[t], next(shown[t], q)); }
cobweb.data = web;
const first = orbit.slice(0, 120);
series.data = { x: first.map((_, t) => t), y: first };
cycle.data = { x: pair, y: pair.slice().reverse() };
printed.data = Number.isNaN(root) ? { x: [], y: [] } : { x: [root], y: [next(root, q)] };
const tree = { x: [], y: [] };
for (let k = 0; k <= 290; k++) {
  const r = 1.5 + k / 100;
  let u = start.value;
  for (let t = 0; t < 500 && Math.abs(u) < 10; t++) u = next(u, r);
  for (let t = 0; t < 24 && Math.abs(u) < 10; t++) { u = next(u, r); tree.x.push(r); tree.y.push(u); }
}
diagram.data = tree;
cursor.location = q;
const last = orbit[orbit.length - 1], before = orbit[orbit.length - 2];
const digits = (x) => x.toFixed(6);
text.text = `<p role="status">After ${steps} steps: ${diverged ? "diverged" : `${digits(before)}, then ${digits(last)}`}. `
  + (pair.length ? `Exact two-cycle: ${digits(pair[0])} and ${digits(pair[1])}` : "No two-cycle: the minimum attracts up to q = 2")
  + (pair.length && !Number.isNaN(root) ? `; lower root of the printed g: ${digits(root)}.</p>` : ".</p>");
state.data = { key: ["q", "depth", "start", "last", "before", "low", "high", "printed"], value: [q, L, start.value, last, before, pair[0] ?? NaN, pair[1] ?? NaN, root] };
