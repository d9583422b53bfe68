// What stands behind a number of a head: its bounds, and its last twenty updates. Opens at the
// pointer and at the focus.

import { html } from './vendor/preact-htm.js';
import { fixed, FLAGS, missing, MISSING, norm, percent } from './format.js';
import { nonFinite, range, scale, spoken, spread, trace } from './lines.js';

const WIDTH = 236;
const HEIGHT = 52;
const WRITE = { entropy: (v) => fixed(v, 3), gradient: norm, ratio: (v) => fixed(v, 3) };
const COLUMNS = ['entropy', 'gradient', 'ratio'];

// The bounds of a number: those of warnings first, then the critical ones.
function bounds(what, limits) {
  const { entropy, gradient, ratio } = limits;
  if (what === 'entropy') return { warn: [entropy[0]], crit: [entropy[1]] };
  if (what === 'gradient') return { warn: [gradient[1], gradient[2]], crit: [gradient[0], gradient[3]] };
  return { warn: ratio.slice(0, 2), crit: ratio.slice(2) };
}

const WORDS = {
  entropy: ([low], [critical]) => `Share of its maximum where the head had a choice. Low from ${low}, critical from ${critical} down.`,
  gradient: ([low, high], [dead, exploding]) => `Norm of the head's gradient, on a logarithmic scale. Healthy ${low} to ${high}, dead below ${dead}, exploding above ${exploding}.`,
  ratio: ([low, high], [lower, upper]) => `Largest π_new/π_old of an action. Within the clip range ${low} to ${high}, critical below ${lower} and above ${upper}.`,
};

function more(head, what) {
  const parts = [];
  const add = (name, value, write) => !missing(value) && parts.push(`${name} ${write(value)}`);
  if (what === 'entropy') {
    add('over all steps', head.entropy_all_steps, (v) => fixed(v, 3));
    add('a choice in', head.learnable_fraction, (v) => `${percent(v)} of the steps`);
  } else if (what === 'gradient') add('before', head.gradient.previous, norm);
  else {
    add('clipped', head.clip_fraction, percent);
    add('KL', head.kl, (v) => fixed(v, 4));
  }
  return parts.join(', ');
}

const onScale = (what) => (v) => (typeof v !== 'number' || what !== 'gradient' ? v : Math.log10(Math.max(v, 1e-4)));

function Trail({ head, what, limits, page }) {
  const place = COLUMNS.indexOf(what);
  const rows = page.store.history.heads.filter(([, heads]) => heads[head.name]);
  if (!rows.length) return null;
  const numbers = rows.map(([number]) => number);
  const values = rows.map(([, heads]) => heads[head.name][place]);
  const there = values.filter((v) => typeof v === 'number');
  const write = WRITE[what];
  const map = onScale(what);
  const drawn = spread(numbers, values.map(map));
  const near = (bound) => there.some((v) => Math.abs(map(v) - map(bound)) <= (what === 'gradient' ? 0.5 : 0.15));
  const lines = Object.entries(limits).flatMap(([level, some]) => some.filter(near).map((bound) => [level, bound]));
  const limit = range(drawn, ...lines.map(([, bound]) => map(bound)));
  if (!limit) return html`<p class="dim">${nonFinite(values).length ? 'not finite' : 'not measured'} in the last ${rows.length} updates</p>`;
  const y = scale(limit, HEIGHT - 5, 5);
  const x = scale([0, Math.max(1, drawn.length - 1)], 4, WIDTH - 4);
  const { path, alone } = trace(drawn, x, y);
  const last = drawn.length - 1;
  return html`<svg class="trail" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${spoken(`${head.label} ${what}, last ${rows.length} updates`, values, 3)}>
      ${lines.map(([level, bound]) => html`<path class=${`th ${level}`} d=${`M0 ${y(map(bound)).toFixed(1)}H${WIDTH}`} />`)}
      <path class="ln" d=${path} />${alone.map(([cx, cy]) => html`<path class="pt" d=${`M${cx} ${cy}h.01`} />`)}
      ${nonFinite(values).map(([i, word]) => html`<path class="nonfinite crit" data-nonfinite=${numbers[i]} d=${`M${(x(numbers[i] - numbers[0]) - 2.5).toFixed(1)} ${HEIGHT - 7}l5 5m0-5l-5 5`}><title>${word} at update ${numbers[i]}</title></path>`)}
      ${typeof drawn[last] === 'number' && html`<path class=${`end ${head[what].level}`} d=${`M${x(last).toFixed(1)} ${y(drawn[last]).toFixed(1)}h.01`} />`}
    </svg>
    <span class="fx dim"><span>update ${numbers[0]}</span><span class="sp"></span><span>${there.length ? `${write(Math.min(...there))} to ${write(Math.max(...there))}` : MISSING}</span><span class="sp"></span><span>${numbers[numbers.length - 1]}</span></span>`;
}

export function HeadCard({ head, what, text, page, edge }) {
  if (!page.data) return null;
  const limits = bounds(what, page.data.limits.head);
  const cell = head[what];
  const beside = more(head, what);
  return html`<div class=${`card ${edge}`} id="head-card" role="tooltip" data-card=${`${head.name}/${what}`}>
    <b>${head.label} ${what}</b> <b class=${cell.level}>${text}</b>${cell.flag && html` <span class=${cell.level}>${FLAGS[cell.flag]}</span>`}
    <${Trail} head=${head} what=${what} limits=${limits} page=${page} />
    <p class="dim">${WORDS[what](limits.warn, limits.crit)}${beside && ` ${beside[0].toUpperCase()}${beside.slice(1)}.`}</p></div>`;
}
