// Requests to the server: keys, errors in words, and whether the server is there at all.
import { observable } from './state.js';
import { apiKey, setApiKey } from './prefs.js';

/** Whether the server answers; the banner and the watchers follow it. */
export const online = observable(true);

/** Set while a key is asked for: {wrong} says whether one was tried and refused. */
export const keyQuestion = observable(null);

/** What the server said no with, in words for people. `kind` is its machine-readable code. */
export class ApiError extends Error {
  constructor(kind, detail, extra = {}) {
    super(detail || kind);
    this.kind = kind;
    this.detail = detail || '';
    Object.assign(this, extra);
  }
}

const TITLES = {
  model_loading: 'The model is still loading',
  queue_timeout: 'Too many others are waiting',
  first_token_timeout: 'The model took too long to begin',
  idle_timeout: 'The model stopped in the middle',
  context_length_exceeded: 'This conversation is too long for the model',
  model_not_found: 'The server does not know this model',
  upstream_error: 'The upstream provider failed',
  upstream_not_configured: 'No upstream provider is set up',
  shutting_down: 'The server is shutting down',
  offline: 'The server cannot be reached',
  cut: 'The answer was cut off',
  key: 'The server wants an API key',
};
const TITLES_BY_STATUS = {
  400: 'The server could not use this request',
  403: 'The server refused this page',
  404: 'Not found',
  413: 'The message is too large',
  429: 'Too many requests just now',
  501: 'The server cannot do this yet',
  502: 'The upstream provider failed',
  503: 'The server is busy',
};

export function errorTitle(error) {
  return TITLES[error.kind] || TITLES_BY_STATUS[error.status] || 'Something went wrong';
}

/** An error body of any shape: OpenAI's {"error":{…}}, Ollama's {"error":"text"}, or not JSON. */
export function errorFromBody(body, status, headers) {
  const e = body && typeof body === 'object' ? (body.error ?? body) : null;
  const message = typeof e === 'string' ? e : e?.message;
  const after = Number(headers?.get('Retry-After'));
  return new ApiError(e?.code || e?.type || `http_${status}`, message || `HTTP status ${status}`, {
    status,
    retryAfter: Number.isFinite(after) && after > 0 ? Math.min(after, 3600) : null,
    loading: e?.loading || body?.loading || null,
    nPrompt: e?.n_prompt,
    nCtx: e?.n_ctx,
  });
}

/** fetch with the key; throws ApiError for every answer that is not 2xx. Aborts stay AbortError. */
export async function request(path, { method = 'GET', body, signal } = {}) {
  const headers = {};
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    lostServer();
    throw new ApiError('offline', 'It may have been stopped, or the network is down.');
  }
  online.set(true);
  if (response.ok) return response;
  let parsed = null;
  try {
    parsed = await response.json();
  } catch {
    /* the status will have to do */
  }
  const error = errorFromBody(parsed, response.status, response.headers);
  if (response.status === 401) error.kind = 'key';
  throw error;
}

export const getJson = async (path, options) => (await request(path, options)).json();

/** Asks for a key; resolves to whether one was given. Several askers share one question. */
let pendingKey = null;
export function askKey() {
  pendingKey ??= new Promise((resolve) => {
    keyQuestion.set({
      wrong: apiKey.get() !== '',
      answer(key) {
        keyQuestion.set(null);
        pendingKey = null;
        if (key) setApiKey(key);
        resolve(Boolean(key));
      },
    });
  });
  return pendingKey;
}

/** Runs `attempt` again after each refused key, until it passes or the reader gives up. */
export async function withKey(attempt) {
  for (;;) {
    const used = apiKey.get();
    try {
      return await attempt();
    } catch (error) {
      if (error.kind !== 'key') throw error;
      // Another request may have asked meanwhile: then only try its key.
      if (apiKey.get() === used && !(await askKey())) throw error;
    }
  }
}

// A page that is being left loses its connections, which says nothing about the server.
let leaving = false;
addEventListener('pagehide', () => {
  leaving = true;
});
addEventListener('pageshow', () => {
  leaving = false;
});
export const isLeaving = () => leaving;

/** Called when a connection breaks: knocks at /livez until somebody opens. */
let knocking = false;
export async function lostServer() {
  if (knocking || leaving) return;
  knocking = true;
  for (let wait = 0; ; wait = Math.min(wait ? wait * 1.6 : 600, 5000)) {
    if (await alive()) break;
    online.set(false);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait || 300);
      knockNow = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
  knocking = false;
  online.set(true);
}

let knockNow = () => {};
export const tryNow = () => knockNow();
addEventListener('online', tryNow);

async function alive() {
  try {
    return (await fetch('/livez', { cache: 'no-store', signal: AbortSignal.timeout(4000) })).ok;
  } catch {
    return false;
  }
}
