// The server's last answers: polled each second while the tab is visible, and not otherwise.

const KEPT_UPDATES = 600;
const KEPT_EVENTS = 200;
const KEPT_ROUTINE = 50;
const KEPT_FAULTS = 100;
const KEPT_MARKS = 100;
const KEPT_HEADS = 20;
const LOST_AFTER = 2; // failed polls in a row
const ANSWER_SECONDS = 5;
const SPREAD = 0.15; // of a second, within which the server shares one answer

export const seconds = () => performance.now() / 1000;

function blank() {
  return { cursor: '', key: '', rows: [], heads: [], marks: [], events: [], columns: [] };
}

export class Store {
  constructor(onChange) {
    this.onChange = onChange;
    this.data = null; // the last /api/v1/state
    this.fetchedAt = 0; // when that came, in seconds of this page's own clock …
    this.serverNow = 0; // … and by the server's clock, in Unix seconds
    this.history = blank();
    this.run = ''; // the selected run and environment
    this.env = null;
    this.failed = 0;
    this.lostSince = null; // Unix seconds
    this.refused = 0; // HTTP status where the server answers, but not this
    this.paused = false;
    this.etag = '';
    this.timer = null;
    this.busy = false;
    this.again = false;
    this.polls = 0; // answers with news
  }

  start() {
    document.addEventListener('visibilitychange', () => (document.hidden ? this.stop() : this.poll()));
    if (!document.hidden) this.poll();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  // Looks at another run or environment, at once.
  look(run, env) {
    if (run === this.run && env === this.env) return;
    if (run !== this.run) this.history = blank();
    this.run = run;
    this.env = env;
    this.etag = '';
    this.poll();
  }

  get lost() {
    return this.failed >= LOST_AFTER;
  }

  // The server's clock now, in Unix seconds, as far as this page can tell.
  now() {
    return this.data ? this.serverNow + (seconds() - this.fetchedAt) : Date.now() / 1000;
  }

  async poll() {
    this.stop();
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      if (!this.paused) await this.fetchAll();
    } finally {
      this.busy = false;
      this.onChange();
      if (!document.hidden) {
        const pause = this.again ? 0 : this.lost ? 2000 : this.untilNext();
        this.again = false;
        this.timer = setTimeout(() => this.poll(), pause);
      }
    }
  }

  // Milliseconds to the next poll. All viewers ask at the same beat of the server's clock, so that
  // it builds one answer for all of them.
  untilNext() {
    const every = (this.data && this.data.exporter.poll) || 1;
    const pause = every - (this.now() % every) + Math.random() * SPREAD;
    return (pause < every / 4 ? pause + every : pause) * 1000;
  }

  async fetchAll() {
    const query = new URLSearchParams();
    if (this.run) query.set('run', this.run);
    if (this.env !== null) query.set('env', this.env);
    if (this.history.cursor && this.etag) query.set('since', this.history.cursor);
    try {
      const answer = await get(`api/v1/state?${query}`, this.etag ? { 'If-None-Match': this.etag } : {});
      const serverNow = Number(answer.headers.get('esper-now'));
      if (answer.status === 200) {
        const data = await answer.json();
        this.etag = answer.headers.get('etag') || '';
        this.data = data;
        this.polls += 1;
        this.serverNow = serverNow || data.now;
        this.fetchedAt = seconds();
        if (!data.run) this.history = blank();
        else if (data.history && data.history.key === data.run.key) this.history = merge(this.history, data.history);
        else await this.fetchHistory(data.run.key);
      } else if (answer.status !== 304) {
        this.refused = answer.status;
        throw new Error(`status ${answer.status}`);
      }
      this.refused = 0;
      this.failed = 0;
      this.lostSince = null;
    } catch {
      this.failed += 1;
      if (this.lost && this.lostSince === null) this.lostSince = Date.now() / 1000;
    }
  }

  async fetchHistory(key) {
    const since = this.history.key === key ? this.history.cursor : '';
    const answer = await get(`api/v1/history?${new URLSearchParams({ run: key, since })}`);
    if (answer.status !== 200) throw new Error(`status ${answer.status}`);
    this.history = merge(this.history, await answer.json());
  }

  // Commands of a recording: pause, speed, seek; several are carried out in that order.
  async control(commands) {
    await fetch(`api/v1/replay?${new URLSearchParams(commands)}`, { method: 'POST', cache: 'no-store' });
    this.poll();
  }

  // Pauses a recording or goes on with it; at its end plays it again.
  toggle() {
    const { replay } = this.data;
    if (replay.exhausted) this.control({ pause: '0', seek: 'line:0' });
    else this.control({ pause: replay.paused ? '0' : '1' });
  }
}

function get(address, headers = {}) {
  return fetch(address, { headers, cache: 'no-store', signal: AbortSignal.timeout(ANSWER_SECONDS * 1000) });
}

// What is new, added to what is known; a row that came again replaces the one before.
function merge(before, answer) {
  const known = answer.reset || before.key !== answer.key ? blank() : before;
  const fresh = new Set(answer.updates.rows.map((row) => row[0]));
  return {
    key: answer.key,
    cursor: answer.cursor,
    columns: answer.updates.columns,
    rows: [...known.rows.filter((row) => !fresh.has(row[0])), ...answer.updates.rows].slice(-KEPT_UPDATES),
    heads: [...known.heads, ...answer.heads.rows].slice(-KEPT_HEADS),
    marks: [...known.marks.filter((m) => !answer.marks.some((n) => n.number === m.number && n.kind === m.kind)), ...answer.marks].slice(-KEPT_MARKS),
    events: recent([...known.events, ...answer.events]),
  };
}

// The last events. Faults and what comes with every step are counted apart: nothing pushes a fault
// out.
function recent(events) {
  const fault = (e) => e.colour === 'crit';
  const routine = events.filter((e) => e.routine).slice(-KEPT_ROUTINE);
  const faults = events.filter(fault).slice(-KEPT_FAULTS);
  const others = events.filter((e) => !e.routine && !fault(e)).slice(-KEPT_EVENTS);
  return [...others, ...faults, ...routine].sort((a, b) => a.seq - b.seq);
}
