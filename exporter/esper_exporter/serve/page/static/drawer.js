// Everything about one environment, beside the wall, which stays in use.

import { html, useEffect, useRef } from './vendor/preact-htm.js';
import { action, fixed, missing, MISSING, percent, plural, signed, stage, whole } from './format.js';
import { range, scale, trace } from './lines.js';
import { Icon, Share } from './ui.js';
import { environments, Stage, Status } from './envs.js';

const PARTS = {
  base_acc_delta: 'accuracy change', bounded_attribution: 'attribution, bounded', seed_contribution: 'seed contribution',
  escrow_delta: 'escrow', escrow_forfeit: 'escrow forfeit', compute_rent: 'compute rent', alpha_shock: 'α shock', ratio_penalty: 'ratio penalty',
  stage_bonus: 'stage bonus', fossilize_terminal_bonus: 'fossilise bonus', blending_warning: 'blending warning', holding_warning: 'holding warning',
  hindsight_credit: 'hindsight credit', pbrs_bonus: 'PBRS', synergy_bonus: 'synergy', action_shaping: 'action shaping', terminal_bonus: 'terminal bonus',
  occupancy_rent: 'occupancy rent', fossilized_rent: 'fossilised rent', drip_this_epoch: 'drip',
};

// A signed bar around a middle line: blue adds, brown takes.
const Signed = ({ value, most, width = 290, height = 18, from = width / 2 }) => {
  const reach = most > 0 && typeof value === 'number' ? (value / most) * (Math.min(from, width - from) - 4) : 0;
  return html`<svg class="signed" viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true"><path class="mid" d=${`M${from} 0V${height}`} />
    ${reach !== 0 && html`<rect class=${reach > 0 ? 'plus' : 'less'} x=${reach > 0 ? from : from + reach} y=${height * 0.22} width=${Math.abs(reach)} height=${height * 0.5} rx="1" />`}</svg>`;
};

export function Parts({ parts, total }) {
  const terms = Object.entries(parts).filter(([, v]) => typeof v === 'number' && v !== 0).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const odd = Object.entries(parts).filter(([, v]) => typeof v === 'string');
  const zero = Object.values(parts).filter((v) => v === 0).length;
  const most = Math.max(Math.abs(total) || 0, ...terms.map(([, v]) => Math.abs(v)));
  return html`<h3>Reward parts <span class="dim">last step, largest first${zero ? `; ${zero} others are 0` : ''}</span></h3>
    <table class="rw"><tbody>${[...odd, ...terms].map(([name, v]) => html`<tr key=${name}><th scope="row">${PARTS[name] || name}</th><td><${Signed} value=${v} most=${most} /></td><td class=${`r ${typeof v === 'string' ? 'crit' : ''}`}>${signed(v, 3)}</td></tr>`)}
    <tr class="total"><th scope="row">total</th><td><${Signed} value=${total} most=${most} /></td><td class="r">${signed(total, 3)}</td></tr></tbody></table>`;
}

const slotName = (name) => (/^r\d+c\d+$/.test(name) ? name.replace('r', '').replace('c', '') : name.slice(0, 4));

export function Counterfactual({ matrix }) {
  if (!matrix) return html`<div><h3>Counterfactual</h3><p class="dim">not computed yet</p></div>`;
  const few = matrix.slots.length < 4;
  const none = matrix.configs.find((c) => c.mask.every((on) => !on));
  const base = none && typeof none.accuracy === 'number' ? none.accuracy : null;
  const most = Math.max(0.01, ...matrix.configs.map((c) => Math.abs((c.accuracy || 0) - (base || 0))));
  return html`<div><h3>Counterfactual <span class="dim">${matrix.configs.length} of ${2 ** matrix.slots.length}${matrix.milliseconds ? `, ${fixed(matrix.milliseconds, 0)} ms` : ''}</span></h3>
    <table class="cf"><thead><tr class=${few ? 'few' : ''}><th class="dim" scope="col">${matrix.slots.map((s) => html`<span class="d" key=${s} title=${s}>${few ? s.slice(0, 5) : slotName(s)}</span>`)}</th><th class="dim" scope="col" colspan="2">accuracy against none</th></tr></thead>
    <tbody>${matrix.configs.map((c) => html`<tr key=${c.mask.join()} class=${few ? 'few' : ''}><td aria-label=${matrix.slots.filter((_, i) => c.mask[i]).join(', ') || 'none'}>${c.mask.map((on, i) => html`<span class="d" key=${i}><${Icon} name=${on ? 'dot' : 'ring'} cls=${on ? '' : 'faint'} /></span>`)}</td>
      <td>${base !== null && html`<${Signed} value=${c.accuracy - base} most=${most} width=${122} height=${16} />`}</td><td class="r"><b>${fixed(c.accuracy, 1)}</b> %</td></tr>`)}</tbody></table></div>`;
}

