// Conversations, each under its own key of localStorage, so that two tabs do not overwrite each
// other. Bounded: the oldest go when there are too many or the browser's quota is near.
import { observable } from './state.js';
import { readStored } from './prefs.js';

const PREFIX = 'ashley.chat.';
const MOST_CHATS = 100;
const MOST_CHARS = 4_000_000; // browsers give about 5 million

/** A chat: {id, title, model, updated, messages}. A message: {id, role, content} and of an answer
 *  also {reasoning, pending, waiting, error, meta}. All are replaced, never changed in place. */
export const chats = observable([]); // newest first
export const currentId = observable(null); // null: a conversation not yet begun

// Not randomUUID: that one is missing where the page is served without TLS.
export const newId = () => Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
const byAge = (a, b) => b.updated - a.updated;

function valid(chat) {
  return (
    chat &&
    typeof chat.id === 'string' &&
    Array.isArray(chat.messages) &&
    chat.messages.every((m) => m && typeof m.content === 'string' && typeof m.role === 'string')
  );
}

/** What a reload or another tab finds: an answer that was running then is over now. */
function settle(chat) {
  const messages = chat.messages.map((m) => {
    const { pending, waiting, ...rest } = m;
    return pending ? { ...rest, meta: { ...rest.meta, stopped: true } } : rest;
  });
  return { title: '', model: '', updated: 0, ...chat, messages };
}

export function loadChats() {
  const found = [];
  for (let i = 0; i < localStorage.length; i++) {
    const key = localStorage.key(i);
    if (!key.startsWith(PREFIX)) continue;
    const chat = readStored(key);
    if (valid(chat)) found.push(settle(chat));
  }
  chats.set(found.sort(byAge));
}

export const findChat = (id) => chats.get().find((c) => c.id === id) || null;

function store(chat) {
  const data = JSON.stringify(chat);
  for (;;) {
    try {
      localStorage.setItem(PREFIX + chat.id, data);
      return;
    } catch {
      // Full (or forbidden): give up the oldest other chat and try again.
      const oldest = chats
        .get()
        .filter((c) => c.id !== chat.id)
        .at(-1);
      if (!oldest) return;
      removeChat(oldest.id);
    }
  }
}

function trim() {
  let chars = 0;
  const over = chats.get().filter((chat, i) => {
    chars += chat.messages.reduce((n, m) => n + m.content.length + (m.reasoning?.length || 0), 200);
    return i > 0 && (i >= MOST_CHATS || chars > MOST_CHARS);
  });
  for (const chat of over) removeChat(chat.id);
}

export function saveChat(id) {
  const chat = findChat(id);
  if (chat) store(chat);
}

/** Puts a changed chat in place; `save` false while tokens stream, to spare the disk. */
export function putChat(chat, save = true) {
  const rest = chats.get().filter((c) => c.id !== chat.id);
  chats.set([chat, ...rest].sort(byAge));
  if (!save) return;
  store(chat);
  trim();
}

export function removeChat(id) {
  localStorage.removeItem(PREFIX + id);
  chats.update((all) => all.filter((c) => c.id !== id));
  if (currentId.get() === id) currentId.set(null);
}

/** A title from the first thing said: its first line, cut at a word. */
export function titleOf(content) {
  const line = content
    .trim()
    .split('\n')[0]
    .replace(/[#*`_>]+/g, '')
    .trim();
  if (line.length <= 48) return line || 'New chat';
  const cut = line.slice(0, 48);
  return `${cut.slice(0, Math.max(24, cut.lastIndexOf(' ')))}…`;
}

export function startChat(model, messages) {
  const said = messages.find((m) => m.role === 'user');
  const chat = {
    id: newId(),
    title: titleOf(said?.content || ''),
    model,
    updated: Date.now(),
    messages,
  };
  putChat(chat);
  currentId.set(chat.id);
  return chat;
}

/** Changes one message of one chat; nothing if either is gone meanwhile. */
export function patchMessage(chatId, messageId, change, save = true) {
  const chat = findChat(chatId);
  if (!chat?.messages.some((m) => m.id === messageId)) return;
  const messages = chat.messages.map((m) => (m.id === messageId ? { ...m, ...change } : m));
  putChat({ ...chat, messages, updated: save ? Date.now() : chat.updated }, save);
}

// Another tab wrote: take its version, unless an answer is running here.
addEventListener('storage', (event) => {
  if (!event.key?.startsWith(PREFIX)) return;
  const id = event.key.slice(PREFIX.length);
  const mine = findChat(id);
  if (mine?.messages.some((m) => m.pending)) return;
  const theirs = event.newValue === null ? null : readStored(event.key);
  const rest = chats.get().filter((c) => c.id !== id);
  chats.set(valid(theirs) ? [settle(theirs), ...rest].sort(byAge) : rest);
  if (!valid(theirs) && currentId.get() === id) currentId.set(null);
});
