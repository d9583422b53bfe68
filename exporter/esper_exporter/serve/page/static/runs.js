// Several runs, groups or ranks side by side: a panel a run, a row each.

import { html } from './vendor/preact-htm.js';
import { fixed, headState, missing, MISSING, percent, short, signed, span, whole } from './format.js';
import { range, Spark } from './lines.js';
import { Icon, Panel, Share } from './ui.js';
import { STATES } from './top.js';

const ORDER = ['failed', 'broken', 'stalled', 'look', 'waiting', 'healthy', 'finished'];
const WORDS = { failed: 'crit', broken: 'crit', stalled: 'warn', look: 'warn', waiting: 'dim', healthy: 'ok', finished: 'ok' };
const SYMBOLS = { crit: 'v-crit', warn: 'v-warn', ok: 'v-ok', dim: 'v-wait' };

const worst = (runs) => runs.reduce((a, b) => (ORDER.indexOf(b.verdict.word) < ORDER.indexOf(a.verdict.word) ? b : a));

const Heads = ({ run }) => html`<span class="mini-heads">${run.head_states.map(([head, state, level]) => {
  const found = headState(state);
  const latched = run.latched_heads.includes(head);
  return html`<span key=${head} class=${`${level} ${latched ? 'lit' : ''}`} title=${`${head} ${found ? found[0] : 'not known'}${latched ? ', latched' : ''}`} aria-label=${`${head} ${found ? found[0] : 'not known'}${latched ? ', latched' : ''}`}>${found ? html`<${Icon} name=${found[1]} />` : MISSING}</span>`;
})}</span>`;

// What sets one row apart from the others of its run.
function apart(run, peers) {
  const notes = [];
  if (run.latched_heads.length) notes.push(html`<span class="crit"><${Icon} name="dot" /> ${run.latched_heads.join(', ')} latched</span> `);
  const others = peers.filter((p) => p !== run);
  if (others.length) {
    const speeds = others.map((p) => p.epochs_per_second).filter((v) => typeof v === 'number');
    const usual = speeds.length ? [...speeds].sort((a, b) => a - b)[Math.floor(speeds.length / 2)] : null;
    if (usual && typeof run.epochs_per_second === 'number' && run.epochs_per_second < 0.8 * usual) notes.push(html`<span class="warn"><${Icon} name="fall" /> ${percent(1 - run.epochs_per_second / usual, 0)} slower</span> `);
    const ahead = Math.max(...others.map((p) => p.updates));
    if (ahead - run.updates > 1) notes.push(html`<span class="warn"><${Icon} name="bars" /> ${ahead - run.updates} updates behind</span> `);
  }
  return notes.length ? notes : html`<span class="dim">${MISSING}</span>`;
}

const Row = ({ page, run, peers, bounds }) => {
  const [word, symbol, level] = STATES[run.state] || STATES.running;
  const tint = run.latched ? 'bad' : ['stalled'].includes(run.state) ? 'wrn' : '';
  return html`<tr class=${tint} data-run=${run.key} tabindex="0" onClick=${() => page.go({ view: 'overview', run: run.key, env: null })} onKeyDown=${(e) => e.key === 'Enter' && page.go({ view: 'overview', run: run.key, env: null })}>
    <th scope="row">rank ${run.rank} <span class="dim">${run.group}</span></th>
    <td><span class="fx">${symbol === 'pulse' ? html`<span class="pulse" aria-hidden="true"></span>` : html`<${Icon} name=${symbol} cls=${level} />`}<span class=${level === 'ok' ? '' : level}>${word}</span> <span class="dim">${span(page.silenceOf(run))}</span></span></td>
    <td class="r">${whole(run.update)}</td>
    <td><span class="fx"><${Spark} values=${run.returns} bounds=${bounds} width=${140} height=${24} name="return" digits=${2} /><b>${signed(run.return, 2)}</b></span></td>
    <td class="r">${missing(run.accuracy) ? MISSING : `${fixed(run.accuracy, 1)} %`}</td>
    <td class=${`r ${run.kl_level}`}>${fixed(run.kl, 4)}</td><td class=${`r ${run.grad_norm_level}`}>${missing(run.grad_norm) ? MISSING : short(run.grad_norm)}</td><td class=${`r ${run.clip_fraction_level}`}>${percent(run.clip_fraction)}</td>
    <td><${Heads} run=${run} /></td><td>${apart(run, peers)}</td><td class="r">${whole(run.fossilised)}</td><td class="r">${run.rollbacks ? html`<span class="violet">${run.rollbacks}</span>` : 0}</td><td class="r">${fixed(run.epochs_per_second, 1)}</td></tr>`;
};

