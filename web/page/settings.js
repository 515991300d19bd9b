// The dialogs: how answers are made, how the page looks, and the key.
import { html, useEffect, useRef, useState } from './html.js';
import { useValue } from './state.js';
import { apiKey, prefs, resetSampling, setApiKey, setPrefs } from './prefs.js';
import { Dialog } from './parts.js';

/** A number that may be left empty; what is out of range is told and not kept. */
function NumberField({ name, label, hint, min, max, step, whole }) {
  const stored = useValue(prefs, (p) => p[name]);
  const [text, setText] = useState(stored === null ? '' : String(stored));
  useEffect(() => {
    if (stored === null) setText('');
  }, [stored]);
  const check = (value) => {
    if (value.trim() === '') return { value: null };
    const n = Number(value);
    if (!Number.isFinite(n) || n < min || n > max || (whole && !Number.isInteger(n))) {
      const kind = whole ? 'A whole number' : 'A number';
      return { problem: `${kind} from ${min} to ${max.toLocaleString('en')}, or nothing` };
    }
    return { value: n };
  };
  const { problem } = check(text);
  const input = (event) => {
    const value = event.currentTarget.value;
    setText(value);
    const checked = check(value);
    if (!checked.problem) setPrefs({ [name]: checked.value });
  };
  return html`
    <div class="field">
      <label for=${`set-${name}`}>${label}</label>
      <input id=${`set-${name}`} inputmode=${whole ? 'numeric' : 'decimal'} autocomplete="off"
        value=${text}
        placeholder="model's own" aria-invalid=${problem ? 'true' : 'false'}
        aria-describedby=${`hint-${name}`}
        onInput=${input} />
      <p id=${`hint-${name}`} class=${problem ? 'problem' : 'quiet'}>${problem || hint}</p>
    </div>`;
}

const THEMES = [
  ['auto', 'As the system'],
  ['light', 'Light'],
  ['dark', 'Dark'],
];

export function SettingsDialog({ onClose }) {
  const { theme, system } = useValue(prefs);
  const key = useValue(apiKey);
  return html`
    <${Dialog} title="Settings" onClose=${onClose} class="drawer">
      <h3>Answers</h3>
      <div class="field">
        <label for="set-system">System prompt</label>
        <textarea id="set-system" rows="4" value=${system} aria-describedby="hint-system"
          onInput=${(e) => setPrefs({ system: e.currentTarget.value })}></textarea>
        <p id="hint-system" class="quiet">Put before every conversation, after a persona's own.</p>
      </div>
      <div class="fields">
        <${NumberField} name="temperature" label="Temperature" min=${0} max=${2}
          hint="0 is the same every time, 1 is lively" />
        <${NumberField} name="top_p" label="Top-p" min=${0} max=${1}
          hint="Share of likely words to choose from" />
        <${NumberField} name="max_tokens" label="Most tokens" min=${1} max=${1048576} whole
          hint="Longest answer" />
        <${NumberField} name="seed" label="Seed" min=${0} max=${4294967295} whole
          hint="Same seed, same answer" />
      </div>
      <button type="button" onClick=${resetSampling}>Back to the model's own</button>
      <h3>Look</h3>
      <fieldset class="choices">
        <legend class="sr-only">Colours</legend>
        ${THEMES.map(
          ([value, label]) => html`
          <label><input type="radio" name="theme" value=${value} checked=${theme === value}
            onChange=${() => setPrefs({ theme: value })} />${label}</label>`,
        )}
      </fieldset>
      <h3>API key</h3>
      ${
        key
          ? html`<p class="quiet">A key is kept for this tab. <button type="button" class="link"
            onClick=${() => setApiKey('')}>Forget it</button></p>`
          : html`<p class="quiet">None. The page asks for one when the server wants it.</p>`
      }
      <p class="quiet about">Conversations stay in this browser. <a href="/assets/licenses.txt"
        target="_blank">Licenses</a></p>
    <//>`;
}

export function KeyDialog({ question }) {
  const ref = useRef(null);
  useEffect(() => ref.current.focus(), []);
  const submit = (event) => {
    event.preventDefault();
    question.answer(ref.current.value.trim());
  };
  return html`
    <${Dialog} title="This server wants an API key" onClose=${() => question.answer('')}
      class="small">
      <form onSubmit=${submit}>
        ${question.wrong && html`<p class="problem" role="alert">The server refused that key.</p>`}
        <div class="field">
          <label for="api-key">API key</label>
          <input id="api-key" type="password" ref=${ref} autocomplete="off" spellcheck=${false}
            aria-describedby="hint-key" />
          <p id="hint-key" class="quiet">One of <code>ASHLEY_API_KEYS</code>. It is kept
            until this tab is closed and sent only to this server.</p>
        </div>
        <div class="actions">
          <button type="button" onClick=${() => question.answer('')}>Not now</button>
          <button type="submit" class="primary">Use this key</button>
        </div>
      </form>
    <//>`;
}
