// The policy's lines: nine rows on one axis of updates, faults and rollbacks through all of them.

import { html, useEffect, useRef, useState } from './vendor/preact-htm.js';
import { fixed, missing, MISSING, percent, plural, scientific, short, signed } from './format.js';
import { nonFinite, range, scale, spoken, spread, trace } from './lines.js';
import { trailing } from './heads.js';
import { Fragment, Num, Panel } from './ui.js';

const decimals = (digits) => (v) => fixed(v, digits);

// Column, name, what it is, how it is written, which bounds it has; `falling`: low is bad;
// `undefinedAtTimes`: NaN is no fault, as of the explained variance where the returns hardly vary.
export const ROWS = [
  { id: 'return', column: 'return', name: 'Return', sub: 'mean per episode', write: (v) => signed(v, 2), digits: 2 },
  { id: 'grad_norm', column: 'pre_clip_grad_norm', second: 'grad_norm', name: 'Gradient norm', sub: 'of the whole policy', write: short, digits: 2 },
  { id: 'kl', column: 'kl_divergence', name: 'KL', sub: 'nats to old policy', write: decimals(4), digits: 4 },
  { id: 'clip_fraction', column: 'clip_fraction', name: 'Clip fraction', sub: 'share of samples', write: (v) => percent(v), digits: 3, percent: true },
  { id: 'entropy', column: 'entropy', name: 'Entropy', sub: 'weighted sum', write: decimals(2), digits: 2 },
  { id: 'explained_variance', column: 'explained_variance', name: 'Expl. variance', sub: 'critic on returns', write: decimals(3), digits: 3, falling: true, undefinedAtTimes: true },
  { id: 'policy_loss', column: 'policy_loss', name: 'Policy loss', sub: 'surrogate', write: decimals(3), digits: 3 },
  { id: 'value_loss', column: 'value_loss', name: 'Value loss', sub: 'critic', write: decimals(3), digits: 3 },
  { id: 'learning_rate', column: 'lr', name: 'Learning rate', sub: 'entropy coef', write: scientific, digits: 6 },
];

const WIDTH = 214;
const HEIGHT = 44;

// The numbers of a row from the history; where the norm before clipping is not measured, the norm.
function series(history, row) {
  const at = history.columns.indexOf(row.column);
  const other = row.second ? history.columns.indexOf(row.second) : -1;
  const main = history.rows.map((r) => (missing(r[at]) && other >= 0 ? r[other] : r[at]));
  const second = other >= 0 && history.rows.some((r) => !missing(r[at])) ? history.rows.map((r) => r[other]) : null;
  return { main, second };
}

// Updates that were not reported leave a gap: one place for every number on the axis.
export function axis(history) {
  const { rows } = history;
  if (!rows.length) return null;
  const first = rows[0][0];
  const last = Math.max(rows[rows.length - 1][0], ...history.marks.map((m) => m.number));
  return { first, last, x: scale([first, last === first ? first + 1 : last], 3, WIDTH - 5) };
}

// A line must not rise and fall by less than what is written of it.
const legible = (limits, digits) => {
  const least = 4 * 10 ** -digits;
  if (!limits || limits[1] - limits[0] >= least) return limits;
  const middle = (limits[0] + limits[1]) / 2;
  return [middle - least / 2, middle + least / 2];
};

const padded = ([low, high]) => [low - (high - low) * 0.06, high + (high - low) * 0.06];

const near = (limits, values, falling) => {
  const there = values.filter((v) => typeof v === 'number');
  if (!limits || !there.length) return [];
  return falling
    ? limits.filter((bound) => Math.min(...there) < bound + 0.3)
    : limits.filter((bound) => Math.max(...there) > bound * 0.5);
};

function boundText(row, level, limits, value) {
  if (!limits || missing(value) || typeof value === 'string') return '';
  const write = (v) => (row.percent ? fixed(v * 100, 0) : String(v).replace('-', '−'));
  if (level === 'ok') return row.falling ? `above ${write(limits[0])}` : `within ${write(limits[0])}${row.percent ? '\u2009%' : ''}`;
  const flag = { warn: row.falling ? 'L' : 'H', crit: row.falling ? 'LL' : 'HH' }[level];
  return flag ? `${flag} · bound ${limits.map(write).join(', ')}` : '';
}

// The trainer's entropy is a sum over the heads, not nats: each head's share of its maximum times
// its weight. The greatest value of custom heads is not known.
const ENTROPY = "sum over the heads: each one's entropy as a share of its maximum, times its weight";

