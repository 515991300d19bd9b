// One answer from question to last token: the request, its stream, waiting for a model that loads,
// and what is known about it afterwards.
import { createParser } from 'eventsource-parser';
import { observable } from './state.js';
import { prefs, samplingFields } from './prefs.js';
import { ApiError, errorFromBody, isLeaving, lostServer, request, withKey } from './api.js';
import { isLocal, modelBehind, models } from './models.js';
import { findChat, newId, patchMessage, putChat, saveChat, startChat } from './chats.js';

/** Running answers: chat id -> {abort, retryNow}. */
export const running = observable(new Map());

const FLUSH = 40; // ms between two drawings of streamed text; a token each would be wasted work
const SAVE = 2000; // ms between two savings of a running answer
const MOST_TRIES = 30; // of a model that keeps loading

export function stop(chatId) {
  running.get().get(chatId)?.abort.abort();
}

export const retryNow = (chatId) => running.get().get(chatId)?.retryNow?.();

/** Sends what was typed; begins a chat if there is none. */
export function send(chatId, model, content, greeting) {
  const question = { id: newId(), role: 'user', content };
  let chat = findChat(chatId);
  if (!chat) {
    const first = greeting
      ? [{ id: newId(), role: 'assistant', content: greeting, greeting: true }]
      : [];
    chat = startChat(model, [...first, question]);
  } else {
    chat = { ...chat, model, updated: Date.now(), messages: [...chat.messages, question] };
  }
  answer(chat);
}

/** Answers again from a message on: all after it goes. For a question, with other words. */
export function resend(chatId, messageId, { content, model, truncate } = {}) {
  const chat = findChat(chatId);
  const at = chat?.messages.findIndex((m) => m.id === messageId) ?? -1;
  if (at < 0) return;
  const target = chat.messages[at];
  const messages =
    target.role === 'user'
      ? [...chat.messages.slice(0, at), { ...target, content: content ?? target.content }]
      : chat.messages.slice(0, at);
  stop(chatId);
  answer({ ...chat, model: model ?? chat.model, updated: Date.now(), messages }, truncate);
}

function setRunning(chatId, value) {
  running.update((map) => {
    const next = new Map(map);
    if (value) next.set(chatId, value);
    else next.delete(chatId);
    return next;
  });
}

function requestBody(chat, truncate) {
  const messages = chat.messages
    .filter((m) => !m.pending && (m.content || m.role === 'user'))
    .map(({ role, content }) => ({ role, content }));
  const { system } = prefs.get();
  if (system.trim()) messages.unshift({ role: 'system', content: system });
  return {
    ...(chat.model ? { model: chat.model } : {}),
    messages,
    stream: true,
    stream_options: { include_usage: true },
    // Not where the upstream answers: OpenAI refuses names it does not know.
    ...(isLocal(modelBehind(chat.model) ?? { owner: '?' }) ? { return_progress: true } : {}),
    ...samplingFields(),
    ...(truncate ? { truncate: 'oldest' } : {}),
  };
}

async function answer(chat, truncate) {
  const body = requestBody(chat, truncate);
  const reply = { id: newId(), role: 'assistant', content: '', pending: true, asked: Date.now() };
  putChat({ ...chat, messages: [...chat.messages, reply] });
  const run = { abort: new AbortController(), retryNow: null };
  setRunning(chat.id, run);
  const sink = makeSink(chat.id, reply.id);
  try {
    await attempts(body, run, sink);
    sink.end({});
  } catch (error) {
    if (error.name === 'AbortError') sink.end({ stopped: true });
    else sink.end({}, toPlain(error));
  } finally {
    if (running.get().get(chat.id) === run) setRunning(chat.id, null);
  }
}

/** An error as it is kept with the message. */
function toPlain(error) {
  if (!(error instanceof ApiError)) return { kind: 'page', detail: String(error.message || error) };
  const { kind, detail, status, retryAfter, nPrompt, nCtx } = error;
  return { kind, detail, status, retryAfter, nPrompt, nCtx };
}

/** Tries until an answer begins; a loading model is waited for, everything else is an error. */
async function attempts(body, run, sink) {
  for (let tries = 1; ; tries++) {
    try {
      return await withKey(() => stream(body, run.abort.signal, sink));
    } catch (error) {
      if (error.kind !== 'model_loading' || sink.began() || tries >= MOST_TRIES) throw error;
      await waitForModel(error, run, sink);
    }
  }
}

