// The machine and the run's configuration: a line on the overview, in full in their views.

import { html } from './vendor/preact-htm.js';
import { bytes, fixed, missing, MISSING, percent, scientific, short, whole } from './format.js';
import { Panel, Share } from './ui.js';

const ratio = (part, all) => (missing(part) || !all ? null : part / all);

const Cell = ({ name, text, share, level = '' }) => html`<div><small>${name}</small><span class=${level === 'warn' || level === 'crit' ? level : ''}>${text}</span>${share !== undefined && html`<${Share} share=${share} />`}</div>`;

function brief(config) {
  const parts = [];
  if (!missing(config.lr)) parts.push(`lr ${scientific(config.lr)}`);
  if (!missing(config.clip_ratio)) parts.push(`clip ${config.clip_ratio}`);
  if (!missing(config.seed)) parts.push(`seed ${config.seed}`);
  if (!missing(config.param_budget)) parts.push(`budget ${whole(config.param_budget)}`);
  if (config.reward_mode) parts.push(config.reward_mode);
  if (config.policy_device) parts.push(config.policy_device);
  return parts.join(' · ') || MISSING;
}

export function MachineLine({ page }) {
  const system = page.data ? page.data.system : { gpus: [], host: null };
  const training = page.detail ? page.detail.training : {};
  const gpu = system.gpus.find((g) => g.lost) || system.gpus.find((g) => [g.memory_level, g.temperature_level].some((l) => l === 'crit' || l === 'warn')) || system.gpus[0];
  const { host } = system;
  const memory = (used, total) => (missing(used) ? MISSING : `${bytes(used).replace(/ GB$/, '')} / ${bytes(total)}`);
  return html`<section class="panel sys" aria-label="System" id="part-system" tabindex="-1">
    ${gpu
      ? html`<${Cell} name=${`GPU ${gpu.gpu} · ${gpu.name.replace('NVIDIA ', '')}${system.gpus.length > 1 ? ` of ${system.gpus.length}` : ''}`} text=${gpu.lost ? 'lost' : percent(gpu.utilization, 0)} share=${gpu.utilization} level=${gpu.lost ? 'crit' : ''} />
          <${Cell} name="memory" text=${memory(gpu.memory_used, gpu.memory_total)} share=${ratio(gpu.memory_used, gpu.memory_total)} level=${gpu.memory_level} />
          <${Cell} name="temperature" text=${missing(gpu.temperature) ? MISSING : `${fixed(gpu.temperature, 0)} °C`} level=${gpu.temperature_level} />`
      : html`<${Cell} name="GPU" text=${MISSING} />`}
    <${Cell} name="host CPU" text=${host ? percent(host.cpu, 0) : MISSING} share=${host ? host.cpu : undefined} />
    <${Cell} name="RAM" text=${host ? memory(host.memory_used, host.memory_total) : MISSING} share=${host ? ratio(host.memory_used, host.memory_total) : undefined} level=${host ? host.memory_level : ''} />
    <${Cell} name="throughput" text=${missing(training.epochs_per_second) ? MISSING : `${fixed(training.epochs_per_second, 1)} epochs/s`} />
    <${Cell} name="update" text=${missing(training.update_milliseconds) ? MISSING : `${fixed(training.update_milliseconds, 0)} ms`} />
    <${Cell} name="waiting for data" text=${percent(training.data_wait)} />
    <div class="grow"><small>config</small><a class="text" href=${page.link({ view: 'config' })}>${page.detail ? brief(page.detail.config) : MISSING}</a></div>
  </section>`;
}

const Row = ({ name, text, share, level = '' }) => html`<tr><th scope="row">${name}</th><td class=${`r ${level === 'warn' || level === 'crit' ? level : ''}`}>${text}</td><td>${share !== undefined && html`<${Share} share=${share} />`}</td></tr>`;

