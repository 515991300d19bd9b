// The page in a real browser: against mock.py, and with --url against a running Ashley.
//
//   node run.mjs [--url http://127.0.0.1:8080] [--model ID] [words of a test's name …]
//
// Every test gets a page of its own and fails, whatever else it checks, when the page logs an error,
// asks another host for anything, or breaks its Content-Security-Policy. Ends with "N passed, N failed".
import { setDefaultResultOrder } from 'node:dns';
import { openBrowser, startMock } from './browser.mjs';
import { chatTests } from './chat.mjs';
import { modelTests } from './models.mjs';
import { accessTests } from './access.mjs';

setDefaultResultOrder('ipv4first');

const args = process.argv.slice(2);
const option = (name) => {
  const at = args.indexOf(name);
  return at < 0 ? null : args.splice(at, 2)[1];
};
const realUrl = option('--url')?.replace(/\/$/, '');
const model = option('--model');
const words = args.join(' ');

// What the browser itself logs when a server says no; the tests that provoke it say so by `refused`.
const REFUSED = /Failed to load resource|net::ERR_/;

/** Everything a page does that no test may let pass. */
async function watched(context, url, test) {
  const complaints = [];
  const page = await context.newPage();
  page.setDefaultTimeout(realUrl ? 60_000 : 8_000);
  page.on('pageerror', (error) => complaints.push(`error: ${error.stack}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && !(test.refused && REFUSED.test(message.text()))) {
      complaints.push(`console: ${message.text()}`);
    }
  });
  page.on('request', (request) => {
    const to = request.url();
    if (!to.startsWith(`${url}/`) && !to.startsWith('data:') && to !== 'about:blank') {
      complaints.push(`asked another host: ${to}`);
    }
  });
  if (realUrl) {
    // The same answer each time, and an end in sight.
    await page.addInitScript(() => {
      localStorage['ashley.prefs'] ??= '{"temperature":0,"max_tokens":200}';
    });
  }
  await page.exposeFunction('tellViolation', (text) => complaints.push(`policy: ${text}`));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (e) => {
      window.tellViolation(`${e.violatedDirective} ${e.blockedURI}`);
    });
  });
  return { page, complaints };
}

async function runOne(browser, test) {
  const mock = realUrl ? null : await startMock(...(test.mock || ['--fast']));
  const url = realUrl || mock.url;
  const viewport = { width: 1280, height: 800 };
  const context = await browser.newContext({ viewport, ...test.browser });
  try {
    const { page, complaints } = await watched(context, url, test);
    await page.goto(`${url}/`);
    await test.run({ page, url, mock, model, real: Boolean(realUrl) });
    if (complaints.length) throw new Error(complaints.join('\n'));
  } finally {
    await context.close();
    await mock?.end();
  }
}

const browser = await openBrowser();
let passed = 0;
let failed = 0;
for (const test of [...chatTests, ...modelTests, ...accessTests]) {
  if ((realUrl && !test.real) || !test.name.includes(words)) continue;
  try {
    await runOne(browser, test);
    passed++;
    console.log(`ok    ${test.name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${test.name}\n${String(error.stack || error).replace(/^/gm, '      ')}`);
  }
}
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
