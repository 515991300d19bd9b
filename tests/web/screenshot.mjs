// The picture in the README: node screenshot.mjs [URL] OUT.png [MODEL]. Without a URL, from mock.py.
import { openBrowser, startMock } from './browser.mjs';
import { answered, ask, ready } from './steps.mjs';

const args = process.argv.slice(2);
const url = args[0]?.startsWith('http') ? args.shift().replace(/\/$/, '') : null;
const [out, model] = args;
if (!out) {
  console.error('usage: node screenshot.mjs [URL] OUT.png [MODEL]');
  process.exit(2);
}
const mock = url ? null : await startMock();
const browser = await openBrowser();
try {
  const context = await browser.newContext({ viewport: { width: 1180, height: 680 } });
  const page = await context.newPage();
  // The same picture each time.
  await page.addInitScript(() => {
    localStorage['ashley.prefs'] ??= '{"temperature":0,"max_tokens":300}';
  });
  await page.goto(`${url ?? mock.url}/`);
  await ready(page);
  const question = url
    ? 'Write a Python function that reverses a string, with one example.'
    : 'Sort a list in Python, please';
  await ask(page, question, model);
  await answered(page, 120_000);
  await page.evaluate(() => document.activeElement.blur());
  await page.waitForTimeout(400);
  await page.screenshot({ path: out });
} finally {
  await browser.close();
  await mock?.end();
}
