// States of models as people see them, and what can be done about them.
import assert from 'node:assert/strict';
import { answered, ask, button, choose, eventually, goOn, lastAnswer, picker, ready } from './steps.mjs';

const open = async (page) => {
  await button(page, /^All \d+ models?$/).click();
  return page.getByRole('dialog', { name: 'Models' });
};
const card = (dialog, id) =>
  dialog.locator('.card', { has: dialog.page().getByRole('heading', { name: id, exact: true }) });

export const modelTests = [
  {
    name: 'every state is shown, with progress, reason and hint',
    async run({ page }) {
      await ready(page);
      const glance = page.locator('.glance');
      assert.match(await glance.innerText(), /platypus-7b\s+62 % · 9 s/);
      assert.match(await glance.innerText(), /broken-model\s+failed/);
      const dialog = await open(page);
      assert.match(
        await card(dialog, 'smollm2-135m-instruct').innerText(),
        /Ready[\s\S]*8,192 tokens of context · 132 MB/,
      );
      assert.match(
        await card(dialog, 'platypus-7b').innerText(),
        /Loading: warming up, 62 %, about 9 s left/,
      );
      assert.equal(
        await card(dialog, 'platypus-7b').getByRole('progressbar').getAttribute('value'),
        '0.62',
      );
      assert.match(
        await card(dialog, 'broken-model').innerText(),
        /Failed[\s\S]*ends at byte 812345[\s\S]*Download it again/,
      );
      assert.match(
        await card(dialog, 'openhermes-2.5-mistral-7b-gptq').innerText(),
        /Not on this machine[\s\S]*ashley pull/,
      );
      assert.match(await card(dialog, 'slow-llama').innerText(), /Loads when first used/);
    },
  },
  {
    name: 'a model is loaded and unloaded, and the page follows live',
    async run({ page }) {
      await ready(page);
      const dialog = await open(page);
      const slow = card(dialog, 'slow-llama');
      await button(dialog, 'Load slow-llama').click();
      await slow.getByText(/^Ready$/).waitFor();
      await button(dialog, 'Unload slow-llama').click();
      await slow.getByText('Loads when first used').waitFor();
      await button(dialog, 'Try again broken-model').click();
      await card(dialog, 'broken-model')
        .getByText(/^Ready$/)
        .waitFor();
    },
  },
  {
    name: 'without /models/sse the page asks again instead',
    refused: true,
    async run({ page, url }) {
      await fetch(`${url}/mock/fail?sse=1`);
      await page.reload();
      await ready(page);
      const dialog = await open(page);
      await button(dialog, 'Load slow-llama').click();
      await card(dialog, 'slow-llama')
        .getByText(/^Ready$/)
        .waitFor({ timeout: 15_000 });
    },
  },
  {
    name: 'who asks a model that is not in memory sees what they wait for',
    async run({ page, url }) {
      await choose(page, 'slow-llama');
      const strip = page.locator('.strip');
      assert.match(await strip.innerText(), /slow-llama loads when first used/);
      await ask(page, 'hello, hold');
      await lastAnswer(page)
        .getByText(/slow-llama loading/)
        .waitFor();
      await lastAnswer(page).getByRole('progressbar').waitFor();
      await goOn(url);
      assert.match(await answered(page), /Hello!/);
      await strip.waitFor({ state: 'detached' });
    },
  },
  {
    name: 'a server that says "still loading" is asked again by itself',
    refused: true,
    async run({ page }) {
      await ask(page, 'not ready yet', 'platypus-7b');
      await lastAnswer(page)
        .getByText(/Asking again in/)
        .waitFor();
      assert.equal(await button(page, 'Ask now').count(), 1);
      await eventually(
        async () => !(await lastAnswer(page).innerText()).includes('Asking again'),
        'it asks again',
        10_000,
      );
      await button(page, 'Stop').click();
      assert.match(await answered(page), /stopped/);
    },
  },
  {
    name: 'the choice begins with what would answer soonest and is kept',
    async run({ page }) {
      await ready(page);
      await eventually(
        async () => (await picker(page).inputValue()) === 'smollm2-135m-instruct',
        'the ready model is chosen',
      );
      assert.equal(
        await picker(page).locator('option[value^=openhermes]').count(),
        0,
        'absent ones are not offered',
      );
      await choose(page, 'ink');
      await page.reload();
      await ready(page);
      assert.equal(await picker(page).inputValue(), 'ink');
    },
  },
  {
    name: 'the models of a real server are listed with their states',
    real: true,
    async run({ page, url }) {
      await ready(page);
      const { data } = await (await fetch(`${url}/v1/models`)).json();
      const dialog = await open(page);
      for (const entry of data.filter((e) => e.owned_by === 'ashley')) {
        const text = await card(dialog, entry.id).innerText();
        const words = {
          loaded: /Ready/,
          loading: /Loading/,
          unloaded: /Loads when first used/,
          failed: /Failed|Not on this machine|Not supported yet|Needs consent/,
        };
        assert.match(
          text,
          words[entry.status.value] ?? /./,
          `${entry.id} is ${entry.status.value}`,
        );
      }
    },
  },
];
