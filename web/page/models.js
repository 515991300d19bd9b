// Which models and personas there are and what state each is in: the list from /v1/models, changes
// live from /models/sse, by asking again where that does not work.
import { createParser } from 'eventsource-parser';
import { percent, timeLeft } from './format.js';
import { observable } from './state.js';
import { apiKey, prefs } from './prefs.js';
import { getJson, lostServer, online, request, withKey } from './api.js';

/** {loaded: whether the list ever came, list: [model]} */
export const models = observable({ loaded: false, list: [] });

// The server's words for a state, sorted into what the page does with it.
const STATES = {
  loaded: 'ready',
  ready: 'ready',
  loading: 'loading',
  downloading: 'loading',
  queued: 'loading',
  failed: 'failed',
  unloaded: 'unloaded',
  downloaded: 'unloaded',
  sleeping: 'unloaded',
};
// Failures that are no accident: the files are not on this machine or not for it.
const ABSENT = {
  not_downloaded: 'Not on this machine',
  unsupported_format: 'Not supported yet',
  consent_needed: 'Needs consent',
};

const STAGES = {
  fetch: 'downloading',
  verify: 'checking files',
  map: 'opening files',
  pack: 'arranging weights',
  warm: 'warming up',
  prefill: 'reading the persona',
};

const text = (value) => (typeof value === 'string' ? value : '');
const number = (value) => (typeof value === 'number' && Number.isFinite(value) ? value : null);

/** The server's reasons begin small, as error messages do; here they stand alone. A command stays. */
export const sentence = (words) =>
  words.replace(/^(?!ashley )[a-z](?=[a-z]* )/, (c) => c.toUpperCase());

/** One entry of /v1/models, /models or one progress object, with nothing assumed about it. */
function normalise(entry, before = {}) {
  const status = entry.status && typeof entry.status === 'object' ? entry.status : {};
  const meta = entry.meta && typeof entry.meta === 'object' ? entry.meta : before.meta || {};
  const nested = status.progress && typeof status.progress === 'object' ? status.progress : {};
  const p = { ...status, ...nested, ...entry };
  const error = p.error && typeof p.error === 'object' ? p.error : null;
  const value = text(p.state) || text(status.value) || before.value || 'unloaded';
  const reason =
    text(error?.message) || text(p.reason) || (typeof p.error === 'string' ? p.error : '');
  let state = STATES[value] || 'unloaded';
  const code = text(error?.code);
  if (state === 'failed' && code in ABSENT) state = 'absent';
  return {
    id: text(entry.id) || text(entry.model),
    owner: text(entry.owned_by) || before.owner || '',
    meta,
    value,
    state,
    description: text(p.description) || text(meta.description) || before.description || '',
    warning: text(p.warning) || text(meta.warning),
    memory: number(p.resident_bytes) || number(meta.resident_bytes),
    size: number(p.bytes_total),
    context: number(p.n_ctx) || number(meta.n_ctx),
    stage: text(p.stage),
    progress: number(p.progress),
    eta: number(p.eta_seconds),
    speed: number(p.bytes_per_second),
    stalled: Boolean(p.stalled_since),
    queue: number(p.queue_position),
    code,
    reason: sentence(reason),
    hint: sentence(text(error?.hint)),
    can: Array.isArray(p.can) ? p.can : null,
  };
}

export const isPersona = (model) => model.owner === 'persona';
// Others are listed under the name of the provider that answers for them.
export const isLocal = (model) => model.owner === 'ashley' || model.owner === '';
export const displayName = (model) => text(model.meta.name) || model.id;
export const findModel = (id) => models.get().list.find((m) => m.id === id) || null;

/** What a persona says first; one of its greetings if it has several. */
export function greetingOf(model) {
  const all = [model.meta.first_message, ...(model.meta.greetings || [])].filter((g) =>
    text(g).trim(),
  );
  return all[0] || '';
}

/** The local model whose state matters for a choice: a persona's own, else the choice itself. */
export function modelBehind(id) {
  const chosen = findModel(id);
  if (!chosen || !isPersona(chosen)) return chosen;
  return findModel(text(chosen.meta.model)) || chosen;
}

