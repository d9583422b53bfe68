// The controls of a recording that is played back: pause, speed, seek to an update or a fault.

import { html } from './vendor/preact-htm.js';
import { clock, fixed, missing, span, whole } from './format.js';
import { chosen } from './ui.js';

const SPEEDS = [0.5, 1, 2, 5, 10, 50, 0];
const speedName = (speed) => (speed === 0 ? 'unlimited' : `${speed}×`);

export function ReplayBar({ page }) {
  const { replay } = page;
  const { store } = page;
  const seek = (line) => store.control({ seek: `line:${line}` });
  const step = (line) => store.control({ pause: '1', seek: `line:${line}` }); // who steps wants to look
  const updates = replay.marks.filter((m) => m.kind === 'update');
  const faults = replay.marks.filter((m) => m.kind === 'fault' || m.kind === 'rollback');
  const reached = updates.filter((m) => m.line <= replay.position).length;
  const next = (marks) => marks.find((m) => m.line > replay.position);
  const before = (marks) => [...marks].reverse().find((m) => m.line < replay.position);
  const Jump = ({ marks, to, label, title }) => html`<button class="text" disabled=${!to} onClick=${() => to && step(to.line)} title=${title}>${label}</button>`;
  const label = replay.exhausted ? 'play again' : replay.paused ? 'play' : 'pause';
  const at = replay.lines ? replay.position / replay.lines : 0;
  const speeds = SPEEDS.includes(replay.speed) ? SPEEDS : [replay.speed, ...SPEEDS];
  return html`<section class="replay" aria-label="Replay" data-position=${replay.position} data-paused=${replay.paused}>
    <button class="play" onClick=${() => store.toggle()} aria-label=${label} title=${label}>${label === 'pause' ? '❚❚' : '▶'}</button>
    <label><span class="sr">speed</span><select value=${String(replay.speed)} onChange=${(e) => store.control({ speed: e.target.value })}>${speeds.map((s) => html`<option key=${s} value=${String(s)} selected=${s === replay.speed}>${speedName(s)}</option>`)}</select></label>
    <${Jump} to=${before(updates)} label="‹ update" title="update before" /><${Jump} to=${next(updates)} label="update ›" title="next update" />
    <${Jump} to=${before(faults)} label="‹ fault" title="fault or rollback before" /><${Jump} to=${next(faults)} label="fault ›" title="next fault or rollback" />
    <span class="track">
      <input type="range" min="0" max=${replay.lines} step="1" value=${replay.position} onChange=${(e) => seek(e.target.value)} aria-label="place in the recording" aria-valuetext=${`update ${reached} of ${updates.length}`} />
      <span class="marks" aria-hidden="true">${faults.map((m) => html`<i key=${m.line} class=${`${m.kind} p${Math.round((m.line / (replay.lines || 1)) * 50)}`} title=${m.text}></i>`)}</span>
    </span>
    <span class="dim nw">update <b class="text">${reached}</b> of ${updates.length} · ${whole(replay.position)} of ${whole(replay.lines)} events${missing(replay.time) ? '' : html` · recorded ${clock(replay.time, chosen.utc)}`}</span>
    <span class="dim nw file" title=${replay.name}>${replay.name}</span>
    <span class="sr">${fixed(at * 100, 0)} percent, ${span(replay.length)}</span>
  </section>`;
}
