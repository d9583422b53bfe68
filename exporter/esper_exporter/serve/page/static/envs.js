// The environments: a row each up to eight, a wall of tiles above; a click opens one.

import { html } from './vendor/preact-htm.js';
import { action, code, fixed, missing, MISSING, plural, signed, stage, status } from './format.js';
import { range, Spark } from './lines.js';
import { Icon, Panel, Share } from './ui.js';

const ROWS_AT_MOST = 8;
const SLOTS_IN_A_ROW = 5;
const SICK = new Set(['stalled', 'degraded', 'rollback']);

// Rows as objects, by the columns that the answer names.
export function environments(detail) {
  if (!detail) return [];
  const { columns, slot_columns: slotColumns, rows } = detail.envs;
  const slot = (values) => (values ? Object.fromEntries(slotColumns.map((name, i) => [name, values[i]])) : null);
  return rows.map((row) => {
    const env = Object.fromEntries(columns.map((name, i) => [name, row[i]]));
    env.slots = env.slots.map(slot);
    return env;
  });
}

// One scale for all, so that a curve's height compares.
const shared = (envs) => range(envs.flatMap((env) => env.accuracies));

const note = (page, envs) => {
  if (!envs.length) return 'none yet';
  const { run, detail } = page;
  const slots = detail.envs.slot_ids.length;
  return `${plural(envs.length, 'env')} × ${plural(slots, 'slot')}${run.epoch ? `, epoch ${run.epoch}${run.epochs ? ` of ${run.epochs}` : ''}` : ''}`;
};

export const Status = ({ name }) => {
  const [word, symbol, level] = status(name);
  return html`<span class=${`fx ${level}`} data-status=${name}><${Icon} name=${symbol} />${word}</span>`;
};

export const Stage = ({ name }) => {
  const [word, symbol, place] = stage(name);
  return html`<${Icon} name=${symbol} cls=${place > 0 ? 'blue' : place < 0 ? 'dim' : 'faint'} /> ${word}`;
};

const Slot = ({ slot, name }) => {
  if (!slot || slot.stage === 'DORMANT') return html`<td class="slot dim" data-name=${name}><${Stage} name="DORMANT" /></td>`;
  const [word, , place] = stage(slot.stage);
  return html`<td class="slot" data-name=${name} data-stage=${slot.stage}><span class=${place < 0 ? 'dim' : ''} title=${`${word} for ${plural(slot.epochs_in_stage, 'epoch')}`}><${Icon} name=${stage(slot.stage)[1]} cls=${place > 0 ? 'blue' : 'dim'} /> ${slot.blueprint_id && html`<b>${slot.blueprint_id}</b> `}${slot.has_exploding && html` <span class="crit" title="exploding gradient" role="img" aria-label="exploding gradient"><${Icon} name="tri" /></span>`}${slot.has_vanishing && html` <span class="warn" title="vanishing gradient" role="img" aria-label="vanishing gradient"><${Icon} name="fall" /></span>`}</span>
    <span class="dim small">${word}</span>
    <span class="al">${place < 0 ? html`<span>${plural(slot.epochs_in_stage, 'epoch')}</span>` : html`<${Share} share=${slot.alpha} cls="alpha" /><span>α ${fixed(slot.alpha, 2)}</span> <span>${signed(slot.accuracy_delta, 1)}</span>`}</span></td>`;
};

const opens = (page, env) => ({
  onClick: () => page.go({ env: env.id }),
  onKeyDown: (e) => {
    if (e.key === 'Enter') {
      e.preventDefault();
      page.go({ env: env.id });
    }
  },
});

const Table = ({ page, envs, slots }) => {
  const bounds = shared(envs);
  return html`<div class="scroll"><table class="envs"><caption class="sr">Environments</caption>
    <thead><tr><th scope="col">Env</th><th scope="col">Status</th><th scope="col">Accuracy, 50 epochs</th><th scope="col" class="r">Reward</th><th scope="col" class="r">Growth</th>
      ${slots.map((name) => html`<th scope="col" class="slot" key=${name}>${name}</th>`)}<th scope="col">Last act</th></tr></thead>
    <tbody>${envs.map((env) => {
      const [, , level] = status(env.status);
      return html`<tr key=${env.id} data-env=${env.id} tabindex="0" class=${`${page.env === env.id ? 'sel' : ''}`} aria-label=${`environment ${env.id}, ${status(env.status)[0]}`} ...${opens(page, env)}>
        <th scope="row">${env.id}</th><td><${Status} name=${env.status} /></td>
        <td><span class="fx acc"><${Spark} values=${env.accuracies} bounds=${bounds} width=${104} height=${36} name=${`accuracy of environment ${env.id}`} /><span><b>${fixed(env.accuracy, 1)}</b>${!missing(env.accuracy) && html`<span class="dim"> %<br />best ${fixed(env.best, 1)}</span>`}</span></span></td>
        <td class="r" data-name="Reward">${signed(env.reward, 2)}</td><td class="r dim" data-name="Growth">${missing(env.growth) ? MISSING : `${fixed(env.growth, 2)}×`}</td>
        ${env.slots.map((slot, i) => html`<${Slot} slot=${slot} name=${slots[i]} key=${slots[i]} />`)}
        <td data-name="Last act" class=${env.action ? action(env.action)[1] : 'dim'}>${env.action ? action(env.action)[0] : MISSING}</td></tr>`;
    })}</tbody></table></div>`;
};