function entropySub(detail) {
  const weights = detail ? detail.heads.map((head) => head.coefficient) : [];
  return weights.length && weights.every((w) => typeof w === 'number') ? `Σ weighted, ≤ ${fixed(weights.reduce((a, b) => a + b, 0), 1)}` : 'as reported';
}

// What stands below a row's name.
function belowName(row, detail, second) {
  if (second) return '┄ after clipping';
  if (row.id === 'entropy') return entropySub(detail);
  if (row.id !== 'learning_rate') return row.sub;
  const coefficient = detail ? detail.policy.values.entropy_coef : null;
  return `entropy coef ${missing(coefficient) ? MISSING : short(coefficient)}`;
}

const Legend = ({ page }) => html`<span class="dim legend"><span class="crit">│</span> fault <span class="violet">┆</span> rollback ${page.store.history.rows.some((row) => nonFinite(row).length) ? '× NaN, Inf ' : ''}<button class="key" onClick=${() => page.nextFault(1)} title="next fault">f</button> <span class="wide">next fault</span></span>`;

export function Policy({ page }) {
  const { history } = page.store;
  const { detail, cursor } = page;
  const across = axis(history);
  const policy = detail ? detail.policy : { updates: 0, skipped: 0, values: {}, levels: {} };
  const limits = page.data ? page.data.limits.policy : {};
  const marks = across ? history.marks.filter((m) => m.number >= across.first) : [];
  const note = `${plural(policy.number || 0, 'update')}${policy.skipped ? `, ${policy.skipped} skipped` : ''}`;
  const at = cursor === null ? -1 : history.rows.findIndex((r) => r[0] === cursor);
  const move = (e) => {
    if (!across) return;
    const box = e.currentTarget.getBoundingClientRect();
    const number = Math.round(across.first + (((e.clientX - box.left) / box.width) * WIDTH - 3) / (across.x(across.first + 1) - across.x(across.first)));
    page.setCursor(Math.max(across.first, Math.min(across.last, number)));
  };
  return html`<${Panel} id="policy" title="Policy" note=${note} right=${html`<${Legend} page=${page} />`} cls=${`p-policy ${trailing(page) && at < 0 ? 'stale' : ''}`}>
    <div class="pol" onMouseLeave=${() => page.setCursor(null)}>
      <span></span><${Tags} marks=${marks} across=${across} phone=${page.phone} /><span></span>
      ${ROWS.map((row) => {
        const { main, second } = series(history, row);
        const shown = at >= 0 ? main[at] : policy.values[row.id];
        const level = at >= 0 ? 'none' : policy.levels[row.id] || 'none';
        const sub = belowName(row, detail, second);
        let below = at >= 0 ? (row.id === 'return' ? `at update ${cursor}` : '') : boundText(row, level, limits[row.id], shown);
        if (row.id === 'return' && at < 0 && !missing(policy.values.return_p10)) below = `p10 ${fixed(policy.values.return_p10, 1)}, p90 ${fixed(policy.values.return_p90, 1)}`;
        return html`<${Fragment} key=${row.id}>
          <div class="pn" title=${row.id === 'entropy' ? ENTROPY : undefined}>${row.name}<small>${sub}</small></div>
          <${Line} row=${row} main=${main} second=${second} history=${history} across=${across} marks=${marks} limits=${limits[row.id]} level=${policy.levels[row.id]} cursor=${cursor} onMove=${move} />
          <div class="pv" data-policy=${row.id} data-level=${level}><${Num} cls=${level} text=${missing(shown) ? MISSING : row.write(shown)} poll=${page.store.polls} /><small class=${level === 'none' ? 'dim' : level}>${below}</small></div>
        </${Fragment}>`;
      })}
      <span></span><${Numbers} across=${across} /><span class="ax r">update</span>
    </div>
  </${Panel}>`;
}

const LETTER = 6.2; // px of a letter of a tag, at most
const BESIDE = 100; // px to the right of the lines that are free for the last tag

const NEAR = 11; // px within which marked updates share a tag

// Marked updates from left to right, those that are too near to tell apart together.
function clusters(marks, x) {
  const found = [];
  for (const mark of [...marks].sort((a, b) => a.number - b.number)) {
    const last = found[found.length - 1];
    const at = x(mark.number);
    if (last && (at - last.x < NEAR || last.to === mark.number)) Object.assign(last, { to: mark.number, marks: [...last.marks, mark] });
    else found.push({ x: at, from: mark.number, to: mark.number, marks: [mark] });
  }
  return found;
}

