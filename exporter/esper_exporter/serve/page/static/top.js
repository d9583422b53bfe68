// The head of the page: the run, its verdict and progress, and every latch.

import { html } from './vendor/preact-htm.js';
import { clock, day, missing, MISSING, plural, span, whole } from './format.js';
import { SKELETON } from './heads.js';
import { chosen, Icon, Share } from './ui.js';

export const VIEWS = [
  ['overview', 'Overview'],
  ['policy', 'Policy'],
  ['envs', 'Environments'],
  ['events', 'Events'],
  ['system', 'System'],
  ['config', 'Config'],
];

// The views of the navigation; a run alone has nothing to compare.
export const viewsOf = (runs) => (runs.length > 1 ? [['runs', 'Runs'], ...VIEWS] : VIEWS);

const VERDICTS = {
  waiting: ['Waiting', 'dim', 'v-wait'],
  healthy: ['Healthy', 'ok', 'v-ok'],
  finished: ['Finished', 'ok', 'v-ok'],
  look: ['Look', 'warn', 'v-warn', 'warnings, none of which pages the on-call engineer'],
  stalled: ['Stalled', 'warn', 'v-bars'],
  broken: ['Broken', 'crit', 'v-crit', 'what pages the on-call engineer'],
  failed: ['Failed', 'crit', 'v-crit'],
};

export const STATES = {
  waiting: ['waiting', 'ring', 'dim'],
  running: ['running', 'pulse', 'ok'],
  paused: ['paused', 'bars', 'dim'],
  stalled: ['stalled', 'bars', 'warn'],
  finished: ['finished', 'dot', 'dim'],
  ended: ['recording ended', 'dot', 'dim'],
  superseded: ['superseded', 'dot', 'dim'],
  failed: ['failed', 'cross', 'crit'],
};

const Pick = ({ name, label, value, options, onPick }) =>
  options.length < 2
    ? html`<span class="one"><i>${label}</i><b>${value}</b></span>`
    : html`<label class="one"><i>${label}</i><select id=${`pick-${name}`} value=${value} onChange=${(e) => onPick(e.target.value)}>
        ${options.map((option) => html`<option value=${option} selected=${option === value}>${option}</option>`)}
      </select></label>`;

export function Header({ page }) {
  const { run, runs, view, store } = page;
  const pick = (change) => {
    const wanted = { run_id: run.run_id, group: run.group, rank: String(run.rank), ...change };
    const fits = (r) => ['run_id', 'group', 'rank'].filter((k) => String(r[k]) === wanted[k]).length;
    const key = Object.keys(change)[0];
    const among = runs.filter((r) => String(r[key]) === change[key]);
    page.go({ run: among.reduce((a, b) => (fits(b) > fits(a) ? b : a)).key });
  };
  const unique = (values) => [...new Set(values.map(String))];
  const ranks = run ? runs.filter((r) => r.run_id === run.run_id && r.group === run.group).map((r) => r.rank) : [];
  const groups = run ? runs.filter((r) => r.run_id === run.run_id || r.group !== run.group).map((r) => r.group) : [];
  const of = run && run.world_size > 1 ? ` of ${run.world_size}` : '';
  return html`<header>
    <a class="brand" href="#/" aria-label="esper, overview"><svg class="logo ok" aria-hidden="true"><use href="#logo" /></svg><span>esper</span></a>
    <span class="pick">
      ${run
        ? html`<${Pick} name="run" label="run" value=${run.run_id} options=${unique(runs.map((r) => r.run_id))} onPick=${(v) => pick({ run_id: v })} />
            <${Pick} name="group" label="group" value=${run.group} options=${unique(groups)} onPick=${(v) => pick({ group: v })} />
            <${Pick} name="rank" label="rank" value=${`${run.rank}${ranks.length < 2 ? of : ''}`} options=${ranks.length < 2 ? [] : unique(ranks)} onPick=${(v) => pick({ rank: v })} />`
        : ['run', 'group', 'rank'].map((name) => html`<span class="one"><i>${name}</i><b>${MISSING}</b></span>`)}
    </span>
    <nav aria-label="Parts">
      ${viewsOf(runs).map(([id, title]) => html`<a key=${id} href=${page.link({ view: id })} class=${view === id ? 'on' : ''} aria-current=${view === id ? 'page' : undefined}>${title}${id === 'runs' ? ` ${runs.length}` : ''}</a>`)}
    </nav>
    <span class="sp"></span>
    <${Live} page=${page} />
    ${run && run.task && html`<span class="dim task" title="task">${run.task}</span>`}
    <button class="key" onClick=${page.help} aria-label="Keys and meaning">?</button>
  </header>`;
}

