// Where people type. Above it, when it matters: what the chosen model is doing.
import { html, useEffect, useLayoutEffect, useRef, useState } from './html.js';
import { useValue } from './state.js';
import { errorTitle } from './api.js';
import { running, send, stop } from './answer.js';
import {
  canDo,
  describe,
  displayName,
  findModel,
  greetingOf,
  isPersona,
  manage,
  modelBehind,
  models,
} from './models.js';
import { Icon, announce } from './parts.js';

/** Whether the chosen model can answer at once; nothing when it can. */
function ModelStrip({ choice }) {
  useValue(models);
  const [failure, setFailure] = useState(null);
  useEffect(() => setFailure(null), [choice]);
  const model = modelBehind(choice);
  if (!model || model.state === 'ready') return null;
  if (isPersona(model)) {
    // Nothing is listed behind it: the upstream, most likely, and not set up.
    if (model.state !== 'failed') return null;
    return html`
      <div class="strip strip-failed">
        <p class="strip-words"><span class="dot" aria-hidden="true"></span>
          <strong>${displayName(model)}</strong> wants the model
          <strong> ${model.meta.model || 'openai'}</strong>, which is not set up.</p>
      </div>`;
  }
  const load = () => manage('load', model.id).then(() => setFailure(null), setFailure);
  const action = model.state === 'failed' ? 'Try again' : 'Load now';
  const offer =
    model.state === 'failed'
      ? canDo(model, 'load') || canDo(model, 'retry')
      : model.state === 'unloaded' && canDo(model, 'load');
  return html`
    <div class=${`strip strip-${model.state}`}>
      <div class="strip-words">
        <p><span class="dot" aria-hidden="true"></span>
          <strong>${model.id}</strong> ${describe(model).toLowerCase()}</p>
        ${model.reason && model.state !== 'loading' && html`<p class="quiet">${model.reason}</p>`}
        ${model.hint && model.state !== 'loading' && html`<p class="quiet">${model.hint}</p>`}
        ${failure && html`<p class="quiet" role="alert">${errorTitle(failure)}: ${failure.detail}</p>`}
      </div>
      ${
        model.state === 'loading' &&
        html`
        <progress max="1" value=${model.progress ?? undefined}
          aria-label=${`Loading ${model.id}`} />`
      }
      ${offer && html`<button type="button" onClick=${load}>${action}</button>`}
    </div>`;
}

/** Says the end of a load aloud, once. */
function useLoadAnnouncements() {
  const before = useRef(new Map());
  const list = useValue(models, (m) => m.list);
  useEffect(() => {
    for (const model of list) {
      const was = before.current.get(model.id);
      if (was === 'loading' && model.state === 'ready') announce(`${model.id} is ready`);
      if (was === 'loading' && model.state === 'failed')
        announce(`${model.id} failed: ${model.reason}`);
      before.current.set(model.id, model.state);
    }
  }, [list]);
}

/** Props: chat or null, choice (model or persona id). */
export function Composer({ chat, choice }) {
  useLoadAnnouncements();
  const ref = useRef(null);
  const [text, setText] = useState('');
  const run = useValue(running, (map) => (chat ? map.get(chat.id) : undefined));

  // As tall as its text, up to the limit that the style sheet sets.
  useLayoutEffect(() => {
    ref.current.style.height = 'auto';
    ref.current.style.height = `${ref.current.scrollHeight + 2}px`;
  }, [text]);
  useEffect(() => {
    // On a touch screen the focus would open the keyboard over half the page.
    if (matchMedia('(hover: hover)').matches) ref.current.focus();
  }, [chat?.id]);

  const submit = (event) => {
    event?.preventDefault();
    if (run || !text.trim()) return;
    const model = findModel(choice);
    send(
      chat?.id,
      choice,
      text.trim(),
      !chat && model && isPersona(model) ? greetingOf(model) : '',
    );
    setText('');
  };
  const keys = (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) submit(event);
  };
  const name = choice ? displayName(findModel(choice) || { id: choice, meta: {} }) : 'Ashley';
  return html`
    <div class="composer">
      <${ModelStrip} choice=${choice} />
      <form onSubmit=${submit}>
        <textarea id="message" ref=${ref} rows="1" value=${text} placeholder=${`Message ${name}`}
          aria-label="Your message" aria-describedby="keys" enterkeyhint="send" autocomplete="off"
          onInput=${(e) => setText(e.currentTarget.value)} onKeyDown=${keys}></textarea>
        ${
          run
            ? html`<button key="stop" type="button" class="round" aria-label="Stop"
              title="Stop (Esc)"
              onClick=${() => {
                stop(chat.id);
                ref.current.focus();
              }}><${Icon} name="stop" /></button>`
            : html`<button key="send" type="submit" class="round primary" aria-label="Send"
              title="Send (Enter)"
              disabled=${!text.trim()}><${Icon} name="send" /></button>`
        }
      </form>
      <p id="keys" class="quiet keys"><kbd>Enter</kbd> sends,${' '}
        <kbd>Shift</kbd>+<kbd>Enter</kbd> begins a new line, <kbd>Esc</kbd> stops</p>
    </div>`;
}