const Z = 1.96;

export function Shapley({ shapley, seeds }) {
  if (!shapley) return html`<div><h3>Shapley</h3><p class="dim">computed when the episode ends</p></div>`;
  const reach = Math.max(0.01, ...shapley.slots.map((s) => Math.abs(s.mean) + Z * s.std));
  const x = scale([-reach, reach], 4, 196);
  const blueprint = Object.fromEntries(seeds.map((s) => [s.slot, s.blueprint]));
  const samples = Math.max(0, ...shapley.slots.map((s) => s.samples));
  return html`<div><h3>Shapley <span class="dim">95 %${samples ? `, ${samples} samples` : ''}, batch ${shapley.batch}</span></h3>
    ${shapley.slots.map((s) => {
      const level = !s.significant ? 'hollow' : s.mean > 0 ? 'plus' : 'less';
      const word = !s.significant ? 'within its error' : s.mean > 0 ? 'helps, beyond its error' : 'harms, beyond its error';
      return html`<div class="shap" key=${s.slot}><span class="fx"><span>${s.slot} ${blueprint[s.slot] || ''}</span><span class="sp"></span><b>${signed(s.mean, 2)}</b><span class="dim">± ${fixed(Z * s.std, 2)}</span></span>
        <svg viewBox="0 0 200 12" preserveAspectRatio="none" aria-hidden="true"><path class="mid" d="M100 0V12" /><path class="whisker" d=${`M${x(s.mean - Z * s.std).toFixed(1)} 6H${x(s.mean + Z * s.std).toFixed(1)}`} /><circle class=${level} cx=${x(s.mean)} cy="6" r="3" /></svg><span class="dim">${word}</span></div>`;
    })}</div>`;
}

// Fifty actions, WAIT a dot so that acts stand out.
export function Actions({ actions, counts, title = 'Actions' }) {
  const ranked = Object.entries(counts || {}).sort((a, b) => b[1] - a[1]);
  return html`<h3>${title} <span class="dim">last ${actions.length || MISSING}</span><span class="sp"></span><span class="small">${ranked.map(([op, n]) => html`<span key=${op}><b class=${action(op)[1]}>${op === 'WAIT' ? '' : action(op)[2]}</b> ${n} ${action(op)[0]} </span>`)}</span></h3>
    <ol class="hist" aria-label="actions, oldest first">${actions.map((op, i) => html`<li key=${i} class=${`${action(op)[1]} ${op === 'WAIT' ? '' : 'act'}`} title=${op}><span aria-hidden="true">${action(op)[2]}</span><span class="sr">${op}</span></li>`)}</ol>`;
}

const Chart = ({ env }) => {
  const limits = range(env.accuracies);
  if (!limits) return html`<p class="dim">no epoch yet</p>`;
  const n = env.accuracies.length;
  const x = (i) => (n > 1 ? (i / (n - 1)) * 486 : 243);
  const y = scale(limits, 46, 14);
  const { path } = trace(env.accuracies, x, y);
  const best = env.accuracies.reduce((at, v, i) => (typeof v === 'number' && (at < 0 || v > env.accuracies[at]) ? i : at), -1);
  const rewards = env.rewards.filter((v) => typeof v === 'number');
  const most = Math.max(0.01, ...rewards.map(Math.abs));
  const bars = env.rewards.map((v, i) => (typeof v === 'number' ? `M${((i + 0.5) * (486 / env.rewards.length)).toFixed(1)} 82v${(-(v / most) * 11).toFixed(1)}` : '')).join('');
  return html`<svg class="chart" viewBox="0 0 490 96" role="img" aria-label=${`accuracy, best ${fixed(env.best, 1)} at epoch ${env.best_epoch}; rewards below`}>
    <path class="axis" d="M0 82H490" /><path class="rewards" d=${bars} /><path class="ln" d=${path} />
    ${best >= 0 && html`<circle class="best" cx=${x(best)} cy=${y(env.accuracies[best])} r="3" /><text x=${Math.max(112, Math.min(436, x(best)))} y="8" text-anchor="middle">best ${fixed(env.best, 1)}, epoch ${env.best_epoch}</text>`}
    <text x="0" y="8">accuracy</text><text x="0" y="66">reward</text></svg>`;
};