function Live({ page }) {
  const { run, store, data } = page;
  if (store.lost) {
    return html`<span class="live"><${Icon} name="cross" cls="crit" /><b class="crit">no contact</b></span>`;
  }
  if (!run) {
    const up = data ? store.now() - data.exporter.started : null;
    return html`<span class="live"><${Icon} name="ring" cls="dim" /><b>waiting</b>${!missing(up) && html`<span class="dim age"> · up for ${span(up)}, no event yet</span>`}</span>`;
  }
  const { replay } = page;
  const paused = replay && replay.paused && run.state === 'running';
  const [word, symbol, level] = paused ? STATES.paused : STATES[run.state] || STATES.running;
  // Of a recording that stands still, the age of its last event is the reader's own time.
  const age = replay && replay.exhausted ? (run.state === 'ended' ? '' : ' · recording ended') : paused ? '' : ` · last event ${span(page.silence)} ago`;
  return html`<span class="live" data-state=${run.state}>
    ${symbol === 'pulse' ? html`<span class="pulse" aria-hidden="true"></span>` : html`<${Icon} name=${symbol} cls=${level} />`}
    <span><b class=${level === 'ok' ? '' : level}>${word}</b>${run.failure && html` ${why(run)}`}
    ${age && html`<span class="dim age">${age}</span>`}</span></span>`;
}

export function Strip({ page }) {
  const { store, run } = page;
  if (store.lost) {
    return html`<div class="strip" role="alert"><${Icon} name="cross" cls="crit" />${' '}<b>No contact since ${clock(store.lostSince, chosen.utc)}.</b>
      <span class="dim"> ${store.refused ? `The exporter answers with ${store.refused}.` : 'The exporter does not answer.'} What follows are the last values received, nothing here is live.</span></div>`;
  }
  if (store.paused) {
    return html`<div class="strip" role="status"><${Icon} name="bars" /> <b>Paused${run && run.update ? ` at update ${run.update}` : ''}.</b> <span class="dim">This page stands still, the run does not. <kbd>space</kbd> goes on.</span></div>`;
  }
  if (run && page.over) {
    const at = run.ended || run.last_event;
    const what = { failed: 'This run failed', ended: 'This recording ends', superseded: 'This run was superseded' }[run.state] || 'This run ended';
    return html`<div class="strip" data-over=${run.state}><${Icon} name=${run.state === 'failed' ? 'cross' : 'dot'} cls=${run.state === 'failed' ? 'crit' : ''} />${' '}
      <b>${what} at ${day(at, chosen.utc)} ${clock(at, chosen.utc)}${chosen.utc ? ' UTC' : ''}.</b>
      <span class="dim"> What follows are its last values, nothing here is live. Latches, faults and the reason keep their colour: they are facts.</span></div>`;
  }
  return null;
}

const REASONS = 6;
const REASONS_ON_A_PHONE = 3;

// What the button that opens them says of the reasons that are not shown.
function hidden(reasons, phone) {
  if (!phone) return `${reasons.length} more`;
  const critical = reasons.filter((reason) => reason.level === 'crit').length;
  const warnings = reasons.length - critical;
  return `+${[critical && `${critical} critical`, warnings && plural(warnings, 'warning')].filter(Boolean).join(', ')}`;
}

