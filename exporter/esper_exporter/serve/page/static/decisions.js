// The decision table: six rows of what each head chose, the newest on top.

import { Fragment } from './fragment.js';
import { html } from './vendor/preact-htm.js';
import { action, choice, fixed, missing, percent, signed } from './format.js';
import { Carousel, heat, pip, settled } from './carousel.js';
import { Blocks, Icon } from './ui.js';
import { seconds } from './store.js';

const HEADS = ['op', 'slot', 'blueprint', 'style', 'tempo', 'alpha_target', 'alpha_speed', 'alpha_curve'];
const LABELS = ['Op', 'Slot', 'Blueprint', 'Style', 'Tempo', 'αTarget', 'αSpeed', 'Curve'];

let carousel = null;
let of = '';

// What is on display now; a new run, or a recording played back, begins with an empty table.
export function displayed(page) {
  const limits = page.data && page.data.limits.decisions;
  if (!limits || !page.detail) return { rows: 6, entries: [], limits: null };
  const incoming = page.detail.decisions;
  const identity = page.store.history.cursor.split('.')[0] + page.detail.key;
  if (identity !== of || !carousel) {
    of = identity;
    carousel = new Carousel(limits);
  }
  if (page.over) return { rows: limits.rows, entries: settled(incoming, limits.rows), limits };
  if (!page.standing) carousel.step(incoming, seconds());
  return { rows: limits.rows, entries: carousel.shown, limits };
}

const Cell = ({ decision, head }) => {
  const [value, confidence] = decision.choices[head];
  // WAIT chooses nothing else, whatever the heads said.
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
  const age = since === null ? null : Math.max(0, seconds() - since);
  const [level, disc] = pip(age, limits);
  return html`<tr class=${age !== null && age < 0.5 ? 'new' : ''} data-decision=${decision.id} data-env=${decision.env}>
    <th class="l" scope="row" title=${`environment ${decision.env}`}><span class="n dim">#${index + 1}</span><span class=${`pip ${level}`} data-pip=${level}><${Icon} name=${disc} /></span><span class="dim">${age === null ? '–' : `${Math.floor(age)}s`}</span></th>
    ${columns.map((head) => html`<${Cell} key=${head} decision=${decision} head=${head} />`)}
  </tr>`;
};

const Alternatives = ({ decision, columns }) => html`<tr class="alt"><th class="l"><span class="dim">env ${decision.env}</span></th>
  <td colspan=${columns.length}>${decision.alternatives.length ? decision.alternatives.map(([op, share]) => html`<span class=${action(op)[1]}>${action(op)[0]} ${percent(share)}</span> `) : html`<span class="dim">no alternatives reported</span>`}
    <span class="dim">value ${fixed(decision.value, 2)} · reward ${signed(decision.reward, 2)} · advantage ${signed(decision.advantage, 2)}${missing(decision.success) ? '' : decision.success ? ' · carried out' : ' · not carried out'}</span></td></tr>`;

export function Decisions({ page, heads }) {
  const { rows, entries, limits } = displayed(page);
  const known = HEADS.filter((head) => heads.some((h) => h.name === head));
  const columns = known.length ? known : HEADS;
  return html`<table class="heads dec" data-columns=${columns.length}>
    <caption class="sr">Decisions</caption>
    <thead><tr class="hr"><th class="l" scope="col">Dec</th>${columns.map((head) => html`<th scope="col" key=${head}>${LABELS[HEADS.indexOf(head)]}</th>`)}</tr></thead>
    <tbody>${Array.from({ length: rows }, (_, i) => html`<${Fragment} key=${entries[i] ? entries[i].decision.id : `row${i}`}>
      <${Row} entry=${entries[i]} index=${i} limits=${limits} columns=${columns} />
      ${page.open.alternatives && entries[i] && html`<${Alternatives} decision=${entries[i].decision} columns=${columns} />`}
    </${Fragment}>`)}</tbody>
  </table>`;
}
