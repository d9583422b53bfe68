// The decision table: six rows of what each head chose, the newest on top.

import { html } from './vendor/preact-htm.js';
import { action, choice, fixed, missing, percent, signed, WORDING } from './format.js';
import { Blocks, Fragment, Icon } from './ui.js';
import { seconds } from './store.js';

// Which decisions are on display: the newest one at each swap, no backlog, age from being shown.
class Carousel {
  constructor({ rows, swap_seconds: swap, age_seconds: age }) {
    this.rows = rows;
    this.swap = swap;
    this.life = age;
    this.shown = []; // [{ decision, since }], newest first
    this.swapped = -Infinity;
  }

  // Bring the display up to `now` (seconds); `incoming` are the decisions the server knows.
  step(incoming, now) {
    this.shown = this.shown.filter((entry) => now - entry.since < this.life);
    if (now - this.swapped >= this.swap) {
      const ids = new Set(this.shown.map((entry) => entry.decision.id));
      const newest = incoming
        .filter((decision) => !ids.has(decision.id) && decision.id !== this.last)
        .reduce((a, b) => (a && a.time >= b.time ? a : b), null);
      if (newest && !(this.lastTime > newest.time)) {
        this.shown = [{ decision: newest, since: now }, ...this.shown].slice(0, this.rows);
        this.swapped = now;
        this.last = newest.id;
        this.lastTime = newest.time;
      }
    }
    // What the server still knows of a decision may have grown (its reward, its advantage).
    const known = new Map(incoming.map((decision) => [decision.id, decision]));
    for (const entry of this.shown) entry.decision = known.get(entry.decision.id) || entry.decision;
    return this.shown;
  }
}

// Of a run that has ended: its last decisions, which no longer age.
const settled = (incoming, rows) =>
  [...incoming].sort((a, b) => b.time - a.time).slice(0, rows).map((decision) => ({ decision, since: null }));

// The pip of an age: its colour and its disc, which empties.
export function pip(age, { age_seconds: life, age_shares: shares }) {
  if (age === null) return ['dim', 'ring'];
  const place = shares.findIndex((share) => age / life < share);
  return [['ok', 'dot'], ['warn', 'p3'], ['old', 'p2'], ['crit', 'p1']][place < 0 ? 3 : place];
}

// Blocks of five that a confidence fills.
export function heat(confidence) {
  if (!(confidence > 0)) return 0;
  return confidence >= 1 ? 5 : 1 + Math.floor(confidence * 4);
}

const HEADS = ['op', 'slot', 'blueprint', 'style', 'tempo', 'alpha_target', 'alpha_speed', 'alpha_curve'];
const LABELS = ['Op', 'Slot', 'Blueprint', 'Style', 'Tempo', 'αTarget', 'αSpeed', 'Curve'];

let carousel = null;
let of = '';
let clock = 0; // seconds during which the page went on: while it stands still nothing ages
let drawn = null;

// What is on display now; a new run, or a recording played back, begins with an empty table.
function displayed(page) {
  const limits = page.data && page.data.limits.decisions;
  if (!limits || !page.detail) return { rows: 6, entries: [], limits: null };
  const incoming = page.detail.decisions;
  const identity = page.store.history.cursor.split('.')[0] + page.detail.key;
  if (identity !== of || !carousel) {
    of = identity;
    carousel = new Carousel(limits);
  }
  if (page.over) return { rows: limits.rows, entries: settled(incoming, limits.rows), limits };
  const now = seconds();
  if (!page.standing && drawn !== null) clock += now - drawn;
  drawn = now;
  if (!page.standing) carousel.step(incoming, clock);
  return { rows: limits.rows, entries: carousel.shown, limits };
}

const Cell = ({ decision, head }) => {
  const [value, confidence] = decision.choices[head];
  // WAIT uses no other head, whatever they chose.
  const text = head !== 'op' && decision.op === 'WAIT' ? '-' : choice(head, value);
  if (text === '-') return html`<td class="dim" data-head=${head}>-</td>`;
  const colour = head === 'op' ? action(value)[1] : 'text';
  return html`<td class=${colour} data-head=${head} title=${`${value}, confidence ${percent(confidence)}`} aria-label=${`${value}, confidence ${percent(confidence)}`}>
    <span class="w">${text}</span><${Blocks} filled=${heat(confidence)} level=${head === 'op' ? colour : 'dim'} cls="heat" /></td>`;
};

