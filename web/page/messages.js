// The conversation: questions, answers as they grow, what went wrong, and who answered.
import {
  html,
  useEffect,
  useErrorBoundary,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from './html.js';
import { count, duration, percent, timeLeft } from './format.js';
import { useValue } from './state.js';
import { errorTitle } from './api.js';
import { Markdown } from './markdown.js';
import { describe, findModel, modelBehind, models, sentence } from './models.js';
import { resend, retryNow } from './answer.js';
import { CopyButton, Icon, IconButton, announce } from './parts.js';

const REASONS = {
  default: 'it is the default',
  loading: 'the local model was still loading',
  failed: 'the local model failed',
  busy: 'the local model was busy',
};

/** Who answered and how fast; an answer that left this machine says so plainly. */
function Byline({ message }) {
  const { meta = {} } = message;
  const far = meta.by && meta.by !== 'local';
  const facts = [];
  if (meta.model && !far) facts.push(meta.model);
  if (meta.tokens) facts.push(count(meta.tokens, 'token'));
  if (meta.rate)
    facts.push(`${meta.rate < 10 ? meta.rate.toFixed(1) : Math.round(meta.rate)} tokens/s`);
  if (meta.first !== undefined) facts.push(`first token after ${duration(meta.first)}`);
  if (meta.stopped) facts.push('stopped');
  if (meta.elsewhere) facts.push('being written in another tab');
  if (meta.finish === 'length') facts.push('length limit reached');
  return html`
    <div class="byline">
      ${
        far &&
        html`
        <span class="far" title="This answer did not come from this server's own engine">
          <${Icon} name="cloud" />Answered by upstream ${meta.by}${meta.model ? ` · ${meta.model}` : ''}${
            REASONS[meta.why] ? `, because ${REASONS[meta.why]}` : ''
          }
        </span>`
      }
      ${
        meta.truncated &&
        html`
        <span>${count(meta.truncated.messages, 'older message')} left out to fit</span>`
      }
      <span class="facts">${facts.join(' · ')}</span>
    </div>`;
}

/** What the reader waits for while there is no first token: the model's load, or its thinking. */
function Waiting({ chat, message }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  useValue(models);
  const model = message.waiting?.model ? findModel(message.waiting.model) : modelBehind(chat.model);
  const retry = message.waiting
    ? Math.max(0, Math.ceil((message.waiting.until - now) / 1000))
    : null;
  const seconds = Math.floor((now - message.asked) / 1000);
  let words = 'Thinking';
  if (retry !== null) words = `Asking again in ${retry} s`;
  else if (message.read) words = `Reading the conversation, ${percent(message.read)}`;
  else if (seconds >= 3) words = `Waiting for the first word, ${duration(seconds)}`;
  if (model?.state === 'loading') {
    return html`
      <div class="waiting">
        <p><strong>${model.id}</strong> ${describe(model).toLowerCase()}</p>
        <progress max="1" value=${model.progress ?? undefined} aria-label="Loading the model" />
        ${
          retry !== null &&
          html`
          <p class="quiet">Asking again in ${retry} s
            <button type="button" class="link"
              onClick=${() => retryNow(chat.id)}>Ask now</button></p>`
        }
      </div>`;
  }
  return html`
    <div class="waiting">
      <p><span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>
        <span class="quiet">${words}</span></p>
    </div>`;
}

function ErrorCard({ chat, message, last }) {
  const { error } = message;
  const again = (options) => () => resend(chat.id, message.id, options);
  return html`
    <div class="error-card" role="group" aria-label="Error">
      <${Icon} name="warn" />
      <div>
        <strong>${errorTitle(error)}</strong>
        <p>${
          error.nCtx
            ? html`It is ${count(error.nPrompt, 'token')} long; the model holds
              ${' '}${error.nCtx.toLocaleString('en')}, the answer included.`
            : sentence(error.detail)
        }</p>
        ${error.retryAfter > 2 && html`
          <p class="quiet">The server asks to wait ${timeLeft(error.retryAfter)}.</p>`}
        ${
          last &&
          html`
          <div class="actions">
            <button type="button" onClick=${again()}>Try again</button>
            ${
              error.kind === 'context_length_exceeded' &&
              chat.messages.filter((m) => m.role === 'user').length > 1 &&
              html`
              <button type="button"
                onClick=${again({ truncate: true })}>Leave out the oldest messages</button>`
            }
          </div>`
        }
      </div>
    </div>`;
}

/** Reads a growing answer aloud in whole pieces: a screen reader cannot keep up with tokens. */
function useReadAloud(message) {
  const state = useRef({ said: 0, active: false });
  useEffect(() => {
    const s = state.current;
    if (message.pending) s.active = true;
    if (!s.active) return undefined;
    const say = (end) => {
      const piece = message.content.slice(s.said, end).trim();
      s.said = end;
      if (piece) announce(piece);
    };
    if (!message.pending) {
      s.active = false;
      say(message.content.length);
      const { error } = message;
      announce(error ? `${errorTitle(error)}. ${sentence(error.detail)}` : 'Answer complete');
      return undefined;
    }
    const timer = setTimeout(() => {
      const end = Math.max(
        ...['. ', '! ', '? ', '\n'].map((mark) => message.content.lastIndexOf(mark)),
      );
      if (end > s.said + 40) say(end + 1);
    }, 300);
    return () => clearTimeout(timer);
  }, [message.content, message.pending]);
}

function Answer({ chat, message, last }) {
  useReadAloud(message);
  const [open, setOpen] = useState(null);
  const thinking = message.pending && !message.content;
  const { reasoning } = message;
  return html`
    <article class="answer" aria-label="Answer" aria-busy=${message.pending ? 'true' : 'false'}>
      ${
        reasoning &&
        html`
        <details class="reasoning" open=${open ?? false}
          onToggle=${(e) => setOpen(e.currentTarget.open)}>
          <summary>${thinking ? 'Thinking…' : 'Thoughts'}</summary>
          ${open && html`<${Markdown} text=${reasoning} live=${thinking} />`}
        </details>`
      }
      ${message.content && html`<${Markdown} text=${message.content} live=${message.pending} />`}
      ${thinking && !reasoning && html`<${Waiting} chat=${chat} message=${message} />`}
      ${message.error && html`<${ErrorCard} chat=${chat} message=${message} last=${last} />`}
      ${
        !message.pending &&
        !message.greeting &&
        html`
        <footer>
          <${Byline} message=${message} />
          <div class="tools">
            ${
              message.content &&
              html`<${CopyButton} text=${() => message.content} label="Copy answer" />`
            }
            ${
              last &&
              !message.error &&
              html`<${IconButton} icon="again" label="Answer again"
              onClick=${() => resend(chat.id, message.id)} />`
            }
          </div>
        </footer>`
      }
      ${
        message.pending &&
        message.meta?.by &&
        message.meta.by !== 'local' &&
        html`
        <footer><${Byline} message=${message} /></footer>`
      }
    </article>`;
}

function Question({ chat, message }) {
  const [editing, setEditing] = useState(false);
  return html`
    <article class="question" aria-label="You said">
      ${
        editing
          ? html`<${Editor} chat=${chat} message=${message} onDone=${() => setEditing(false)} />`
          : html`
          <div class="bubble">${message.content}</div>
          <div class="tools">
            <${CopyButton} text=${() => message.content} label="Copy question" />
            <${IconButton} icon="edit" label="Edit question" onClick=${() => setEditing(true)} />
          </div>`
      }
    </article>`;
}

function Editor({ chat, message, onDone }) {
  const ref = useRef(null);
  useLayoutEffect(() => {
    ref.current.focus();
    ref.current.setSelectionRange(message.content.length, message.content.length);
  }, []);
  const sendIt = () => {
    const content = ref.current.value.trim();
    if (!content) return;
    onDone();
    resend(chat.id, message.id, { content });
  };
  const keys = (event) => {
    if (event.key === 'Escape') {
      event.stopPropagation();
      onDone();
    } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      sendIt();
    }
  };
  return html`
    <div class="editor">
      <textarea ref=${ref} aria-label="Edit your question" rows="3" onKeyDown=${keys}
        defaultValue=${message.content}></textarea>
      <div class="actions">
        <button type="button" onClick=${onDone}>Cancel</button>
        <button type="button" class="primary" onClick=${sendIt}>Send again</button>
      </div>
    </div>`;
}

