// The noise of a seed as `latentart sample` draws it: BLAKE2b seeds a Mersenne Twister, Box and Muller make it normal.

const WORD = (1n << 64n) - 1n;
const START = [0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n];
const ORDERS = ["0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0"];
const MIXED = ["048c", "159d", "26ae", "37bf", "05af", "16bc", "278d", "349e"];
const digits = (text) => Array.from(text, (digit) => parseInt(digit, 16));
const turned = (word, by) => (word >> by) | ((word << (64n - by)) & WORD);

// The seed, 32 bits, that a text of at most 128 letters of ASCII names (RFC 7693, for 8 bytes).
export function seedOf(text) {
  const block = new DataView(new ArrayBuffer(128));
  Array.from(text, (letter, i) => block.setUint8(i, letter.charCodeAt(0)));
  const first = START[0] ^ 0x01010008n, v = [first, ...START.slice(1), ...START];
  v[12] ^= BigInt(text.length);
  v[14] ^= WORD;
  for (let round = 0; round < 12; round++) {
    const order = digits(ORDERS[round % 10]);
    MIXED.map(digits).forEach(([a, b, c, d], i) => {
      for (const [place, by, then] of [[order[2 * i], 32n, 24n], [order[2 * i + 1], 16n, 63n]]) {
        v[a] = (v[a] + v[b] + block.getBigUint64(8 * place, true)) & WORD;
        v[d] = turned(v[d] ^ v[a], by);
        v[c] = (v[c] + v[d]) & WORD;
        v[b] = turned(v[b] ^ v[c], then);
      }
    });
  }
  block.setBigUint64(0, first ^ v[0] ^ v[8], true);
  return Number((block.getBigUint64(0) >> 1n) & 0xffffffffn);
}

function* twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  for (let i = 0; ; i = (i + 1) % 624) {
    const pair = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
    state[i] = state[(i + 397) % 624] ^ (pair >>> 1) ^ (pair & 1 ? 0x9908b0df : 0);
    let word = state[i];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    yield (word ^ (word >>> 18)) >>> 0;
  }
}

function drawNoise(seed, count) {
  const words = twister(seedOf(`(0, 'x_T', ${seed})`)), noise = new Float32Array(count);
  const fill = (from) => {
    const uniform = Array.from({ length: 16 }, () => (words.next().value % 2 ** 24) / 2 ** 24);
    for (let i = 0; i < 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - uniform[i])), angle = 2 * Math.PI * uniform[i + 8];
      noise[from + i] = radius * Math.cos(angle);
      noise[from + i + 8] = radius * Math.sin(angle);
    }
  };
  for (let from = 0; from + 16 <= count; from += 16) fill(from);
  if (count % 16) { // the last 16 are drawn anew
    for (let i = 0; i < count % 16; i++) words.next();
    fill(count - 16);
  }
  return noise;
}

// The noise of 7, of 3.25, which lies between two seeds, or of [start, end, share], as --seed takes them.
export function noiseOf(seed, count) {
  if (Number.isInteger(seed)) return drawNoise(seed, count);
  const base = Math.floor(seed), [from, to, share] = Array.isArray(seed) ? seed : [base, base + 1, seed - base];
  const start = noiseOf(from, count), end = noiseOf(to, count);
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const cos = dot(start, end) / Math.sqrt(dot(start, start) * dot(end, end));
  const theta = Math.acos(Math.min(1, Math.max(-1, cos)));
  const [a, b] = [1 - share, share].map((part) => (Math.sin(theta) > 1e-6 ? Math.sin(part * theta) / Math.sin(theta) : part));
  return start.map((value, i) => a * value + b * end[i]);
}