const Row = ({ entry, index, limits, columns }) => {
  if (!entry) {
    return html`<tr class="empty"><th class="l" scope="row"><span class="n dim">#${index + 1}</span><${Icon} name="ring" cls="faint" /><span class="dim">–</span></th>
      ${columns.map((head) => html`<td class="dim" key=${head}>–</td>`)}</tr>`;
  }
  const { decision, since } = entry;
  const age = since === null ? null : Math.max(0, clock - since);
  const [level, disc] = pip(age, limits);
  return html`<tr class=${age !== null && age < 0.5 ? 'new' : ''} data-decision=${decision.id} data-env=${decision.env}>
    <th class="l" scope="row" title=${`environment ${decision.env}`}><span class="n dim">#${index + 1}</span><span class=${`pip ${level}`} data-pip=${level}><${Icon} name=${disc} /></span><span class="dim">${age === null ? '–' : `${Math.floor(age)}s`}</span></th>
    ${columns.map((head) => html`<${Cell} key=${head} decision=${decision} head=${head} />`)}
  </tr>`;
};

const Alternatives = ({ decision, columns }) => html`<tr class="alt"><th class="l"><span class="dim">env ${decision.env}</span></th>
  <td colspan=${columns.length}>${decision.alternatives.length ? decision.alternatives.map(([op, share]) => html`<span class=${action(op)[1]}>${action(op)[0]} ${percent(share)}</span> `) : html`<span class="dim">no alternatives reported</span>`}
    <span class="dim">value ${fixed(decision.value, 2)} · reward ${signed(decision.reward, 2)} · advantage ${signed(decision.advantage, 2)}${missing(decision.success) ? '' : decision.success ? ' · carried out' : ' · not carried out'}</span></td></tr>`;

const Title = ({ page, limits }) => html`<h3 class="rule"><span>Decisions</span>
  <span class="dim">${page.over ? 'the last ones, no longer aging' : html`newest every ${limits ? limits.swap_seconds : 5} s, shown ${limits ? limits.age_seconds : 30} s <button class="key" onClick=${page.alternatives} aria-pressed=${page.open.alternatives}>a</button> alternatives`}</span>
  <span class="sp"></span><span class="legend">${WORDING.map(([op, word]) => html`<span key=${op} class="nw"><b class=${action(op)[1]}>${action(op)[0]}</b> ${word}</span> `)}</span></h3>`;

export function Decisions({ page, heads }) {
  const { rows, entries, limits } = displayed(page);
  const columns = HEADS.filter((head) => heads.some((h) => h.name === head));
  if (!columns.length && !entries.length) return html`<h3 class="rule"><span>Decisions</span><span class="dim">none reported: the policy has custom heads</span></h3>`;
  if (!columns.length) columns.push(...HEADS);
  return html`<${Title} page=${page} limits=${limits} /><div class="scroll"><table class=${`heads dec ${columns.length === 8 ? 'known' : ''}`} data-columns=${columns.length}>
    <caption class="sr">Decisions</caption>
    <thead><tr class="hr"><th class="l" scope="col" title="the decision's place, and how long it has been shown">Dec</th>${columns.map((head) => html`<th scope="col" key=${head}>${LABELS[HEADS.indexOf(head)]}</th>`)}</tr></thead>
    <tbody>${Array.from({ length: rows }, (_, i) => html`<${Fragment} key=${entries[i] ? entries[i].decision.id : `row${i}`}>
      <${Row} entry=${entries[i]} index=${i} limits=${limits} columns=${columns} />
      ${page.open.alternatives && entries[i] && html`<${Alternatives} decision=${entries[i].decision} columns=${columns} />`}
    </${Fragment}>`)}</tbody>
  </table></div>`;
}
