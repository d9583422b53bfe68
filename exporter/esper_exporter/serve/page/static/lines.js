// Small lines as one SVG path each: gaps where nothing was measured, one scale where they compare.

import { html } from './vendor/preact-htm.js';
import { fixed } from './format.js';

const finite = (v) => typeof v === 'number';

// Least and greatest of what is there; null where nothing is.
export function range(values, ...more) {
  let low = Infinity;
  let high = -Infinity;
  for (const v of values) {
    if (finite(v)) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
  }
  if (low > high) return null;
  for (const v of more) {
    if (finite(v)) {
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
  }
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

const place = (v) => Math.round(v * 10) / 10;

// The path through the points, and those that stand alone between two gaps.
export function trace(values, x, y) {
  let path = '';
  let open = false;
  const alone = [];
  values.forEach((v, i) => {
    if (!finite(v)) {
      open = false;
      return;
    }
    if (!open && !finite(values[i + 1])) alone.push([place(x(i)), place(y(v))]);
    path += `${open ? 'L' : 'M'}${place(x(i))} ${place(y(v))}`;
    open = true;
  });
  return { path, alone };
}

export const scale = ([low, high], from, to) => (v) => from + ((v - low) / (high - low)) * (to - from);

// Places of what was reported as NaN or infinite: the words NaN, Inf, -Inf in JSON.
export const nonFinite = (values) => values.flatMap((v, i) => (typeof v === 'string' ? [[i, v.replace('-', '\u2212')]] : []));

const times = (found) => (found.length ? `, ${found.length} not finite` : '');

// What a screen reader says of a line.
export function spoken(name, values, digits) {
  const there = values.filter(finite);
  const words = times(nonFinite(values));
  if (!there.length) return `${name}: ${words ? `no finite value${words}` : 'nothing measured'}`;
  const [first, last] = [there[0], there[there.length - 1]];
  return `${name}: first ${fixed(first, digits)}, last ${fixed(last, digits)}, least ${fixed(Math.min(...there), digits)}, greatest ${fixed(Math.max(...there), digits)}${words}`;
}

// Values by number as values by place: a number that was never reported is a gap.
export function spread(numbers, values) {
  const filled = [];
  values.forEach((v, i) => {
    filled[numbers[i] - numbers[0]] = v;
  });
  return Array.from(filled);
}

// A sparkline on a scale that the caller chooses.
export function Spark({ values, bounds, width, height, name, digits = 1, cls = '', end = true }) {
  const limits = bounds || range(values);
  if (!limits) return html`<svg class=${`spark ${cls}`} width=${width} height=${height} role="img" aria-label=${`${name}: nothing measured`}></svg>`;
  const y = scale(limits, height - 3, 3);
  const step = values.length > 1 ? (width - 6) / (values.length - 1) : 0;
  const x = (i) => 2 + i * step;
  const { path, alone } = trace(values, x, y);
  const last = values.length - 1;
  return html`<svg class=${`spark ${cls}`} width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${spoken(name, values, digits)}>
    <path class="ln" d=${path} />
    ${alone.map(([cx, cy]) => html`<circle class="pt" cx=${cx} cy=${cy} r="1.3" />`)}
    ${end && last >= 0 && finite(values[last]) && html`<circle class="end" cx=${place(x(last))} cy=${place(y(values[last]))} r="1.8" />`}
  </svg>`;
}
