// Asking and answering: streams, stopping, errors, what a hostile answer may not do.
import assert from 'node:assert/strict';
import {
  answered,
  answers,
  answersOf,
  ask,
  button,
  choose,
  eventually,
  goOn,
  lastAnswer,
  message,
  picker,
  ready,
  requestsTo,
} from './steps.mjs';

const errorCard = (page) => page.locator('.error-card');
const COUNT = 'Please count to 120 slowly, one number after the other.';
const STORY = 'Tell me a very long story about a fox.';

export const chatTests = [
  {
    name: 'an answer streams, and says who gave it and how fast',
    real: true,
    async run({ page, url, model, real }) {
      if (real) await answersOf(page, 400);
      await ask(page, real ? STORY : COUNT, model ?? 'smollm2-135m-instruct');
      const prose = lastAnswer(page).locator('.prose');
      await prose.waitFor();
      const early = (await prose.innerText()).length;
      await eventually(async () => (await prose.innerText()).length > early, 'the text grows');
      assert.equal(await lastAnswer(page).getAttribute('aria-busy'), 'true');
      const text = await answered(page);
      assert.match(text, /\d tokens.*tokens\/s.*first token after/);
      assert.ok(text.includes(model ?? 'smollm2-135m-instruct'));
      if (real) return;
      assert.match(text, /118 119 120/);
      const [body] = await requestsTo(url);
      assert.equal(body.stream, true);
      assert.deepEqual(body.stream_options, { include_usage: true });
      assert.deepEqual(body.messages, [{ role: 'user', content: COUNT }]);
    },
  },
  {
    name: 'the stop button and Escape end an answer and keep what came',
    real: true,
    async run({ page, url, model, real }) {
      if (real) await answersOf(page, 5000);
      for (const stop of [
        () => button(page, 'Stop').click(),
        () => page.keyboard.press('Escape'),
      ]) {
        await ask(page, real ? STORY : 'count to 2000', model ?? 'smollm2-135m-instruct');
        await lastAnswer(page).locator('.prose').waitFor();
        await stop();
        const text = await answered(page);
        assert.match(text, /stopped/);
        assert.ok(await button(page, 'Send').isVisible());
      }
      if (real) return;
      const left = async () => (await requestsTo(url)).filter((r) => r.left).length === 2;
      await eventually(left, 'the server sees both clients leave');
    },
  },
  {
    name: 'chats are kept over a reload, answered again, edited, deleted',
    real: true,
    async run({ page, url, model, real }) {
      await ask(page, 'hello there', model ?? 'smollm2-135m-instruct');
      await answered(page);
      const first = await lastAnswer(page).locator('.prose').innerText();
      await page.reload();
      await button(page, 'hello there').first().click();
      assert.equal(await lastAnswer(page).locator('.prose').innerText(), first);
      await button(page, 'Answer again').click();
      await answered(page);
      assert.equal(await answers(page).count(), 1);

      await page.locator('.question').hover();
      await button(page, 'Edit question').click();
      const editor = page.getByRole('textbox', { name: 'Edit your question' });
      assert.equal(await editor.inputValue(), 'hello there');
      await editor.fill('say something else');
      await editor.press('Enter');
      await answered(page);
      assert.equal(await page.locator('.bubble').innerText(), 'say something else');
      if (!real) {
        assert.match(await lastAnswer(page).innerText(), /You said: say something else/);
        const bodies = await requestsTo(url);
        assert.deepEqual(
          bodies.map((b) => b.messages.length),
          [1, 1, 1],
        );
      }

      await button(page, 'New chat').click();
      assert.equal(await answers(page).count(), 0);
      await ask(page, 'a second chat');
      await answered(page);
      const rows = page.locator('.chats li');
      assert.equal(await rows.count(), 2);
      await button(page, 'Delete a second chat').click();
      assert.equal(await rows.count(), 2, 'one click must not delete');
      await button(page, 'Really delete a second chat?').click();
      assert.equal(await rows.count(), 1);
      assert.equal(
        await page.evaluate(
          () => Object.keys(localStorage).filter((k) => k.includes('chat')).length,
        ),
        1,
      );
    },
  },
  {
    name: 'the whole conversation is sent, with the settings',
    async run({ page, url }) {
      await choose(page, 'smollm2-135m-instruct');
      await button(page, 'Settings').click();
      const temperature = page.getByLabel('Temperature');
      await temperature.fill('3');
      assert.equal(await temperature.getAttribute('aria-invalid'), 'true');
      await temperature.fill('0.5');
      await page.getByLabel('Seed').fill('7');
      await page.getByLabel('System prompt').fill('Be brief.');
      await page.keyboard.press('Escape');
      await ask(page, 'one');
      await answered(page);
      await page.reload();
      await page.locator('.chats .pick').first().click();
      await ask(page, 'two');
      await answered(page);
      const body = (await requestsTo(url))[1];
      assert.equal(body.temperature, 0.5);
      assert.equal(body.seed, 7);
      assert.equal('top_p' in body, false);
      assert.deepEqual(
        body.messages.map((m) => m.role),
        ['system', 'user', 'assistant', 'user'],
      );
      assert.equal(body.messages[0].content, 'Be brief.');
    },
  },
  {
    name: 'Markdown is drawn, code is coloured and can be copied',
    browser: { permissions: ['clipboard-read', 'clipboard-write'] },
    async run({ page }) {
      await ask(page, 'markdown please');
      await answered(page);
      const answer = lastAnswer(page);
      await answer.locator('pre .hljs-keyword').first().waitFor();
      assert.equal(await answer.locator('table tbody tr').count(), 2);
      assert.equal(await answer.getByRole('img', { name: 'done' }).count(), 1);
      assert.equal(await answer.locator('a').getAttribute('rel'), 'noopener noreferrer');
      await button(answer, 'Copy code').click();
      const copied = await page.evaluate(() => navigator.clipboard.readText());
      assert.ok(copied.startsWith('def merge_sort(') && copied.endsWith('right'));
    },
  },
  {
    name: 'lines end where the model ended them, formulas keep their signs',
    async run({ page }) {
      await ask(page, 'verses please');
      await answered(page);
      const prose = lastAnswer(page).locator('.prose');
      assert.match(await prose.innerText(), /^Roses are red,\nviolets are blue\.\n/);
      assert.deepEqual(await prose.locator('p code').allInnerTexts(), [
        'a_1 * b_1 * c',
        'x^*y^*z',
      ]);
      assert.match(await prose.innerText(), /\$5 or \$10 is money, \[1\] a mark/);
      assert.equal(await prose.locator('figure pre').innerText(), 'x = \\frac{a}{b} \\,\n- y');
      const space = await prose.evaluate((p) => {
        const top = p.querySelector('blockquote').getBoundingClientRect().top;
        return top - p.querySelector('figure').getBoundingClientRect().bottom;
      });
      assert.ok(space > 8, `${space} px above the quote`);
    },
  },
  {
    name: 'words run the way their language is written',
    async run({ page }) {
      const question = 'hebrew please\nשלום.';
      await ask(page, question);
      await answered(page);
      const way = (selector) =>
        lastAnswer(page)
          .locator(selector)
          .evaluateAll((all) => all.map((e) => getComputedStyle(e).direction));
      assert.deepEqual(await way('.prose > p'), ['rtl', 'ltr']);
      assert.deepEqual(await way('ul, li'), ['rtl', 'rtl', 'rtl']);
      const bubble = page.locator('.bubble');
      assert.equal(await bubble.innerText(), question);
      assert.equal(await bubble.evaluate((e) => getComputedStyle(e).unicodeBidi), 'plaintext');
    },
  },
  {
    name: 'a chat is named after its first words, signs and all',
    async run({ page }) {
      for (const [said, title] of [
        ['is 3 > 2? C# or __init__', 'is 3 > 2? C# or __init__'],
        ['> # quoted', 'quoted'],
        ['```js\nlet a = 1;\n```', 'let a = 1;'],
        ['- an item', 'an item'],
        [`${'a'.repeat(47)}😀 end`, `${'a'.repeat(47)}…`],
        [`${'word '.repeat(9)}and so on`, `${'word '.repeat(9)}and…`],
      ]) {
        await button(page, 'New chat').click();
        await ask(page, said);
        await answered(page);
        const shown = page.locator('.chats li.current .pick span');
        assert.equal(await shown.innerText(), title);
      }
    },
  },
  {
    name: 'nothing in a hostile answer runs, loads, or leaves its place',
    async run({ page }) {
      await ask(page, 'xss');
      await answered(page);
      await page.waitForTimeout(300);
      const answer = lastAnswer(page);
      assert.equal(await page.evaluate(() => window.pwned), undefined);
      const found = await answer.locator('.prose').evaluate((prose) => ({
        tags: [...new Set([...prose.querySelectorAll('*')].map((e) => e.localName))].filter((t) =>
          /^(script|img|svg|iframe|form|input|style|math|object|embed|link|meta)$/.test(t),
        ),
        // Icons of the copy buttons are ours; nothing else may have handlers, styles or ids.
        attributes: [...prose.querySelectorAll('*')]
          .flatMap((e) => [...e.attributes].map((a) => a.name))
          .filter((name) => /^(on|style$|id$|name$|src)/.test(name)),
        links: [...prose.querySelectorAll('a')].map((a) => a.protocol),
        text: prose.innerText,
      }));
      assert.deepEqual(
        found.tags.filter((t) => t !== 'svg'),
        [],
      );
      assert.equal(await answer.locator('.prose svg:not(.icon)').count(), 0);
      assert.deepEqual(found.attributes, []);
      assert.ok(
        found.links.length >= 2 && found.links.every((p) => p === 'https:'),
        found.links.join(),
      );
      // What was refused as HTML is still there to read.
      assert.match(found.text, /<script>window\.pwned = 1<\/script>/);
      assert.match(found.text, /end of attack/);
    },
  },
  {
    name: 'errors are told in words, with a way on',
    refused: true,
    async run({ page, url }) {
      await ask(page, 'this is about context', 'smollm2-135m-instruct');
      await answered(page);
      assert.match(
        await errorCard(page).innerText(),
        /too long for the model[\s\S]*9,000 tokens[\s\S]*8,192/,
      );
      const leaveOut = button(page, 'Leave out the oldest messages');
      assert.equal(await leaveOut.count(), 0, 'there is none older');
      assert.equal(await button(page, 'Answer again').count(), 0, 'the card offers it');
      await ask(page, 'more context');
      await answered(page);
      await leaveOut.click();
      assert.match(await answered(page), /You said[\s\S]*2 older messages left out/);
      assert.equal((await requestsTo(url))[2].truncate, 'oldest');

      await ask(page, 'overloaded');
      await answered(page);
      assert.match(await errorCard(page).last().innerText(), /Too many requests[\s\S]*wait 7 s/);
      const said = page.getByRole('log', { name: 'Announcements' });
      assert.match(await said.innerText(), /Too many requests just now/);
      await ask(page, 'upstream down');
      await answered(page);
      assert.match(
        await errorCard(page).last().innerText(),
        /upstream provider failed[\s\S]*connection refused/,
      );
      await button(page, 'Try again').click();
      await answered(page);
      assert.equal((await requestsTo(url)).length, 6);
    },
  },
  {
    name: 'an answer that breaks in the middle keeps its words and says that it broke',
    async run({ page, url }) {
      await ask(page, 'midstream failure', 'smollm2-135m-instruct');
      assert.match(await answered(page), /You[\s\S]*stopped in the middle[\s\S]*No token for 30 s/);
      await ask(page, 'cut off please');
      assert.match(await answered(page), /You[\s\S]*was cut off/);
      await ask(page, 'prefill slowly');
      await lastAnswer(page).getByText('Reading the conversation, 80 %').waitFor();
      await goOn(url);
      await answered(page);
      await ask(page, 'think, then answer');
      const text = await answered(page);
      assert.doesNotMatch(text, /weigh the question/, 'thoughts are folded');
      await lastAnswer(page).getByText('Thoughts').click();
      await lastAnswer(page).getByText('First I weigh the question').waitFor();
    },
  },
  {
    name: 'an upstream answer says so; a persona greets and is sent by its own id',
    async run({ page, url }) {
      await ask(page, 'hello', 'ashley');
      assert.match(await answered(page), /Answered by upstream openai · gpt-4o-mini/);
      await ask(page, 'fallback', 'smollm2-135m-instruct');
      assert.match(await answered(page), /upstream openai · gpt-4o-mini, because .* still loading/);
      await button(page, 'New chat').click();
      await choose(page, 'ink');
      assert.match(
        await page.getByRole('article', { name: 'Greeting' }).innerText(),
        /wipes his hands/,
      );
      await ask(page, 'a poster');
      const text = await answered(page);
      assert.match(text, /smollm2-135m-instruct/);
      assert.doesNotMatch(text, /upstream/);
      const body = (await requestsTo(url))[2];
      assert.equal(body.model, 'ink');
      assert.deepEqual(
        body.messages.map((m) => m.role),
        ['assistant', 'user'],
      );
    },
  },
  {
    name: 'the key is asked for, asked again when wrong, and kept for the tab only',
    refused: true,
    mock: ['--fast', '--key', 'secret-key'],
    async run({ page }) {
      const field = page.getByLabel('API key', { exact: true });
      await field.fill('wrong');
      await field.press('Enter');
      await page.getByText('The server refused that key').waitFor();
      await field.fill('secret-key');
      await button(page, 'Use this key').click();
      await ask(page, 'hello');
      assert.match(await answered(page), /Hello!/);
      assert.equal(
        await page.evaluate(() => JSON.stringify(localStorage).includes('secret-key')),
        false,
      );
      await page.reload();
      await ready(page);
      assert.equal(await page.getByRole('dialog').count(), 0, 'the tab still has its key');
      await page.evaluate(() => sessionStorage.setItem('ashley.key', '"old"'));
      await page.reload();
      await page.getByRole('dialog').waitFor();
      await button(page, 'Not now').click();
      await ask2(page);
    },
  },
  {
    name: 'a reader who scrolls up is left alone, one at the end follows',
    async run({ page }) {
      await ask(page, 'count to 1500', 'smollm2-135m-instruct');
      const thread = page.getByRole('region', { name: 'Conversation' });
      const rest = () => thread.evaluate((t) => t.scrollHeight - t.clientHeight - t.scrollTop);
      const grown = (n) => thread.evaluate((t, min) => t.scrollHeight - t.clientHeight > min, n);
      await eventually(() => grown(250), 'the answer is longer than the screen', 30_000);
      await eventually(async () => (await rest()) < 40, 'at the end while it streams');
      await thread.hover();
      await page.mouse.wheel(0, -200);
      await eventually(async () => (await rest()) > 100, 'the wheel has turned');
      await page.waitForTimeout(300);
      const top = await thread.evaluate((t) => t.scrollTop);
      await page.waitForTimeout(700);
      assert.equal(await thread.evaluate((t) => t.scrollTop), top, 'stays where the reader is');
      await button(page, 'Latest').click();
      await eventually(async () => (await rest()) < 40, 'at the end again');
      await page.keyboard.press('Escape');
    },
  },
  {
    name: 'storage: broken entries are passed over, the oldest chats go when there are too many',
    async run({ page }) {
      await page.evaluate(() => {
        localStorage.setItem('ashley.prefs', '{"theme":');
        localStorage.setItem('ashley.chat.bad1', 'not JSON');
        localStorage.setItem('ashley.chat.bad2', '{"id":"bad2","messages":[null]}');
        localStorage.setItem('ashley.chat.bad3', '{"id":"c1","messages":[]}');
        for (let i = 0; i < 110; i++) {
          const messages = [{ id: 'm', role: 'user', content: `question ${i}` }];
          const chat = {
            id: `c${i}`,
            title: `chat ${i}`,
            model: '',
            updated: 1000 + i,
            messages,
          };
          localStorage.setItem(`ashley.chat.c${i}`, JSON.stringify(chat));
        }
      });
      await page.reload();
      await ask(page, 'hello');
      await answered(page);
      assert.equal(await page.locator('.chats li').count(), 100);
      const kept = await page.evaluate(
        () => Object.keys(localStorage).filter((k) => k.startsWith('ashley.chat.c')).length,
      );
      assert.equal(kept, 99);
      assert.equal(await page.evaluate(() => localStorage.getItem('ashley.chat.c0')), null);
    },
  },
  {
    name: 'storage: what has the wrong type is passed over, one message that cannot be drawn stays alone',
    async run({ page }) {
      await page.evaluate(() => {
        localStorage.setItem('ashley.prefs', '{"system":5,"theme":{},"model":7,"temperature":"x"}');
        const question = { id: 'q', role: 'user', content: 'an old question' };
        const reply = { id: 'a', role: 'assistant', content: 'an old answer', meta: null };
        const chat = { id: 'c', title: {}, model: [], updated: 'x', messages: [question, reply] };
        localStorage.setItem('ashley.chat.c', JSON.stringify(chat));
      });
      await page.reload();
      await page.locator('.chats .pick').click();
      await page.getByText('This message is damaged').waitFor();
      assert.equal(await page.locator('.bubble').innerText(), 'an old question');
      await ask(page, 'hello');
      assert.match(await answered(page), /Hello! I am/);
    },
  },
  {
    name: 'a browser that forbids storage still chats',
    async run({ page }) {
      await page.addInitScript(() => {
        for (const area of ['localStorage', 'sessionStorage'])
          Object.defineProperty(window, area, {
            get() {
              throw new DOMException('denied', 'SecurityError');
            },
          });
      });
      await page.reload();
      await ask(page, 'hello');
      assert.match(await answered(page), /Hello! I am/);
      await button(page, 'Delete hello').click();
      await button(page, 'Really delete hello?').click();
      assert.equal(await page.locator('.chats li').count(), 0);
    },
  },
  {
    name: 'an answer that another tab writes says so until it is there',
    async run({ page, url }) {
      await ask(page, 'hello', 'smollm2-135m-instruct');
      await answered(page);
      const other = await page.context().newPage();
      await other.goto(`${url}/`);
      await other.locator('.chats .pick').click();
      await ask(page, 'count to 2000');
      await lastAnswer(page).locator('.prose').waitFor();
      await lastAnswer(other).getByText('being written in another tab').waitFor();
      await page.keyboard.press('Escape');
      await lastAnswer(other).getByText('stopped').waitFor();
    },
  },
  {
    name: 'when storage is full the oldest chat makes room',
    async run({ page }) {
      await page.evaluate(() => {
        const messages = [{ id: 'm', role: 'user', content: 'x'.repeat(100_000) }];
        for (let i = 0; i < 20; i++) {
          const chat = {
            id: `c${i}`,
            title: `chat ${i}`,
            model: '',
            updated: 1000 + i,
            messages,
          };
          localStorage.setItem(`ashley.chat.c${i}`, JSON.stringify(chat));
        }
        let chunk = 'y'.repeat(1 << 20);
        for (let i = 0; chunk.length > 8; i++) {
          try {
            localStorage.setItem(`other${i}`, chunk);
          } catch {
            chunk = chunk.slice(chunk.length / 2);
          }
        }
      });
      await page.reload();
      await ask(page, 'hello');
      await answered(page);
      const stored = await page.evaluate(() =>
        Object.values(localStorage).some((v) => v.includes('Hello! I am')),
      );
      assert.ok(stored, 'the new chat was stored');
      assert.equal(await page.evaluate(() => localStorage.getItem('ashley.chat.c0')), null);
    },
  },
  {
    name: 'when the server goes the page says so, and goes on when it is back',
    refused: true,
    async run({ page, mock }) {
      await ask(page, 'count to 2000', 'smollm2-135m-instruct');
      await lastAnswer(page).locator('.prose').waitFor();
      await mock.end();
      await page.getByText('The server does not answer').waitFor();
      assert.match(await answered(page), /was cut off/);
      const known = page.locator('.glance .state').first();
      assert.equal(await known.isVisible(), false, 'without the server no state is known');
      await mock.again();
      await page.getByText('The server does not answer').waitFor({ state: 'detached' });
      assert.ok(await known.isVisible());
      await ask(page, 'hello');
      assert.match(await answered(page), /Hello!/);
      assert.equal(await picker(page).inputValue(), 'smollm2-135m-instruct');
    },
  },
  {
    name: 'Enter sends, Shift and Enter begins a line, an empty message is not sent',
    async run({ page, url }) {
      await ready(page);
      await message(page).press('Enter');
      await message(page).pressSequentially('two');
      await message(page).press('Shift+Enter');
      await message(page).pressSequentially('lines');
      await message(page).press('Enter');
      await answered(page);
      const bodies = await requestsTo(url);
      assert.equal(bodies.length, 1);
      assert.equal(bodies[0].messages[0].content, 'two\nlines');
    },
  },
];

/** Who says no to the key question may still read the page, and is told why nothing answers. */
async function ask2(page) {
  await message(page).fill('hello');
  await message(page).press('Enter');
  await page.getByRole('dialog').waitFor();
  await button(page, 'Not now').click();
  await answered(page);
  assert.match(await errorCard(page).innerText(), /wants an API key/);
}
