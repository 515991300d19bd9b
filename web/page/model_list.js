// All models and personas with their states: in short beside the chats, in full in a dialog.
import { html, useState } from './html.js';
import { bytes, percent, timeLeft } from './format.js';
import { useValue } from './state.js';
import { errorTitle } from './api.js';
import { canDo, describe, displayName, isLocal, isPersona, manage, models } from './models.js';
import { Dialog, Icon } from './parts.js';

const ORDER = { loading: 0, ready: 1, failed: 2, unloaded: 3, absent: 4 };
const byState = (a, b) => ORDER[a.state] - ORDER[b.state];

const actions = {
  unloaded: [['load', 'Load']],
  ready: [['unload', 'Unload']],
  loading: [['cancel', 'Cancel']],
  failed: [['load', 'Try again']],
};

function Actions({ model }) {
  const [failure, setFailure] = useState(null);
  const offered = (actions[model.state] || []).filter(([action]) =>
    // A loading model may not be told to stop unless it says so; a failed one may always be retried.
    action === 'cancel'
      ? model.can?.includes('cancel')
      : canDo(model, action) || canDo(model, 'retry'),
  );
  return html`
    ${failure && html`<p class="quiet" role="alert">${errorTitle(failure)}: ${failure.detail}</p>`}
    ${offered.map(
      ([action, label]) => html`
      <button type="button" aria-label=${`${label} ${model.id}`}
        onClick=${() => manage(action, model.id).then(() => setFailure(null), setFailure)}>${label}</button>`,
    )}`;
}

function ModelCard({ model, onChoose }) {
  const facts = [];
  if (model.context) facts.push(`${model.context.toLocaleString('en')} tokens of context`);
  if (model.memory) facts.push(`${bytes(model.memory)} of memory`);
  else if (model.size) facts.push(bytes(model.size));
  if (model.state === 'loading' && model.speed) facts.push(`${bytes(model.speed)}/s`);
  return html`
    <li class=${`card card-${model.state}`}>
      <div class="card-head">
        <h4><span class="dot" aria-hidden="true"></span>${displayName(model)}</h4>
        <span class="state">${isLocal(model) ? describe(model) : 'Upstream provider'}</span>
      </div>
      ${
        model.state === 'loading' &&
        html`
        <progress max="1" value=${model.progress ?? undefined}
          aria-label=${`Loading ${model.id}`} />`
      }
      ${model.description && html`<p>${model.description}</p>`}
      ${model.warning && model.state !== 'ready' && html`<p>${model.warning}</p>`}
      ${
        (model.state === 'failed' || model.state === 'absent') &&
        model.reason &&
        html`
        <p class="reason">${model.reason}</p>
        ${model.hint && html`<p>${model.hint}</p>`}`
      }
      <div class="card-foot">
        <span class="quiet">${facts.join(' · ')}</span>
        <span class="actions">
          <${Actions} model=${model} />
          ${
            !['absent', 'failed'].includes(model.state) &&
            html`
            <button type="button" class="primary" aria-label=${`Chat with ${model.id}`}
              onClick=${() => onChoose(model.id)}>Chat</button>`
          }
        </span>
      </div>
    </li>`;
}

function PersonaCard({ model, onChoose }) {
  return html`
    <li class="card">
      <div class="card-head"><h4>${displayName(model)}</h4><span
        class="state">${model.meta.model || ''}</span></div>
      ${model.description && html`<p>${model.description}</p>`}
      <div class="card-foot">
        <span></span>
        <span class="actions"><button type="button" class="primary"
          aria-label=${`Chat with ${displayName(model)}`}
          onClick=${() => onChoose(model.id)}>Chat</button></span>
      </div>
    </li>`;
}

export function ModelsDialog({ onChoose, onClose }) {
  const { list, loaded } = useValue(models);
  const local = list.filter((m) => !isPersona(m)).sort(byState);
  const personas = list.filter(isPersona);
  const card = (as) => (m) => html`<${as} key=${m.id} model=${m} onChoose=${onChoose} />`;
  return html`
    <${Dialog} title="Models" onClose=${onClose} class="drawer">
      ${!loaded && html`<p class="quiet">Asking the server…</p>`}
      ${
        personas.length > 0 &&
        html`
        <h3>Personas</h3>
        <ul class="cards">${personas.map(card(PersonaCard))}</ul>`
      }
      ${
        loaded &&
        html`
        <h3>Models</h3>
        <ul class="cards">${local.map(card(ModelCard))}</ul>
        ${local.length === 0 && html`<p class="quiet">The server knows no model yet.</p>`}`
      }
    <//>`;
}

const atAGlance = ({ progress, eta }) =>
  `${percent(progress ?? 0)}${eta === null ? '' : ` · ${timeLeft(eta)}`}`;

/** The few that matter now: loading, ready and failed ones. */
export function ModelsGlance({ onOpen }) {
  const { list, loaded } = useValue(models);
  const local = list.filter(isLocal).sort(byState);
  const shown = local.filter((m) => ['loading', 'ready', 'failed'].includes(m.state)).slice(0, 5);
  return html`
    <section class="glance" aria-labelledby="glance-title">
      <h2 id="glance-title">Models</h2>
      <ul>
        ${shown.map(
          (m) => html`
          <li key=${m.id} class=${`glance-${m.state}`} title=${m.reason || describe(m)}>
            <div><span class="dot" aria-hidden="true"></span><span class="name">${m.id}</span>
              <span class="state">${m.state === 'loading' ? atAGlance(m) : m.state}</span></div>
            ${m.state === 'loading' && html`
              <progress max="1" value=${m.progress ?? undefined} aria-label=${`Loading ${m.id}`} />`}
          </li>`,
        )}
      </ul>
      <button type="button" class="wide" aria-haspopup="dialog" onClick=${onOpen}><${Icon}
        name="chip" />
        ${loaded ? `All ${local.length} models` : 'Models'}</button>
    </section>`;
}

/** The choice as a plain select: every browser and screen reader knows how to work one. */
export function ModelPicker({ choice, onChoose }) {
  const { list } = useValue(models);
  const personas = list.filter(isPersona);
  const others = list.filter((m) => !isPersona(m) && m.state !== 'absent').sort(byState);
  const known = choice === '' || list.some((m) => m.id === choice);
  const current = list.find((m) => m.id === choice);
  const option = (m, label) => html`<option key=${m.id} value=${m.id}>${label}</option>`;
  const mark = { ready: '', loading: ' (loading)', failed: ' (failed)', unloaded: '' };
  return html`
    <div class=${`picker card-${current && !isPersona(current) ? current.state : 'none'}`}>
      <span class="dot" aria-hidden="true"></span>
      <select aria-label="Model or persona" value=${choice}
        onChange=${(e) => onChoose(e.currentTarget.value)}>
        <option value="">Server's choice</option>
        ${!known && html`<option value=${choice}>${choice}</option>`}
        ${
          personas.length > 0 &&
          html`<optgroup label="Personas">
          ${personas.map((m) => option(m, displayName(m)))}</optgroup>`
        }
        ${
          others.length > 0 &&
          html`<optgroup label="Models">
          ${others.map((m) => option(m, m.id + (mark[m.state] || '')))}</optgroup>`
        }
      </select>
    </div>`;
}
