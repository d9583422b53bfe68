// The page: the selected view and run, the keys, and the parts in their places.

import { html, render } from './vendor/preact-htm.js';
import { Environments, environments } from './envs.js';
import { Events } from './events.js';
import { Heads } from './heads.js';
import { Config, MachineLine, SystemFull } from './machine.js';
import { Policy, PolicyFull } from './policy.js';
import { seconds, Store } from './store.js';
import { Header, Latches, Strip, Verdict, VIEWS, viewsOf } from './top.js';
import { applyTheme, choose, chosen, later, reveal } from './ui.js';

const OVER = new Set(['finished', 'ended', 'failed', 'superseded']);
const narrow = matchMedia('(max-width: 640px)');

const Drawer = later(() => import('./drawer.js'), 'Drawer');
const ReplayBar = later(() => import('./replay.js'), 'ReplayBar');
const Runs = later(() => import('./runs.js'), 'Runs');

const store = new Store(draw);
const open = { alternatives: false, status: '', sort: 'number', best: false, help: false, reasons: false };
const log = { group: 'all', text: '', held: null };
let cursor = null;
let peek = '';
let place = read();

// The address holds what is looked at, so that it can be sent to someone.
function read() {
  const [view, query] = location.hash.replace(/^#\/?/, '').split('?');
  const asked = new URLSearchParams(query || '');
  const env = asked.get('env');
  const known = view === 'runs' || VIEWS.some(([id]) => id === view);
  return { view: known ? view : 'overview', run: asked.get('run') || '', env: env !== null && /^\d{1,6}$/.test(env) ? Number(env) : null };
}

function link(change) {
  const next = { ...place, ...change };
  const query = new URLSearchParams();
  if (next.run) query.set('run', next.run);
  if (next.env !== null && next.env !== undefined) query.set('env', next.env);
  const text = query.toString();
  return `#/${next.view === 'overview' ? '' : next.view}${text ? `?${text}` : ''}`;
}

function go(change) {
  if ('run' in change && change.run !== place.run && !('env' in change)) change.env = null;
  const target = link(change);
  place = { ...place, ...change }; // at once: the next key may come before the address has changed
  location.hash = target;
}

addEventListener('hashchange', () => {
  place = read();
  cursor = null;
  store.look(place.run, place.env);
  draw();
});

const silenceOf = (run) => (run && store.data && run.silence !== null ? run.silence + (OVER.has(run.state) && run.ended ? 0 : store.now() - store.data.now) : null);

// What the parts draw from, built for each drawing.
function page() {
  const { data } = store;
  const detail = data ? data.run : null;
  const runs = data ? data.runs : [];
  const run = detail ? runs.find((r) => r.key === detail.key) || null : null;
  const over = Boolean(run && OVER.has(run.state));
  const silence = silenceOf(run);
  const replay = data ? data.replay : null;
  return {
    store, data, detail, run, runs, over, silence, silenceOf, replay, open, log, cursor, peek,
    view: place.view === 'runs' && runs.length < 2 ? 'overview' : place.view,
    env: place.env,
    phone: narrow.matches,
    live: Boolean(run && !over && !store.lost),
    standing: store.lost || store.paused || Boolean(replay && replay.paused),
    clock: run && run.last_event !== null ? run.last_event + (replay ? 0 : silence || 0) : store.now(),
    go, link, draw,
    set: (change) => { Object.assign(open, change); draw(); },
    filter: (change) => { Object.assign(log, change); draw(); },
    hold: (on) => { const { events } = store.history; log.held = on && events.length ? events[events.length - 1].seq : null; draw(); },
    setCursor: (number) => { if (number !== cursor) { cursor = number; draw(); } },
    look: (at) => { if (at !== peek) { peek = at; draw(); } },
    nextFault, show, step,
    alternatives: () => { open.alternatives = !open.alternatives; draw(); },
    help: () => { open.help = !open.help; draw(); },
    runbook: (path) => `page/${path.replace('alerts/', '')}`,
  };
}

// A reason leads to its part: here, or on the overview.
function show(part) {
  if (reveal(part)) return;
  go({ view: 'overview' });
  requestAnimationFrame(() => requestAnimationFrame(() => reveal(part)));
}

function nextFault(way) {
  const { marks } = store.history;
  if (!marks.length) return;
  const numbers = [...new Set(marks.map((m) => m.number))];
  const i = cursor === null ? (way > 0 ? -1 : numbers.length) : numbers.findIndex((n) => n >= cursor);
  const at = numbers[i] === cursor || cursor === null ? i + way : way > 0 ? i : i - 1;
  cursor = numbers[(at + numbers.length) % numbers.length];
  draw();
  const line = document.querySelector('.log .at');
  if (line) line.scrollIntoView({ block: 'nearest' });
}

function step(way) {
  const ids = environments(store.data && store.data.run).map((env) => env.id);
  if (!ids.length) return;
  const i = ids.indexOf(place.env);
  go({ env: ids[(i + way + ids.length) % ids.length] });
}

// ---- keys

const nextOf = (name) => {
  const select = document.getElementById(`pick-${name}`);
  if (select) select.focus();
};

function hop(way) {
  const { runs, run } = page();
  const peers = runs.filter((r) => run && r.run_id === run.run_id && r.group === run.group);
  const among = peers.length > 1 ? peers : runs;
  const i = among.indexOf(run);
  if (among.length > 1) go({ run: among[(i + way + among.length) % among.length].key });
}

const KEYS = {
  f: () => nextFault(1),
  F: () => nextFault(-1),
  r: () => nextOf('run'),
  g: () => nextOf('group'),
  '[': () => hop(-1),
  ']': () => hop(1),
  j: () => step(1),
  k: () => step(-1),
  a: () => { open.alternatives = !open.alternatives; },
  t: () => {
    const light = chosen.theme ? chosen.theme === 'light' : matchMedia('(prefers-color-scheme: light)').matches;
    choose('theme', light ? 'dark' : 'light');
    applyTheme();
  },
  u: () => choose('utc', !chosen.utc),
  ' ': () => {
    if (store.data && store.data.replay) store.toggle();
    else {
      store.paused = !store.paused;
      if (!store.paused) store.poll();
    }
  },
  ',': () => stepCursor(-1),
  '.': () => stepCursor(1),
  '/': () => {
    go({ view: 'events' });
    requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById('log-text')?.focus()));
  },
  '?': () => { open.help = !open.help; },
  Escape: () => {
    if (open.help) open.help = false;
    else if (peek) peek = '';
    else if (place.env !== null) go({ env: null });
    else cursor = null;
  },
};
VIEWS.forEach(([id], i) => { KEYS[String(i + 1)] = () => go({ view: id }); });

