// Conversations, each under its own key of localStorage, so that two tabs do not overwrite each
// other. Bounded: the oldest go when there are too many or the browser's quota is near.
import { observable } from './state.js';
import { readStored, removeStored, storedKeys, writeStored } from './prefs.js';

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

const isMessage = (m) =>
  [m?.id, m?.role, m?.content, m?.reasoning ?? ''].every((part) => typeof part === 'string');

/** A stored chat as the page holds it, or null if it is none. An answer that ran when it was stored is
 *  over after a reload (`stopped`), and goes on in another tab (`elsewhere`). */
function settled(chat, id, how) {
  if (chat?.id !== id || !Array.isArray(chat.messages) || !chat.messages.every(isMessage)) return null;
  const messages = chat.messages.map((m) => {
    const { pending, waiting, ...rest } = m;
    return pending ? { ...rest, meta: { ...rest.meta, [how]: true } } : rest;
  });
  const { title, model, updated } = chat;
  return {
    id,
    title: typeof title === 'string' ? title : '',
    model: typeof model === 'string' ? model : '',
    updated: Number(updated) || 0,
    messages,
  };
}

export function loadChats() {
  const found = storedKeys()
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => settled(readStored(key), key.slice(PREFIX.length), 'stopped'));
  chats.set(found.filter(Boolean).sort(byAge));
}

export const findChat = (id) => chats.get().find((c) => c.id === id) || null;

function store(chat) {
  while (!writeStored(PREFIX + chat.id, chat)) {
    if (!storedKeys().length) return; // forbidden: the chats live as long as the page
    // Full: give up the oldest other chat and try again.
    const oldest = chats
      .get()
      .filter((c) => c.id !== chat.id)
      .at(-1);
    if (!oldest) return;
    removeChat(oldest.id);
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
  removeStored(PREFIX + id);
  chats.update((all) => all.filter((c) => c.id !== id));
  if (currentId.get() === id) currentId.set(null);
}

// What makes a line of Markdown a quote, a heading, an item or a fence.
const MARKS = /^(?:\s*(?:>|#{1,6}(?=\s)|[-*+](?=\s)|```\S*$))+/;

/** A title from the first thing said: its first line with words, cut at one. */
export function titleOf(content) {
  const lines = content.split('\n').map((line) => line.replace(MARKS, '').trim());
  const line = lines.find(Boolean) ?? '';
  if (line.length <= 48) return line || 'New chat';
  const space = line.lastIndexOf(' ', 48);
  const cut = line.slice(0, space < 24 ? 48 : space);
  return `${cut.replace(/[\ud800-\udbff]$/, '')}…`; // no half of a character
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
  const theirs = settled(readStored(event.key), id, 'elsewhere');
  const rest = chats.get().filter((c) => c.id !== id);
  chats.set(theirs ? [theirs, ...rest].sort(byAge) : rest);
  if (!theirs && currentId.get() === id) currentId.set(null);
});