// The groups of an A/B test are separate runs that belong side by side: matched by task and start.
function families(runs) {
  const found = new Map();
  for (const run of runs) {
    const close = [...found.entries()].find(([, some]) => some[0].run_id === run.run_id || (some[0].task === run.task && some[0].group !== run.group && Math.abs((some[0].started || 0) - (run.started || 0)) < 60));
    if (close) close[1].push(run);
    else found.set(run.key, [run]);
  }
  return [...found.values()];
}

// Which group leads, where there are several.
function lead(runs) {
  const ranked = runs.filter((r) => typeof r.return === 'number').sort((a, b) => b.return - a.return);
  if (new Set(ranked.map((r) => r.group)).size < 2) return null;
  return `A/B: ${ranked[0].group} leads ${ranked[ranked.length - 1].group} by ${fixed(ranked[0].return - ranked[ranked.length - 1].return, 2)} return`;
}

export function Runs({ page }) {
  return html`<div class="runs" id="part-runs">${families(page.runs).map((runs) => {
    const sick = worst(runs);
    const level = WORDS[sick.verdict.word];
    const ids = [...new Set(runs.map((r) => r.run_id))];
    const ahead = lead(runs);
    const bounds = range(runs.flatMap((r) => r.returns));
    const [first] = runs;
    const right = html`<span class="dim">batch</span> <b>${whole(first.batch)}</b><span class="dim"> / ${whole(first.batches)}</span> <${Share} share=${first.batch && first.batches ? first.batch / first.batches : 0} cls="thin" /> <span class="dim">${span(first.elapsed)}</span>`;
    const note = html`<span class=${level}><svg class="vi" aria-hidden="true"><use href=${`#${SYMBOLS[level]}`} /></svg> <b>${sick.verdict.word}</b></span>
      ${sick.verdict.reasons.slice(0, 2).map((r) => html` <span class="text"><${Icon} name=${r.symbol} cls=${r.level} /> ${runs.length > 1 ? `${sick.group} rank ${sick.rank}: ` : ''}<b>${r.subject}</b> ${r.text}</span>`)} ${ahead && html`<span>· ${ahead}</span>`}`;
    return html`<${Panel} key=${first.key} id=${`run-${first.key}`} title=${ids.join(', ')} note=${note} right=${right}><div class="scroll"><table class="ranks">
      <thead><tr>${['Rank', 'Last event', 'Update', 'Return, mean per episode', 'Accuracy', 'KL', 'Gradient', 'Clipped', 'Heads', 'Apart from its peers', 'Fossilised', 'Rollbacks', 'Epochs/s'].map((name) => html`<th key=${name} scope="col" class=${['Update', 'Accuracy', 'KL', 'Gradient', 'Clipped', 'Fossilised', 'Rollbacks', 'Epochs/s'].includes(name) ? 'r' : ''}>${name}</th>`)}</tr></thead>
      <tbody>${runs.map((run) => html`<${Row} key=${run.key} page=${page} run=${run} peers=${runs} bounds=${bounds} />`)}</tbody></table></div></${Panel}>`;
  })}</div>`;
}