const Seeds = ({ seeds }) => {
  const used = seeds.filter((s) => s.stage && s.stage !== 'DORMANT').length;
  return html`<h3>Seeds <span class="dim">${used} of ${seeds.length} slots</span></h3>
    <div class="scroll"><table class="sd"><thead><tr>${['slot', 'stage', 'blueprint', 'α', 'epochs', 'gained', 'gradient', 'params'].map((name) => html`<th scope="col" key=${name} class=${['epochs', 'gained', 'params'].includes(name) ? 'r' : ''}>${name}</th>`)}</tr></thead>
    <tbody>${seeds.map((s) => {
      const place = s.stage ? stage(s.stage)[2] : 0;
      const grows = place > 0;
      return html`<tr key=${s.slot} class=${grows ? '' : 'dim'}><th scope="row">${s.slot}</th><td><${Stage} name=${s.stage || 'DORMANT'} /></td><td>${s.blueprint || MISSING}</td>
        <td>${grows ? html`<${Share} share=${s.alpha} cls="alpha" /> ${fixed(s.alpha, 2)}` : MISSING}</td><td class="r">${place === 0 ? MISSING : fixed(s.epochs, 0)}</td><td class="r">${grows ? signed(s.gain, 1) : MISSING}</td>
        <td>${!grows ? MISSING : s.exploding ? html`<span class="crit"><${Icon} name="tri" /> exploding</span>` : s.vanishing ? html`<span class="warn"><${Icon} name="fall" /> vanishing</span>` : s.vanishing === false && s.exploding === false ? html`<span class="dim"><${Icon} name="ring" /> fine</span>` : MISSING}</td>
        <td class="r">${grows && s.params ? whole(s.params) : MISSING}</td></tr>`;
    })}</tbody></table></div>`;
};

const Best = ({ best, page }) => {
  const open = page.open.best;
  return html`<h3><${Icon} name="star" cls="blue" /> Best run <span class="dim">${fixed(best.peak, 1)} % at episode ${best.episode}, epoch ${best.epoch}: ${plural(best.seeds.length, 'seed')}, ${fixed(best.growth, 2)}×</span><span class="sp"></span>
      <button class="text" aria-expanded=${Boolean(open)} onClick=${() => page.set({ best: !open })}>${open ? 'close' : 'open'} its record</button></h3>
    ${open && html`<div class="record"><p class="dim">At its peak; the episode ended at ${fixed(best.final, 1)} % with ${best.fossilized} fossilised, ${best.pruned} pruned.</p>
      <${Seeds} seeds=${best.seeds} />${Object.keys(best.parts).length > 0 && html`<${Parts} parts=${best.parts} total=${best.reward} />`}
      <div class="half"><${Counterfactual} matrix=${best.counterfactual} /><${Shapley} shapley=${best.shapley} seeds=${best.seeds} /></div><${Actions} actions=${best.actions} title="Actions up to the peak" /></div>`}`;
};

export function Drawer({ page }) {
  const box = useRef(null);
  const wanted = page.env;
  useEffect(() => {
    if (box.current) box.current.focus({ preventScroll: true });
  }, [wanted]);
  const row = environments(page.detail).find((env) => env.id === wanted);
  const env = page.detail.env && page.detail.env.id === wanted ? page.detail.env : null;
  const drop = env && typeof env.best === 'number' && typeof env.accuracy === 'number' ? env.best - env.accuracy : 0;
  return html`<aside class="drawer" ref=${box} tabindex="-1" aria-label=${`environment ${wanted}`}>
    <div class="dh"><b class="n">env ${wanted}</b>${row && html`<${Status} name=${row.status} />`}
      ${env && drop > 0.05 && html`<span class="dim nw">${fixed(drop, 1)} points below its best${env.epoch > env.best_epoch ? `, ${env.epoch - env.best_epoch} epochs ago` : ''}</span>`}
      <span class="sp"></span><button class="key" onClick=${() => page.step(1)} aria-label="next environment">j</button><button class="key" onClick=${() => page.step(-1)} aria-label="previous environment">k</button><button class="key" onClick=${() => page.go({ env: null })} aria-label="close">esc</button></div>
    ${!row && html`<p class="dim">There is no environment ${wanted} in this run.</p>`}
    ${env && html`<dl class="kp">${[['accuracy', missing(env.accuracy) ? MISSING : `${fixed(env.accuracy, 1)}\u2009%`], ['loss', fixed(env.loss, 3)], ['reward, step', signed(env.reward, 2)], ['reward, episode', signed(env.episode_reward, 2)], ['growth', missing(env.growth) ? MISSING : `${fixed(env.growth, 2)}×`]].map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>
      ${env.rollback && html`<p class="crit"><${Icon} name="undo" /> rolled back: ${env.rollback}</p>`}
      <${Chart} env=${env} /><${Seeds} seeds=${env.seeds} />
      ${Object.keys(env.parts).length ? html`<${Parts} parts=${env.parts} total=${env.total} />` : html`<h3>Reward parts</h3><p class="dim">no step yet</p>`}
      <div class="half"><${Counterfactual} matrix=${env.counterfactual} /><${Shapley} shapley=${env.shapley} seeds=${env.seeds} /></div>
      <${Actions} actions=${env.actions} counts=${env.action_counts} />
      ${env.best_runs.map((best) => html`<${Best} best=${best} page=${page} key=${best.episode} />`)}`}
  </aside>`;
}