export function Verdict({ page }) {
  const { run, store } = page;
  const verdict = run ? run.verdict : { word: 'waiting', reasons: [], checked: [], critical: 0, warnings: 0 };
  const [title, level, symbol, meaning] = store.lost ? ['No contact', 'crit', 'v-crit'] : VERDICTS[verdict.word];
  const most = page.phone ? REASONS_ON_A_PHONE : REASONS;
  const rest = verdict.reasons.slice(most);
  return html`<section class="verdict" id="part-verdict" aria-label="Verdict">
    <div class=${`word ${level}`} title=${meaning} role="status" data-verdict=${verdict.word}><svg aria-hidden="true"><use href=${`#${symbol}`} /></svg>
      <div><b>${title}</b><span class="dim">${summary(verdict, run)}</span></div></div>
    ${run
      ? html`<ul class="why">
          ${verdict.reasons.slice(0, page.open.reasons ? undefined : most).map((reason) => html`<${Reason} reason=${reason} page=${page} />`)}
          ${rest.length > 0 && html`<li class="dim"><button class="text" aria-expanded=${page.open.reasons} onClick=${() => page.set({ reasons: !page.open.reasons })}>${page.open.reasons ? 'fewer' : hidden(rest, page.phone)}</button></li>`}
          ${verdict.checked.map((text) => html`<li class="dim checked"><${Icon} name="ring" cls="faint" /><span>${text}</span></li>`)}
        </ul>`
      : html`<p class="why how"><span class="dim">waiting for the first event: a training reports when it begins, the demo after 15 to 20 s. A recorded run:</span> <code>esper-exporter watch run2b</code></p>`}
    <${Progress} run=${run} page=${page} />
  </section>`;
}

// How a run failed: what the trainer reported of itself, or how its process ended.
const why = (run) => (run.gave_up && run.failure === 'nonfinite' ? 'gave up: non-finite' : run.failure || '');

function summary(verdict, run) {
  if (!run) return 'no run has reported yet';
  if (verdict.word === 'failed') return why(run);
  if (verdict.word === 'waiting') return 'no event yet';
  const parts = [];
  if (verdict.critical) parts.push(`${verdict.critical} critical`);
  if (verdict.warnings) parts.push(plural(verdict.warnings, 'warning'));
  return parts.join(', ') || 'every check passed';
}

const Reason = ({ reason, page }) => html`<li class="reason" data-level=${reason.level}>
  <${Icon} name=${reason.symbol} cls=${reason.level} />
  <a href=${page.link({})} onClick=${(e) => { e.preventDefault(); page.show(reason.part); }}><b>${reason.subject}</b> ${reason.text}</a>
  ${reason.runbook && html`<a class="rb" href=${page.runbook(reason.runbook)} target="_blank" rel="noreferrer" aria-label=${`runbook ${reason.rule}`}>runbook</a>`}
</li>`;

function Progress({ run, page }) {
  const rows = [
    ['Batch', run && run.batch, run && run.batches],
    ['Episode', run && run.episode, run && run.episodes],
    ['Epoch', run && run.epoch, run && run.epochs],
  ];
  const elapsed = run && !missing(run.elapsed) ? run.elapsed + (page.live && !page.replay ? page.silence : 0) : null;
  return html`<div class="far">
    <div class="el"><b>${span(elapsed)}</b><span class="dim">elapsed</span></div>
    <div class="prog">${rows.map(([name, at, of]) => html`<span class="dim">${name}</span>
      <span class="r"><b>${whole(at)}</b><span class="dim"> / ${whole(of)}</span></span>
      <${Share} share=${at && of ? at / of : 0} cls="thin" />`)}</div>
  </div>`;
}

// ---- latches

const ago = (page, at) => (missing(at) ? '' : page.over ? `${span(page.run.last_event - at)} before end` : `${span(page.clock - at)} ago`);

const latchText = (latch) => `${missing(latch.first) ? '' : ` u${latch.first}`} ×${latch.updates}`;

const HeadLatch = ({ head, page }) => {
  const set = head.nan.set || head.inf.set;
  const at = Math.max(head.nan.at || 0, head.inf.at || 0);
  return html`<li class=${set ? 'on' : ''} data-latch=${head.name}>
    <span class="hd">${head.label}</span>
    <span class="lt">${['nan', 'inf'].map((kind) => html`<${Latch} latch=${head[kind]} name=${kind === 'nan' ? 'NaN' : 'Inf'} of=${head.label} />`)}</span>
    ${set && html`<span class="dim when">${ago(page, at)}</span>`}
  </li>`;
};

const Latch = ({ latch, name, of }) =>
  latch.set === null
    ? html`<span class="dim">– ${name}</span>`
    : latch.set
    ? html`<span class="set crit" aria-label=${`${of} ${name} latched${latchText(latch)}`}><${Icon} name="dot" /> ${name}${latchText(latch)}</span>`
    : html`<span class="clear dim" aria-label=${`${of} ${name} clear`}><${Icon} name="ring" cls="faint" /> ${name}</span>`;

export function Latches({ page }) {
  const { run, detail } = page;
  const heads = detail ? detail.heads : SKELETON;
  const sources = detail ? detail.sources : [];
  const set = sources.filter((source) => source.set);
  const clear = run ? run.watched - run.latched : 0;
  return html`<section class="latches panel" id="part-latches" aria-label="Latches" tabindex="-1">
    <div class="sum"><b>Latches</b><span class=${run && run.latched ? 'crit b6' : 'dim'}>${run ? (run.latched ? `${run.latched} set` : 'none set') : MISSING}</span><span class="dim small">${run ? 'since the start' : 'nothing seen'}</span></div>
    <ul>
      ${heads.map((head) => html`<${HeadLatch} key=${head.name} head=${head} page=${page} />`)}
      ${set.map((source) => html`<li key=${source.name} class="on" data-latch=${source.name}>
        <span class="hd">${source.name}</span>
        <span class="lt"><span class="set crit" aria-label=${`${source.name} latched${latchText(source)}`}><${Icon} name="dot" />${latchText(source)}</span></span>
        <span class="dim when">${ago(page, source.at)}</span></li>`)}
      ${sources.length > set.length && html`<li class="sep rest"><ul>${sources.filter((source) => !source.set).map((source) => html`<li key=${source.name} class="clear dim" data-latch=${source.name} aria-label=${`${source.name} clear`}><${Icon} name="ring" cls="faint" /> ${source.name}</li>`)}</ul></li>`}
    </ul>
    ${run && html`<span class="others dim"><${Icon} name="ring" cls="faint" /> ${clear} clear</span>`}
  </section>`;
}