export function SystemFull({ page }) {
  const { data, detail } = page;
  if (!data) return null;
  const { gpus, host, disks } = data.system;
  const training = detail ? detail.training : {};
  return html`<div class="cards" id="part-system" tabindex="-1">
    ${gpus.map((gpu) => html`<${Panel} key=${gpu.uuid} id=${`gpu-${gpu.gpu}`} title=${`GPU ${gpu.gpu}`} note=${gpu.name}><table class="kv"><tbody>
      ${gpu.lost && html`<tr><td colspan="3" class="crit b6">does not answer</td></tr>`}
      <${Row} name="utilisation" text=${gpu.lost ? 'lost' : percent(gpu.utilization, 0)} share=${gpu.utilization} level=${gpu.lost ? 'crit' : ''} />
      <${Row} name="memory" text=${`${bytes(gpu.memory_used)} of ${bytes(gpu.memory_total)}`} share=${ratio(gpu.memory_used, gpu.memory_total)} level=${gpu.memory_level} />
      <${Row} name="this training" text=${bytes(gpu.process_memory)} share=${ratio(gpu.process_memory, gpu.memory_total)} />
      <${Row} name="temperature" text=${missing(gpu.temperature) ? MISSING : `${fixed(gpu.temperature, 0)} °C`} level=${gpu.temperature_level} />
      <${Row} name="power" text=${missing(gpu.power) ? MISSING : `${fixed(gpu.power, 0)} of ${fixed(gpu.power_limit, 0)} W`} share=${ratio(gpu.power, gpu.power_limit)} />
    </tbody></table></${Panel}>`)}
    ${!gpus.length && html`<${Panel} id="gpu" title="GPUs"><p class="bd dim">${page.replay ? 'A recording has no machine: vitals are not sampled.' : 'None found, or not sampled by this process.'}</p></${Panel}>`}
    <${Panel} id="host" title="Host" note=${host && host.cpus ? `${host.cpus} CPUs` : ''}>${host
      ? html`<table class="kv"><tbody><${Row} name="CPU" text=${percent(host.cpu, 0)} share=${host.cpu} /><${Row} name="load, 1 minute" text=${fixed(host.load1, 2)} />
          <${Row} name="RAM" text=${`${bytes(host.memory_used)} of ${bytes(host.memory_total)}`} share=${ratio(host.memory_used, host.memory_total)} level=${host.memory_level} /><${Row} name="swap" text=${bytes(host.swap_used)} />
          <${Row} name="container" text=${missing(host.container_memory_limit) ? 'no limit' : `${bytes(host.container_memory_used)} of ${bytes(host.container_memory_limit)}`} share=${ratio(host.container_memory_used, host.container_memory_limit) ?? undefined} />
          <${Row} name="this process" text=${bytes(host.process_memory)} /><${Row} name="threads" text=${fixed(host.process_threads, 0)} />
          ${disks.map((disk) => html`<${Row} key=${disk.name} name=${`disk: ${disk.name}`} text=${`${bytes(disk.free)} free of ${bytes(disk.total)}`} share=${missing(disk.free) ? undefined : 1 - disk.free / disk.total} />`)}</tbody></table>`
      : html`<p class="bd dim">Not sampled by this process.</p>`}</${Panel}>
    <${Panel} id="pace" title="Training"><table class="kv"><tbody>
      <${Row} name="epochs" text=${missing(training.epochs_per_second) ? MISSING : `${fixed(training.epochs_per_second, 2)} /s`} /><${Row} name="batches" text=${missing(training.batches_per_hour) ? MISSING : `${fixed(training.batches_per_hour, 0)} /h`} />
      <${Row} name="policy update" text=${missing(training.update_milliseconds) ? MISSING : `${fixed(training.update_milliseconds, 1)} ms`} /><${Row} name="waiting for data" text=${percent(training.data_wait)} share=${training.data_wait ?? undefined} />
      ${(training.torch_memory || []).map((m) => html`<${Row} key=${m.device} name=${`torch ${m.device}`} text=${`${fixed(m.allocated_gib, 2)} of ${fixed(m.reserved_gib, 2)} GiB`} share=${ratio(m.allocated_gib, m.reserved_gib) ?? undefined} />`)}</tbody></table></${Panel}>
  </div>`;
}

const GROUPS = [
  ['Training', ['task', 'n_episodes', 'start_episode', 'max_batches', 'max_epochs', 'n_envs', 'seed', 'reward_mode', 'host_params', 'param_budget', 'episode_id', 'resume_path']],
  ['Hyperparameters', ['lr', 'clip_ratio', 'entropy_coef', 'entropy_anneal', 'action_heads']],
  ['Devices', ['policy_device', 'env_devices', 'world_size', 'rank', 'local_rank', 'amp_enabled', 'amp_dtype', 'compile_enabled', 'compile_backend', 'compile_mode']],
];

function value(v) {
  if (Array.isArray(v)) return v.join(', ');
  if (v !== null && typeof v === 'object') return Object.entries(v).map(([k, x]) => `${k} ${x}`).join(', ');
  if (typeof v === 'number') return Number.isInteger(v) ? whole(v) : short(v);
  return typeof v === 'boolean' ? (v ? 'yes' : 'no') : String(v);
}

const exact = (name) => ['seed', 'rank', 'local_rank'].includes(name);

export function Config({ page }) {
  const config = page.detail ? page.detail.config : {};
  const names = Object.keys(config).filter((name) => name !== 'slot_ids');
  if (!names.length) return html`<${Panel} id="config" title="Config"><p class="bd dim">The run's start has not been reported.</p></${Panel}>`;
  const grouped = GROUPS.flatMap(([, some]) => some);
  const groups = [...GROUPS, ['Further', names.filter((name) => !grouped.includes(name))]];
  const slots = config.slot_ids || [];
  return html`<div class="cards" id="part-config" tabindex="-1">
    ${groups.map(([title, some]) => {
      const there = some.filter((name) => name in config);
      return there.length > 0 && html`<${Panel} key=${title} id=${`config-${title}`} title=${title}><table class="kv"><tbody>${there.map((name) => html`<tr key=${name}><th scope="row">${name}</th><td class="r" colspan="2">${exact(name) ? config[name] : value(config[name])}</td></tr>`)}</tbody></table></${Panel}>`;
    })}
    <${Panel} id="config-slots" title="Slots" note=${`${slots.length}`}><p class="bd slots">${slots.map((name) => html`<span key=${name}>${name}</span> `)}</p></${Panel}>
  </div>`;
}
