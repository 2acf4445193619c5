// Gradient descent on 1/2 |W_L ... W_1 - diag(1, ratio)|^2 with 2 x 2 layers, balanced, and one off-diagonal seed.
const L = depth.value, r = Math.round(ratio.value * 100) / 100, q = rate.value, eta = q / L, steps = 4000;
const mul = (A, B) => [A[0] * B[0] + A[1] * B[2], A[0] * B[1] + A[1] * B[3], A[2] * B[0] + A[3] * B[2], A[2] * B[1] + A[3] * B[3]];
const flip = (A) => [A[0], A[2], A[1], A[3]];
const seedSize = view.active === 2 ? 0 : Math.pow(10, -seed.value);
let W = Array.from({ length: L }, () => [1.02, 0, 0, Math.pow(r, 1 / L)]);
W[0][1] = seedSize;
const product = (W) => W.reduce((P, A) => mul(A, P), [1, 0, 0, 1]);
const record = { x: [], y: [] }, modes = [[], []];
let P = product(W);
let probe = P.slice();
for (let t = 0; t <= steps; t++) {
  if (t === 200) probe = P.slice();
  if (t % 10 === 0) { record.x.push(t); record.y.push(Math.log10(Math.max(Math.abs(P[1]), 1e-18))); }
  if (t > steps - 80) {
    const s = Math.hypot(P[0] + P[3], P[1] - P[2]), d = Math.hypot(P[0] - P[3], P[1] + P[2]);
    const pair = view.active === 0 ? [(s + d) / 2, Math.abs(s - d) / 2] : [P[0], P[3]];
    modes[0].push(pair[0]); modes[1].push(pair[1]);
  }
  const R = [P[0] - 1, P[1], P[2], P[3] - r];
  const left = [[1, 0, 0, 1]], right = [[1, 0, 0, 1]];
  for (let k = 0; k + 1 < L; k++) right.push(mul(W[k], right[k]));
  for (let k = L - 1; k > 0; k--) left.unshift(mul(left[0], W[k]));
  W = W.map((A, k) => { const G = mul(mul(flip(left[k]), R), flip(right[k])); return A.map((a, i) => a - eta * G[i]); });
  P = product(W);
}
const times = modes[0].map((_, t) => steps - 79 + t);
first.data = { x: times, y: modes[0] };
other.data = { x: times, y: modes[1] };
off.data = record;
const row = table.data.ratio.findIndex((x, k) => Math.abs(x - r) < 1e-9 && table.data.depth[k] === L);
const turn = table.data.eta_t[row], second = table.data.second[row];
at_eta_t.location = turn; at_second.location = second; cursor.location = q;
const moved = record.y[record.y.length - 1] > -2;
text.text = `<p role="status">Second eigenvalue: q = ${second.toFixed(4)} (purple). Alignment is lost from q = ${turn.toFixed(4)} on (blue). `
  + `At q = ${q.toFixed(3)} the off-diagonal entry ${seedSize === 0 ? "is zero and stays zero" : moved ? "has grown: both values move" : "has not grown in 4000 steps"}.</p>`;
state.data = { key: ["q", "ratio", "depth", "seed", "p00", "p01", "p10", "p11", "eta_t", "second"], value: [q, r, L, seedSize, ...probe, turn, second] };
