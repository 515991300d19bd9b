// Starts the page.
import { render } from 'preact';
import { html } from './html.js';
import { App } from './app.js';
import { loadChats } from './chats.js';
import { watchModels } from './models.js';

loadChats();
render(html`<${App} />`, document.getElementById('app'));
watchModels();
