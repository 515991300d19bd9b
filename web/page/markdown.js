// Markdown of a model's answer as a tree of elements. The structure (lists, tables, code) becomes
// Preact elements, so that a growing answer changes only its end and a selection in it survives; the
// words inside are HTML, which DOMPurify cleans against a short list of what may be there at all.
//
// Nothing that a model writes can load anything: images become links, and raw HTML, except for a few
// harmless tags without attributes, is shown as the text it is.
import { Marked } from 'marked';
import DOMPurify from 'dompurify';
import { html, useMemo } from './html.js';
import { CodeBlock } from './code.js';

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escape = (text) => text.replace(/[&<>"]/g, (c) => escapes[c]);
const HARMLESS = /^<(?:br\s*\/?|\/?(?:b|i|u|s|sub|sup|kbd|mark|em|strong|small|del|ins))>$/i;

// TeX is shown as it was written: as Markdown it would lose backslashes and stars. A pair of marks with
// nothing of TeX inside is money, or brackets that somebody escaped.
const TEX = /[\\^_{}*=<>+]/;
const BLOCK = /^ {0,3}(?:\$\$([^]+?)\$\$|\\\[([^]+?)\\\]) *(?:\n+|$)/;
const INLINE =
  /^(?:\$\$([^]+?)\$\$|\\\[([^]+?)\\\]|\\\(([^]+?)\\\)|\$(?![\s$])((?:\\.|[^\\$\n])+?)(?<!\s)\$(?!\d))/;

function formula(type, pattern, src) {
  const found = pattern.exec(src);
  const text = found?.slice(1).find(Boolean).trim();
  return text && TEX.test(text) ? { type, raw: found[0], text } : undefined;
}

const parser = new Marked({
  gfm: true,
  breaks: true, // a model that ends a line means it: verses, addresses
  extensions: [
    {
      name: 'formula',
      level: 'block',
      start: (src) => src.search(/\n {0,3}(?:\$\$|\\\[)/) + 1 || -1,
      tokenizer: (src) => formula('formula', BLOCK, src),
    },
    {
      name: 'tex',
      level: 'inline',
      start: (src) => src.search(/\$|\\[[(]/),
      tokenizer: (src) => formula('tex', INLINE, src),
      renderer: ({ text }) => `<code>${escape(text)}</code>`,
    },
  ],
  renderer: {
    html: ({ text }) => (HARMLESS.test(text.trim()) ? text : escape(text)),
    // What stands between the tags of a raw block comes marked as escaped, and is not.
    text: (token) => (token.escaped ? escape(token.text) : false),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    // Anything that is not an address people can follow is only its text.
    link(token) {
      const words = this.parser.parseInline(token.tokens);
      return /^(?:https?:|mailto:)/i.test(token.href)
        ? `<a href="${escape(token.href)}">${words}</a>`
        : words;
    },
  },
});

const purify = {
  ALLOWED_TAGS: [
    'a',
    'b',
    'br',
    'code',
    'del',
    'em',
    'i',
    'ins',
    'kbd',
    'mark',
    's',
    'small',
    'strong',
    'sub',
    'sup',
    'u',
  ],
  ALLOWED_ATTR: ['href', 'target', 'rel'],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
};

// A link leads out of a conversation that is nowhere else: it opens beside it, and tells nobody.
DOMPurify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName !== 'A') return;
  node.setAttribute('target', '_blank');
  node.setAttribute('rel', 'noopener noreferrer');
});

const inline = (tokens) => ({
  __html: DOMPurify.sanitize(parser.Parser.parseInline(tokens, parser.defaults), purify),
});

/** Which way a list or a table runs: as its first letter does. For words alone the browser finds out. */
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const directionOf = ({ raw }) => (RIGHT_TO_LEFT.test(/\p{L}/u.exec(raw)?.[0] ?? '') ? 'rtl' : 'ltr');

/** Words whose source did not change keep their element untouched. */
function Words({ as, token, links, ...rest }) {
  const made = useMemo(() => inline(token.tokens), [token.raw ?? token.text, links]);
  return html`<${as} ...${rest} dangerouslySetInnerHTML=${made} />`;
}

function Table({ token, links }) {
  const cell = (as) => (c, i) => html`
    <${Words} as=${as} token=${c} links=${links} dir="auto"
      class=${token.align[i] ? `align-${token.align[i]}` : ''} />`;
  return html`
    <div class="table-frame" tabindex="0" role="group" aria-label="Table">
      <table dir=${directionOf(token)}>
        <thead><tr>${token.header.map(cell('th'))}</tr></thead>
        <tbody>${token.rows.map((row) => html`<tr>${row.map(cell('td'))}</tr>`)}</tbody>
      </table>
    </div>`;
}

function List({ token, links, live }) {
  const items = token.items.map(
    (item, i) => html`
    <li class=${item.task ? 'task' : ''}>
      ${
        item.task &&
        html`<span class="tick" role="img"
        aria-label=${item.checked ? 'done' : 'to do'}>${item.checked ? '☑' : '☐'}</span>`
      }
      <${Blocks} tokens=${item.tokens} links=${links}
        live=${live && i === token.items.length - 1} />
    </li>`,
  );
  const dir = directionOf(token);
  return token.ordered
    ? html`<ol dir=${dir} start=${token.start || 1}>${items}</ol>`
    : html`<ul dir=${dir}>${items}</ul>`;
}

/** `live`: the last block is still being written. */
function Blocks({ tokens, links, live }) {
  return tokens.map((token, i) => {
    const growing = live && i === tokens.length - 1;
    switch (token.type) {
      case 'space':
      case 'def':
        return null;
      case 'code':
        return html`<${CodeBlock} lang=${token.lang} text=${token.text} live=${growing} />`;
      case 'formula':
        return html`<${CodeBlock} lang="tex" text=${token.text} live=${growing} />`;
      case 'heading':
        // The page's own headings come first: a model's "#" is a third-level one here.
        return html`<${Words} as=${`h${Math.min(6, token.depth + 2)}`} token=${token}
        links=${links} dir="auto" />`;
      case 'hr':
        return html`<hr />`;
      case 'blockquote':
        return html`<blockquote dir=${directionOf(token)}><${Blocks} tokens=${token.tokens} links=${links}
        live=${growing} /></blockquote>`;
      case 'list':
        return html`<${List} token=${token} links=${links} live=${growing} />`;
      case 'table':
        return html`<${Table} token=${token} links=${links} />`;
      case 'text': // the words of a tight list item
        return html`<${Words} as="span" token=${withTokens(token)} links=${links} />`;
      case 'html':
        return html`<${Words} as="p" token=${{ raw: token.raw, tokens: [token] }}
        links=${links} />`;
      default:
        return html`<${Words} as="p" token=${withTokens(token)} links=${links} dir="auto" />`;
    }
  });
}

const withTokens = (token) => (token.tokens ? token : { ...token, tokens: [token] });

/** Props: text, live. */
export function Markdown({ text, live }) {
  const tokens = useMemo(() => parser.lexer(text), [text]);
  // A definition further down turns words above into links, whose own source did not change.
  const links = Object.keys(tokens.links || {}).join();
  return html`<div class="prose"><${Blocks} tokens=${tokens} links=${links} live=${live} /></div>`;
}
