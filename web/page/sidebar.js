// The conversations, newest first.
import { html, useState } from './html.js';
import { useValue } from './state.js';
import { chats, currentId, removeChat } from './chats.js';
import { running, stop } from './answer.js';
import { ModelsGlance } from './model_list.js';
import { Icon, IconButton, announce } from './parts.js';

const DAY = 86_400_000;

function groupOf(chat, now) {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  if (chat.updated >= midnight) return 'Today';
  if (chat.updated >= midnight - DAY) return 'Yesterday';
  if (chat.updated >= midnight - 7 * DAY) return 'This week';
  return 'Earlier';
}

function ChatRow({ chat, current, busy, onPick }) {
  // Deleting cannot be undone, so the button asks once more in its own place.
  const [asking, setAsking] = useState(false);
  const remove = () => {
    if (!asking) return setAsking(true);
    stop(chat.id);
    removeChat(chat.id);
    announce('Chat deleted');
    document.getElementById('new-chat')?.focus();
  };
  return html`
    <li class=${current ? 'current' : ''}>
      <button type="button" class="pick" aria-current=${current ? 'true' : undefined}
        onClick=${() => onPick(chat.id)}>
        <span dir="auto">${chat.title || 'New chat'}</span>
        ${busy && html`<i class="busy" role="img" aria-label="answering"></i>`}
      </button>
      <button type="button" class=${`icon-button${asking ? ' sure' : ''}`} onClick=${remove}
        onBlur=${() => setAsking(false)}
        aria-label=${asking ? `Really delete ${chat.title}?` : `Delete ${chat.title}`}
        title=${asking ? 'Really delete?' : 'Delete'}>
        ${asking ? 'Delete?' : html`<${Icon} name="trash" />`}
      </button>
    </li>`;
}

/** Props: open (on narrow screens), onClose, onPick(id or null), onModels. */
export function Sidebar({ open, onClose, onPick, onModels }) {
  const all = useValue(chats);
  const current = useValue(currentId);
  const busy = useValue(running);
  const groups = new Map();
  for (const chat of all) {
    const name = groupOf(chat, Date.now());
    groups.set(name, [...(groups.get(name) || []), chat]);
  }
  return html`
    <nav id="sidebar" class=${open ? 'open' : ''} aria-label="Chats and models">
      <div class="brand">
        <img src="/assets/icon.svg" alt="" width="26" height="26" /><strong>Ashley</strong>
        <${IconButton} icon="close" label="Close menu" class="icon-button only-narrow"
          onClick=${onClose} />
      </div>
      <button type="button" id="new-chat" class="wide" onClick=${() => onPick(null)}><${Icon}
        name="plus" />New chat</button>
      <div class="chats">
        ${[...groups].map(
          ([name, list]) => html`
          <section key=${name} aria-label=${name}>
            <h2>${name}</h2>
            <ul>${list.map(
              (chat) => html`<${ChatRow} key=${chat.id} chat=${chat} current=${chat.id === current}
              busy=${busy.has(chat.id)} onPick=${onPick} />`,
            )}</ul>
          </section>`,
        )}
        ${all.length === 0 && html`
          <p class="quiet">Your conversations will be listed here. They stay in this browser.</p>`}
      </div>
      <${ModelsGlance} onOpen=${onModels} />
    </nav>`;
}
