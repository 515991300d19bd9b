// What the reader chose, kept in localStorage; the API key only in sessionStorage, so that it ends
// with the tab.
import { observable } from './state.js';

const PREFS = 'ashley.prefs';
const KEY = 'ashley.key';

const defaults = {
  theme: 'auto', // auto, light, dark
  model: null, // id; '' = let the server choose; null = never chosen
  temperature: null, // null = the model's or persona's own
  top_p: null,
  max_tokens: null,
  seed: null,
  system: '',
};

/** Storage that may be full, hold something else than we left there, or be forbidden: then naming it
 *  throws already, and the page goes on without. */
function attempt(work, otherwise) {
  try {
    return work();
  } catch {
    return otherwise;
  }
}

export const readStored = (key, area = 'localStorage') =>
  attempt(() => JSON.parse(window[area].getItem(key)), null);

/** Whether it could be written. */
export const writeStored = (key, value, area = 'localStorage') =>
  attempt(() => {
    window[area].setItem(key, JSON.stringify(value));
    return true;
  }, false);

export const removeStored = (key) => attempt(() => localStorage.removeItem(key));
export const storedKeys = () => attempt(() => Object.keys(localStorage), []);

/** Of what was stored, what has the type that it should have. */
function checked(stored) {
  const kept = { ...defaults };
  for (const name of Object.keys(defaults)) {
    const kind = ['theme', 'model', 'system'].includes(name) ? 'string' : 'number';
    if (typeof stored?.[name] === kind) kept[name] = stored[name];
  }
  return kept;
}

export const prefs = observable(checked(readStored(PREFS)));

export function setPrefs(change) {
  prefs.update((p) => ({ ...p, ...change }));
  writeStored(PREFS, prefs.get());
}

export function resetSampling() {
  const { temperature, top_p, max_tokens, seed, system } = defaults;
  setPrefs({ temperature, top_p, max_tokens, seed, system });
}

/** The request fields the reader set; what was left empty is left to the server. */
export function samplingFields() {
  const p = prefs.get();
  const out = {};
  for (const name of ['temperature', 'top_p', 'max_tokens', 'seed']) {
    if (p[name] !== null) out[name] = p[name];
  }
  return out;
}

export const apiKey = observable(readStored(KEY, 'sessionStorage') || '');

export function setApiKey(key) {
  writeStored(KEY, key, 'sessionStorage');
  apiKey.set(key);
}

const dark = matchMedia('(prefers-color-scheme: dark)');

export function isDark() {
  const { theme } = prefs.get();
  return theme === 'auto' ? dark.matches : theme === 'dark';
}

function applyTheme() {
  document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
}

prefs.subscribe(applyTheme);
dark.addEventListener('change', applyTheme);
applyTheme();