/** "Loading: warming up, 83 %, about 4 s left" */
export function describe(model) {
  if (model.state === 'ready') return 'Ready';
  if (model.state === 'absent') return ABSENT[model.code];
  if (model.state === 'failed') return 'Failed';
  if (model.state === 'unloaded') return 'Loads when first used';
  const words = [];
  if (model.queue > 0) words.push(`${model.queue} before it in the queue`);
  else if (model.stage) words.push(STAGES[model.stage] || model.stage);
  if (model.progress !== null) words.push(percent(model.progress));
  if (model.stalled) words.push('no data is coming');
  else if (model.eta !== null) words.push(`about ${timeLeft(model.eta)} left`);
  return `Loading${words.length ? `: ${words.join(', ')}` : ''}`;
}

export const canDo = (model, action) => !model.can || model.can.includes(action);

/** load, unload or cancel; the state that follows comes back by the watcher. */
export async function manage(action, id) {
  await withKey(() => request(`/models/${action}`, { method: 'POST', body: { model: id } }));
  if (!streaming) refresh().catch(() => {});
}

/** The choice to begin with: the last one if it is still there, else what would answer soonest. */
export function startingChoice(list) {
  const last = prefs.get().model;
  if (last !== null && (last === '' || list.some((m) => m.id === last))) return last;
  const by = (test) => list.find(test)?.id;
  return (
    by((m) => isLocal(m) && m.state === 'ready') ??
    by((m) => isLocal(m) && m.state === 'loading') ??
    by((m) => isLocal(m) && m.state === 'unloaded') ??
    by(isPersona) ??
    ''
  );
}

async function refresh() {
  const body = await withKey(() => getJson('/v1/models'));
  const entries = Array.isArray(body?.data) ? body.data : [];
  models.set({ loaded: true, list: entries.map((e) => normalise(e)).filter((m) => m.id) });
}

function applyProgress(progress) {
  const { list } = models.get();
  const at = list.findIndex((m) => m.id === progress?.model);
  if (at < 0) return void (progress?.model && refresh().catch(() => {}));
  const next = [...list];
  next[at] = { ...normalise(progress, list[at]), id: list[at].id };
  models.set({ loaded: true, list: next });
}

let streaming = false;
const SILENCE = 45_000; // the server sends at least a comment every 15 s

/** Follows /models/sse until it ends; throws when it cannot be opened. */
async function follow() {
  const abort = new AbortController();
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(), SILENCE);
  };
  alive();
  // Browsers allow six connections to one server: tabs that nobody sees must not use them up.
  const hide = () => document.hidden && abort.abort();
  document.addEventListener('visibilitychange', hide);
  // EventSource cannot send a key, so the stream is read here.
  const parser = createParser({
    onEvent(event) {
      try {
        applyProgress(JSON.parse(event.data));
      } catch {
        /* one unreadable event is no reason to stop */
      }
    },
  });
  try {
    const response = await request('/models/sse', { signal: abort.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    streaming = true;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      parser.feed(value);
    }
  } finally {
    streaming = false;
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', hide);
    abort.abort();
  }
}

const sleep = (ms) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

const untilOnline = () =>
  new Promise((resolve) => {
    if (online.get()) return resolve();
    const stop = online.subscribe((yes) => yes && (stop(), resolve()));
  });

const untilSeen = () =>
  new Promise((resolve) => {
    if (!document.hidden) return resolve();
    document.addEventListener('visibilitychange', resolve, { once: true });
  });

const untilNewKey = () =>
  new Promise((resolve) => {
    const stop = apiKey.subscribe(() => (stop(), resolve()));
  });

/** For as long as the page is open. */
export async function watchModels() {
  let usable = true; // a server without /models/sse is asked again instead
  for (;;) {
    await untilOnline();
    await untilSeen();
    try {
      await refresh();
      if (usable) await follow();
      else await sleep(models.get().list.some((m) => m.state === 'loading') ? 1500 : 8000);
    } catch (error) {
      if (error.status === 404 || error.status === 501) usable = false;
      else if (error.kind === 'key') await untilNewKey();
      else if (error.kind !== 'offline' && !error.status && !document.hidden) lostServer();
    }
    await sleep(500);
  }
}
