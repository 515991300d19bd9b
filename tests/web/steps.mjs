// What people do with the page, as the tests say it.
import assert from 'node:assert/strict';

export const message = (page) => page.getByRole('textbox', { name: 'Your message' });
export const answers = (page) => page.getByRole('article', { name: 'Answer' });
export const lastAnswer = (page) => answers(page).last();
export const picker = (page) => page.getByRole('combobox', { name: 'Model or persona' });
export const button = (page, name) => page.getByRole('button', { name });

/** The page is drawn and knows its models. */
export async function ready(page) {
  await page.waitForFunction(() => document.querySelectorAll('select option').length > 1);
}

export async function choose(page, id) {
  await ready(page);
  await picker(page).selectOption(id);
}

/** Asks with the model given, or the one that is chosen anyway. */
export async function ask(page, text, id) {
  if (id) await choose(page, id);
  else await ready(page);
  await message(page).fill(text);
  await message(page).press('Enter');
}

/** Waits for the newest answer to be over and gives its text. */
export async function answered(page, timeout) {
  await lastAnswer(page)
    .and(page.locator('[aria-busy=false]'))
    .waitFor(timeout ? { timeout } : {});
  return lastAnswer(page).innerText();
}

/** A real model ends when it likes: here its answers have exactly this many tokens. */
export async function answersOf(page, tokens) {
  await page.route('**/v1/chat/completions', (route) =>
    route.continue({
      postData: JSON.stringify({
        ...route.request().postDataJSON(),
        ignore_eos: true,
        max_tokens: tokens,
      }),
    }),
  );
}

/** Bodies of the chats the mock got; a client that left is {left}. */
export async function requestsTo(url) {
  return (await fetch(`${url}/mock/requests`)).json();
}

/** Lets the mock go on from where it waits for the test to have seen what it shows. */
export const goOn = (url) => fetch(`${url}/mock/go`);

export async function eventually(check, what, ms = 5000) {
  const end = Date.now() + ms;
  for (;;) {
    if (await check()) return;
    assert.ok(Date.now() < end, `in ${ms} ms it did not come about: ${what}`);
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  }
}

/** Nothing reaches out to the right: neither the page nor anything in it that does not scroll itself. */
export async function assertFits(page, where) {
  const over = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const scrolls = (el) => {
      for (let e = el; e; e = e.parentElement) {
        if (/(auto|scroll|hidden)/.test(getComputedStyle(e).overflowX) && e !== document.body) {
          return e.getBoundingClientRect().right <= width + 0.5;
        }
      }
      return false;
    };
    return [...document.querySelectorAll('body *')]
      .filter((e) => {
        const box = e.getBoundingClientRect();
        return (
          box.width &&
          box.right > width + 0.5 &&
          getComputedStyle(e).visibility !== 'hidden' &&
          !scrolls(e)
        );
      })
      .map((e) => `${e.tagName}.${e.className}`)
      .concat(
        // What scrolls up and down must not scroll sideways as well.
        [...document.querySelectorAll('.thread, .chats, dialog')]
          .filter((e) => e.scrollWidth > e.clientWidth)
          .map((e) => `inside ${e.tagName}.${e.className}`),
      )
      .concat(document.documentElement.scrollWidth > width ? ['the page itself'] : []);
  });
  assert.deepEqual(over, [], `${where}: wider than the screen`);
}
