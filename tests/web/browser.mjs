// Debian's Chromium, driven by playwright-core, with nothing going on in the background.
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const here = dirname(fileURLToPath(import.meta.url));

/** A browser with a profile of its own that goes when it is closed. */
export function openBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-dev-shm-usage',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** Starts mock.py; resolves to {url, end(), again()} when it listens. */
export async function startMock(...args) {
  const child = spawn('python3', [join(here, 'mock.py'), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve) => {
    child.once('exit', resolve);
  });
  const line = await Promise.race([
    new Promise((resolve) => {
      createInterface({ input: child.stdout }).once('line', resolve);
    }),
    ended.then((code) => {
      throw new Error(`mock.py ended with ${code}`);
    }),
  ]);
  const port = line.split(' ').at(-1);
  const mock = {
    url: `http://127.0.0.1:${port}`,
    end() {
      child.kill();
      return ended;
    },
    // At the same address, after end().
    async again() {
      const next = await startMock(...args, '--port', port);
      mock.end = next.end;
    },
  };
  return mock;
}
