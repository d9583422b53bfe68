// The ActionHeads panel: ten rows, a column a head. Levels, flags, bars and words come from the
// server; this only places them.

import { html } from './vendor/preact-htm.js';
import { fixed, FLAGS, headState, missing, MISSING, norm, span, TRENDS } from './format.js';
import { Blocks, Icon, later, Num, Panel } from './ui.js';
import { Decisions } from './decisions.js';

const HeadCard = later(() => import('./head_card.js'), 'HeadCard');
const PER_GRID = 8;

// Before a run has reported, the panel shows Tamiyo's heads in dashes.
const NO_CELL = { value: null, level: 'none', flag: '', blocks: 0, trend: 'none', trend_level: 'none' };
const NO_LATCH = { set: null };
export const SKELETON = [
  ['op', 'Op'], ['slot', 'Slot'], ['blueprint', 'Blueprint', 1.3], ['style', 'Style', 1.2], ['tempo', 'Tempo', 1.3],
  ['alpha_target', 'αTarget', 1.2], ['alpha_speed', 'αSpeed', 1.2], ['alpha_curve', 'Curve', 1.2],
].map(([name, label, coefficient]) => ({
  name, label, coefficient, entropy: NO_CELL, gradient: NO_CELL, ratio: NO_CELL, state: 'unknown', state_level: 'none', nan: NO_LATCH, inf: NO_LATCH,
}));

const inGrids = (heads) => {
  const grids = [];
  for (let i = 0; i < heads.length; i += PER_GRID) grids.push(heads.slice(i, i + PER_GRID));
  return grids;
};

const spoken = (head, what, text, cell) =>
  [`${head.label} ${what} ${text}`, FLAGS[cell.flag], TRENDS[cell.trend]].filter(Boolean).join(', ');

const Value = ({ head, what, cell, text, before, page, edge = '' }) => {
  const open = page.peek === `${head.name}/${what}`;
  const show = () => page.look(`${head.name}/${what}`);
  return html`<td class="v" data-head=${head.name} data-row=${what} data-level=${cell.level} data-flag=${cell.flag} tabindex="0"
    aria-label=${spoken(head, what, text, cell)} aria-describedby=${open ? 'head-card' : undefined} onMouseEnter=${show} onFocus=${show} onMouseLeave=${() => page.look('')} onBlur=${() => page.look('')}>
    ${before}<${Num} cls=${cell.level} text=${text} poll=${page.store.polls} /><span class="sf">${what === 'gradient' && cell.trend && cell.trend !== 'none' && html`<span class=${`trend ${cell.trend_level}`} data-trend=${cell.trend}><${Icon} name=${cell.trend} /></span>`}<span class=${`flag ${cell.level}`}>${cell.flag}</span></span>
    ${open && html`<${HeadCard} head=${head} what=${what} text=${text} page=${page} edge=${edge} />`}
  </td>`;
};

const Bar = ({ head, what, cell }) =>
  html`<td class="bb" data-head=${head.name} data-row=${`${what}-bar`}><${Blocks} filled=${cell.blocks} level=${cell.level} /></td>`;

const State = ({ head, cls = 'st' }) => {
  const found = headState(head.state);
  if (!found) return html`<td class=${`${cls} none`} data-head=${head.name} data-row="state">${MISSING}</td>`;
  const [word, symbol] = found;
  const bold = head.state === 'exploding' ? 'b6' : '';
  return html`<td class=${`${cls} ${head.state_level} ${bold}`} data-head=${head.name} data-row="state" data-symbol=${symbol} data-level=${head.state_level}
    aria-label=${`${head.label} state ${word}`}><span>${word}</span> <${Icon} name=${symbol} /></td>`;
};

const Latch = ({ head, kind }) => {
  const latch = head[kind];
  const name = kind === 'nan' ? 'NaN' : 'Inf';
  const attributes = { 'data-head': head.name, 'data-row': kind, 'data-set': latch.set === null ? '' : String(latch.set) };
  if (latch.set === null) return html`<td class="st none" ...${attributes}>${MISSING}</td>`;
  if (!latch.set) return html`<td class="st faint" data-symbol="ring" ...${attributes} aria-label=${`${head.label} ${name} clear`}><${Icon} name="ring" /></td>`;
  const where = missing(latch.first) ? '' : ` u${latch.first}`;
  return html`<td class="st crit b6 alarm" data-symbol="dot" ...${attributes} aria-label=${`${head.label} ${name} latched${where}, ${latch.updates} times`}>
    <span>latched${where}</span> <${Icon} name="dot" /></td>`;
};