/** Waits as long as the server said, less if the model gets ready or the reader is impatient. */
function waitForModel(error, run, sink) {
  const seconds = error.retryAfter ?? 5;
  const id = error.loading?.model;
  sink.waiting({ until: Date.now() + seconds * 1000, model: id || null });
  return new Promise((resolve, reject) => {
    const { signal } = run.abort;
    const settled = (list) => list.some((m) => m.id === id && m.state !== 'loading');
    const unsubscribe = models.subscribe(({ list }) => settled(list) && finish());
    const timer = setTimeout(finish, seconds * 1000);
    const aborted = () => finish(new DOMException('stopped', 'AbortError'));
    signal.addEventListener('abort', aborted);
    run.retryNow = () => finish();
    function finish(failure) {
      clearTimeout(timer);
      unsubscribe();
      signal.removeEventListener('abort', aborted);
      run.retryNow = null;
      sink.waiting(null);
      if (failure) reject(failure);
      else resolve();
    }
  });
}

/** One request; returns when the stream ended as it should. */
async function stream(body, signal, sink) {
  const response = await request('/v1/chat/completions', { method: 'POST', body, signal });
  const header = (name) => response.headers.get(name) || undefined;
  sink.about({
    model: header('X-Ashley-Model'),
    by: header('X-Ashley-Served-By'),
    why: header('X-Ashley-Reason'),
  });
  let complete = false;
  let failure = null;
  const parser = createParser({
    onEvent({ data }) {
      if (data === '[DONE]') return void (complete = true);
      const chunk = parseChunk(data);
      if (chunk.error) failure ??= errorFromBody(chunk, undefined, null);
      else if (readChunk(chunk, sink)) complete = true;
    },
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parser.feed(value);
    }
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    if (isLeaving()) throw new DOMException('the page was left', 'AbortError');
    lostServer();
    failure ??= new ApiError('cut', 'The connection to the server broke.');
  }
  // A broken stream never ends with finish_reason, so its absence is told and not hidden.
  if (failure) throw failure;
  if (!complete)
    throw new ApiError('cut', 'The server ended the stream before the answer was complete.');
}

function parseChunk(data) {
  try {
    return JSON.parse(data) ?? {};
  } catch {
    return { error: { code: 'page', message: 'The server sent something that is not JSON.' } };
  }
}

/** Takes over what one chunk holds; true for the one with finish_reason. */
function readChunk(chunk, sink) {
  const choice = chunk.choices?.[0];
  const delta = choice?.delta;
  if (delta) sink.add(delta.content || '', delta.reasoning_content || '');
  if (chunk.usage) sink.usage(chunk.usage);
  if (chunk.prompt_progress) sink.reading(chunk.prompt_progress);
  const { model, served_by: by, reason: why, truncated } = chunk;
  // The headers say who answers, unless the stream began before that was known.
  sink.about({ by, why, truncated, ...(sink.knows('model') && !by ? {} : { model }) });
  if (!choice?.finish_reason) return false;
  sink.about({ finish: choice.finish_reason });
  return true;
}

/** Collects an answer and puts it into its message, at a bearable rate. */
function makeSink(chatId, messageId) {
  const asked = performance.now();
  let content = '';
  let reasoning = '';
  let meta = {};
  let first = null;
  let last = null;
  let chunks = 0;
  let timer = null;
  let saved = asked;
  const patch = (change, save) => patchMessage(chatId, messageId, change, save);

  function flush() {
    timer = null;
    patch({ content, ...(reasoning ? { reasoning } : {}), meta }, false);
    if (performance.now() - saved > SAVE) {
      saved = performance.now();
      saveChat(chatId);
    }
  }
  const later = () => {
    timer ??= setTimeout(flush, FLUSH);
  };

  return {
    began: () => chunks > 0,
    knows: (name) => meta[name] !== undefined,
    reading: ({ total, processed }) => total > 0 && patch({ read: processed / total }, false),
    waiting: (waiting) => patch({ waiting }, false),
    about(more) {
      const known = Object.entries(more).filter(([name, v]) => v && v !== meta[name]);
      if (!known.length) return;
      meta = { ...meta, ...Object.fromEntries(known) };
      later();
    },
    add(text, thought) {
      if (!text && !thought) return;
      last = performance.now();
      first ??= last;
      chunks++;
      content += text;
      reasoning += thought;
      later();
    },
    usage({ completion_tokens: tokens, prompt_tokens: prompt }) {
      meta = { ...meta, tokens, prompt };
    },
    end(more, error) {
      clearTimeout(timer);
      // A chunk is nearly always one token; the server's own count is better where it came.
      const tokens = meta.tokens || chunks;
      const seconds = (last - first) / 1000;
      meta = {
        ...meta,
        ...more,
        tokens,
        first: first === null ? undefined : (first - asked) / 1000,
        rate: tokens > 1 && seconds > 0.05 ? (tokens - 1) / seconds : undefined,
      };
      patch({
        content,
        ...(reasoning ? { reasoning } : {}),
        meta,
        error,
        pending: false,
        waiting: null,
      });
    },
  };
}

addEventListener('pagehide', () => {
  for (const id of running.get().keys()) saveChat(id);
});
