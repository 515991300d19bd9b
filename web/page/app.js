// The whole page: what is open, what is chosen, and the keys that work everywhere.
import { html, useEffect, useRef, useState } from './html.js';
import { useValue } from './state.js';
import { isDark, prefs, setPrefs } from './prefs.js';
import { keyQuestion, online, tryNow } from './api.js';
import { chats, currentId } from './chats.js';
import { running, stop } from './answer.js';
import {
  describe,
  displayName,
  findModel,
  greetingOf,
  isLocal,
  isPersona,
  models,
  startingChoice,
} from './models.js';
import { Composer } from './composer.js';
import { Markdown } from './markdown.js';
import { ModelPicker, ModelsDialog } from './model_list.js';
import { Sidebar } from './sidebar.js';
import { KeyDialog, SettingsDialog } from './settings.js';
import { Thread } from './messages.js';
import { IconButton, announce } from './parts.js';

function Welcome({ choice }) {
  useValue(models);
  const model = findModel(choice);
  const persona = model && isPersona(model);
  const greeting = persona ? greetingOf(model) : '';
  return html`
    <div class="welcome">
      <img src="/assets/icon.svg" alt="" width="56" height="56" />
      <h2>${persona ? displayName(model) : 'What is on your mind?'}</h2>
      ${model?.description && html`<p>${model.description}</p>`}
      ${model && !persona && html`
        <p class="quiet">${model.id} · ${isLocal(model) ? describe(model) : 'upstream provider'}</p>`}
      ${greeting && html`
        <article class="answer greeting" aria-label="Greeting"><${Markdown} text=${greeting} /></article>`}
    </div>`;
}

function Banner() {
  const here = useValue(online);
  useEffect(() => {
    if (here) return undefined;
    return () => announce('The server is back');
  }, [here]);
  if (here) return null;
  return html`
    <div class="banner" role="alert">
      <span>The server does not answer. The page goes on as soon as it is back.</span>
      <button type="button" onClick=${tryNow}>Try now</button>
    </div>`;
}

function Header({ choice, onChoose, onMenu, onSettings, menuOpen }) {
  useValue(prefs);
  const dark = isDark();
  return html`
    <header class="top">
      <${IconButton} icon="menu" label="Menu" class="icon-button only-narrow"
        aria-expanded=${menuOpen ? 'true' : 'false'}
        aria-controls="sidebar" onClick=${onMenu} />
      <${ModelPicker} choice=${choice} onChoose=${onChoose} />
      <span class="grow"></span>
      <${IconButton} icon=${dark ? 'sun' : 'moon'} label=${dark ? 'Light colours' : 'Dark colours'}
        onClick=${() => setPrefs({ theme: dark ? 'light' : 'dark' })} />
      <${IconButton} icon="gear" label="Settings" aria-haspopup="dialog" onClick=${onSettings} />
    </header>`;
}

/** The chosen id: the open chat's, else the last choice, else what would answer soonest. */
function useChoice(chat) {
  const { list, loaded } = useValue(models);
  const [picked, setPicked] = useState(null);
  useEffect(() => setPicked(null), [chat?.id]);
  // Decided once the list is here, and then kept: a state that changes must not change the choice.
  const [start, setStart] = useState(null);
  useEffect(() => {
    if (loaded && start === null) setStart(startingChoice(list));
  }, [loaded]);
  const choose = (id) => {
    setPicked(id);
    setStart(id);
    setPrefs({ model: id });
  };
  return [picked ?? chat?.model ?? start ?? prefs.get().model ?? '', choose];
}

/** On narrow screens the menu lies over the page: the focus goes in with it and comes back out. */
function useMenuFocus(menu) {
  const was = useRef(false);
  useEffect(() => {
    if (menu) document.getElementById('new-chat').focus();
    else if (was.current) document.querySelector('[aria-controls=sidebar]').focus();
    was.current = menu;
  }, [menu]);
}

export function App() {
  const current = useValue(currentId);
  const chat = useValue(chats, (all) => all.find((c) => c.id === current) || null);
  const question = useValue(keyQuestion);
  const [dialog, setDialog] = useState(null);
  const [menu, setMenu] = useState(false);
  const [choice, choose] = useChoice(chat);

  useEffect(() => {
    const keys = (event) => {
      if (
        event.key !== 'Escape' ||
        event.defaultPrevented ||
        document.querySelector('dialog[open]')
      )
        return;
      if (menu) setMenu(false);
      else if (chat && running.get().has(chat.id)) stop(chat.id);
    };
    addEventListener('keydown', keys);
    return () => removeEventListener('keydown', keys);
  }, [menu, chat?.id]);
  useMenuFocus(menu);
  useEffect(() => {
    document.title = chat?.title ? `${chat.title} – Ashley` : 'Ashley';
  }, [chat?.title]);

  const pick = (id) => {
    currentId.set(id);
    setMenu(false);
    if (id === null && matchMedia('(hover: hover)').matches)
      document.getElementById('message').focus();
  };
  const chooseAndChat = (id) => {
    choose(id);
    setDialog(null);
    setMenu(false);
  };
  return html`
    <a class="skip" href="#message">Skip to your message</a>
    <${Sidebar} open=${menu} onClose=${() => setMenu(false)} onPick=${pick}
      onModels=${() => setDialog('models')} />
    ${menu && html`<div class="shade" onClick=${() => setMenu(false)}></div>`}
    <div class="page" inert=${menu}>
      <h1 class="sr-only">${chat?.title || 'New chat'}</h1>
      <${Header} choice=${choice} onChoose=${choose} menuOpen=${menu} onMenu=${() => setMenu(true)}
        onSettings=${() => setDialog('settings')} />
      <${Banner} />
      <main>
        <${Thread} chat=${chat}><${Welcome} choice=${choice} /><//>
        <${Composer} chat=${chat} choice=${choice} />
      </main>
    </div>
    ${dialog === 'models' && html`
      <${ModelsDialog} onChoose=${chooseAndChat} onClose=${() => setDialog(null)} />`}
    ${dialog === 'settings' && html`<${SettingsDialog} onClose=${() => setDialog(null)} />`}
    ${question && html`<${KeyDialog} key=${question} question=${question} />`}`;
}