// Slots named r1c2 keep their place; others follow in order.
export function places(names) {
  const parsed = names.map((name) => /^r(\d+)c(\d+)$/.exec(name));
  if (parsed.some((m) => !m)) return { columns: Math.ceil(Math.sqrt(names.length || 1)) };
  return { columns: Math.max(...parsed.map((m) => Number(m[2]))) + 1 };
}

const Cell = ({ slot, name }) => {
  if (!slot || slot.stage === 'DORMANT') return html`<i title=${`${name} dormant`}>·</i>`;
  const [word, , place] = stage(slot.stage);
  const text = place < 0 ? { PRUNED: '×', EMBARGOED: '⊘', RESETTING: '↺' }[slot.stage] : code(slot.blueprint_id);
  const fill = place === 3 ? `a${Math.max(0, Math.min(20, Math.round((slot.alpha || 0) * 20)))}` : '';
  return html`<i class=${`${place < 0 ? 'x' : `s${place}`} ${fill}`} title=${`${name} ${word} ${slot.blueprint_id || ''} α ${fixed(slot.alpha, 2)}`}>${text}</i>`;
};

const Tile = ({ page, env, slots, columns, bounds }) => {
  const [word, , level] = status(env.status);
  const tint = level === 'crit' ? 'bad' : level === 'warn' ? 'wrn' : '';
  const spoken = env.slots.map((slot, i) => (slot && slot.stage !== 'DORMANT' ? `${slots[i]} ${stage(slot.stage)[0]} ${slot.blueprint_id || ''}` : '')).filter(Boolean).join(', ');
  return html`<button class=${`tile ${tint} ${page.env === env.id ? 'sel' : ''}`} data-env=${env.id} ...${opens(page, env)} aria-label=${`environment ${env.id}, ${word}, accuracy ${fixed(env.accuracy, 1)} percent; ${spoken || 'no seed'}`}>
    <b>${env.id}</b><span class=${level}>${word}</span><b class="r">${fixed(env.accuracy, 1)}</b>
    <${Spark} values=${env.accuracies} bounds=${bounds} width=${100} height=${22} name="accuracy" end=${false} />
    <span class=${`sl c${columns}`}>${env.slots.map((slot, i) => html`<${Cell} slot=${slot} name=${slots[i]} key=${slots[i]} />`)}</span></button>`;
};

function Wall({ page, envs, slots, full }) {
  const bounds = shared(envs);
  const { columns } = places(slots);
  const counts = {};
  const stages = {};
  const used = new Map();
  for (const env of envs) {
    counts[env.status] = (counts[env.status] || 0) + 1;
    for (const slot of env.slots) {
      const name = slot ? slot.stage : 'DORMANT';
      stages[name] = (stages[name] || 0) + 1;
      if (slot && slot.blueprint_id) used.set(code(slot.blueprint_id), slot.blueprint_id);
    }
  }
  const wanted = page.open.status;
  const shown = wanted ? envs.filter((env) => env.status === wanted) : envs;
  const sorted = page.open.sort === 'accuracy' ? [...shown].sort((a, b) => (b.accuracy || 0) - (a.accuracy || 0)) : page.open.sort === 'sick' ? [...shown].sort((a, b) => SICK.has(b.status) - SICK.has(a.status)) : shown;
  return html`<div class="tb">
      ${['excellent', 'healthy', 'stalled', 'degraded', 'rollback', 'initializing'].filter((name) => counts[name]).map((name) => {
        const [word, symbol, level] = status(name);
        return html`<button class=${`chip ${wanted === name ? 'on' : ''}`} aria-pressed=${wanted === name} onClick=${() => page.set({ status: wanted === name ? '' : name })} key=${name}><${Icon} name=${symbol} cls=${level} /> ${word} <b>${counts[name]}</b></button>`;
      })}
      <label>sort <select value=${page.open.sort || 'number'} onChange=${(e) => page.set({ sort: e.target.value })}>${['number', 'accuracy', 'sick'].map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
    </div>
    <div class="tb b">${['GERMINATED', 'TRAINING', 'BLENDING', 'HOLDING', 'FOSSILIZED', 'PRUNED', 'EMBARGOED', 'RESETTING', 'DORMANT'].filter((name) => stages[name]).map((name) => html`<span key=${name}><span class=${`sw ${stage(name)[2] < 0 ? 'x' : `s${stage(name)[2]}`} ${name === 'BLENDING' ? 'a10' : ''}`} aria-hidden="true"></span>${stage(name)[0]} <b>${stages[name]}</b></span>`)}<span>fill = α</span></div>
    ${full && html`<div class="tb b">${[...used].sort().map(([short, name]) => html`<span key=${short}><b>${short}</b> ${name}</span>`)}</div>`}
    <div class="wall">${sorted.map((env) => html`<${Tile} key=${env.id} page=${page} env=${env} slots=${slots} columns=${columns} bounds=${bounds} />`)}</div>`;
}

export function Environments({ page, full }) {
  const envs = environments(page.detail);
  const slots = page.detail ? page.detail.envs.slot_ids : [];
  const hint = page.over ? 'the last values before the end' : 'α, and gain in points of accuracy';
  return html`<${Panel} id="envs" title="Environments" note=${note(page, envs)} right=${html`<span class="dim legend">${hint}</span>`} cls="p-envs">
    ${!envs.length
      ? html`<p class="bd dim">They appear with the run's first event.</p>`
      : envs.length <= ROWS_AT_MOST && slots.length <= (full ? 9 : SLOTS_IN_A_ROW)
        ? html`<${Table} page=${page} envs=${envs} slots=${slots} />`
        : html`<${Wall} page=${page} envs=${envs} slots=${slots} full=${full} />`}
  </${Panel}>`;
}