const Coefficient = ({ head }) =>
  head.coefficient > 1 ? html`<span class="co" title="weight of this head's entropy">${head.coefficient}×</span>` : null;

const Grid = ({ heads, page, rest }) => html`<table class=${`heads ${rest ? `rest${heads.length}` : heads.length === 8 && heads[0].name === 'op' ? 'known' : ''}`} data-columns=${heads.length}>
  <caption class="sr">Action heads</caption>
  <thead><tr class="hr"><th class="l" scope="col"><span class="sr">row</span></th>${heads.map((h) => html`<th scope="col" key=${h.name} title=${h.name}>${h.label}</th>`)}</tr></thead>
  <tbody>
    <tr><th class="l" scope="row" title="entropy, as a share of its maximum">Entr</th>${heads.map((h, i) => html`<${Value} key=${h.name} edge=${i < 2 ? 'left' : ''} head=${h} what="entropy" cell=${h.entropy} text=${fixed(h.entropy.value, 3)} before=${html`<${Coefficient} head=${h} />`} page=${page} />`)}</tr>
    <tr aria-hidden="true"><th class="l"></th>${heads.map((h) => html`<${Bar} key=${h.name} head=${h} what="entropy" cell=${h.entropy} />`)}</tr>
    <tr><th class="l" scope="row" title="gradient norm, and where it goes">Grad</th>${heads.map((h, i) => html`<${Value} key=${h.name} edge=${i < 2 ? 'left' : ''} head=${h} what="gradient" cell=${h.gradient} text=${norm(h.gradient.value)} page=${page} />`)}</tr>
    <tr aria-hidden="true"><th class="l"></th>${heads.map((h) => html`<${Bar} key=${h.name} head=${h} what="gradient" cell=${h.gradient} />`)}</tr>
    <tr><th class="l" scope="row" title="largest ratio of new to old policy">Ratio</th>${heads.map((h, i) => html`<${Value} key=${h.name} edge=${i < 2 ? 'left' : ''} head=${h} what="ratio" cell=${h.ratio} text=${fixed(h.ratio.value, 3)} page=${page} />`)}</tr>
    <tr aria-hidden="true"><th class="l"></th>${heads.map((h) => html`<${Bar} key=${h.name} head=${h} what="ratio" cell=${h.ratio} />`)}</tr>
    <tr class="sr-row"><th class="l" scope="row" title="from entropy and gradient">State</th>${heads.map((h) => html`<${State} key=${h.name} head=${h} />`)}</tr>
    <tr><th class="l" scope="row" title="a NaN was seen in this head; stays set">NaN</th>${heads.map((h) => html`<${Latch} key=${h.name} head=${h} kind="nan" />`)}</tr>
    <tr><th class="l" scope="row" title="an infinity was seen in this head; stays set">Inf</th>${heads.map((h) => html`<${Latch} key=${h.name} head=${h} kind="inf" />`)}</tr>
  </tbody>
</table>`;

// The same ten fields on a phone: a head a row.
const Rows = ({ heads, page }) => html`<table class="heads phone" data-columns=${heads.length}>
  <caption class="sr">Action heads</caption>
  <thead><tr><th scope="col">Head, state</th><th scope="col">Entr</th><th scope="col">Grad</th><th scope="col">Ratio</th><th scope="col">NaN</th><th scope="col">Inf</th></tr></thead>
  <tbody>${heads.map((h) => html`<tr key=${h.name}>
    <th scope="row"><span>${h.label} <${Coefficient} head=${h} /></span><${StateWord} head=${h} /></th>
    ${[['entropy', fixed(h.entropy.value, 3)], ['gradient', norm(h.gradient.value)], ['ratio', fixed(h.ratio.value, 3)]].map(
      ([what, text]) => html`<${Value} head=${h} what=${what} cell=${h[what]} text=${text} before=${html`<${Blocks} filled=${h[what].blocks} level=${h[what].level} cls="below" />`} page=${page} />`,
    )}
    <${Latch} head=${h} kind="nan" /><${Latch} head=${h} kind="inf" />
  </tr>`)}</tbody>
</table>`;

