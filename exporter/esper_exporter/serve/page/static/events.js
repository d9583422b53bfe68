// The event log: newest first, filtered by kind and text; new lines wait while the reader points at it.
// What comes with every step (epochs, actions, gates) has a separate filter and stays out of the others.

import { html } from './vendor/preact-htm.js';
import { clock, day, missing, MISSING } from './format.js';
import { chosen, Panel } from './ui.js';

const FILTERS = [['all', 'all'], ['faults', 'faults'], ['policy', 'policy'], ['seeds', 'seeds'], ['envs', 'envs'], ['run', 'run'], ['steps', 'every step']];

// The lines to show: newest first, those since the reader took hold of the list held back.
export function lines(page) {
  const { group, text, held } = page.log;
  const needle = text.trim().toLowerCase();
  const fits = (e) =>
    (group === 'steps' ? e.routine : !e.routine && (group === 'all' || e.group === group)) &&
    (!needle || `${e.word} ${e.type} ${e.text} env ${e.env}`.toLowerCase().includes(needle));
  const all = page.store.history.events.filter(fits);
  const shown = held === null ? all : all.filter((e) => e.seq <= held);
  return { shown: [...shown].reverse(), waiting: all.length - shown.length };
}

export function Events({ page, full }) {
  const { history } = page.store;
  const { shown, waiting } = lines(page);
  const faults = history.events.filter((e) => e.group === 'faults').length;
  const chips = html`<span class="chips" role="group" aria-label="Filter">${FILTERS.slice(0, full ? 7 : 5).map(([id, title]) => html`<button key=${id} class=${page.log.group === id ? 'on' : ''} aria-pressed=${page.log.group === id} onClick=${() => page.filter({ group: id })}>${title}${id === 'faults' && faults ? ` ${faults}` : ''}</button>`)}
    ${full && html`<input id="log-text" type="search" placeholder="/ filter" aria-label="Filter by text" value=${page.log.text} onInput=${(e) => page.filter({ text: e.target.value })} />`}</span>`;
  const note = full ? `${shown.length} shown${history.events.length ? `, ${day(history.events[history.events.length - 1].time, chosen.utc)} ${chosen.utc ? 'UTC' : 'local time'}` : ''}` : '';
  return html`<${Panel} id="events" title="Events" note=${note} right=${chips} cls=${`p-events ${full ? 'full' : ''}`}>
    ${waiting > 0 && html`<button class="fresh" onClick=${() => page.filter({ held: null })}>${waiting} new</button>`}
    <div class="log" role="log" aria-live="off" onMouseEnter=${() => page.hold(true)} onMouseLeave=${() => page.hold(false)}>
      ${!history.events.length && html`<p class="dim">Newest first: the last 200, and 100 faults.</p>`}
      ${history.events.length > 0 && !shown.length && html`<p class="dim">No line fits the filter.</p>`}
      ${shown.slice(0, full ? 350 : 60).map((e) => html`<div key=${e.seq} class=${page.cursor !== null && page.cursor === e.update ? 'at' : ''} data-type=${e.type} data-group=${e.group}>
        <time class="dim" title=${day(e.time, chosen.utc)}>${clock(e.time, chosen.utc)}</time><span class=${`${e.colour} ${e.word === 'non-finite' ? 'b6' : ''}`}>${e.word}</span><span class="dim env">${missing(e.env) ? MISSING : e.env}</span><span class=${e.group === 'faults' ? 'text' : 'dim'} title=${e.text}>${e.text}</span></div>`)}
    </div>
  </${Panel}>`;
}