// As many words as fit before the next tag, else the number, else the sign.
function Tags({ marks, across, phone }) {
  const own = useRef(null);
  if (!across) return html`<span class="tags"></span>`;
  const wide = (own.current && own.current.clientWidth) || (phone ? 110 : WIDTH);
  const place = (number) => Math.round((across.x(number) / WIDTH) * 50);
  const found = clusters(marks, (number) => (place(number) / 50) * wide);
  return html`<div class="tags" ref=${own} aria-hidden="true">${found.map(({ x, from, to, marks: some }, i) => {
    const room = (i + 1 < found.length ? found[i + 1].x : wide + BESIDE) - x - 3;
    const fault = some.find((mark) => mark.kind === 'fault');
    const sign = [...new Set(some.map((mark) => (mark.kind === 'fault' ? '▾' : '↺')))].join('');
    const number = `${sign} ${from}${to > from ? `–${to}` : ''}`;
    const words = `${number} ${fault ? fault.text.split(',')[0] : 'rollback'}`;
    const text = [words, number, sign].find((t) => t.length * LETTER <= room) || sign[0];
    return html`<span key=${from} class=${`tag ${fault ? 'fault' : 'rollback'} p${place(from)}`} title=${some.map((mark) => `${mark.number} ${mark.text}`).join(', ')}>${text}</span>`;
  })}</div>`;
}

function Numbers({ across }) {
  if (!across) return html`<span class="ax"></span>`;
  const count = across.last - across.first;
  const step = [1, 2, 5, 10, 20, 50, 100, 200].find((s) => count / s <= 5) || 500;
  const at = [across.first];
  for (let n = Math.ceil((across.first + 1) / step) * step; n < across.last; n += step) {
    if (n - across.first > step * 0.6 && across.last - n > step * 0.6) at.push(n);
  }
  if (across.last > across.first) at.push(across.last);
  return html`<div class="ax nums" aria-hidden="true">${at.map((n) => html`<span class=${`p${Math.round((across.x(n) / WIDTH) * 50)}`}>${n}</span>`)}</div>`;
}

function Line({ row, main, second, history, across, marks, limits, level, cursor, onMove }) {
  const bounds = near(limits, main, row.falling);
  const limit = legible(range(second ? [...main, ...second] : main, ...bounds), row.digits);
  if (!across || !limit) {
    return html`<svg class="line" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${spoken(row.name, main, row.digits)} data-line=${row.id}>
      <path class="none-yet" d=${`M3 ${HEIGHT / 2}H${WIDTH - 5}`} /><${Marks} marks=${marks} across=${across} /><${Crosses} row=${row} main=${main} history=${history} across=${across} /></svg>`;
  }
  const y = scale(limit, HEIGHT - 6, 6);
  const numbers = history.rows.map((r) => r[0]);
  const x = (i) => across.x(across.first + i);
  const { path, alone } = trace(spread(numbers, main), x, y);
  const dashed = second ? trace(spread(numbers, second), x, y).path : '';
  const last = main.length - 1;
  const faults = marks.map((m) => `${m.kind} at update ${m.number}`).join(', ');
  return html`<svg class="line" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" onMouseMove=${onMove}
      aria-label=${`${spoken(row.name, main, row.digits)}${faults ? `; ${faults}` : ''}`} data-line=${row.id}>
    ${bounds.map((bound) => html`<path class=${`th ${bound === limits[0] ? 'warn' : 'crit'}`} d=${`M0 ${y(bound).toFixed(1)}H${WIDTH}`} />`)}
    <${Marks} marks=${marks} across=${across} />
    ${dashed && html`<path class="ln2" d=${dashed} />`}
    <path class="ln" d=${path} />
    ${alone.map(([cx, cy]) => html`<path class="pt" d=${`M${cx} ${cy}h.01`} />`)}
    ${typeof main[last] === 'number' && html`<path class=${`end ${level || 'none'}`} d=${`M${across.x(numbers[last]).toFixed(1)} ${y(main[last]).toFixed(1)}h.01`} />`}
    <${Crosses} row=${row} main=${main} history=${history} across=${across} />
    ${cursor !== null && html`<path class="cursor" d=${`M${across.x(cursor).toFixed(1)} 0V${HEIGHT}`} />`}
  </svg>`;
}

