// A block of code with its language, colours and a copy button. The colouring library is fetched when
// the first block appears, not before.
import { html, useEffect, useMemo, useState } from './html.js';
import { CopyButton } from './parts.js';

const NAMES = {
  js: 'typescript',
  jsx: 'typescript',
  javascript: 'typescript',
  ts: 'typescript',
  tsx: 'typescript',
  mjs: 'typescript',
  c: 'cpp',
  h: 'cpp',
  'c++': 'cpp',
  cc: 'cpp',
  hpp: 'cpp',
  py: 'python',
  sh: 'bash',
  shell: 'bash',
  zsh: 'bash',
  console: 'bash',
  html: 'xml',
  svg: 'xml',
  yml: 'yaml',
  rs: 'rust',
  golang: 'go',
  patch: 'diff',
  jsonc: 'json',
  json5: 'json',
  python3: 'python',
};
const MOST = 60_000; // characters; beyond it colouring would be felt

let library = null;
let loading = null;

function useHighlighter() {
  const [, redraw] = useState(0);
  useEffect(() => {
    if (library) return undefined;
    let here = true;
    loading ??= import('./highlighter.js').then(
      (module) => {
        library = module.default;
      },
      () => {},
    );
    loading.then(() => here && redraw(1));
    return () => {
      here = false;
    };
  }, []);
  return library;
}

/** Props: lang (what stands after the fence), text, live (still being written). */
export function CodeBlock({ lang, text, live }) {
  const highlighter = useHighlighter();
  const said = (lang || '')
    .trim()
    .split(/[\s,{]/)[0]
    .toLowerCase();
  const known = highlighter?.getLanguage(NAMES[said] || said) ? NAMES[said] || said : null;
  const colours = useMemo(() => {
    if (!known || text.length > MOST) return null;
    // highlight.js escapes its input; its output holds nothing but spans with classes.
    return { __html: highlighter.highlight(text, { language: known, ignoreIllegals: true }).value };
  }, [known, text]);
  return html`
    <figure class="code">
      <figcaption>
        <span>${said || 'text'}</span>
        <${CopyButton} text=${() => text} label="Copy code" disabled=${live} />
      </figcaption>
      <pre tabindex="0" dir="ltr" aria-label=${`Code${said ? ` in ${said}` : ''}`}>${
        colours
          ? html`<code key="c" class="hljs" dangerouslySetInnerHTML=${colours} />`
          : html`<code key="p">${text}</code>`
      }</pre>
    </figure>`;
}
