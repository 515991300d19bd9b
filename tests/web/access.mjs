// For everyone: keyboard alone, narrow screens, both colour schemes, names for what can be worked.
import assert from 'node:assert/strict';
import {
  answered,
  ask,
  assertFits,
  button,
  choose,
  eventually,
  lastAnswer,
  message,
  picker,
  ready,
} from './steps.mjs';

const focused = (page) =>
  page.evaluate(() => {
    const e = document.activeElement;
    const style = getComputedStyle(e);
    return {
      name:
        e.getAttribute('aria-label') ||
        e.innerText?.trim() ||
        e.getAttribute('placeholder') ||
        e.tagName,
      visible:
        style.outlineStyle !== 'none' ||
        getComputedStyle(e.closest('form') || e).borderColor !== 'rgba(0, 0, 0, 0)',
      onScreen: e.getBoundingClientRect().top >= 0,
    };
  });

const luminance = (rgb) => {
  const [r, g, b] = rgb.match(/[\d.]+/g).map((v) => {
    const c = Number(v) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};

/** The colours of the style sheet, as the browser computes them. */
const colours = (page, names) =>
  page.evaluate((list) => {
    const probe = document.body.appendChild(document.createElement('i'));
    const out = {};
    for (const name of list) {
      probe.style.color = `var(--${name})`;
      out[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    return out;
  }, names);

export const accessTests = [
  {
    name: 'everything works with the keyboard alone',
    real: true,
    async run({ page, model, real }) {
      await choose(page, model ?? 'smollm2-135m-instruct');
      await page.reload();
      await ready(page);
      await page.evaluate(() => document.activeElement.blur());
      await page.keyboard.press('Tab');
      assert.match((await focused(page)).name, /Skip to your message/);
      const names = [];
      for (let i = 0; i < 12; i++) {
        await page.keyboard.press('Tab');
        const at = await focused(page);
        assert.ok(at.visible && at.onScreen, `the focus is seen on ${at.name}`);
        names.push(at.name);
        if (at.name === 'Your message') break;
      }
      assert.equal(names.at(-1), 'Your message', names.join(', '));
      assert.ok(
        names.includes('New chat') &&
          names.includes('Settings') &&
          names.includes('Model or persona'),
      );

      await page.keyboard.type(real ? 'Count to fifty.' : 'count to 500');
      await page.keyboard.press('Enter');
      await lastAnswer(page).locator('.prose').waitFor();
      await page.keyboard.press('Escape');
      assert.match(await answered(page), /stopped|tokens/);

      // The skip link, a dialog and back.
      await page.evaluate(() => document.activeElement.blur());
      await page.evaluate(() => document.querySelector('.skip').focus());
      await page.keyboard.press('Enter');
      await page.keyboard.type('typed after the skip');
      assert.equal(await message(page).inputValue(), 'typed after the skip');
      const settings = button(page, 'Settings');
      await settings.focus();
      await page.keyboard.press('Enter');
      await page.getByRole('dialog', { name: 'Settings' }).waitFor();
      for (let i = 0; i < 14; i++) {
        await page.keyboard.press('Tab');
        const inside = await page.evaluate(
          () =>
            document.activeElement === document.body ||
            Boolean(document.activeElement.closest('dialog')),
        );
        assert.ok(inside, 'the focus stays in the dialog');
      }
      await page.keyboard.press('Escape');
      await page.getByRole('dialog').waitFor({ state: 'detached' });
      await eventually(
        async () => (await focused(page)).name === 'Settings',
        'the focus goes back',
      );

      const before = await picker(page).inputValue();
      await picker(page).focus();
      await page.keyboard.press('ArrowUp');
      assert.notEqual(await picker(page).inputValue(), before, 'the choice changes by arrow key');
    },
  },
  {
    name: 'everything that can be worked has a name',
    async run({ page }) {
      await ask(page, 'markdown please');
      await answered(page);
      for (const opener of [null, /^All \d+ models?$/, 'Settings']) {
        if (opener) await button(page, opener).click();
        const nameless = await page.evaluate(() =>
          [...document.querySelectorAll('button, a, input, select, textarea, progress')]
            .filter(
              (e) => !(e.getAttribute('aria-label') || e.innerText?.trim() || e.labels?.length),
            )
            .map((e) => e.outerHTML.slice(0, 120)),
        );
        assert.deepEqual(nameless, []);
        if (opener) await page.keyboard.press('Escape');
      }
      const levels = await page.evaluate(() => document.querySelectorAll('h1').length);
      assert.equal(levels, 1);
    },
  },
  {
    name: 'streamed text is read out politely, in whole pieces',
    async run({ page }) {
      await ask(page, 'hello', 'smollm2-135m-instruct');
      await answered(page);
      const region = page.getByRole('log', { name: 'Announcements' });
      assert.equal(await region.getAttribute('aria-live'), 'polite');
      const text = await region.innerText();
      assert.match(text, /What would you like to talk about\?[\s\S]*Answer complete/);
    },
  },
  {
    name: 'at 375 pixels nothing reaches over the side and the menu works',
    real: true,
    browser: { viewport: { width: 375, height: 700 } },
    async run({ page, model, real }) {
      await choose(page, model ?? 'smollm2-135m-instruct');
      await assertFits(page, 'empty');
      await ask(page, real ? 'Write a table and a code block.' : 'markdown please');
      await answered(page);
      await assertFits(page, 'with an answer');
      if (!real) {
        await ask(page, `a word without a break: ${'longword'.repeat(40)}`);
        await answered(page);
        await assertFits(page, 'with long words');
      }
      await button(page, 'Menu').click();
      await page.waitForTimeout(300);
      await assertFits(page, 'menu');
      assert.ok(
        await page.evaluate(() => Boolean(document.activeElement.closest('#sidebar'))),
        'the focus is in the menu',
      );
      await button(page, /^All \d+ models?$/).click();
      await page.getByRole('dialog', { name: 'Models' }).waitFor();
      await assertFits(page, 'models');
      await page.keyboard.press('Escape');
      await button(page, 'Close menu').click();
      await button(page, 'Settings').click();
      await page.getByRole('dialog', { name: 'Settings' }).waitFor();
      await assertFits(page, 'settings');
      await page.keyboard.press('Escape');
      assert.ok(await message(page).isVisible());
    },
  },
  ...['light', 'dark'].map((scheme) => ({
    name: `${scheme} colours follow the system, can be changed, and have contrast`,
    real: true,
    browser: { colorScheme: scheme },
    async run({ page }) {
      await ready(page);
      const ground = async () =>
        luminance(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      const check = async (dark) => {
        assert.equal((await ground()) < 0.2, dark);
        const c = await colours(page, [
          'ground',
          'raised',
          'side',
          'sunk',
          'ink',
          'quiet',
          'accent',
          'accent-ink',
          'bad',
          'bad-soft',
        ]);
        for (const back of ['ground', 'raised', 'side', 'sunk']) {
          for (const fore of ['ink', 'quiet', 'accent', 'bad']) {
            assert.ok(
              contrast(c[fore], c[back]) >= 4.5,
              `${fore} on ${back}: ${contrast(c[fore], c[back]).toFixed(2)}`,
            );
          }
        }
        assert.ok(contrast(c['accent-ink'], c.accent) >= 4.5);
        assert.ok(contrast(c.bad, c['bad-soft']) >= 4.5);
      };
      await check(scheme === 'dark');
      await button(page, scheme === 'dark' ? 'Light colours' : 'Dark colours').click();
      await check(scheme !== 'dark');
      await page.reload();
      await check(scheme !== 'dark');
    },
  })),
  {
    name: 'the page comes with its policy and does not move while it loads',
    real: true,
    async run({ page, url }) {
      for (const path of ['/', '/assets/main.js', '/assets/style.css']) {
        const response = await fetch(url + path, { headers: { Accept: 'text/html' } });
        assert.equal(response.status, 200, path);
        const policy = response.headers.get('Content-Security-Policy');
        assert.match(policy, /default-src 'none'.*script-src 'self'/, path);
        assert.doesNotMatch(policy, /unsafe/, path);
        assert.equal(response.headers.get('X-Content-Type-Options'), 'nosniff', path);
        assert.ok(response.headers.get('ETag'), path);
      }
      await page.addInitScript(() => {
        window.shift = 0;
        new PerformanceObserver((list) => {
          for (const entry of list.getEntries()) window.shift += entry.value;
        }).observe({ type: 'layout-shift', buffered: true });
      });
      await page.reload();
      await ready(page);
      await page.waitForTimeout(500);
      const shift = await page.evaluate(() => window.shift);
      assert.ok(shift < 0.05, `layout shift ${shift}`);
    },
  },
];
