// Which decisions are on display: the newest one at each swap, no backlog, age from being shown.

export class Carousel {
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
export const settled = (incoming, rows) =>
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
