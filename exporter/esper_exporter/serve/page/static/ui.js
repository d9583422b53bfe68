// Small things that every part uses: icons, bars, panels, what the reader chose.

import { html, useRef } from './vendor/preact-htm.js';
import { missing, MISSING } from './format.js';

// Several elements without one around them; htm's Preact has no Fragment.
export const Fragment = ({ children }) => children;

const [sheet] = document.styleSheets;
for (let i = 0; i <= 20; i += 1) {
  sheet.insertRule(`.w${i} { width: ${i * 5}%; }`, sheet.cssRules.length);
  sheet.insertRule(`.a${i} { --a: ${i * 5}%; }`, sheet.cssRules.length);
}
for (let i = 0; i <= 50; i += 1) sheet.insertRule(`.p${i} { left: ${i * 2}%; }`, sheet.cssRules.length);

export const Icon = ({ name, cls = '' }) =>
  html`<svg class=${`g ${cls}`} aria-hidden="true"><use href=${`#${name}`} /></svg>`;

// A number that underlines itself for a moment when it changed. `poll` counts the answers: under
// reduced motion the changed number is bold until the next one.
export function Num({ text, cls = '', poll }) {
  const seen = useRef(null);
  const before = seen.current;
  if (!before) seen.current = { text, times: 0, poll: -1 };
  else if (before.text !== text) seen.current = { text, times: before.text === MISSING ? before.times : before.times + 1, poll };
  const { times, poll: at } = seen.current;
  const changed = times ? ` chg${times % 2}${at === poll ? ' now' : ''}` : '';
  return html`<span class=${`${cls}${changed}`}>${text}</span>`;
}

// Five blocks; the class says how many are full, so that no style stands in the document.
export const Blocks = ({ filled, level = 'dim', cls = '' }) =>
  html`<i class=${`seg n${filled} ${level} ${cls}`} data-filled=${filled} aria-hidden="true"></i>`;

// A bar of a share in steps of 5 %.
export const Share = ({ share, cls = '' }) => {
  const step = missing(share) || !(share > 0) ? 0 : Math.max(1, Math.min(20, Math.round(share * 20)));
  return html`<u class=${`bar ${cls}`} aria-hidden="true"><i class=${`w${step}`}></i></u>`;
};

export const Panel = ({ id, title, note, right, cls = '', children }) => html`
  <section class=${`panel ${cls}`} id=${`part-${id}`} aria-labelledby=${`title-${id}`} tabindex="-1">
    <h2 id=${`title-${id}`}><span class="name">${title}</span><span class="dim note">${note}</span><span class="sp"></span>${right}</h2>
    ${children}
  </section>`;

const STORED = 'esper-page';

function read() {
  try {
    return JSON.parse(localStorage.getItem(STORED) || '{}');
  } catch {
    return {};
  }
}

// What the reader chose, kept in this browser: theme, clock.
export const chosen = read();

export function choose(name, value) {
  chosen[name] = value;
  try {
    localStorage.setItem(STORED, JSON.stringify(chosen));
  } catch {
    // A browser that keeps nothing still works.
  }
}

export function applyTheme() {
  const root = document.documentElement;
  root.classList.toggle('light', chosen.theme === 'light');
  root.classList.toggle('dark', chosen.theme === 'dark');
}

// Puts the focus and the view on a part.
export function reveal(part) {
  const found = document.getElementById(`part-${part}`);
  if (!found) return false;
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  found.scrollIntoView({ block: 'nearest', behavior: still ? 'auto' : 'smooth' });
  found.focus({ preventScroll: true });
  return true;
}

// A part that most readers never open: its module is loaded when it is first drawn.
export function later(load, name) {
  let part = null;
  let asked = false;
  return (props) => {
    if (part) return html`<${part} ...${props} />`;
    if (!asked) {
      asked = true;
      load().then((module) => {
        part = module[name];
        props.page.draw();
      }, () => {
        asked = false; // asked again with the next drawing
      });
    }
    return null;
  };
}
