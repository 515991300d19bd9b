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

/** Storage that may be full, forbidden or hold something else than we left there. */
export function readStored(key, storage = localStorage) {
  try {
    return JSON.parse(storage.getItem(key));
  } catch {
    return null;
  }
}

export function writeStored(key, value, storage = localStorage) {
  try {
    storage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const stored = readStored(PREFS);
export const prefs = observable({
  ...defaults,
  ...(stored && typeof stored === 'object' ? stored : {}),
});

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
    if (typeof p[name] === 'number' && Number.isFinite(p[name])) out[name] = p[name];
  }
  return out;
}

export const apiKey = observable(readStored(KEY, sessionStorage) || '');

export function setApiKey(key) {
  writeStored(KEY, key, sessionStorage);
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
