// Small pieces that several views share: icons, buttons, the modal dialog, announcements.
import { html, useEffect, useLayoutEffect, useRef, useState } from './html.js';

const PATHS = {
  menu: 'M4 7h16M4 12h16M4 17h16',
  plus: 'M12 5v14M5 12h14',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  copy: 'M9 9h10v10H9zM5 15V5h10',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  again: 'M19 12a7 7 0 1 1-2-4.9M19 4v4h-4',
  edit: 'M5 19h3.5L19 8.5 15.5 5 5 15.5zM13 7.5l3.5 3.5',
  trash: 'M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7',
  close: 'M6 6l12 12M18 6L6 18',
  gear: 'M5 7h9M18 7h1M5 17h1M10 17h9M16 5v4M8 15v4',
  sun:
    'M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4' +
    'M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4',
  moon: 'M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z',
  down: 'M12 5v14M6 13l6 6 6-6',
  cloud: 'M7 18a4 4 0 0 1-.5-8A5.5 5.5 0 0 1 17 9.5a4.3 4.3 0 0 1 0 8.5z',
  chip: 'M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4',
  warn: 'M12 4l9 15.5H3zM12 10v4M12 16.8v.2',
};

export function Icon({ name }) {
  return html`<svg class=${`icon icon-${name}`} viewBox="0 0 24 24" aria-hidden="true"><path
  d=${PATHS[name]} /></svg>`;
}

/** A button that is only an icon; its label is read aloud and shown on hover. */
export function IconButton({ icon, label, ...rest }) {
  return html`<button type="button" class="icon-button" aria-label=${label}
  title=${label} ...${rest}><${Icon} name=${icon} /></button>`;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard API without TLS: the old way, through a selection.
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'sr-only';
    const before = document.activeElement;
    (document.querySelector('dialog[open]') || document.body).append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
    before?.focus();
  }
}

export function CopyButton({ text, label, ...rest }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return undefined;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  const click = async () => {
    await copy(text());
    setDone(true);
    announce('Copied');
  };
  return html`<${IconButton} icon=${done ? 'check' : 'copy'} label=${label}
  onClick=${click} ...${rest} />`;
}

/** A native modal dialog: the browser keeps the focus inside and gives it back afterwards. */
export function Dialog({ title, onClose, children, ...rest }) {
  const ref = useRef(null);
  useLayoutEffect(() => {
    const dialog = ref.current;
    const opener = document.activeElement;
    dialog.showModal();
    // The browser may close it by itself, past `cancel`: then the page must know.
    const closed = () => onClose();
    dialog.addEventListener('close', closed);
    return () => {
      dialog.removeEventListener('close', closed);
      dialog.close();
      opener?.focus?.();
    };
  }, []);
  const outside = (event) => event.target === ref.current && onClose();
  const cancel = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`
    <dialog ref=${ref} aria-labelledby="dialog-title" onCancel=${cancel}
      onMouseDown=${outside} ...${rest}>
      <div class="dialog-body">
        <header>
          <h2 id="dialog-title">${title}</h2>
          <${IconButton} icon="close" label="Close" onClick=${onClose} />
        </header>
        ${children}
      </div>
    </dialog>`;
}

let region = null;

/** Says something to a screen reader, politely, in the order of the calls. */
export function announce(text) {
  if (!region) {
    region = document.createElement('div');
    region.className = 'sr-only';
    region.setAttribute('role', 'log');
    region.setAttribute('aria-live', 'polite');
    region.setAttribute('aria-label', 'Announcements');
    document.body.append(region);
  }
  const line = document.createElement('p');
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > 12) region.firstChild.remove();
}
