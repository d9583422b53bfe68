// Numbers, times and names as the page writes them: missing is –, a minus is a minus, NaN is a word.

export const MISSING = '–';
const THIN = '\u2009';

const minus = (text) => text.replace('-', '−');

export const missing = (v) => v === null || v === undefined;

export function fixed(v, digits) {
  if (missing(v)) return MISSING;
  if (typeof v === 'string') return minus(v);
  const text = v.toFixed(digits);
  return minus(Number(text) === 0 ? text.replace('-', '') : text);
}

export function signed(v, digits) {
  const text = fixed(v, digits);
  return typeof v === 'number' && Number(v.toFixed(digits)) > 0 ? `+${text}` : text;
}

// A head's gradient norm: three decimals, one from ten on.
export const norm = (v) => fixed(v, typeof v === 'number' && Math.abs(v) >= 10 ? 1 : 3);

export const plural = (n, one) => `${whole(n)} ${one}${n === 1 ? '' : 's'}`;

// Three significant digits without an exponent where that reads well.
export function short(v) {
  if (missing(v) || typeof v === 'string') return fixed(v, 0);
  const size = Math.abs(v);
  if (size === 0) return '0';
  if (size >= 1e6 || size < 1e-3) return scientific(v);
  return fixed(v, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

export function scientific(v) {
  if (missing(v) || typeof v === 'string') return fixed(v, 0);
  if (v === 0) return '0';
  return v.toExponential(2).replace('e+', 'e').replace(/-/g, '−');
}

export const percent = (share, digits = 1) =>
  missing(share) || typeof share === 'string' ? fixed(share) : `${fixed(share * 100, digits)}${THIN}%`;

export function whole(v) {
  if (missing(v) || typeof v === 'string') return fixed(v, 0);
  if (Math.abs(v) >= 1e6) return `${fixed(v / 1e6, 1)}${THIN}M`;
  return minus(Math.round(v).toString().replace(/\B(?=(\d{3})+(?!\d))/g, THIN));
}

export function bytes(v) {
  if (missing(v) || typeof v === 'string') return MISSING;
  const gigabytes = v / 1e9;
  return gigabytes >= 1000 ? `${fixed(gigabytes / 1000, 1)} TB` : `${fixed(gigabytes, gigabytes < 100 ? 1 : 0)} GB`;
}

// Two units at most.
export function span(seconds) {
  if (missing(seconds)) return MISSING;
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${String(Math.floor(s % 60)).padStart(2, '0')} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')} m`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const two = (v) => String(v).padStart(2, '0');

export function clock(seconds, utc) {
  if (missing(seconds)) return MISSING;
  const d = new Date(seconds * 1000);
  return utc
    ? `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`
    : `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

export function day(seconds, utc) {
  const d = new Date(seconds * 1000);
  return utc
    ? `${d.getUTCFullYear()}-${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())}`
    : `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}

const ACTIONS = {
  GERMINATE: ['GERM', 'ok', 'G'],
  SET_ALPHA_TARGET: ['ALPH', 'cyan', 'A'],
  FOSSILIZE: ['FOSS', 'blue', 'F'],
  PRUNE: ['PRUN', 'crit', 'P'],
  WAIT: ['WAIT', 'dim', '·'],
  ADVANCE: ['ADVN', 'cyan', 'V'],
};

// What the operations do to a seed, for the legend.
export const WORDING = [
  ['GERMINATE', 'germinate'], ['ADVANCE', 'advance'], ['SET_ALPHA_TARGET', 'set α target'], ['FOSSILIZE', 'fossilise'], ['PRUNE', 'prune'],
];

// Abbreviation, colour and letter of an operation.
export const action = (op) => ACTIONS[op] || [String(op).slice(0, 4), 'text', String(op).slice(0, 1)];

const WORDS = {
  blueprint: {
    conv_light: 'conv_lt', conv_small: 'conv_sm', conv_heavy: 'conv_hv', attention: 'attn',
    flex_attention: 'flex_at', depthwise: 'depthw', bottleneck: 'btlneck', lora_large: 'lora_lg', mlp_small: 'mlp_sm',
  },
  style: { LINEAR_ADD: 'LIN_ADD', LINEAR_MULTIPLY: 'LIN_MUL', SIGMOID_ADD: 'SIG_ADD', GATED_GATE: 'GATED' },
  tempo: { FAST: 'FST', STANDARD: 'STD', SLOW: 'SLW' },
  alpha_target: { HALF: '50%', SEVENTY: '70%', FULL: '100%' },
  alpha_speed: { INSTANT: 'INST', FAST: 'FST', MEDIUM: 'MED', SLOW: 'SLW' },
  alpha_curve: { LINEAR: 'LIN', COSINE: 'COS', SIGMOID_GENTLE: 'SIG_G', SIGMOID: 'SIG', SIGMOID_SHARP: 'SIG_H' },
};
const LENGTHS = { slot: 4, blueprint: 7, style: 7, tempo: 3, alpha_target: 4, alpha_speed: 4, alpha_curve: 5 };

// A choice of a head in the width of its column.
export function choice(head, value) {
  if (missing(value) || value === '') return '-';
  if (head === 'op') return action(value)[0];
  return (WORDS[head] && WORDS[head][value]) || String(value).slice(0, LENGTHS[head] || 7);
}

const CODES = {
  conv_light: 'cvl', conv_small: 'cvs', conv_heavy: 'cvh', attention: 'att', flex_attention: 'fla', norm: 'nrm',
  depthwise: 'dpw', bottleneck: 'btl', lora: 'lor', lora_large: 'lol', mlp_small: 'mls', mlp: 'mlp', noop: 'nop',
};

export const code = (blueprint) => CODES[blueprint] || String(blueprint || '').slice(0, 3);

const STAGES = {
  DORMANT: ['dormant', 'q0', 0], GERMINATED: ['germinated', 'q1', 1], TRAINING: ['training', 'q2', 2],
  BLENDING: ['blending', 'q3', 3], HOLDING: ['holding', 'q4', 4], FOSSILIZED: ['fossilised', 'q5', 5],
  PRUNED: ['pruned', 'cross', -1], EMBARGOED: ['embargoed', 'ban', -1], RESETTING: ['resetting', 'undo', -1],
};

// Word, symbol and place (1 … 5, -1 off the ramp, 0 dormant) of a slot's stage.
export const stage = (name) => STAGES[name] || [String(name).toLowerCase(), 'q0', 0];

const STATUSES = {
  healthy: ['healthy', 'dot', 'ok'], excellent: ['excellent', 'star', 'ok'], stalled: ['stalled', 'bars', 'warn'],
  degraded: ['degraded', 'fall', 'crit'], rollback: ['rollback', 'undo', 'violet'], initializing: ['starting', 'ring', 'dim'],
};

// Word, symbol and colour of an environment's status.
export const status = (name) => STATUSES[name] || [String(name), 'ring', 'dim'];

const HEAD_STATES = {
  dead: ['dead', 'ring'], exploding: ['exploding', 'tri'], deterministic: ['expected', 'dia'],
  collapsed: ['collapsed', 'dia'], confused: ['confused', 'half'], healthy: ['healthy', 'dot'],
  indeterminate: ['indeterminate', 'dot'],
};

// Word and symbol of a head's state; null where it is not known.
export const headState = (name) => HEAD_STATES[name] || null;

export const FLAGS = { L: 'low', LL: 'critically low', H: 'high', HH: 'critically high' };
export const TRENDS = { flat: 'steady', up: 'rising', down: 'falling' };