function stepCursor(way) {
  const { replay } = page();
  const { rows } = store.history;
  if (replay && (replay.paused || replay.exhausted)) {
    const updates = replay.marks.filter((m) => m.kind === 'update');
    const to = way > 0 ? updates.find((m) => m.line > replay.position) : [...updates].reverse().find((m) => m.line < replay.position);
    if (to) store.control({ pause: '1', seek: `line:${to.line}` });
  } else if (rows.length) {
    const last = rows[rows.length - 1][0];
    cursor = Math.max(rows[0][0], Math.min(last, (cursor === null ? last + (way < 0 ? 1 : 0) : cursor) + way));
  }
}

addEventListener('keydown', (e) => {
  if (e.ctrlKey || e.altKey || e.metaKey || e.defaultPrevented) return;
  const { target } = e;
  if (target.matches('input, select, textarea') || target.isContentEditable) {
    if (e.key === 'Escape') target.blur();
    return;
  }
  if (e.key === ' ' && target.matches('button, a')) return;
  const act = KEYS[e.key];
  if (!act) return;
  e.preventDefault();
  act();
  draw();
});

const HELP = [
  ['1 – 6', 'parts'], ['r g [ ]', 'run, group, rank'], ['f F', 'next, previous fault'], ['j k', 'next, previous environment'],
  ['Enter Esc', 'open, close'], ['/', 'filter the log'], ['a', 'alternatives of each decision'], ['space', 'pause'], [', .', 'one update back, on'], ['t', 'light, dark'], ['u', 'UTC, local time'], ['?', 'this list'],
];
const MEANING = [
  ['Look', 'warnings, none that pages on call'], ['Broken', 'what pages on call'], ['L H', 'low, high'], ['LL HH', 'critically low, high'], ['1.3×', "weight of a head's entropy"], ['u5 ×2', 'at update 5 first, in two updates'], ['■■■□□', 'confidence of a choice'], ['–', 'not measured'], ['×', 'in a line: reported as NaN or infinite'], ['-', 'the action has no such part'],
];