const StateWord = ({ head }) => {
  const found = headState(head.state);
  if (!found) return html`<small class="dim">${MISSING}</small>`;
  return html`<small class=${`${head.state_level} ${head.state === 'exploding' ? 'b6' : ''}`} data-head=${head.name} data-row="state" data-symbol=${found[1]} data-level=${head.state_level}><${Icon} name=${found[1]} /> ${found[0]}</small>`;
};

const layers = (footer, what) => (missing(footer[what].value) ? MISSING : `${footer[what].value}${footer.layers ? `/${footer.layers}` : ''}`);

const NO_COUNT = { value: null, level: 'none' };
const NO_FOOTER = { cv: null, cv_level: 'none', cv_word: '', layers: null, dead: NO_COUNT, exploding: NO_COUNT, nan: NO_COUNT, inf: NO_COUNT };

function Footer({ footer, of }) {
  const f = footer || NO_FOOTER;
  const bold = (level) => (level === 'crit' ? 'b6' : '');
  const count = (what, name) => html`<span data-flow=${what} data-level=${f[what].level}><span class="dim">${name}</span> <b class=${`${f[what].level} ${bold(f[what].level)}`}>${missing(f[what].value) ? MISSING : f[what].value}</b></span>`;
  const ofLayers = (what, name) => html`<span data-flow=${what} data-level=${f[what].level}><span class="dim">${name}</span> <b class=${f[what].level}>${layers(f, what)}</b></span>`;
  return html`<div class="flow" aria-label="Gradient flow">
    <span class="dim">Network layers${of ? `, update ${of}` : ''}</span>
    <span data-flow="cv" data-level=${f.cv_level}><span class="dim">CV</span> <b class=${f.cv_level}>${fixed(f.cv, 3)}</b> <span class=${f.cv_level}>${f.cv_word}</span></span>
    <span class="of" title="layers of the network; a head's own gradient stands in its column">${ofLayers('dead', 'Dead')}${ofLayers('exploding', 'Exploding')}<span class="dim">layers</span></span>
    <span class="of" title="parameter gradients of the last update that completed; the latches remember every update">${count('nan', 'NaN')}${count('inf', 'Inf')}<span class="dim">gradients</span></span>
  </div>`;
}

function when(page) {
  const { run, detail } = page;
  if (!run || !detail || !detail.policy.updates) return 'no policy update yet';
  const { number, skipped, last } = detail.policy;
  const after = trailing(page);
  const shown = completed(page);
  if (page.over) return shown > 0 ? `update ${shown}, the last one that completed` : 'no update completed';
  const age = missing(last) ? '' : `, ${span(page.clock - last)} ago`;
  if (!after) return `update ${number}${age}${skipped ? `, ${skipped} skipped` : ''}`;
  const found = page.store.history.marks.some((mark) => mark.kind === 'fault' && mark.number === number);
  const which = after > 1 ? `updates ${shown + 1}–${number}` : `update ${number}`;
  return `${shown > 0 ? `values of update ${shown}` : 'no update completed'}; ${which} skipped${found ? ': non-finite' : ''}${age}`;
}

// Skipped updates at the end have no numbers to show: those of the update before them are.
export function trailing(page) {
  const { rows } = page.store.history;
  let n = 0;
  while (n < rows.length && rows[rows.length - 1 - n].slice(3).every((v) => v === null)) n += 1;
  return n;
}

// The number of the last update that completed; 0 before one has.
const completed = (page) => Math.max(0, ((page.detail && page.detail.policy.number) || 0) - trailing(page));

export function Heads({ page }) {
  const heads = page.detail ? page.detail.heads : SKELETON;
  const legend = html`<span class="dim legend"><b>L H</b> low, high <b>LL HH</b> critical <b>1.3×</b> entropy weight</span>`;
  return html`<${Panel} id="heads" title="Action heads" note=${when(page)} right=${legend} cls=${`p-heads ${trailing(page) ? 'stale' : ''}`}>
    <div class="scroll"><div class="bd">
      ${page.phone ? html`<${Rows} heads=${heads} page=${page} />` : inGrids(heads).map((some, i) => html`<${Grid} key=${i} heads=${some} page=${page} rest=${i > 0} />`)}
      <${Decisions} page=${page} heads=${heads} />
      <div class="rule"></div>
      <${Footer} footer=${page.detail && page.detail.footer} of=${completed(page)} />
    </div></div>
  </${Panel}>`;
}