// A cross at the foot of the line for each value that was reported as NaN or infinite: of what was
// not measured there is nothing but the gap.
const Crosses = ({ row, main, history, across }) =>
  across ? nonFinite(main).map(([i, word]) => {
    const number = history.rows[i][0];
    const x = across.x(number);
    return html`<path key=${number} class=${`nonfinite ${row.undefinedAtTimes ? 'dim' : 'crit'}`} data-nonfinite=${number} d=${`M${(x - 2).toFixed(1)} ${HEIGHT - 5}l4 4m0-4l-4 4`}><title>${word} at update ${number}</title></path>`;
  }) : null;

const Marks = ({ marks, across }) =>
  across ? marks.map((m) => html`<path class=${m.kind === 'fault' ? 'flt' : 'rbk'} d=${`M${across.x(m.number).toFixed(1)} 0V${HEIGHT}`} data-mark=${m.number} />`) : null;

// ---- in full: uPlot, loaded when it is first wanted

let loading = null;

function loadPlot() {
  loading ||= new Promise((done, failed) => {
    const sheet = document.createElement('link');
    sheet.rel = 'stylesheet';
    sheet.href = 'page/vendor/uplot.css';
    document.head.append(sheet);
    const script = document.createElement('script');
    script.src = 'page/vendor/uplot.js';
    script.onload = () => done(window.uPlot);
    script.onerror = failed;
    document.head.append(script);
  });
  loading.catch(() => {
    loading = null; // asked again with the next view
  });
  return loading;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Bounds within the plot, dotted: the warning's first.
function drawBounds(limits) {
  return (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.setLineDash([2, 3]);
    (limits || []).forEach((bound, i) => {
      const y = Math.round(plot.valToPos(bound, 'y', true)) + 0.5;
      if (y < bbox.top || y > bbox.top + bbox.height) return;
      ctx.strokeStyle = colour(i ? 'crit' : 'warn');
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    });
    ctx.restore();
  };
}

function drawMarks(marks) {
  return (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    for (const mark of marks()) {
      const x = Math.round(plot.valToPos(mark.number, 'x', true)) + 0.5;
      if (x < bbox.left || x > bbox.left + bbox.width + 1) continue; // the last update stands on the edge
      ctx.strokeStyle = colour(mark.kind === 'fault' ? 'crit' : 'violet');
      ctx.setLineDash(mark.kind === 'fault' ? [] : [3, 3]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };
}

// The words of what was reported as NaN or infinite, at the foot of the plot; a cross where there
// is no room for another word.
function drawWords(found, row) {
  return (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    const { devicePixelRatio: ratio } = window;
    ctx.font = `${10 * ratio}px system-ui`;
    ctx.textAlign = 'center';
    ctx.fillStyle = colour(row.undefinedAtTimes ? 'dim' : 'crit');
    let free = -Infinity;
    for (const [number, word] of found()) {
      const x = plot.valToPos(number, 'x', true);
      if (x < bbox.left || x > bbox.left + bbox.width + 1) continue;
      const half = ctx.measureText(word).width / 2 + ratio;
      const fits = x - half > free;
      ctx.fillText(fits ? word : '×', x, bbox.top + bbox.height - 4 * ratio);
      free = x + (fits ? half : 3 * ratio);
    }
    ctx.restore();
  };
}

// A value between two gaps is as visible as a line: a dot of five pixels.
function drawAlone(rows) {
  return (plot) => {
    const { ctx } = plot;
    const { devicePixelRatio: ratio } = window;
    ctx.save();
    ctx.fillStyle = colour('spark');
    rows().forEach(([number, value]) => {
      ctx.beginPath();
      ctx.arc(plot.valToPos(number, 'x', true), plot.valToPos(value, 'y', true), 2.5 * ratio, 0, 2 * Math.PI);
      ctx.fill();
    });
    ctx.restore();
  };
}

function Overview({ row, page }) {
  const { history } = page.store;
  const across = axis(history);
  const marks = across ? history.marks.filter((m) => m.number >= across.first) : [];
  return html`<${Line} row=${row} ...${series(history, row)} history=${history} across=${across} marks=${marks} limits=${page.data.limits.policy[row.id]} level="none" cursor=${null} />`;
}

// Whole pixels, rounded down: the last update stands on the plot's edge.
const widthOf = (element) => Math.floor(element.getBoundingClientRect().width);

function Plot({ row, page, theme }) {
  const holder = useRef(null);
  const plot = useRef(null);
  const marks = useRef([]);
  const words = useRef([]);
  const alone = useRef([]);
  const [failed, setFailed] = useState(false);
  const { history } = page.store;
  const { main, second } = series(history, row);
  const numeric = (values) => values.map((v) => (typeof v === 'number' ? v : null));
  marks.current = history.marks;
  const there = (i) => typeof main[i] === 'number';
  alone.current = history.rows.flatMap((r, i) => (there(i) && !there(i - 1) && !there(i + 1) ? [[r[0], main[i]]] : []));
  words.current = nonFinite(main).map(([i, word]) => [history.rows[i][0], word]);
  const data = [history.rows.map((r) => r[0]), numeric(main), ...(second ? [numeric(second)] : [])];
  useEffect(() => {
    let gone = false;
    loadPlot().then((UPlot) => {
      if (gone || !holder.current) return;
      const axes = { stroke: colour('dim'), grid: { stroke: colour('line'), width: 1 }, ticks: { show: false }, font: '11px system-ui', size: 34 };
      plot.current = new UPlot({
        width: widthOf(holder.current),
        height: 150,
        legend: { show: false },
        padding: [6, 8, 0, 0],
        cursor: { sync: { key: 'updates' }, drag: { x: true, y: false }, points: { size: 5 } },
        scales: { x: { time: false }, y: { range: (_, low, high) => padded(legible([low ?? 0, high ?? 1], row.digits)) } },
        axes: [{ ...axes, size: 24, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }, { ...axes, size: 52, values: (_, ticks) => ticks.map((v) => row.write(v)) }],
        series: [
          { label: 'update' },
          { label: row.name, stroke: colour('spark'), width: 1.25, spanGaps: false, points: { show: history.rows.length < 40, size: 3 } },
          ...(second ? [{ label: 'after clipping', stroke: colour('faint'), width: 1, dash: [2, 2] }] : []),
        ],
        hooks: { draw: [drawBounds(page.data.limits.policy[row.id]), drawMarks(() => marks.current), drawAlone(() => alone.current), drawWords(() => words.current, row)] },
      }, data, holder.current);
    }, () => gone || setFailed(true));
    const resize = new ResizeObserver(() => {
      if (plot.current && holder.current) plot.current.setSize({ width: widthOf(holder.current), height: 150 });
    });
    resize.observe(holder.current);
    return () => {
      gone = true;
      resize.disconnect();
      if (plot.current) plot.current.destroy();
      plot.current = null;
    };
  }, [row.id, theme, Boolean(second), history.key]);
  useEffect(() => {
    if (plot.current) plot.current.setData(data);
  }, [history.cursor]);
  // Without uPlot (the exporter went before it was loaded) the overview's line stands in.
  return html`<div class="plot" ref=${holder} role="img" data-alone=${alone.current.map(([number]) => number).join(' ')} data-nonfinite=${words.current.map(([number, word]) => `${number} ${word}`).join(', ')} aria-label=${spoken(row.name, main, row.digits)}>${failed && html`<${Overview} row=${row} page=${page} />`}</div>`;
}

export function PolicyFull({ page }) {
  const { history } = page.store;
  const { detail } = page;
  const [theme, setTheme] = useState(0);
  useEffect(() => {
    const watched = new MutationObserver(() => setTheme((n) => n + 1));
    watched.observe(document.documentElement, { attributes: true, attributeFilter: ['class'] });
    return () => watched.disconnect();
  }, []);
  if (!detail || !history.rows.length) return html`<${Panel} id="policy" title="Policy" note="no policy update yet"><p class="bd dim">Lines appear with the run's first update.</p></${Panel}>`;
  return html`<div class="plots" id="part-policy" tabindex="-1"><${Legend} page=${page} />${ROWS.map((row) => {
    const { second } = series(history, row);
    const value = detail.policy.values[row.id];
    const level = detail.policy.levels[row.id] || 'none';
    return html`<section class="panel" key=${row.id}><h2><span class="name">${row.name}</span><span class="dim note" title=${row.id === 'entropy' ? ENTROPY : undefined}>${belowName(row, detail, second)}</span><span class="sp"></span>
      <span class=${level}>${missing(value) ? MISSING : row.write(value)}</span> <span class=${`small ${level === 'none' ? 'dim' : level}`}>${boundText(row, level, page.data.limits.policy[row.id], value)}</span></h2>
      <${Plot} row=${row} page=${page} theme=${theme} /></section>`;
  })}</div>`;
}