const Help = ({ page: p }) => html`<div class="help panel" role="dialog" aria-label="Keys and meaning"><h2><span class="name">Keys</span><span class="sp"></span><button class="key" onClick=${p.help} aria-label="close">esc</button></h2>
  <dl>${HELP.map(([key, what]) => html`<div key=${key}><dt>${key.split(' ').map((k) => html`<kbd>${k}</kbd> `)}</dt><dd>${what}</dd></div>`)}</dl>
  <h2><span class="name">Meaning</span></h2><dl>${MEANING.map(([sign, what]) => html`<div key=${sign}><dt><b>${sign}</b></dt><dd>${what}</dd></div>`)}</dl>
  <p class="dim">The numbers are at <a class="rb" href="metrics">/metrics</a>, this page's data at <a class="rb" href="api/v1/state">/api/v1/state</a>${p.data ? `, exporter ${p.data.exporter.version}` : ''}.</p></div>`;

function Body({ page: p }) {
  switch (p.view) {
    case 'runs':
      return html`<${Runs} page=${p} />`;
    case 'policy':
      return html`<${PolicyFull} page=${p} />`;
    case 'envs':
      return html`<${Environments} page=${p} full=${true} />`;
    case 'events':
      return html`<${Events} page=${p} full=${true} />`;
    case 'system':
      return html`<${SystemFull} page=${p} />`;
    case 'config':
      return html`<${Config} page=${p} />`;
    default:
      return html`<${Latches} page=${p} /><div class="board"><${Heads} page=${p} /><${Policy} page=${p} /><${Environments} page=${p} /><${Events} page=${p} /></div><${MachineLine} page=${p} />`;
  }
}

const App = ({ page: p }) => html`<${Header} page=${p} /><${Strip} page=${p} />${p.replay && html`<${ReplayBar} page=${p} />`}
  <main class=${p.env !== null && p.detail ? 'with-drawer' : ''}><${Verdict} page=${p} /><${Body} page=${p} /></main>
  ${p.env !== null && p.detail && html`<${Drawer} page=${p} />`}${open.help && html`<${Help} page=${p} />`}
  <nav class="bottom" aria-label="Parts">${viewsOf(p.runs).map(([id, title]) => html`<a key=${id} href=${link({ view: id })} class=${p.view === id ? 'on' : ''}>${title === 'Environments' ? 'Envs' : title}</a>`)}</nav>
  <div class="sr" role="alert">${announced(p)}</div>`;

// What a screen reader announces: each newly set latch, once.
let lit = null;
let spoken = '';
function announced(p) {
  if (!p.run) return '';
  const now = new Set(p.run.verdict.reasons.filter((r) => r.part === 'latches').map((r) => `${r.subject} ${r.text}`));
  const identity = p.run.key;
  if (lit && lit.identity === identity) {
    const fresh = [...now].filter((text) => !lit.now.has(text));
    if (fresh.length) spoken = fresh.join('. ');
  } else spoken = '';
  lit = { identity, now };
  return spoken;
}

let asked = false;
function draw() {
  if (asked) return;
  asked = true;
  queueMicrotask(() => {
    asked = false;
    const p = page();
    const root = document.documentElement;
    root.classList.toggle('gone', store.lost || p.over);
    root.toggleAttribute('data-answered', Boolean(store.data)); // what a test waits for
    root.dataset.state = store.lost ? 'no contact' : p.run ? p.run.state : 'waiting';
    const what = store.lost ? 'no contact' : p.run ? (p.over ? p.run.state : p.run.verdict.word) : 'waiting';
    document.title = `${p.run ? `${what} · ${p.run.run_id}` : what} · esper`;
    render(html`<${App} page=${p} />`, document.getElementById('app'));
    root.dataset.drawn = seconds(); // by the page's clock; a test waits for it
  });
}

// Ages go on between two answers, and so do pips; nothing is drawn while nobody sees it.
let ticked = 0;
setInterval(() => {
  if (document.hidden || seconds() - ticked < 0.9) return;
  ticked = seconds();
  draw();
}, 1000);

narrow.addEventListener('change', draw);
applyTheme();
draw();
store.run = place.run;
store.env = place.env;
store.start();