/** Keeps the end in view while an answer grows, and lets go as soon as the reader scrolls up. */
function useStickyEnd(chatId) {
  const scroller = useRef(null);
  const content = useRef(null);
  const stuck = useRef(true);
  const [away, setAway] = useState(false);
  const toEnd = () => {
    scroller.current.scrollTop = scroller.current.scrollHeight;
  };
  const jump = () => {
    stuck.current = true;
    setAway(false);
    toEnd();
  };
  useLayoutEffect(() => {
    const box = scroller.current;
    let lastTop = box.scrollTop;
    const onScroll = () => {
      const rest = box.scrollHeight - box.clientHeight - box.scrollTop;
      // Only going up lets go: going down is also what we do ourselves.
      if (box.scrollTop < lastTop - 1 && rest > 4) stuck.current = false;
      if (rest < 24) stuck.current = true;
      lastTop = box.scrollTop;
      setAway(!stuck.current && rest > 120);
    };
    const grown = new ResizeObserver(() => stuck.current && toEnd());
    grown.observe(content.current);
    grown.observe(box);
    box.addEventListener('scroll', onScroll, { passive: true });
    return () => {
      grown.disconnect();
      box.removeEventListener('scroll', onScroll);
    };
  }, []);
  useLayoutEffect(jump, [chatId]);
  return { scroller, content, away, jump };
}

/** A message is drawn again only when itself changes, not with every token of the last one. Of the
 *  chat the parts use only what stands in the list of reasons here. */
function Row({ chat, message, last }) {
  const part = message.role === 'user' ? Question : Answer;
  // Storage may hold anything: one message that cannot be drawn must not take the page with it.
  const [broken] = useErrorBoundary();
  const row = useMemo(
    () => html`<${part} chat=${chat} message=${message} last=${last} />`,
    [message, last, chat.id, chat.model],
  );
  return broken ? html`<p class="quiet">This message is damaged and cannot be shown.</p>` : row;
}

/** Props: chat (or null), children (what stands there when the chat is empty). */
export function Thread({ chat, children }) {
  const { scroller, content, away, jump } = useStickyEnd(chat?.id);
  const asked = chat?.messages.filter((m) => m.role === 'user').length ?? 0;
  useLayoutEffect(jump, [asked]); // who just asked wants to see the answer
  return html`
    <div class="thread-frame">
      <div class="thread" ref=${scroller} tabindex="0" role="region" aria-label="Conversation">
        <div class="column" ref=${content}>
          ${
            chat
              ? chat.messages.map((message, i) => {
                  const last = i === chat.messages.length - 1;
                  return html`<${Row} key=${message.id} chat=${chat} message=${message} last=${last} />`;
                })
              : children
          }
        </div>
      </div>
      ${
        away &&
        html`
        <button type="button" class="jump" onClick=${jump}><${Icon} name="down" />Latest</button>`
      }
    </div>`;
}
